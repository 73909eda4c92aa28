"""What unmasking writes, against laws that are known exactly: the decoder runs over a joint's own conditionals (bench/lib/toy_joints.py).

Greedy texts are compared as they are.  Drawn ones are counted over seeds and compared with the enumerated law by Pearson's statistic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from bench.lib.toy_joints import (
    UNKNOWN,
    Rule,
    ToyJoint,
    all_same,
    any_joint,
    choose,
    fixed,
    independent,
    law_of,
    planned,
    replace_one,
    shuffle,
    valid_share,
)
from fastdistill.decode import Unmask, generate
from fastdistill.kernels.sample.philox import philox
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.unmask import Adaptive, EntropyBudget, EntropyThreshold, Explore, Factor, Schedule, Threshold

PROMPT = [0, 1]
SEEDS = 600


def session_of(joint: ToyJoint):
    """A model that knows the joint; its mask token, the last one, it finds likeliest of all, so that it has to be banned."""
    mask = joint.vocab

    def logits(tokens):
        answer = tokens[len(PROMPT) :]
        known = np.full(joint.n, UNKNOWN)  # what is not there yet is not known either
        known[: len(answer)] = np.where(answer == mask, UNKNOWN, answer)
        rows = np.zeros((len(tokens), joint.vocab + 1), np.float32)
        with np.errstate(divide="ignore"):
            rows[len(PROMPT) :, :mask] = np.log(joint.conditionals(known)[: len(answer)])
        rows[:, mask] = 5
        return rows

    return fd.from_callable(logits, joint.vocab + 1, mask_token=mask)


def write(joint: ToyJoint, decoder: Unmask, temperature: float = 0.0, seed: int = 0):
    return generate(session_of(joint), PROMPT, joint.n, Sampler(temperature=temperature, seed=seed), decoder=decoder)


def drawn(joint: ToyJoint, decoder: Unmask) -> np.ndarray:
    """How often each text is written over so many seeds, at temperature 1."""
    counts, session = np.zeros_like(joint.table), session_of(joint)
    for seed in range(SEEDS):
        text = generate(session, PROMPT, joint.n, Sampler(temperature=1.0, seed=seed), decoder=decoder)
        counts[tuple(text.tokens)] += 1
    return counts


def follows(counts: np.ndarray, law: np.ndarray) -> bool:
    """Whether counts are those of a law, by Pearson's statistic over cells that expect five or more, the others put together.

    A chi-square variable with k degrees of freedom exceeds k + 2 sqrt(k x) + 2x with probability exp(-x) at most (Laurent & Massart
    2000); x = 14 makes that less than 1e-6.  The seeds are fixed, so it either happens or it does not.
    """
    expected = law.ravel() / law.sum() * counts.sum()
    seen = counts.ravel()
    if seen[expected == 0].any():
        return False
    rare = expected < 5
    seen, expected = (np.append(values[~rare], values[rare].sum()) for values in (seen, expected))
    some = expected > 0
    statistic = ((seen - expected)[some] ** 2 / expected[some]).sum()
    freedom, x = max(int(some.sum()) - 1, 1), 14
    return bool(statistic <= freedom + 2 * math.sqrt(freedom * x) + 2 * x)


# ---- every rule, and what it means, in plain words ----


def confidence(conditionals, drawn):
    return conditionals[np.arange(len(drawn)), drawn]


def margin(conditionals, drawn):
    best = np.sort(conditionals, axis=1)
    return best[:, -1] - best[:, -2]


def entropy(conditionals):
    logs = np.log(conditionals, where=conditionals > 0, out=np.zeros_like(conditionals))
    return -(conditionals * logs).sum(axis=1)


SCORES = {"confidence": confidence, "margin": margin, "entropy": lambda conditionals, drawn: -entropy(conditionals)}


def best_first(score, masked):
    return sorted(np.flatnonzero(masked).tolist(), key=lambda position: (-score[position], position))


def chosen(positions, masked):
    picked = np.zeros(len(masked), bool)
    picked[list(positions)] = True
    return picked


def scheduled(score: str, *quotas: int) -> Rule:
    """The step is told by how many are filled already."""

    def rule(step, conditionals, drawn, masked):
        filled = int((~masked).sum())
        now = next(quota for i, quota in enumerate(quotas) if sum(quotas[:i]) == filled)
        return chosen(best_first(SCORES[score](conditionals, drawn), masked)[:now], masked)

    return rule


def sure(passes: Callable[[float], bool], score, least: int = 1, most: int | None = None) -> Rule:
    def rule(step, conditionals, drawn, masked):
        value = score(conditionals, drawn)
        order = best_first(value, masked)
        count = max(sum(passes(value[position]) for position in order), least)
        return chosen(order[: count if most is None else min(count, most)], masked)

    return rule


def factored(factor: float, explore: bool = False) -> Rule:
    def rule(step, conditionals, drawn, masked):
        c = confidence(conditionals, drawn)
        order = best_first(c, masked)
        count = max((n for n in range(1, len(order) + 1) if (n + 1) * (1 - c[order[n - 1]]) < factor), default=0)
        if not count and explore:
            return chosen(best_first(entropy(conditionals), masked)[:1], masked)
        return chosen(order[: max(count, 1)], masked)

    return rule


def budgeted(budget: float) -> Rule:
    def rule(step, conditionals, drawn, masked):
        h = entropy(conditionals)
        order = best_first(-h, masked)
        fits = [
            n for n in range(1, len(order) + 1) if sum(h[order[: n - 1]]) <= budget
        ]  # all but the largest, the last
        return chosen(order[: max(fits)], masked)

    return rule


@dataclass(frozen=True)
class Meaning:
    """A rule of the package for answers of three, and the same as an oracle's."""

    name: str
    rule: object
    oracle: Rule
    sees_draws: bool = False  # whether what was drawn decides what is committed


