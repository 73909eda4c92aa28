"""How far the student's law is from the teacher's, row by row, and the gradient by the student's logits."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastdistill.arguments import as_array, check_array, check_choice, check_flag, check_number
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import aligned_bytes, const, ffi, lib, pointer, same_memory, written
from fastdistill.kernels.threads import check_threads


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
_NUMBERS = {
    np.dtype(np.float32): lib.FD_NUMBERS_F32,
    np.dtype(np.float64): lib.FD_NUMBERS_F64,
    np.dtype(np.float16): lib.FD_NUMBERS_F16,
    np.dtype(np.uint16): lib.FD_NUMBERS_BF16,
}
LOGITS = (np.float32, np.float64, np.float16, np.uint16)  # dtypes that logits may have


class RowDivergence(NamedTuple):
    """Divergences of rows and their gradient.

    Attributes
    ----------
    values : float64 (rows,)
        the divergence of each row; 0 where its weight is 0
    label_values : float64 (rows,)
        -log q of its label at temperature 1; 0 where it has none
    gradient : float32 or float64 (rows, vocab), or None
        by the student's logits, of sum weights (scale values + label_scale label_values)
    """

    values: np.ndarray
    label_values: np.ndarray
    gradient: np.ndarray | None


def resolve(kind: str, parameter: float | None) -> tuple[str, float]:
    """The kind that is meant, and its number: where that is at an end of its range it may be another kind's."""
    check_choice("kind", kind, KINDS)
    wanted = KINDS[kind].parameter
    if wanted is None:
        if parameter is not None:
            raise ArgumentError(f"{kind} takes no parameter, got {parameter!r}")
        return kind, 0.0
    name = f"parameter ({wanted.name} of {kind})"
    number = wanted.default if parameter is None else check_number(name, parameter, 0, wanted.most)
    for end, other in zip((0, wanted.most), wanted.ends, strict=True):
        if number == end and other == "":
            raise ArgumentError(f"{name} must not be {end:g}, where it measures nothing")
        if number == end and other:
            return other, 0.0
    return kind, number


