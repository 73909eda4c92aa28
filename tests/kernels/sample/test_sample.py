"""sample against its reference, on every level; ties, thresholds and edges; the law of what is drawn."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import Sampler, gumbel_noise, probabilities, sample, sample_workspace, set_isa
from fastdistill.reference.sample.sample import sample as reference_sample
from fastdistill.reference.sample.sample import scaled
from fastdistill.testing import strategies
from fastdistill.testing.cases.sample.sample import check, close_threshold, plain_sampler


def rows_of(case):
    """A case of each of its rows alone."""
    for i in range(len(case["logits"])):
        yield {name: value if name == "sampler" else value[i : i + 1] for name, value in case.items()}


@given(case=strategies.sample())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.sample(), data=st.data())
def test_keeps_the_reference_survivors(isa, case, data):
    """Noise that outweighs x, so that the last survivor wins: the worst of them, and the highest token among equals.

    Ranks are integers below 2^13 and times 2^10 exact; x adds less than 2^9 where T >= 0.3 and |z| < 60.
    """
    z, sampler = case["logits"], replace(case["sampler"], temperature=data.draw(st.sampled_from([1.0, 5.0])))
    noise = np.empty_like(z)
    for row in range(len(z)):
        x = scaled(z[row], sampler, case["seen"][row] if "seen" in case else ())
        noise[row, np.argsort(-x, kind="stable")] = np.arange(len(x)) * np.float32(2**10)
    case |= {"sampler": sampler, "noise": noise}
    got, want = sample(**case), reference_sample(**case)
    clear = want.slack > close_threshold(z.shape[1])
    np.testing.assert_array_equal(got[clear], want.tokens[clear])


@given(case=strategies.sample(), threads=st.integers(1, 4))
def test_same_on_every_level_and_thread_count_and_beside_any_rows(isa, case, threads):
    got = sample(**case, threads=threads)
    set_isa("scalar")
    alone = [sample(**row) for row in rows_of(case)]
    set_isa(isa)
    np.testing.assert_array_equal(got, np.concatenate(alone))


@given(case=strategies.sample(sampler=plain_sampler))
def test_draws_with_its_own_noise(isa, case):
    """Blocks of the vocabulary that cannot win are left out; given the same noise, none is."""
    vocab, sampler = case["logits"].shape[1], case["sampler"]
    key = {"seed": sampler.seed, "sequence": sampler.sequence, "round": sampler.round}
    want = sample(**case, noise=gumbel_noise(case["positions"], vocab, **key))
    np.testing.assert_array_equal(sample(**case), want)


@pytest.mark.parametrize("settings", [{}, {"top_k": 1000}], ids=["all", "a list"])
@given(rounds=st.lists(st.integers(0, 2**20 - 1), min_size=2, max_size=2, unique=True))
def test_another_round_draws_anew(isa, rounds, settings):
    """64 flat rows of 1001 tokens draw alike with a chance of 1001^-64."""
    z, positions = np.zeros((64, 1001), np.float32), np.arange(64, dtype=np.int32)
    one, other = (sample(z, Sampler(1.0, round=round, **settings), positions) for round in rounds)
    assert (one != other).any()


def test_round_0_is_the_default_and_keeps_its_draws(isa):
    z, positions = np.zeros((8, 1000), np.float32), np.arange(8, dtype=np.int32)
    for sampler in (Sampler(1.0, seed=5), Sampler(1.0, seed=5, round=0)):
        assert sample(z, sampler, positions).tolist() == [516, 928, 810, 507, 797, 573, 580, 455]


@given(seed=st.integers(0, 2**32), top_k=st.integers(1, 40))
def test_top_k_keeps_exactly_k_the_lowest_of_ties(isa, seed, top_k):
    random = np.random.default_rng(seed)
    z = random.integers(0, 3, (1, 4099)).astype(np.float32)
    kept = set(np.argsort(-z[0], kind="stable")[:top_k].tolist())
    last = np.arange(4099, dtype=np.float32)[None] * 10
    assert sample(z, Sampler(1.0, top_k=top_k), np.zeros(1, np.int32), noise=last)[0] == max(kept)
    assert sample(z, Sampler(1.0, top_k=top_k), np.zeros(1, np.int32), noise=-last)[0] == min(kept)


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(2.0), Sampler(2.0, min_p=0.9)])
@given(tied=st.lists(st.integers(0, 700), min_size=1, max_size=5))
def test_the_lowest_of_equal_keys_wins(isa, sampler, tied):
    z = np.zeros((1, 701), np.float32)
    z[0, tied] = 1.0
    assert sample(z, sampler, np.zeros(1, np.int32), noise=np.zeros_like(z))[0] == min(tied)


def test_top_p_keeps_the_crossing_token(isa):
    """Four equal tokens, masses 1/4 each: exact.  Ties go to the lowest."""
    z = np.full((1, 4), 7.0, np.float32)
    last = np.arange(4, dtype=np.float32)[None] * 10
    for top_p, want in [(1e-30, 0), (0.25, 0), (0.2500001, 1), (0.5, 1), (0.75, 2), (0.7500001, 3), (1.0, 3)]:
        assert sample(z, Sampler(1.0, top_p=top_p), np.zeros(1, np.int32), noise=last)[0] == want


def test_top_p_renormalises_over_top_k(isa):
    """Halving masses: of the first two the best holds 2/3, of all of them 1/2."""
    z = (-np.log(2.0) * np.arange(30))[None].astype(np.float32)
    last = np.arange(30, dtype=np.float32)[None] * 100
    assert sample(z, Sampler(1.0, top_p=0.6), np.zeros(1, np.int32), noise=last)[0] == 1
    assert sample(z, Sampler(1.0, top_p=0.6, top_k=2), np.zeros(1, np.int32), noise=last)[0] == 0


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_top_p_of_a_flat_row(isa, top_p):
    """Every token equal: the prefix is ceil(top_p V) long, exactly, since equal integers sum exactly."""
    vocab, one = 5000, np.zeros(1, np.int32)
    last = np.arange(vocab, dtype=np.float32)[None]
    want = int(np.ceil(np.float64(np.float32(top_p)) * vocab)) - 1
    assert sample(np.zeros((1, vocab), np.float32), Sampler(1.0, top_p=top_p), one, noise=last)[0] == want


def test_min_p_is_relative_to_the_best(isa):
    z = np.log(np.array([[0.05, 0.4, 0.21, 0.19, 0.15]])).astype(np.float32)
    first = -np.arange(5, dtype=np.float32)[None] * 10
    for min_p, want in [(0.5, {1, 2}), (0.4, {1, 2, 3}), (0.1, {0, 1, 2, 3, 4}), (1.0, {1})]:
        for noise, token in ((first, min(want)), (-first, max(want))):
            assert sample(z, Sampler(1.0, min_p=min_p), np.zeros(1, np.int32), noise=noise)[0] == token


def test_greedy_takes_the_lowest_of_ties_after_bias_and_penalty(isa):
    z = np.array([[1.0, 3.0, -1.0, 3.0, 2.0]], np.float32)
    at = np.zeros(1, np.int32)
    assert sample(z, Sampler(), at)[0] == 1
    assert sample(z, Sampler(logit_bias={1: -np.inf}), at)[0] == 3
    assert sample(z, Sampler(logit_bias={2: 4.5}), at)[0] == 2
    assert sample(z, Sampler(repetition_penalty=2.0), at, seen=[np.array([1, 1, 3, 1], np.int32)])[0] == 4  # 1.5, once
    assert sample(z, Sampler(repetition_penalty=1.4), at, seen=[np.array([1, 1, 3, 1], np.int32)])[0] == 1  # 2.14, once
    # -1 becomes -2 and ties with token 4.
    assert sample(z - 4, Sampler(repetition_penalty=2.0), at, seen=[np.array([1, 3], np.int32)])[0] == 1


@pytest.mark.parametrize(("frequency", "presence"), [(0.5, 0.0), (0.0, 0.25), (2.0, -2.0), (-0.125, 1.5)])
def test_frequency_and_presence_penalty_count_the_answer(isa, frequency, presence):
    """As OpenAI's API and vLLM define them: z - frequency times(t) - presence [times(t) > 0]; exact in these numbers."""
    z = np.array([[1.0, 3.0, -1.0, 2.5, 2.0]], np.float32)
    prompt, answer = [3, 3, 0, 1], [1, 0, 1, 2, 1]
    times = np.bincount(answer, minlength=5)
    want = probabilities((z - frequency * times - presence * (times > 0)).astype(np.float32), Sampler(1.0))
    counts = Sampler(1.0, frequency_penalty=frequency, presence_penalty=presence)
    for length, seen in ((4, prompt + answer), (0, answer)):
        found = probabilities(z, replace(counts, prompt_length=length), seen=[np.array(seen, np.int32)])
        np.testing.assert_array_equal(found, want)
    none = probabilities(z, Sampler(1.0))
    np.testing.assert_array_equal(probabilities(z, counts), none)  # nothing is seen
    np.testing.assert_array_equal(
        probabilities(z, replace(counts, prompt_length=9), seen=[np.array(prompt, np.int32)]), none
    )


