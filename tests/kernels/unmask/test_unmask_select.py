"""unmask_select against its reference, on every level; what no rule may do; what each rule promises; edges."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import RowStatistics, Unmasked, UnmaskRule, row_statistics, set_isa, unmask_select
from fastdistill.kernels.boundary import ffi, lib, pointer
from fastdistill.reference.unmask.unmask_select import unmask_select as reference_unmask_select
from fastdistill.testing import strategies
from fastdistill.testing.cases.unmask.unmask_select import DTYPES, check
from fastdistill.testing.compare import same


def flat(leading, n, **more):
    """Statistics of which nothing is read but what is given."""
    fields = {name: np.full((*leading, n), np.nan, np.float32) for name in RowStatistics._fields[1:]}
    return RowStatistics(np.zeros((*leading, n), np.int32), **(fields | more))


def assert_equal(got, want):
    for field, ours, meant in zip(got._fields, got, want, strict=True):
        same(field, ours, meant, DTYPES[field])


@given(case=strategies.unmask_select())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.unmask_select(score="margin", threshold=None, factor=None))
def test_a_margin_is_the_difference_of_two_probabilities(isa, case):
    case.pop("bias", None)
    check(case)


@given(case=strategies.unmask_select())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    got = unmask_select(**case, threads=3)
    set_isa("scalar")
    want = unmask_select(**case)
    set_isa(isa)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@given(case=strategies.unmask_select())
def test_a_batch_is_its_rows(isa, case):
    together = unmask_select(**case)
    statistics = case.pop("statistics")
    for row in np.ndindex(*case["masked"].shape[:-1]):
        own = {name: np.asarray(value[row]) if np.ndim(value) else value for name, value in case.items()}
        one = RowStatistics(*(field[row] for field in statistics))
        for whole, part in zip(together, unmask_select(one, **own), strict=True):
            assert whole[row].tobytes() == part.tobytes()


@given(case=strategies.unmask_select())
def test_what_no_rule_may_do(isa, case):
    masked, rule = case["masked"], case["rule"]
    found = unmask_select(**case)
    also = case.get("also", np.zeros_like(masked))
    quota = np.broadcast_to(case.get("quota", 2**31 - 1), masked.shape[:-1])
    eligible = found.ranks >= 0
    assert not (found.chosen & ~masked).any() and not (eligible & ~masked).any()
    np.testing.assert_array_equal(eligible, ~np.isnan(found.confidence))
    np.testing.assert_array_equal(found.count, found.chosen.sum(axis=-1))
    assert set(np.unique(found.chosen.view(np.int8))) <= {0, 1}
    for row in np.ndindex(*masked.shape[:-1]):
        ranks, chosen, there = found.ranks[row], found.chosen[row], int(eligible[row].sum())
        assert sorted(ranks[ranks >= 0]) == list(range(there))
        order = np.argsort(ranks, kind="stable")[len(ranks) - there :]  # by rank
        best_first = found.confidence[row][order]
        assert (best_first[1:] <= best_first[:-1]).all()
        tied = best_first[1:] == best_first[:-1]
        assert (order[1:] > order[:-1])[tied].all()
        assert chosen[also[row] & (ranks >= 0)].all()
        taken = np.sort(ranks[chosen & ~also[row]])  # by the rule, and nothing but it
        limit = min(there, quota[row], there if rule.most is None else rule.most)
        assert len(taken) <= limit
        assert len(ranks[chosen]) >= min(rule.least if rule.explore == 0 else min(rule.least, 1), limit)
        if rule.explore == 0 and len(taken):  # nothing that ranks before it is left out
            assert chosen[(ranks >= 0) & (ranks <= taken[-1])].all()


@given(
    case=strategies.unmask_select(threshold=None, factor=None, budget=None, least=1, most=None, explore=0),
    quota=st.sampled_from([0, 1, 7, 1000]),
)
def test_a_quota_alone_is_kept_to_exactly(isa, case, quota):
    case |= {"quota": quota, "also": None}
    found = unmask_select(**case)
    np.testing.assert_array_equal(found.count, np.minimum((found.ranks >= 0).sum(axis=-1), quota))
    np.testing.assert_array_equal(found.chosen, (found.ranks >= 0) & (found.ranks < quota))
    most = unmask_select(**case | {"rule": replace(case["rule"], most=max(quota, 1)), "quota": None})
    if quota:
        assert_equal(most, found)


@given(case=strategies.unmask_select(explore=0), lower=st.floats(0, 1), higher=st.floats(0, 1))
def test_a_lower_threshold_only_adds(isa, case, lower, higher):
    rule = case["rule"]
    assume(rule.score in ("confidence", "margin"))
    lower, higher = sorted((lower, higher))
    few, many = (
        unmask_select(**case | {"rule": replace(rule, threshold=threshold)}).chosen for threshold in (higher, lower)
    )
    assert not (few & ~many).any()


@given(seed=st.integers(0, 2**32), factor=st.sampled_from([0.3, 1.0, 2.5, 40.0]))
def test_factor_is_the_largest_count_that_its_formula_allows(isa, seed, factor):
    probabilities = np.random.default_rng(seed).beta(5, 0.5, 40)
    best_first = np.sort(probabilities)[::-1]
    left = np.arange(2, 42) * (1 - best_first)
    assume(
        (abs(left - factor) > 41 * 2.0**-22).all()
    )  # log and exponential round: a confidence is within 2^-22 of its own
    found = unmask_select(
        None, np.ones(40, bool), UnmaskRule(factor=factor, least=0), log_probs=np.log(probabilities).astype(np.float32)
    )
    assert found.count == max((n for n in range(1, 41) if left[n - 1] < factor), default=0)


def test_factor_is_not_reached_by_what_equals_it(isa):
    """n = 1: 2 (1 - p) < factor, also where the confidence is so high that 1 - p is lost in float32."""

    def count(log_prob, factor):
        rule, log_probs = UnmaskRule(factor=factor, least=0), np.array([log_prob], np.float32)
        return unmask_select(None, np.ones(1, bool), rule, log_probs=log_probs).count

    half, sure = np.float32(np.log(0.5)), np.float32(np.log1p(-1e-10))
    assert [count(p, 1.0) for p in (np.nextafter(half, np.float32(-1)), half, np.nextafter(half, np.float32(0)))] == [
        0,
        0,
        1,
    ]
    assert [count(sure, factor) for factor in (1.9e-10, 2.1e-10)] == [0, 1]
    assert [count(p, 0) for p in (0.0, sure)] == [0, 0]
    assert [count(-np.inf, factor) for factor in (1.9, 2.0, 2.1, np.inf)] == [0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(30))
def test_what_factor_one_takes_is_the_joint_argmax(isa, seed):
    """Fast-dLLM's theorem: tokens so certain are, taken apart, what they are taken together."""
    random = np.random.default_rng(seed)
    variables, vocab = random.integers(1, 4), 3
    joint = random.dirichlet(np.full(vocab**variables, 0.05)).reshape((vocab,) * variables)
    marginals = [
        joint.sum(axis=tuple(other for other in range(variables) if other != axis)) for axis in range(variables)
    ]
    with np.errstate(divide="ignore"):
        statistics = row_statistics(np.log(np.array(marginals)).astype(np.float32))
    chosen = unmask_select(statistics, np.ones(variables, bool), UnmaskRule(factor=1.0, least=0)).chosen
    of_chosen = joint.sum(axis=tuple(np.flatnonzero(~chosen)))
    assert np.unravel_index(of_chosen.argmax(), of_chosen.shape) == tuple(statistics.argmax[chosen])


