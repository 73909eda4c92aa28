"""The gradient of the real SmolLM2: the loss changes by what it says, for every kind of weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint import open_checkpoint
from fastdistill.models.agreement import plan_of
from fastdistill.train.batch import Batch, batch_of
from fastdistill.train.engine import Engine
from fastdistill.train.objectives import objective

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        fd.isa() != fd.isa_levels()[-1], reason="gradients have the same bits on any level: the fastest one is enough"
    ),
]

TEXTS = [
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do.",
    "def fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\n",
]
KINDS = (
    ".", "embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "input_layernorm", "model.norm",
)  # fmt: skip
CHANGE = 0.05  # of the loss, in all, that the gradient foretells of one difference
# A loss is a mean over rows of logits that are off by about 2^-24 of 20, some ten times over: 1e-5.  The second difference
# is one of CHANGE / 2 and counts 4 / 3 times: 5e-4.  What is left of fifth derivatives is less; a term that is missing is more.
TOLERANCE = 2e-3


def engine_with_gradient(folder: Path, batch: Batch, **options: bool) -> Engine:
    with open_checkpoint(folder) as checkpoint:
        engine = Engine(plan_of(checkpoint), checkpoint.tensors, rows=64, **options)
    engine.accumulate(batch, objective("cross_entropy"), batch.weight)
    engine.finish()
    return engine


@pytest.fixture(scope="module")
def batch(smollm2) -> Batch:
    tokenizer = fd.load(smollm2).tokenizer
    return batch_of([np.array(tokenizer.encode(text), np.int32) for text in TEXTS])


@pytest.fixture(scope="module")
def engine(smollm2, batch) -> Engine:
    return engine_with_gradient(smollm2, batch)


def loss(engine: Engine, batch: Batch) -> float:
    return objective("cross_entropy")(engine.logits(batch), batch, np.flatnonzero(batch.weights), batch.weight).value


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_changes_by_what_the_gradient_says(engine, batch, kind):
    """Along the gradient of one kind of weight: an error beside it changes what it foretells and not what is found.

    (f(w + h d) - f(w - h d)) / 2 h is off by c h^2 + O(h^4): of h and h / 2 the first term is taken away.
    """
    some = [parameter for name, parameter in engine.parameters.items() if kind in name]
    square = sum(float(np.vdot(each.gradient.astype(np.float64), each.gradient)) for each in some)
    kept = [each.value.copy() for each in some]
    ratios = []
    for step in (CHANGE / 2 / square, CHANGE / 4 / square):
        found = foretold = 0.0
        for sign in (1, -1):
            for parameter, value in zip(some, kept, strict=True):
                np.multiply(parameter.gradient, np.float32(sign * step), out=parameter.value)
                np.add(parameter.value, value, out=parameter.value)
                gone = parameter.value.astype(np.float64) - value  # what is left of the step in float32
                foretold += sign * float(np.vdot(gone, parameter.gradient))
            found += sign * loss(engine, batch)
        ratios.append(found / foretold)
    for parameter, value in zip(some, kept, strict=True):
        parameter.value[:] = value
    assert (4 * ratios[1] - ratios[0]) / 3 == pytest.approx(1, abs=TOLERANCE)


def test_layers_that_are_run_again_give_the_same_bits(smollm2, engine, batch):
    again = engine_with_gradient(smollm2, batch, checkpoint=True)
    for name, parameter in engine.parameters.items():
        other = again.parameters[name]
        assert np.array_equal(parameter.gradient.view(np.int32), other.gradient.view(np.int32)), name