def test_the_repetition_penalty_comes_before_those_that_count(isa):
    """2 / 4 - 1 and (-1) 4 - 1; the other order would leave (2 - 1) / 4 and (-1 - 1) 4."""
    z = np.array([[2.0, -1.0]], np.float32)
    sampler = Sampler(1.0, repetition_penalty=4.0, frequency_penalty=0.5, presence_penalty=0.5)
    found = probabilities(z, sampler, seen=[np.array([0, 1], np.int32)])
    np.testing.assert_array_equal(found, probabilities(np.array([[-0.5, -5.0]], np.float32), Sampler(1.0)))


@pytest.mark.parametrize(
    ("text", "size", "banned"),
    [
        ([1, 2, 3, 1, 2], 3, {3}),
        ([1, 2, 3, 2, 4, 2], 2, {3, 4}),
        ([1, 2, 3, 2, 4, 2], 1, {1, 2, 3, 4}),
        ([5, 5], 2, {5}),
        ([5, 5], 3, set()),  # its only run would be the one that it begins
        ([5, 5, 5], 3, {5}),
        ([1, 2], 3, set()),
        ([], 1, set()),
        ([1, 2, 1], 0, set()),
        (range(40), 1, set()),  # it would leave nothing
    ],
)
def test_no_run_comes_twice(isa, text, size, banned):
    """What ends one is banned for `sample` and for `probabilities`, over whatever is allowed, if that leaves a token."""
    logits, sampler, seen = (
        np.zeros((2, 40), np.float32),
        Sampler(1.0, no_repeat_ngram_size=size),
        np.array([*text], np.int32),
    )
    both = [seen, np.empty(0, np.int32)]
    law = probabilities(logits, sampler, seen=both)
    assert {*np.flatnonzero(law[0] == 0).tolist()} == banned and (law[1] > 0).all()
    allowed = np.array([[0b11110, 0], [0xFFFFFFFF, 0xFFFFFFFF]], np.uint32)
    left = {1, 2, 3, 4} - banned or {1, 2, 3, 4}
    law = probabilities(logits, sampler, seen=both, allowed=allowed)
    assert {*np.flatnonzero(law[0]).tolist()} == left and allowed[0, 0] == 0b11110
    at = np.arange(2, dtype=np.int32)
    assert {int(sample(logits, sampler, at + i, seen=both, allowed=allowed)[0]) for i in range(99)} == left
    assert (probabilities(logits, sampler) > 0).all()  # what it has not seen bans nothing


