"""Tokens that the head draws while it streams the vocabulary: those of `sample` over the logits, which nobody keeps."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.checkpoint import Tensor
from fastdistill.errors import NotFiniteError
from fastdistill.kernels import Sampler, gumbel_noise, row_statistics, sample
from fastdistill.models.builder import Builder
from fastdistill.runtime import forward_many
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.network import Network
from fastdistill.runtime.packing import PackedWeights
from fastdistill.runtime.read import Read
from tests.strategies import LOGITS, assert_statistics, bits, poisoned, settings_of_models, token_lists

TEMPERATURES = [1e-45, 1e-6, 0.03, 0.3, 0.8, 1.0, 3.0, 100.0, 1e6, 1e30]
WIDTHS = [1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 513, 3000]  # edges of lanes, of blocks of noise, of chunks

samplers = st.builds(
    Sampler,
    temperature=st.sampled_from(TEMPERATURES),
    seed=st.integers(0, 2**64 - 1),
    sequence=st.integers(0, 2**32 - 1),
    round=st.integers(0, 2**20 - 1),
)


def network_of(logits, executor="native", threads=1, softcap=0.0):
    """A model whose row `i` has the logits `logits[i]`, exactly but for a soft cap, where its input is the i-th unit vector."""
    rows, vocab = logits.shape
    b = Builder()
    x = b.embedding("embedding", vocab, rows)
    with b.layer(0, x):
        leaving = b.add(x, b.linear(x, "nothing", rows))
    hidden = b.read(leaving)
    outputs = {"logits": b.head(hidden, "head", vocab, softcap=softcap), "hidden": hidden}
    plan = b.plan(leaving, outputs, {}, vocab_size=vocab, hidden_size=rows, max_positions=1 << 20, architecture="none")
    data = {"embedding": np.zeros((vocab, rows)), "nothing.weight": np.zeros((rows, rows)), "head.weight": logits.T}
    tensors = {name: Tensor(name, "f32", a.shape, np.ascontiguousarray(a, np.float32)) for name, a in data.items()}
    return Network(plan, tensors, threads=threads, executor=executor)


def drawn(network, sampler, positions, read_logits=False, order="all"):
    """Rows of one forward."""
    rows = len(positions)
    session = network.session(rows, max_rows=rows)
    if isinstance(network.weights, PackedWeights):
        poisoned(session)
    arguments = dict(inputs={"embedding": np.eye(rows, dtype=np.float32)}, positions=positions, parents=[-1] * rows)
    result = session.forward(**arguments, rows=order, read=Read(read_logits, sampler=sampler))
    return result


@st.composite
def logits(draw):
    """Rows with and without ties, flat and steep; 40 are more than the head holds at once."""
    rows, vocab = draw(st.sampled_from([1, 2, 5, 40])), draw(st.sampled_from(WIDTHS))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    z = (random.standard_normal((rows, vocab)) * draw(st.sampled_from([0.0, 0.1, 3.0, 60.0]))).astype(np.float32)
    if draw(st.booleans()):
        z = np.round(z)
    z[:, random.integers(vocab)] += np.float32(draw(st.sampled_from([0.0, 8.0, 30.0])))
    return z + np.float32(draw(st.sampled_from([0.0, -200.0, 1e4])))


@given(z=logits(), sampler=samplers, threads=st.integers(1, 4), data=st.data())
def test_the_head_draws_the_tokens_of_sample_and_writes_no_logits(isa, z, sampler, threads, data):
    positions = np.array(data.draw(st.lists(st.integers(0, 2**20 - 1), min_size=len(z), max_size=len(z))), np.int32)
    want = sample(z, sampler, positions)
    network = network_of(z, threads=threads)
    rows = drawn(network, sampler, positions)
    np.testing.assert_array_equal(rows.tokens, want)
    assert_statistics(rows.statistics, row_statistics(z))
    assert rows.logits is None
    order = data.draw(st.lists(st.integers(0, len(z) - 1), min_size=1, max_size=len(z)))
    rows = drawn(network, sampler, positions, read_logits=True, order=order)
    np.testing.assert_array_equal(bits(rows.logits), bits(z[order]))
    np.testing.assert_array_equal(rows.tokens, want[order])


@given(z=logits(), sampler=samplers, softcap=st.sampled_from([0.5, 3.0, 30.0]))
def test_soft_caps_hold_for_what_is_drawn_as_for_what_is_kept(isa, z, sampler, softcap):
    """Though the draw multiplies chunks of its own; the largest logits become equal here."""
    positions = np.arange(len(z), dtype=np.int32)
    network = network_of(z, threads=2, softcap=softcap)
    kept = drawn(network, None, positions, read_logits=True).logits
    np.testing.assert_allclose(
        kept, softcap * np.tanh(z.astype(np.float64) / softcap), rtol=2.0**-20, atol=1e-6 * softcap
    )
    rows = drawn(network, sampler, positions)
    np.testing.assert_array_equal(rows.tokens, sample(kept, sampler, positions))
    assert_statistics(rows.statistics, row_statistics(kept))


@given(seed=st.integers(0, 2**64 - 1), steps=st.integers(0, 3), vocab=st.sampled_from([65, 600, 3000]), data=st.data())
def test_the_lowest_of_equal_keys_wins(isa, seed, steps, vocab, data):
    """Logits that cancel the noise of some tokens, up to a few units in the last place: many equal keys."""
    random, sampler = np.random.default_rng(seed), Sampler(1.0, seed=seed)
    positions = np.arange(4, dtype=np.int32)
    z = -gumbel_noise(positions, vocab, seed=seed)
    z += (random.integers(-steps, steps + 1, z.shape) * 2.0**-22).astype(np.float32)
    z[random.random(z.shape) < data.draw(st.sampled_from([0.0, 0.9]))] -= 9
    want = sample(z, sampler, positions)
    np.testing.assert_array_equal(drawn(network_of(z, threads=2), sampler, positions).tokens, want)


@given(setting=settings_of_models, text=token_lists(1, 16), sampler=samplers)
def test_a_model_draws_the_tokens_of_sample(isa, setting, text, sampler):
    want = setting.session(max_rows=16).forward(text, read=LOGITS).logits
    session = setting.session(max_rows=16)
    rows = session.forward(text, read=Read(sampler=sampler))
    np.testing.assert_array_equal(rows.tokens, sample(want, sampler, np.arange(len(text), dtype=np.int32)))
    assert rows.logits is None


@given(setting=settings_of_models, text=token_lists(1, 4), seed=st.integers(0, 2**64 - 1))
def test_samplers_of_all_kinds_share_a_pass(isa, setting, text, seed):
    pure = Sampler(0.8, seed=seed)
    kinds = [pure, Sampler(), replace(pure, top_p=0.9), None, replace(pure, sequence=1), replace(pure, temperature=9.0)]
    kinds += [replace(pure, round=1), replace(pure, top_p=0.9, round=1)]
    setting = replace(setting, max_rows=len(text) * len(kinds))
    sessions = [setting.session() for _ in kinds]
    together = forward_many([(s, Forward(text, read=Read(sampler=k))) for s, k in zip(sessions, kinds, strict=True)])
    for rows, sampler in zip(together, kinds, strict=True):
        alone = setting.session().forward(text, read=Read(sampler=sampler)).tokens
        assert (rows.tokens is None) == (sampler is None) and np.array_equal(rows.tokens, alone)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("token", [0, 300])
def test_a_row_that_is_not_finite_is_an_error(isa, bad, token):
    z = np.zeros((1, 600), np.float32)
    z[0, token] = bad
    with pytest.raises(NotFiniteError, match="head_merge"):
        drawn(network_of(z), Sampler(1.0), np.zeros(1, np.int32))


def test_a_banned_token_is_not_drawn(isa):
    """One row: minus infinity times anything but its own input would be NaN."""
    z = np.full((1, 600), -np.inf, np.float32)
    z[0, [3, 300, 599]] = 1.0, 2.0, 0.0
    for seed in range(30):
        sampler, at = Sampler(2.0, seed=seed), np.zeros(1, np.int32)
        assert drawn(network_of(z), sampler, at).tokens == sample(z, sampler, at)


def test_the_reference_executor_draws_the_same(isa):
    """In double; with these seeds no two keys are near enough for that to matter."""
    z = np.random.default_rng(0).normal(0, 3, (20, 600)).astype(np.float32)
    positions = np.arange(20, dtype=np.int32)
    for temperature in (0.3, 1.0, 5.0):
        sampler = Sampler(temperature, seed=3)
        want = drawn(network_of(z, "reference"), sampler, positions).tokens
        np.testing.assert_array_equal(drawn(network_of(z), sampler, positions).tokens, want)


@pytest.mark.parametrize("reached", [(3e38, 1e30), (3e38, 9.0), (0.0, 5.0), (-1e4, -3.0), (-3e38, -1e30)])
def test_what_threads_tell_each_other_changes_no_token(isa, reached, monkeypatch):
    """A pass that begins with a false report: a key that nobody has, over a top that nobody has."""
    module = sys.modules["fastdistill.runtime.batch"]
    truth = module._draws

    def false(read, n):
        draws = truth(read, n)
        draws["reached"] = np.array(reached, np.float32).view(np.uint64)
        return draws

    monkeypatch.setattr(module, "_draws", false)
    z = np.random.default_rng(0).normal(0, 3, (10, 3000)).astype(np.float32)
    positions = np.arange(10, dtype=np.int32)
    for temperature in TEMPERATURES:
        sampler = Sampler(temperature, seed=5)
        rows = drawn(network_of(z), sampler, positions)
        np.testing.assert_array_equal(rows.tokens, sample(z, sampler, positions))
