"""A tree from its parents: depths, ancestors, leaves, children."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import const, lib, pointer


class TreeLayout(NamedTuple):
    """What follows from the parents of n nodes.

    Attributes
    ----------
    depths : int32 (n,)
        how many nodes stand above each; the root's is 0
    ancestors : uint64 (n, ceil(n / 64))
        node j is i or above it where bit j % 64 of word j // 64 of row i is set
    leaves : int32 (leaves,)
        nodes without children, ascending
    children : int32 (n - 1,)
        of node i children[child_offsets[i] : child_offsets[i + 1]], ascending
    child_offsets : int32 (n + 1,)
        where each node's children begin, and the last one's end
    """

    depths: np.ndarray
    ancestors: np.ndarray
    leaves: np.ndarray
    children: np.ndarray
    child_offsets: np.ndarray

    @property
    def visible(self) -> np.ndarray:
        """bool (n, n): whether node i sees node j, that is, whether j is i or above it; ancestors, a byte each."""
        octets = self.ancestors.astype("<u8").view(np.uint8)
        return np.unpackbits(octets, axis=1, count=len(octets), bitorder="little").view(bool)


def tree_layout(parents: np.ndarray) -> TreeLayout:
    """Depths, ancestors, leaves and children of a tree in one pass each.

    Parameters
    ----------
    parents : int32 (n,)
        n >= 1: -1 for node 0, the root; of every other node one before it

    Returns
    -------
    TreeLayout

    Raises
    ------
    ArgumentError
        naming the first node whose parent is another (a second root, a node after it: so any cycle)
    """
    parents = as_array("parents", parents, np.int32, ("n",))
    n = len(parents)
    if n == 0:
        raise ArgumentError("parents must have at least one node, the root; got none")
    depths, ancestors = np.empty(n, np.int32), np.empty((n, (n + 63) // 64), np.uint64)
    leaves, children, offsets = np.empty(n, np.int32), np.empty(n - 1, np.int32), np.empty(n + 1, np.int32)
    found = lib.fd_tree_layout(
        n, const(parents), pointer(depths), pointer(ancestors), pointer(leaves), pointer(children), pointer(offsets)
    )
    if found < 0:
        node = -1 - found
        wanted = f"lie in 0..{node - 1}" if node else "be -1, the root"
        raise ArgumentError(f"parents[{node}] must {wanted}, got {parents[node]}")
    return TreeLayout(depths, ancestors, leaves[:found].copy(), children, offsets)
