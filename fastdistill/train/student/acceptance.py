"""How often a student's guesses are right, along texts that it has not learnt from, and how much of its law is the target's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdistill.distill.laws.divergence import acceptance
from fastdistill.kernels.distill.top_k import top_k
from fastdistill.runtime.network import Network
from fastdistill.train.data import Batches, Teacher
from fastdistill.train.data.dataset import Dataset
from fastdistill.train.own_texts.guessed import RANKS, Guessed

DEPTHS = 5


@dataclass(frozen=True)
class StudentAcceptance(Guessed):
    """Of guesses along texts, where all guesses before them were right.

    Attributes
    ----------
    ranks : float64 (DEPTHS, RANKS)
        how often the token was the guess of each rank
    overlap : float
        the mean of sum min(p, q) at every token: how often what is drawn from the student is accepted by rejection
        sampling (Leviathan et al. 2023), 1 - TV(p, q)
    """

    overlap: float


def student_acceptance(student: Network, target: Network, data: Dataset, rows: int = 512) -> StudentAcceptance:
    """Measure it along every text of the data.

    Over greedy texts the ranks are those of exact greedy speculation from every place of a text, as what a guess is made
    of is then what the target wrote.

    Parameters
    ----------
    student, target : Network
        of one vocabulary
    data : Dataset
        what the target wrote
    rows : int, default 512
        that are in memory at once; at least the longest sequence

    Raises
    ------
    ArgumentError, DataError
    """
    found, asked, overlap = np.zeros((DEPTHS, RANKS)), np.zeros(DEPTHS), list[np.ndarray]()
    batches, ours, theirs = Batches(data, rows), Teacher(student), Teacher(target)
    for number in range(batches.count()):
        batch = batches[number]
        reads = np.flatnonzero(batch.weights)
        logits = ours.logits(batch, reads)
        overlap.append(acceptance(logits, theirs.logits(batch, reads)))
        right = top_k(logits, RANKS)[0] == batch.labels[reads, None]
        ends = np.searchsorted(reads, batch.starts[1:])
        left = np.repeat(ends, np.diff(ends, prepend=0)) - np.arange(len(reads))  # rows of the text from each on
        reached = np.ones(len(reads), bool)
        for depth in range(DEPTHS):
            at = np.flatnonzero(reached & (left > depth))
            found[depth] += right[at + depth].sum(axis=0)
            asked[depth] += len(at)
            reached = np.zeros(len(reads), bool)
            reached[at] = right[at + depth, 0]
    return StudentAcceptance(found / np.maximum(asked, 1)[:, None], float(np.concatenate(overlap).mean()))
