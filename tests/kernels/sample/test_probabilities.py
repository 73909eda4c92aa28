"""probabilities against its reference, on every level; that sample draws from it; edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import Sampler, probabilities, sample, sample_workspace, set_isa
from fastdistill.reference.sample.sample import processed
from fastdistill.testing import strategies
from fastdistill.testing.cases.sample.probabilities import RELATIVE, check
from tests.kernels.sample.test_sample import LAWS, rows_of


@given(case=strategies.probabilities())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.probabilities())
def test_a_row_sums_to_one(isa, case):
    """The sum and the quotients round by 2^-24 each; what is subnormal loses less than 2^-125 a token."""
    got = probabilities(**case)
    assert (got >= 0).all()
    np.testing.assert_allclose(got.sum(axis=1, dtype=np.float64), 1, rtol=2.0**-22, atol=0)


@given(case=strategies.probabilities(), threads=st.integers(1, 4))
def test_same_bits_on_every_level_and_thread_count_and_beside_any_rows(isa, case, threads):
    got = probabilities(**case, threads=threads)
    set_isa("scalar")
    alone = [probabilities(**row) for row in rows_of(case)]
    set_isa(isa)
    np.testing.assert_array_equal(got.view(np.int32), np.concatenate(alone).view(np.int32))


@given(case=strategies.sample())
def test_what_sample_draws_is_likely(isa, case):
    """With its own noise: 26.1 is more than what noise can make up for, and e^-26.1 does not underflow."""
    tokens = sample(**case)
    case.pop("positions")
    assert (probabilities(**case)[np.arange(len(tokens)), tokens] > 0).all()


@given(case=strategies.sample())
def test_keeps_the_tokens_that_sample_keeps(isa, case):
    """Noise that outweighs x draws the worst survivor of sample, and no other noise a worse one (test_sample.py)."""
    z, case["sampler"] = case["logits"], replace(case["sampler"], temperature=5.0)
    noise = np.empty_like(z)
    for row in range(len(z)):
        x, _, _ = processed(z, case["sampler"], case.get("seen"), case.get("allowed"), row)
        noise[row, np.argsort(-x, kind="stable")] = np.arange(len(x)) * np.float32(2**10)
    last = sample(**case, noise=noise)
    case.pop("positions")
    law = probabilities(**case)
    for row, token in enumerate(last):
        assert law[row, token] > 0 and noise[row, law[row] > 0].max() == noise[row, token]


@pytest.mark.parametrize("sampler", LAWS)
def test_sample_draws_from_it(isa, sampler):
    """200,000 positions over nine tokens: chi-square within five standard deviations, and survivors only."""
    draws, seen = 200_000, np.array([1, 2], np.int32)
    z = np.array([0.3, 1.0, -0.5, 2.0, 0.0, -2.0, 1.7, 0.9, -4.0], np.float32)
    tokens = sample(
        np.tile(z, (draws, 1)), replace(sampler, seed=5), np.arange(draws, dtype=np.int32), seen=[seen] * draws
    )
    expected = probabilities(z[None], sampler, seen=[seen])[0].astype(np.float64) * draws
    counts, kept = np.bincount(tokens, minlength=9), expected > 0
    assert counts[~kept].sum() == 0
    freedom = kept.sum() - 1
    assert ((counts - expected)[kept] ** 2 / expected[kept]).sum() < freedom + 5 * np.sqrt(2 * freedom)


def test_known_laws(isa):
    z = np.log(np.array([[1, 4, 2, 1, 4]], np.float32))
    for sampler, want in [
        (Sampler(), [0, 1, 0, 0, 0]),
        (Sampler(1.0), np.array([1, 4, 2, 1, 4]) / 12),
        (Sampler(0.5), np.array([1, 16, 4, 1, 16]) / 38),
        (Sampler(1.0, top_k=4), np.array([1, 4, 2, 0, 4]) / 11),
        (Sampler(1.0, top_p=0.6), [0, 0.5, 0, 0, 0.5]),
        (Sampler(1.0, min_p=0.4), np.array([0, 4, 2, 0, 4]) / 10),
        (Sampler(1.0, logit_bias={1: -np.inf, 4: -np.inf}), np.array([1, 0, 2, 1, 0]) / 4),
    ]:
        # A logit is half an ulp, 2^-24, off, twice that as log 4; a temperature of 1/2 doubles it.
        np.testing.assert_allclose(probabilities(z, sampler)[0], want, rtol=RELATIVE + 4 * 2.0**-23, atol=0)


def test_a_survivor_may_underflow(isa):
    z = np.array([[0.0, -86.9, -87.0]], np.float32)
    assert (probabilities(z, Sampler(1.0)) > 0).tolist() == [[True, True, False]]
    noise = np.array([[0.0, 0.0, 100.0]], np.float32)
    assert sample(z, Sampler(1.0), np.zeros(1, np.int32), noise=noise)[0] == 2


def test_writes_its_rows_and_nothing_else(isa):
    z = np.random.default_rng(2).standard_normal((3, 37)).astype(np.float32)
    for sampler in (Sampler(), Sampler(1.0), Sampler(1.0, top_k=5)):
        out = np.full((5, 37), 7.0, np.float32)
        assert np.shares_memory(probabilities(z, sampler, out=out[1:4], workspace=sample_workspace(3, 37)), out)
        assert (out[[0, 4]] == 7).all()
        np.testing.assert_array_equal(out[1:4], probabilities(z, sampler))


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(1.0), Sampler(1.0, top_k=2, top_p=0.5, min_p=0.1)])
def test_reports_rows_at_fault(isa, sampler):
    z = np.zeros((3, 40), np.float32)
    z[2, 7] = np.nan
    with pytest.raises(NotFiniteError, match="probabilities: row 2: a row holds a NaN or an infinity"):
        probabilities(z, sampler)
    z[1] = -np.inf
    with pytest.raises(ArgumentError, match="probabilities: row 1: every token is banned"):
        probabilities(z, sampler, threads=2)
    with pytest.raises(ArgumentError, match="probabilities: row 0: every token is banned"):
        probabilities(z, sampler, allowed=np.zeros((3, 2), np.uint32))


def test_no_rows(isa):
    assert probabilities(np.empty((0, 5), np.float32), Sampler(1.0), seen=[]).shape == (0, 5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"logits": np.zeros((2, 3))}, "logits must have dtype float32, got float64"),
        ({"logits": np.zeros((2, 0), np.float32)}, r"logits must have 1\.\.8388607 columns, got shape \(2, 0\)"),
        ({"sampler": None}, "sampler must be a Sampler, got NoneType"),
        ({"seen": []}, "seen must hold one array a row: expected 2, got 0"),
        ({"allowed": np.zeros((2, 1), np.uint32)}, r"allowed must have shape \(2, 2\), got \(2, 1\)"),
        ({"workspace": np.zeros(100, np.uint8)}, r"workspace must have at least \d+ bytes, got 100"),
        ({"out": np.zeros((2, 39), np.float32)}, r"out must have shape \(2, 40\), got \(2, 39\)"),
        ({"threads": 0}, r"threads must lie in 1\.\."),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        probabilities(**({"logits": np.zeros((2, 40), np.float32), "sampler": Sampler(1.0)} | change))
