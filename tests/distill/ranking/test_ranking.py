"""Plackett-Luce lists: by counting orders, by differences, cut lists against whole ones, and which way a list pushes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import plackett_luce, pld, preference_ranking
from fastdistill.distill.ranking.top_ids import top_ids
from fastdistill.errors import ArgumentError, NotFiniteError
from tests.distill.slopes import slopes


def likelihood(scores):
    """Of one list in its order, by the definition: a product of choices among those that are left."""
    strengths = np.exp(scores)
    return np.prod([strengths[rank] / strengths[rank:].sum() for rank in range(len(scores))])


def log_sum_exp(values, axis=-1):
    best = values.max(axis=axis, keepdims=True)
    return (best + np.log(np.exp(values - best).sum(axis=axis, keepdims=True))).squeeze(axis)


# ---- the list ----
@pytest.mark.parametrize("length", range(1, 7))
def test_is_the_likelihood_by_its_definition_and_all_orders_have_one_together(length):
    scores = np.random.default_rng(length).standard_normal(length) * 2
    orders = scores[list(permutations(range(length)))]
    found = plackett_luce(orders, reduction="sum")
    np.testing.assert_allclose(found.rows, [-np.log(likelihood(order)) for order in orders], atol=1e-13)
    np.testing.assert_allclose(np.exp(-found.rows).sum(), 1, rtol=1e-12)
    assert (found.rows >= 0).all() and (length > 1 or (found.rows == 0).all())
    np.testing.assert_allclose(found.gradient.scores.sum(axis=1), 0, atol=1e-13)


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("kind", ["plain", "weighted", "rest", "gaps"])
def test_gradient_is_the_derivative(kind, spread):
    random = np.random.default_rng(1)
    scores, weights = random.standard_normal((3, 5)) * spread, np.array([1.0, 0.3, 2.0])
    ranks = random.random((3, 5)) * [1, 0, 1, 1, 1] if kind != "plain" else None
    rest = random.standard_normal(3) if kind in ("rest", "gaps") else None
    if kind == "gaps":
        scores[0, 0] = scores[1, 2] = scores[2, 4] = rest[1] = -np.inf

    def call(scores, rest):
        return plackett_luce(scores, ranks, rest=rest, weights=weights)

    found = call(scores, rest).gradient
    finite = np.isfinite(scores)

    def at(values):
        placed = scores.copy()
        placed[finite] = values
        return call(placed, rest).value

    np.testing.assert_allclose(found.scores[finite], slopes(at, scores[finite]), atol=1e-9)
    assert (found.scores[~finite] == 0).all()
    assert (found.rest is None) == (rest is None)
    if rest is not None:
        finite = np.isfinite(rest)

        def beside(values):
            placed = rest.copy()
            placed[finite] = values
            return call(scores, placed).value

        np.testing.assert_allclose(found.rest[finite], slopes(beside, rest[finite]), atol=1e-9)
        assert (found.rest[~finite] == 0).all()


@given(seed=st.integers(0, 2**32), shift=st.floats(-1e4, 1e4), length=st.integers(1, 9))
def test_a_constant_changes_nothing_and_a_gap_is_no_item(seed, shift, length):
    random = np.random.default_rng(seed)
    scores, ranks, rest = random.standard_normal((2, length)), random.random((2, length)), random.standard_normal(2)
    want = plackett_luce(scores, ranks, rest=rest)
    moved = plackett_luce(scores + shift, ranks, rest=rest + shift)
    np.testing.assert_allclose(moved.rows, want.rows, atol=1e-11 * max(1, abs(shift)))
    place = int(random.integers(length + 1))
    wider = np.insert(scores, place, -np.inf, axis=1), np.insert(ranks, place, 5.0, axis=1)
    gap = plackett_luce(*wider, rest=rest)
    np.testing.assert_allclose(gap.rows, want.rows, rtol=1e-14)  # sums of one term more
    np.testing.assert_array_equal(np.delete(gap.gradient.scores, place, axis=1), want.gradient.scores)


def test_one_weight_alone_is_cross_entropy_and_a_vector_is_for_all_rows():
    scores = np.random.default_rng(2).standard_normal((4, 6)) * 3
    one = plackett_luce(scores, np.eye(6)[0])
    np.testing.assert_allclose(one.rows, log_sum_exp(scores) - scores[:, 0], rtol=1e-14)
    law = np.exp(scores - log_sum_exp(scores)[:, None])
    np.testing.assert_allclose(one.gradient.scores * 4, law - np.eye(6)[0], atol=1e-15)
    np.testing.assert_array_equal(plackett_luce(scores, np.tile(np.eye(6)[0], (4, 1))).rows, one.rows)


@given(seed=st.integers(0, 2**32), along=st.floats(0.1, 0.9))
def test_is_convex(seed, along):
    random = np.random.default_rng(seed)
    one, other = random.standard_normal((2, 1, 8)) * 5
    ranks = random.random(8)
    low, high, middle = (plackett_luce(s, ranks).value for s in (one, other, along * one + (1 - along) * other))
    assert middle <= along * low + (1 - along) * high + 1e-9


def test_long_lists_far_apart_lose_nothing():
    scores = np.random.default_rng(3).standard_normal((1, 2000)) * 30
    ranks = np.random.default_rng(4).random(2000)
    found = plackett_luce(scores, ranks)
    # Of 2000 suffixes below 128 each rounds by 2^-47 at most; so do the prefixes, and the exponentials sum to 1000.
    assert np.isfinite(found.gradient.scores).all() and abs(found.gradient.scores.sum()) < 2 * 2000 * 2.0**-47 * 1000
    strengths = scores[0].astype(np.longdouble)
    suffix = np.logaddexp.accumulate(strengths[::-1])[::-1]
    np.testing.assert_allclose(found.value, (ranks * (suffix - strengths)).sum(), rtol=1e-13)
    huge = plackett_luce(np.array([[1e4, -1e4, 1e4]]))
    np.testing.assert_allclose(huge.value, np.log(2) + 2e4, rtol=1e-14)
    np.testing.assert_allclose(huge.gradient.scores, [[-0.5, -1, 1.5]], atol=1e-14)


# ---- PLD ----
def whole_list(student, teacher, label, temperature):
    """One row by the paper's formula: the label, then the others as the teacher orders them."""
    others = sorted(
        (token for token in range(len(teacher)) if token != label), key=lambda token: (-teacher[token], token)
    )
    order = [label, *others]
    law = np.exp(teacher / temperature) / np.exp(teacher / temperature).sum()
    return sum(law[token] * (log_sum_exp(student[order[rank:]]) - student[token]) for rank, token in enumerate(order))


