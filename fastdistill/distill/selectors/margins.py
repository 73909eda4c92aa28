"""Pseudo labels by likeness to labelled examples, and how far the best class is ahead of the next."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_integer
from fastdistill.distill.loss import Reduction, counted
from fastdistill.distill.unit import unit
from fastdistill.errors import ArgumentError

_MOST_CLASSES = 1 << 24
_BLOCK = 1 << 20  # so many similarities at once: 8 MB


class Margins(NamedTuple):
    """Pseudo labels and how much each counts.

    Attributes
    ----------
    labels : np.ndarray int32 (n,)
        the best class of each row, the first of equals; 0 where the row does not count
    weights : np.ndarray float64 (n,)
        the weights given, times the margin
    """

    labels: np.ndarray
    weights: np.ndarray


def margin_weights(similarities: np.ndarray, *, weights: np.ndarray | None = None) -> Margins:
    """The best class of each row, and the weights times its lead over the second best.

    Rows of unknown classes are about as like to several known ones and weigh little (Du et al. 2023, WAD). Of logits or
    probabilities it is the usual margin between the two best tokens. Where only one class is there, its own similarity
    is the weight, at least 0.

    Parameters
    ----------
    similarities : float32 or float64 (n, classes)
        -inf for a class that is not there
    weights : float64 (n,), optional
        of the rows; rows of weight 0 are not read. None: 1 each

    Returns
    -------
    Margins

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names a row that holds a NaN or +inf, or no class
    """
    rows, classes = check_array("similarities", similarities, REAL, ("rows", "classes"))
    weights = Reduction(rows, weights).weights
    if classes == 0:
        raise ArgumentError("similarities must have at least one class, got none")
    found = counted("similarities", similarities, weights, bans=True)
    labels = found.argmax(axis=1)
    at = np.arange(rows), labels
    first = found[at]
    found[at] = -np.inf
    second = found.max(axis=1)
    alone = np.isneginf(second)
    margin = np.where(alone, np.maximum(first, 0), first - np.where(alone, 0, second))
    return Margins(labels.astype(np.int32), weights * margin)


def class_similarity(
    features: np.ndarray, labelled_features: np.ndarray, labels: np.ndarray, classes: int
) -> np.ndarray:
    """How like each point is to each class: the largest cosine to a labelled example of it.

    Parameters
    ----------
    features : float32 or float64 (n, d)
    labelled_features : float32 or float64 (m, d)
        of the dtype of features
    labels : int32 (m,)
        the class of each, 0..classes - 1
    classes : int
        at least 1

    Returns
    -------
    float64 (n, classes)
        -1..1; -inf for a class without an example; 0 for a point or example of length 0

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    points, width = check_array("features", features, REAL, ("points", "width"))
    check_array("labelled_features", labelled_features, features.dtype.type, (None, width), like="features")
    labels = as_array("labels", labels, np.int32, (len(labelled_features),))
    classes = check_integer("classes", classes, 1, _MOST_CLASSES)
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(f"labels must lie in 0..{classes - 1}, got {labels[row]} in row {row}")
    features, labelled_features = (
        unit(counted(name, array, np.ones(len(array))))[0]
        for name, array in (("features", features), ("labelled_features", labelled_features))
    )
    order = np.argsort(labels, kind="stable")
    present, begins = np.unique(labels[order], return_index=True)
    examples = labelled_features[order].T
    found = np.full((points, classes), -np.inf)
    step = max(1, _BLOCK // max(1, len(labels)))
    for begin in range(0, points if len(present) else 0, step):
        cosines = np.clip(features[begin : begin + step] @ examples, -1, 1)
        found[begin : begin + step, present] = np.maximum.reduceat(cosines, begins, axis=1)
    return found
