"""Plan -> the steps that the native executor runs: fused, grouped into stages, placed in one arena.

A step is one C op.  Three passes, each of which keeps every bit:

    translate   one or more steps for each op; activations are quantised where a quantised weight reads them
    fuse        linears over the same rows become one step; gate and residual become epilogues
    place       values that live at the same time get different places; an `add` writes over its residual

Steps that treat each row on its own and follow one another run as one stage: no barrier between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fastdistill.models.plan import Op, Plan

ROW_WISE = frozenset(
    {"embed", "rms_norm", "quantize", "add", "silu_mul", "rotary_table", "rotary", "store", "read", "copy"}
)
MOST_PARTS = 3  # weights of one linear step: C's array has as many places


@dataclass(frozen=True)
class Step:
    """One C op.  Values are the plan's numbers, or new ones above them; `codes` are a value's int8 form.

    kind       one of C's fd_op_kind
    inputs     values read
    outputs    values written
    segment    as of `Op`; "positions" for what is made once a pass
    weights    names, of each part: weight, and its bias where there is one
    op         the op of the plan that it comes from, with its constants
    epilogue   what becomes of a linear's outputs: "store", "gated" (the silu of one times the other) or "residual" (added)
    codes_in   the value whose codes it multiplies; None: floats
    codes_out  the value whose codes it writes; None: none
    reads      runs over the rows that are read
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    segment: int | str
    weights: tuple[tuple[str, ...], ...] = ()
    op: Op | None = None
    epilogue: str = "store"
    codes_in: int | None = None
    codes_out: int | None = None
    reads: bool = False


@dataclass
class Program:
    """Steps and where their values lie; sizes in floats a row, for values and for codes.

    steps        in the order of execution
    widths       floats a row, of each value
    places       value -> first float of its place, times max_rows
    code_places  the same of values' codes
    arena_width  floats a row that all places together take
    taps         name -> value that holds a copy
    """

    steps: list[Step]
    widths: list[int]
    places: dict[int, int] = field(default_factory=dict)
    code_places: dict[int, int] = field(default_factory=dict)
    arena_width: int = 0
    taps: dict[str, int] = field(default_factory=dict)

    def stages(self, steps: Iterable[Step]) -> list[int]:
        """How many steps each stage has."""
        counts: list[int] = []
        last: Step | None = None
        for step in steps:
            joins = last is not None and step.kind in ROW_WISE and last.kind in ROW_WISE and step.reads == last.reads
            if joins:
                counts[-1] += 1
            else:
                counts.append(1)
            last = step
        return counts


def lower(
    plan: Plan, quantised: Mapping[str, bool], taps: Iterable[str] = (), *, fuse: bool = True, keep: bool = False
) -> Program:
    """The steps of a plan.

    quantised  whether each weight is held in q8 or q4
    taps       names of values to expose
    fuse       False leaves every op a step of its own
    keep       True gives every value a place of its own, so that all can be looked at afterwards
    """
    program = _translate(plan, quantised, taps, fuse)
    if fuse:
        _fuse(program)
    _place(program, plan, keep)
    return program


def _translate(plan: Plan, quantised: Mapping[str, bool], taps: Iterable[str], fuse: bool) -> Program:
    widths = list(plan.widths)
    steps: list[Step] = []
    tapped: dict[int, list[str]] = {}
    for name in taps:
        tapped.setdefault(plan.taps[name], []).append(name)
    program = Program(steps, widths)
    read_values: set[int] = set()
    needs_codes = {op.inputs[0] for op in plan.ops if op.kind in ("linear", "head") and quantised[op.weights[0]]}
    tables: dict[int, tuple[int, int]] = {}

    def new_value(width: int) -> int:
        widths.append(width)
        return len(widths) - 1

    def table(op: Op) -> tuple[int, int]:
        """Cosines and sines of the positions: once for each set of frequencies, before the first layer."""
        frequencies = op.constants["inverse_frequencies"]
        if id(frequencies) not in tables:
            cosine, sine = new_value(len(frequencies)), new_value(len(frequencies))
            tables[id(frequencies)] = cosine, sine
            steps.insert(0, Step("rotary_table", (), (cosine, sine), "positions", op=op))
        return tables[id(frequencies)]

    for op in plan.ops:
        reads = op.kind == "read" or any(value in read_values for value in op.inputs)
        if reads:
            read_values.add(op.output)
        step = Step(op.kind, op.inputs, (op.output,), op.segment, op=op, reads=reads)
        if op.kind == "embedding":
            steps.append(replace(step, kind="embed", weights=(op.weights,)))
        elif op.kind == "rms_norm":
            steps.append(
                replace(step, weights=(op.weights,), codes_out=op.output if fuse and op.output in needs_codes else None)
            )
        elif op.kind in ("linear", "head"):
            codes = op.inputs[0] if quantised[op.weights[0]] else None
            steps.append(replace(step, weights=(op.weights,), codes_in=codes))
            if op.kind == "head":
                steps.append(replace(steps[-1], kind="head_merge", outputs=()))
        elif op.kind == "rotary":
            steps.append(replace(step, inputs=(*op.inputs, *table(op))))
        elif op.kind == "attention":
            q, k, v = op.inputs
            steps.append(Step("store", (k, v), (), op.segment, op=op))
            steps.append(Step("attend", (q,), (op.output,), op.segment, op=op))
            steps.append(Step("attend_merge", (q,), (op.output,), op.segment, op=op))
        else:
            steps.append(step)
        if op.output in needs_codes and not (fuse and op.kind == "rms_norm"):
            steps.append(Step("quantize", (op.output,), (), op.segment, codes_out=op.output, reads=reads))
        for name in tapped.get(op.output, ()):
            copy = new_value(widths[op.output])
            steps.append(Step("copy", (op.output,), (copy,), op.segment, reads=reads))
            program.taps[name] = copy
    return program