@given(seed=st.integers(0, 2**32), vocab=st.integers(2, 9), temperature=st.sampled_from([0.5, 1.0, 4.0]))
def test_pld_is_the_papers_formula_and_cut_lists_have_its_first_terms(seed, vocab, temperature):
    random = np.random.default_rng(seed)
    student, teacher = random.standard_normal((2, 4, vocab)) * 2
    teacher = np.round(teacher)  # ties
    labels = random.integers(0, vocab, 4)
    want = [whole_list(*row, temperature) for row in zip(student, teacher, labels, strict=True)]
    full = pld(student, teacher, labels, teacher_temperature=temperature, top_k=None)
    np.testing.assert_allclose(full.rows, want, atol=1e-12)
    for top_k in range(1, vocab + 1):
        cut = pld(student, teacher, labels, teacher_temperature=temperature, top_k=top_k)
        np.testing.assert_array_equal(cut.info["order"], full.info["order"][:, : top_k + 1])
        law = np.exp(teacher / temperature) / np.exp(teacher / temperature).sum(axis=1, keepdims=True)
        ranked = [np.take_along_axis(each, full.info["order"].astype(int), axis=1) for each in (student, law)]
        ranked[1][:, top_k + 1 :] = 0
        np.testing.assert_allclose(cut.rows, plackett_luce(*ranked).rows, atol=1e-12)
        if top_k >= vocab - 2:  # what is left is one item, whose own term is 0
            np.testing.assert_allclose(cut.rows, want, atol=1e-12)
            np.testing.assert_allclose(cut.gradient, full.gradient, atol=1e-13)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"top_k": 3, "renormalise": True}, {"top_k": None}, {"labels": None}]
)
def test_pld_gradient_is_the_derivative(temperature, settings):
    student, teacher = np.random.default_rng(5).standard_normal((2, 3, 7))
    settings = {"labels": [2, -100, 6], "weights": [1.0, 1.0, 0.5], "teacher_temperature": temperature, **settings}
    found = pld(student, teacher, **settings)
    np.testing.assert_allclose(
        found.gradient, slopes(lambda at: pld(at, teacher, **settings).value, student), atol=1e-9
    )
    np.testing.assert_allclose(found.gradient.sum(axis=1), 0, atol=1e-14)


