"""Banned tokens: everything a forward gives is what follows from logits that are -inf there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import Sampler, row_statistics, sample
from fastdistill.runtime import forward_many, from_callable
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.read import Read
from tests.small_models import CONFIGS, network
from tests.strategies import LOGITS, assert_statistics, bits, settings_of_models, token_lists

SAMPLERS = {
    "none": None,
    "greedy": Sampler(),
    "in the head": Sampler(0.9, seed=3),
    "of the logits": Sampler(0.9, seed=3, top_k=7),
}


def tokens(*listed: int) -> np.ndarray:
    return np.array(listed, np.int32)


@st.composite
def bans(draw, vocab: int) -> np.ndarray:
    """None, few, a chunk of the head and more, or all but one; in any order, and some twice."""
    size = draw(st.sampled_from([0, 1, 2, 5, vocab // 2, vocab - 1]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    chosen = random.permutation(vocab)[:size].astype(np.int32)
    if draw(st.booleans()):
        chosen = np.arange(size, dtype=np.int32)  # the first chunks lose all their tokens
    return np.concatenate([chosen, chosen[:1]])


def assert_banned(rows, logits, banned, sampler, positions):
    """`rows` is what follows from `logits` (of no bans), float32 (reads, vocab)."""
    want = logits.copy()
    want[:, banned] = -np.inf
    assert_statistics(rows.statistics, row_statistics(want))
    if sampler is not None:
        np.testing.assert_array_equal(rows.tokens, sample(want, sampler, positions))
        assert not np.isin(rows.tokens, banned).any()
    if rows.logits is not None:
        np.testing.assert_array_equal(bits(rows.logits), bits(want))


@given(
    setting=settings_of_models,
    text=token_lists(1, 12),
    kind=st.sampled_from(list(SAMPLERS)),
    keep_logits=st.booleans(),
    data=st.data(),
)
def test_all_follows_from_logits_of_minus_infinity(isa, setting, text, kind, keep_logits, data):
    banned = data.draw(bans(setting.vocab))
    logits = setting.session(max_rows=16).forward(text, read=LOGITS).logits
    read = Read(keep_logits, sampler=SAMPLERS[kind], banned=banned)
    rows = setting.session(max_rows=16).forward(text, read=read)
    assert (rows.logits is not None) == keep_logits
    assert_banned(rows, logits, banned, SAMPLERS[kind], np.arange(len(text), dtype=np.int32))


@given(
    setting=settings_of_models,
    texts=st.lists(token_lists(1, 4), min_size=2, max_size=4),
    kind=st.sampled_from(list(SAMPLERS)),
    data=st.data(),
)
def test_batches_of_other_bans_have_the_bits_of_each_alone(isa, setting, texts, kind, data):
    some = [None, tokens(), data.draw(bans(setting.vocab)), data.draw(bans(setting.vocab))]
    chosen = [data.draw(st.sampled_from(some)) for _ in texts]
    reads = [Read(data.draw(st.booleans()), sampler=SAMPLERS[kind], banned=banned) for banned in chosen]
    together = forward_many(
        [(setting.session(max_rows=16), Forward(text, read=read)) for text, read in zip(texts, reads, strict=True)]
    )
    for text, read, got in zip(texts, reads, together, strict=True):
        alone = setting.session(max_rows=16).forward(text, read=read)
        assert_statistics(got.statistics, alone.statistics)
        assert (got.tokens is None) == (alone.tokens is None)
        np.testing.assert_array_equal(got.tokens, alone.tokens)
        if read.logits:
            np.testing.assert_array_equal(bits(got.logits), bits(alone.logits))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_no_draw_is_a_banned_token(isa, kind):
    """The likeliest tokens are banned one by one, so that each draw has to find another."""
    session, gone = network("biased").session(16), []
    for _ in range(40):
        rows = session.forward([1, 2, 3], read=Read(sampler=SAMPLERS[kind], banned=tokens(*gone)))
        session.truncate(0)
        drawn = rows.statistics.argmax[-1] if rows.tokens is None else rows.tokens[-1]
        assert drawn not in gone
        gone.append(int(drawn))


def test_the_log_probability_of_a_banned_token_is_minus_infinity(isa):
    wanted = tokens(4, 5)
    session = network("plain").session(16)
    rows = session.forward([1, 2], read=Read(True, log_prob_of=wanted, banned=tokens(5)))
    assert rows.log_probs[1] == -np.inf
    assert rows.log_probs[0] == rows.logits[0, 4] - rows.statistics.log_sum_exp[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reference_executor_bans_alike(name):
    read = Read(True, sampler=Sampler(0.7, seed=1), banned=tokens(3, 9))
    native, reference = (
        network(name, executor=executor).session(16).forward([1, 2, 3], read=read)
        for executor in ("native", "reference")
    )
    assert (reference.logits[:, [3, 9]] == -np.inf).all()
    np.testing.assert_allclose(native.logits, reference.logits, atol=1e-4)
    np.testing.assert_array_equal(native.tokens, reference.tokens)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_session_over_a_function_bans_alike(kind):
    z = np.random.default_rng(0).normal(0, 3, (9, 40)).astype(np.float32)
    before, banned = z.copy(), tokens(7, 30)
    rows = from_callable(lambda ids: z[: len(ids)], 40).forward(
        [1] * 9, read=Read(True, sampler=SAMPLERS[kind], banned=banned)
    )
    assert_banned(rows, z, banned, SAMPLERS[kind], np.arange(9, dtype=np.int32))
    np.testing.assert_array_equal(z, before)


def test_a_banned_token_may_be_allowed_by_nobody():
    """`allowed` and `banned` together leave nothing: as where `allowed` leaves nothing."""
    allowed = np.zeros((1, 10), np.uint32)
    allowed[0, 0] = 1 << 5
    with pytest.raises((ArgumentError, NotFiniteError)):
        network("plain").session(8).forward([1], read=Read(sampler=Sampler(1.0), allowed=allowed, banned=tokens(5)))


@pytest.mark.parametrize(
    "banned, text",
    [
        (np.array([1, 300], np.int32), r"read.banned\[1\] must lie in 0..299, got 300"),
        (np.array([-1], np.int32), r"read.banned\[0\] must lie in 0..299, got -1"),
        (np.array([1.0]), "read.banned must be a sequence of integers"),
        ([2**40], r"read.banned\[0\] must lie in 0..299"),
        (np.zeros((1, 1), np.int32), "read.banned must be a sequence of integers"),
        (np.arange(300, dtype=np.int32), "read.banned must leave a token"),
    ],
)
def test_refuses(banned, text):
    session = network("plain").session(8)
    with pytest.raises(ArgumentError, match=text):
        session.forward([1], read=Read(banned=banned))
    assert session.length == 0
    with pytest.raises(ArgumentError, match=text):
        from_callable(lambda ids: np.zeros((len(ids), 300), np.float32), 300).forward([1], read=Read(banned=banned))