MEANINGS = [
    *(Meaning(f"1 a step, {score}", Schedule(3, score), scheduled(score, 1, 1, 1), score == "confidence") for score in SCORES),
    *(Meaning(f"2 and 1, {score}", Schedule(2, score), scheduled(score, 2, 1), score == "confidence") for score in SCORES),
    Meaning("ascending", Schedule(2, kind="ascending"), scheduled("confidence", 1, 2), True),
    Meaning("threshold 0.5", Threshold(0.5), sure(lambda p: p >= 0.5, confidence), True),
    Meaning("threshold 0.8", Threshold(0.8), sure(lambda p: p >= 0.8, confidence), True),
    Meaning("adaptive", Adaptive(0.4, least=1, most=2), sure(lambda p: p >= 0.4, confidence, most=2), True),
    Meaning("at least 2", Threshold(0.8, least=2), sure(lambda p: p >= 0.8, confidence, least=2), True),
    Meaning("factor 1", Factor(1.0), factored(1.0), True),
    Meaning("factor 2", Factor(2.0), factored(2.0), True),
    Meaning("entropy 0.5", EntropyThreshold(0.5), sure(lambda h: -h <= 0.5, SCORES["entropy"])),
    Meaning("budget 0.6", EntropyBudget(0.6), budgeted(0.6)),
    Meaning("explore", Explore(1.0), factored(1.0, explore=True), True),
]  # fmt: skip
meanings = pytest.mark.parametrize("meaning", MEANINGS, ids=lambda meaning: meaning.name)
of_three = st.builds(any_joint, st.just(3), st.integers(2, 4), st.integers(0, 2**32), st.sampled_from([0.0, 0.4]))


@meanings
@given(joint=of_three)
def test_a_greedy_text_is_the_rules(meaning, joint):
    result = write(joint, Unmask(meaning.rule))
    law = law_of(joint, meaning.oracle, greedy=True)
    assert law[tuple(result.tokens)] == 1
    assert 1 <= result.stats.forwards <= joint.n


@meanings
def test_what_is_drawn_follows_the_rules_law(meaning):
    joint = any_joint(3, 3, seed=7)
    counts, law = drawn(joint, Unmask(meaning.rule)), law_of(joint, meaning.oracle)
    assert follows(counts, law)
    assert not follows(np.roll(counts, 1, axis=0), law)  # the bound is narrow enough to tell


# ---- one a step: the chain rule ----

ONE_A_STEP = {
    "margin": Unmask(Schedule(score="margin")),
    "entropy": Unmask(Schedule(score="entropy")),
    "random": Unmask(Schedule(score="random")),
    "from left to right": Unmask(Threshold(0.9), block_length=1),
    "a step for each, whatever the rule": Unmask(Factor(2.0), block_length=1),
    "block-causal": Unmask(Schedule(), block_length=1, attention="block_causal"),
}