def test_pld_renormalised_weights_sum_to_one():
    student, teacher = np.random.default_rng(6).standard_normal((2, 3, 20))
    plain, full = (pld(student, teacher, [0, 1, 2], top_k=3, renormalise=flag) for flag in (False, True))
    law = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
    share = np.take_along_axis(law, plain.info["order"].astype(int), axis=1).sum(axis=1)
    np.testing.assert_allclose(full.rows * share, plain.rows, rtol=1e-13)


def test_pld_without_labels_begins_with_the_teachers_best_and_an_ignored_row_is_none():
    student, teacher = np.random.default_rng(7).standard_normal((2, 3, 9))
    want = pld(student, teacher, teacher.argmax(axis=1), top_k=4)
    assert pld(student, teacher, top_k=4).rows.tobytes() == want.rows.tobytes()
    found = pld(student, teacher, [teacher[0].argmax(), -100, -100], top_k=4)
    assert (found.value, found.rows[0]) == (want.rows[0], want.rows[0]) and not found.gradient[1:].any()


def test_pld_follows_the_names_of_tokens():
    random = np.random.default_rng(8)
    student, teacher = random.standard_normal((2, 3, 9))
    labels, names = np.array([4, 0, 8]), random.permutation(9)
    want = pld(student, teacher, labels, top_k=3)
    found = pld(student[:, names].copy(), teacher[:, names].copy(), np.argsort(names)[labels], top_k=3)
    np.testing.assert_allclose(found.rows, want.rows, rtol=1e-13)
    np.testing.assert_allclose(found.gradient, want.gradient[:, names], atol=1e-15)


@pytest.mark.parametrize("top_k", [2, None])
def test_pld_bans(top_k):
    """What the teacher bans only competes; what the student bans is as if it were not there, as the teacher's weights stay."""
    student, teacher = np.random.default_rng(9).standard_normal((2, 1, 8))
    teacher[0, [0, 1]], student[0, [2, 3]] = -np.inf, -np.inf
    found = pld(student, teacher, [5], top_k=top_k)
    assert np.isfinite(found.value) and np.isfinite(found.gradient).all() and (found.gradient[0, [2, 3]] == 0).all()
    assert found.gradient[0, 0] > 0 and found.gradient[0, 1] > 0
    kept = [0, 1, 4, 5, 6, 7]
    order = found.info["order"][0]
    law = np.exp(teacher[0]) / np.exp(teacher[0]).sum()
    there = [token for token in order if token in kept]
    left = [token for token in kept if token not in order]
    rest = [log_sum_exp(student[0, left])] if left else None
    want = plackett_luce(student[:, there].copy(), law[there], rest=rest)
    np.testing.assert_allclose(found.value, want.value, rtol=1e-13)


def test_pld_where_the_student_bans_all_that_is_not_listed():
    student, teacher = np.array([[0.5, 0.0, -np.inf, -np.inf]]), np.array([[2.0, 1.0, 0.0, 0.0]])
    with np.errstate(all="raise"):
        found = pld(student, teacher, [0], top_k=1)
    np.testing.assert_allclose(found.gradient.sum(), 0, atol=1e-15)
    np.testing.assert_array_equal(found.gradient[0, 2:], 0)


# ---- the teacher's order of the student's favourites ----
@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_preference_gradient_is_the_derivative(spread):
    student, teacher = np.random.default_rng(10).standard_normal((2, 3, 30)) * spread
    found = preference_ranking(student, teacher, top_k=5)
    want = slopes(lambda at: preference_ranking(at, teacher, top_k=5).value, student)
    np.testing.assert_allclose(found.gradient, want, atol=1e-9)
    candidates = np.sort(np.argsort(-student, axis=1)[:, :5], axis=1)
    np.testing.assert_array_equal(np.sort(found.info["order"], axis=1), candidates)
    outside = np.ones_like(student, bool)
    np.put_along_axis(outside, candidates, False, axis=1)
    assert not found.gradient[outside].any()


