"""What `kernels.tree_layout` means."""

from __future__ import annotations

import numpy as np


def tree_layout(parents):
    """depths (n,), ancestors (n, ceil(n / 64)) as bits, leaves, children and child_offsets of the tree of parents (n,)."""
    n = len(parents)
    depths, is_ancestor = np.zeros(n, np.int32), np.eye(n, dtype=bool)
    children = [np.nonzero(parents == node)[0] for node in range(n)]
    for node in range(1, n):
        depths[node] = depths[parents[node]] + 1
        is_ancestor[node] |= is_ancestor[parents[node]]
    bits = np.zeros((n, (n + 63) // 64 * 64), np.uint8)
    bits[:, :n] = is_ancestor
    ancestors = np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    leaves = [node for node in range(n) if not children[node].size]
    offsets = np.cumsum([0, *(len(nodes) for nodes in children)])
    return (
        depths,
        ancestors,
        np.array(leaves, np.int32),
        np.concatenate(children).astype(np.int32),
        offsets.astype(np.int32),
    )