@pytest.mark.parametrize("name", ONE_A_STEP)
@pytest.mark.parametrize(
    "joint", [shuffle(3), replace_one(4), any_joint(3, 2, 3, zeros=0.3)], ids=["shuffle", "replace", "any"]
)
def test_one_a_step_draws_the_joint(name, joint):
    """Whatever the order, as long as what was drawn does not decide it."""
    assert follows(drawn(joint, ONE_A_STEP[name]), joint.probabilities)


def test_one_a_step_by_the_confidence_of_what_was_drawn_does_not_draw_the_joint():
    """Positions that drew a likely token go first: the law is shifted, where nothing depends on anything as well."""
    coins = independent(np.array([[0.8, 0.2]] * 3))
    counts = drawn(coins, Unmask(Schedule()))
    assert follows(counts, law_of(coins, scheduled("confidence", 1, 1, 1)))
    assert not follows(counts, coins.probabilities)


def test_a_random_order_draws_what_all_orders_draw_on_average():
    """Two positions and then one: three plans, each as likely as the others."""
    joint = any_joint(3, 3, seed=11)
    law = np.mean(
        [law_of(joint, planned([first, rest])) for first, rest in (([0, 1], [2]), ([0, 2], [1]), ([1, 2], [0]))], axis=0
    )
    assert follows(drawn(joint, Unmask(Schedule(2, "random"))), law)


# ---- all at once: the product of the marginals ----

AT_ONCE = {"one step": Schedule(1), "threshold 0": Threshold(0.0), "any entropy": EntropyThreshold(99.0)}


@pytest.mark.parametrize("name", AT_ONCE)
@pytest.mark.parametrize("joint", [shuffle(3), replace_one(4), all_same(3, 3)], ids=["shuffle", "replace", "same"])
def test_all_at_once_draws_the_product_of_the_marginals(name, joint):
    counts, law = drawn(joint, Unmask(AT_ONCE[name])), law_of(joint, planned([range(joint.n)]))
    assert follows(counts, law) and not follows(counts, joint.probabilities)
    valid = np.array([counts[joint.table > 0].sum(), counts[joint.table == 0].sum()])
    assert follows(
        valid, np.array([valid_share(joint, law), 1 - valid_share(joint, law)])
    )  # n! / n^n, (1 - 1/n)^(n-1), ...


# ---- greedy: what depends on what ----


@meanings
@pytest.mark.parametrize(
    "joint",
    [fixed([2, 0, 1], 3), choose(3, 4), independent(np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.2, 0.5]]))],
    ids=["fixed", "choose", "independent"],
)
def test_without_total_correlation_every_rule_finds_the_likeliest_text(meaning, joint):
    text = write(joint, Unmask(meaning.rule)).tokens
    assert joint.probabilities[tuple(text)] == joint.probabilities.max()


def test_confident_and_wrong():
    """Of twelve slots one is to change: each alone is sure to 11/12 that it is not the one."""
    joint = replace_one(12)
    at_once = write(joint, Unmask(Threshold(0.9)))
    assert at_once.tokens == [0] * 12 and at_once.stats.forwards == 1
    one_by_one = write(joint, Unmask(Schedule()))
    assert sum(one_by_one.tokens) == 1 and one_by_one.stats.forwards == 12
    careful = write(joint, Unmask(Threshold(0.95)))  # sure enough of some only once there are few left: never
    assert sum(careful.tokens) == 1


@pytest.mark.parametrize("n", [2, 5, 8])
def test_one_token_that_tells_the_rest(n):
    """Nothing is certain but what follows from the first token: two forwards, where a schedule takes n."""
    joint = all_same(n, 3)
    for rule in (Threshold(0.9), Factor(), EntropyThreshold(0.5), EntropyBudget(0.1), Explore()):
        result = write(joint, Unmask(rule))
        assert result.stats.forwards == 2 and len(set(result.tokens)) == 1
    assert write(joint, Unmask(Schedule())).stats.forwards == n


