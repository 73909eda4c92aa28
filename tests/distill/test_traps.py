"""Classic faults of distillation, each as a test: what many have got wrong once must not go wrong here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill import distill
from fastdistill.distill.loss import counted
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.distill.kinds import KINDS

DIVERGENCES = [kind for kind in KINDS if kind != "entropy"]


def batch(seed=0, rows=7, vocab=40):
    random = np.random.default_rng(seed)
    student, teacher = random.standard_normal((2, rows, vocab)).astype(np.float32) * 2
    return student, teacher, random.integers(0, vocab, rows).astype(np.int32), random.random(rows)


@given(cuts=st.sets(st.integers(1, 6)), seed=st.integers(0, 99), kind=st.sampled_from(DIVERGENCES))
def test_any_split_into_micro_batches_gives_the_same_gradient(cuts, seed, kind):
    """Bit for bit; the mean of the parts' means, the field's classic fault, is another number."""
    student, teacher, labels, weights = batch(seed)
    labels[2] = -100
    whole = distill.divergence(student, teacher, kind, weights=weights, labels=labels, temperature=2.0)
    edges, total = [0, *sorted(cuts), 7], (weights * (labels != -100)).sum()
    parts = [
        distill.divergence(
            student[a:b],
            teacher[a:b],
            kind,
            weights=weights[a:b],
            labels=labels[a:b],
            temperature=2.0,
            total_weight=total,
        )
        for a, b in itertools.pairwise(edges)
    ]
    assert np.concatenate([part.gradient for part in parts]).tobytes() == whole.gradient.tobytes()
    np.testing.assert_allclose(sum(part.value for part in parts), whole.value, rtol=1e-14)
    if cuts == {2}:
        means = [distill.divergence(student[a:b], teacher[a:b], kind).value for a, b in ((0, 2), (2, 7))]
        assert abs(np.mean(means) - distill.divergence(student, teacher, kind).value) > 1e-6


def test_micro_batches_of_a_head_sum_up_to_the_whole():
    random = np.random.default_rng(0)
    hidden, head = (
        random.standard_normal((9, 12)).astype(np.float32),
        random.standard_normal((50, 12)).astype(np.float32),
    )
    teacher, weights = random.standard_normal((9, 50)).astype(np.float32), random.random(9)
    whole = distill.head_loss(hidden, head, "jsd", teacher=teacher, weights=weights)
    parts = [
        distill.head_loss(
            hidden[a:b], head, "jsd", teacher=teacher[a:b], weights=weights[a:b], total_weight=weights.sum()
        )
        for a, b in ((0, 2), (2, 9))
    ]
    assert np.concatenate([part.gradient.hidden for part in parts]).tobytes() == whole.gradient.hidden.tobytes()
    np.testing.assert_allclose(parts[0].gradient.head + parts[1].gradient.head, whole.gradient.head, atol=1e-6)
    np.testing.assert_allclose(sum(part.value for part in parts), whole.value, rtol=1e-14)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_padding_never_counts(kind):
    """Rows of weight 0, and rows labelled -100, may hold anything: neither value nor any bit of a gradient knows how many there are."""
    student, teacher, labels, _ = batch()
    want = distill.divergence(student, teacher, kind, labels=labels)
    padded = [np.concatenate([each, np.full((4, 40), np.nan, np.float32)]) for each in (student, teacher)]
    for options in (
        {"labels": np.concatenate([labels, np.full(4, -100, np.int32)])},
        {"labels": np.concatenate([labels, np.zeros(4, np.int32)]), "weights": np.repeat([1.0, 0.0], [7, 4])},
        {"labels": np.concatenate([labels, np.zeros(4, np.int32)]), "weights": np.repeat([True, False], [7, 4])},
    ):
        got = distill.divergence(*padded, kind, **options)
        assert got.value == want.value
        assert got.gradient[:7].tobytes() == want.gradient.tobytes() and not got.gradient[7:].any()
        assert not got.rows[7:].any()


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("kind", DIVERGENCES)
def test_nothing_to_count_is_0_and_zeros(kind, rows):
    student, teacher, _, _ = batch(rows=rows)
    for reduction in ("mean", "sum"):
        got = distill.divergence(student, teacher, kind, weights=np.zeros(rows), reduction=reduction)
        assert got.value == 0 and got.gradient.shape == student.shape and not got.gradient.any() and not got.rows.any()


def test_row_i_predicts_token_i_plus_1():
    """Logits of a model that knows the text: near 0 against the next tokens, and not against the tokens themselves."""
    tokens = np.array([5, 2, 9, 2, 7], np.int32)
    logits = np.zeros((5, 10), np.float32)
    logits[np.arange(4), tokens[1:]] = 30
    shifted = np.append(tokens[1:], -100)
    assert distill.cross_entropy(logits, shifted).value < 1e-9
    assert distill.cross_entropy(logits, tokens).value > 10


@pytest.mark.parametrize("kind", ["forward_kl", "jsd", "reverse_kl", "soft_cross_entropy"])
def test_temperature_is_squared_once_and_where_it_is_asked_for(kind):
    """The divergence's term by T^2, its gradient with it; the label's term, which is at temperature 1, never."""
    student, teacher, labels, _ = batch()
    options = {"labels": labels, "label_scale": 0.3, "temperature": 4.0}
    plain, squared = (
        distill.divergence(student, teacher, kind, **options, temperature_squared=each) for each in (False, True)
    )
    alone = distill.divergence(student, teacher, kind, temperature=4.0)
    np.testing.assert_allclose(squared.value - plain.value, 15 * alone.value, rtol=1e-12)
    np.testing.assert_allclose(squared.gradient - plain.gradient, 15 * alone.gradient, atol=1e-6)
    np.testing.assert_array_equal(squared.info["divergence"], plain.info["divergence"])
    # Of small logits the gradient is (s - t) / (V T^2): with T^2 it is as large at every temperature.
    small = [
        distill.divergence(student / 500, teacher / 500, "forward_kl", temperature=t, temperature_squared=True)
        for t in (1.0, 4.0)
    ]
    ratio = np.linalg.norm(small[1].gradient) / np.linalg.norm(small[0].gradient)
    np.testing.assert_allclose(ratio, 1, rtol=2e-3)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_a_teacher_that_is_paid_for_moves_the_student(kind):
    """Every row that counts has a gradient, and another one beside another teacher."""
    student, teacher, _, weights = batch()
    one = distill.divergence(student, teacher, kind, weights=weights + 0.1)
    other = distill.divergence(student, teacher[::-1].copy(), kind, weights=weights + 0.1)
    assert (np.abs(one.gradient).max(axis=1) > 1e-5).all()
    assert (np.abs(one.gradient - other.gradient).max(axis=1)[[0, 1, 2, 4, 5, 6]] > 1e-5).all()
    tokens, log_probs = np.argsort(-teacher, axis=1)[:, :5].astype(np.int32), np.log(np.full((7, 5), 0.15, np.float32))
    if kind not in ("logit_mse", "probability_mse"):
        assert (np.abs(distill.topk_divergence(student, tokens, log_probs, kind).gradient).max(axis=1) > 1e-5).all()
    stepped = student - 0.5 * distill.divergence(student, teacher, kind, reduction="sum").gradient
    assert distill.divergence(stepped, teacher, kind).value < distill.divergence(student, teacher, kind).value


def test_vocabularies_of_different_width_are_refused_with_the_way_out():
    student, teacher, _, _ = batch()
    with pytest.raises(ArgumentError, match="common_vocabulary"):
        distill.forward_kl(student, np.pad(teacher, ((0, 0), (0, 8))))


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_named_objectives_are_divergence_of_their_kind(kind):
    student, teacher, labels, weights = batch()
    number = KINDS[kind].parameter
    named = getattr(distill, kind)
    want = distill.divergence(student, teacher, kind, labels=labels, weights=weights)
    got = named(student, teacher, labels=labels, weights=weights)
    assert (got.value, got.gradient.tobytes()) == (want.value, want.gradient.tobytes())
    if number:
        other = 0.25 * number.default
        got = named(student, teacher, other), named(student, teacher, **{number.name: other})
        assert got[0].value == got[1].value == distill.divergence(student, teacher, kind, other).value != want.value


def test_entropy_cross_entropy_and_acceptance():
    student, teacher, labels, weights = batch()
    q = np.exp(student - student.max(axis=1, keepdims=True)).astype(np.float64)
    q /= q.sum(axis=1, keepdims=True)
    p = np.exp(teacher.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(distill.entropy(student, weights=weights).rows, -(q * np.log(q)).sum(axis=1), rtol=1e-5)
    found = distill.cross_entropy(student, labels, weights=weights)
    np.testing.assert_allclose(found.rows, -np.log(q[np.arange(7), labels]), rtol=1e-5)
    np.testing.assert_allclose(found.gradient, (q - np.eye(40)[labels]) * (weights / weights.sum())[:, None], atol=1e-7)
    np.testing.assert_allclose(distill.acceptance(student, teacher), np.minimum(p, q).sum(axis=1), rtol=1e-6)


def test_the_value_is_what_the_gradient_is_of():
    """Both terms with their scales, their labels and who has none: central differences of the value itself, in float64."""
    student, teacher, labels, weights = batch()
    student, labels[3] = student.astype(np.float64), -100
    along = np.random.default_rng(5).standard_normal(student.shape)
    for options in (
        {},
        {"label_scale": 0.3},
        {"temperature_squared": True, "label_scale": 0.0},
        {"total_weight": 9.0},
        {"reduction": "sum"},
    ):

        def loss(z, options=options):
            return distill.divergence(
                z, teacher, "jsd", labels=labels, weights=weights, temperature=2.0, scale=0.7, **options
            )

        slope = (loss(student + 1e-5 * along).value - loss(student - 1e-5 * along).value) / 2e-5
        np.testing.assert_allclose((loss(student).gradient * along).sum(), slope, rtol=1e-7)
    got = distill.divergence(student, teacher, labels=labels)
    ignored = distill.divergence(np.delete(student, 3, 0), np.delete(teacher, 3, 0), labels=np.delete(labels, 3))
    assert got.value == ignored.value and got.info["cross_entropy"][3] == 0


def test_the_rest_of_what_objectives_hand_on():
    student, teacher, labels, weights = batch()
    halves = [
        distill.cross_entropy(student[part], labels[part], total_weight=7.0).value for part in (slice(3), slice(3, 7))
    ]
    np.testing.assert_allclose(sum(halves), distill.cross_entropy(student, labels).value, rtol=1e-14)
    warm = distill.acceptance(student, teacher, temperature=3.0)
    np.testing.assert_allclose(warm, distill.acceptance(student / 3, teacher / 3), rtol=1e-6)
    assert (warm > distill.acceptance(student, teacher)).all()
    tokens, log_probs = np.tile(np.arange(4, dtype=np.int32), (7, 1)), np.log(np.full((7, 4), 0.2, np.float32))
    tails = [distill.topk_divergence(student, tokens, log_probs, tail=tail).value for tail in ("bucket", "drop")]
    assert abs(tails[0] - tails[1]) > 1e-2
    law = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
    hidden, head = student[:, :12].copy(), student.T[:, :7].repeat(2, axis=1)[:, :12].copy()
    for options in ({}, {"temperature": 2.0, "temperature_squared": True}):
        want = distill.head_loss(hidden, head, teacher=teacher, weights=weights, **options)
        got = distill.head_loss(hidden, head, teacher=law, weights=weights, teacher_is_law=True, **options)
        np.testing.assert_allclose(got.value, want.value, rtol=1e-5)
        of_states = {"teacher_hidden": hidden[::-1].copy(), "teacher_head": head / 2}
        states, logits = distill.head_loss(hidden, head, **of_states, **options), (hidden[::-1] @ head.T / 2).copy()
        np.testing.assert_allclose(
            states.value, distill.head_loss(hidden, head, teacher=logits, **options).value, rtol=1e-4
        )
        whole = distill.divergence(hidden @ head.T, teacher, weights=weights, **options)
        np.testing.assert_allclose(want.value, whole.value, rtol=1e-5)
        np.testing.assert_allclose(want.gradient.hidden, whole.gradient @ head, atol=1e-5)
        np.testing.assert_allclose(want.gradient.head, whole.gradient.T @ hidden, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bans_are_logits_and_what_is_none_is_refused(value):
    """`counted`, which NumPy's objectives read their rows by: some bans, not all."""
    logits = np.zeros((3, 4))
    logits[1, :3] = -np.inf
    assert (counted("z", logits, np.ones(3), bans=True) == logits).all()
    with pytest.raises(NotFiniteError, match="z: row 1 holds a NaN or an infinity"):
        counted("z", logits, np.ones(3))
    logits[1, 3] = value
    for bans in (True, False):
        with pytest.raises(NotFiniteError, match="z: row 1 holds"):
            counted("z", logits, np.ones(3), bans=bans)
    logits[1] = -np.inf
    with pytest.raises(NotFiniteError, match="z: row 1 holds a NaN or \\+inf, or nothing but -inf"):
        counted("z", logits, np.ones(3), bans=True)
    assert not counted("z", logits, np.array([1.0, 0, 1])).any()


