"""Jacobi Forcing: states are those of Jacobi decoding, rows see what the rule says, and learn from where it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.decode import generate
from fastdistill.distill import pack_pairs, pair_attention, teacher_top_k
from fastdistill.distill.masks.jacobi_pairs import CONVERGED, NOISY
from fastdistill.errors import ArgumentError
from fastdistill.kernels import jacobi_step
from fastdistill.models import plan_for
from fastdistill.train import AdamW, Engine, JacobiForcing, batch_of, objective
from fastdistill.train.jacobi_forcing import _tree
from tests.small_models import config, tensors

FORWARD_KL = objective("forward_kl")
PROMPTS = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8]]
MOST = 13  # tokens of a text: blocks of 4, of which the last is filled up or not


@pytest.fixture(scope="module")
def engine() -> Engine:
    plan = plan_for(config("odd"))
    return Engine(plan, tensors(plan), rows=256, threads=2)


@pytest.fixture(scope="module")
def found(engine):
    return JacobiForcing(block=4).trajectories(engine, PROMPTS, 0, max_tokens=MOST)


def logits(engine, batch):
    return engine.logits(batch, np.arange(len(batch)))


@given(prompt=st.integers(1, 4), blocks=st.integers(0, 4), size=st.integers(1, 3), window=st.integers(1, 5))
def test_rows_see_what_they_are_to_see(prompt, blocks, size, window):
    pairs = np.arange(2 * blocks * size, dtype=np.int32).reshape(blocks, 2, size)
    pack = pack_pairs(np.arange(prompt, dtype=np.int32), pairs)
    batch, _ = _tree([pack, pack], window)
    assert batch.positions.tolist() == 2 * pack.positions.tolist()
    begins = pack.blocks // window * window  # of the window
    by_window = (pack.streams[:, None] == NOISY) & (pack.streams == CONVERGED) & (pack.blocks < begins[:, None])
    by_window |= pair_attention(pack.positions, pack.streams)
    by_window &= (pack.streams != NOISY) | (pack.blocks >= begins[:, None])  # states of the windows before are not seen
    for row, sees in enumerate(by_window):
        runs = batch.seen.runs[slice(*batch.seen.run_offsets[row : row + 2])]
        assert (
            np.concatenate([np.arange(first, first + n) for first, n in runs]).tolist() == np.flatnonzero(sees).tolist()
        )


def test_states_are_those_of_jacobi_decoding(engine, found):
    for prompt, each in zip(PROMPTS, found, strict=True):
        session = engine.network().session()
        text = prompt + generate(session, prompt, max_tokens=MOST).tokens
        assert len(text) == each.end and each.first == len(prompt) <= len(each.prompt) < len(prompt) + 4
        blocks = each.states[-1].reshape(-1)
        assert [*each.prompt, *blocks][: each.end] == text and set(blocks[each.end - len(each.prompt) :]) <= {text[-1]}
        for block in range(each.states.shape[1]):
            begin = len(each.prompt) + 4 * block
            state = each.states[0, block]
            for want in each.states[1:, block]:
                rows = batch_of([[*text[:begin], *state]])
                drawn = engine.logits(rows, np.arange(begin - 1, begin + 4)).argmax(axis=1).astype(np.int32)
                state = jacobi_step(np.append(np.int32(text[begin - 1]), state), drawn).next[1:]
                inside = slice(each.end - begin)
                assert state[inside].tolist() == want[inside].tolist()
                state = want
            assert len(each.states) <= 5


@pytest.mark.parametrize("behind", ["states", "text"])
def test_states_and_text_do_not_see_each_other(engine, found, behind):
    forcing = JacobiForcing(block=4, behind=behind, schedule="random")
    batch = forcing.batch(engine, found[:1], 1)
    streams, blocks = streams_of(found[0])
    before = logits(engine, batch)
    for stream in (NOISY, CONVERGED):
        for block in range(blocks.max() + 1):
            changed = (streams == stream) & (blocks == block)
            tokens = np.where(changed, (batch.tokens + 1) % engine.vocab_size, batch.tokens)
            moved = (logits(engine, replace(batch, tokens=tokens)) != before).any(axis=1)
            own = (streams == stream) & (blocks >= block)
            if behind == "text":
                own = own & (blocks == block) if stream == NOISY else own | (streams == NOISY) & (blocks > block)
            assert moved.tolist() == own.tolist()


def streams_of(trajectory):
    states = trajectory.states[[0, -1]].swapaxes(0, 1)
    pack = pack_pairs(trajectory.prompt, states)
    return pack.streams, pack.blocks


def test_the_objective_is_that_of_the_paper(engine, found):
    forcing = JacobiForcing(block=4, schedule="random", text_scale=3.0, top=engine.vocab_size)
    batch = forcing.batch(engine, found, 2)
    all_logits = logits(engine, batch).astype(float)
    log = all_logits - np.log(np.exp(all_logits).sum(axis=1, keepdims=True))
    want, gradient, students = 0.0, np.zeros_like(log), 0
    for start, each in zip(batch.starts, found, strict=False):
        streams, blocks = streams_of(each)
        positions = batch.positions[start : start + len(streams)]
        text = start + np.flatnonzero(streams != NOISY)
        rows, labels = text[each.first - 1 : each.end - 1], batch.tokens[text[each.first : each.end]]
        want -= 3 * log[rows, labels].mean()
        gradient[rows] = 3 * np.exp(log[rows]) / len(rows)
        gradient[rows, labels] -= 3 / len(rows)
        for block in range(each.states.shape[1]):
            noisy, right = (start + np.flatnonzero((streams == one) & (blocks == block)) for one in (NOISY, CONVERGED))
            learn = (batch.tokens[noisy] != batch.tokens[right]).cumsum() > 0
            learn &= positions[noisy - start] < each.end - 1
            if learn.any():
                p, q = log[right[learn]], log[noisy[learn]]
                weight = 1 / each.states.shape[1] / learn.sum()
                want += weight * (np.exp(p) * (p - q)).sum()
                gradient[noisy[learn]] = weight * (np.exp(q) - np.exp(p))
                students += learn.sum()
    assert students and np.count_nonzero(batch.weights) == students + sum(each.end - each.first for each in found)
    rows = np.arange(len(batch))
    loss = FORWARD_KL(all_logits.astype(np.float32), batch, rows, 1.0)
    assert loss.value == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(loss.gradient, gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize("behind", ["states", "text"])
def test_toward_the_next_state_its_law_is_learnt(engine, found, behind):
    toward_text, forcing = (
        JacobiForcing(block=4, schedule="random", behind=behind, toward=toward, top=engine.vocab_size)
        for toward in ("text", "next")
    )
    by_text, batch = (each.batch(engine, found, 2) for each in (toward_text, forcing))
    for name in ("tokens", "weights"):
        np.testing.assert_array_equal(getattr(by_text, name), getattr(batch, name))
    ahead = batch.tokens.copy()
    for start, each in zip(batch.starts, found, strict=False):
        streams, blocks = streams_of(each)
        for block in range(each.states.shape[1]):
            rows = start + np.flatnonzero((streams == NOISY) & (blocks == block))
            (at, *_) = np.flatnonzero((each.states[:, block] == batch.tokens[rows]).all(axis=1))
            ahead[rows] = each.states[min(at + 1, len(each.states) - 1), block]
    learnt = np.flatnonzero((np.concatenate([streams_of(each)[0] for each in found]) == NOISY) & (batch.weights > 0))
    want = teacher_top_k(engine.logits(replace(batch, tokens=ahead), learnt), engine.vocab_size)
    for mine, own in zip(batch.teacher, want, strict=True):
        np.testing.assert_array_equal(mine[learnt], own)
    others = np.setdiff1d(np.arange(len(batch)), learnt)
    np.testing.assert_array_equal(batch.teacher.ids[others], by_text.teacher.ids[others])
    assert not np.array_equal(batch.teacher.log_probs, by_text.teacher.log_probs)


def test_rows_of_the_text_learn_nothing_from_states(engine, found):
    batch = JacobiForcing(block=4, schedule="random", text_scale=0.0).batch(engine, found, 2)
    streams = np.concatenate([streams_of(each)[0] for each in found])
    assert set(streams[batch.weights > 0]) == {NOISY}


def test_states_that_are_the_text_teach_nothing(engine, found):
    settled = [each._replace(states=each.states[-1:]) for each in found]
    batch = JacobiForcing(block=4, text_scale=1.0).batch(engine, settled, 2)
    texts = [[*each.prompt, *each.states[-1].reshape(-1)][: each.end] for each in found]
    counted = [np.arange(each.end) >= each.first for each in found]
    alone = batch_of(texts, [counts / counts.sum() for counts in counted])
    value = engine.value(alone, objective("cross_entropy"), 1.0)
    assert engine.value(batch, FORWARD_KL, 1.0) == pytest.approx(value, rel=1e-5)
    assert batch.weight == pytest.approx(len(found))


def test_training_makes_iterates_converge_sooner_and_leaves_the_text():
    plan = plan_for(config("odd"))
    engine = Engine(plan, tensors(plan), rows=256, threads=2)
    forcing = JacobiForcing(block=8, schedule="random", behind="text")
    before = forcing.trajectories(engine, PROMPTS, 0, max_tokens=20)
    optimiser, generator = AdamW(engine.parameters, weight_decay=0.0), np.random.default_rng(0)
    jumps = [each._replace(states=each.states[[0, -1]]) for each in before]
    for _ in range(50):
        engine.accumulate(forcing.batch(engine, jumps, generator), FORWARD_KL, 3)
        engine.finish()
        optimiser.step(3e-3)
    after = forcing.trajectories(engine, PROMPTS, 0, max_tokens=20)
    for one, other in zip(before, after, strict=True):
        assert one.states[[0, -1]].tolist() == other.states[[0, -1]].tolist()
    iterations = [sum(len(each.states) - 1 for each in made) for made in (before, after)]
    assert iterations[1] < 0.6 * iterations[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(block=0), "block must lie in 1.."),
        (dict(schedule="rising"), "schedule must be one of progressive, random"),
        (dict(behind="noise"), "behind must be one of states, text"),
        (dict(toward="end"), "toward must be one of text, next"),
        (dict(text_scale=-1), "text_scale must lie in"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ArgumentError, match=message):
        JacobiForcing(**change)


def test_what_is_none_is_refused_and_nothing_gives_nothing(engine):
    forcing = JacobiForcing(block=4)
    assert forcing.trajectories(engine, [], 0) == [] and len(forcing.batch(engine, [], 0)) == 0
    with pytest.raises(ArgumentError, match="a trajectory must be"):
        forcing.batch(engine, [[1, 2]], 0)
    with pytest.raises(ArgumentError, match="generator must"):
        forcing.trajectories(engine, PROMPTS, "seed")
    with pytest.raises(ArgumentError, match="engine must be"):
        forcing.batch(None, [], 0)