def test_preference_raises_the_teachers_favourite_and_sums_over_prefixes_would_sink_it():
    student, teacher = np.random.default_rng(11).standard_normal((2, 1, 12))
    first = preference_ranking(student, teacher)
    best = first.info["order"][0, 0]
    assert first.gradient[0, best] < 0
    for _ in range(300):
        student -= preference_ranking(student, teacher).gradient
    order = preference_ranking(student, teacher).info["order"][0]
    assert (np.diff(student[0, order]) < 0).all()  # all ten as the teacher has them
    scores = np.random.default_rng(12).standard_normal((1, 6))
    reversed_list = plackett_luce(scores[:, ::-1].copy())
    prefix = (np.logaddexp.accumulate(scores[0]) - scores[0]).sum()
    np.testing.assert_allclose(reversed_list.value, prefix, rtol=1e-14)
    sunk = scores.copy()
    for _ in range(300):
        sunk -= plackett_luce(sunk[:, ::-1].copy()).gradient.scores[:, ::-1]
    assert sunk[0].argmin() == 0


def test_preference_edges():
    teacher = np.array([[0.0, 3.0, 3.0, -np.inf, 1.0]])
    student = np.array([[1.0, 2.0, 4.0, 3.0, -np.inf]])
    found = preference_ranking(student, teacher, top_k=10)
    # Of 1 and 2, which are alike to the teacher, the student prefers 2; 3, which it bans, is last, but for what the student bans.
    assert found.info["order"][0].tolist()[-1] in (3, 4) and found.info["order"][0].tolist()[:2] != [1, 2]
    assert np.isfinite(found.value) and found.gradient[0, 4] == 0
    assert preference_ranking(student, teacher, top_k=1).value == 0
    many = np.random.default_rng(13).standard_normal((1, 60))
    alike = np.random.default_rng(14).integers(0, 3, (1, 60)).astype(np.float64)
    found = preference_ranking(many, alike, top_k=50)
    want = sorted(np.argsort(-many[0])[:50], key=lambda token: (-alike[0, token], -many[0, token]))
    assert found.info["order"][0].tolist() == want
    assert preference_ranking(np.zeros((1, 4)), np.zeros((1, 4)), top_k=2).info["order"].tolist() == [[0, 1]]


@given(seed=st.integers(0, 2**32), columns=st.integers(1, 12), count=st.integers(1, 14))
def test_the_best_columns_are_those_of_a_stable_sort(seed, columns, count):
    values = np.random.default_rng(seed).integers(-2, 3, (4, columns)).astype(np.float64)
    values[values == -2] = -np.inf
    np.testing.assert_array_equal(top_ids(values, count), np.argsort(-values, axis=1, kind="stable")[:, :count])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: plackett_luce(np.zeros((2, 0))), ArgumentError, "scores must have at least one column"),
        (lambda: plackett_luce(np.zeros((2, 3)), np.ones(2)), ArgumentError, r"rank_weights must have shape \(3,\) or \(2, 3\)"),
        (lambda: plackett_luce(np.zeros((2, 3)), [1, -1, 1]), ArgumentError, "got -1.0 at rank 1 of row 0"),
        (lambda: plackett_luce(np.zeros((2, 3)), rest=[0, 0, 0]), ArgumentError, r"rest must have shape \(2,\)"),
        (lambda: plackett_luce(np.full((2, 3), -np.inf)), NotFiniteError, "scores: row 0 holds a NaN or .inf, or nothing but -inf"),
        (lambda: pld(np.zeros((2, 3)), np.zeros((2, 4))), ArgumentError, r"teacher must have shape \(2, 3\)"),
        (lambda: pld(np.zeros((2, 0)), np.zeros((2, 0))), ArgumentError, "student must have at least one column"),
        (lambda: pld(np.zeros((2, 3)), np.zeros((2, 3)), [0, 3]), ArgumentError, "labels must be tokens from 0 to 2"),
        (lambda: pld(np.zeros((2, 3)), np.zeros((2, 3)), top_k=0), ArgumentError, "top_k must lie in"),
        (lambda: pld(np.zeros((2, 3)), np.zeros((2, 3)), teacher_temperature=0), ArgumentError, "teacher_temperature must lie in"),
        (lambda: pld(np.zeros((2, 3)), np.zeros((2, 3)), renormalise=1), ArgumentError, "renormalise must be True or False"),
        (lambda: preference_ranking(np.zeros((2, 3)), np.zeros((2, 3)), top_k=0), ArgumentError, "top_k must lie in"),
        (lambda: preference_ranking([[0.0]], np.zeros((1, 1))), ArgumentError, "student must be a NumPy array"),
    ],
)  # fmt: skip
def test_refuses(call, error, text):
    with pytest.raises(error, match=text):
        call()
