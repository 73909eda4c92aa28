"""Gradients of attention in C: against the reference op by op, and the laws of their bits."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.models.plan import Plan
from fastdistill.runtime.forward_pass import ForwardPass
from fastdistill.runtime.kv_cache import KVCache
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.runtime.network import Network
from fastdistill.runtime.reference_executor import ReferenceExecutor
from fastdistill.train.differentiate import INPUTS, differentiate, reverse_segments
from tests.runtime.test_executors import BOUNDS
from tests.small_models import tensors
from tests.strategies import bits, level
from tests.train.passes import chains, forked, training_pass, woods
from tests.train.plans import VOCAB, WAYS, attention

SHAPES = {
    "grouped": dict(heads=4, kv_heads=2, head_dim=16),
    "one key head": dict(heads=4, kv_heads=1, head_dim=6),
    "wide": dict(heads=2, kv_heads=2, head_dim=144),
    "two panels": dict(heads=2, kv_heads=1, head_dim=40),
}
LAID = {"chains": chains([50, 1, 33, 100]), "trees and blocks": woods(), "branches": forked(100, 3, 13)}
LONG = chains([3, 550])  # the last rows see more keys than scores are kept of
ALL = SHAPES | {way: how | SHAPES["grouped"] for way, how in WAYS.items()}
BY_ATTENTION = "rotary_gradient", "columns", "attention_gradient"


class Native:
    """The executor of a plan and its reverse, every value in a place of its own."""

    def __init__(self, plan: Plan, rows: int, threads: int = 2) -> None:
        self.plan = differentiate(plan, [INPUTS], "hidden")
        made = Network(self.plan, tensors(plan, 3), threads=threads, executor="native")
        self.executor = NativeExecutor(self.plan, made.weights, rows, threads, fuse=False, keep=True)
        self.weights = Network(self.plan, tensors(plan, 3), threads=1, executor="reference").weights

    def forward(self, tokens: np.ndarray, laid) -> ForwardPass:
        def cache(name: str) -> KVCache:
            made = KVCache(self.plan, len(tokens), "f32", name)
            made.reserve(0, len(tokens))
            return made

        request = training_pass(self.plan, tokens, laid, np.arange(len(tokens)), cache)
        self.executor.run(request)
        return request

    def reverse(self, request: ForwardPass, dy: np.ndarray) -> dict[str, np.ndarray]:
        """Of each op of attention's reverse, by its kind and number: its value."""
        request.inputs, request.segments = dy, reverse_segments(self.plan)
        self.executor.run(request)
        ops = [op for op in self.plan.ops if op.kind in BY_ATTENTION]
        return {f"{op.kind} {i}": self.executor.value(op.output, request.rows).copy() for i, op in enumerate(ops)}


def case(rows: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, VOCAB, rows), random.standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize(
    "how, laid",
    [
        *(pytest.param(how, laid, id=f"{name}, {of}") for name, how in ALL.items() for of, laid in LAID.items()),
        *(pytest.param(ALL[name], LONG, id=f"{name}, long") for name in ("wide", "attention in all ways")),
    ],
)
def test_each_op_agrees_with_the_reference_on_the_native_inputs(isa, how, laid):
    native = Native(attention(layers=1, width=20, **how), len(laid[0]))
    tokens, dy = case(len(laid[0]), 20)
    request = native.forward(tokens, laid)
    native.reverse(request, dy)
    judge = ReferenceExecutor(native.plan, native.weights)
    for op in native.plan.ops:
        if op.kind not in BY_ATTENTION:
            continue
        inputs = [native.executor.value(value, request.rows) for value in op.inputs]
        got, want = native.executor.value(op.output, request.rows), judge.op(op, inputs, request)
        error, allowed = np.abs(got - want), BOUNDS[op.kind](op, inputs, want, judge, request)
        assert (error <= allowed).all(), f"{op.kind}: off by {error.max():g}"


def test_bits_do_not_depend_on_threads_or_level(isa):
    """Nor do those of a sequence depend on others beside it, though blocks are cut elsewhere."""
    how, lengths = ALL["attention in all ways"], [40, 7, 550, 100]
    plan, rows = attention(layers=2, width=20, **how), sum(lengths)
    tokens, dy = case(rows, 20)
    with level("scalar"):
        native = Native(plan, rows, threads=1)
        want = native.reverse(native.forward(tokens, chains(lengths)), dy)
    for threads in (1, 2, 3):
        native = Native(plan, rows, threads)
        found = native.reverse(native.forward(tokens, chains(lengths)), dy)
        for name, value in found.items():
            np.testing.assert_array_equal(bits(value), bits(want[name]), err_msg=name)
    begin = 0
    for length in lengths:
        own = slice(begin, begin + length)
        alone = native.reverse(native.forward(tokens[own], chains([length])), dy[own])
        for name, value in alone.items():
            np.testing.assert_array_equal(bits(value), bits(found[name][own]), err_msg=name)
        begin += length


def test_a_branch_has_the_same_bits_alone(isa):
    """Though slots between it and the trunk make too long a range for its scores to be kept."""
    trunk, branch, count = 20, 13, 40
    plan, rows = attention(layers=1, width=20, **SHAPES["grouped"]), trunk + branch * count
    tokens, dy = case(rows, 20)
    native = Native(plan, rows)
    found = native.reverse(native.forward(tokens, forked(trunk, count, branch)), dy)
    own = np.r_[0:trunk, rows - branch : rows]
    alone = native.reverse(native.forward(tokens[own], forked(trunk, 1, branch)), dy[own])
    for name, value in alone.items():
        np.testing.assert_array_equal(bits(value[trunk:]), bits(found[name][-branch:]), err_msg=name)


def test_what_is_hidden_reaches_nothing(isa):
    """A row's gradient that is not a number stays in its sequence, and off rows of it that come later."""
    lengths = [20, 50, 30]
    native = Native(attention(layers=1, width=20, **SHAPES["grouped"]), sum(lengths))
    tokens, dy = case(sum(lengths), 20)
    request = native.forward(tokens, chains(lengths))
    want = native.reverse(request, dy)
    dy[40] = np.nan
    found = native.reverse(request, dy)
    hidden = np.r_[0:20, 41:100]
    for name, value in found.items():
        np.testing.assert_array_equal(bits(value[hidden]), bits(want[name][hidden]), err_msg=name)
    assert np.isnan(found["attention_gradient 0"][20:41]).any(axis=1).all()
