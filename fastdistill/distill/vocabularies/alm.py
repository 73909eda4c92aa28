"""ALM: distillation across tokenizers by the likelihood of chunks of text that both models' tokens stand for."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_choice, check_flag, check_number
from fastdistill.distill.log_softmax import blocks, log_softmax
from fastdistill.distill.loss import IGNORED, Loss, Reduction, as_labels
from fastdistill.distill.vocabularies.alignment import as_chunks, check_within, chunk_sums, token_chunks
from fastdistill.errors import ArgumentError, NotFiniteError

_KINDS = "binary_ce", "kl", "reverse_kl", "abs", "abs_exp"
_NEED_FINITE = "reverse_kl", "abs"  # of a chunk that the teacher gives no probability these are infinite
_ROUNDING = 1e-4  # a log-probability may be so much above 0


def alm_loss(
    student: np.ndarray,
    labels: Any,
    chunks: Any,
    teacher_log_probs: Any,
    *,
    kind: str = "binary_ce",
    binarization_temperature: float = 100.0,
    epsilon: float = 1e-6,
    space: Any = None,
    teacher_space_log_probs: Any = None,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """How far the student's probability of each chunk of text is from the teacher's, of whatever tokens each makes it.

    With a and b the sums of the teacher's and the student's log-probabilities over a chunk's tokens, tau the
    binarization temperature, A = a / tau - epsilon and B = b / tau - epsilon, a chunk costs

    - binary_ce: -(e^A B + (1 - e^A) log(1 - e^B))
    - kl: binary_ce less its least value, at B = A
    - reverse_kl: e^B (B - A) + (1 - e^B) (log(1 - e^B) - log(1 - e^A))
    - abs: |B - A|
    - abs_exp: |e^B - e^A|

    Parameters
    ----------
    student : float32 or float64 (n, vocab)
        logits; row j is what predicts token j of the student, so a model's rows go in without the last and its tokens
        without the first
    labels : int (n,)
        the student's tokens; a chunk that holds an ignored one, -100, does not count
    chunks : int (C, 4)
        as `align_bytes` gives them, of the same tokens
    teacher_log_probs : float32 or float64 (Lt,)
        the teacher's log-probability of each of its tokens; -inf for a ban, where the kind allows it
    kind : str, default "binary_ce"
        one of those above
    binarization_temperature : float, default 100
        tau, above 0: large, as chunks have small probabilities, and at 1 the loss is flat there
    epsilon : float, default 1e-6
        1e-12 to 1; what bounds the slope where the student is certain
    space : bool (vocab,), optional
        the student's tokens that begin with a blank: then each chunk is followed by one, whichever, in its probability.
        So a tokenizer whose token says more of what comes has no advantage. It is read from row j1, which must be there,
        under whatever label; a chunk without does not count
    teacher_space_log_probs : float32 or float64 (Lt,), optional
        with `space`: entry i is the log of the mass that the teacher gives its tokens that begin with a blank, where
        it predicts token i; read at i1
    weights : float (C,), optional
        of the chunks: `chunk_weights` makes them from masks; `chunks[:, 3] - chunks[:, 2]` weighs a chunk by its tokens
    reduction : str, default "mean"
        "mean", over the total weight of chunks that count, or "sum"
    total_weight : float, optional
        of the whole batch, where these chunks are a part of it
    gradient : bool, default True
        False: Loss.gradient is None

    Returns
    -------
    Loss
        rows float64 (C,), a chunk each; gradient (n, vocab) in the student's dtype; info: teacher_log_probs and
        student_log_probs, a and b, float64 (C,), 0 where a chunk does not count; counted, so many chunks do

    Raises
    ------
    ArgumentError
    NotFiniteError
        naming the array and the row; and where the student bans a token of a chunk that counts

    References
    ----------
    Minixhofer et al. 2025, "Universal Cross-Tokenizer Distillation via Approximate Likelihood Matching", section 3
    """
    n, vocab = check_array("student", student, REAL, ("rows", "vocab"))
    targets, spans = as_labels(labels, n, vocab), as_chunks(chunks)
    check_choice("kind", kind, _KINDS)
    tau = check_number("binarization_temperature", binarization_temperature, 1e-6, 1e9)
    epsilon = check_number("epsilon", epsilon, 1e-12, 1)
    check_flag("gradient", gradient)
    teacher_spans, student_spans = spans[:, :2], spans[:, 2:]
    given = as_array("teacher_log_probs", teacher_log_probs, np.float64, ("tokens",))
    check_within("teacher_log_probs", len(given), teacher_spans)
    check_within("labels", n, student_spans)
    if (space is None) != (teacher_space_log_probs is None):
        raise ArgumentError("space and teacher_space_log_probs go together: give both, or neither")

    here = chunk_sums(targets == IGNORED, student_spans) == 0
    if space is not None:
        blank = as_array("space", space, np.bool_, (vocab,))
        if not blank.any():
            raise ArgumentError("space must name one token at least, got none")
        blanks = as_array("teacher_space_log_probs", teacher_space_log_probs, np.float64, (len(given),))
        here &= (teacher_spans[:, 1] < len(given)) & (student_spans[:, 1] < n)
    reduce = Reduction(len(spans), weights, reduction, total_weight, labels=np.where(here, 0, IGNORED).astype(np.int32))
    counts = reduce.weights > 0
    of_token = token_chunks(student_spans[counts], n)
    a = np.zeros(len(spans))
    a[counts] = chunk_sums(_checked("teacher_log_probs", given, teacher_spans[counts], kind), teacher_spans[counts])
    if space is not None:
        ahead = np.stack([teacher_spans[counts, 1], teacher_spans[counts, 1] + 1], axis=1)
        a[counts] += _checked("teacher_space_log_probs", blanks, ahead, kind)[ahead[:, 0]]
    a = np.minimum(a, 0)  # what rounding put above

    # The rows to be read: those that predict a chunk's tokens, and those that look past its last one.
    predicts = of_token >= 0
    looks = np.full(n, -1)  # the chunk that looks ahead by a row
    if space is not None:
        looks[student_spans[counts, 1]] = np.arange(counts.sum())
    read = np.flatnonzero(predicts | (looks >= 0))
    b_counted = np.zeros(int(counts.sum()))
    for rows in blocks(read, vocab):
        log_q = log_softmax("student", student[rows], rows)
        own, past = predicts[rows], looks[rows] >= 0
        token_log_probs = log_q[own, targets[rows[own]]]
        _refuse_bans(token_log_probs, rows[own], "its label")
        np.add.at(b_counted, of_token[rows[own]], token_log_probs)
        if past.any():
            mass = _log_sum(log_q[past][:, blank])
            _refuse_bans(mass, rows[past], "every blank")
            np.add.at(b_counted, looks[rows[past]], mass)
    b = np.zeros(len(spans))
    b[counts] = np.minimum(b_counted, 0)

    cost, slope = _cost(kind, a / tau - epsilon, b / tau - epsilon)
    cost = np.where(counts, cost, 0)
    info = {"teacher_log_probs": a, "student_log_probs": b, "counted": int(counts.sum())}
    if not gradient:
        return reduce.loss(cost, None, **info)

    by_chunk = (slope / tau * reduce.scale)[counts]
    found = np.zeros((n, vocab), student.dtype)
    for rows in blocks(read, vocab):
        q = np.exp(log_softmax("student", student[rows], rows))
        own, past = predicts[rows], looks[rows] >= 0
        coefficient = np.zeros(len(rows))
        coefficient[own] = by_chunk[of_token[rows[own]]]
        coefficient_ahead = np.zeros(len(rows))
        coefficient_ahead[past] = by_chunk[looks[rows[past]]]
        block = -(coefficient + coefficient_ahead)[:, None] * q
        block[own, targets[rows[own]]] += coefficient[own]
        if past.any():
            among = np.where(blank, q[past], 0)
            block[past] += coefficient_ahead[past, None] * among / among.sum(axis=1, keepdims=True)
        found[rows] = block
    return reduce.loss(cost, found, **info)


def _cost(kind: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each chunk costs, and the slope of that by b, each (C,); a and b are logarithms of probabilities."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        teacher, student = np.exp(a), np.exp(b)
        if kind == "abs":
            return np.abs(b - a), np.sign(b - a)
        if kind == "abs_exp":
            return np.abs(student - teacher), np.sign(student - teacher) * student
        other_teacher, other_student = _log_of_rest(a), _log_of_rest(b)
        if kind == "reverse_kl":
            apart = (b - a) - (other_student - other_teacher)
            return student * (b - a) - np.expm1(b) * (other_student - other_teacher), student * apart
        cost = -(teacher * b - np.expm1(a) * other_student)
        if kind == "kl":
            cost += np.where(teacher > 0, teacher * a, 0) - np.expm1(a) * other_teacher
        # (e^B - e^A) / (1 - e^B), each difference without cancelling
        return cost, np.where(a > b, teacher * np.expm1(b - a), -student * np.expm1(a - b)) / -np.expm1(b)


def _log_of_rest(x: np.ndarray) -> np.ndarray:
    """log(1 - e^x) of x <= 0, near 0 and far from it."""
    return np.where(x > -np.log(2), np.log(-np.expm1(x)), np.log1p(-np.exp(x)))


def _log_sum(log_probs: np.ndarray) -> np.ndarray:
    """(m,): log sum exp of each row; -inf where all are."""
    top = log_probs.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(log_probs - top).sum(axis=1)) + top[:, 0]


def _checked(name: str, log_probs: np.ndarray, spans: np.ndarray, kind: str) -> np.ndarray:
    """The log-probabilities, of which those that chunks read are at most 0, and finite where the kind needs it."""
    read = token_chunks(spans, len(log_probs)) >= 0
    wrong = read & (np.isnan(log_probs) | ((log_probs == -np.inf) if kind in _NEED_FINITE else False))
    if wrong.any():
        at = int(wrong.argmax())
        only = f": {kind} needs finite ones" if log_probs[at] == -np.inf else ""
        raise NotFiniteError(f"{name}: row {at} holds {log_probs[at]}{only}")
    above = read & (log_probs > _ROUNDING)
    if above.any():
        at = int(above.argmax())
        raise ArgumentError(f"{name} must be log-probabilities, at most 0, got {log_probs[at]:.9g} at {at}")
    return log_probs


def _refuse_bans(log_probs: np.ndarray, rows: np.ndarray, what: str) -> None:
    if (log_probs == -np.inf).any():
        row = int(rows[(log_probs == -np.inf).argmax()])
        raise NotFiniteError(f"student: row {row} gives {what} no probability, so the loss has no bound")
