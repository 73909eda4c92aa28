"""head_divergence against its reference and row_divergence, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import head_divergence, row_divergence, set_isa
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.reference.distill.head_divergence import head_divergence as reference_head_divergence
from fastdistill.testing import strategies
from fastdistill.testing.cases.distill.head_divergence import HEAD_KINDS, check


@pytest.mark.parametrize("kind", HEAD_KINDS)
@settings(max_examples=8)
@given(data=st.data())
def test_matches_reference(isa, kind, data):
    check(data.draw(strategies.head_divergence(kinds=[kind])))


@given(case=strategies.head_divergence())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    got = head_divergence(**case, threads=3)
    set_isa("scalar")
    want = head_divergence(**case)
    set_isa(isa)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(got, want, strict=True))
    alone = head_divergence(**case, gradient=False)
    assert alone.hidden is alone.head is None
    assert (
        alone.values.tobytes() == want.values.tobytes() and alone.label_values.tobytes() == want.label_values.tobytes()
    )


@given(case=strategies.head_divergence(rows=[1, 7]))
def test_a_row_is_treated_alike_in_any_company(isa, case):
    """Values and the hidden states' gradient of each row, bit for bit."""
    whole = head_divergence(**case)
    for row in range(len(case["hidden"])):
        alone = {
            name: value[row : row + 1] if isinstance(value, np.ndarray) and "head" not in name else value
            for name, value in case.items()
        }
        got = head_divergence(**alone)
        assert got.values.tobytes() == whole.values[row : row + 1].tobytes()
        assert got.hidden.tobytes() == whole.hidden[row : row + 1].tobytes()


def test_more_rows_than_pass_at_once_and_long_sums(isa):
    """528 rows share one passing of the vocabulary, and the head's gradient goes on from one to the next; 256 terms a turn."""
    random = np.random.default_rng(0)
    hidden, head = (random.standard_normal(shape).astype(np.float32) for shape in ((1010, 300), (150, 300)))
    teacher = random.standard_normal((1010, 150)).astype(np.float32)
    got = head_divergence(hidden, head / 17, "jsd", teacher=teacher, threads=2)
    want = reference_head_divergence(hidden, head / 17, "jsd", 0.5, teacher=teacher)
    np.testing.assert_allclose(got.values, want[0], atol=2e-6)
    np.testing.assert_allclose(got.hidden, want[2], atol=2e-6)
    np.testing.assert_allclose(got.head, want[3], atol=1e-4)


def test_is_the_divergence_of_the_logits(isa):
    """Of small integers, whose products and sums are exact: values as row_divergence has them, whose chunks are longer."""
    random = np.random.default_rng(1)
    hidden, head = (random.integers(-2, 3, shape).astype(np.float32) for shape in ((9, 8), (700, 8)))
    teacher = random.standard_normal((9, 700)).astype(np.float16)
    for kind in ("forward_kl", "reverse_kl", "acceptance_hybrid", "soft_cross_entropy"):
        want = row_divergence(hidden @ head.T, teacher, kind, temperature=2.0)
        got = head_divergence(hidden, head, kind, teacher=teacher, temperature=2.0)
        np.testing.assert_allclose(got.values, want.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got.hidden, want.gradient @ head, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in HEAD_KINDS if kind not in ("soft_cross_entropy", "entropy")])
def test_equal_laws_are_no_way_apart_to_the_bit(isa, kind):
    random = np.random.default_rng(0)
    hidden, head = (random.standard_normal(shape).astype(np.float32) for shape in ((30, 20), (333, 20)))
    for temperature in (0.5, 1.0, 3.0):
        got = head_divergence(hidden, head, kind, teacher_hidden=hidden, teacher_head=head, temperature=temperature)
        assert not got.values.any() and not got.hidden.any() and not got.head.any()


@pytest.mark.parametrize("kind", HEAD_KINDS)
@pytest.mark.parametrize("spread", [1.0, 20.0, 60.0])
def test_gradients_are_those_of_row_divergence_by_the_chain_rule(isa, kind, spread):
    """Of laws near each other and of laws with next to nothing in common, whose logarithms have slopes of 1 over that."""
    random = np.random.default_rng(4)
    hidden, head = (random.integers(-2, 3, shape).astype(np.float32) for shape in ((40, 8), (300, 8)))
    teacher = (random.standard_normal((40, 300)) * spread).astype(np.float32)
    logits, options = hidden @ head.T, {"labels": np.arange(40, dtype=np.int32), "label_scale": 0.5, "temperature": 2.0}
    want = row_divergence(logits, None if kind == "entropy" else teacher, kind, **options)
    got = head_divergence(hidden, head, kind, teacher=None if kind == "entropy" else teacher, **options)
    np.testing.assert_allclose(got.values, want.values, rtol=1e-4, atol=1e-6)
    scale = max(1, np.abs(want.gradient).max())
    np.testing.assert_allclose(got.hidden, want.gradient @ head, rtol=1e-3, atol=2e-5 * scale)
    np.testing.assert_allclose(got.head, want.gradient.T @ hidden, rtol=1e-3, atol=2e-5 * scale)


