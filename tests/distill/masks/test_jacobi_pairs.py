"""Jacobi Forcing's packing: noise of states, rows that learn, labels over block boundaries, and who sees whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import noise_schedule, pack_pairs, pair_attention, pick_state, trajectory_noise
from fastdistill.errors import ArgumentError

END, PAD = 7, 8


@st.composite
def problems(draw):
    """A prompt and pairs of few tokens; the end of text once or twice among converged tokens, or nowhere."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    prompt = random.integers(0, 4, draw(st.integers(0, 4))).astype(np.int32)
    pairs = random.integers(0, 3, (draw(st.integers(0, 4)), 2, draw(st.integers(1, 5)))).astype(np.int32)
    for _ in range(draw(st.integers(0, 2)) if len(pairs) else 0):
        pairs[random.integers(len(pairs)), 1, random.integers(pairs.shape[2])] = END
    if len(pairs) and draw(st.booleans()):
        pairs[random.integers(len(pairs)), 0, random.integers(pairs.shape[2])] = PAD
    return prompt, pairs


def by_the_rules(prompt, pairs, lead):
    """(student row, teacher row) and (row, label), pair by pair."""
    count, _, size = pairs.shape
    pairs = pairs.copy()
    rows, labels = [], [(at, int(prompt[at + 1])) for at in range(len(prompt) - 1)]
    last = len(prompt) - 1
    for j in range(count):
        noisy, converged = pairs[j]
        ends = np.flatnonzero(converged == END)
        end = int(ends[0]) if len(ends) else size
        converged[end + 1 :] = PAD
        noisy_row, converged_row = len(prompt) + 2 * j * size, len(prompt) + (2 * j + 1) * size
        different = np.flatnonzero(noisy != converged)
        first = max(int(different[0]) - lead, 0) if len(different) else size
        rows += [(noisy_row + at, converged_row + at) for at in range(first, min(size, end)) if noisy[at] != PAD]
        if last >= 0:
            labels.append((last, int(converged[0])))
        labels += [(converged_row + at, int(converged[at + 1])) for at in range(min(size - 1, end))]
        last = converged_row + size - 1
        if len(ends):
            break
    return rows, labels


@given(problem=problems(), lead=st.sampled_from([0, 1]))
def test_who_learns_what(problem, lead):
    prompt, pairs = problem
    found = pack_pairs(prompt, pairs, end_token=END, pad_token=PAD, lead=lead)
    rows, labels = by_the_rules(prompt, pairs, lead)
    assert list(zip(found.student_rows, found.teacher_rows, strict=True)) == rows
    assert list(zip(found.label_rows, found.labels, strict=True)) == labels
    assert len(found.tokens) == len(prompt) + pairs.size
    # Both rows of a pair stand at one place of the text.
    np.testing.assert_array_equal(found.positions[found.student_rows], found.positions[found.teacher_rows])
    np.testing.assert_array_equal(found.streams[found.student_rows], 1)
    np.testing.assert_array_equal(found.streams[found.teacher_rows], 2)
    # A row learns the token of the next place, in its own text.
    np.testing.assert_array_equal(found.positions[found.label_rows] + 1 < len(prompt) + pairs[:, 0].size, True)


@given(problem=problems())
def test_the_layout(problem):
    prompt, pairs = problem
    found = pack_pairs(prompt, pairs)
    np.testing.assert_array_equal(found.tokens, np.concatenate([prompt, pairs.reshape(-1)]))
    for stream in (1, 2):
        chain = (found.streams == 0) | (found.streams == stream)
        np.testing.assert_array_equal(found.positions[chain], np.arange(chain.sum()))
        np.testing.assert_array_equal(found.tokens[chain], np.concatenate([prompt, pairs[:, stream - 1].reshape(-1)]))
    np.testing.assert_array_equal(
        found.blocks, [-1] * len(prompt) + [j for j in range(len(pairs)) for _ in range(2 * pairs.shape[2])]
    )
    assert not found.padding.any() and {array.dtype.name for array in found} == {"int32", "int8", "bool"}


def test_a_known_pack():
    found = pack_pairs([1, 2], [[[3, 9], [3, 4]], [[5, 6], [5, 6]]])
    np.testing.assert_array_equal(found.tokens, [1, 2, 3, 9, 3, 4, 5, 6, 5, 6])
    np.testing.assert_array_equal(found.positions, [0, 1, 2, 3, 2, 3, 4, 5, 4, 5])
    np.testing.assert_array_equal(found.student_rows, [3])  # a converged pair has none
    np.testing.assert_array_equal(found.teacher_rows, [5])
    np.testing.assert_array_equal(found.label_rows, [0, 1, 4, 5, 8])
    np.testing.assert_array_equal(found.labels, [2, 3, 4, 5, 6])  # over the noisy blocks between
    np.testing.assert_array_equal(pack_pairs([1, 2], [[[3, 9], [3, 4]]], lead=1).student_rows, [2, 3])
    np.testing.assert_array_equal(pack_pairs([1], [[[9, 4], [3, 4]]], lead=1).student_rows, [1, 2])


