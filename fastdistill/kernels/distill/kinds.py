"""The kinds of divergence: formulas, and the numbers that some take."""

from __future__ import annotations

from typing import NamedTuple

from fastdistill.arguments import check_choice, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import lib
from fastdistill.messages import short


class Parameter(NamedTuple):
    """The number that a kind of divergence takes.

    Attributes
    ----------
    name : str
        what formulas call it
    default : float
        where none is given
    most : float
        the end of its range, which begins at 0
    ends : tuple[str | None, str | None]
        the kind that it is at 0 and at `most`; None: itself, "": none, since it measures nothing there
    """

    name: str
    default: float
    most: float
    ends: tuple[str | None, str | None]


class Kind(NamedTuple):
    """What a kind of divergence is.

    Attributes
    ----------
    native : int
        enum fd_divergence_kind
    formula : str
        in p, the teacher's law, and q, the student's
    parameter : Parameter | None
        the number that it takes
    notes : str
        what else there is to know, and the source
    """

    native: int
    formula: str
    parameter: Parameter | None = None
    notes: str = ""


_SKEWED = "Ko et al. 2024 (DistiLLM)."
_ACCEPTED = "Samarin et al. 2026 (LK losses)."
KINDS = {
    "forward_kl": Kind(lib.FD_FORWARD_KL, "sum p log(p / q)"),
    "reverse_kl": Kind(lib.FD_REVERSE_KL, "sum q log(q / p)"),
    "jeffreys": Kind(lib.FD_MIXED_KL, "sum (p - q) log(p / q)"),
    "mixed_kl": Kind(
        lib.FD_MIXED_KL,
        "forward KL(p, q) + (1 - forward) KL(q, p)",
        Parameter("forward", 0.5, 1, ("reverse_kl", "forward_kl")),
    ),
    "adaptive_kl": Kind(
        lib.FD_ADAPTIVE_KL,
        "h KL(p, q) + (1 - h) KL(q, p)",
        Parameter("head", 0.5, 1, (None, None)),
        "h is the share of sum |p - q| among the teacher's first tokens, whose p sum up to `head`; a constant for the gradient.  "
        "Wu et al. 2025, Rethinking Kullback-Leibler divergence in knowledge distillation for large language models.",
    ),
    "jsd": Kind(
        lib.FD_JSD,
        "beta KL(p, m) + (1 - beta) KL(q, m), m = beta p + (1 - beta) q",
        Parameter("beta", 0.5, 1, ("forward_kl", "reverse_kl")),
        "It tends to 0 at both ends, where it jumps to the KL, as in GKD: Agarwal et al. 2024.",
    ),
    "skew_kl": Kind(
        lib.FD_SKEW_KL, "KL(p, skew p + (1 - skew) q)", Parameter("skew", 0.1, 1, ("forward_kl", "")), _SKEWED
    ),
    "skew_reverse_kl": Kind(
        lib.FD_SKEW_REVERSE_KL, "KL(q, skew q + (1 - skew) p)", Parameter("skew", 0.1, 1, ("reverse_kl", "")), _SKEWED
    ),
    "alpha": Kind(
        lib.FD_ALPHA_DIVERGENCE,
        "(1 - sum p^alpha q^(1 - alpha)) / (alpha (1 - alpha))",
        Parameter("alpha", 0.5, 1, ("reverse_kl", "forward_kl")),
        "Near both ends digits are lost: an error of 2^-24 / (alpha (1 - alpha)) in float32.",
    ),
    "renyi": Kind(
        lib.FD_RENYI_DIVERGENCE,
        "log(sum p^alpha q^(1 - alpha)) / (alpha - 1)",
        Parameter("alpha", 0.5, 1, ("", "forward_kl")),
    ),
    "total_variation": Kind(
        lib.FD_TOTAL_VARIATION, "sum |p - q| / 2 = 1 - sum min(p, q)", None, "Where p = q its slope counts as 0."
    ),
    "log_acceptance": Kind(
        lib.FD_LOG_ACCEPTANCE, "-log sum min(p, q)", None, f"Of the acceptance rate of a draft from q.  {_ACCEPTED}"
    ),
    "acceptance_hybrid": Kind(
        lib.FD_ACCEPTANCE_HYBRID,
        "k KL(p, q) + (1 - k) sum |p - q| / 2, k = e^(-eta sum min(p, q))",
        Parameter("eta", 3.0, 1e6, ("forward_kl", None)),
        f"k is a constant for the gradient.  {_ACCEPTED}",
    ),
    "soft_cross_entropy": Kind(lib.FD_SOFT_CROSS_ENTROPY, "-sum p log q"),
    "entropy": Kind(lib.FD_STUDENT_ENTROPY, "-sum q log q", None, "Of the student alone: the teacher is None."),
    "logit_mse": Kind(
        lib.FD_LOGIT_MSE,
        "the mean over tokens of (student - teacher)^2 / temperature^2",
        None,
        "A token that both ban differs by 0.",
    ),
    "probability_mse": Kind(lib.FD_PROBABILITY_MSE, "the mean over tokens of (q - p)^2"),
}


def resolve(kind: str, parameter: float | None) -> tuple[str, float]:
    """The kind that is meant, and its number: where that is at an end of its range it may be another kind's."""
    check_choice("kind", kind, KINDS)
    wanted = KINDS[kind].parameter
    if wanted is None:
        if parameter is not None:
            raise ArgumentError(f"{kind} takes no parameter, got {short(parameter)}")
        return kind, 0.0
    name = f"parameter ({wanted.name} of {kind})"
    number = wanted.default if parameter is None else check_number(name, parameter, 0, wanted.most)
    for end, other in zip((0, wanted.most), wanted.ends, strict=True):
        if number == end and other == "":
            raise ArgumentError(f"{name} must not be {end:g}, where it measures nothing")
        if number == end and other:
            return other, 0.0
    return kind, number
