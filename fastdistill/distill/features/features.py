"""Hidden states of a student beside a teacher's: distances row by row, through a projector where their widths differ."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, check_array, check_choice, check_flag, check_integer, check_number
from fastdistill.distill.loss import Loss, Reduction, counted
from fastdistill.distill.unit import unit, unit_gradient
from fastdistill.errors import ArgumentError

_KINDS = "mse", "smooth_l1", "unit_l1", "normalised_mse", "cosine"


class FeatureGradient(NamedTuple):
    """The gradient of a loss of features.

    Attributes
    ----------
    student : np.ndarray (n, d)
        by the student's features, in their dtype
    projector : np.ndarray (e, d) or None
        by the projector, in its dtype; None where there is none
    """

    student: np.ndarray
    projector: np.ndarray | None


def feature_loss(
    student: np.ndarray,
    teacher: np.ndarray,
    kind: str = "mse",
    *,
    projector: np.ndarray | None = None,
    beta: float = 1.0,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """How far the features of a student are from a teacher's; a row's value is a mean over its e channels.

    With z = student, or student @ projector.T, and t = teacher, and unit(x) = x / |x|, unit(0) = 0:

    - mse: (z - t)^2
    - smooth_l1: r^2 / (2 beta) where |r| = |z - t| < beta, else |r| - beta / 2
    - unit_l1: |unit(z) - unit(t)| (Bai et al., arXiv 2208.12256, DMAE)
    - normalised_mse: (unit(z) - unit(t))^2 (Sun et al., arXiv 1908.09355, PKD, where it is a sum)
    - cosine: 1 - <unit(z), unit(t)>, a sum and no mean

    Parameters
    ----------
    student : float32 or float64 (n, d)
    teacher : float32 or float64 (n, e)
        held fixed
    kind : str, default "mse"
        "mse", "smooth_l1", "unit_l1", "normalised_mse" or "cosine"
    projector : float32 or float64 (e, d), optional
        that takes the student's features to the teacher's width; None: d is e
    beta : float, default 1.0
        where smooth_l1 turns from a parabola to lines, at least 0; 0 is L1. No other kind has it
    weights : float (n,), optional
        of rows, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of the whole batch that these rows are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient: a FeatureGradient

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    The slope of |.| at 0 is 0, and so is that of a row of zeros where it is divided by its length.
    """
    rows, width = check_array("student", student, REAL, ("n", "d"))
    if projector is None:
        channels = check_array("teacher", teacher, REAL, (rows, width))[1]
    else:
        channels = check_array("teacher", teacher, REAL, (rows, "e"))[1]
        check_array("projector", projector, REAL, (channels, width))
    if channels == 0:
        raise ArgumentError(f"teacher must have at least one column, got shape {teacher.shape}")
    check_choice("kind", kind, _KINDS)
    beta, wanted = check_number("beta", beta, 0, 1e30), check_flag("gradient", gradient)
    reduce = Reduction(rows, weights, reduction, total_weight)
    h, t = counted("student", student, reduce.weights), counted("teacher", teacher, reduce.weights)
    if projector is None:
        z = h
    else:
        matrix = counted("projector", projector, np.ones(channels))
        z = h @ matrix.T
    lengths = None
    if kind in ("unit_l1", "normalised_mse", "cosine"):
        z, lengths = unit(z)
        t = unit(t)[0]
    if kind == "cosine":
        values, by_z = 1 - (z * t).sum(axis=1), -t
    else:
        values, by_z = _distance(z - t, kind, beta)
    values = np.where(reduce.weights > 0, values, 0)
    if not wanted:
        return reduce.loss(values)
    by_z = by_z * reduce.scale[:, None]
    if lengths is not None:
        by_z = unit_gradient(by_z, z, lengths)
    if projector is None:
        return reduce.loss(values, FeatureGradient(by_z.astype(student.dtype, copy=False), None))
    by_student, by_projector = by_z @ matrix, by_z.T @ h
    found = FeatureGradient(
        by_student.astype(student.dtype, copy=False), by_projector.astype(projector.dtype, copy=False)
    )
    return reduce.loss(values, found)


def _distance(apart: np.ndarray, kind: str, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """The mean over columns of a function of each difference (n, e), and its slopes (n, e)."""
    channels = apart.shape[1]
    if kind in ("mse", "normalised_mse"):
        return (apart * apart).mean(axis=1), 2 * apart / channels
    if kind == "unit_l1":
        beta = 0.0
    size = np.abs(apart)
    near = size < beta
    bowl = np.divide(apart, beta, out=np.zeros_like(apart), where=near)
    values = np.where(near, bowl * apart / 2, size - beta / 2).mean(axis=1)
    return values, np.where(near, bowl, np.sign(apart)) / channels


def standardise(features: np.ndarray, *, epsilon: float = 1e-6) -> np.ndarray:
    """Rows with a mean of 0 and a variance of 1: a LayerNorm without parameters, as targets are whitened by.

    Parameters
    ----------
    features : float32 or float64 (n, d)
    epsilon : float, default 1e-6
        what is added to the variance, above 0: a row of equal numbers becomes one of zeros

    Returns
    -------
    np.ndarray (n, d)
        (x - mean) / sqrt(variance + epsilon), in the dtype of the features

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the row
    """
    rows, width = check_array("features", features, REAL, ("n", "d"))
    if width == 0:
        raise ArgumentError(f"features must have at least one column, got shape {features.shape}")
    epsilon = check_number("epsilon", epsilon, 1e-300, 1e30)
    x = counted("features", features, np.ones(rows))
    x = x - x.mean(axis=1, keepdims=True)
    return (x / np.sqrt((x * x).mean(axis=1, keepdims=True) + epsilon)).astype(features.dtype, copy=False)


def layer_map(kind: str, student_layers: int, teacher_layers: int) -> np.ndarray:
    """The layer of the teacher that each layer of the student is held against, both counted from 0.

    - skip: evenly through the teacher, and last to last: floor((i + 1) teacher_layers / student_layers) - 1
    - last: the last ones, i + teacher_layers - student_layers

    Parameters
    ----------
    kind : str
        "skip" or "last"
    student_layers : int
        at least 1
    teacher_layers : int
        at least as many

    Returns
    -------
    np.ndarray int32 (student_layers,)
        rising, no layer twice

    Raises
    ------
    ArgumentError
    """
    check_choice("kind", kind, ("skip", "last"))
    teacher_layers = check_integer("teacher_layers", teacher_layers, 1, 1 << 20)
    student_layers = check_integer("student_layers", student_layers, 1, teacher_layers)
    layers = np.arange(student_layers)
    if kind == "last":
        found = layers + teacher_layers - student_layers
    else:
        found = (layers + 1) * teacher_layers // student_layers - 1
    return found.astype(np.int32)
