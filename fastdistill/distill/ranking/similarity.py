"""Cosines of all pairs of two sets of embeddings, and what a gradient by those is by the embeddings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import REAL, check_array
from fastdistill.distill.loss import counted
from fastdistill.distill.unit import unit, unit_gradient


class SimilarityGradient(NamedTuple):
    """The gradient by two sets of embeddings.

    Attributes
    ----------
    x : np.ndarray (n, d)
        in the dtype of x
    y : np.ndarray (m, d)
        in the dtype of y
    """

    x: np.ndarray
    y: np.ndarray


def cosine_similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The cosine of each row of x and each row of y.

    Parameters
    ----------
    x : float32 or float64 (n, d)
    y : float32 or float64 (m, d)
        a row of zeros, of either, has a cosine of 0 with everything

    Returns
    -------
    np.ndarray (n, m)
        in the dtype of x

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    (x_units, _), (y_units, _) = _units(x, y)
    return (x_units @ y_units.T).astype(x.dtype, copy=False)


def cosine_similarity_gradient(gradient: np.ndarray, x: np.ndarray, y: np.ndarray) -> SimilarityGradient:
    """Turn a gradient by `cosine_similarity(x, y)` into that by both sets of embeddings.

    Parameters
    ----------
    gradient : float32 or float64 (n, m)
        by the cosines
    x : float32 or float64 (n, d)
    y : float32 or float64 (m, d)

    Returns
    -------
    SimilarityGradient
        orthogonal to each embedding; 0 for one of zeros

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    Where x is y, its gradient is the sum of both. Embeddings that are stored, as those of a queue, have none: leave y out.
    """
    (x_units, x_lengths), (y_units, y_lengths) = _units(x, y)
    check_array("gradient", gradient, REAL, (len(x), len(y)))
    by_cosines = counted("gradient", gradient, np.ones(len(x)))
    return SimilarityGradient(
        unit_gradient(by_cosines @ y_units, x_units, x_lengths).astype(x.dtype, copy=False),
        unit_gradient(by_cosines.T @ x_units, y_units, y_lengths).astype(y.dtype, copy=False),
    )


def _units(x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    _, width = check_array("x", x, REAL, ("n", "d"))
    check_array("y", y, REAL, ("m", width))
    return [unit(counted(name, array, np.ones(len(array)))) for name, array in (("x", x), ("y", y))]
