"""The reference executor: the plan op by op in NumPy, each op as `fastdistill.ops` says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.errors import NotFiniteError
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models.plan import Op, Plan
from fastdistill.ops import MATRIX, OPS, SUMS, TABLE
from fastdistill.reference.forward.row_statistics import row_statistics
from fastdistill.reference.sample.sample import sample
from fastdistill.runtime.forward_pass import ForwardPass, Outcome
from fastdistill.runtime.packing import held_formats


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
        self.formats = held_formats(plan, tensors, format)
        self.tensors = {
            name: quantize_tensor(plan.weights[name].source.tensor(tensors), held).rows(...)
            for name, held in self.formats.items()
        }
        self.nbytes = sum(tensor.nbytes for tensor in self.tensors.values())


class ReferenceExecutor:
    """Runs passes op by op; values are rounded to float32 between ops, keys and values to the cache's type.

    Attributes
    ----------
    values : dict[int, np.ndarray]
        of the last pass, which one of other segments reads: a differentiated plan's reverse
    gradients : dict[str, np.ndarray]
        float64, of weights, that passes add to
    """

    def __init__(
        self,
        plan: Plan,
        weights: ReferenceWeights,
        taps: Iterable[str] = (),
        gradients: Mapping[str, np.ndarray] | None = None,
        dtype: type = np.float32,
    ) -> None:
        self.plan, self.weights, self.taps = plan, weights, tuple(taps)
        self.values: dict[int, np.ndarray] = {}
        self.gradients = dict(gradients or {})
        self._dtype = dtype

    def run(self, request: ForwardPass) -> Outcome:
        """Run one pass; raises NotFiniteError where a logit is not finite, UnsupportedError and ArgumentError."""
        plan = self.plan
        values = self.values_of(request)
        made = {op.output for op in plan.part(request.first_layer, request.end_layer, request.segments)}
        left = set() if request.segments else {plan.boundaries[request.end_layer]}
        taps = {name: values[plan.taps[name]] for name in self.taps if plan.taps[name] in made}
        outputs = {
            name: values[value]
            for name, value in plan.given(request.end_layer).items()
            if request.want_outputs and value in made | left
        }
        stream = values.get(plan.boundaries[request.end_layer], np.empty((0, plan.hidden_size), np.float32))
        if plan.outputs.get("logits") not in made:
            return Outcome(
                np.empty((len(RowStatistics._fields), 0), np.float32), None, None, outputs, stream, None, taps
            )
        logits = values[plan.outputs["logits"]]
        banned = np.zeros(logits.shape, bool)
        if request.banned is not None and request.bans is not None:
            for row, (start, end) in enumerate(request.bans):
                banned[row, request.banned[start:end]] = True
        if not np.isfinite(logits[~banned]).all():
            raise NotFiniteError("head (exit) met a NaN or an infinity")
        logits = np.where(banned, np.float32(-np.inf), logits)
        argmax, *rest = row_statistics(logits)
        statistics = np.stack([argmax.astype(np.int32).view(np.float32), *(field.astype(np.float32) for field in rest)])
        log_probs = None
        if request.wanted_tokens is not None:
            log_probs = logits[np.arange(len(logits)), request.wanted_tokens] - statistics[3]
        return Outcome(
            statistics,
            log_probs,
            logits if request.want_logits else None,
            outputs,
            stream,
            self._drawn(request, logits),
            taps,
        )

    def values_of(self, request: ForwardPass) -> dict[int, np.ndarray]:
        """Run the ops of one pass: `values`."""
        plan = self.plan
        request.check_for(plan)
        if not request.segments:
            self.values = {}
        if request.stream is not None:
            self.values[plan.boundaries[request.first_layer]] = request.stream
        for op in plan.part(request.first_layer, request.end_layer, request.segments):
            inputs = [self.values[value] for value in op.inputs]
            self.values[op.output] = self.op(op, inputs, request).astype(self._dtype)
        return self.values

    def op(self, op: Op, inputs: list[np.ndarray], request: ForwardPass) -> np.ndarray:
        """One op on given inputs, float64 or float32 (rows, width)."""
        kind = OPS[op.kind]
        weights = [self._weight(role, name) for role, name in kind.roles(op.weights)]
        of_pass = {"request": request} if kind.of_pass else {}
        made = kind.reference(*inputs, *weights, **op.constants, **of_pass)
        return np.empty((request.rows, 0)) if kind.sum_of(op.weights) is not None else made

    def _weight(self, role: str, name: str) -> Tensor | np.ndarray:
        if role in SUMS:
            return self.gradients[name]
        tensor = self.weights.tensors[name]
        return tensor if role in (MATRIX, TABLE) else tensor.to_float32()

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