def row_divergence(
    student: np.ndarray,
    teacher: np.ndarray | None,
    kind: str = "forward_kl",
    parameter: float | None = None,
    *,
    temperature: float = 1.0,
    labels: Any = None,
    scale: float = 1.0,
    label_scale: float = 0.0,
    weights: Any = None,
    teacher_is_law: bool = False,
    gradient: bool = True,
    out: np.ndarray | None = None,
    threads: int | None = 1,
) -> RowDivergence:
    """Divergences of rows between p = softmax(teacher / temperature) and q = softmax(student / temperature), and a gradient.

    Parameters
    ----------
    student : float32, float64, float16, or uint16 that are bits of bfloat16 (rows, vocab)
        logits; 1 <= vocab < 2^31; -inf is a ban
    teacher : the same dtypes (rows, vocab), or None for "entropy"
        logits; log probabilities are logits too
    kind : str, default "forward_kl"
        one of KINDS, which gives each one's formula
    parameter : float, optional
        the number that some kinds take; None: its default
    temperature : float, default 1.0
        that logits are divided by, those of a label's cross entropy aside, above 0
    labels : int32 (rows,), optional
        a token a row, or -1 for none
    scale, label_scale : float, default 1.0 and 0.0
        what the gradients by divergence and by cross entropy are multiplied by
    weights : float64 (rows,), optional
        likewise, by row; a row of weight 0 is not read; None: ones
    teacher_is_law : bool, default False
        the teacher is probabilities, normalised again after tempering
    gradient : bool, default True
        False: values alone
    out : float32 or float64 (rows, vocab), optional
        the gradient, filled and returned; the student's own memory, where it has that dtype, or apart from all others
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    RowDivergence
        gradient in float64 where the student is, else float32, in which it is computed too

    Raises
    ------
    ArgumentError
    NotFiniteError
        for a row with NaN or +inf, or nothing but -inf, and where the divergence is infinite; out then holds no gradient

    References
    ----------
    In KINDS.
    """
    rows, vocab = check_array("student", student, LOGITS, ("rows", "vocab"))
    if not 0 < vocab < 2**31:
        raise ArgumentError(f"student must have at least one column and fewer than 2^31, got shape {student.shape}")
    kind, number = resolve(kind, parameter)
    if kind == "entropy":
        if teacher is not None:
            raise ArgumentError("entropy is the student's alone: teacher must be None")
    else:
        check_array("teacher", teacher, LOGITS, (rows, vocab))
    temperature = check_number("temperature", temperature, 1e-6, 1e6)
    scale = check_number("scale", scale, -1e30, 1e30)
    label_scale = check_number("label_scale", label_scale, -1e30, 1e30)
    labels = None if labels is None else as_array("labels", labels, np.int32, (rows,))
    if labels is not None and labels.size and not (labels.min() >= -1 and labels.max() < vocab):
        row = int(((labels < -1) | (labels >= vocab)).argmax())
        raise ArgumentError(f"labels must be tokens below {vocab}, or -1, got {labels[row]} in row {row}")
    weights = np.ones(rows) if weights is None else as_array("weights", weights, np.float64, (rows,))
    if not np.isfinite(weights).all():
        raise ArgumentError(f"weights must be finite, got {weights[~np.isfinite(weights)][0]}")
    real: Any = np.float64 if student.dtype == np.float64 else np.float32
    forward, reverse = {"jeffreys": (1.0, 1.0), "mixed_kl": (number, 1 - number)}.get(kind, (0.0, 0.0))
    if check_flag("gradient", gradient):
        made = np.empty((rows, vocab), real) if out is None else out
        check_array("out", made, real, (rows, vocab), written=True)
    elif out is not None:
        raise ArgumentError("out is for the gradient, got gradient=False")
    else:
        made = None
    native = ffi.new(
        "struct fd_divergence *",
        {
            "kind": KINDS[kind].native, "bits": np.dtype(real).itemsize * 8, "student_numbers": _NUMBERS[student.dtype],
            "teacher_numbers": lib.FD_NUMBERS_F32 if teacher is None else _NUMBERS[teacher.dtype],
            "teacher_is_law": check_flag("teacher_is_law", teacher_is_law), "forward": forward, "reverse": reverse,
            "parameter": number, "temperature": temperature, "scale": scale, "label_scale": label_scale,
        },
    )  # fmt: skip
    threads = check_threads(threads)
    values, label_values = np.empty(rows), np.empty(rows)
    workspace = aligned_bytes(lib.fd_row_divergence_workspace(native.bits, vocab) * min(threads, max(rows, 1)))
    reads = {"student": student, "teacher": teacher, "labels": labels, "weights": weights}
    if out is not None and same_memory(out, student):
        del reads["student"]
    with written({"out": out}, reads):
        lib.fd_row_divergence(
            native, rows, vocab, const(student), const(teacher), const(labels), const(weights), pointer(values),
            pointer(label_values), pointer(made), pointer(workspace), threads,
        )  # fmt: skip
    if not np.isfinite(values).all() or not np.isfinite(label_values).all():
        row = int((~(np.isfinite(values) & np.isfinite(label_values))).argmax())
        if np.isfinite(values[row]):
            raise NotFiniteError(f"row_divergence: row {row}: its label {labels[row]} is banned by the student")
        q = floats(student[row]) if "student" in reads else None  # overwritten
        _refuse_row(row, kind, q, None if teacher is None else floats(teacher[row]), teacher_is_law)
    return RowDivergence(values, label_values, made)


def floats(logits: np.ndarray) -> np.ndarray:
    """Logits of any dtype in LOGITS as NumPy reads them."""
    return (logits.astype(np.uint32) << 16).view(np.float32) if logits.dtype == np.uint16 else logits


def _refuse_row(row: int, kind: str, student: np.ndarray | None, teacher: np.ndarray | None, is_law: bool) -> NoReturn:
    """Say what is wrong with a row whose divergence is no finite number."""
    logits = teacher
    if teacher is not None and is_law:
        if (teacher < 0).any() or not (teacher > 0).any():
            raise NotFiniteError(
                f"row_divergence: teacher: row {row} is no law: it holds a number below 0, or none above"
            )
        logits = np.where(teacher == 0, -np.inf, teacher)
    for name, z in (("teacher", logits), ("student", student)):
        if z is not None and not np.isfinite(z.max()):  # NaN where there is one
            raise NotFiniteError(f"row_divergence: {name}: row {row} holds a NaN or +inf, or nothing but -inf")
    where = ""
    if student is not None and logits is not None:
        apart = np.isneginf(student) != np.isneginf(logits)
        where = f", as at token {int(apart.argmax())}" if apart.any() else ""
    raise NotFiniteError(
        f"row_divergence: row {row}: {kind} is infinite, since one side gives a probability to what the other bans{where}: "
        'ban it on both sides, or take a kind that is bounded, such as "jsd"'
    )