def test_bans_bias_then_penalty(isa):
    """A bias that turns a logit negative is penalised as negative: (1 - 2) * 3 < -2 < (1 / 3) - 2."""
    z = np.array([[1.0, -2.5]], np.float32)
    sampler = Sampler(repetition_penalty=3.0, logit_bias={0: -2.0})
    assert sample(z, sampler, np.zeros(1, np.int32), seen=[np.array([0], np.int32)])[0] == 1


@pytest.mark.parametrize(
    "sampler", [Sampler(), Sampler(1.0), Sampler(1e-6), Sampler(1.0, top_k=1), Sampler(1.0, 9, 0.9, 0.1)]
)
def test_one_token(isa, sampler):
    assert sample(np.full((1, 1), -3e38, np.float32), sampler, np.zeros(1, np.int32))[0] == 0


def test_a_tiny_temperature_is_greedy(isa):
    z = np.random.default_rng(0).standard_normal((50, 300)).astype(np.float32)
    np.testing.assert_array_equal(sample(z, Sampler(1e-6), np.arange(50, dtype=np.int32)), z.argmax(1))
    np.testing.assert_array_equal(sample(z, Sampler(1.0, top_p=1e-30), np.arange(50, dtype=np.int32)), z.argmax(1))


LAWS = [
    Sampler(1.0),
    Sampler(0.7, top_k=5),
    Sampler(1.3, top_p=0.8),
    Sampler(1.0, min_p=0.2),
    Sampler(1.0, top_k=6, top_p=0.9, min_p=0.05, repetition_penalty=1.5, logit_bias={0: 1.0, 3: -np.inf}),
    Sampler(1.0, frequency_penalty=0.7, presence_penalty=-0.3, prompt_length=1),
]


