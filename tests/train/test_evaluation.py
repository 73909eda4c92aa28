"""What is held out is measured as it would be trained: by chunks of the head, and nothing is learnt."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.models import plan_for
from fastdistill.train import engine as engines
from fastdistill.train.batch import batch_of
from fastdistill.train.data import Teacher
from fastdistill.train.loop import evaluate
from fastdistill.train.objectives import objective
from tests.small_models import config, network, tensors

CHUNK = 16


def held_out():
    random = np.random.default_rng(0)
    texts = [random.integers(0, 300, n).astype(np.int32) for n in (19, 1, 26, 40)]
    return [batch_of(texts[:3]), batch_of(texts[3:]), batch_of(texts[1:2])]


@pytest.mark.parametrize("name", ["cross_entropy", "reverse_kl"])
def test_a_value_is_that_of_a_step_and_leaves_no_trace(monkeypatch, name):
    monkeypatch.setattr(engines, "HEAD_ROWS", CHUNK)
    plan, asked = plan_for(config()), []
    engine = engines.Engine(plan, tensors(plan, seed=4), rows=48, threads=2)
    teacher = None if name == "cross_entropy" else Teacher(network())
    of_rows = objective(name, teacher=teacher)

    def spied(logits, batch, rows, total_weight):
        asked.append(len(logits))
        return of_rows(logits, batch, rows, total_weight)

    batches = held_out()
    total = sum(batch.weight for batch in batches)
    got = evaluate(engine, batches, spied)
    assert asked == [16, 16, 11, 16, 16, 7]
    assert not any(parameter.gradient.any() for parameter in engine.parameters.values())
    assert got == sum(engine.accumulate(batch, of_rows, total) for batch in batches)
    whole = [of_rows(engine.logits(batch), batch, np.flatnonzero(batch.weights), total).value for batch in batches[:2]]
    np.testing.assert_allclose(got, sum(whole), rtol=1e-6)


def test_measuring_within_a_step_changes_none_of_its_bits():
    plan, cross_entropy = plan_for(config()), objective("cross_entropy")
    first, second, _ = held_out()
    gradients = []
    for between in (False, True):
        engine = engines.Engine(plan, tensors(plan, seed=4), rows=48, threads=2)
        for batch in (first, second):
            engine.accumulate(batch, cross_entropy, 80.0)
            if between:
                engine.value(second, cross_entropy, 3.0)
        engine.finish()
        gradients.append({name: parameter.gradient.tobytes() for name, parameter in engine.parameters.items()})
    assert gradients[0] == gradients[1]
