"""draft_and_verify against its reference, on every level; its loop reaches the states of one forward a step, in no more forwards; edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import draft_and_verify
from fastdistill.kernels.boundary import lib, pointer
from fastdistill.reference.unmask.draft_and_verify import unmasked
from fastdistill.testing import strategies
from fastdistill.testing.cases.unmask.draft_and_verify import check


@given(case=strategies.draft_and_verify())
def test_matches_reference(isa, case):
    check(case)


def outcome(case):
    """What a call gives, or what it says is wrong, once it is found right."""
    found = check(case)
    return found if isinstance(found, str) else (int(found[0]), found[1].tolist(), found[1].shape)


@given(case=strategies.draft_and_verify())
def test_what_comes_after_the_first_wrong_guess_does_not_matter(isa, case):
    states, tokens, scores, _, mask, _ = case.values()
    got = outcome(case)
    if not isinstance(got, str):
        rest = slice(got[0] + 1, None)
        states[got[0] + 2 :], tokens[rest], scores[rest] = -3, mask, np.nan
        assert outcome(case) == got


@given(case=strategies.draft_and_verify())
def test_writes_nothing_outside_its_outputs(isa, case):
    want = outcome(case)
    states, tokens, scores, steps, mask, drafts = case.values()
    (branches, n), count, most = states.shape, len(steps), min(drafts, len(steps))
    inputs = [np.pad(array.reshape(-1), 16, constant_values=77) for array in (states, tokens, scores, steps)]
    drafted, keys = np.full(most * n + 32, 77, np.int32), np.full(n + 32, 77, np.uint64)
    accepted = lib.fd_draft_and_verify(
        branches, n, count, *(pointer(array[16:]) for array in inputs), mask, most, pointer(drafted[16:]), pointer(keys[16:])
    )  # fmt: skip
    for output in (drafted, keys):
        assert (output[:16] == 77).all() and (output[-16:] == 77).all()
    if isinstance(want, str):
        assert accepted < 0
    else:
        made = drafted[16 : 16 + most * n].reshape(most, n)[: min(most, count - accepted)]
        assert (accepted, made.tolist(), made.shape) == want


class Model:
    """What it says of a position is a function of the whole state: of all of it, of a part, or of none, where it says the same forever."""

    def __init__(self, random, n, mask):
        self.mask, self.seen = mask, random.random(n) < random.choice([0, 0.05, 0.3, 1])
        self.weights, self.n = random.integers(1, 1000, n), n
        self.ties, self.forwards = int(random.choice([2, 100])), 0

    def __call__(self, states):
        """A forward over these states; of one without masks it says nothing that could be used."""
        self.forwards += 1
        tokens, scores = np.full(states.shape, self.mask, np.int32), np.full(states.shape, np.nan, np.float32)
        for j, state in enumerate(states):
            if (state == self.mask).any():
                key = (state.astype(np.int64) * self.weights * self.seen).sum() & 0xFFFFFFFF
                said = np.random.default_rng([key, self.n])
                tokens[j] = said.integers(0, 50, self.n)
                scores[j] = said.integers(0, self.ties, self.n)
        return tokens, scores


def one_at_a_time(model, state, steps):
    """The states of a static schedule, a forward for each step."""
    states = [state]
    for step in steps:
        tokens, scores = model(states[-1][None])
        states.append(unmasked(states[-1], tokens[0], scores[0], step, model.mask))
    return states


def static_schedule(random, n, mask):
    """A text with a prompt, and the steps that fill it block by block: each commits a part of what its block lacks."""
    state = np.where(random.random(n) < random.choice([0.5, 0.9, 1]), mask, random.integers(0, 50, n)).astype(np.int32)
    block, steps = int(random.integers(1, n + 1)), []
    for start in range(0, n, block):
        end = min(start + block, n)
        lacking = np.count_nonzero(state[start:end] == mask)
        while lacking:
            quota = min(int(random.integers(1, 3)), lacking)
            steps.append((start, end, quota))
            lacking -= quota
    return state, np.array(steps, np.int32).reshape(-1, 3)


@given(n=st.sampled_from([1, 2, 9, 16, 17, 40]), drafts=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_its_loop_reaches_the_states_of_one_forward_a_step(isa, n, drafts, seed):
    random, mask = np.random.default_rng(seed), 126336
    state, steps = static_schedule(random, n, mask)
    model = Model(random, n, mask)
    want = one_at_a_time(model, state, steps)
    static, model.forwards = model.forwards, 0

    states, done = state[None], 0  # states[0] is the state after `done` steps
    final = state
    while done < len(steps):
        accepted, guesses = draft_and_verify(states, *model(states), steps[done:], mask, drafts)
        np.testing.assert_array_equal(states[: accepted + 1], want[done : done + accepted + 1])
        assert accepted + 1 == len(states) or (states[accepted + 1] != want[done + accepted + 1]).any()
        assert len(guesses) == min(drafts, len(steps) - done - accepted)
        final = guesses[0] if len(guesses) else states[accepted]
        states, done = guesses, done + accepted + (len(guesses) > 0)
    np.testing.assert_array_equal(final, want[-1])
    assert not (final == mask).any()
    assert -(-static // drafts) <= model.forwards <= static
    if not model.seen.any():  # every guess is right
        assert model.forwards == bool(static) + -(-max(static - 1, 0) // drafts)


@given(n=st.sampled_from([2, 16, 40]), branches=st.integers(2, 6), seed=st.integers(0, 2**32))
def test_any_guesses_leave_the_text_as_it_is(isa, n, branches, seed):
    """Guesses from elsewhere, right up to a random one: what is certain is the static schedule's all the same."""
    random, mask = np.random.default_rng(seed), -5
    state, steps = static_schedule(random, n, mask)
    model = Model(random, n, mask)
    want = np.array(one_at_a_time(model, state, steps))
    states, right = want[:branches].copy(), int(random.integers(0, branches))
    states[right + 1 :] ^= 1
    accepted, drafts = draft_and_verify(states, *model(states), steps, mask, 3)
    assert accepted == min(right, len(states) - 1)
    np.testing.assert_array_equal(drafts[:1], want[accepted + 1 : accepted + 2])