@given(seed=st.integers(0, 2**32), threshold=st.sampled_from([0.0, 0.25, 0.5, 2.0]))
def test_an_entropy_threshold_takes_the_certain_and_the_most_certain(isa, seed, threshold):
    entropy = np.random.default_rng(seed).choice(np.arange(9, dtype=np.float32) / 4, 20)
    chosen = unmask_select(
        flat((), 20, entropy=entropy), np.ones(20, bool), UnmaskRule("entropy", threshold=threshold)
    ).chosen
    assert set(np.flatnonzero(chosen)) == {*np.flatnonzero(entropy <= threshold), entropy.argmin()}


@given(seed=st.integers(0, 2**32), budget=st.sampled_from([0.0, 0.25, 1.0, 3.0, 100.0]))
def test_a_budget_lets_go_on_while_what_was_taken_stays_within(isa, seed, budget):
    entropy = np.random.default_rng(seed).choice(np.arange(5, dtype=np.float32) / 4, 20)
    found = unmask_select(flat((), 20, entropy=entropy), np.ones(20, bool), UnmaskRule("entropy", budget=budget))
    ascending = np.sort(entropy)
    assert found.count == sum(ascending[:taken].sum() <= budget for taken in range(20))
    assert found.count >= 1


def rule_of(values, **settings):
    return UnmaskRule("given", **settings), np.array(values, np.float32)


