"""What one pass of training sees: sequences one after another, and what each row is to predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_instance, check_integer
from fastdistill.cached import cached_property
from fastdistill.distill.loss import IGNORED, Loss
from fastdistill.distill.masks.shift_labels import shift_labels
from fastdistill.distill.teachers.teacher_top_k import TopK
from fastdistill.errors import ArgumentError

# (logits float32 (n, vocab), batch, rows int64 (n,) of the batch that they are of, total_weight) -> a Loss whose gradient
# stands in place of the logits; value and gradient are those of a mean over total_weight, so that parts of a batch add up.
Objective = Callable[[np.ndarray, "Batch", np.ndarray, float], Loss]


class Seen(NamedTuple):
    """Where the rows of a batch stand, and which rows of its sequence each of them sees: texts that share a beginning, as one.

    Attributes
    ----------
    positions : np.ndarray int32 (rows,)
        at least 0
    runs : np.ndarray int32 (m, 2)
        rows next to each other: the first, and how many
    run_offsets : np.ndarray int64 (rows + 1,)
        row i sees runs[run_offsets[i] : run_offsets[i + 1]]: rows of its sequence, itself among them, by ascending positions
    """

    positions: np.ndarray
    runs: np.ndarray
    run_offsets: np.ndarray

    @classmethod
    def of(cls, positions: np.ndarray, visible: np.ndarray) -> Seen:
        """From who sees whom.

        Parameters
        ----------
        positions : int32 (rows,)
        visible : bool (rows, rows)
            True where the row sees the column

        Raises
        ------
        ArgumentError
        """
        positions = as_array("positions", positions, np.int32, ("rows",))
        visible = as_array("visible", visible, np.bool_, 2 * positions.shape)
        steps = np.diff(visible.view(np.int8), axis=1, prepend=0, append=0)  # 1 where a run begins, -1 behind its end
        (of, first), (_, end) = np.nonzero(steps > 0), np.nonzero(steps < 0)
        offsets = np.searchsorted(of, np.arange(len(visible) + 1))
        return cls(positions, np.stack([first, end - first], axis=1).astype(np.int32), offsets)

    @classmethod
    def of_parents(cls, parents: np.ndarray) -> Seen:
        """Of trees: a row sees the rows above it and itself, and stands one behind its parent.

        Parameters
        ----------
        parents : int32 (rows,)
            of each row the one before it in its text, a row of less number; -1 for one that begins a text

        Raises
        ------
        ArgumentError
        """
        parents = as_array("parents", parents, np.int32, ("rows",))
        wrong = (parents < -1) | (parents >= np.arange(len(parents)))
        if wrong.any():
            row = int(wrong.argmax())
            raise ArgumentError(f"parents[{row}] must lie in -1..{row - 1}, got {parents[row]}")
        visible = np.eye(len(parents), dtype=bool)
        for row in np.flatnonzero(parents >= 0).tolist():
            visible[row] |= visible[parents[row]]
        return cls.of(visible.sum(axis=1, dtype=np.int32) - 1, visible)

    def part(self, first: int, last: int) -> Seen:
        """Of the rows first to last - 1 alone: whole sequences."""
        begin, end = self.run_offsets[[first, last]].tolist()
        runs = self.runs[begin:end] - np.array([first, 0], np.int32)
        return Seen(self.positions[first:last], runs, self.run_offsets[first : last + 1] - begin)


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences one after another, without padding; a row sees its own sequence up to itself, or what `seen` says.

    Parameters
    ----------
    tokens : int32 (rows,)
    starts : int64 (sequences + 1,)
        rows of sequence s: starts[s] to starts[s + 1], at least one
    labels : int32 (rows,)
        the token that each row is to predict, shifted already; IGNORED (-100) where it is to predict none
    weights : float32 (rows,)
        of the rows in the objective, at least 0; 0 where the label is IGNORED
    teacher : TopK of (rows, k), optional
        what a teacher says of each row
    seen : Seen, optional
        where rows stand and what they see; None: one after another, and what the model lets them see

    Raises
    ------
    ArgumentError
    """

    tokens: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    teacher: TopK | None = None
    seen: Seen | None = None

    def __post_init__(self) -> None:
        for name, dtype, axis in (
            ("tokens", np.int32, "rows"),
            ("starts", np.int64, "sequences + 1"),
            ("labels", np.int32, len(self)),
            ("weights", np.float32, len(self)),
        ):
            object.__setattr__(self, name, as_array(name, getattr(self, name), dtype, (axis,)))
        ends = self.starts[[0, -1]].tolist() if len(self.starts) else []
        if ends != [0, len(self)] or (np.diff(self.starts) < 1).any():
            raise ArgumentError(f"starts must go up from 0 to the {len(self)} rows, got {self.starts.tolist()[:8]}")
        wrong = ~(np.isfinite(self.weights) & (self.weights >= 0)) | (self.weights > 0) & (self.labels == IGNORED)
        if wrong.any():
            row = int(wrong.argmax())
            raise ArgumentError(
                f"weights must be finite, at least 0, and 0 where labels are {IGNORED}; "
                f"got {self.weights[row]} with label {self.labels[row]} in row {row}"
            )
        if self.teacher is not None and len(self.teacher.ids) != len(self):
            raise ArgumentError(f"teacher must have {len(self)} rows, got {len(self.teacher.ids)}")
        if self.seen is not None:
            object.__setattr__(self, "seen", _checked(self.seen, self.starts))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def sequences(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 (sequences,): rows of each."""
        return np.diff(self.starts)

    @cached_property
    def positions(self) -> np.ndarray:
        """int32 (rows,): of each row in its sequence, from 0, or those of `seen`."""
        if self.seen is not None:
            return self.seen.positions
        return (np.arange(len(self)) - np.repeat(self.starts[:-1], self.lengths)).astype(np.int32)

    @cached_property
    def weight(self) -> float:
        """The sum of weights, exact and rounded once."""
        return math.fsum(self.weights.tolist())

    def part(self, first: int, last: int) -> Batch:
        """The Batch of the sequences first to last - 1: views of this one's arrays.

        Raises
        ------
        ArgumentError
        """
        last = check_integer("last", last, 0, self.sequences)
        first = check_integer("first", first, 0, last)
        rows = slice(*self.starts[[first, last]].tolist())
        teacher = self.teacher and TopK(*(array[rows] for array in self.teacher))
        starts = self.starts[first : last + 1] - rows.start
        seen = self.seen and self.seen.part(rows.start, rows.stop)
        return Batch(self.tokens[rows], starts, self.labels[rows], self.weights[rows], teacher, seen)

    def split(self, rows: int) -> Iterator[Batch]:
        """Batches of at most so many rows, or of one longer sequence: these sequences, in this order.

        Raises
        ------
        ArgumentError
        """
        rows = check_integer("rows", rows, 1, 2**31 - 1)
        first = 0
        while first < self.sequences:
            last = int(np.searchsorted(self.starts, self.starts[first] + rows, "right")) - 1
            last = max(last, first + 1)
            yield self.part(first, last)
            first = last


def _checked(seen: Seen, starts: np.ndarray) -> Seen:
    """What rows see, as arrays; refused where a list is not ascending, leaves its sequence, or lacks its own row."""
    check_instance("seen", seen, Seen)
    rows = int(starts[-1])
    positions = as_array("seen.positions", seen.positions, np.int32, (rows,))
    runs = as_array("seen.runs", seen.runs, np.int32, ("runs", 2))
    offsets = as_array("seen.run_offsets", seen.run_offsets, np.int64, (rows + 1,))
    if positions.size and positions.min() < 0:
        raise ArgumentError(f"seen.positions must be at least 0, got {positions.min()} in row {positions.argmin()}")
    if offsets[[0, -1]].tolist() != [0, len(runs)] or (np.diff(offsets) < 1).any():
        raise ArgumentError(f"seen.run_offsets must go up from 0 to the {len(runs)} runs, got {offsets.tolist()[:8]}")
    of = np.repeat(np.arange(rows), np.diff(offsets))  # of each run, the row that sees it
    sequence = np.repeat(np.arange(len(starts) - 1), np.diff(starts))[of]
    first, end = runs[:, 0].astype(np.int64), runs.sum(axis=1, dtype=np.int64)
    outside = (runs[:, 1] < 1) | (first < starts[sequence]) | (end > starts[sequence + 1])
    _refuse_runs(outside, runs, of, "must be rows of its sequence, one at least")
    falls = np.cumsum(
        np.diff(positions, prepend=-1) <= 0
    )  # up to each row, positions that are not above the one before
    falling = falls[end - 1] > falls[first]
    falling[1:] |= (of[1:] == of[:-1]) & (positions[first[1:]] <= positions[end[:-1] - 1])
    _refuse_runs(falling, runs, of, "must have positions that ascend, as those of all that it sees")
    alone = ~np.logical_or.reduceat((first <= of) & (of < end), offsets[:-1]) if rows else np.empty(0, bool)
    if alone.any():
        raise ArgumentError(f"seen.runs must show each row itself, row {alone.argmax()} does not see itself")
    return Seen(positions, runs, offsets)


def _refuse_runs(wrong: np.ndarray, runs: np.ndarray, of: np.ndarray, wanted: str) -> None:
    if wrong.any():
        run = int(wrong.argmax())
        raise ArgumentError(f"seen.runs[{run}], which row {of[run]} sees, {wanted}; got {runs[run].tolist()}")


def batch_of(
    sequences: Sequence[np.ndarray], counted: Sequence[np.ndarray] | None = None, teacher: TopK | None = None
) -> Batch:
    """The Batch of whole sequences: row i is to predict token i + 1 of its own, the last row nothing.

    Parameters
    ----------
    sequences : sequence of int32 (length,)
        each of at least one token
    counted : sequence of bool or float (length,), optional
        of each token, how much it counts as what is predicted; the first token of a sequence never is.  None: ones
    teacher : TopK, optional
        of all rows

    Raises
    ------
    ArgumentError
    """
    sequences = [as_array(f"sequence {number}", each, np.int32, ("length",)) for number, each in enumerate(sequences)]
    lengths = [len(sequence) for sequence in sequences]
    if counted is not None and [len(each) for each in counted] != lengths:
        raise ArgumentError(f"counted must have the lengths of the sequences, {lengths[:8]}")
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    tokens = np.concatenate([np.empty(0, np.int32), *sequences])
    labels = shift_labels(tokens, np.repeat(np.arange(len(lengths), dtype=np.int32), lengths))
    weights = np.zeros(len(tokens), np.float32)
    weights[:-1] = 1 if counted is None else np.concatenate([np.empty(0), *counted])[1:]
    weights[labels == IGNORED] = 0
    labels[weights == 0] = IGNORED
    return Batch(tokens, starts, labels, weights, teacher)


def nothing_to_learn(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """labels int32 (rows,) and weights float32 (rows,) of rows that predict nothing yet."""
    return np.full(rows, IGNORED, np.int32), np.zeros(rows, np.float32)
