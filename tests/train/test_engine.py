"""The engine: native gradients against the reference in float64, and the laws of their bits."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.distill import cross_entropy
from fastdistill.errors import ArgumentError
from fastdistill.models import plan_for
from fastdistill.runtime.read import Read
from fastdistill.train.batch import Batch, batch_of
from fastdistill.train.engine import Engine
from fastdistill.train.lora import with_lora
from tests.families import CASES, family_config, network
from tests.small_models import tensors
from tests.strategies import bits

LENGTHS = [5, 1, 25, 9]  # one that is long where some rotary frequencies change


def objective(logits, batch, rows, total_weight):
    return cross_entropy(logits, batch.labels[rows], weights=batch.weights[rows], total_weight=total_weight, out=logits)


def texts(vocab: int, seed: int = 0, lengths=LENGTHS):
    random = np.random.default_rng(seed)
    return batch_of([random.integers(0, vocab, n).astype(np.int32) for n in lengths])


def some_counted(vocab: int):
    """Texts, a part of whose rows count."""
    batch = texts(vocab)
    uncounted = np.arange(len(batch)) % 3 == 0
    labels, weights = np.where(uncounted, -100, batch.labels), np.where(uncounted, 0, batch.weights)
    return Batch(batch.tokens, batch.starts, labels.astype(np.int32), weights.astype(np.float32))


def gradients(engine: Engine, *batches: Batch) -> list[bytes]:
    total = sum(batch.weight for batch in batches)
    for batch in batches:
        engine.accumulate(batch, objective, total)
    engine.finish()
    return [parameter.gradient.tobytes() for parameter in engine.parameters.values()]


@pytest.mark.parametrize("name", CASES)
def test_logits_have_the_bits_of_a_session(name):
    plan = plan_for(family_config(name))
    batch, session_of = texts(plan.vocab_size), network(name).session
    found = Engine(plan, tensors(plan), rows=40, threads=2).logits(batch, np.arange(len(batch)))
    for first, last in zip(batch.starts[:-1].tolist(), batch.starts[1:].tolist(), strict=True):
        rows = np.arange(last - first)
        blocks = {} if plan.causal else dict(nodes=rows // (plan.block or len(rows)))
        if blocks:
            blocks["parents"] = range(-1, int(blocks["nodes"][-1]))
        alone = session_of(len(rows), max_rows=len(rows)).forward(
            batch.tokens[first:last], rows=rows, read=Read(logits=True), **blocks
        )
        np.testing.assert_array_equal(bits(found[first:last]), bits(alone.logits))


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_gradients_have_the_same_bits_however_they_are_made(name, low_rank):
    plan = plan_for(family_config(name))
    held, trained = tensors(plan), None
    if low_rank:
        lora = with_lora(plan, 3)
        plan, held, trained = lora.plan, held | lora.tensors(1), lora.trained
        for pair in lora.pairs:  # zeros would hide what A gets
            held[pair.b].data[...] = np.random.default_rng(2).uniform(-0.1, 0.1, held[pair.b].shape)
    batch = some_counted(plan.vocab_size)
    whole = gradients(Engine(plan, held, trained, rows=40, threads=2), batch)
    again = Engine(plan, held, trained, rows=48, threads=1, checkpoint=True)
    assert gradients(again, batch.part(0, 2), batch.part(2, 3), batch.part(3, 4)) == whole


@pytest.fixture(scope="module")
def small() -> Engine:
    plan = plan_for(family_config("gpt2"))
    return Engine(plan, tensors(plan), rows=40, threads=1)


@pytest.mark.parametrize(
    ("lengths", "token", "message"),
    [([3], 83, r"tokens\[1\] must lie in 0..82, got 83"), ([3], -1, "must lie in 0..82, got -1"), ([30, 11], 1, "at most 40 rows, got 41")],
)  # fmt: skip
def test_batches_that_a_model_cannot_take_are_refused(small, lengths, token, message):
    batch = texts(83, lengths=lengths)
    batch.tokens[1] = token
    for call in (lambda: small.accumulate(batch, objective, 1.0), lambda: small.logits(batch)):
        with pytest.raises(ArgumentError, match=message):
            call()


@pytest.mark.parametrize(
    ("rows", "message"), [([40], "0..39, got 40"), ([-1], "got -1"), ([3, 1], "rows must be ascending")]
)
def test_rows_that_a_batch_lacks_are_refused(small, rows, message):
    with pytest.raises(ArgumentError, match=message):
        small.logits(texts(83), np.array(rows))


def test_a_format_that_there_is_not_is_refused(small):
    with pytest.raises(ArgumentError, match=r"format must be one of f32, .*, got 'q5'"):
        Engine(small.plan, {}, format="q5")


def test_a_batch_of_nothing_gives_nothing(small):
    assert small.accumulate(batch_of([]), objective, 1.0) == 0 and small.logits(batch_of([])).shape == (0, 83)
    assert small.logits(texts(83), np.empty(0, np.int64)).shape == (0, 83)


def test_an_objective_without_a_gradient_of_the_logits_is_refused(small):
    def value_alone(*arguments):
        return objective(*arguments)._replace(gradient=np.zeros(83, np.float32))

    with pytest.raises(ArgumentError, match=r"of the shape of the logits, \(36, 83\), got \(83,\)"):
        small.accumulate(texts(83), value_alone, 1.0)
    with pytest.raises(ArgumentError, match="objective must be callable, got None"):
        small.accumulate(texts(83), None, 1.0)
