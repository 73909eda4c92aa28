"""Rows that have been given to a session but not yet kept: a forest of nodes over the committed context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastdistill.arguments import check_integer, check_integers
from fastdistill.errors import ArgumentError
from fastdistill.messages import short


@dataclass(frozen=True)
class Pending:
    """Pending rows, one array entry a row; rows and nodes are numbered from the oldest pending one.

    Attributes
    ----------
    tokens : int32 (rows,)
        -1 where a row was given as `inputs`
    positions : int32 (rows,)
    nodes : int32 (rows,)
        ascending by first appearance
    parents : tuple[int, ...]
        of each node: an older node, or -1
    seen : tuple[tuple[tuple[int, int], ...], ...]
        of each node: the rows it sees, as runs of (start, length)
    ascending : bool
        no row has a smaller position than one before it in what it sees
    layers : int
        how many layers the rows have run through
    hides : tuple[int, int]
        committed rows [start, end) that they do not see and whose place they take
    streams : float32 (rows, hidden_size) or None
        where they stopped before the last layer; else None
    """

    tokens: np.ndarray
    positions: np.ndarray
    nodes: np.ndarray
    parents: tuple[int, ...]
    seen: tuple[tuple[tuple[int, int], ...], ...]
    ascending: bool
    layers: int
    hides: tuple[int, int]
    streams: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return len(self.tokens)

    def seen_by(self, node: int) -> np.ndarray:
        """Rows of the node's ancestors, oldest first, and of the node."""
        return np.array(self._rows_seen(node))

    def _rows_seen(self, node: int) -> list[int]:
        return [row for start, length in self.seen[node] for row in range(start, start + length)]

    def extended(
        self,
        tokens: np.ndarray,
        nodes: Any,
        parents: Any,
        positions: np.ndarray | None,
        base: int,
    ) -> Pending:
        """With further rows.  `base` is the position that follows the visible context; defaults as in Session.forward."""
        m, old = len(tokens), len(self.parents)
        if nodes is None:
            new_nodes, count = np.arange(old, old + m, dtype=np.int32), m
        else:
            new_nodes = check_integers("nodes", nodes, old, old + m - 1)
            if len(new_nodes) != m:
                raise ArgumentError(f"nodes must have one entry a row, {m}, got {len(new_nodes)}")
            count = int(new_nodes.max()) + 1 - old
            if len(np.unique(new_nodes)) != count:
                raise ArgumentError(
                    f"nodes must use every number from {old} to {old + count - 1}, got {short(new_nodes)}"
                )
        if parents is None:
            if self.rows:
                raise ArgumentError("rows are pending: name the parents of further ones")
            parents = range(-1, count - 1)
        checked = check_integers("parents", parents, -1, old + count - 2, empty=True).tolist()
        if len(checked) != count:
            raise ArgumentError(f"parents must have one entry a new node, {count}, got {len(checked)}")
        for i, parent in enumerate(checked):
            if parent >= old + i:
                check_integer(f"parents[{i}]", parent, -1, old + i - 1)
        first = self.rows
        members: list[list[int]] = [[] for _ in range(count)]
        for row, node in enumerate(new_nodes.tolist(), first):
            members[node - old].append(row)
        places = [*self.positions.tolist(), *(range(m) if positions is None else positions.tolist())]
        seen, depths = list(self.seen), [sum(length for _, length in runs) for runs in self.seen]
        ascending = self.ascending
        for parent, own in zip(checked, members, strict=True):
            runs, depth = (seen[parent], depths[parent]) if parent >= 0 else ((), 0)
            for row in own:
                if positions is None:
                    places[row] = base + depth
                start, length = runs[-1] if runs else (row, 0)
                ascending = ascending and (not length or places[start + length - 1] <= places[row])
                runs = (*runs[:-1], (start, length + 1)) if start + length == row else (*runs, (row, 1))
                depth += 1
            seen.append(runs)
            depths.append(depth)
        return replace(
            self,
            tokens=np.concatenate([self.tokens, tokens]),
            positions=np.array(places, np.int32),
            nodes=np.concatenate([self.nodes, new_nodes]),
            parents=self.parents + tuple(checked),
            seen=tuple(seen),
            ascending=ascending,
        )

    def is_text(self, path: Sequence[int]) -> bool:
        """Whether each row of a path is alone in its node, and so are those it sees: they have read as a text is read."""
        nodes = self.nodes[path].tolist()
        return not nodes or len(set(nodes)) == len(path) == sum(length for _, length in self.seen[nodes[-1]])

    def check_path(self, kept: Sequence[int]) -> None:
        """Refuse rows that are not one path: each must see those kept before it, and be kept after all that it sees."""
        if not kept or kept == self._rows_seen(int(self.nodes[kept[-1]])):
            return
        seen: set[int] = set()
        for row in kept:
            node = int(self.nodes[row])
            if row in seen:
                raise ArgumentError(f"keep got row {row} twice")
            visible = set(self._rows_seen(node))
            if not seen <= visible:
                raise ArgumentError(f"keep got row {row} after row {min(seen - visible)}, which it does not see")
            missing = {other for other in visible - seen if self.nodes[other] != node}
            if missing:
                raise ArgumentError(f"keep got row {row} without row {min(missing)}, which it sees, before it")
            seen.add(row)


def pending_over(pending: Pending | None, replace: Any, length: int, layers: int) -> Pending:
    """The rows that further ones join: those pending, or none yet over what `replace` leaves of `length` committed rows."""
    if pending is None:
        return nothing_pending(_hides(replace, length), layers)
    if replace is not None and _hides(replace, length) != pending.hides:
        raise ArgumentError(f"replace must be {pending.hides}, as of the rows that are pending, got {short(replace)}")
    return pending


def _hides(replace: Any, length: int) -> tuple[int, int]:
    if replace is None:
        return length, length
    begin, end = check_pair("replace", "(start, end)", replace)
    start = check_integer("replace's start", begin, 0, length)
    return start, check_integer("replace's end", end, start, length)


def check_pair(name: str, form: str, value: Any) -> tuple[Any, Any]:
    """The two of a tuple, a list or an array."""
    if not isinstance(value, (tuple, list, np.ndarray)) or getattr(value, "ndim", 1) != 1 or len(value) != 2:
        raise ArgumentError(f"{name} must be {form}, got {short(value)}")
    return value[0], value[1]


def nothing_pending(hides: tuple[int, int], layers: int) -> Pending:
    """No rows yet."""
    empty = np.empty(0, np.int32)
    return Pending(empty, empty, empty, (), (), True, layers, hides)
