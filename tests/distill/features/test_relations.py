"""Rows of attention: by formula, by differences, masks on both sides, and heads that are not as many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import attention_loss, relation_loss, token_relations
from fastdistill.errors import ArgumentError, NotFiniteError
from tests.distill.slopes import slopes


def law(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def divergence(p, q):
    """Of one row of laws."""
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def case(seed=0, heads=2, teacher_heads=2, batch=2, n=3, m=4):
    random = np.random.default_rng(seed)
    return random.standard_normal((batch, heads, n, m)), law(random.standard_normal((batch, teacher_heads, n, m)) * 2)


@given(seed=st.integers(0, 2**32), teacher_heads=st.sampled_from([2, 1, 3]), masked=st.booleans())
def test_is_the_divergence_over_kept_keys_and_the_mean_over_heads(seed, teacher_heads, masked):
    student, teacher = case(seed, teacher_heads=teacher_heads)
    kept = np.random.default_rng(seed).random((2, 4)) < 0.7 if masked else np.ones((2, 4), bool)
    kept[:, 1] = True
    found = attention_loss(student, teacher, kept=kept if masked else None)
    for batch in range(2):
        keys = np.flatnonzero(kept[batch])
        for query in range(3):
            q = law(student[batch, :, query][:, keys])
            p = teacher[batch, :, query][:, keys]
            p = p / p.sum(axis=1, keepdims=True)
            pairs = [(p.mean(axis=0), q.mean(axis=0))] if teacher_heads != 2 else list(zip(p, q, strict=True))
            want = np.mean([divergence(*pair) for pair in pairs])
            np.testing.assert_allclose(found.rows[batch * 3 + query], want, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(found.value, found.rows.mean(), rtol=1e-13)
    assert (found.rows >= -1e-14).all()


@pytest.mark.parametrize("teacher_heads", [2, 3])
@pytest.mark.parametrize("kept", [None, [[True, True, False, True], [True, False, True, True]], "causal"])
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_gradient_is_the_derivative(teacher_heads, kept, sharpness):
    student, teacher = case(1, teacher_heads=teacher_heads)
    student *= sharpness
    teacher[0, 0, 0, 1] = 0
    if kept == "causal":
        kept = np.broadcast_to(np.tri(3, 4, 1, dtype=bool), (2, 3, 4))
        student[:, :, ~kept[0]] = -np.inf
    settings = {"kept": kept, "weights": [[1, 0.5, 2], [0.3, 0, 1]]}
    finite = np.isfinite(student)

    def at(values):
        placed = student.copy()
        placed[finite] = values
        return attention_loss(placed, teacher, **settings)

    found = at(student[finite]).gradient
    np.testing.assert_allclose(found[finite], slopes(lambda values: at(values).value, student[finite]), atol=1e-9)
    assert not found[~finite].any()
    np.testing.assert_allclose(found.sum(axis=3), 0, atol=1e-15)


@pytest.mark.parametrize("kept", [None, "some"])
@pytest.mark.parametrize("heads", [(2, 2), (3, 2)])
def test_gradients_of_relations_are_the_derivatives(kept, heads):
    random = np.random.default_rng(2)
    queries, keys = random.standard_normal((2, heads[0], 3, 5)), random.standard_normal((2, heads[0], 4, 5))
    teacher = case(3, teacher_heads=heads[1])[1]
    settings = {"weights": [[1, 0.5, 0], [0.3, 2, 1]]}
    if kept:
        settings["kept"] = [[True, True, False, True], [True, False, True, True]]
    found = relation_loss(queries, keys, teacher, **settings).gradient
    by_queries = slopes(lambda at: relation_loss(at, keys, teacher, **settings).value, queries)
    by_keys = slopes(lambda at: relation_loss(queries, at, teacher, **settings).value, keys)
    np.testing.assert_allclose(found.queries, by_queries, atol=1e-9)
    np.testing.assert_allclose(found.keys, by_keys, atol=1e-9)


def test_relations_of_values_have_the_sum_of_both_gradients():
    values = np.random.default_rng(4).standard_normal((1, 2, 4, 3))
    teacher = case(5, batch=1, n=4)[1]
    found = relation_loss(values, values, teacher).gradient
    np.testing.assert_allclose(
        found.queries + found.keys, slopes(lambda at: relation_loss(at, at, teacher).value, values), atol=1e-9
    )


@given(seed=st.integers(0, 2**32))
def test_what_does_not_matter(seed):
    student, teacher = case(seed)
    want = attention_loss(student, teacher)
    np.testing.assert_allclose(attention_loss(student + 1e3, teacher).rows, want.rows, atol=1e-11)
    np.testing.assert_allclose(attention_loss(student, teacher * 7).rows, want.rows, atol=1e-13)
    swapped = attention_loss(student[:, ::-1].copy(), teacher[:, ::-1].copy())
    np.testing.assert_allclose(swapped.rows, want.rows, rtol=1e-13)
    everything = attention_loss(student, teacher, kept=np.ones((2, 4), bool))
    assert everything.rows.tobytes() == want.rows.tobytes()


def test_nothing_is_lost_where_the_laws_are_equal():
    random = np.random.default_rng(6)
    queries, keys = random.standard_normal((1, 2, 3, 5)), random.standard_normal((1, 2, 4, 5))
    found = relation_loss(queries, keys, token_relations(queries, keys))
    np.testing.assert_allclose(found.rows, 0, atol=1e-15)
    np.testing.assert_allclose(found.gradient.queries, 0, atol=1e-16)
    with_masks = np.random.default_rng(7).standard_normal((1, 1, 3, 3))
    with_masks[:, :, ~np.tri(3, dtype=bool)] = -np.inf
    with np.errstate(all="raise"):
        same = attention_loss(with_masks, law(with_masks))
    np.testing.assert_allclose(same.rows, 0, atol=1e-15)
    assert attention_loss(with_masks + 1, law(with_masks)).value < 1e-14


def test_token_relations_are_the_softmax_of_scaled_products():
    random = np.random.default_rng(8)
    queries, keys = random.standard_normal((2, 3, 4, 5)), random.standard_normal((2, 3, 6, 5))
    want = law(np.einsum("bhnd,bhmd->bhnm", queries, keys) / np.sqrt(5))
    np.testing.assert_allclose(token_relations(queries, keys), want, rtol=1e-12)


def test_a_row_in_which_the_teacher_looks_at_nothing_that_is_kept_does_not_count():
    student, teacher = case(9)
    teacher[0, 1, 2] = [0, 0, 0, 1]
    kept = np.array([[True, True, True, False]] * 2)
    found = attention_loss(student, teacher, kept=kept)
    weights = np.ones((2, 3))
    weights[0, 2] = 0
    want = attention_loss(student, teacher, kept=kept, weights=weights)
    assert found.value == want.value and found.info["total_weight"] == 5 and not found.gradient[0, :, 2].any()
    assert found.gradient.tobytes() == want.gradient.tobytes()


def test_keys_that_are_not_kept_are_not_read():
    student, teacher = case(10)
    kept = np.array([[True, True, False, True]] * 2)
    want = attention_loss(student, teacher, kept=kept)
    student[..., 2], teacher[..., 2] = np.nan, np.nan
    assert attention_loss(student, teacher, kept=kept).gradient.tobytes() == want.gradient.tobytes()
    queries, keys = np.random.default_rng(11).standard_normal((2, 2, 2, 4, 5))
    want = relation_loss(queries[:, :, :3].copy(), keys, teacher, kept=kept)
    keys[:, :, 2] = np.nan
    found = relation_loss(queries[:, :, :3].copy(), keys, teacher, kept=kept)
    assert found.gradient.keys.tobytes() == want.gradient.keys.tobytes() and not found.gradient.keys[:, :, 2].any()


def test_averaged_heads_that_are_each_sure_of_another_key():
    """Of two student heads one looks at each key alone: their average is the teacher's one head."""
    student = np.array([[[[800.0, 0.0]], [[0.0, 800.0]]]])
    found = attention_loss(student, np.array([[[[0.5, 0.5]]]]))
    np.testing.assert_allclose(found.value, 0, atol=1e-15)
    np.testing.assert_allclose(found.gradient, 0, atol=1e-15)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"student": np.zeros((1, 2, 3))}, ArgumentError, r"student must have shape \(batch, heads, n, m\)"),
        ({"teacher": np.ones((1, 2, 3, 5))}, ArgumentError, r"teacher must have shape \(1, teacher_heads, 3, 4\)"),
        ({"teacher": np.ones((1, 0, 3, 4))}, ArgumentError, "must have heads and keys"),
        ({"kept": np.ones((1, 3), bool)}, ArgumentError, r"kept must have shape \(1, 4\) or \(1, 3, 4\), got \(1, 3\)"),
        ({"kept": np.ones((1, 4))}, ArgumentError, "kept must have dtype bool"),
        ({"weights": np.ones(3)}, ArgumentError, r"weights must have shape \(1, 3\)"),
        ({"teacher": np.full((1, 2, 3, 4), -0.1)}, NotFiniteError, "teacher: row 0 of head 0 of batch 0 holds a NaN, an infinity or a number below 0"),
        ({"student": np.full((1, 2, 3, 4), -np.inf)}, NotFiniteError, "holds nothing but -inf at kept keys"),
        ({"student": np.array([[[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, -np.inf, 0]]] * 2])}, NotFiniteError, "student: row 2 of head 0 of batch 0 holds no mass where"),
    ],
)  # fmt: skip
def test_refuses(change, error, text):
    with pytest.raises(error, match=text):
        attention_loss(**({"student": np.zeros((1, 2, 3, 4)), "teacher": np.ones((1, 2, 3, 4))} | change))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"keys": np.zeros((1, 2, 4, 6))}, ArgumentError, r"keys must have shape \(1, 2, m, 5\)"),
        ({"queries": np.zeros((1, 2, 3, 0)), "keys": np.zeros((1, 2, 4, 0))}, ArgumentError, "must have heads, keys and width"),
        ({"keys": np.full((1, 2, 4, 5), np.inf)}, NotFiniteError, "keys: row 0 of head 0 of batch 0 holds a NaN or an infinity"),
    ],
)  # fmt: skip
def test_relations_refuse(change, error, text):
    arguments = {"queries": np.zeros((1, 2, 3, 5)), "keys": np.zeros((1, 2, 4, 5))} | change
    with pytest.raises(error, match=text):
        token_relations(**arguments)
    with pytest.raises(error, match=text):
        relation_loss(**arguments, teacher=np.ones((1, 2, 3, 4)))