@pytest.mark.parametrize("sampler", LAWS)
def test_law_of_what_is_drawn(isa, sampler):
    """200,000 positions over nine tokens: chi-square within five standard deviations, and survivors only."""
    draws, seen = 200_000, np.array([1, 2], np.int32)
    z = np.array([0.3, 1.0, -0.5, 2.0, 0.0, -2.0, 1.7, 0.9, -4.0], np.float32)
    logits, positions = np.tile(z, (draws, 1)), np.arange(draws, dtype=np.int32)
    tokens = sample(logits, replace(sampler, seed=11), positions, seen=[seen] * draws)
    keys = reference_sample(z[None], sampler, np.zeros(1, np.int32), seen=[seen], noise=np.zeros((1, 9))).keys[0]
    expected = np.exp(keys) / np.exp(keys).sum() * draws
    counts, kept = np.bincount(tokens, minlength=9), expected > 0
    assert counts[~kept].sum() == 0
    freedom = kept.sum() - 1
    assert abs(((counts - expected)[kept] ** 2 / expected[kept]).sum() - freedom) < 5 * (2 * freedom) ** 0.5


@given(case=strategies.sample(), threads=st.integers(1, 3))
def test_writes_nothing_outside_its_outputs(isa, case, threads):
    z, positions = case["logits"], case["positions"]
    needed = sample_workspace(len(z), z.shape[1], threads).size
    tokens, memory = np.full(len(z) + 32, -7, np.int32), np.full(needed + 128, 0xA5, np.uint8)
    before = z.copy(), positions.copy()
    sample(**case, threads=threads, out=tokens[16:-16], workspace=memory[64:-64])
    assert (tokens[:16] == -7).all() and (tokens[-16:] == -7).all()
    assert (memory[:64] == 0xA5).all() and (memory[-64:] == 0xA5).all()
    np.testing.assert_array_equal(tokens[16:-16], sample(**case))
    np.testing.assert_array_equal(z, before[0])
    np.testing.assert_array_equal(positions, before[1])


@given(
    case=strategies.sample(), bad=st.sampled_from([np.nan, np.inf, -np.nan]), where=st.floats(0, 1, exclude_max=True)
)
def test_reports_what_is_not_finite(isa, case, bad, where):
    z = case["logits"]
    at = int(where * z.size)
    z.reshape(-1)[at] = bad
    with pytest.raises(NotFiniteError, match=f"sample: row {at // z.shape[1]}"):
        sample(**case)


