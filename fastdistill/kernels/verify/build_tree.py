"""The best nodes of a pool of drafted ones, as one tree."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_integer
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import const, lib, pointer


class BuiltTree(NamedTuple):
    """Nodes kept of a pool.

    Attributes
    ----------
    nodes : int32 (m,)
        pool indices, ascending
    parents : int32 (m,)
        places in `nodes`, each before its child; -1: a child of the seed
    """

    nodes: np.ndarray
    parents: np.ndarray


def build_tree(parents: np.ndarray, scores: np.ndarray, budget: int) -> BuiltTree:
    """The `budget` best nodes by score, ties to the lowest index, closed under parents.

    A node counts with the lowest score of its path: in exact arithmetic its own.

    Parameters
    ----------
    parents : int32 (n,)
        of each node one before it, or -1 for a child of the seed, which is not in the pool
    scores : float32 (n,)
        cumulative log probabilities; -inf is the worst
    budget : int
        1 or more

    Returns
    -------
    BuiltTree
        m = min(budget, n)

    Raises
    ------
    ArgumentError
        naming the first node whose parent is another
    NotFiniteError
        when a score is NaN or +inf

    References
    ----------
    Li et al. 2024, EAGLE-2, section 4.2
    """
    parents = as_array("parents", parents, np.int32, ("n",))
    n = len(parents)
    scores = as_array("scores", scores, np.float32, (n,))
    kept = min(check_integer("budget", budget, 1, 2**31 - 1), n)
    if not (scores < np.inf).all():
        node = int(np.argmin(scores < np.inf))
        raise NotFiniteError(f"build_tree: a score is NaN or +inf: scores[{node}] = {scores[node]}")
    nodes, kept_parents, workspace = np.empty(kept, np.int32), np.empty(kept, np.int32), np.empty(n + kept, np.uint64)
    found = lib.fd_build_tree(
        n, const(parents), const(scores), kept, pointer(nodes), pointer(kept_parents), pointer(workspace)
    )
    if found < 0:
        node = -1 - found
        raise ArgumentError(f"parents[{node}] must lie in -1..{node - 1}, got {parents[node]}")
    return BuiltTree(nodes, kept_parents)