def call(states, tokens, scores, steps, drafts=4, mask=9):
    states, tokens, steps = (np.array(array, np.int32) for array in (states, tokens, steps))
    case = {"states": states, "tokens": tokens, "scores": np.array(scores, np.float32), "steps": steps}
    return outcome(case | {"mask_token": mask, "drafts": drafts})[:2]


def test_known_drafts(isa):
    tokens, scores = [[1, 2, 3, 4]], [[0.5, 0.9, 0.1, 0.7]]
    one_a_step = [[0, 4, 1]] * 4
    made = [[9, 2, 9, 9], [9, 2, 9, 4], [1, 2, 9, 4], [1, 2, 3, 4]]
    assert call([[9] * 4], tokens, scores, one_a_step) == (0, made)
    assert call([[9] * 4], tokens, scores, one_a_step, drafts=2) == (0, made[:2])
    assert call([[9] * 4], tokens, scores, [[2, 4, 1], [0, 2, 2]]) == (0, [[9, 9, 9, 4], [1, 2, 9, 4]])
    # The next forward has another mind: the first guess is right, the second is not.
    after = [[5, 5, 5, 5], [5, 5, 5, 6], [7, 7, 7, 7]]
    ranks = [[0.5, 0, 0.1, 0.7], [0.2, 0, 0.3, 0], [0.2, 0, 0.3, 0]]
    guesses = [made[0], [9, 2, 9, 5], [1, 2, 9, 5]]
    assert call(guesses, after, ranks, one_a_step[1:]) == (1, [[9, 2, 5, 5], [5, 2, 5, 5]])


def test_the_lowest_of_equal_scores_comes_first(isa):
    for scores in ([0.5] * 4, [0.0, -0.0, 0.0, -0.0], [np.inf] * 4, [-np.inf] * 4):
        assert call([[9, 0, 9, 9]], [[1, 2, 3, 4]], [scores], [[0, 4, 2]]) == (0, [[1, 0, 3, 9]])


def test_a_score_of_nan_is_never_committed(isa):
    scores = [np.nan, -np.inf, np.nan, 0.5]
    assert call([[9] * 4], [[9, 2, 9, 4]], [scores], [[0, 4, 3], [0, 4, 4]]) == (0, [[9, 2, 9, 4]] * 2)