def test_reports_an_overflow(isa):
    z = np.array([[0.0, 3e38]], np.float32)
    with pytest.raises(NotFiniteError, match="row 0"):
        sample(z, Sampler(logit_bias={1: 3e38}), np.zeros(1, np.int32))
    with pytest.raises(NotFiniteError, match="row 0"):
        sample(z, Sampler(repetition_penalty=0.5), np.zeros(1, np.int32), seen=[np.array([1], np.int32)])
    assert sample(-z, Sampler(1.0, logit_bias={1: -3e38}), np.zeros(1, np.int32))[0] == 0  # -inf: a ban


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(1.0), Sampler(1.0, top_k=2, top_p=0.5, min_p=0.1)])
def test_reports_a_row_where_everything_is_banned(isa, sampler):
    z = np.zeros((3, 40), np.float32)
    z[2, 1:] = -np.inf
    positions = np.zeros(3, np.int32)
    allowed = np.full((3, 2), 0xFFFFFFFF, np.uint32)
    allowed[1] = [0, 0xFFFFFF00]  # bits past the vocabulary allow nothing
    with pytest.raises(ArgumentError, match="sample: row 1: every token is banned"):
        sample(z, sampler, positions, allowed=allowed)
    with pytest.raises(ArgumentError, match="sample: row 2: every token is banned"):
        sample(z, replace(sampler, logit_bias={0: -np.inf}), positions, threads=2)


def test_no_rows(isa):
    none = np.empty(0, np.int32)
    assert sample(np.empty((0, 5), np.float32), Sampler(1.0), none, seen=[]).shape == (0,)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"temperature": -0.1}, r"temperature must lie in 0\.\.1e\+30, got -0\.1"),
        ({"temperature": np.nan}, "temperature must lie in .*, got nan"),
        ({"temperature": np.inf}, "temperature must lie in .*, got inf"),
        ({"temperature": "1"}, "temperature must be a number, got '1'"),
        ({"top_k": -1}, "top_k must lie in 0"),
        ({"top_k": 2.0}, "top_k must be an integer, got 2.0"),
        ({"top_p": 0}, r"top_p must lie in .*\.\.1, got 0"),
        ({"top_p": 1.1}, r"top_p must lie in .*, got 1\.1"),
        ({"min_p": 1.1}, r"min_p must lie in 0\.\.1, got 1\.1"),
        ({"repetition_penalty": 0}, "repetition_penalty must lie in .*, got 0"),
        ({"repetition_penalty": np.inf}, "repetition_penalty must lie in .*, got inf"),
        ({"frequency_penalty": 2.1}, r"frequency_penalty must lie in -2\.\.2, got 2\.1"),
        ({"presence_penalty": np.nan}, r"presence_penalty must lie in -2\.\.2, got nan"),
        ({"presence_penalty": "1"}, "presence_penalty must be a number, got '1'"),
        ({"prompt_length": -1}, "prompt_length must lie in 0"),
        ({"logit_bias": [1]}, "logit_bias must map tokens to numbers, got list"),
        ({"logit_bias": {-1: 0.0}}, "a token of logit_bias must lie in"),
        ({"logit_bias": {"a": 0.0}}, "a token of logit_bias must be an integer, got 'a'"),
        ({"logit_bias": {3: np.nan}}, r"logit_bias\[3\] must lie in .*, got nan"),
        ({"logit_bias": {3: np.inf}}, r"logit_bias\[3\] must lie in .*, got inf"),
        ({"seed": 2**64}, "seed must lie in"),
        ({"sequence": -1}, "sequence must lie in"),
        ({"round": 2**20}, r"round must lie in 0\.\.1048575, got 1048576"),
        ({"round": -1}, "round must lie in"),
        ({"round": 1.0}, "round must be an integer, got 1.0"),
    ],
)
def test_a_sampler_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        Sampler(**change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"logits": np.zeros((2, 3))}, "logits must have dtype float32, got float64"),
        ({"logits": np.zeros((2, 0), np.float32)}, r"logits must have 1\.\.8388607 columns, got shape \(2, 0\)"),
        ({"sampler": None}, "sampler must be a Sampler, got NoneType"),
        ({"sampler": Sampler(logit_bias={40: 1.0})}, "logit_bias names token 40, the logits have 40 columns"),
        ({"positions": np.zeros(3, np.int32)}, r"positions must have shape \(2,\), got \(3,\)"),
        ({"seen": []}, "seen must hold one array a row: expected 2, got 0"),
        ({"seen": [np.zeros(1, np.int32), [0.5]]}, r"seen\[1\] must hold integers, got \[0.5\]"),
        ({"seen": [np.zeros(1, np.int32), np.array([40], np.int32)]}, r"seen tokens must lie in 0\.\.39, got 0\.\.40"),
        ({"seen": [np.zeros(1, np.int32), np.array([-1], np.int32)]}, r"seen tokens must lie in 0\.\.39, got -1\.\.0"),
        ({"allowed": np.zeros((2, 1), np.uint32)}, r"allowed must have shape \(2, 2\), got \(2, 1\)"),
        ({"noise": np.zeros((2, 39), np.float32)}, r"noise must have shape \(2, 40\), got \(2, 39\)"),
        ({"workspace": np.zeros(100, np.uint8)}, r"workspace must have at least \d+ bytes, got 100"),
        ({"out": np.zeros(3, np.int32)}, r"out must have shape \(2,\), got \(3,\)"),
        ({"threads": 0}, r"threads must lie in 1\.\."),
    ],
)
def test_refuses(change, text):
    logits, positions = np.zeros((2, 40), np.float32), np.zeros(2, np.int32)
    with pytest.raises(ArgumentError, match=text):
        sample(**({"logits": logits, "sampler": Sampler(1.0), "positions": positions} | change))


