"""Views of masked training: parts that are the whole, subsets that are subsets, and the laws of both."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import nested_answer_masks, nested_masks, pair_mask, semi_autoregressive_masks
from fastdistill.errors import ArgumentError


@st.composite
def rows(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(0, 6))
    prompts = random.integers(0, 9, count)
    return prompts, prompts + random.integers(0, 45, count), draw(st.integers(0, 999))


@given(case=rows(), block=st.sampled_from([1, 4, 32]), probability=st.sampled_from([0.0, 0.5, 1.0]))
def test_both_views_are_the_block_of_each_row_exactly(case, block, probability):
    prompts, lengths, seed = case
    found = semi_autoregressive_masks(prompts, lengths, seed, block=block, probability=probability)
    assert found.masked.shape == found.counted.shape == (2, len(lengths), lengths.max(initial=0))
    for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        begin, end = found.blocks[row]
        inside, behind = np.zeros((2, found.masked.shape[2]), bool)
        inside[begin:end], behind[end:length] = True, True
        one, other = found.counted[:, row]
        np.testing.assert_array_equal(one ^ other, inside)
        assert not (one & other).any()
        np.testing.assert_array_equal(found.masked[:, row], np.stack([one, other]) | behind)
        if length > prompt:
            assert (begin - prompt) % block == 0 and prompt <= begin < end == min(begin + block, length)
        else:
            assert begin == end == length
        assert one.sum() == {0.0: 0, 0.5: one.sum(), 1.0: end - begin}[probability]


def test_every_block_of_a_row_is_as_likely_and_the_shorter_last_one_too():
    """An answer of 70 tokens has blocks of 32, 32 and 6; one of 64 has two, and no empty third."""
    count = 6000
    for answer, blocks in ((70, 3), (64, 2), (5, 1)):
        found = semi_autoregressive_masks(np.full(count, 3), np.full(count, 3 + answer), 0)
        which = np.bincount((found.blocks[:, 0] - 3) // 32)
        assert len(which) == blocks
        assert (np.abs(which - count / blocks) < 4 * math.sqrt(count * (1 / blocks) * (1 - 1 / blocks)) + 1e-9).all()
    drawn = found.counted[0, :, 3:]  # 5 tokens each
    assert abs(drawn.mean() - 0.5005) < 4 * 0.5 / math.sqrt(drawn.size)


def test_rows_of_a_batch_have_masks_of_their_own():
    found = semi_autoregressive_masks(np.zeros(8, int), np.full(8, 64), 1)
    assert len({row.tobytes() for row in found.counted[0]}) == 8
    assert set(found.blocks[:, 0]) == {0, 32}


def by_the_rules(answer, student, share):
    """How many tokens are masked for student and teacher: the rules, one after the other."""
    teacher = min(max(student * share, 0.1), 0.6)
    if answer < 20:
        student = min(student, 0.5)
    if answer <= 10:
        many, few = 2, 1
    else:
        many, few = max(int(answer * student), 2, math.ceil(answer / 10)), int(answer * teacher)
    many = min(many, answer)
    return many, min(few, many)


@given(case=rows())
def test_the_teachers_masks_are_among_the_students_and_as_many_as_the_rules_say(case):
    prompts, lengths, seed = case
    found = nested_answer_masks(prompts, lengths, seed)
    draws = np.random.default_rng(seed)
    students, shares = draws.uniform(0.4, 0.9, len(lengths)), draws.uniform(0.3, 0.7, len(lengths))
    assert (found.student | ~found.teacher).all()
    for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        want = by_the_rules(length - prompt, students[row], shares[row])
        assert (found.student[row].sum(), found.teacher[row].sum()) == want
        assert not found.student[row, :prompt].any() and not found.student[row, length:].any()


def test_short_answers():
    lengths = np.arange(0, 40)
    found = nested_answer_masks(np.zeros(40, int), lengths, 3)
    many, few = found.student.sum(axis=1), found.teacher.sum(axis=1)
    np.testing.assert_array_equal(many[:11], [0, 1, *[2] * 9])
    np.testing.assert_array_equal(few[:11], [0, *[1] * 10])
    assert (many[11:20] <= lengths[11:20] / 2).all() and (many[11:] >= 2).all()
    assert (few <= many).all()
    as_long = nested_answer_masks(np.zeros(40, int), lengths, 3, short=False)
    shares = as_long.student.sum(axis=1) / np.maximum(lengths, 1)
    assert (shares <= 0.9).all() and (shares[4:] > 0.4 - 1 / lengths[4:]).all() and shares[4:20].max() > 0.6
    np.testing.assert_array_equal(as_long.student[20:], found.student[20:])
    np.testing.assert_array_equal(as_long.teacher[20:], found.teacher[20:])


def test_a_teachers_share_ends_at_six_tenths():
    """0.9 times 0.7 would be 0.63: of 100 tokens 60 are the most."""
    found = nested_answer_masks(np.zeros(4000, int), np.full(4000, 100), 0)
    assert found.teacher.sum(axis=1).max() == 60 and found.student.sum(axis=1).max() == 89


def test_any_token_of_an_answer_may_be_masked():
    found = nested_answer_masks(np.full(3000, 2), np.full(3000, 32), 5)
    for masks in (found.student, found.teacher):
        rates = masks[:, 2:].mean(axis=0)
        assert np.ptp(rates) < 8 * 0.5 / math.sqrt(3000)  # 4 deviations each way
    assert 0.6 < found.student[:, 2:].mean() < 0.66  # int(30 U(0.4, 0.9)) / 30


@given(seed=st.integers(0, 2**32), shape=st.sampled_from([(5,), (2, 3), (0, 4)]))
def test_masks_of_one_uniform_are_nested_in_all_levels(seed, shape):
    random = np.random.default_rng(seed)
    uniforms, alphas = random.random(shape), np.sort(random.random(4))
    found = nested_masks(uniforms, [0.0, *alphas, 1.0])
    assert found.shape == (6, *shape) and found[0].all() and not found[-1].any()
    for less, more in pairwise(found):
        assert (less | ~more).all()
    np.testing.assert_array_equal(found[1], uniforms >= alphas[0])
    assert nested_masks([0.5], [0.5]).all()  # seen below alpha, and not at it


def test_the_law_of_a_level_and_of_what_is_revealed_between_two():
    uniforms = np.random.default_rng(0).random((200, 100))
    found = pair_mask(np.zeros(uniforms.shape, np.int32), uniforms, 0.3, 0.8, 9)
    for rate, want in ((found.masked, 0.7), (found.cleaner == 9, 0.2), (found.revealed, 0.5)):
        assert abs(rate.mean() - want) < 4 * math.sqrt(want * (1 - want) / uniforms.size)


@given(seed=st.integers(0, 2**32))
def test_a_pair_reveals_what_the_earlier_state_shows_more(seed):
    random = np.random.default_rng(seed)
    tokens, uniforms = random.integers(0, 9, (3, 8)).astype(np.int32), random.random((3, 8))
    noisy = random.random(3)
    cleaner = noisy + (1 - noisy) * random.random(3)
    found = pair_mask(tokens, uniforms, noisy, cleaner, 9)
    masks = [nested_masks(uniforms[row], [noisy[row], cleaner[row]]) for row in range(3)]
    np.testing.assert_array_equal(found.masked, [mask[0] for mask in masks])
    np.testing.assert_array_equal(found.noisy == 9, found.masked)
    np.testing.assert_array_equal(found.revealed, (found.noisy == 9) & (found.cleaner != 9))
    for state in (found.noisy, found.cleaner):
        np.testing.assert_array_equal(np.where(state == 9, tokens, state), tokens)


def test_times_that_are_equal_reveal_nothing_and_the_first_time_reveals_all():
    tokens, uniforms = np.zeros((2, 4), np.int32), np.random.default_rng(0).random((2, 4))
    same = pair_mask(tokens, uniforms, 0.4, 0.4, 9)
    assert not same.revealed.any() and (same.noisy == same.cleaner).all()
    start = pair_mask(tokens, uniforms, 0.0, 1.0, 9)
    assert start.revealed.all() and (start.cleaner == tokens).all()


def gaussian_alpha(ratio, vocab):
    """P(ratio + e > the largest of vocab - 1 others), over e of a normal law, by a fine sum."""
    e = np.linspace(-10, 10, 4001)
    density = np.exp(-(e**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([math.erfc(-(ratio + x) / math.sqrt(2)) / 2 for x in e])
    return (density * below ** (vocab - 1)).sum() * (e[1] - e[0])


@pytest.mark.parametrize("vocab", [2, 5, 50])
def test_the_gaussian_process_and_one_uniform_give_the_same_pairs(vocab):
    """A token is seen while its coordinate is the largest: A onehot + S e, one e for all times."""
    ratios = np.array([0.5, 2.0])
    alphas = [gaussian_alpha(ratio, vocab) for ratio in ratios]
    np.testing.assert_allclose(gaussian_alpha(0.0, vocab), 1 / vocab, rtol=1e-9)
    if vocab == 2:
        np.testing.assert_allclose(alphas, [math.erfc(-ratio / 2) / 2 for ratio in ratios], rtol=1e-9)
    noise = np.random.default_rng(0).standard_normal((20000, vocab))
    seen = ratios[:, None] + noise[:, 0] > noise[:, 1:].max(axis=1)
    masks = ~nested_masks(np.random.default_rng(1).random(20000), alphas)
    assert (seen[1] | ~seen[0]).all()
    for first in (False, True):
        for second in (False, True):
            rates = [((both[0] == first) & (both[1] == second)).mean() for both in (seen, masks)]
            assert abs(rates[0] - rates[1]) < 4 * math.sqrt(2 * 0.25 / 20000)


def test_a_generator_goes_on_and_a_seed_begins_again():
    arguments = np.zeros(4, int), np.full(4, 40)
    for function in (semi_autoregressive_masks, nested_answer_masks):
        one, same = function(*arguments, 7), function(*arguments, np.random.default_rng(7))
        for a, b in zip(one, same, strict=True):
            np.testing.assert_array_equal(a, b)
        draws = np.random.default_rng(7)
        first, second = function(*arguments, draws), function(*arguments, draws)
        assert first[0].tobytes() == one[0].tobytes() != second[0].tobytes()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: semi_autoregressive_masks([2], [1], 0), "got 1 and a prompt of 2 in row 0"),
        (lambda: semi_autoregressive_masks([-1], [1], 0), "got 1 and a prompt of -1 in row 0"),
        (lambda: semi_autoregressive_masks([0], [2**30], 0), "lengths must lie in"),
        (lambda: semi_autoregressive_masks([0], [1, 2], 0), r"lengths must have shape \(1,\)"),
        (lambda: semi_autoregressive_masks([0], [1], 0, block=0), "block must lie in"),
        (lambda: semi_autoregressive_masks([0], [1], 0, probability=1.5), "probability must lie in 0..1"),
        (lambda: semi_autoregressive_masks([0], [1], None), "generator must be a numpy.random.Generator or an integer seed"),
        (lambda: nested_answer_masks([0], [1], 0.5), "generator must be a numpy.random.Generator or an integer seed"),
        (lambda: nested_answer_masks([0], [1], 0, short=1), "short must be True or False, got 1"),
        (lambda: nested_answer_masks([0], [1], -1), "generator must lie in 0.."),
        (lambda: nested_masks([1.0], [0.5]), r"uniforms must lie within \[0, 1\)"),
        (lambda: nested_masks([np.nan], [0.5]), r"uniforms must lie within \[0, 1\)"),
        (lambda: nested_masks([0.5], [1.5]), "alphas must lie in 0..1"),
        (lambda: pair_mask([1, 9], [0.5, 0.5], 0.1, 0.2, 9), r"tokens must not hold mask_token 9; it stands at \(1,\)"),
        (lambda: pair_mask([1], [0.5], 0.3, 0.2, 9), "alpha_cleaner must be at least alpha_noisy"),
        (lambda: pair_mask([1], [0.5], np.nan, 0.2, 9), "alpha_noisy must lie in 0..1"),
        (lambda: pair_mask([[1]], [[0.5]], [0.1, 0.2], 0.2, 9), r"alpha_noisy must be a number or have shape \(1,\)"),
        (lambda: pair_mask(1, 0.5, 0.1, 0.2, 9), r"tokens must have shape \(..., length\)"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
