"""Who sees whom: nodes and parents -> for each node the slots it sees, in position order, as runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def runs_of(slots: np.ndarray) -> np.ndarray:
    """Slots in order -> int32 (runs, 2): start and length of each run of neighbours."""
    starts = np.flatnonzero(np.diff(slots, prepend=slots[0] - 2) != 1)
    lengths = np.diff(starts, append=len(slots))
    return np.stack([slots[starts], lengths], axis=1).astype(np.int32)


def chain_runs(length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs and offsets of `rows` new rows in sequence, after `length` committed ones: row i sees slots 0 .. length + i."""
    runs = np.zeros((rows, 2), np.int32)
    runs[:, 1] = np.arange(length + 1, length + rows + 1)
    return runs, np.arange(rows + 1, dtype=np.int64)


def without(forgotten: int, runs: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs and offsets of the same lists without slots 0 .. forgotten - 1; of each list something is left."""
    if not forgotten:
        return runs, offsets
    starts, ends = np.maximum(runs[:, 0], forgotten), runs.sum(axis=1, dtype=np.int32)
    left = ends > starts
    counts = np.concatenate([[0], np.cumsum(left)])
    return np.stack([starts, ends - starts], axis=1)[left], counts[offsets]


def lineage_runs(
    context: int, first: int, lineages: Iterable[Sequence[tuple[int, int]]]
) -> tuple[np.ndarray, np.ndarray]:
    """Runs and offsets of nodes that see slots 0 .. context - 1 and behind them, each, runs of rows; row 0 lies in slot `first`."""
    numbers: list[int] = []
    offsets, before = [0], (-first, context) if context else ()
    for lineage in lineages:
        numbers += before
        for run in lineage:
            numbers += run
        offsets.append(len(numbers) // 2)
    runs = np.array(numbers, np.int32).reshape(-1, 2)
    runs[:, 0] += first
    return runs, np.array(offsets, np.int64)


def node_runs(
    context_slots: np.ndarray,
    context_positions: np.ndarray,
    extras: Sequence[tuple[np.ndarray, np.ndarray]],
    insert: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs and offsets of nodes that see the context and, each, its own extra rows, whatever their positions.

    Parameters
    ----------
    context_slots, context_positions : np.ndarray (n,)
        what every node sees, in the order it was committed
    extras : Sequence[tuple[np.ndarray, np.ndarray]]
        for each node the slots and positions of its ancestors' rows and its own, in order
    insert : int
        before which row of the context the extras will stand once they are kept: among equal positions the order is
        that of the sequence, now as then
    """
    lists = []
    for slots, positions in extras:
        sequence = np.insert(context_slots, insert, slots)
        order = np.argsort(np.insert(context_positions, insert, positions), kind="stable")
        lists.append(runs_of(sequence[order]))
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return np.ascontiguousarray(np.concatenate(lists)), offsets
