"""The reverse of a plan: gradients of every op's reference, by finite differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.models import plan_for
from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan
from fastdistill.ops import OPS, SUMS
from fastdistill.runtime.reference_executor import ReferenceExecutor
from fastdistill.train.differentiate import differentiate
from tests.families import CASES, family_config
from tests.train.passes import Rows64, Weights64, chains, gradients_64, training_pass, woods
from tests.train.plans import FACTS, PLANS, VOCAB, WAYS, WIDTH, attention

LENGTHS = [5, 1, 7]
STEP = 1e-6


def case(plan: Plan, seed: int = 0, laid=None):
    random = np.random.default_rng(seed)
    rows = sum(LENGTHS)
    tokens = random.integers(0, plan.vocab_size, rows)
    reads = np.sort(random.permutation(rows)[: rows - 3])
    request = training_pass(plan, tokens, laid or chains(LENGTHS), reads, lambda name: Rows64(rows))
    return request, Weights64(plan, seed), random


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_gradients_are_those_of_finite_differences(name, checkpoint):
    assert_finite_differences(PLANS[name](), checkpoint)


@pytest.mark.parametrize("name", WAYS)
def test_gradients_of_trees_and_blocks_are_those_of_finite_differences(name):
    assert_finite_differences(PLANS[name](), laid=woods())


def assert_finite_differences(plan: Plan, checkpoint: bool = False, laid=None) -> None:
    """Along a random direction of each weight: (f(w + h d) - f(w - h d)) / 2 h is off by h^2, and by rounding over h."""
    request, weights, random = case(plan, laid=laid)
    output = "logits" if "logits" in plan.outputs else "hidden"
    width = plan.widths[plan.outputs[output]]
    dy = random.standard_normal((len(request.read_rows), width))
    _, gradients, _ = gradients_64(plan, [*plan.weights], output, weights, request, dy, checkpoint)
    plain = ReferenceExecutor(plan, weights, dtype=np.float64)

    def loss() -> float:
        return float((plain.values_of(request)[plan.outputs[output]] * dy).sum())

    for weight, tensor in weights.tensors.items():
        direction = random.standard_normal(tensor.shape)
        found = []
        for sign in (1, -1):
            tensor.data[...] += sign * STEP * direction
            found.append(loss())
            tensor.data[...] -= sign * STEP * direction
        want = (found[0] - found[1]) / (2 * STEP)
        got = (gradients[weight] * direction).sum()
        assert got == pytest.approx(want, rel=2e-5, abs=2e-6 * np.abs(dy).sum() ** 0.5), weight


@pytest.mark.parametrize("name", CASES)
def test_every_family_has_a_reverse_that_leads_to_all_of_its_weights(name):
    plan = plan_for(family_config(name))
    made = differentiate(plan, [*plan.weights], "logits")
    reached = {weight for op in made.ops for role, weight in OPS[op.kind].roles(op.weights) if role in SUMS}
    assert reached == plan.weights.keys()


def test_only_what_leads_to_what_is_trained_is_run():
    plan = PLANS["linear"]()
    made = differentiate(plan, ["down1.weight"], "hidden")
    reverse = [op.kind for op in made.ops if op.segment.startswith("reverse")]
    assert reverse == ["given", "spread", "scale", "linear_weight_gradient"]


def test_names_are_checked():
    plan = PLANS["linear"]()
    with pytest.raises(ArgumentError, match="wrt must name weights of the plan"):
        differentiate(plan, ["nothing"], "hidden")
    with pytest.raises(ArgumentError, match="wrt must name weights of the plan"):
        differentiate(plan, [], "hidden")
    with pytest.raises(ArgumentError, match="output must be one of hidden"):
        differentiate(plan, [*plan.weights], "logits")


def test_attention_over_what_other_rows_have_stored_has_no_adjoint():
    b = Builder()
    with b.segment("encode"):
        x = b.embedding("source", VOCAB, WIDTH)
        stored = b.store(b.linear(x, "k", WIDTH), b.linear(x, "v", WIDTH), WIDTH, "cross")
    x = b.embedding("embedding", VOCAB, WIDTH)
    with b.layer(0, x):
        x = b.cross_attention(b.linear(x, "q", WIDTH), stored, WIDTH, 1.0)
    plan = b.plan(x, {"hidden": b.read(x)}, {}, **FACTS)
    with pytest.raises(UnsupportedError, match=r"attention \(layer 0\) over keys that other rows have stored"):
        differentiate(plan, ["q.weight"], "hidden")


def test_attention_with_numbers_by_distance_has_no_reverse():
    """Beside a trained weight before it or behind its numbers; one behind all of it can be trained."""
    plan = attention(distances="numbers", reach=2)
    for weight in ("numbers", "q1.weight"):
        with pytest.raises(
            UnsupportedError, match=r"attention \(layer 1\) with numbers by distance, numbers, has no adjoint"
        ):
            differentiate(plan, [weight], "hidden")
    assert differentiate(plan, ["out1.weight"], "hidden")
