"""What should be near against what should not: InfoNCE over similarities, and a hinge of log-probabilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_flag, check_number
from fastdistill.distill.loss import IGNORED, Loss, Reduction, as_labels, counted
from fastdistill.errors import ArgumentError, NotFiniteError

_LEAST_LOG_PROB = -50.0  # e^-50: below it a token's probability is as good as none


class ContrastiveGradient(NamedTuple):
    """The gradient of InfoNCE.

    Attributes
    ----------
    similarities : np.ndarray (n, m)
        by the similarities, in their dtype
    temperature : float
        by the temperature
    """

    similarities: np.ndarray
    temperature: float


def info_nce(
    similarities: np.ndarray,
    labels: Any = None,
    *,
    temperature: float = 0.07,
    exclude_self: bool = False,
    groups: Any = None,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """The cross entropy of each query's right key among all keys, by similarities (van den Oord et al. 2018).

    Parameters
    ----------
    similarities : float32 or float64 (n, m)
        of each query and each key, as `cosine_similarity(x, y)`; -inf leaves a key out
    labels : int (n,), optional
        the right key of each query; -100 leaves a row out. None: key i of query i
    temperature : float, default 0.07
        that the similarities are divided by, above 0
    exclude_self : bool, default False
        whether key i is left out of query i, where both are one thing: NT-Xent (Chen et al. 2020), whose labels name the
        other view
    groups : int (m,), optional
        what each key is about: those of the right key's group are left out beside it, as they are no negatives
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
        gradient: a ContrastiveGradient. `cosine_similarity_gradient` takes it on to the embeddings

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the row

    Notes
    -----
    A query against its keys is half of a symmetric loss: the other half is `info_nce` of the transpose.
    """
    rows, keys = check_array("similarities", similarities, REAL, ("n", "m"))
    if keys == 0:
        raise ArgumentError(f"similarities must have at least one column, got shape {similarities.shape}")
    exclude_self, wanted = check_flag("exclude_self", exclude_self), check_flag("gradient", gradient)
    temperature = check_number("temperature", temperature, 1e-30, 1e30)
    right = _right_keys(labels, rows, keys, exclude_self)
    reduce = Reduction(rows, weights, reduction, total_weight, right)
    s = counted("similarities", similarities, reduce.weights, bans=True)
    row, right = np.arange(rows), np.where(right == IGNORED, 0, right)
    positive = s[row, right]
    if (positive == -np.inf).any():
        raise NotFiniteError(f"similarities: row {int(np.argmin(positive))} holds -inf at its right key")
    if groups is not None:
        group = as_array("groups", groups, np.int64, (keys,))
        s[group[right][:, None] == group] = -np.inf
    if exclude_self:
        s[row, row] = -np.inf
    s[row, right] = positive
    there = s > -np.inf
    lead = np.where(there, s - positive[:, None], 0)  # how far each key is above the right one
    with np.errstate(over="ignore"):
        exponent = np.where(there, lead / temperature, -np.inf)
    best = exponent.max(axis=1, keepdims=True, initial=0)
    if not np.isfinite(best).all():
        raise NotFiniteError(f"similarities: row {int(best.argmax())} over temperature {temperature} is beyond float64")
    law = np.exp(exponent - best)
    mass = law.sum(axis=1, keepdims=True)
    values = np.where(reduce.weights > 0, (best + np.log(mass))[:, 0], 0)
    if not wanted:
        return reduce.loss(values)
    law *= reduce.scale[:, None] / mass
    by_temperature = -float((law * lead).sum()) / temperature**2
    law[row, right] -= reduce.scale
    law /= temperature
    return reduce.loss(values, ContrastiveGradient(law.astype(similarities.dtype, copy=False), by_temperature))


def _right_keys(labels: Any, rows: int, keys: int, exclude_self: bool) -> np.ndarray:
    """int32 (n,): below keys, or IGNORED; of no query itself where that is left out."""
    if exclude_self and rows > keys:
        raise ArgumentError(f"exclude_self needs a key for each query, got similarities of shape ({rows}, {keys})")
    if labels is not None:
        right = as_labels(labels, rows, keys)
        itself = right == np.arange(rows)
        if exclude_self and itself.any():
            raise ArgumentError(f"labels must not name the query itself with exclude_self, got {itself.argmax()} there")
        return right
    if exclude_self:
        raise ArgumentError("exclude_self needs labels: the other view of each query")
    if rows > keys:
        raise ArgumentError(f"labels must be given where queries, {rows}, are more than keys, {keys}")
    return np.arange(rows, dtype=np.int32)


def contrastive_hinge(
    log_q: Any,
    log_good: Any,
    log_bad: Any,
    *,
    margin: float = 0.5,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """UniSD's hinge: a token should be as likely as under a good demonstration, and not as under a bad one.

    max(0, margin + |log q - log good| - |log q - log bad|), of the tokens that were drawn (Jin et al., arXiv 2605.06597).

    Parameters
    ----------
    log_q : float (n,)
        log-probabilities of the tokens under the student; all three are taken as -50 where they are lower
    log_good : float (n,)
        under the teacher with a good demonstration
    log_bad : float (n,)
        under the teacher with a bad one
    margin : float, default 0.5
        at least 0
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
        gradient float64 (n,), by log_q, which `log_prob_gradient` takes on to the logits; info: active, the weighted share of
        rows whose hinge is above 0

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    Only between log_good and log_bad is there a slope, of -2 or 2: outside of that band both distances change alike.
    """
    q = as_array("log_q", log_q, np.float64, ("n",))
    good, bad = (
        as_array(name, each, np.float64, q.shape) for name, each in (("log_good", log_good), ("log_bad", log_bad))
    )
    margin, wanted = check_number("margin", margin, 0, 1e30), check_flag("gradient", gradient)
    reduce = Reduction(len(q), weights, reduction, total_weight)
    names = ("log_q", q), ("log_good", good), ("log_bad", bad)
    s, p, b = (counted(name, np.maximum(each, _LEAST_LOG_PROB), reduce.weights) for name, each in names)
    values = margin + np.abs(s - p) - np.abs(s - b)
    active = (values > 0) & (reduce.weights > 0)
    values = np.where(active, values, 0)
    total = reduce.weights.sum()
    info = {"active": float((reduce.weights * active).sum() / total) if total > 0 else 0.0}
    if not wanted:
        return reduce.loss(values, **info)
    slope = np.where(active & (q >= _LEAST_LOG_PROB), np.sign(s - p) - np.sign(s - b), 0)
    return reduce.loss(values, slope * reduce.scale, **info)