@pytest.mark.parametrize(
    ("scores", "settings", "want"),
    [
        ([1, 1, 1, 1], {"most": 2}, [0, 1]),  # ties by position
        ([-0.0, 0.0, -0.0], {"most": 2}, [0, 1]),
        ([-np.inf, np.nan, -np.inf], {}, [0, 2]),  # -inf has a score, NaN has none
        ([-np.inf, 2, 3], {"threshold": -np.inf}, [0, 1, 2]),
        ([1, 2, 3], {"threshold": 2}, [1, 2]),  # at the threshold passes
        ([1, 2, 3], {"threshold": 9}, [2]),
        ([1, 3, 3], {"threshold": 9}, [1]),
        ([1, 2, 3], {"threshold": 9, "least": 2}, [1, 2]),
        ([1, 2, 3], {"threshold": 9, "least": 0}, []),
        ([1, 2, 3], {"threshold": 9, "least": 7}, [0, 1, 2]),
        ([4, 2, 3], {"threshold": 0, "most": 2}, [0, 2]),
        ([np.nan] * 3, {}, []),
        ([], {}, []),
    ],
)
def test_known_selections(isa, scores, settings, want):
    rule, scores = rule_of(scores, **settings)
    found = unmask_select(None, np.ones(len(scores), bool), rule, scores=scores)
    assert np.flatnonzero(found.chosen).tolist() == want and found.count == len(want)


def test_known_ranks(isa):
    rule, scores = rule_of([5, 7, np.nan, 7, 9, 1], threshold=7)
    masked = np.array([1, 1, 1, 1, 0, 1], bool)
    found = unmask_select(None, masked, rule, scores=scores)
    assert isinstance(found, Unmasked) and isinstance(found.count, np.int32)
    assert found.ranks.tolist() == [2, 0, -1, 1, -1, 3]
    np.testing.assert_array_equal(found.confidence, np.array([5, 7, np.nan, 7, np.nan, 1], np.float32))


def test_probability_thresholds_are_met_by_what_equals_them(isa):
    log_probs = np.log(np.array([0.9, 0.5, 1.0, 0.95])).astype(np.float32)

    def chosen(threshold):
        rule = UnmaskRule(threshold=threshold, least=0)
        return np.flatnonzero(unmask_select(None, np.ones(4, bool), rule, log_probs=log_probs).chosen).tolist()

    assert chosen(0.9) == [0, 2, 3] and chosen(1) == [2] and chosen(0) == [0, 1, 2, 3]


def test_explores_where_few_pass(isa):
    statistics = flat((), 5, entropy=np.array([0.1, 3, np.nan, 3, 2], np.float32))
    rule, scores = rule_of([9, 1, 2, 3, 4], threshold=5, least=3, explore=2)

    def chosen(rule, masked=(1, 1, 1, 1, 1), **arguments):
        found = unmask_select(statistics, np.array(masked, bool), rule, scores=scores, **arguments)
        assert found.count == found.chosen.sum()
        return np.flatnonzero(found.chosen).tolist()

    assert chosen(rule) == [0, 1]  # the one that passes, and of the highest entropies the first
    assert chosen(rule, (1, 0, 1, 1, 1)) == [0, 3]
    assert chosen(rule, (1, 0, 1, 0, 0)) == [0, 2]  # nowhere is an entropy: the least
    assert chosen(replace(rule, threshold=10)) == [1]  # none passes
    assert chosen(replace(rule, threshold=4)) == [0, 3, 4]  # enough pass, and `least` holds
    assert chosen(rule, quota=1) == [0] and chosen(rule, quota=0) == []  # never more than asked
    assert chosen(replace(rule, least=1, most=1)) == [0]


