"""A trained model is a folder again: what its stored tensors make are the trained values."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fastdistill.checkpoint import Tensor
from fastdistill.errors import UnsupportedError
from fastdistill.models import plan_for
from fastdistill.models.source import computed, stacked, stored
from fastdistill.train.saved_model import stored_tensors, trainable
from tests import families, small_models

LEFT = {"stablelm, parallel": {"q_layernorm", "k_layernorm"}}  # biases of zeros, which are not stored


def parameter(value: np.ndarray):
    return SimpleNamespace(to_array=lambda: value)


def check(plan, tensors, trained) -> dict[str, Tensor]:
    """Values near those of a checkpoint are what the new tensors make; the others are what they were."""
    random = np.random.default_rng(0)
    before = {name: weight.source.tensor(tensors).to_float32() for name, weight in plan.weights.items()}
    moved = {
        name: before[name] + np.float32(0.1) * random.standard_normal(before[name].shape, np.float32)
        for name in trained
    }
    made = {
        tensor.name: tensor
        for tensor in stored_tensors(plan, {name: parameter(value) for name, value in moved.items()}, tensors)
    }
    assert made.keys() == plan.stored.keys() and all(made[name].shape == shape for name, shape in plan.stored.items())
    for name, value in (before | moved).items():
        again = plan.weights[name].source.tensor(made).to_float32()
        assert np.allclose(again, value, rtol=0, atol=3e-7), name
    return made


@pytest.mark.parametrize("name", families.CASES)
def test_tensors_of_every_family_make_the_trained_weights(name):
    plan = plan_for(families.family_config(name))
    trained = trainable(plan)
    made = check(plan, small_models.tensors(plan), trained)
    assert all(made[each].format == "f32" for each in made)
    check(plan, small_models.tensors(plan), trained[::3])
    assert {each.split(".")[-2] for each in plan.weights.keys() - set(trained)} == LEFT.get(name, set())


@pytest.mark.parametrize("format", ["f16", "q8"])
def test_what_is_not_trained_stays_as_it_is_stored_but_for_blocks(format):
    plan = plan_for(families.family_config("llama"))
    tensors = small_models.tensors(plan, format=format)
    trained = ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"]
    made = check(plan, tensors, trained)
    blocks = [name for name in tensors if tensors[name].format == "q8"]
    assert {name for name in made if made[name] is not tensors[name]} == {*trained, *blocks}
    for name in set(blocks) - set(trained):
        assert made[name].to_float32().tobytes() == tensors[name].to_float32().tobytes()


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        (stored("a", (4, 3)).transposed(), True),
        (stacked(stored("a", (4, 3)).picked(np.array([2, 0])), stored("b", (2, 3))), True),
        (computed("one more, halved", lambda a: (a + 1) / 2, stored("a", (4, 3))), True),
        (stored("a", (4, 3)).picked(np.array([0, 1, 1])), False),
        (computed("squares", lambda a: a * a, stored("a", (4, 3))), False),
        (computed("sums", lambda a, b: a + b.sum(), stored("a", (4, 3)), stored("b", (2, 3))), False),
    ],
)
def test_what_cannot_be_undone_is_said(source, holds):
    random = np.random.default_rng(1)
    tensors = {
        name: Tensor(name, "f32", shape, random.standard_normal(shape, np.float32))
        for name, shape in source.stored.items()
    }
    plan = SimpleNamespace(weights={"w": SimpleNamespace(source=source)}, stored=source.stored)
    if holds:
        check(plan, tensors, ["w"])
    else:
        with pytest.raises(UnsupportedError, match=r"w: has been trained to what \w, of which it is made, cannot hold"):
            check(plan, tensors, ["w"])
