"""The reference executor: the plan op by op in NumPy, each op as `fastdistill.reference` says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.errors import NotFiniteError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models.plan import Op, Plan
from fastdistill.reference.forward.attention import attention
from fastdistill.reference.forward.linear import linear
from fastdistill.reference.forward.rms_norm import rms_norm
from fastdistill.reference.forward.rotary import rotary
from fastdistill.reference.forward.row_statistics import row_statistics
from fastdistill.reference.forward.silu_mul import silu_mul
from fastdistill.reference.sample.sample import sample
from fastdistill.runtime.forward_pass import ForwardPass, Outcome
from fastdistill.runtime.packing import held_format


class ReferenceWeights:
    """The tensors of a plan, as they are stored or converted to `format`."""

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, Tensor],
        format: str | None,
        threads: int,
        progress: Callable[[int, int], None] | None = None,
    ):
        self.formats = {name: held_format(plan, tensors, name, format) for name in plan.weights}
        self.tensors = {name: quantize_tensor(tensors[name], held).rows(...) for name, held in self.formats.items()}
        self.nbytes = sum(tensor.nbytes for tensor in self.tensors.values())


class ReferenceExecutor:
    """Runs passes op by op; values are rounded to float32 between ops, keys and values to the cache's type."""

    def __init__(self, plan: Plan, weights: ReferenceWeights, taps: Iterable[str] = ()) -> None:
        self.plan, self.weights, self.taps = plan, weights, tuple(taps)

    def run(self, request: ForwardPass) -> Outcome:
        """Run one pass; raises NotFiniteError where a logit is not finite."""
        plan = self.plan
        values: dict[int, np.ndarray] = {}
        segments = {"exit", *range(request.first_layer, request.end_layer)} | (
            {"enter"} if request.first_layer == 0 else set()
        )
        if request.stream is not None:
            values[plan.boundaries[request.first_layer]] = request.stream
        taps = {}
        names = {plan.taps[name]: name for name in self.taps}
        for op in plan.ops:
            if op.segment not in segments:
                continue
            inputs = (
                [values[value] for value in op.inputs]
                if op.kind != "read"
                else [values[plan.boundaries[request.end_layer]]]
            )
            values[op.output] = self.op(op, inputs, request).astype(np.float32)
            if op.output in names:
                taps[names[op.output]] = values[op.output]
        logits = values[plan.ops[-1].output]
        banned = np.zeros(logits.shape, bool)
        if request.banned is not None and request.bans is not None:
            for row, (start, end) in enumerate(request.bans):
                banned[row, request.banned[start:end]] = True
        if not np.isfinite(logits[~banned]).all():
            raise NotFiniteError("head (exit) met a NaN or an infinity")
        logits = np.where(banned, np.float32(-np.inf), logits)
        argmax, *rest = row_statistics(logits)
        statistics = (argmax.astype(np.int32), *(field.astype(np.float32) for field in rest))
        log_probs = None
        if request.wanted_tokens is not None:
            log_probs = logits[np.arange(len(logits)), request.wanted_tokens] - statistics[3]
        return Outcome(
            statistics,
            log_probs,
            logits if request.want_logits else None,
            values[plan.hidden] if request.want_hidden else None,
            values[plan.boundaries[request.end_layer]],
            self._drawn(request, logits),
            taps,
        )

    def op(self, op: Op, inputs: list[np.ndarray], request: ForwardPass) -> np.ndarray:
        """One op on given inputs, float64 or float32 (rows, width)."""
        tensors = [self.weights.tensors[name] for name in op.weights]
        constants = op.constants
        if op.kind == "embedding":
            if request.inputs is not None:
                return request.inputs
            return tensors[0].to_float32()[request.tokens]
        if op.kind == "rms_norm":
            return rms_norm(inputs[0], tensors[0].to_float32(), constants["epsilon"])
        if op.kind in ("linear", "head"):
            weight = tensors[0]
            bias = tensors[1].to_float32() if len(tensors) > 1 else None
            return linear(inputs[0], weight.format, weight.data, weight.scale, weight.minimum, bias)
        if op.kind == "add":
            return inputs[0] + inputs[1]
        if op.kind == "silu_mul":
            return silu_mul(inputs[0], inputs[1])
        if op.kind == "rotary":
            return rotary(inputs[0], request.positions, constants["head_dim"], constants["inverse_frequencies"])
        if op.kind == "read":
            return inputs[0][request.read_rows]
        assert op.kind == "attention", op.kind
        return self._attention(op, inputs, request)

    def _drawn(self, request: ForwardPass, logits: np.ndarray) -> np.ndarray | None:
        if request.draws is None:
            return None
        drawn = np.full(len(logits), -1, np.int32)
        positions = request.positions[request.read_rows]
        for row, (seed, _, sequence, round, temperature) in enumerate(request.draws.tolist()):
            if temperature:
                one, sampler = slice(row, row + 1), Sampler(temperature, seed=seed, sequence=sequence, round=round)
                drawn[one] = sample(logits[one], sampler, positions[one]).tokens
        return drawn

    def _attention(self, op: Op, inputs: list[np.ndarray], request: ForwardPass) -> np.ndarray:
        q, k, v = inputs
        head_dim, layer = op.constants["head_dim"], op.constants["layer"]
        for row, (sequence, slot) in enumerate(zip(request.sequences, request.slots, strict=True)):
            heads = (x[row : row + 1].reshape(1, -1, head_dim) for x in (k, v))
            request.caches[sequence].write(layer, np.array([slot]), *heads)
        out = np.empty(q.shape)
        for row, (sequence, node) in enumerate(zip(request.sequences, request.nodes, strict=True)):
            seen = request.caches[sequence].read(layer, request.visible(node))
            keys, values = (part.swapaxes(0, 1) for part in seen)
            out[row] = attention(q[row].reshape(-1, head_dim), keys, values, op.constants["scale"]).reshape(-1)
        return out
