"""The native executor against the reference, op by op on the native inputs: end to end, a flipped code hides errors."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.runtime.batch import joined
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.native import NativeExecutor
from fastdistill.runtime.read import Read
from fastdistill.runtime.reference import ReferenceExecutor
from tests.small_models import CONFIGS, FORMATS, network

EPS = 2.0**-24  # of one rounding


def run_both(name, format, tokens, context):
    """Each op's native inputs and output beside the reference's output on those inputs."""
    native, reference = network(name, format), network(name, format, "reference")
    session = native.session(capacity=64, max_rows=16)
    if len(context):
        session.prefill(context)
    executor = NativeExecutor(native.plan, native.weights, 16, 2, fuse=False, keep=True)
    session.cache.reserve(0, session.cache.slots)
    request = joined([(session, session.context.lay_out(Forward(tokens, read=Read(logits=True))))])
    outcome = executor.run(request)
    judge = ReferenceExecutor(reference.plan, reference.weights)
    rows = len(tokens)
    for op in native.plan.ops:
        inputs = [executor.value(value, rows) for value in op.inputs]
        got = outcome.logits if op.kind == "head" else executor.value(op.output, rows)
        want = judge.op(op, inputs, request)
        yield op, got, want, bound(op, inputs, want, judge, request)


def bound(op, inputs, want, judge, request):
    """What rounding may do to an op: roundings on the way to a result, times the size of what is rounded."""
    if op.kind in ("embedding", "read"):
        return 2 * EPS * np.abs(want)  # q4: one product, one sum
    if op.kind == "rms_norm":
        return (inputs[0].shape[1] / 16 + 12) * EPS * np.abs(want)
    if op.kind in ("linear", "head"):
        weight, *biases = (judge.weights.tensors[name] for name in op.weights)
        x, w, inputs_count = np.abs(inputs[0]), np.abs(weight.to_float32()), inputs[0].shape[1]
        roundings = inputs_count + 2  # one a term
        if weight.format in ("q8", "q4"):
            roundings = 4 * (inputs_count / 32 + 2)  # four a block
            x = x + x.max(axis=1, keepdims=True) / 127  # a code stands for at most one step more
        if weight.minimum is not None:  # what is summed is |scale code| + |minimum|, more than |weight|
            w = w + 2 * np.repeat(np.abs(weight.minimum.astype(np.float64)), 32, axis=1)[:, :inputs_count]
        return roundings * EPS * (x @ w.T + sum(np.abs(bias.to_float32()) for bias in biases))
    if op.kind == "add":
        return EPS * np.abs(want)
    if op.kind == "silu_mul":
        return 8 * EPS * np.abs(want)
    if op.kind == "rotary":
        return 4 * EPS * (np.abs(inputs[0]).max() * 2)
    assert op.kind == "attention"
    # A score is head_dim products, summed in head_dim steps of at most |q| |k|, then scaled: within `score` of the
    # true one.  Both exp's argument and the peak carry that error, exp 2 ulp more; then sums over the keys, ranks folded by
    # 16, and one division.  The result is an average of values: at most the largest of them.
    head_dim, slots = op.constants["head_dim"], np.arange(request.caches[0].slots)
    keys, values = (
        np.abs(part.astype(np.float64)).max() for part in request.caches[0].read(op.constants["layer"], slots)
    )
    score = (head_dim + 2) * EPS * np.abs(inputs[0]).max() * keys * head_dim * op.constants["scale"]
    seen = int(request.runs[:, 1].max())
    return (4 * score + (2 * seen + 12) * EPS) * values


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("format", FORMATS)
def test_each_op_agrees_with_the_reference_on_the_native_inputs(isa, name, format):
    random = np.random.default_rng(5)
    vocab = CONFIGS[name]["vocab_size"]
    for op, got, want, allowed in run_both(name, format, random.integers(0, vocab, 7), random.integers(0, vocab, 20)):
        error = np.abs(got - want)
        assert (error <= allowed).all(), f"{op.kind} {op.weights}: off by {error.max():g}"
