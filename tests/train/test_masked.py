"""Masked diffusion: what corruptions promise, gradients on masked rows alone, and that a few steps teach."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from fastdistill import distill
from fastdistill.distill.loss import IGNORED
from fastdistill.errors import ArgumentError
from fastdistill.models import plan_for
from fastdistill.train import AdamW, Batch, Engine, batch_of, objective
from fastdistill.train.masked import (
    CertaintyForcing,
    CleanerTeacher,
    MaskedConsistency,
    PairBatch,
    complementary,
    consecutive,
    corrupted,
    nested,
)
from tests.small_models import llada_config, tensors
from tests.strategies import bits

MASK = 89
AS_LONG = functools.partial(nested, short=False)
MAKERS = [corrupted, complementary, functools.partial(complementary, block=4), nested, AS_LONG, consecutive]
CROSS_ENTROPY = objective("cross_entropy")


def texts(lengths=(12, 1, 9, 30), prompts=(4, 1, 9, 3), seed=0) -> Batch:
    """Prompts with answers; the second and the third have none, and of long ones some tokens are not to be predicted."""
    random = np.random.default_rng(seed)
    counted = [np.arange(length) >= prompt for length, prompt in zip(lengths, prompts, strict=True)]
    for each in counted:
        each[26:28] = False
    return batch_of([random.integers(0, MASK, length).astype(np.int32) for length in lengths], counted)


def engine(seed=0, rows=200) -> Engine:
    plan = plan_for(llada_config())
    return Engine(plan, tensors(plan, seed), rows=rows, threads=1)


@functools.cache
def student() -> Engine:
    return engine()


@functools.cache
def teacher() -> Engine:
    return engine(seed=1)


def answers(batch: Batch) -> np.ndarray:
    return np.concatenate([[False], batch.weights[:-1] > 0])


def views(batch: Batch, made: Batch) -> np.ndarray:
    """The batch's tokens, as often as its sequences are in what was made of it."""
    return np.tile(batch.tokens, len(made) // len(batch))


# ---- corruption ----


@pytest.mark.parametrize("make", MAKERS)
def test_only_answers_are_masked_and_only_masked_tokens_learnt_each_in_its_row(make):
    batch = texts()
    for seed in range(5):
        made = make(batch, MASK, seed)
        whole, masked = views(batch, made), made.tokens == MASK
        assert not (masked & ~np.tile(answers(batch), len(made) // len(batch))).any()
        np.testing.assert_array_equal(made.tokens[~masked], whole[~masked])
        learnt = made.weights > 0
        assert learnt.any() and masked[learnt].all() and (made.labels[~learnt] == IGNORED).all()
        np.testing.assert_array_equal(made.labels[learnt], whole[learnt])


@pytest.mark.parametrize("make", MAKERS)
def test_with_a_shift_a_token_is_learnt_in_the_row_before(make):
    own, before = (make(texts(), MASK, 3, shift=shift) for shift in (0, 1))
    np.testing.assert_array_equal(before.tokens, own.tokens)
    np.testing.assert_array_equal(before.labels[:-1], own.labels[1:])
    np.testing.assert_array_equal(before.weights[:-1], own.weights[1:])
    if isinstance(own, PairBatch):
        np.testing.assert_array_equal(before.revealed[:-1], own.revealed[1:])


@pytest.mark.parametrize("make", MAKERS)
def test_a_seed_is_a_batch(make):
    one, same, other = (make(texts(), MASK, seed) for seed in (7, 7, 8))
    assert bits(one.tokens).tolist() == bits(same.tokens).tolist() != bits(other.tokens).tolist()
    np.testing.assert_array_equal(bits(one.weights), bits(same.weights))


def test_a_masked_token_weighs_one_over_its_time_and_times_are_spread():
    batch = texts([25] * 40, [5] * 40)
    made = corrupted(batch, MASK, 0, cap=5.0)
    weights, share = made.weights.reshape(40, 25)[:, 5:], (made.tokens == MASK).reshape(40, 25)[:, 5:].mean(axis=1)
    each = weights.max(axis=1)
    assert ((weights == 0) | (weights == each[:, None])).all() and each.max() == 5
    times = np.sort(1 / each[(each > 0) & (each < 5)])
    np.testing.assert_allclose(times, (np.arange(40)[-len(times) :] + 0.5) / 40, atol=0.5 / 40)
    assert np.corrcoef(1 / each[each > 0], share[each > 0])[0, 1] > 0.8


def test_of_a_share_of_answers_all_is_masked_and_times_of_others_are_spread():
    batch = texts([25] * 40, [5] * 40)
    made = corrupted(batch, MASK, 0, cap=5.0, whole=0.25)
    weights = made.weights.reshape(40, 25)[:, 5:]
    assert (weights.min(axis=1) == 1).sum() == 10  # t = 1
    most = weights.max(axis=1)
    times = np.sort(1 / most[(most > 1) & (most < 5)])
    np.testing.assert_allclose(times, (np.arange(30)[-len(times) :] + 0.5) / 30, atol=0.5 / 30)


def test_views_are_complementary_and_all_behind_their_block_is_masked():
    batch = texts()
    first, second = np.split(complementary(batch, MASK, 4, block=4).weights > 0, 2)
    tokens, _ = np.split(complementary(batch, MASK, 4, block=4).tokens, 2)
    assert not (first & second).any()
    for begin, end in zip(batch.starts, batch.starts[1:], strict=False):
        block = np.flatnonzero((first | second)[begin:end])
        if len(block):
            assert block[-1] - block[0] < 4
            assert (tokens[begin:end][block[-1] + 1 :][answers(batch)[begin:end][block[-1] + 1 :]] == MASK).all()


@pytest.mark.parametrize("make", [nested, AS_LONG, consecutive])
def test_a_teacher_sees_all_that_its_student_does(make):
    batch = texts()
    for seed in range(5):
        pair = make(batch, MASK, seed)
        hidden = pair.cleaner == MASK
        assert (pair.tokens[hidden] == MASK).all()
        np.testing.assert_array_equal(pair.cleaner[~hidden], batch.tokens[~hidden])
        np.testing.assert_array_equal(pair.revealed, (pair.tokens == MASK) & ~hidden)
    whole = consecutive(batch, MASK, 0, jump=1.0)
    np.testing.assert_array_equal(whole.cleaner, batch.tokens)
    same = consecutive(batch, MASK, 0, jump=0.0)
    np.testing.assert_array_equal(same.cleaner, same.tokens)


def test_parts_of_a_pair_are_pairs():
    pair = nested(texts(), MASK, 2)
    rows = slice(int(pair.starts[2]), None)
    part = pair.part(2, 4)
    np.testing.assert_array_equal(part.cleaner, pair.cleaner[rows])
    np.testing.assert_array_equal(part.revealed, pair.revealed[rows])
    assert all(isinstance(each, PairBatch) for each in pair.split(20))


# ---- objectives ----


def wanted() -> dict[str, tuple]:
    beside = CleanerTeacher(teacher())
    return {
        "masked": (corrupted, CROSS_ENTROPY),
        "dParallel": (complementary, CertaintyForcing()),
        "CD4LM": (nested, objective("forward_kl", teacher=beside, temperature=2.0, temperature_squared=True, label_scale=0.5)),
        "MCD": (consecutive, MaskedConsistency(beside)),
        "MCD, reverse": (consecutive, MaskedConsistency(CleanerTeacher(teacher(), 0.75), "reverse_kl")),
    }  # fmt: skip


NAMES = list(wanted())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_stand_in_the_logits_place_as_finite_differences_and_zero_where_nothing_counts(name):
    make, loss_of = wanted()[name]
    batch = make(texts(), MASK, 1)
    rows = np.arange(len(batch))
    logits = student().logits(batch, rows)
    found = loss_of(given := logits.copy(), batch, rows, batch.weight)
    assert found.gradient is given
    assert not given[batch.weights == 0].any() and given[batch.weights > 0].any(axis=1).all()
    along = np.random.default_rng(0).standard_normal(logits.shape).astype(np.float32)
    step = np.float32(1e-2)
    up, down = (loss_of(logits + sign * step * along, batch, rows, batch.weight).value for sign in (1, -1))
    # The third derivative's part is step^2 of the slope; float32 logits round at 2^-24 of the value over the step.
    assert (up - down) / (2 * float(step)) == pytest.approx(float((given * along).sum()), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_batch_add_up_to_it(name):
    make, loss_of = wanted()[name]
    batch = make(texts(), MASK, 1)
    shares = [student().value(part, loss_of, batch.weight) for part in batch.split(25)]
    assert sum(shares) == pytest.approx(student().value(batch, loss_of, batch.weight), rel=1e-6)


def test_certainty_is_forced_on_right_tokens_alone():
    logits = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    labels = logits.argmax(axis=1).astype(np.int32)
    labels[1] = (labels[1] + 1) % 5
    batch = Batch(np.zeros(3, np.int32), np.array([0, 3]), labels, np.ones(3, np.float32))
    plain = distill.cross_entropy(logits, labels, weights=batch.weights)
    forced = CertaintyForcing(beta=1.5)(logits.copy(), batch, np.arange(3), 3.0)
    surer = distill.entropy(logits, temperature=0.5)
    np.testing.assert_allclose(forced.rows - plain.rows, 1.5 * surer.rows * [1, 0, 1], rtol=1e-6)
    assert CertaintyForcing(beta=0.0)(logits.copy(), batch, np.arange(3), 3.0).value == plain.value


def test_a_teacher_that_is_the_student_and_sees_no_more_teaches_nothing():
    same = consecutive(texts(), MASK, 5, jump=0.0)
    assert student().value(same, MaskedConsistency(CleanerTeacher(student())), same.weight) == pytest.approx(
        0, abs=1e-6
    )
    clean = consecutive(texts(), MASK, 5, jump=1.0)  # whose teacher says what the labels do
    tokens = student().value(clean, CROSS_ENTROPY, clean.weight)
    assert student().value(clean, MaskedConsistency(CleanerTeacher(teacher())), clean.weight) == tokens


def test_a_teacher_reads_the_cleaner_tokens():
    pair = nested(texts(), MASK, 6)
    rows = np.flatnonzero(pair.weights)[2:]
    clean = Batch(pair.cleaner, pair.starts, pair.labels, pair.weights)
    found = CleanerTeacher(teacher(), 0.5).logits(pair, rows)
    np.testing.assert_allclose(found, 2 * teacher().logits(clean, rows), rtol=1e-6)


# ---- training ----


def trained(name: str, steps: int) -> tuple[Engine, list[float]]:
    make, loss_of = wanted()[name]
    model, losses, learnt = engine(), [], texts([10] * 6, [3] * 6)
    optimiser = AdamW(model.parameters, threads=1)
    held = make(learnt, MASK, 99)
    for step in range(steps):
        losses.append(model.value(held, loss_of, held.weight))
        batch = make(learnt, MASK, np.random.default_rng([0, step]))
        model.accumulate(batch, loss_of, batch.weight)
        model.finish()
        optimiser.clip(1.0)
        optimiser.step(3e-3)
    return model, losses


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_teach_and_give_the_same_bits_again(name):
    (one, losses), (other, _) = trained(name, 12), trained(name, 12)
    assert losses[-1] < 0.8 * losses[0]
    for parameter, name in zip(one.parameters.values(), other.parameters, strict=True):
        np.testing.assert_array_equal(bits(parameter.value), bits(other.parameters[name].value))


# ---- what is refused ----


def test_what_does_not_fit_is_refused():
    batch = texts()
    with pytest.raises(ArgumentError, match="must not hold mask_token"):
        corrupted(batch, int(batch.tokens[0]), 0)
    with pytest.raises(ArgumentError, match="cap must lie in 1"):
        corrupted(batch, MASK, 0, cap=0.5)
    with pytest.raises(ArgumentError, match="whole must lie in 0"):
        corrupted(batch, MASK, 0, whole=1.0)
    with pytest.raises(ArgumentError, match="shift must lie in 0"):
        nested(batch, MASK, 0, shift=2)
    with pytest.raises(ArgumentError, match="jump must lie in 0"):
        consecutive(batch, MASK, 0, jump=1.5)
    with pytest.raises(ArgumentError, match="batch must be a PairBatch, of `nested` or `consecutive`, got a Batch"):
        MaskedConsistency(CleanerTeacher(teacher()))(np.zeros((1, 90), np.float32), batch, np.array([0]), 1.0)
    with pytest.raises(ArgumentError, match="kind must be one of"):
        MaskedConsistency(CleanerTeacher(teacher()), "kl")