def test_behind_the_end_of_text_there_is_padding_and_nothing_to_learn():
    found = pack_pairs([1], [[[2, 2, 2], [3, END, 4]], [[1, 1, 1], [2, 2, 2]]], end_token=END, pad_token=PAD)
    np.testing.assert_array_equal(found.tokens[4:7], [3, END, PAD])
    np.testing.assert_array_equal(np.flatnonzero(found.padding), [6])
    np.testing.assert_array_equal(found.student_rows, [1])  # the row of the end predicts what is behind it
    np.testing.assert_array_equal(found.labels, [3, END])
    early = pack_pairs([1], [[[2, 2], [END, 4]]], end_token=END, pad_token=PAD)
    assert len(early.student_rows) == 0 and early.labels.tolist() == [END]


def test_padding_is_no_label():
    found = pack_pairs([PAD, PAD, 1, 2], [[[3, 3], [3, 4]]], pad_token=PAD)
    np.testing.assert_array_equal(found.labels, [1, 2, 3, 4])
    np.testing.assert_array_equal(found.label_rows, [1, 2, 3, 6])
    np.testing.assert_array_equal(np.flatnonzero(found.padding), [0, 1])


def test_all_converged_and_nothing_at_all():
    for lead in (0, 1):
        assert len(pack_pairs([1, 2], [[[3, 4], [3, 4]]] * 3, lead=lead).student_rows) == 0
    nothing = pack_pairs([], np.zeros((0, 2, 4), int))
    assert all(len(array) == 0 for array in nothing)
    alone = pack_pairs([1, 2], np.zeros((0, 2, 0), int))
    assert alone.labels.tolist() == [2]


@given(problem=problems())
def test_attention_is_causal_in_each_of_two_texts_with_one_prompt(problem):
    prompt, pairs = problem
    found = pack_pairs(prompt, pairs, end_token=END, pad_token=PAD)
    seen = pair_attention(found.positions, found.streams, found.padding)
    size = pairs.shape[2]
    for q in range(len(found.tokens)):
        for k in range(len(found.tokens)):
            if k < len(prompt):
                want = k <= q
            elif q < len(prompt):
                want = False
            else:
                (a, x), (b, y) = divmod(q - len(prompt), 2 * size), divmod(k - len(prompt), 2 * size)
                want = x // size == y // size and (b, y % size) <= (a, x % size)
            assert seen[q, k] == (want and not found.padding[k])


def test_no_row_depends_on_a_token_of_the_other_text():
    """A toy of attention, twice over: a row is a hash of what the rows that it sees were."""
    prompt, pairs = np.array([1, 2], np.int32), np.array([[[3, 9], [3, 4]], [[5, 6], [7, 6]]], np.int32)

    def rows(pairs):
        found = pack_pairs(prompt, pairs)
        seen, state = pair_attention(found.positions, found.streams), found.tokens.astype(np.float64)
        for _ in range(2):
            state = np.sin(seen @ (state * (1 + found.positions)))
        return state, found.streams

    want, streams = rows(pairs)
    for side, stream in ((0, 1), (1, 2)):
        changed = pairs.copy()
        changed[0, side] += 1
        got, _ = rows(changed)
        np.testing.assert_array_equal(got[streams != stream], want[streams != stream])
        assert (got[streams == stream] != want[streams == stream]).all()


def test_noise_of_states_and_the_one_that_is_wanted():
    states = [[9, 9, 9, 9], [1, 9, 3, 4], [1, 2, 3, 9], [1, 2, 3, 4]]
    np.testing.assert_array_equal(trajectory_noise(states), [1, 0.75, 0.25, 0])
    assert [pick_state(states, noise) for noise in (1.0, 0.9, 0.5, 0.2, 0.0)] == [0, 0, 1, 2, 3]
    assert pick_state([[1], [1]], 1.0) == 0


def test_the_schedule_rises_over_a_window_and_begins_again():
    found = noise_schedule(9, window=4)
    np.testing.assert_allclose(found, [0, 1 / 3, 2 / 3, 1] * 2 + [0], rtol=1e-15)
    np.testing.assert_array_equal(noise_schedule(3, window=1, lowest=0.25), [0.25] * 3)
    np.testing.assert_array_equal(noise_schedule(2, window=2, lowest=1.0, highest=0.5), [1, 0.5])
    assert noise_schedule(0).shape == (0,)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: trajectory_noise(np.zeros((0, 3), int)), "at least one state of one token"),
        (lambda: trajectory_noise([1, 2]), r"states must have shape \(states, n\)"),
        (lambda: pick_state([[1]], 1.5), "noise must lie in 0..1"),
        (lambda: noise_schedule(-1), "blocks must lie in"),
        (lambda: noise_schedule(1, window=0), "window must lie in"),
        (lambda: noise_schedule(1, highest=2.0), "highest must lie in 0..1"),
        (lambda: pack_pairs([1], [[1, 2]]), r"pairs must have shape \(pairs, 2, n\)"),
        (lambda: pack_pairs([1], [[[1], [2]]], end_token=7), "pad_token must be given with end_token"),
        (lambda: pack_pairs([1], [[[1], [2]]], lead=2), "lead must lie in 0..1"),
        (lambda: pack_pairs([-1], [[[1], [2]]]), "must hold tokens, at least 0"),
        (lambda: pair_attention([0], [0, 1]), r"streams must have shape \(1,\)"),
        (lambda: pair_attention([0], [0], [1]), "padding must hold True or False"),
    ],
)
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
