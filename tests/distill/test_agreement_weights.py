"""UniSD's agreement: its formulas, row by row, and how a factor of a whole sequence cancels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import agreement_weights, expand_groups
from fastdistill.errors import ArgumentError, NotFiniteError

levels, statistics = st.sampled_from(["token", "sequence"]), st.sampled_from(["variance", "range"])


@st.composite
def batches(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    contexts, rows = draw(st.integers(0, 4)), draw(st.integers(0, 20))
    log_probs = -random.exponential(draw(st.sampled_from([0.1, 3.0])), (contexts, rows))
    weights = np.where(random.random(rows) < draw(st.sampled_from([0, 0.3])), 0, random.random(rows) + 0.1)
    sequences = random.integers(0, 3, rows).astype(np.int32)
    return np.where(weights > 0, log_probs, np.nan), weights, sequences


def spread(values, statistic, unbiased):
    if len(values) < 2:
        return 0.0
    if statistic == "range":
        return max(values) - min(values)
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - unbiased)


def by_definition(log_probs, weights, sequences, level, statistic, gamma, quantile, cap):
    rows = [row for row in range(len(weights)) if weights[row] > 0]
    found = np.zeros(len(weights))
    if level == "token":
        spreads = {row: spread(list(log_probs[:, row]), statistic, True) for row in rows}
        scale = max(np.quantile(list(spreads.values()), quantile), 1e-6) if rows else 1
        for row in rows:
            found[row] = weights[row] * max(0.01, 1 / (1 + gamma * min(spreads[row] / scale, cap)))
        return found
    for row in rows:
        own = [other for other in rows if sequences[other] == sequences[row]]
        means = [np.average(context[own], weights=weights[own]) for context in log_probs]
        found[row] = weights[row] * max(1e-6, np.exp(-gamma * spread(means, statistic, False)))
    return found


@given(
    batch=batches(),
    level=levels,
    statistic=statistics,
    gamma=st.sampled_from([0.0, 1.0, 300.0]),
    quantile=st.sampled_from([0.5, 0.95]),
)
def test_matches_the_formulas(batch, level, statistic, gamma, quantile):
    log_probs, weights, sequences = batch
    found = agreement_weights(
        log_probs, weights=weights, sequences=sequences, level=level, statistic=statistic, gamma=gamma, quantile=quantile
    )  # fmt: skip
    want = by_definition(log_probs, weights, sequences, level, statistic, gamma, quantile, 10.0)
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=0)
    assert ((found <= weights) & ((found > 0) == (weights > 0))).all()
    if gamma == 0:
        np.testing.assert_array_equal(found, weights)


@given(batch=batches(), level=levels, statistic=statistics, seed=st.integers(0, 99))
def test_the_order_of_contexts_changes_no_bit(batch, level, statistic, seed):
    log_probs, weights, sequences = batch
    settings = {"weights": weights, "sequences": sequences, "level": level, "statistic": statistic}
    moved = np.random.default_rng(seed).permutation(log_probs, axis=0)
    np.testing.assert_array_equal(agreement_weights(moved, **settings), agreement_weights(log_probs, **settings))


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("statistic", ["variance", "range"])
def test_one_context_and_equal_contexts_agree(level, statistic):
    row = -np.arange(5.0)
    for log_probs in (row[None], np.stack([row] * 3), np.zeros((0, 5))):
        np.testing.assert_array_equal(agreement_weights(log_probs, level=level, statistic=statistic), np.ones(5))


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("contexts", [0, 1, 3])
def test_no_rows_have_no_weights(level, contexts):
    found = agreement_weights(np.zeros((contexts, 0)), level=level)
    assert found.shape == (0,) and found.dtype == np.float64
    assert not agreement_weights(np.full((contexts, 4), np.nan), weights=np.zeros(4), level=level).any()


def test_falls_with_the_spread():
    log_probs = np.array([[0.0, 0.0, 0.0, 0.0], [0.0, -0.1, -0.5, -3.0]])
    found = agreement_weights(log_probs)
    assert (np.diff(found) < 0).all() and found[0] == 1
    # Below a spread of 1e-6 there is no scale: half of it, by the unbiased variance of two contexts.
    np.testing.assert_allclose(agreement_weights(np.array([[0.0] * 3, [-1e-3] * 3])), np.full(3, 1 / 1.5), rtol=1e-12)
    capped = agreement_weights(log_probs, cap=0.0)
    np.testing.assert_array_equal(capped, np.ones(4))


def test_a_factor_of_a_whole_sequence_cancels_in_a_mean_by_the_same_weights():
    """The trap of the released reduction; and the one that works."""
    losses = np.array([1.0, 2.0, 10.0, 20.0])
    sequences, mask = np.array([0, 0, 1, 1], np.int32), np.ones(4)
    log_probs = np.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -4.0, -4.0]])
    factor = agreement_weights(log_probs, sequences=sequences, level="sequence")
    assert factor[2] < 0.1 < factor[0]
    cancelled = expand_groups(np.ones(2), sequences, weights=factor)
    np.testing.assert_allclose((cancelled * losses).sum() / 2, (1.5 + 15) / 2, rtol=1e-15)
    kept = expand_groups(np.ones(2), sequences, weights=mask) * factor
    np.testing.assert_allclose((kept * losses).sum() / 2, (1.5 + 15 * factor[2]) / 2, rtol=1e-15)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"log_probs": np.zeros(3)}, r"log_probs must have shape \(contexts, rows\)"),
        ({"level": "word"}, "level must be one of token, sequence"),
        ({"statistic": "std"}, "statistic must be one of variance, range"),
        ({"gamma": -1.0}, "gamma must lie in"),
        ({"cap": -1.0}, "cap must lie in"),
        ({"quantile": 1.1}, "quantile must lie in 0..1"),
        ({"weights": [1.0]}, r"weights must have shape \(3,\)"),
        ({"sequences": [1]}, r"sequences must have shape \(3,\)"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        agreement_weights(**{"log_probs": np.zeros((2, 3)), **change})


def test_names_the_context_and_the_row_that_is_not_finite():
    log_probs = np.zeros((2, 3))
    log_probs[1, 2] = -np.inf
    with pytest.raises(NotFiniteError, match="log_probs: context 1, row 2 holds"):
        agreement_weights(log_probs)