def test_a_shuffle_is_broken_by_two_a_step_and_by_nothing_that_is_sure():
    joint = shuffle(4)
    assert joint.table[tuple(write(joint, Unmask(Schedule())).tokens)]
    for rule in (Threshold(0.9), Factor(), EntropyThreshold(0.1)):
        assert joint.table[tuple(write(joint, Unmask(rule)).tokens)]
    assert not joint.table[tuple(write(joint, Unmask(Schedule(2))).tokens)]


# ---- FreeDave, caches, blocks: the same text otherwise ----


def denoiser(n: int, vocab: int, seed: int):
    """Logits that a hash makes of the whole text: nothing about it is regular."""

    def logits(tokens):
        counter = np.zeros((len(tokens) * (vocab + 1), 4), np.uint32)
        counter[:, 0] = np.arange(len(counter))
        counter[:, 1] = crc32(tokens.tobytes())
        words = philox(counter, np.array([seed, 0], np.uint32))[:, 0]
        return (words.reshape(len(tokens), -1) * 2.0**-29).astype(np.float32)

    return fd.from_callable(logits, vocab + 1, mask_token=vocab)


@st.composite
def schedules(draw, n):
    block = draw(st.sampled_from([None, 1, 2, 3, n]))
    blocks = 1 if block is None else -(-n // block)
    steps = draw(st.one_of(st.none(), st.integers(blocks, n)))
    kind = draw(st.sampled_from(["linear", "cosine", "time", "ascending"]))
    return Schedule(steps, draw(st.sampled_from(["confidence", "margin", "entropy", "random"])), kind), block


@settings(max_examples=150)
@given(
    data=st.data(),
    n=st.integers(1, 12),
    drafts=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
    regular=st.booleans(),
)
def test_freedave_writes_what_the_schedule_writes(data, n, drafts, seed, regular):
    """In no more forwards, and in no fewer than all drafts right would take."""
    rule, block = data.draw(schedules(n))
    if regular:  # drafts are often right
        n = min(n, 6)
        rule, block = data.draw(schedules(n))
        session = session_of(any_joint(n, 2, seed))
    else:
        session = denoiser(n, 7, seed)
    attention = data.draw(st.sampled_from(["full", "block_causal"]))
    static, drafted = (
        generate(session, PROMPT, n, decoder=Unmask(rule, block_length=block, attention=attention, drafts=count))
        for count in (0, drafts)
    )
    assert drafted.tokens == static.tokens
    assert math.ceil(static.stats.forwards / drafts) <= drafted.stats.forwards <= static.stats.forwards


def test_drafts_that_are_right_save_forwards():
    """Positions that do not know of one another: what is guessed stays, so that each forward makes all its steps."""
    joint = independent(np.random.default_rng(1).exponential(size=(8, 3)))
    forwards = {drafts: write(joint, Unmask(Schedule(), drafts=drafts)).stats.forwards for drafts in (0, 1, 2, 4, 8)}
    assert forwards[0] == forwards[1] == 8
    assert 4 <= forwards[2] < 8 and 2 <= forwards[4] < forwards[2] and 1 <= forwards[8] < forwards[4]


@given(data=st.data(), joint=of_three, size=st.integers(1, 3), cache=st.sampled_from(["prefix", "dual"]))
def test_caches_over_a_function_change_nothing(data, joint, size, cache):
    """It sees the whole text anew in every forward: what a cache holds back is the model's matter."""
    rule = data.draw(st.sampled_from([Schedule(), Threshold(0.5), Factor()]))
    plain = write(joint, Unmask(rule, block_length=size))
    again = data.draw(st.one_of(st.none(), st.integers(1, 3)))
    assert write(joint, Unmask(rule, block_length=size, cache=cache, refresh_every=again)).tokens == plain.tokens


@meanings
@settings(max_examples=15)
@given(
    joint=of_three, size=st.integers(1, 3), seed=st.integers(0, 2**64 - 1), temperature=st.sampled_from([0.0, 0.7, 1.0])
)
def test_a_text_is_a_function_of_the_seed(meaning, joint, size, seed, temperature):
    decoder = Unmask(meaning.rule, block_length=None if isinstance(meaning.rule, Schedule) else size)
    first, second = (write(joint, decoder, temperature, seed) for _ in range(2))
    assert first.tokens == second.tokens and first.stats.forwards == second.stats.forwards <= joint.n
    assert max(first.tokens) < joint.vocab  # no mask is left
