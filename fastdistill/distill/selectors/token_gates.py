"""Which tokens of a sequence are distilled, by how unsure student and teacher are of them."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import as_array, check_number
from fastdistill.distill.groups import as_groups
from fastdistill.distill.loss import Reduction, counted


def opener(
    entropies: np.ndarray,
    sequences: np.ndarray | None = None,
    fraction: float = 0.1,
    *,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """The weights of the first rows of each sequence, as many as carry a fraction of its entropy, and 0 for all others.

    A sequence's opener is its shortest beginning whose entropies sum to `fraction` of all of them (Kim & Baek 2026,
    TSD-KD). Each sequence has its own; one without entropy has none.

    Parameters
    ----------
    entropies : float64 (n,)
        of the student's laws, in the order of the text; what rounding puts below 0 counts as 0
    sequences : int32 (n,), optional
        which sequence a row belongs to, any numbers; None: all to one
    fraction : float, default 0.1
        0..1; 0 keeps nothing
    weights : float64 (n,), optional
        of the rows; the entropy of a row of weight 0 does not count. None: 1 each

    Returns
    -------
    float64 (n,)

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the row
    """
    entropies = as_array("entropies", entropies, np.float64, ("rows",))
    weights = Reduction(len(entropies), weights).weights
    entropies = np.maximum(counted("entropies", entropies, weights), 0)
    numbers, count = as_groups("sequences", sequences, len(entropies))
    fraction = check_number("fraction", fraction, 0, 1)
    kept = np.zeros(len(entropies))
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=count))[:-1]
    for rows in np.split(order, ends) if count else ():  # sequences of a batch: each sum is exact to its own roundings
        sums = np.cumsum(entropies[rows])
        kept[rows] = np.concatenate([[0.0], sums[:-1]]) < fraction * sums[-1]
    return kept * weights


def confidence_gate(
    student_entropy: np.ndarray,
    teacher_entropy: np.ndarray,
    *,
    temperature: float = 1.0,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """The weights times sigmoid((student's entropy - teacher's) / temperature): high where the teacher is surer.

    The gate is a constant. Were a gradient to go through it, the student could switch the loss off by being sure (Kim &
    Baek 2026, TSD-KD).

    Parameters
    ----------
    student_entropy, teacher_entropy : float64 (n,)
        in nats
    temperature : float, default 1.0
        above 0, in nats
    weights : float64 (n,), optional
        of the rows; None: 1 each

    Returns
    -------
    float64 (n,)

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    student_entropy = as_array("student_entropy", student_entropy, np.float64, ("rows",))
    teacher_entropy = as_array("teacher_entropy", teacher_entropy, np.float64, student_entropy.shape)
    weights = Reduction(len(student_entropy), weights).weights
    temperature = check_number("temperature", temperature, 1e-300, 1e300)
    gap = counted("student_entropy", student_entropy, weights) - counted("teacher_entropy", teacher_entropy, weights)
    gap = np.clip(gap / temperature, -700, 700)  # e^700 is still a float; the gate is 0 or 1 long before
    return weights / (1 + np.exp(-gap))
