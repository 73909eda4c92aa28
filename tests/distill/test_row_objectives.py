"""What holds for every objective over rows: weights are the only door, parts sum up to the whole, nothing is NaN where nothing counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastdistill import distill
from fastdistill.errors import ArgumentError, NotFiniteError

ROWS = 7


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ROWS, *shape))


def probabilities(*shape: int) -> np.ndarray:
    exponentials = np.exp(normal(9, *shape))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


LABELS = np.arange(ROWS, dtype=np.int32) % 5
NEGATIVES = np.stack([np.roll(np.arange(5, dtype=np.int32), row)[:3] for row in range(ROWS)])

# name -> what has a row each, the first of them first; what has not.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plackett_luce": ("plackett_luce", {"scores": normal(0, 5)}, {}),
    "plackett_luce with weights of ranks and the rest": (
        "plackett_luce", {"scores": normal(0, 5), "rank_weights": np.abs(normal(1, 5)), "rest": normal(2)}, {},
    ),
    "pld": ("pld", {"student": normal(0, 5), "teacher": normal(1, 5), "labels": LABELS}, {"top_k": 2}),
    "pld without labels": ("pld", {"student": normal(0, 5), "teacher": normal(1, 5)}, {"top_k": None}),
    "preference_ranking": ("preference_ranking", {"student": normal(0, 5), "teacher": normal(1, 5)}, {"top_k": 3}),
    "hinge": ("pairwise_ranking", {"student": normal(0, 5), "teacher": normal(1, 5)}, {}),
    "logistic": ("pairwise_ranking", {"student": normal(0, 5), "teacher": normal(1, 5)}, {"kind": "logistic"}),
    "partial_ranking": (
        "partial_ranking", {"student": normal(0, 5), "teacher": normal(1, 3), "negatives": NEGATIVES, "threshold": np.full(ROWS, -9.0)}, {"temperature": 0.5},
    ),
    "info_nce": ("info_nce", {"similarities": normal(0, 5), "labels": LABELS}, {"temperature": 0.5}),
    "contrastive_hinge": (
        "contrastive_hinge", {name: -np.abs(normal(seed)) for seed, name in enumerate(("log_q", "log_good", "log_bad"))}, {},
    ),
    **{
        f"feature_loss {kind}": ("feature_loss", {"student": normal(0, 5), "teacher": normal(1, 4)}, {"kind": kind, "projector": normal(2, 5)[:4].copy()})
        for kind in ("mse", "smooth_l1", "unit_l1", "normalised_mse", "cosine")
    },
    "feature_loss without a projector": ("feature_loss", {"student": normal(0, 5), "teacher": normal(1, 5)}, {}),
    "attention_loss": ("attention_loss", {"student": normal(0, 2, 1, 5), "teacher": probabilities(2, 1, 5)}, {}),
    "attention_loss of averages": ("attention_loss", {"student": normal(0, 2, 1, 5), "teacher": probabilities(3, 1, 5)}, {}),
    "relation_loss": ("relation_loss", {"queries": normal(0, 2, 1, 4), "keys": normal(1, 2, 5, 4), "teacher": probabilities(2, 1, 5)}, {}),
    "sampled_reverse_kl": (
        "sampled_reverse_kl", {"student": normal(0, 5), "teacher_log_prob": -np.abs(normal(1)), "tokens": LABELS}, {"temperature": 0.5},
    ),
    **{
        kind: ("kl_estimate", {"log_q": -np.abs(normal(0)), "log_p": -np.abs(normal(1))}, {"kind": kind})
        for kind in ("k1", "k2", "k3")
    },
    "clipped_ratio": (
        "clipped_ratio", {"log_prob": -np.abs(normal(0)), "old_log_prob": -np.abs(normal(1)), "advantages": normal(2)}, {},
    ),
}  # fmt: skip
SHARED = {"projector", "temperature"}  # gradients that are sums over rows


@pytest.fixture(params=CASES)
def case(request):
    name, rows, others = CASES[request.param]
    batched = name in ("attention_loss", "relation_loss")

    def call(part: slice = slice(None), weights: Any = None, **changed: Any) -> Any:
        arrays = {key: changed.pop(key) if key in changed else array for key, array in rows.items()}
        given = {"weights": weights[part].reshape(-1, 1) if batched else weights[part]} if weights is not None else {}
        arrays = {key: np.ascontiguousarray(array[part]) for key, array in arrays.items()}
        return getattr(distill, name)(**arrays, **(others | given | changed))

    call.rows = rows
    return call


def gradients(loss: Any) -> dict[str, np.ndarray]:
    """By name; the only one has none."""
    found = loss.gradient._asdict() if hasattr(loss.gradient, "_asdict") else {"": loss.gradient}
    return {name: np.asarray(each) for name, each in found.items() if each is not None}


WEIGHTS = np.array([1.0, 0.5, 0.0, 2.0, 0.25, 0.0, 3.0])


@pytest.mark.parametrize("cut", [0, 1, 3, 6])
def test_parts_sum_up_to_the_whole(case, cut):
    whole = case(weights=WEIGHTS)
    parts = [case(part, WEIGHTS, total_weight=WEIGHTS.sum()) for part in (slice(cut), slice(cut, None))]
    np.testing.assert_allclose(sum(part.value for part in parts), whole.value, rtol=1e-14)
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), whole.rows)
    for name, want in gradients(whole).items():
        found = [gradients(part)[name] for part in parts]
        np.testing.assert_allclose(
            sum(found) if name in SHARED else np.concatenate(found), want, rtol=1e-12, atol=1e-15
        )


def test_the_value_is_the_weighted_mean_of_rows_or_their_sum(case):
    mean, total = case(weights=WEIGHTS), case(weights=WEIGHTS, reduction="sum")
    np.testing.assert_allclose(mean.value, (WEIGHTS * mean.rows).sum() / WEIGHTS.sum(), rtol=1e-14)
    np.testing.assert_allclose(total.value, (WEIGHTS * mean.rows).sum(), rtol=1e-14)
    for name, want in gradients(total).items():
        np.testing.assert_allclose(gradients(mean)[name] * WEIGHTS.sum(), want, rtol=1e-12, atol=1e-15)
    plain, ones = case(), case(weights=np.ones(ROWS))
    assert plain.value == ones.value and (plain.rows == ones.rows).all()


def test_a_row_of_weight_zero_is_not_read(case):
    want = case(weights=WEIGHTS)
    spoilt = {name: array.copy() for name, array in case.rows.items() if array.dtype.kind == "f"}
    for array in spoilt.values():
        array[WEIGHTS == 0] = np.nan
    found = case(weights=WEIGHTS, **spoilt)
    assert found.value == want.value and found.rows.tobytes() == want.rows.tobytes()
    assert (found.rows[WEIGHTS == 0] == 0).all()
    for name, gradient in gradients(want).items():
        assert gradients(found)[name].tobytes() == gradient.tobytes()
        assert name in SHARED or (gradient[WEIGHTS == 0] == 0).all()


@pytest.mark.parametrize("part", [slice(None), slice(0)])
def test_nothing_that_counts_costs_nothing(case, part):
    with np.errstate(all="raise"):
        found = case(part, np.zeros(ROWS))
    assert found.value == 0 and (found.rows == 0).all()
    assert all(np.isfinite(each).all() and (each == 0).all() for each in gradients(found).values())
    assert all(np.isfinite(each).all() for each in found.info.values())


def test_the_gradient_is_left_out_where_none_is_wanted(case):
    want, found = case(weights=WEIGHTS), case(weights=WEIGHTS, gradient=False)
    assert found.gradient is None
    assert found.value == want.value and (found.rows == want.rows).all()
    assert all(np.array_equal(found.info[name], each) for name, each in want.info.items())
    with pytest.raises(ArgumentError, match="gradient must be True or False"):
        case(gradient=1)


def test_single_precision_gives_the_same_gradient_in_its_dtype(case):
    rough = {name: array.astype(np.float32) for name, array in case.rows.items() if array.dtype.kind == "f"}
    want = case(**{name: array.astype(np.float64) for name, array in rough.items()})
    found = case(**rough)
    np.testing.assert_allclose(found.value, want.value, rtol=1e-6)
    logits = gradients(want)
    for name, each in gradients(found).items():
        np.testing.assert_allclose(each, logits[name], rtol=1e-6, atol=1e-7)
    if next(iter(rough.values())).ndim > 1:  # log-probabilities are small arrays: their gradients are float64
        assert next(iter(gradients(found).values())).dtype == np.float32


def test_a_number_that_is_none_is_refused_with_its_array_and_row(case):
    for name, array in case.rows.items():
        if array.dtype.kind != "f" or name in ("rank_weights", "threshold"):
            continue
        for bad in (np.nan, np.inf):
            spoilt = array.copy()
            spoilt[(3, *[0] * (array.ndim - 1))] = bad
            place = "row 0 of head 0 of batch 3" if array.ndim == 4 else "row 3"
            with pytest.raises(NotFiniteError, match=f"^{name}: {place} holds"):
                case(**{name: spoilt})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"weights": np.full(ROWS, -1.0)}, "weights must be finite and at least 0"),
        ({"reduction": "max"}, "reduction must be one of mean, sum"),
        ({"total_weight": np.nan}, "total_weight must lie in"),
        ({"reduction": "sum", "total_weight": 1.0}, "total_weight belongs to"),
    ],
)
def test_refuses_what_rows_cannot_be_reduced_by(case, change, text):
    with pytest.raises(ArgumentError, match=text):
        case(**change)
