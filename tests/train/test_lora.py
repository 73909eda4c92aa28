"""Pairs of low rank: nothing changes at first, gradients are those of the merged matrix, merged is the same model."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.checkpoint import Tensor
from fastdistill.errors import ArgumentError
from fastdistill.models import plan_for
from fastdistill.runtime.read import Read
from fastdistill.train.batch import batch_of
from fastdistill.train.engine import Engine
from fastdistill.train.lora import with_lora
from fastdistill.train.objectives import objective
from tests.small_models import config, tensors
from tests.strategies import bits

CROSS_ENTROPY = objective("cross_entropy")
RANK, ALPHA = 3, 7.0


def case(format: str | None = None, targets=None):
    plan = plan_for(config())
    lora = with_lora(plan, RANK, ALPHA, targets)
    of_model = tensors(plan)
    engine = Engine(lora.plan, of_model | lora.tensors(5), lora.trained, format=format, rows=32, threads=2)
    random = np.random.default_rng(0)
    return plan, lora, of_model, engine, batch_of([random.integers(0, 300, n).astype(np.int32) for n in (9, 14)])


def step(engine, batch):
    value = engine.accumulate(batch, CROSS_ENTROPY, batch.weight)
    engine.finish()
    return value


@pytest.mark.parametrize("format", [None, "q8"])
def test_pairs_change_nothing_at_first(format):
    plan, _, of_model, engine, batch = case(format)
    plain = Engine(plan, of_model, ["model.norm.weight"], format=format, rows=32, threads=2)
    np.testing.assert_array_equal(bits(engine.logits(batch)), bits(plain.logits(batch)))


def test_gradients_are_those_of_the_matrix_carried_over():
    """dA = scale B^T dW and dB = scale dW A^T, where dW is the whole matrix's gradient."""
    plan, lora, of_model, engine, batch = case()
    random = np.random.default_rng(1)
    for pair in lora.pairs:
        b = engine.parameters[pair.b]
        b.assign((0.1 * random.standard_normal(b.shape)).astype(np.float32))
    step(engine, batch)
    merged = {name: made.to_array() for name, made in lora.merged(engine.parameters, of_model).items()}
    whole = Engine(plan, of_model | {name: Tensor(name, "f32", x.shape, x) for name, x in merged.items()}, rows=32)
    np.testing.assert_allclose(engine.logits(batch), whole.logits(batch), atol=2e-5)
    step(whole, batch)
    for pair in lora.pairs:
        a, b = engine.parameters[pair.a], engine.parameters[pair.b]
        by_matrix = whole.parameters[pair.matrix]
        by_matrix = by_matrix.to_array(by_matrix.gradient)
        for parameter, want in ((a, b.to_array().T @ by_matrix), (b, by_matrix @ a.to_array().T)):
            got, want = parameter.to_array(parameter.gradient), lora.scale * want
            np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_a_network_sees_the_weights_of_the_moment():
    _, lora, _, engine, batch = case()
    network, tokens = engine.network(), batch.tokens[:9]
    for _ in range(2):
        session = network.session(32, cache="f32")
        got = session.forward(tokens, read=Read(logits=True)).logits
        want = engine.logits(batch, np.arange(9))
        np.testing.assert_array_equal(bits(got), bits(want))
        engine.parameters[lora.pairs[0].b].assign(np.full(engine.parameters[lora.pairs[0].b].shape, 0.3, np.float32))


def test_targets_are_patterns():
    plan = plan_for(config())
    lora = with_lora(plan, 2, targets=["*.q_proj.*", "*.0.mlp.up_proj.weight"])
    assert [pair.matrix for pair in lora.pairs] == [
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
    ]
    assert lora.alpha == 4.0 and lora.pairs[0].a == "model.layers.0.self_attn.q_proj.lora_A.weight"
    with pytest.raises(ArgumentError, match=r"targets must name linears of layers.*none is called '\*\.w_proj"):
        with_lora(plan, 2, targets=["*.w_proj.*", "*.q_proj.*"])
