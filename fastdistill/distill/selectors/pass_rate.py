"""How much a problem counts, by how often the student solves it; and what each of its rows gets of that."""

from __future__ import annotations

import math

import numpy as np

from fastdistill.arguments import as_array, check_choice, check_flag, check_number
from fastdistill.distill.loss import Reduction
from fastdistill.errors import ArgumentError

_NORMALISE = "none", "mean", "sum"


def pass_rate_weights(
    passed: np.ndarray,
    tries: np.ndarray | int,
    alpha: float = 1.0,
    beta: float = 1.0,
    *,
    normalise: str = "none",
    unbiased: bool = False,
) -> np.ndarray:
    """The Beta kernel of each problem's pass rate p = passed / tries: p^alpha (1 - p)^beta.

    Problems that are always or never solved weigh 0, exactly; the heaviest have p = alpha / (alpha + beta) (Xu et al.
    2026, PACED). With alpha = beta = 0 all weigh 1: 0^0 is 1.

    Parameters
    ----------
    passed : int32 (problems,)
        how many tries were right, 0..tries
    tries : int32 (problems,), or int
        at least 2: after one try p (1 - p) is always 0
    alpha, beta : float, default 1.0 and 1.0
        0..1000
    normalise : str, default "none"
        "none"; "mean": the weights sum to the number of problems; "sum": to 1. Where all are 0, they stay 0.
    unbiased : bool, default False
        k (K - k) / (K (K - 1)) for k of K tries: its mean over tries is that of the true p (1 - p), of which the plain
        one's is (1 - 1/K). It matters where K differs between problems, and needs alpha = beta = 1.

    Returns
    -------
    float64 (problems,)

    Raises
    ------
    ArgumentError
    """
    passed = as_array("passed", passed, np.int32, ("problems",))
    tries = as_array("tries", tries, np.int32, (...,))
    if tries.shape not in ((), passed.shape):
        raise ArgumentError(f"tries must be an integer or have shape {passed.shape}, got {tries.shape}")
    tries = np.broadcast_to(tries, passed.shape)
    alpha, beta = check_number("alpha", alpha, 0, 1000), check_number("beta", beta, 0, 1000)
    check_choice("normalise", normalise, _NORMALISE)
    if (tries < 2).any():
        problem = int(np.argmax(tries < 2))
        raise ArgumentError(f"tries must be at least 2, got {tries[problem]} of problem {problem}")
    wrong = (passed < 0) | (passed > tries)
    if wrong.any():
        problem = int(wrong.argmax())
        raise ArgumentError(f"passed must lie in 0..{tries[problem]}, got {passed[problem]} of problem {problem}")
    if check_flag("unbiased", unbiased):
        if (alpha, beta) != (1, 1):
            raise ArgumentError(f"unbiased needs alpha = beta = 1, got {alpha:g} and {beta:g}")
        many = tries.astype(np.float64)  # products of two int32 are exact
        weights = passed * (many - passed) / (many * (many - 1))
    else:
        # Both shares are quotients of integers: 0 and 1 are exact, and so is the symmetry between them.
        weights = (passed / tries) ** alpha * ((tries - passed) / tries) ** beta
    total = math.fsum(weights)
    if normalise == "none" or total == 0:
        return weights
    return weights * ((len(weights) if normalise == "mean" else 1) / total)


def expand_groups(
    group_weights: np.ndarray, groups: np.ndarray, *, weights: np.ndarray | None = None, mean: bool = True
) -> np.ndarray:
    """The weight of each row, from that of the group that it belongs to: a problem, a sequence.

    With `mean` the rows of a group share its weight, so that a long response counts no more than a short one: with
    reduction "mean" the loss is the mean over groups, by their weights, of each group's mean over its rows. Without,
    each row has the whole weight.

    Parameters
    ----------
    group_weights : float64 (groups,)
        at least 0
    groups : int32 (n,)
        which of them a row belongs to, from 0
    weights : float64 (n,), optional
        of the rows: a group's weight is shared in proportion to them; None: 1 each
    mean : bool, default True
        whether the rows of a group share its weight

    Returns
    -------
    float64 (n,)
        0 in groups whose rows all weigh 0

    Raises
    ------
    ArgumentError
    """
    group_weights = as_array("group_weights", group_weights, np.float64, ("groups",))
    groups = as_array("groups", groups, np.int32, ("rows",))
    weights = Reduction(len(groups), weights).weights
    wrong = ~(np.isfinite(group_weights) & (group_weights >= 0))
    if wrong.any():
        group = int(wrong.argmax())
        raise ArgumentError(f"group_weights must be finite and at least 0, got {group_weights[group]} of group {group}")
    wrong = (groups < 0) | (groups >= len(group_weights))
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(f"groups must lie in 0..{len(group_weights) - 1}, got {groups[row]} in row {row}")
    found = weights * group_weights[groups]
    if not check_flag("mean", mean):
        return found
    totals = np.bincount(groups, weights, minlength=len(group_weights))[groups]
    return np.divide(found, totals, out=np.zeros(len(found)), where=totals > 0)