def test_noise_must_be_finite():
    with pytest.raises(NotFiniteError, match="noise"):
        noise = np.full((1, 2), np.nan, np.float32)
        sample(np.zeros((1, 2), np.float32), Sampler(1.0), np.zeros(1, np.int32), noise=noise)


def test_is_greedy():
    assert Sampler().is_greedy and Sampler(top_k=3).is_greedy and Sampler(seed=4).is_greedy
    assert not any(s.is_greedy for s in (Sampler(0.1), Sampler(repetition_penalty=1.1), Sampler(logit_bias={1: 0.0})))
    assert not any(Sampler(**{name: -0.5}).is_greedy for name in ("frequency_penalty", "presence_penalty"))


def test_a_bias_is_a_mapping_that_nobody_changes():
    bias = {3: 1.0, 1: -np.inf}
    sampler = Sampler(logit_bias=bias)
    with pytest.raises(TypeError):
        sampler.logit_bias[3] = 5.0
    bias[4] = 1.0
    assert sampler.logit_bias == {3: 1.0, 1: -np.inf} == sampler.logit_bias
    assert repr(sampler.logit_bias) == "{3: 1.0, 1: -inf}"
    for other in (pickle.loads(pickle.dumps(sampler)), copy.copy(sampler), copy.deepcopy(sampler), replace(sampler)):
        assert other == sampler and hash(other) == hash(sampler)
    assert asdict(sampler)["logit_bias"] == sampler.logit_bias and not sampler.is_greedy


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("vocab", [3, 300, 1000])
def test_logits_as_far_apart_as_floats_are(isa, temperature, vocab):
    z = np.full((1, vocab), -3.4e38, np.float32)
    z[0, [1, -1]] = 3.4e38
    p = probabilities(z, Sampler(temperature))[0]
    want = np.zeros(vocab)
    want[[1, -1]] = [1, 0] if temperature == 0 else [0.5, 0.5]
    np.testing.assert_array_equal(p, want)
    drawn = [sample(z, Sampler(temperature, seed=s), np.zeros(1, np.int32))[0] for s in range(20)]
    assert set(drawn) == ({1} if temperature == 0 else {1, vocab - 1})


def test_no_bias_or_penalty_bans_what_is_finite(isa):
    """-3e38 and -3e38, or -3e38 times 2, overflow: the token stays the row's only one."""
    z = np.array([[-np.inf, -3e38, -np.inf]], np.float32)
    position, seen = np.zeros(1, np.int32), [np.array([1], np.int32)]
    assert sample(z, Sampler(logit_bias={1: -3e38}), position)[0] == 1
    assert sample(z, Sampler(repetition_penalty=2.0, frequency_penalty=2.0), position, seen=seen)[0] == 1