def test_a_learned_filter_adds_to_the_schedule(isa):
    """Learn2PD: the quota, and what the filter accepts; never what is not masked or has no score."""
    rule, scores = rule_of([1, 5, 4, np.nan, 2])
    also = np.array([1, 0, 0, 1, 0], bool)
    found = unmask_select(None, np.ones(5, bool), rule, scores=scores, quota=1, also=also)
    assert found.chosen.tolist() == [True, True, False, False, False] and found.count == 2
    found = unmask_select(None, np.array([0, 1, 1, 1, 1], bool), rule, scores=scores, quota=1, also=also)
    assert found.chosen.tolist() == [False, True, False, False, False]


def test_a_discount_of_zero_comes_last(isa):
    """EOSER with g = 0: log g = -inf."""
    bias = np.array([-np.inf, 0, -np.inf], np.float32)
    log_probs = np.array([0, -5, -1], np.float32)
    found = unmask_select(None, np.ones(3, bool), UnmaskRule(), log_probs=log_probs, bias=bias, quota=1)
    assert found.ranks.tolist() == [1, 0, 2] and found.chosen.tolist() == [False, True, False]


@pytest.mark.parametrize("shape", [(100_003,), (700, 33)])
def test_long_rows_and_many_of_them(isa, shape):
    random = np.random.default_rng(5)
    scores = np.round(random.standard_normal(shape), 2).astype(np.float32)
    masked, quota = random.random(shape) < 0.9, random.integers(0, 40, shape[:-1])
    arguments = {"scores": scores, "quota": np.array(quota, np.int32)}
    rule = UnmaskRule("given", threshold=1.5)
    want = reference_unmask_select(None, masked, rule, **arguments)
    for threads in (1, 2, 5):
        assert_equal(unmask_select(None, masked, rule, **arguments, threads=threads), want)


@given(case=strategies.unmask_select())
def test_writes_nothing_outside_its_outputs(isa, case):
    masked = case["masked"]
    rows, n = int(np.prod(masked.shape[:-1])), masked.shape[-1]
    scores = np.random.default_rng(0).standard_normal(rows * n + 32).astype(np.float32)
    padded = np.pad(masked.reshape(-1), 16).view(np.int8)
    sizes, dtypes = [rows * n, rows, rows * n, rows * n, rows * n], [np.int8, np.int32, np.int32, np.float32, np.uint64]
    outputs = [np.full(size + 32, 77, dtype) for size, dtype in zip(sizes, dtypes, strict=True)]
    rule = ffi.new("struct fd_unmask_rule *", (lib.FD_CONFIDENCE, 0.5, -1.0, 1, 9, 0))
    null = ffi.NULL
    lib.fd_unmask_select(
        rows, n, pointer(padded[16:]), null, null, null, null, null, pointer(scores[16:]), null, null, null, null, rule,
        *(pointer(output[16:]) for output in outputs), 2,
    )  # fmt: skip
    want = unmask_select(
        None,
        masked,
        UnmaskRule("given", threshold=0.5, most=9),
        scores=scores[16 : 16 + rows * n].reshape(masked.shape),
    )
    for output, field in zip(outputs, [*want, None], strict=True):
        assert (output[:16] == 77).all() and (output[-16:] == 77).all()
        if field is not None:
            np.testing.assert_array_equal(output[16:-16], np.ravel(field))


def test_one_position_of_every_kind(isa):
    for score, masked, quota, least in product([np.nan, -np.inf, -1.0, np.inf], [False, True], [None, 0, 1], [0, 1]):
        rule, scores = rule_of([score], threshold=0, least=least)
        found = unmask_select(None, np.array([masked]), rule, scores=scores, quota=quota)
        eligible = masked and not np.isnan(score)
        assert found.count == int(eligible and quota != 0 and (least == 1 or score >= 0))
        assert found.ranks.tolist() == [0 if eligible else -1]