@pytest.mark.parametrize("kind", ["jsd", "total_variation", "probability_mse", "skew_reverse_kl"])
def test_whole_blocks_of_a_teachers_row_may_be_banned(isa, kind):
    random = np.random.default_rng(5)
    hidden, head, teacher = (random.standard_normal(shape).astype(np.float32) for shape in ((3, 6), (500, 6), (3, 500)))
    teacher[0, :300], teacher[1, 144:288], teacher[2, 200:] = -np.inf, -np.inf, -np.inf
    for temperature in (0.5, 1.0):
        got = head_divergence(hidden, head, kind, teacher=teacher, temperature=temperature)
        want = reference_head_divergence(
            hidden,
            head,
            kind,
            KINDS[kind].parameter and KINDS[kind].parameter.default,
            teacher=teacher,
            temperature=temperature,
        )
        np.testing.assert_allclose(got.values, want[0], rtol=1e-5)
        np.testing.assert_allclose(got.hidden, want[2], atol=2e-6)
        np.testing.assert_allclose(got.head, want[3], atol=2e-6)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_logits_that_are_none_are_refused_whatever_the_kind(isa, kind):
    hidden, head = np.ones((2, 3), np.float32), np.ones((30, 3), np.float32)
    sides = {} if kind == "entropy" else {"teacher": np.zeros((2, 30), np.float32)}
    for value in (np.nan, np.inf, 3e38):
        hidden[1] = value
        with pytest.raises(NotFiniteError, match="row 1: its logits, or the teacher's"):
            head_divergence(hidden, head, kind, **sides)
    hidden[1] = -3e38
    with pytest.raises(NotFiniteError, match="row 1: its logits, or the teacher's"):
        head_divergence(hidden, head, kind, **sides)
    hidden[1] = 1
    if sides:
        for value in (np.nan, np.inf, -np.inf):
            teacher = np.zeros((2, 30), np.float32)
            teacher[1, slice(None) if value == -np.inf else 7] = value
            with pytest.raises(NotFiniteError, match="row 1: its logits, or the teacher's"):
                head_divergence(hidden, head, kind, teacher=teacher)


def test_a_gradient_beyond_float32_is_refused(isa):
    random = np.random.default_rng(0)
    hidden, head, teacher = (random.standard_normal(shape).astype(np.float32) for shape in ((3, 6), (40, 6), (3, 40)))
    with pytest.raises(NotFiniteError, match="the gradient by the hidden states is beyond float32"):
        head_divergence(hidden, head, teacher=teacher, weights=[1e20, 1, 1], scale=1e30)
    with pytest.raises(NotFiniteError, match="the gradient by the head is beyond float32"):
        head_divergence(hidden * 1e10, head * 1e-10, teacher=teacher, scale=1e30)


def test_a_row_of_weight_0_is_not_read(isa):
    random = np.random.default_rng(0)
    hidden, head, teacher = (random.standard_normal(shape).astype(np.float32) for shape in ((3, 6), (40, 6), (3, 40)))
    want = head_divergence(hidden[[0, 2]], head, teacher=teacher[[0, 2]], labels=[1, 2], label_scale=1.0)
    hidden[1], teacher[1] = np.nan, np.nan
    got = head_divergence(hidden, head, teacher=teacher, weights=[1, 0, 1], labels=[1, 7, 2], label_scale=1.0)
    assert got.values[1] == got.label_values[1] == 0 and not got.hidden[1].any()
    np.testing.assert_array_equal(got.values[[0, 2]], want.values)
    np.testing.assert_array_equal(got.hidden[[0, 2]], want.hidden)
    np.testing.assert_array_equal(got.head, want.head)
    none = head_divergence(hidden, head, teacher=teacher, weights=[0, 0, 0])
    assert not none.values.any() and not none.hidden.any() and not none.head.any()


