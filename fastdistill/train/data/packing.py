"""The batches of a run: number n is a function of the data, the seed and n, so that a run that resumes needs n alone."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastdistill.arguments import check_instance, check_integer
from fastdistill.distill.teachers.teacher_file import TeacherFile
from fastdistill.distill.teachers.teacher_top_k import TopK
from fastdistill.errors import ArgumentError, DataError
from fastdistill.train.batch import Batch
from fastdistill.train.data.chance import SHUFFLE, words
from fastdistill.train.data.dataset import Dataset

MOST = 2**31 - 1


class Drawn(NamedTuple):
    """The sequences of a batch.

    Attributes
    ----------
    sequences : np.ndarray int64 (n,)
        of the dataset, in the batch's order
    epoch : int
        from 0
    first : int
        how many sequences of the epoch come before them
    """

    sequences: np.ndarray
    epoch: int
    first: int


class Batches:
    """`batches[n]` is the n-th Batch of a run, from 0 without an end: every epoch has each sequence once, in an order of its own.

    A batch takes whole sequences while they fit; there is no padding.

    Parameters
    ----------
    data : Dataset
    rows : int
        most of a batch
    seed : int, default 0
        64 bits
    prompts : bool, default False
        sequences without anything to predict, prompts alone, are drawn too
    teacher : TeacherFile, optional
        of this dataset (`open_teacher_file`): batches have its rows

    Raises
    ------
    ArgumentError
    DataError
        for data without anything to draw
    """

    def __init__(
        self, data: Dataset, rows: int, *, seed: int = 0, prompts: bool = False, teacher: TeacherFile | None = None
    ) -> None:
        check_instance("data", data, Dataset)
        self.data, self.rows, self.seed = (
            data,
            check_integer("rows", rows, 1, MOST),
            check_integer("seed", seed, 0, 2**64 - 1),
        )
        self.teacher = teacher
        if teacher is not None and len(teacher) != len(data.tokens):
            raise ArgumentError(f"teacher must have the data's {len(data.tokens)} rows, got {len(teacher)}")
        drawn = data.predicted > 0
        if prompts:
            drawn |= data.prompts > 0
        self._drawn = np.flatnonzero(drawn)
        if not len(self._drawn):
            raise DataError(f"none of {len(data)} sequences has anything to {'go on from' if prompts else 'predict'}")
        longest = int(data.lengths[self._drawn].max())
        if longest > self.rows:
            raise ArgumentError(f"rows must be at least the {longest} tokens of the longest sequence, got {rows}")
        self._ends = [0]  # how many batches there are up to each epoch
        self._epoch = lru_cache(2)(self._packed)

    def count(self, epochs: int = 1) -> int:
        """How many batches the first epochs have."""
        epochs = check_integer("epochs", epochs, 0, MOST)
        while len(self._ends) <= epochs:
            self._ends.append(self._ends[-1] + len(self._epoch(len(self._ends) - 1)[1]) - 1)
        return self._ends[epochs]

    @property
    def per_epoch(self) -> int:
        """Sequences that an epoch draws."""
        return len(self._drawn)

    def drawn(self, number: int) -> Drawn:
        """Which sequences batch `number` has."""
        number = check_integer("number", number, 0, 2**63 - 1)
        while self._ends[-1] <= number:
            self.count(len(self._ends))
        epoch = bisect_right(self._ends, number) - 1
        order, bounds = self._epoch(epoch)
        at = number - self._ends[epoch]
        return Drawn(order[bounds[at] : bounds[at + 1]], epoch, int(bounds[at]))

    def __getitem__(self, number: int) -> Batch:
        sequences = self.drawn(number).sequences
        batch = self.data.batch(sequences)
        if self.teacher is None:
            return batch
        rows = [self.teacher[self.data.rows(sequence)] for sequence in sequences]
        teacher = TopK(*(np.concatenate(arrays) for arrays in zip(*rows, strict=True)))
        return Batch(batch.tokens, batch.starts, batch.labels, batch.weights, teacher)

    def _packed(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The sequences of an epoch in their order, and where in it each batch begins, and the last ends."""
        order = self._drawn[np.argsort(words(self.seed, SHUFFLE, epoch, self._drawn), kind="stable")]
        ends = np.concatenate([[0], np.cumsum(self.data.lengths[order])])
        bounds = [0]
        while bounds[-1] < len(order):
            bounds.append(int(np.searchsorted(ends, ends[bounds[-1]] + self.rows, "right")) - 1)
        return order, np.array(bounds)
