"""A plan, and behind it the ops that lead from the gradient of an output back to those of weights: reverse mode, on data.

Every op of the forward has an adjoint (`OpKind.adjoint`): which ops make the gradients by its inputs and weights of the
gradient by its value.  The ops are visited from the last to the first, so that all parts of a gradient are there when
it is wanted.  The result is a plan like any other: what the reverse needs of the forward is kept because it is read
later; with `checkpoint`, a layer's values are made again of what entered it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.messages import listed, short
from fastdistill.models.plan import EXIT, Op, Plan
from fastdistill.ops import OPS

INPUTS = "inputs"  # the gradient by what enters the first layer, or by rows that are given
BY_INPUTS = "gradient by inputs"  # the output that holds it
# The table of tokens comes last: where the head is the same weight, its sums over all rows go first, however rows are
# split over passes.
TABLE = "table of tokens"


_ENTERING = "embedding", "given"


def reverse_of(segment: str) -> str:
    """The segment that goes back through one of the forward."""
    return f"reverse {segment}"


def differentiate(
    plan: Plan, wrt: Iterable[str], output: str = "logits", *, checkpoint: bool = False, over: bool = False
) -> Plan:
    """A plan whose forward leads to one output, and whose reverse leads from its gradient to those of weights.

    The forward runs as before.  Then `reverse_segments` run, over the same rows, with the gradient by the output, a row
    each that is read, as `inputs` of the pass; gradients of weights are added to, each a sum over rows in their order.

    Parameters
    ----------
    plan : Plan
        what is computed
    wrt : Iterable[str]
        names of weights, and INPUTS: then the plan has an output BY_INPUTS (rows, hidden_size)
    output : str, default "logits"
        one of the plan's outputs
    checkpoint : bool, default False
        a layer keeps nothing but what enters it, and is run again when its reverse comes: a third more arithmetic, and
        the memory of one layer in place of all
    over : bool, default False
        the gradient by the output is not given as rows: it has been written over the output, which no adjoint may need

    Raises
    ------
    ArgumentError
        for a name that the plan has not
    UnsupportedError
        for an op without an adjoint, and of a model with an encoder
    """
    if plan.source_positions:
        raise UnsupportedError(f"{plan.architecture} has an encoder: such models are not trained here")
    wrt = frozenset(wrt)
    unknown = wrt - plan.weights.keys() - {INPUTS}
    if unknown or not wrt:
        raise ArgumentError(f"wrt must name weights of the plan, or {INPUTS}, got {listed(sorted(unknown))}")
    if output not in plan.outputs:
        raise ArgumentError(f"output must be one of {listed(plan.outputs)}, got {short(output)}")
    ops = _leading_to(plan.ops, [plan.outputs[output]])
    reverse = _Reverse(replace(plan, ops=ops, outputs={output: plan.outputs[output]}), wrt, checkpoint)
    return reverse.plan(plan.outputs[output], over)


def reverse_segments(plan: Plan) -> tuple[str, ...]:
    """The segments of a differentiated plan that go back, in their order."""
    return tuple(dict.fromkeys(op.segment for op in plan.ops if op.segment.startswith(reverse_of(""))))


def _leading_to(ops: Sequence[Op], values: Collection[int]) -> tuple[Op, ...]:
    """The ops that these values are made of, and those that do more than to make a value."""
    wanted, kept = set(values), []
    for op in reversed(ops):
        if op.output in wanted or op.kind == "store" or OPS[op.kind].sum_of(op.weights) is not None:
            wanted.update(op.inputs)
            kept.append(op)
    return tuple(reversed(kept))


class _Reverse:
    """The reverse of a plan, while it is written down: see `fastdistill.ops.kind.Reverse`."""

    def __init__(self, plan: Plan, wrt: frozenset[str], checkpoint: bool) -> None:
        self._plan, self._wrt, self._checkpoint = plan, wrt, checkpoint
        self._ops, self._widths = [*plan.ops], [*plan.widths]
        self._segment = reverse_of(EXIT)
        self._parts: dict[int, list[int]] = {}  # of the gradient by a value
        self._products: dict[int, list[tuple[int, str]]] = {}  # likewise: (gradient, matrix)
        self._made_again: dict[int, int] = {}  # a value of the layer that is gone through -> the same, made anew
        self._active: set[int] = set()  # values that depend on what is trained
        for op in plan.ops:
            trained = any(name in wrt for name in op.weights) or (op.kind in _ENTERING and INPUTS in wrt)
            if trained or not self._active.isdisjoint(op.inputs):
                self._active.add(op.output)

    def wants(self, value: int) -> bool:
        return value in self._active

    def trains(self, weight: str) -> bool:
        return weight in self._wrt

    def op(self, kind: str, *inputs: int, weights: Sequence[str] = (), **constants: Any) -> int:
        inputs = tuple(self._made_again.get(value, value) for value in inputs)
        known = OPS[kind]
        shapes = [self._plan.weights[name].shape for name in weights]
        self._widths.append(known.width([self._widths[value] for value in inputs], shapes, constants))
        segment = reverse_of(TABLE) if kind == "embedding_gradient" else self._segment
        self._ops.append(Op(kind, inputs, len(self._widths) - 1, tuple(weights), constants, segment))
        return len(self._widths) - 1

    def give(self, value: int, gradient: int) -> None:
        if self.wants(value):
            self._parts.setdefault(value, []).append(gradient)

    def give_product(self, value: int, gradient: int, matrix: str) -> None:
        if self.wants(value):
            self._products.setdefault(value, []).append((gradient, matrix))

    def plan(self, output: int, over: bool) -> Plan:
        """The whole of it, from the gradient by the output on."""
        plan = self._plan
        self.give(output, output if over else self.op("given", width=plan.widths[output]))
        layers = {segment: i for i, segment in enumerate(plan.layers)}
        inputs = None
        for op in reversed(plan.ops):
            if self._segment != reverse_of(op.segment):
                self._segment = reverse_of(op.segment)
                if self._checkpoint and op.segment in layers:
                    self._run_again(op.segment)
            gradient = self._gradient(op.output)
            if gradient is None:
                continue
            if op.kind in _ENTERING:
                inputs = gradient
            adjoint = OPS[op.kind].adjoint
            if adjoint is None:
                raise UnsupportedError(f"{op.kind} ({op.segment}) has no adjoint: its gradient cannot be taken")
            adjoint(self, op, gradient)
        outputs = dict(plan.outputs)
        if INPUTS in self._wrt and inputs is not None:
            outputs[BY_INPUTS] = inputs
        ops = _leading_to(self._ops, [*outputs.values(), *plan.boundaries])
        return replace(plan, ops=ops, widths=tuple(self._widths), outputs=outputs)

    def _gradient(self, value: int) -> int | None:
        """The sum of all parts; None where nothing that is trained has led to the value, or it to the output."""
        products, parts = self._products.pop(value, []), self._parts.pop(value, [])
        if products:
            gradients, matrices = zip(*products, strict=True)
            parts.append(self.op("linear_input_gradient", *gradients, weights=matrices))
        if not parts:
            return None
        total = parts[0]
        for part in parts[1:]:
            total = self.op("add", total, part)
        return total

    def _run_again(self, segment: str) -> None:
        """The layer's ops once more; those that nobody reads are left out in the end."""
        self._made_again = {}
        for op in self._plan.ops:
            if op.segment == segment:
                self._made_again[op.output] = self.op(op.kind, *op.inputs, weights=op.weights, **op.constants)