def _fuse(program: Program) -> None:
    uses: dict[int, int] = {}
    for step in program.steps:
        for value in step.inputs:
            uses[value] = uses.get(value, 0) + 1
    fused: list[Step] = []
    for step in program.steps:
        joined = _joined(fused[-1], step, uses) if fused else None
        if joined is None:
            fused.append(step)
        else:
            fused[-1] = joined
    program.steps[:] = fused


def _joined(last: Step, step: Step, uses: Mapping[int, int]) -> Step | None:
    """One step for a linear and what follows it, or None where they stay two."""
    if last.kind != "linear" or last.epilogue != "store":
        return None
    if step.kind == "linear" and step.inputs == last.inputs and len(last.outputs) < MOST_PARTS:
        codes = last.codes_in if last.codes_in is not None else step.codes_in
        return replace(last, outputs=last.outputs + step.outputs, weights=last.weights + step.weights, codes_in=codes)
    if step.kind == "silu_mul" and last.outputs == step.inputs and all(uses[value] == 1 for value in step.inputs):
        return replace(last, outputs=step.outputs, epilogue="gated")
    if step.kind == "add" and last.outputs == step.inputs[1:] and uses[step.inputs[1]] == 1:
        return replace(last, inputs=(*last.inputs, step.inputs[0]), outputs=step.outputs, epilogue="residual")
    return None


def _stride(width: int) -> int:
    return -(-width // 32) * 32


def code_floats(width: int) -> int:
    """Floats a row that the int8 form of `width` floats takes: codes, and a scale, a sum and a total a block."""
    blocks = _stride(width) // 32
    return _stride(8 * blocks + 3 * blocks)


def _place(program: Program, plan: Plan, keep: bool) -> None:
    """First fit by lifetime, in units of whole rows, so that a place's first float is its number times max_rows.

    A lifetime counts stages, not steps: within a stage one row may be steps ahead of another.
    """
    last_use: dict[tuple[str, int], int] = {}
    stage_of = [stage for stage, count in enumerate(program.stages(program.steps)) for _ in range(count)]
    for number, step in zip(stage_of, program.steps, strict=True):
        for value in (*step.inputs, *step.outputs):
            last_use["value", value] = number
        for coded in (step.codes_in, step.codes_out):
            if coded is not None:
                last_use["codes", coded] = number
    forever = len(program.steps)
    for value in (*program.taps.values(), plan.hidden, plan.boundaries[-1]):
        last_use["value", value] = forever
    for step in program.steps:
        if step.segment == "positions":
            last_use.update({("value", value): forever for value in step.outputs})

    taken: list[tuple[int, int, tuple[str, int]]] = []  # (begin, end, owner), ascending
    where: dict[tuple[str, int], int] = {}

    def claim(owner: tuple[str, int], size: int, number: int) -> None:
        if owner in where:
            return
        if not keep:
            taken[:] = [entry for entry in taken if last_use[entry[2]] >= number]
        begin = 0
        for other_begin, other_end, _ in taken:
            if begin + size <= other_begin:
                break
            begin = max(begin, other_end)
        where[owner] = begin
        taken.append((begin, begin + size, owner))
        taken.sort()
        program.arena_width = max(program.arena_width, begin + size)

    for number, step in zip(stage_of, program.steps, strict=True):
        residual = step.inputs[-1] if step.epilogue == "residual" else step.inputs[0] if step.kind == "add" else None
        if residual is not None and not keep and last_use["value", residual] == number:
            (output,) = step.outputs  # written over the residual, element by element
            where["value", output] = where["value", residual]
            taken[:] = sorted(
                (begin, end, ("value", output) if owner == ("value", residual) else owner)
                for begin, end, owner in taken
            )
        for value in step.outputs:
            if step.kind != "head":
                claim(("value", value), _stride(program.widths[value]), number)
        if step.codes_out is not None:
            claim(("codes", step.codes_out), code_floats(program.widths[step.codes_out]), number)
    program.places = {value: place for (kind, value), place in where.items() if kind == "value"}
    program.code_places = {value: place for (kind, value), place in where.items() if kind == "codes"}
    if not keep:  # layers can be left and entered: the stream between them lies in one place
        assert len({program.places[value] for value in plan.boundaries}) == 1
