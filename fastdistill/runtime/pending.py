"""Rows that have been given to a session but not yet kept: a forest of nodes over the committed context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import check_integer, check_integers


@dataclass(frozen=True)
class Pending:
    """Pending rows, one array entry a row; rows and nodes are numbered from the oldest pending one."""

    tokens: np.ndarray  # int32, -1 where a row was given as `inputs`
    positions: np.ndarray  # int32
    nodes: np.ndarray  # int32, ascending by first appearance
    parents: tuple[int, ...]  # of each node: an older node, or -1
    layers: int  # how many layers the rows have run through
    hides: tuple[int, int]  # committed rows [start, end) that they do not see and whose place they take
    streams: np.ndarray | None = None  # float32 (rows, hidden_size): where they stopped before the last layer

    @property
    def rows(self) -> int:
        return len(self.tokens)

    def lineage(self, node: int) -> list[int]:
        """The node's ancestors and the node, oldest first."""
        path = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return path[::-1]

    def seen_by(self, node: int) -> np.ndarray:
        """Rows of the node's ancestors, oldest first, and of the node."""
        return np.concatenate([np.flatnonzero(self.nodes == member) for member in self.lineage(node)])

    def extended(
        self,
        tokens: np.ndarray,
        nodes: Sequence[int] | None,
        parents: Sequence[int] | None,
        positions: np.ndarray | None,
        base: int,
    ) -> Pending:
        """With further rows.  `base` is the position that follows the visible context; defaults as in Session.forward."""
        m, old = len(tokens), len(self.parents)
        if nodes is None:
            new_nodes = np.arange(old, old + m, dtype=np.int32)
        else:
            new_nodes = check_integers("nodes", nodes, old, old + m - 1)
            if len(new_nodes) != m:
                raise ArgumentError(f"nodes must have one entry a row, {m}, got {len(new_nodes)}")
        count = int(new_nodes.max()) + 1 - old
        if len(np.unique(new_nodes)) != count:
            raise ArgumentError(
                f"nodes must use every number from {old} to {old + count - 1}, got {new_nodes.tolist()}"
            )
        if parents is None:
            if self.rows:
                raise ArgumentError("rows are pending: name the parents of further ones")
            parents = range(-1, count - 1)
        checked = check_integers("parents", parents, -1, old + count - 2, empty=True).tolist()
        if len(checked) != count:
            raise ArgumentError(f"parents must have one entry a new node, {count}, got {len(checked)}")
        for i, parent in enumerate(checked):
            check_integer(f"parents[{i}]", parent, -1, old + i - 1)
        longer = replace(
            self,
            tokens=np.concatenate([self.tokens, tokens]),
            nodes=np.concatenate([self.nodes, new_nodes]),
            parents=self.parents + tuple(checked),
        )
        if positions is None:
            sizes = np.bincount(longer.nodes, minlength=len(longer.parents))
            positions = np.empty(m, np.int32)
            for node in range(old, old + count):
                depth = sum(int(sizes[ancestor]) for ancestor in longer.lineage(node)[:-1])
                members = np.flatnonzero(new_nodes == node)
                positions[members] = base + depth + np.arange(len(members))
        return replace(longer, positions=np.concatenate([self.positions, positions]))

    def single_rows(self, rows: Sequence[int]) -> bool:
        """Whether each of these rows is alone in its node, and so are those it sees: they have read as a text is read."""
        return all(len(self.seen_by(int(self.nodes[row]))) == len(self.lineage(int(self.nodes[row]))) for row in rows)

    def check_path(self, kept: Sequence[int]) -> None:
        """Refuse rows that are not one path: each must see those kept before it, and be kept after all that it sees."""
        seen: set[int] = set()
        for row in kept:
            node = int(self.nodes[row])
            if row in seen:
                raise ArgumentError(f"keep got row {row} twice")
            visible = set(self.seen_by(node).tolist())
            if not seen <= visible:
                raise ArgumentError(f"keep got row {row} after row {min(seen - visible)}, which it does not see")
            missing = {other for other in visible - seen if self.nodes[other] != node}
            if missing:
                raise ArgumentError(f"keep got row {row} without row {min(missing)}, which it sees, before it")
            seen.add(row)


def nothing_pending(hides: tuple[int, int], layers: int) -> Pending:
    """No rows yet."""
    empty = np.empty(0, np.int32)
    return Pending(empty, empty, empty, (), layers, hides)
