"""One target from several teachers, each of which abstains where it does not know."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_choice, check_number
from fastdistill.distill.loss import Reduction
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import pairwise_distance
from fastdistill.kernels.transport.points import check_finite

_SPACES = "logits", "probabilities"


class MeanTeacher(NamedTuple):
    """What several teachers say together.

    Attributes
    ----------
    logits : np.ndarray float32 or float64 (n, vocab)
        in the dtype of the teachers' logits; zeros where none counts
    teachers : np.ndarray int32 (n,)
        how many teachers count in a row: rows of 0 must weigh 0
    """

    logits: np.ndarray
    teachers: np.ndarray


def masked_mean(
    logits: np.ndarray, mask: np.ndarray | None = None, *, weights: np.ndarray | None = None, space: str = "logits"
) -> MeanTeacher:
    """The mean of several teachers' logits or laws, in each row of those that count there.

    - logits: their mean, a geometric mean of laws; a teacher whose logits are larger has more say, and a ban of one is
      a ban; a constant added to one teacher's row changes nothing (EdgeFD)
    - probabilities: the logarithm of the mean of the softmaxes; only what all ban is banned

    Parameters
    ----------
    logits : float32 or float64 (teachers, n, vocab)
        -inf is a ban; where a teacher does not count anything may stand
    mask : bool (teachers, n), optional
        which count; None: all
    weights : float64 (teachers,), optional
        of each teacher; None: 1 each
    space : str, default "logits"
        "logits" or "probabilities"

    Returns
    -------
    MeanTeacher

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the teacher and the row that holds a NaN or +inf, or nothing but -inf; or the row where the bans of
        all leave nothing
    """
    teachers, rows, vocab = check_array("logits", logits, REAL, ("teachers", "rows", "vocab"))
    if vocab == 0:
        raise ArgumentError("logits must have at least one token, got none")
    mask = np.ones((teachers, rows), bool) if mask is None else as_array("mask", mask, np.bool_, (teachers, rows))
    weights = Reduction(teachers, weights).weights
    check_choice("space", space, _SPACES)
    shares = mask * weights[:, None]
    total = np.zeros(rows)
    found = np.zeros((rows, vocab))
    for teacher in range(teachers):  # one after the other: no copy of all of them
        counts = np.flatnonzero(shares[teacher])
        own = logits[teacher, counts].astype(np.float64)
        top = own.max(axis=1, initial=-np.inf)  # NaN where there is one
        if not np.isfinite(top).all():
            row = int(counts[np.argmin(np.isfinite(top))])
            raise NotFiniteError(f"logits: teacher {teacher}, row {row} holds a NaN or +inf, or nothing but -inf")
        if space == "probabilities":
            own = np.exp(own - top[:, None])
            own /= own.sum(axis=1, keepdims=True)
        share = shares[teacher, counts]
        found[counts] += share[:, None] * own
        total[counts] += share
    counted = total > 0
    found[counted] /= total[counted, None]
    if space == "probabilities":
        with np.errstate(divide="ignore"):
            found[counted] = np.log(found[counted])
    nothing = np.isneginf(found.max(axis=1))
    if nothing.any():
        raise NotFiniteError(f"logits: in row {int(nothing.argmax())} the bans of all teachers leave no token")
    return MeanTeacher(found.astype(logits.dtype), (shares > 0).sum(axis=0).astype(np.int32))


def distance_filter(points: np.ndarray, own: np.ndarray, centers: np.ndarray, *, quantile: float = 0.9) -> np.ndarray:
    """Which points are as near to a teacher's data as most of that data is.

    A point passes where its distance to the nearest center is at most a quantile of those of the teacher's own points
    (EdgeFD). Centers are the caller's: means of classes, or of clusters.

    Parameters
    ----------
    points : float32 or float64 (n, d)
    own : float32 or float64 (m, d)
        the points that the teacher has learnt from, at least one; of the dtype of points
    centers : float32 or float64 (k, d)
        at least one; of the dtype of points
    quantile : float, default 0.9
        0..1, linearly interpolated; 1 lets all own points pass

    Returns
    -------
    bool (n,)

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    A filter hides nothing: who passes tells what the teacher has seen.
    """
    points_shape = check_array("points", points, REAL, ("points", "width"))
    for name, array in (("own", own), ("centers", centers)):
        if check_array(name, array, points.dtype.type, (None, points_shape[1]), like="points")[0] == 0:
            raise ArgumentError(f"{name} must have at least one row, got none")
    quantile = check_number("quantile", quantile, 0, 1)
    check_finite(points=points, own=own, centers=centers)
    if 0 in points_shape:
        return np.ones(points_shape[0], bool)  # no coordinate, no distance
    nearest = pairwise_distance(points, centers, "euclidean").min(axis=1)
    own_nearest = pairwise_distance(own, centers, "euclidean").min(axis=1)
    return nearest <= np.quantile(own_nearest, quantile)