STATISTICS = flat((2,), 3)
MASKED = np.ones((2, 3), bool)
FLOATS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rule": 0.9}, "rule must be an UnmaskRule, got float"),
        ({"masked": [1]}, r"masked must hold True or False, got \[1\]"),
        ({"masked": np.ones((2, 3), np.int8)}, "masked must have dtype bool, got int8"),
        ({"masked": np.array(True)}, r"masked must have shape \(\.\.\., n\), got \(\)"),
        ({"statistics": None}, "statistics must be RowStatistics: the rule needs log_prob, got NoneType"),
        ({"statistics": None, "rule": UnmaskRule("entropy")}, "the rule needs entropy"),
        (
            {"statistics": None, "rule": UnmaskRule(budget=1), "log_probs": FLOATS},
            "the rule needs entropy, got NoneType",
        ),
        ({"statistics": None, "rule": UnmaskRule("given", explore=1), "scores": FLOATS}, "the rule needs entropy"),
        ({"statistics": flat((2,), 4)}, r"statistics\.log_prob must have shape \(2, 3\), got \(2, 4\)"),
        ({"rule": UnmaskRule("given")}, r"scores must be float32 \(2, 3\) with the score given, got None"),
        ({"scores": FLOATS}, "scores must be None with the score confidence, got ndarray"),
        (
            {"rule": UnmaskRule("margin"), "log_probs": FLOATS},
            "log_probs must be None with the score margin, got ndarray",
        ),
        ({"log_probs": FLOATS[0]}, r"log_probs must have shape \(2, 3\), got \(3,\)"),
        ({"bias": np.full(FLOATS.shape, 0.1)}, r"bias\[0, 0\] = 0.1 would be rounded to float32"),
        ({"also": FLOATS}, "also must have dtype bool, got float32"),
        ({"quota": np.zeros(3, np.int32)}, r"quota must have shape \(2,\), got \(3,\)"),
        ({"quota": np.zeros(2)}, "quota must have dtype int32, got float64"),
        ({"quota": np.array([3, -1], np.int32)}, "quota must be 0 or more, got -1"),
        ({"quota": -1}, r"quota must lie in 0\.\..*, got -1"),
        ({"quota": 1.5}, "quota must be an integer, got 1.5"),
        ({"threads": 0}, "threads must lie in 1"),
    ],
)
def test_refuses(change, text):
    arguments = {"statistics": STATISTICS, "masked": MASKED, "rule": UnmaskRule()} | change
    with pytest.raises(ArgumentError, match=text):
        unmask_select(**arguments)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"score": "random"}, "score must be one of confidence, margin, entropy, given, got 'random'"),
        ({"threshold": np.nan}, r"threshold must lie in 0\.\.1, got nan"),
        ({"threshold": 1.5}, r"threshold must lie in 0\.\.1, got 1\.5"),
        ({"score": "margin", "threshold": -0.1}, r"threshold must lie in 0\.\.1, got -0\.1"),
        ({"score": "entropy", "threshold": -0.1}, r"threshold must lie in 0\.\.inf, got -0\.1"),
        ({"score": "given", "threshold": np.nan}, r"threshold must lie in -inf\.\.inf, got nan"),
        ({"factor": -1}, r"factor must lie in 0\.\.inf, got -1"),
        ({"score": "entropy", "factor": 1}, "factor bounds confidences: it needs the score confidence, got entropy"),
        ({"budget": np.nan}, r"budget must lie in 0\.\.inf, got nan"),
        ({"least": -1}, "least must lie in 0"),
        ({"least": 3, "most": 2}, r"most must lie in 3\.\..*, got 2"),
        ({"least": 0, "most": 0}, r"most must lie in 1\.\..*, got 0"),
        ({"explore": True}, "explore must be an integer, got True"),
    ],
)
def test_refuses_rules(settings, text):
    with pytest.raises(ArgumentError, match=text):
        UnmaskRule(**settings)


def test_the_more_certain_of_two_near_certain_positions_is_first(isa):
    """1 - p is 3e-6 and 1.5e-8: in float32 top - log_sum_exp is 0 for both."""
    statistics, masked = row_statistics(np.array([[64, 51.4], [64, 46]], np.float32)), np.ones(2, bool)
    assert unmask_select(statistics, masked, UnmaskRule(), quota=1).ranks.tolist() == [1, 0]
    assert unmask_select(statistics, masked, UnmaskRule(threshold=1.0, least=0)).count == 0
    assert unmask_select(statistics, masked, UnmaskRule(threshold=1 - 1e-6, least=0)).chosen.tolist() == [False, True]
    want = -np.log1p(np.exp(np.array([-12.6, -18])))
    np.testing.assert_allclose(unmask_select(statistics, masked, UnmaskRule()).confidence, want, rtol=1e-5)
