"""How far several contexts agree on each token of a self-distilled text."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import as_array, check_choice, check_number
from fastdistill.distill.groups import as_groups
from fastdistill.distill.loss import Reduction
from fastdistill.errors import NotFiniteError

_LEVELS = "token", "sequence"
_STATISTICS = "variance", "range"
_LEAST_SCALE = 1e-6  # where contexts agree everywhere, the spread has no scale of its own
_FLOORS = {"token": 0.01, "sequence": 1e-6}


def agreement_weights(
    log_probs: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    sequences: np.ndarray | None = None,
    level: str = "token",
    statistic: str = "variance",
    gamma: float = 1.0,
    quantile: float = 0.95,
    cap: float = 10.0,
) -> np.ndarray:
    """The weights times a factor: 1 where contexts give a token one log-probability, less where they differ.

    With D the spread over contexts (Jin et al. 2026, UniSD):

    - token: D of the row's log-probabilities, the variance unbiased; over the quantile of D among rows that count, at
      most `cap`; the factor is max(0.01, 1 / (1 + gamma D))
    - sequence: D of the sequences' mean log-probabilities, the variance biased; the factor is max(1e-6, exp(-gamma D)),
      the same for all rows of a sequence

    Parameters
    ----------
    log_probs : float64 (contexts, n)
        of the text's own tokens, at temperature 1, under each context
    weights : float64 (n,), optional
        of the rows, and of the tokens in a sequence's mean; None: 1 each
    sequences : int32 (n,), optional
        which sequence a row belongs to, any numbers; None: all to one. For level "sequence" alone
    level : str, default "token"
        "token" or "sequence"
    statistic : str, default "variance"
        "variance" or "range", the largest less the least
    gamma : float, default 1.0
        at least 0; 0 leaves the weights as they are
    quantile : float, default 0.95
        0..1, of level "token"
    cap : float, default 10.0
        at least 0, of level "token"

    Returns
    -------
    float64 (n,)

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the context and the row

    Notes
    -----
    At level "sequence" the factor cancels in a mean over one sequence by these weights, since it is in both of its
    sums: the loss is then as if there were none. Keep it out of the denominator: the factor times `expand_groups(
    ones, sequences, weights=mask)`, and `total_weight` the number of sequences.
    """
    log_probs = as_array("log_probs", log_probs, np.float64, ("contexts", "rows"))
    weights = Reduction(log_probs.shape[1], weights).weights
    check_choice("level", level, _LEVELS)
    check_choice("statistic", statistic, _STATISTICS)
    gamma, cap = check_number("gamma", gamma, 0, 1e300), check_number("cap", cap, 0, 1e300)
    quantile = check_number("quantile", quantile, 0, 1)
    numbers, count = as_groups("sequences", sequences, log_probs.shape[1])
    found = np.where(weights > 0, log_probs, 0.0)
    if not np.isfinite(found).all():
        context, row = np.unravel_index(int(np.argmin(np.isfinite(found))), found.shape)
        raise NotFiniteError(f"log_probs: context {context}, row {row} holds a NaN or an infinity")
    if level == "token":
        spread = _spread(found, statistic, unbiased=True)
        among = spread[weights > 0]
        scale = max(np.quantile(among, quantile), _LEAST_SCALE) if len(among) else 1.0
        factor = 1 / (1 + gamma * np.minimum(spread / scale, cap))
    else:
        totals = np.bincount(numbers, weights, minlength=count)
        each = [np.bincount(numbers, weights * context, minlength=count) for context in found]
        sums = np.array(each, np.float64).reshape(len(found), count)  # bincount of nothing gives integers
        means = np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)
        factor = np.exp(-gamma * _spread(means, statistic, unbiased=False))[numbers]
    return weights * np.maximum(factor, _FLOORS[level])


def _spread(values: np.ndarray, statistic: str, unbiased: bool) -> np.ndarray:
    """Over the first axis, 0 where there is one value or none; sorted first, so that their order changes no bit."""
    if len(values) < 2:
        return np.zeros(values.shape[1])
    values = np.sort(values, axis=0)
    if statistic == "range":
        return values[-1] - values[0]
    return values.var(axis=0, ddof=int(unbiased))