def test_at_the_end_nothing_is_left_to_draft(isa):
    """The last guess is complete: its tokens are not looked at."""
    assert call([[9, 3], [1, 3]], [[1, 0], [9, 9]], [[0.5, 0], [np.nan, np.nan]], [[0, 2, 1]]) == (1, [])
    assert call([[4, 3]], [[9, 9]], [[np.nan, np.nan]], np.empty((0, 3))) == (0, [])
    assert call([[9, 9]], [[1, 2]], [[1, 2]], [[0, 2, 0], [1, 1, 5], [0, 1, 1]]) == (0, [[9, 9], [9, 9], [1, 9]])


def test_a_mask_that_would_be_committed_is_refused(isa):
    text = r"tokens\[{}\] must not be the mask token where it is committed, got 9"
    two = [[9, 9, 9], [9, 9, 3]]
    checked = dict(states=two, tokens=[[1, 2, 9], [1, 2, 9]], steps=[[2, 3, 1], [0, 3, 2]])
    drafted = dict(states=two, tokens=[[1, 2, 3], [1, 9, 9]], steps=[[2, 3, 1], [0, 3, 2]])
    assert_refused(text.format("0, 2"), **checked)
    assert_refused(text.format("1, 1"), **drafted)
    assert_refused(
        text.format("0, 1"), states=two[:1], tokens=[[1, 9, 9]], scores=[[0, 1, 2]], steps=[[0, 3, 3]]
    )  # the lowest
    assert call([[9, 9]], [[1, 9]], [[1, 0]], [[0, 2, 1]]) == (0, [[1, 9]])  # it has not come to that


def assert_refused(text, **change):
    given = dict(states=[[9, 9, 9]] * 2, tokens=[[1, 2, 3]] * 2, scores=[[0, 0, 0]] * 2, steps=[[0, 3, 1]] * 2) | change
    dtypes = dict(scores=np.float32)
    arrays = {
        name: np.array(value, dtypes.get(name, np.int32)) if isinstance(value, list) else value
        for name, value in given.items()
    }
    with pytest.raises(ArgumentError, match=text):
        draft_and_verify(**({"mask_token": 9, "drafts": 2} | arrays))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"states": None}, "states must be a NumPy array or list of int32, got None"),
        ({"states": [9, 9, 9]}, r"states must have shape \(branches, n\), got \(3,\)"),
        ({"states": np.zeros((2, 3))}, "states must have dtype int32, got float64"),
        ({"tokens": [[1, 2, 3]]}, r"tokens must have shape \(2, 3\), got \(1, 3\)"),
        ({"scores": [[0, 0]] * 2}, r"scores must have shape \(2, 3\), got \(2, 2\)"),
        ({"scores": np.full((2, 3), 0.1)}, r"scores\[0, 0\] = 0.1 would be rounded to float32"),
        ({"steps": [[0, 3]] * 2}, r"steps must have shape \(steps, 3\), got \(2, 2\)"),
        (
            {"steps": np.empty((0, 3), np.int32)},
            r"states must hold 1\.\.1 states, one more than there are steps; got 2",
        ),
        ({"steps": [[0, 3, 1], [-1, 3, 1]]}, r"steps\[1\] must have 0 <= start <= end <= 3 .*, got \[-1, 3, 1\]"),
        ({"steps": [[0, 4, 1], [0, 3, 1]]}, r"steps\[0\] must have .*, got \[0, 4, 1\]"),
        ({"steps": [[2, 1, 1], [0, 3, 1]]}, r"steps\[0\] must have .*, got \[2, 1, 1\]"),
        ({"steps": [[0, 3, 1], [0, 3, -1]]}, r"steps\[1\] must have .* quota >= 0, got \[0, 3, -1\]"),
        ({"mask_token": 2**31}, "mask_token must lie in"),
        ({"mask_token": 1.0}, "mask_token must be an integer, got 1.0"),
        ({"drafts": 0}, r"drafts must lie in 1\.\.2147483647, got 0"),
    ],
)
def test_refuses(change, text):
    assert_refused(text, **change)


def test_refuses_no_states():
    none = np.empty((0, 3), np.int32)
    assert_refused(r"states must hold 1\.\.3 states", states=none, tokens=none, scores=none.astype(np.float32))
