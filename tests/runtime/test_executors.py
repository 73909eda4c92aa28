"""The native executor against the reference, op by op on the native inputs: end to end, a flipped code hides errors."""

from __future__ import annotations

import numpy as np
import pytest

from hypothesis import given
from hypothesis import strategies as st

from fastdistill.kernels import set_isa
from fastdistill.reference.linear import linear
from fastdistill.runtime.forward_many import _joined
from fastdistill.runtime.native import NativeExecutor
from fastdistill.runtime.reference import ReferenceExecutor
from fastdistill.runtime.read import Read
from tests.small_models import CONFIGS, FORMATS, network

EPS = 2.0**-24  # of one rounding


def run_both(name, format, tokens, context):
    """Each op's native inputs and output beside the reference's output on those inputs."""
    native, reference = network(name, format), network(name, format, "reference")
    session = native.session(capacity=64, max_rows=16)
    if len(context):
        session.prefill(context)
    executor = NativeExecutor(native.plan, native.weights, 16, 80, 2, fuse=False, keep=True)
    request = _joined([session.prepare(tokens=tokens, read=Read(logits=True))])
    outcome = executor.run(request)
    judge = ReferenceExecutor(reference.plan, reference.weights)
    rows = len(tokens)
    for op in native.plan.ops:
        inputs = [executor.value(value, rows) for value in op.inputs]
        got = outcome.logits if op.kind == "head" else executor.value(op.output, rows)
        yield op, inputs, got, judge.op(op, inputs, request), judge


def bound(op, inputs, want, judge):
    """What rounding may do to an op: roundings on the way to a result, times the size of what is rounded."""
    if op.kind in ("embedding", "read"):
        return 2 * EPS * np.abs(want)  # q4: one product, one sum
    if op.kind == "rms_norm":
        return (inputs[0].shape[1] / 16 + 12) * EPS * np.abs(want)
    if op.kind in ("linear", "head"):
        tensors = [judge.weights.tensors[name] for name in op.weights]
        magnitudes = abs(tensors[0].to_float32()) @ np.abs(inputs[0]).T
        bias = abs(tensors[1].to_float32()) if len(tensors) > 1 else 0
        if tensors[0].format in ("q8", "q4"):  # |scale codes| + |minimum|, both above the weight itself; x within one code
            low = 0 if tensors[0].minimum is None else np.repeat(np.abs(tensors[0].minimum.astype(np.float64)), 32, axis=1)
            low = low if np.isscalar(low) else low[:, : inputs[0].shape[1]]
            x = np.abs(inputs[0]) + np.abs(inputs[0]).max(axis=1, keepdims=True) / 127
            magnitudes = (abs(tensors[0].to_float32()) + 2 * low) @ x.T
            return (4 * (inputs[0].shape[1] / 32 + 2) * EPS) * (magnitudes.T + bias)
        return (inputs[0].shape[1] + 2) * EPS * (magnitudes.T + bias)
    if op.kind in ("add",):
        return EPS * np.abs(want)
    if op.kind == "silu_mul":
        return 8 * EPS * np.abs(want)
    if op.kind == "rotary":
        return 4 * EPS * (np.abs(inputs[0]).max() * 2)
    assert op.kind == "attention"
    # scores: head_dim products of size |q||k|; exp turns their error into a relative one; then the sums over keys.
    q, k, v = inputs
    scores = (op.constants["head_dim"] + 4) * EPS * np.abs(q).max() * 60 * op.constants["head_dim"] ** 0.5
    return (2 * scores + 200 * EPS) * max(np.abs(v).max(), 3.0)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("format", FORMATS)
def test_each_op_agrees_with_the_reference_on_the_native_inputs(isa, name, format):
    random = np.random.default_rng(5)
    vocab = CONFIGS[name]["vocab_size"]
    for op, inputs, got, want, judge in run_both(name, format, random.integers(0, vocab, 7), random.integers(0, vocab, 20)):
        excess = np.abs(got - want) - bound(op, inputs, want, judge)
        assert excess.max() <= 0, f"{op.kind} {op.weights}: off by {np.abs(got - want).max():g}"
