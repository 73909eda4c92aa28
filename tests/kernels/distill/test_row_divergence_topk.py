"""row_divergence_topk against its reference, on every level, and beside the divergence of whole laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import row_divergence, row_divergence_topk, set_isa
from fastdistill.kernels.distill.divergence_call import floats
from fastdistill.reference.distill.row_divergence import log_softmax
from fastdistill.reference.distill.row_divergence_topk import row_divergence_topk as reference_row_divergence_topk
from fastdistill.testing import strategies
from fastdistill.testing.cases.distill.row_divergence import error, number_of, unsure
from fastdistill.testing.cases.distill.row_divergence_topk import check


def parts(case):
    """Kind, parameter, student, tokens, their logarithms, and the other options."""
    options = dict(case)
    return *(options.pop(name) for name in ("kind", "parameter", "student", "tokens", "log_probs")), options


@given(case=strategies.row_divergence_topk())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.row_divergence_topk())
def test_same_bits_on_every_level_and_thread_count_and_in_place(isa, case):
    student, got = case["student"], row_divergence_topk(**case, threads=3)
    set_isa("scalar")
    want = row_divergence_topk(**case)
    set_isa(isa)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(got, want, strict=True))
    alone = row_divergence_topk(**case, gradient=False)
    assert alone.gradient is None and alone.values.tobytes() == want.values.tobytes()
    there = row_divergence_topk(**case, out=student)
    assert there.gradient is student and student.tobytes() == want.gradient.tobytes()


@given(case=strategies.row_divergence_topk(widths=[2, 17], dtypes=[np.float64]))
def test_gradient_is_the_derivative(isa, case):
    kind, _, student, _, _, options = parts(case)
    if kind in ("adaptive_kl", "acceptance_hybrid"):  # whose shares are constants: held to the reference's
        return
    got = row_divergence_topk(**case)
    along = np.random.default_rng(7).standard_normal(student.shape)

    def value(z):
        found = row_divergence_topk(**case | {"student": z}, gradient=False)
        return (
            options["weights"] * (found.values * options["scale"] + found.label_values * options["label_scale"])
        ).sum()

    step = 1e-6
    slope = (value(student + step * along) - value(student - step * along)) / (2 * step)
    np.testing.assert_allclose((got.gradient * along).sum(), slope, rtol=1e-6, atol=5e-7)


@given(case=strategies.row_divergence_topk(widths=[2, 17, 1040]), tail=st.sampled_from(["bucket", "drop"]))
def test_all_tokens_listed_is_the_whole_divergence(isa, case, tail):
    kind, parameter, student, _, _, options = parts(case)
    options.pop("tail")
    rows, vocab = student.shape
    random = np.random.default_rng(0)
    teacher = random.standard_normal(student.shape)
    tokens = np.array([random.permutation(vocab) for _ in range(rows)], np.int32).reshape(rows, vocab)
    log_p = log_softmax(teacher / (options["temperature"] if tail == "bucket" else 1))
    listed = np.take_along_axis(log_p, tokens, axis=1).astype(student.dtype)
    given_tail = np.zeros(rows) if tail == "bucket" else "drop"
    got = row_divergence_topk(student, tokens, listed, kind, parameter, **options, tail=given_tail)
    want = row_divergence(student, teacher.astype(student.dtype), kind, parameter, **options)
    tolerance = 8 * error(kind, number_of(kind, parameter), student, teacher, options["temperature"])
    np.testing.assert_allclose(got.values, want.values, rtol=0, atol=tolerance)
    slack = unsure(kind, student, teacher, options["temperature"])
    np.testing.assert_array_less(
        np.abs(got.gradient - want.gradient), 8 / options["temperature"] * tolerance + slack + 1e-300
    )


@given(case=strategies.row_divergence_topk(widths=[17, 1040], dtypes=[np.float64], tails=["bucket"]))
def test_a_bucket_hides_and_never_adds(isa, case):
    """Data processing: outcomes that are one say less of two laws than each alone.  A dropped tail says nothing of what leaks there."""
    kind, parameter, student, tokens, _, _ = parts(case)
    if kind in ("adaptive_kl", "acceptance_hybrid", "soft_cross_entropy"):  # not made by one convex function of p / q
        return
    rows, vocab = student.shape
    teacher = np.random.default_rng(1).standard_normal((rows, vocab))
    tokens = np.tile(np.random.default_rng(2).permutation(vocab).astype(np.int32)[: tokens.shape[1]], (rows, 1))
    listed = np.take_along_axis(log_softmax(teacher), tokens, axis=1)
    one = row_divergence_topk(student, tokens, listed, kind, parameter, gradient=False)
    whole = row_divergence(student, teacher, kind, parameter, gradient=False)
    assert (one.values <= whole.values + 1e-12).all()


@given(
    case=strategies.row_divergence_topk(widths=[17, 1040], dtypes=[np.float32]), half=st.sampled_from(["f16", "bf16"])
)
def test_halves_are_what_they_stand_for(isa, case, half):
    student = case["student"]
    bits = (np.ascontiguousarray(student).view(np.uint32) >> 16).astype(np.uint16)
    stored = bits if half == "bf16" else student.astype(np.float16)
    got = row_divergence_topk(**case | {"student": stored})
    want = row_divergence_topk(**case | {"student": floats(stored).astype(np.float32)})
    assert all(one.tobytes() == other.tobytes() for one, other in zip(got, want, strict=True))


def test_a_dropped_tail_has_no_gradient_and_a_bucket_shares_its(isa):
    student = np.random.default_rng(0).standard_normal((2, 50))
    tokens = np.array([[3, 7, 20], [49, 0, 1]], np.int32)
    log_probs = np.log([[0.5, 0.2, 0.1], [0.3, 0.3, 0.3]])
    dropped = row_divergence_topk(student, tokens, log_probs, "reverse_kl", tail="drop").gradient
    bucket = row_divergence_topk(student, tokens, log_probs, "reverse_kl").gradient
    for row in range(2):
        assert set(np.flatnonzero(dropped[row])) == set(tokens[row])
        others = np.setdiff1d(np.arange(50), tokens[row])
        shares = bucket[row, others] / np.exp(log_softmax(student)[row, others])
        np.testing.assert_allclose(shares, shares[0], rtol=1e-10)
    # Mass that leaks to the tail costs nothing where it is dropped.
    leaked = student.copy()
    leaked[:, 30:40] += 5
    same = [row_divergence_topk(z, tokens, log_probs, tail="drop").values for z in (student, leaked)]
    np.testing.assert_allclose(same[1], same[0], rtol=1e-12)
    more = [row_divergence_topk(z, tokens, log_probs).values for z in (student, leaked)]
    assert (more[1] > more[0] + 1).all()


def test_a_tiny_tail_keeps_its_digits(isa):
    """1 minus what is listed would be nothing but rounding."""
    student = np.zeros((1, 1000))
    student[0, 0] = 40.0
    tokens, log_probs = np.zeros((1, 1), np.int32), np.zeros((1, 1))
    tail = 1e-15
    got = row_divergence_topk(student, tokens, log_probs, tail=[tail])
    np.testing.assert_allclose(got.gradient[0, 1:], np.exp(-40.0) - tail / 999, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gap", [30.0, 60.0, 100.0, 800.0])
@pytest.mark.parametrize("vocab", [50, 1024, 2000])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_student_that_leaves_next_to_nothing(isa, vocab, gap, dtype, temperature):
    """No float holds the probability of its tail; its logarithm does, and shares of it."""
    student = np.round(np.random.default_rng(0).standard_normal((2, vocab)) * 8).astype(dtype) / 4
    student[:, [7, vocab - 3]] += 2 * gap
    student[1, 5:20] = -np.inf
    student[1, 7] = gap
    tokens = np.array([[vocab - 3, 7], [vocab - 3, -1]], np.int32)
    log_probs = np.log([[0.6, 0.3], [0.9, 0.05]]).astype(dtype)
    labels = np.array([9, vocab - 3], np.int32)
    for kind in ("forward_kl", "jeffreys", "reverse_kl", "jsd", "total_variation"):
        options = {"tail": np.array([0.1, 0.1]), "labels": labels, "label_scale": 0.5, "temperature": temperature}
        parameter = 0.5 if kind == "jsd" else None
        found = row_divergence_topk(student, tokens, log_probs, kind, parameter, **options)
        want = reference_row_divergence_topk(student, tokens, log_probs, kind, parameter, **options)
        # A logarithm of a probability is a difference of logits: off by a unit of the gap, as is a value, and a gradient by the reverse KL.
        near = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(found.values, want[0], rtol=near, atol=near)
        np.testing.assert_allclose(found.label_values, want[1], rtol=near, atol=near)
        np.testing.assert_allclose(
            found.gradient, want[2], rtol=near, atol=near * (1 + (kind != "forward_kl") * want[0].max())
        )
    others = np.setdiff1d(np.arange(vocab), tokens[0])
    found = row_divergence_topk(student[:1], tokens[:1], log_probs[:1], tail=[0.1])
    np.testing.assert_allclose(found.gradient[0, others].sum(), -0.1, rtol=1e-4)


STUDENT, TOKENS, LOGS = (
    np.zeros((2, 6), np.float32),
    np.array([[0, 3], [5, -1]], np.int32),
    np.log(np.full((2, 2), 0.25, np.float32)),
)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"student": np.zeros((2, 6), np.int32)}, "student must have dtype float32"),
        ({"tokens": TOKENS.astype(np.int64)}, "tokens must have dtype int32"),
        ({"tokens": TOKENS[:, :0], "log_probs": LOGS[:, :0]}, "tokens must have at least one column"),
        ({"tokens": TOKENS + 1}, "tokens must be below 6, or -1 for none, got 6"),
        ({"tokens": TOKENS * 0}, "tokens must list each token once a row, got 0 twice in row 0"),
        ({"log_probs": LOGS[:1]}, r"log_probs must have shape \(2, 2\)"),
        ({"log_probs": LOGS * 0}, "sum up to 1 at most, got 2 in row 0"),
        ({"tail": "keep"}, 'tail must be "bucket", "drop" or an array'),
        ({"tail": [0.5]}, r"tail must have shape \(2,\)"),
        ({"tail": [0.5, 1.5]}, "tail must be probabilities"),
        ({"kind": "entropy"}, "kind must be a divergence between laws, got entropy"),
        ({"labels": [0, 9]}, "labels must be tokens below 6"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        row_divergence_topk(**{"student": STUDENT, "tokens": TOKENS, "log_probs": LOGS, **change})


def test_what_is_not_finite_is_named(isa):
    broken = STUDENT.copy()
    broken[1, 2] = np.nan
    with pytest.raises(NotFiniteError, match="row 1 of the student holds a NaN"):
        row_divergence_topk(broken, TOKENS, LOGS)
    logs = LOGS.copy()
    logs[0, 1] = np.nan
    with pytest.raises(NotFiniteError, match="row 0 of log_probs holds a NaN"):
        row_divergence_topk(STUDENT, TOKENS, logs, tail=[0.1, 0.1])
    banned = STUDENT.copy()
    banned[0, 3] = -np.inf
    with pytest.raises(NotFiniteError, match="row 0: forward_kl is infinite"):
        row_divergence_topk(banned, TOKENS, LOGS)
    with pytest.raises(NotFiniteError, match="row 0: its label 3 is banned"):
        row_divergence_topk(banned, TOKENS, LOGS, "jsd", labels=[3, 3])
    broken = np.full((2, 6), np.nan, np.float32)
    assert not row_divergence_topk(broken, TOKENS, LOGS, weights=[0, 0]).gradient.any()