def test_a_listed_teacher_may_be_of_any_kind_but_those_of_no_law(isa):
    random = np.random.default_rng(0)
    hidden, head = (random.standard_normal(shape).astype(np.float32) for shape in ((3, 6), (40, 6)))
    tokens, log_probs = np.array([[1, 30, 7]] * 3, np.int32), np.log(np.array([[0.5, 0.2, 0.1]] * 3, np.float32))
    got = head_divergence(hidden, head, "adaptive_kl", tokens=tokens, log_probs=log_probs)
    want = reference_head_divergence(hidden, head, "adaptive_kl", 0.5, tokens=tokens, log_probs=log_probs)
    np.testing.assert_allclose(got.values, want[0], rtol=1e-5)
    np.testing.assert_allclose(got.head, want[3], atol=1e-5)
    with pytest.raises(ArgumentError, match="got logit_mse"):
        head_divergence(hidden, head, "logit_mse", tokens=tokens, log_probs=log_probs)


def test_what_is_not_finite_is_named(isa):
    hidden, head, teacher = np.ones((2, 3), np.float32), np.ones((30, 3), np.float32), np.zeros((2, 30), np.float32)
    hidden[1, 2] = np.nan
    with pytest.raises(NotFiniteError, match="row 1: its logits, or the teacher's, hold a NaN"):
        head_divergence(hidden, head, teacher=teacher)
    with pytest.raises(NotFiniteError, match="row 1: its logits"):  # its number among all rows, not those that count
        head_divergence(hidden, head, teacher=teacher, weights=[0, 1])
    hidden[1, 2], head[29, 0] = 1, np.inf
    with pytest.raises(NotFiniteError, match="row 0: its logits"):
        head_divergence(hidden, head, teacher=teacher)
    head[29, 0], teacher[1, 4] = 1, -np.inf
    with pytest.raises(NotFiniteError, match="row 1: reverse_kl is infinite"):
        head_divergence(hidden, head, "reverse_kl", teacher=teacher)
    teacher[1] = -np.inf
    with pytest.raises(NotFiniteError, match="row 1: its logits, or the teacher's"):
        head_divergence(hidden, head, teacher=teacher)


HIDDEN, HEAD, TEACHER = np.zeros((2, 3), np.float32), np.zeros((5, 3), np.float32), np.zeros((2, 5), np.float32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hidden": np.zeros((2, 3))}, "hidden must have dtype float32"),
        ({"head": np.zeros((5, 4), np.float32)}, r"head must have shape \(vocab, 3\)"),
        ({"head": np.zeros((0, 3), np.float32), "teacher": np.zeros((2, 0), np.float32)}, "head must have rows"),
        ({"teacher": TEACHER[:, :4].copy()}, r"teacher must have shape \(2, 5\)"),
        ({"teacher": None}, "the teacher must be given by its logits, or by teacher_hidden and teacher_head"),
        ({"teacher_hidden": HIDDEN}, "the teacher must be given by its logits, or by"),
        ({"teacher": None, "teacher_hidden": HIDDEN}, "the teacher must be given by its logits, or by"),
        (
            {"teacher": None, "teacher_hidden": HIDDEN, "teacher_head": HEAD[:4]},
            r"teacher_head must have shape \(5, 3\)",
        ),
        ({"teacher": None, "tokens": TEACHER.astype(np.int32)}, "or by tokens and log_probs"),
        ({"tokens": TEACHER.astype(np.int32), "log_probs": TEACHER}, "or by tokens and log_probs"),
        (
            {"teacher": None, "tokens": np.zeros((2, 2), np.int32), "log_probs": np.full((2, 2), -1, np.float32)},
            "got one twice in row 0",
        ),
        (
            {"teacher": None, "tokens": np.full((2, 1), 5, np.int32), "log_probs": TEACHER[:, :1].copy()},
            "tokens must be below 5",
        ),
        ({"kind": "adaptive_kl"}, "adaptive_kl wants whole rows of logits"),
        ({"kind": "entropy"}, "there must be no teacher"),
        ({"labels": [0, 5]}, "labels must be tokens below 5"),
        ({"labels": [0, -2]}, "labels must be tokens below 5, or -1, got -2 in row 1"),
        ({"weights": [np.inf, 1]}, "weights must be finite"),
        ({"gradient": 1}, "gradient must be True or False"),
        ({"threads": 0, "weights": [0, 0]}, "threads must lie in"),
        ({"kind": "alpha", "parameter": 1e-9}, "must be an end or 1e-05 away"),
        ({"temperature": 0.0}, "temperature must lie in"),
        ({"scale": np.inf}, "scale must lie in"),
        ({"teacher_is_law": 1}, "teacher_is_law must be True or False"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        head_divergence(**{"hidden": HIDDEN, "head": HEAD, "teacher": TEACHER, **change})
