"""Plan -> the steps that the native executor runs: fused, grouped into stages, placed in one arena.

A step is one C op. Three passes, each of which keeps every bit:

- translate: one or more steps for each op; activations are quantised where a quantised weight reads them
- fuse: linears over the same rows become one step; gate and residual become epilogues
- place: values that live at the same time get different places; an `add` writes over its residual

Steps that treat each row on its own and follow one another run as one stage: no barrier between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fastdistill.errors import UnsupportedError
from fastdistill.models.plan import ENTER, EXIT, Op, Plan
from fastdistill.ops import OPS, StepKind

POSITIONS = "positions"  # the segment of what is made once a pass, before all others
QUANTIZE, COPY = StepKind("quantize", row_wise=True), StepKind("copy", row_wise=True)
_OF_OPS = [step for kind in OPS.values() for step in (*kind.steps, *((kind.table.step,) if kind.table else ()))]
STEPS = {step.name: step for step in (QUANTIZE, COPY, *_OF_OPS)}


@dataclass(frozen=True)
class Step:
    """One C op. Values are the plan's numbers, or new ones above them; `codes` are a value's int8 form.

    Attributes
    ----------
    kind : str
        one of STEPS
    inputs : tuple[int, ...]
        values read
    outputs : tuple[int, ...]
        values written
    segment : str
        as of `Op`, or POSITIONS
    weights : tuple[tuple[str, ...], ...]
        names, of each part: weight, and its bias where there is one
    op : Op | None
        the op of the plan that it comes from, with its constants
    epilogue : str
        in C's enum fd_epilogue: what becomes of a linear's outputs; the values that it needs beside them are the last
        inputs
    then : Op | None
        the op that has become its epilogue, with its constants
    over : int | None
        the input that the one output may be written over, element by element; None: none
    codes_in : int | None
        the value whose codes it multiplies; None: floats
    codes_out : int | None
        the value whose codes it writes; None: none
    reads : bool
        runs over the rows that are read
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    segment: str
    weights: tuple[tuple[str, ...], ...] = ()
    op: Op | None = None
    epilogue: str = "FD_STORE_ONLY"
    then: Op | None = None
    over: int | None = None
    codes_in: int | None = None
    codes_out: int | None = None
    reads: bool = False


@dataclass
class Program:
    """Steps and where their values lie; sizes in floats a row, for values and for codes.

    Attributes
    ----------
    steps : list[Step]
        in the order of execution
    widths : list[int]
        floats a row, of each value
    places : dict[int, int]
        value -> first float of its place, times the arena's rows
    code_places : dict[int, int]
        the same of values' codes
    arena_width : int
        floats a row that all places together take
    taps : dict[str, int]
        name -> value that holds a copy
    """

    steps: list[Step]
    widths: list[int]
    places: dict[int, int] = field(default_factory=dict)
    code_places: dict[int, int] = field(default_factory=dict)
    arena_width: int = 0
    taps: dict[str, int] = field(default_factory=dict)

    def part(self, plan: Plan, first: int, end: int, others: tuple[str, ...] = ()) -> list[Step]:
        """The steps of layers [first, end), or of other segments, as `Plan.part` has the ops."""
        segments = {POSITIONS, *others} if others else {POSITIONS, EXIT, *plan.layers[first:end]}
        segments |= {ENTER} if first == 0 and not others else set()
        leaving, left = plan.boundaries[-1], plan.boundaries[end]
        return [
            replace(step, inputs=tuple(left if value == leaving else value for value in step.inputs))
            if step.segment == EXIT and left != leaving
            else step
            for step in self.steps
            if step.segment in segments
        ]

    def stages(self, steps: Iterable[Step]) -> list[int]:
        """How many steps each stage has."""
        counts: list[int] = []
        last: Step | None = None
        for step in steps:
            if last is not None and _share_a_stage(last, step):
                counts[-1] += 1
            else:
                counts.append(1)
            last = step
        return counts


def _share_a_stage(last: Step, step: Step) -> bool:
    """Two row-wise steps over the same rows; EXIT follows any layer, and lifetimes know of the last one alone."""
    follows = step.segment == last.segment or step.segment != EXIT
    return STEPS[last.kind].row_wise and STEPS[step.kind].row_wise and step.reads == last.reads and follows


def lower(
    plan: Plan, quantised: Mapping[str, bool], taps: Iterable[str] = (), *, fuse: bool = True, keep: bool = False
) -> Program:
    """The steps of a plan.

    Parameters
    ----------
    plan : Plan
    quantised : Mapping[str, bool]
        whether each weight is held in q8 or q4
    taps : Iterable[str], default ()
        names of values to expose
    fuse : bool, default True
        False leaves every op a step of its own
    keep : bool, default False
        True gives every value a place of its own, so that all can be looked at afterwards
    """
    program = _translate(plan, quantised, taps, fuse)
    if fuse:
        _fuse(program, plan)
    _place(program, plan, keep)
    return program