def test_weights_at_both_ends_of_floats():
    """A mean does not depend on their scale; what is no float is refused in words."""
    student, teacher, _, weights = batch()
    want = distill.forward_kl(student, teacher, weights=weights)
    for scale in (2.0**-900, 2.0**900):
        got = distill.forward_kl(student, teacher, weights=weights * scale)
        assert got.value == want.value and got.gradient.tobytes() == want.gradient.tobytes()
    for bad, text in (
        (5e-324, "the total weight must be 0 or at least 1e-300"),
        (1e308, "weights must sum up to a float"),
    ):
        with pytest.raises(ArgumentError, match=text):
            distill.forward_kl(student, teacher, weights=np.full(7, bad))
    with pytest.raises(ArgumentError, match="the total weight must be 0 or at least"):
        distill.forward_kl(student, teacher, total_weight=1e-310)
    with pytest.raises(ArgumentError, match="weights times rows must sum up to a float"):
        distill.forward_kl(student, teacher, weights=np.full(7, 1e300), scale=1e30, reduction="sum", gradient=False)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": [0, 40, 0]}, "labels must be tokens from 0 to 39, or -100 to ignore a row, got 40 in row 1"),
        ({"labels": [0, -1, 0]}, "labels must be tokens from 0 to 39, or -100"),
        ({"label_scale": 1.0}, "label_scale is for labels, got none"),
        ({"weights": [1, -1, 1]}, "weights must be finite and at least 0, got -1.0 in row 1"),
        ({"reduction": "batchmean"}, "reduction must be one of mean, sum"),
        ({"reduction": "sum", "total_weight": 3.0}, 'total_weight belongs to reduction="mean"'),
        ({"total_weight": -1.0}, "total_weight must lie in"),
        ({"temperature_squared": 1}, "temperature_squared must be True or False"),
    ],
)
def test_refuses(change, text):
    student, teacher, _, _ = batch(rows=3)
    with pytest.raises(ArgumentError, match=text):
        distill.forward_kl(student, teacher, **change)
