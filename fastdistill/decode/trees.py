"""Shapes of token trees: the best static tree for measured acceptance, and what a tree is worth.

Acceptance is a table a[level, rank], or one row for every level: once a node is accepted, the probability that of its
children the one with the drafter's token number `rank` is accepted. Children exclude one another, so a row sums to 1 at
most. From probabilities h that a rank is accepted once the ranks before it were rejected, a[rank] = h[rank] prod over
j < rank of (1 - h[j]).

A node is worth the product of a along its path, and a tree 1 (the token that every round ends in) plus the sum over its
nodes. Source: Chen et al. 2024, Sequoia, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastdistill.arguments import check_array, check_integer, check_numbers
from fastdistill.errors import ArgumentError
from fastdistill.messages import short

_SLACK = 1e-6  # by which a row's sum may exceed 1: roundings of measured rates


class StaticTree(NamedTuple):
    """A tree for every round, level by level: node i is its parent's child with the drafter's token number ranks[i].

    Attributes
    ----------
    parents : int32 (n,)
        an earlier node; -1: a child of the seed
    ranks : int32 (n,)
        0 for the drafter's best token, 1 for its second, ...
    expected : float
        tokens a round
    """

    parents: np.ndarray
    ranks: np.ndarray
    expected: float

    @property
    def width(self) -> int:
        """Most children of a node."""
        return int(np.bincount(self.parents + 1, minlength=1).max())


@dataclass(frozen=True)
class Tree:
    """A tree that grows anew each round where the drafter is surest (EAGLE-2), up to the budget of the round.

    Parameters
    ----------
    width : int, default 4
        nodes that are looked into on each level, and most children of each
    depth : int, default 4
        levels

    Raises
    ------
    ArgumentError
    """

    width: int = 4
    depth: int = 4

    def __post_init__(self) -> None:
        check_integer("width", self.width, 1, 16)
        check_integer("depth", self.depth, 1, 64)


def static_tree(acceptance: np.ndarray, budget: int, depth: int) -> StaticTree:
    """The tree of at most `budget` nodes and `depth` levels, the seed not counted, that is worth the most.

    Nodes that add nothing are left out. Where ranks are accepted less and less often, a node's children have the first
    ranks.

    Parameters
    ----------
    acceptance : float (ranks,) or (depth, ranks)
        row 0 that of the seed's children
    budget : int
        0..1024
    depth : int
        0..64

    Raises
    ------
    ArgumentError

    References
    ----------
    Sequoia's dynamic programme: T(n, D) = 1 + max over the splits of n - 1 of sum over k of a[k] T(n[k], D - 1)
    """
    budget, depth = check_integer("budget", budget, 0, 1024), check_integer("depth", depth, 0, 64)
    table = _table(acceptance, depth)[:budget]  # a path has no more levels than nodes
    levels, ranks = table.shape
    sizes = np.arange(budget + 1)
    # Of a subtree of at most m nodes, its root at a level: what it is worth, in units of its root, from the last level up.
    worth = np.minimum(sizes, 1).astype(np.float64)
    shares = np.zeros((levels, ranks, budget + 1), np.int32)  # of m nodes for ranks k and on: those that rank k gets
    for level in reversed(range(levels)):
        rest = np.zeros(budget + 1)  # what the ranks after this one make of m nodes
        for rank in reversed(range(ranks)):
            gain = table[level, rank] * worth
            best = np.empty(budget + 1)
            for m in sizes:
                options = gain[: m + 1] + rest[m::-1]
                share = options.argmax()  # the fewest nodes that do
                shares[level, rank, m], best[m] = share, options[share]
            rest = best
        worth = np.append(0.0, 1 + rest[:-1])
    expected = 1 + rest[budget] if levels else 1.0
    parents: list[int] = []
    chosen: list[int] = []
    waiting = [(-1, 0, budget)]
    for node, level, left in waiting:  # grows on the way: level by level
        for rank in range(ranks if level < levels else 0):
            share = int(shares[level, rank, left])
            left -= share
            if share:
                waiting.append((len(parents), level + 1, share - 1))
                parents.append(node)
                chosen.append(rank)
    return StaticTree(np.array(parents, np.int32), np.array(chosen, np.int32), float(expected))


def expected_tokens(parents: np.ndarray, ranks: np.ndarray, acceptance: np.ndarray) -> float:
    """Tokens a round with this tree: 1, and for each node the product of the acceptances along its path.

    Parameters
    ----------
    parents : int32 (n,)
        of each node one before it, or -1 for a child of the seed
    ranks : int32 (n,)
        no two children of a node have the same
    acceptance : float (ranks,) or (levels, ranks)
        with a row for each level of the tree

    Raises
    ------
    ArgumentError
        naming the node
    """
    (n,) = check_array("parents", parents, np.int32, (None,))
    check_array("ranks", ranks, np.int32, (n,))
    table = _table(acceptance, None)
    levels, worth = np.zeros(n, np.int64), np.empty(n)
    taken: dict[tuple[int, int], int] = {}
    for node, (parent, rank) in enumerate(zip(parents.tolist(), ranks.tolist(), strict=True)):
        if not -1 <= parent < node:
            raise ArgumentError(f"parents[{node}] must lie in -1..{node - 1}, got {parent}")
        if not 0 <= rank < table.shape[1]:
            raise ArgumentError(f"ranks[{node}] must lie in 0..{table.shape[1] - 1}, got {rank}")
        if (other := taken.setdefault((parent, rank), node)) != node:
            raise ArgumentError(f"ranks[{node}] must differ from that of its sibling {other}, got {rank} for both")
        levels[node] = 0 if parent < 0 else levels[parent] + 1
        if np.ndim(acceptance) == 2 and levels[node] >= len(table):
            raise ArgumentError(
                f"acceptance must have a row for each level, got {len(table)}; node {node} needs one more"
            )
        worth[node] = table[levels[node] % len(table), rank] * (1.0 if parent < 0 else worth[parent])
    return 1.0 + float(worth.sum())


def _table(acceptance: np.ndarray, depth: int | None) -> np.ndarray:
    """acceptance as float64 (depth, ranks), checked; without a depth, the rows that it has."""
    what = "numbers of shape (ranks,) or (depth, ranks)"
    table = check_numbers("acceptance", acceptance, what, empty=True)
    if table.ndim not in (1, 2) or table.shape[-1] == 0:
        raise ArgumentError(f"acceptance must be {what}, got {short(acceptance)}")
    if table.ndim == 1:
        table = np.tile(table, (1 if depth is None else depth, 1))
    if depth is not None and len(table) != depth:
        raise ArgumentError(f"acceptance must have {depth} rows, one a level, got {len(table)}")
    if not ((table >= 0) & (table <= 1)).all():
        raise ArgumentError(f"acceptance must lie in 0..1, got {table[~((table >= 0) & (table <= 1))][0]:g}")
    if (table.sum(axis=1) > 1 + _SLACK).any():
        raise ArgumentError(
            f"acceptance must sum to 1 or less over the ranks, which exclude one another; got {table.sum(axis=1).max():g}"
        )
    return table
