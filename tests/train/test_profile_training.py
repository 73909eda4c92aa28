"""A profile of training: its passes and what is beside them, their operations, and no bit that changes."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.runtime import profile as module
from fastdistill.train.optimisers import SGD, AdamW
from tests.train.test_training_engine import CROSS_ENTROPY, assert_same, engine_of, expected, step, texts


@pytest.fixture(autouse=True)
def _known_bandwidth(monkeypatch):
    monkeypatch.setattr(module, "bandwidth", lambda threads: 1e9)


def test_passes_are_counted_forward_and_in_reverse():
    engine = engine_of("biased")
    batch = texts(engine.vocab_size)
    with fd.Profile() as profile:
        value, found = step(engine, batch)
    assert value == expected("biased")[0]
    assert_same(found, expected("biased")[1])
    rows, reads = len(batch), np.count_nonzero(batch.weights)
    layers, head = (sum(
        int(np.prod(parameter.shape)) for name, parameter in engine.parameters.items()
        if len(parameter.shape) == 2 and "embed" not in name and ("lm_head" in name) is is_head
    ) for is_head in (False, True))  # fmt: skip
    products = 2 * (rows * layers + reads * head)
    assert profile.forward.total.operations == products
    assert profile.reverse.total.operations == 2 * products
    assert profile.forward.stages["linear lm_head"].operations == 2 * reads * head
    assert profile.reverse.stages["linear_weight_gradient lm_head"].operations == 2 * reads * head
    assert (profile.forward.forwards, profile.forward.rows) == (2, rows + reads)
    assert (profile.reverse.forwards, profile.reverse.rows) == (3, 2 * rows + reads)  # the table of tokens goes last
    assert profile.forward.stages["objective"].calls == 1
    assert not profile.prefill.stages and not profile.decode.stages
    for phase in (profile.forward, profile.reverse):
        assert 0 < phase.total.seconds <= phase.seconds


@pytest.mark.parametrize("make", [AdamW, SGD])
def test_a_step_and_its_clipping_are_stages_beside_passes(make):
    engine = engine_of("odd")
    optimiser, batch = make(engine.parameters), texts(engine.vocab_size)
    with fd.Profile() as profile:
        engine.accumulate(batch, CROSS_ENTROPY, batch.weight)
        engine.finish()
        optimiser.clip(1.0)
        optimiser.step(0.0)
    assert {name: each.calls for name, each in profile.step.stages.items()} == {"clip": 1, make.__name__: 1}
    text, facts = str(profile), json.loads(json.dumps(profile.facts()))
    assert f"step  {profile.step.seconds:.3f} s\n" in text and "reverse  " in text and "passes: 3" in text
    assert [name for name in module.PHASES if f"\n{name}  " in text] == ["forward", "reverse", "step"]
    assert facts["reverse"]["forwards"] == 3
    engine.zero_gradients()
