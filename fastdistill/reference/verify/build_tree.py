"""What `kernels.build_tree` means."""

from __future__ import annotations

import numpy as np


def build_tree(parents, scores, budget):
    """The `budget` best nodes of a pool (n,), closed under parents: nodes and parents, each (m,).

    A node counts with the lowest score of its path; ties go to the lowest index.
    """
    counted = scores.copy()
    for node, parent in enumerate(parents):
        if parent >= 0:
            counted[node] = min(counted[node], counted[parent])
    nodes = np.sort(np.argsort(-counted, kind="stable")[:budget])
    place = {-1: -1} | {int(node): new for new, node in enumerate(nodes)}
    return nodes.astype(np.int32), np.array([place[int(parents[node])] for node in nodes], np.int32)
