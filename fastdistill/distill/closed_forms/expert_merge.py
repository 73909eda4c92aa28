"""Fewer experts from many: the best are kept as they are, others are merged."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_choice, check_integer, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.transport.points import check_finite

_ASSIGN = "nearest_one", "all"


class ExpertMerge(NamedTuple):
    """Which experts become which.

    Attributes
    ----------
    shares : np.ndarray float64 (slots, experts)
        how much of each expert a slot has; rows sum to 1
    base : np.ndarray int32 (slots,)
        the expert that a slot is, or is based on, ascending: router columns and biases are taken from there
    unused : np.ndarray int32 (k,)
        experts that are in no slot
    """

    shares: np.ndarray
    base: np.ndarray
    unused: np.ndarray

    def apply(self, weights: np.ndarray) -> np.ndarray:
        """A tensor of all experts, merged; slots of a single expert are copied, bit by bit.

        Parameters
        ----------
        weights : float32 or float64 (experts, ...)

        Returns
        -------
        float32 or float64 (slots, ...)
            in the dtype of the weights; computed in float64, rounded once

        Raises
        ------
        ArgumentError
        """
        check_array("weights", weights, REAL, (...,))
        shares, base = self.shares, self.base
        if weights.ndim == 0 or len(weights) != shares.shape[1]:
            raise ArgumentError(f"weights must have {shares.shape[1]} experts, got shape {weights.shape}")
        merged = weights[base]
        for slot in np.flatnonzero((shares > 0).sum(axis=1) > 1):  # one after the other: an expert may be large
            parts = np.flatnonzero(shares[slot])
            merged[slot] = np.tensordot(shares[slot, parts], weights[parts].astype(np.float64), 1)
        return merged


def merge_experts(
    importance: np.ndarray, similarity: np.ndarray, slots: int, *, preserve: float = 0.5, assign: str = "nearest_one"
) -> ExpertMerge:
    """Choose which of the experts of a layer are kept, merged and dropped (SlimQwen's partial preservation).

    The most important ones, `preserve` of the slots, counted down, are kept as they are. The next ones are bases of the
    other slots, and are merged by importance with experts that have no slot:

    - nearest_one: each base with the one that is most like it; several may take the same one, some are taken by none
    - all: each of these goes to the base that it is most like

    Of equals the first expert is taken. What is like what is not a matter of their weights: two experts may compute the
    same with their hidden units in another order.

    Parameters
    ----------
    importance : float64 (experts,)
        at least 0
    similarity : float64 (experts, experts)
        of router columns or of outputs, say
    slots : int
        1..experts
    preserve : float, default 0.5
        0..1; 1 drops without merging
    assign : str, default "nearest_one"
        "nearest_one" or "all"

    Returns
    -------
    ExpertMerge

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array
    """
    importance = as_array("importance", importance, np.float64, ("experts",))
    experts = len(importance)
    similarity = as_array("similarity", similarity, np.float64, (experts, experts))
    check_finite(importance=importance, similarity=similarity)
    if (importance < 0).any():
        raise ArgumentError(f"importance must be at least 0, got {importance.min()}")
    if experts == 0:
        raise ArgumentError("importance must have at least one expert, got none")
    slots = check_integer("slots", slots, 1, experts)
    preserve = check_number("preserve", preserve, 0, 1)
    check_choice("assign", assign, _ASSIGN)
    order = np.argsort(-importance, kind="stable")
    kept = int(preserve * slots)
    bases, others = np.sort(order[kept:slots]), np.sort(order[slots:])
    shares = np.zeros((experts, experts))  # of every expert, as if it were a slot
    shares[order[:slots], order[:slots]] = 1
    if len(bases) and len(others):
        if assign == "nearest_one":
            members = [[base, others[similarity[base, others].argmax()]] for base in bases]
        else:
            nearest = bases[similarity[np.ix_(bases, others)].argmax(axis=0)]
            members = [[base, *others[nearest == base]] for base in bases]
        for base, group in zip(bases, members, strict=True):
            shares[base, group] = _by_importance(importance[group])
    base = np.sort(order[:slots])
    shares = shares[base]
    return ExpertMerge(shares, base.astype(np.int32), np.flatnonzero(shares.sum(axis=0) == 0).astype(np.int32))


def _by_importance(importance: Any) -> np.ndarray:
    """Shares that sum to 1; equal ones where no expert was ever used."""
    largest = importance.max()
    if largest == 0:
        return np.full(len(importance), 1 / len(importance))
    scaled = importance / largest  # sums neither overflow nor vanish
    return scaled / scaled.sum()