def _translate(plan: Plan, quantised: Mapping[str, bool], taps: Iterable[str], fuse: bool) -> Program:
    program = Program([], list(plan.widths))
    steps, widths = program.steps, program.widths
    tapped: dict[int, list[str]] = {}
    for name in taps:
        tapped.setdefault(plan.taps[name], []).append(name)
    # A value's codes are made where it is made; what comes from another segment is quantised in each that wants its codes.
    wanted = {(op.segment, op.inputs[0]) for op in plan.ops if _reads_codes(op, quantised)}
    tables: dict[tuple[str, int], tuple[int, ...]] = {}

    def new_value(width: int) -> int:
        widths.append(width)
        return len(widths) - 1

    def table(op: Op) -> tuple[int, ...]:
        """The values of the op's table, made before the first layer."""
        made = OPS[op.kind].table
        if made is None:
            return ()
        key = made.step.name, id(op.constants[made.constant])
        if key not in tables:
            tables[key] = tuple(map(new_value, made.widths(op.constants)))
            steps.insert(0, Step(made.step.name, (), tables[key], POSITIONS, op=op))
        return tables[key]

    for op in plan.ops:
        kind = OPS[op.kind]
        reads = op.output in plan.read_values
        codes_in = op.inputs[0] if _reads_codes(op, quantised) else None
        if codes_in is not None and (op.segment, codes_in) in wanted:
            wanted.remove((op.segment, codes_in))
            steps.append(
                Step("quantize", (codes_in,), (), op.segment, codes_out=codes_in, reads=codes_in in plan.read_values)
            )
        codes_out = op.output if (op.segment, op.output) in wanted else None
        wanted.discard((op.segment, op.output))
        made_by_it = codes_out if fuse and kind.quantises else None
        for step in kind.steps:
            if step.inputs is not None and max(step.inputs) >= len(op.inputs):
                continue
            steps.append(
                Step(
                    step.name,
                    (op.inputs if step.inputs is None else tuple(op.inputs[i] for i in step.inputs)) + table(op),
                    (op.output,) if step.writes else (),
                    op.segment,
                    weights=(op.weights,) if op.weights else (),
                    op=op,
                    over=None if kind.writes_over is None else op.inputs[kind.writes_over],
                    codes_in=codes_in,
                    codes_out=made_by_it,
                    reads=reads,
                )
            )
        if codes_out is not None and made_by_it is None:
            steps.append(Step("quantize", (op.output,), (), op.segment, codes_out=op.output, reads=reads))
        for name in tapped.get(op.output, ()):
            copy = new_value(widths[op.output])
            steps.append(Step("copy", (op.output,), (copy,), op.segment, reads=reads))
            program.taps[name] = copy
    return program


def _reads_codes(op: Op, quantised: Mapping[str, bool]) -> bool:
    """Whether the matrices that its first input is multiplied by are quantised, so that it has to be, too."""
    found = {quantised[name] for name in OPS[op.kind].matrices(op.weights)}
    if len(found) > 1:
        raise UnsupportedError(
            f"{op.kind} ({op.segment}): some of its matrices are q8 or q4 and some are not; expected all, or none"
        )
    return found == {True}


def _fuse(program: Program, plan: Plan) -> None:
    uses = dict.fromkeys((*plan.outputs.values(), *plan.boundaries), 1)
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
    if not STEPS[last.kind].joins or last.epilogue != "FD_STORE_ONLY" or last.segment != step.segment:
        return None
    if step.kind == last.kind and step.inputs == last.inputs:
        codes = last.codes_in if last.codes_in is not None else step.codes_in
        return replace(last, outputs=last.outputs + step.outputs, weights=last.weights + step.weights, codes_in=codes)
    epilogue, count = (step.op is not None and OPS[step.op.kind].epilogue) or ("", 0)
    if count == len(last.outputs) and step.inputs[-count:] == last.outputs and all(uses[x] == 1 for x in last.outputs):
        beside = step.inputs[:-count]
        inputs = last.inputs + beside
        return replace(last, inputs=inputs, outputs=step.outputs, epilogue=epilogue, then=step.op, over=step.over)
    return None


def _stride(width: int) -> int:
    return -(-width // 32) * 32


def code_floats(width: int) -> int:
    """Floats a row that the int8 form of `width` floats takes: codes, and a scale, a sum and a total a block."""
    blocks = _stride(width) // 32
    return _stride(8 * blocks + 3 * blocks)


def _place(program: Program, plan: Plan, keep: bool) -> None:
    """First fit by lifetime, in units of whole rows, so that a place's first float is its number times the arena's rows.

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
    for value in (*program.taps.values(), *plan.outputs.values(), plan.boundaries[-1]):
        last_use["value", value] = forever
    for step in program.steps:
        if step.segment == POSITIONS:
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

    last_reader = {value: index for index, step in enumerate(program.steps) for value in step.inputs}
    exits = False
    for index, (number, step) in enumerate(zip(stage_of, program.steps, strict=True)):
        if (
            step.segment == EXIT and not exits
        ):  # any layer may be the last that runs: what leaves it is read here, and given
            exits = True
            for value in plan.boundaries:
                last_use["value", value] = forever
                begin = where["value", value]
                taken.append((begin, begin + _stride(program.widths[value]), ("value", value)))
            taken.sort()
        done = step.over is not None and last_use["value", step.over] == number and last_reader[step.over] == index
        if step.over is not None and done and not keep:  # no later step, of this stage either, reads it
            (output,) = step.outputs  # written over it, element by element
            where["value", output] = where["value", step.over]
            taken[:] = sorted(
                (begin, end, ("value", output) if owner == ("value", step.over) else owner)
                for begin, end, owner in taken
            )
        for value in step.outputs:
            claim(("value", value), _stride(program.widths[value]), number)
        if step.codes_out is not None:
            claim(("codes", step.codes_out), code_floats(program.widths[step.codes_out]), number)
    program.places = {value: place for (kind, value), place in where.items() if kind == "value"}
    program.code_places = {value: place for (kind, value), place in where.items() if kind == "codes"}
