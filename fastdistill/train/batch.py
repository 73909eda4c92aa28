"""What one pass of training sees: sequences one after another, and what each row is to predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastdistill.arguments import as_array, check_integer
from fastdistill.distill.loss import IGNORED, Loss
from fastdistill.distill.masks.shift_labels import shift_labels
from fastdistill.distill.teachers.teacher_top_k import TopK
from fastdistill.errors import ArgumentError

# (logits float32 (n, vocab), batch, rows int64 (n,) of the batch that they are of, total_weight) -> a Loss whose gradient
# stands in place of the logits; value and gradient are those of a mean over total_weight, so that parts of a batch add up.
Objective = Callable[[np.ndarray, "Batch", np.ndarray, float], Loss]


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences one after another, without padding; a row sees its own sequence up to itself.

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

    Raises
    ------
    ArgumentError
    """

    tokens: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    teacher: TopK | None = None

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
        """int32 (rows,): of each row in its sequence, from 0."""
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
        return Batch(self.tokens[rows], starts, self.labels[rows], self.weights[rows], teacher)

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
