"""The native executor: a lowered plan, an arena, one C call a forward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from fastdistill.arguments import check_integer, check_integers
from fastdistill.errors import CapacityError, NotFiniteError
from fastdistill.kernels.boundary import const, ffi, lib, mapped_bytes, pointer
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.kernels.isa import refuse_layout
from fastdistill.kernels.threads import ThreadsByRows
from fastdistill.models.plan import Op, Plan
from fastdistill.ops import MATRIX, MATRIX_SUM, OPS, OWN, TABLE, VECTOR, VECTOR_SUM
from fastdistill.runtime.forward_pass import ForwardPass, KeySet, Outcome
from fastdistill.runtime.kv_cache import numbers
from fastdistill.runtime.lowering import Program, Step, lower
from fastdistill.runtime.packing import QUANTISED, PackedWeights
from fastdistill.runtime.profile import Outline, active_profile, outline

_OP_FIELDS = dict(ffi.typeof("struct fd_op").fields)


@dataclass(frozen=True)
class Part:
    """Some segments of a program, ready to run.

    Attributes
    ----------
    steps : list[Step]
        as lowered
    ops : Any
        struct fd_op[], one a step
    held : Any
        what `ops` points to
    stages : Any
        int64_t[]: stage s is ops stages[s] .. stages[s + 1]
    count : int
        stages
    given : dict[str, int]
        the plan's outputs but the logits, by name: values
    taps : dict[str, int]
        by name: values
    """

    steps: list[Step]
    ops: Any
    held: Any
    stages: Any
    count: int
    given: dict[str, int]
    taps: dict[str, int]


class Inbox:
    """Memory of one's own that small arrays are copied into: C's pointers to it are made once, not a pass."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[np.ndarray, Any]] = {}

    def put(self, name: str, array: np.ndarray) -> Any:
        """A pointer to a copy of the array, which holds until the next one of this name."""
        place = self._places.get(name)
        if place is None or place[0].size < array.size:
            room = np.empty(max(64, 2 * array.size), array.dtype)
            place = self._places[name] = room, pointer(room)
        place[0][: array.size] = array.ravel()
        return place[1]

    def held(self, name: str, size: int) -> np.ndarray:
        """The numbers of the array that came last under this name, flat, to be changed."""
        return self._places[name][0][:size]


class NativeExecutor:
    """Runs passes of at most `max_rows` rows; everything it needs is allocated here.

    Raises
    ------
    CapacityError
        where memory lacks
    """

    def __init__(
        self,
        plan: Plan,
        weights: PackedWeights,
        max_rows: int,
        threads: int | ThreadsByRows,
        taps: Iterable[str] = (),
        *,
        fuse: bool = True,
        keep: bool = False,
    ) -> None:
        self.plan, self.max_rows = plan, max_rows
        self._threads_of = threads if isinstance(threads, ThreadsByRows) else ThreadsByRows(threads)
        self._arena_rows = -(-max_rows // lib.FD_GROUP) * lib.FD_GROUP
        self._weights = weights
        quantised = {name: format in QUANTISED for name, format in weights.formats.items()}
        self.program: Program = lower(plan, quantised, taps, fuse=fuse, keep=keep)
        logits_width = plan.vocab_size if "logits" in plan.outputs else 0
        floats = {
            "values": self._arena_rows * self.program.arena_width,
            "statistics": max_rows * lib.fd_statistics_floats(logits_width),
        }
        try:
            self._arena = mapped_bytes(4 * floats["values"], huge=False).view(np.float32)
            self._partial_statistics = np.empty(floats["statistics"], np.float32)
        except MemoryError:
            raise _no_memory(max_rows, floats) from None
        # Row statistics, a row each, so that one copy takes them all; the first holds int32.
        self._statistics = np.empty((len(RowStatistics._fields), max_rows), np.float32)
        self._log_probs = np.empty(max_rows, np.float32)
        self._drawn = np.empty(max_rows, np.int32)
        self._where = ffi.new("int64_t[2]")
        self._pass = ffi.new("struct fd_pass *")
        self._pass.partial_statistics = pointer(self._partial_statistics)
        self._partial_attention = np.empty(0, np.float32)
        self._inbox, self._rare = Inbox(), False  # whether the last pass had arrays that most have not
        self._pass.wanted_log_prob = pointer(self._log_probs)
        self._pass.drawn = pointer(self._drawn)
        self._keys = self._pass.keys = ffi.new("struct fd_keys[]", len(plan.key_sets))
        self._key_sets = list(zip(self._keys, plan.key_sets, strict=True))
        for name, field in zip(RowStatistics._fields, self._statistics, strict=True):
            setattr(self._pass, name, pointer(field.view(np.int32) if name == "argmax" else field))
        self._parts: dict[tuple[int, int, tuple[str, ...]], Part] = {}
        self._outlines: dict[int, Outline] = {}  # by the part's id

    @property
    def nbytes(self) -> int:
        """Bytes of the arena and the buffers beside it; pages are only taken when used."""
        return self._arena.nbytes + self._partial_attention.nbytes + self._partial_statistics.nbytes

    def run(self, request: ForwardPass) -> Outcome:
        """Run one pass.

        Raises
        ------
        NotFiniteError
            naming the op and the row that met a NaN or an infinity
        IsaError
            where the selected level reads weights of another layout
        UnsupportedError
        ArgumentError
        """
        request.check_for(self.plan)
        first, end = request.first_layer, request.end_layer
        part = self._last = self._part(first, end, request.segments)
        if request.stream is not None:
            stream = self._view(self.plan.boundaries[first], request.rows)
            stream[:, : self.plan.hidden_size] = request.stream
            stream[:, self.plan.hidden_size :] = 0
        try:
            logits = (
                np.empty((len(request.read_rows), self.plan.vocab_size), np.float32) if request.want_logits else None
            )
            held = self._fill(request, logits)
        except MemoryError:
            floats = {"logits": len(request.read_rows) * self.plan.vocab_size}
            raise _no_memory(request.rows, floats) from None
        profile = active_profile()
        clock = None if profile is None else np.empty(part.count + 1, np.int64)
        status = self._forward(part, clock)
        del held
        if status == lib.FD_OTHER_LAYOUT:
            refuse_layout(self._weights.layout)
        if status != lib.FD_OK:
            step, row = part.steps[self._where[0]], self._where[1]
            raise NotFiniteError(f"{step.kind} ({step.segment}) met a NaN or an infinity in row {row}")
        if profile is not None and clock is not None:
            profile.add(self._outline(part), request, clock, self._threads_of(request.rows))
        if request.then is not None:
            return self._rounds(request, part)
        if request.ahead:
            return self._go_on(request, part)
        reads = len(request.read_rows)
        scored = reads if "logits" in self.plan.outputs else 0
        return Outcome(
            statistics=self._statistics[:, :scored],
            log_probs=self._log_probs[:reads] if request.wanted_tokens is not None else None,
            logits=logits,
            outputs=self._values(part.given, request) if request.want_outputs else {},
            stream=self.value(self.plan.boundaries[end], 0 if request.segments else request.rows),
            drawn=self._drawn[:reads] if request.draws is not None else None,
            taps=self._values(part.taps, request) if part.taps else {},
        )

    @property
    def statistics(self) -> np.ndarray:
        """float32 (fields,): of the last pass's first row, until the next; the first is int32."""
        return self._statistics[:, 0]

    def again(self, *tokens: int) -> np.ndarray:
        """Run the last pass once more, of one row without keys, with other tokens and what its `inputs` now hold: statistics of that row.

        Raises
        ------
        NotFiniteError
        """
        for column, token in enumerate(tokens):
            self._pass.tokens[column] = token
        part = self._last
        status = self._forward(part, None)
        if status != lib.FD_OK:
            raise NotFiniteError(f"{part.steps[self._where[0]].kind} met a NaN or an infinity")
        return self.statistics

    def _forward(self, part: Part, clock: np.ndarray | None) -> int:
        """Run the pass as it is laid out: its status."""
        threads = self._threads_of(self._pass.rows)
        status: int = lib.fd_forward(
            part.ops, part.stages, part.count, self._pass, threads, self._where, pointer(clock)
        )
        return status

    def _go_on(self, request: ForwardPass, part: Part) -> Outcome:
        """From a pass of one row on: pass after pass of the token drawn, where the row's own arrays lie.

        A pass that fails is left to whoever runs it by itself.
        """
        p, draws = self._pass, request.draws
        drawn = self._statistics[0].view(np.int32) if draws is None else self._drawn
        found, tokens = self._statistics[:, :1].copy(), [int(drawn[0])]
        profile = active_profile()
        clock = None if profile is None else np.empty(part.count + 1, np.int64)
        statistics, shown = [found], self._values(part.taps, request)
        taps = {name: [array.copy()] for name, array in shown.items()}
        while len(tokens) <= request.ahead and tokens[-1] not in request.until:
            p.tokens[0] = tokens[-1]
            p.positions[0] += 1
            for struct, name in self._key_sets:
                if name in self.plan.windows:
                    struct.slots[0] += 1
                    struct.runs[1] += 1
                    struct.key_counts[0] += 1
                    struct.most_keys += 1
            if draws is not None:
                draws["reached"] = 0
            status = self._forward(part, clock)
            if status != lib.FD_OK:
                break
            if profile is not None and clock is not None:
                for name in self.plan.windows:
                    if (keys := request.keys(name)) is not None:
                        keys.runs = keys.runs + np.array([0, 1], np.int32)
                profile.add(self._outline(part), request, clock, self._threads_of(1))
            statistics.append(self._statistics[:, :1].copy())
            for name, array in shown.items():
                taps[name].append(array.copy())
            tokens.append(int(drawn[0]))
        return Outcome(
            statistics=np.concatenate(statistics, axis=1),
            log_probs=None,
            logits=None,
            outputs={},
            stream=self.value(self.plan.boundaries[request.end_layer], 1),
            drawn=None if draws is None else np.array(tokens, np.int32),
            taps={name: np.concatenate(arrays) for name, arrays in taps.items()},
        )

    def _rounds(self, request: ForwardPass, part: Part) -> Outcome:
        """From a chain on: pass after pass of the rows that `then` names, behind those that stay.

        A pass that fails is left to whoever runs it by itself.
        """
        then, draws = request.then, request.draws
        read = {"hidden": self.plan.outputs["hidden"]} if request.want_outputs else {}
        shown = {name: self.value(number, self.max_rows) for name, number in (part.taps | read).items()}
        drawn = self._statistics[0].view(np.int32) if draws is None else self._drawn
        tokens, stay, base = request.tokens, list[np.ndarray](), 0
        assert then is not None and tokens is not None
        end, profile = request.rows + request.ahead, active_profile()
        clock = None if profile is None else np.empty(part.count + 1, np.int64)
        chain: _Chain | None = None
        while True:
            if (
                answer := then(drawn[: len(tokens)], {name: array[: len(tokens)] for name, array in shown.items()})
            ) is None:
                break
            kept = check_integer("then's rows that stay", answer[0], 0, len(tokens))
            following = check_integers("then's tokens", answer[1], 0, self.plan.vocab_size - 1, empty=True)
            stay.append(tokens[:kept])
            base += kept
            tokens = following[:0]
            if not 0 < len(following) <= min(end - base, self.max_rows):
                break
            chain = chain or _Chain(self, request, min(end, self.max_rows))
            chain.place(base, following)
            status = self._forward(part, clock)
            if status != lib.FD_OK:
                break
            if profile is not None and clock is not None:
                profile.add(
                    self._outline(part),
                    _behind(request, base, following, self.plan),
                    clock,
                    self._threads_of(len(following)),
                )
            tokens = following
        count = len(tokens)
        return Outcome(
            statistics=self._statistics[:, :count],
            log_probs=None,
            logits=None,
            outputs={name: shown[name][:count] for name in read},
            stream=self.value(self.plan.boundaries[request.end_layer], count),
            drawn=None if draws is None else self._drawn[:count],
            taps={name: shown[name][:count] for name in part.taps},
            went_on=np.concatenate([*stay, tokens]),
        )

    def value(self, number: int, rows: int) -> np.ndarray:
        """A value of the last pass, float32 (rows, width); meaningful where `keep` gave it a place of its own."""
        return self._view(number, rows)[:, : self.program.widths[number]]

    def _values(self, numbers: dict[str, int], request: ForwardPass) -> dict[str, np.ndarray]:
        of_reads, reads = self.plan.read_values, len(request.read_rows)
        return {
            name: self.value(number, reads if number in of_reads else request.rows) for name, number in numbers.items()
        }

    def _fill(self, request: ForwardPass, logits: np.ndarray | None) -> list[Any]:
        """Point the C struct at the request's arrays; what must outlive the call is returned."""
        p, held, most_keys = self._pass, list[Any](), 0
        p.rows, p.reads = request.rows, len(request.read_rows)
        p.tokens = ffi.NULL if request.tokens is None else self._inbox.put("tokens", request.tokens)
        p.positions = self._inbox.put("positions", request.positions)
        p.sequences = self._inbox.put("sequences", request.sequences)
        p.read_rows = self._inbox.put("read_rows", request.read_rows)
        for struct, name in self._key_sets:
            keys = request.keys(name)
            if keys is None:
                continue
            key_counts = keys.key_counts
            most_keys = max(most_keys, most := int(key_counts[0] if len(key_counts) == 1 else key_counts.max()))
            struct.slots = self._inbox.put(f"slots of {name}", keys.slots)
            struct.nodes = self._inbox.put(f"nodes of {name}", keys.nodes)
            struct.runs = self._inbox.put(f"runs of {name}", keys.runs)
            struct.run_offsets = self._inbox.put(f"run_offsets of {name}", keys.run_offsets)
            struct.key_counts = self._inbox.put(f"key_counts of {name}", key_counts)
            struct.most_keys = most
            if len(keys.caches) == 1:
                struct.caches = keys.caches[0].struct
            else:
                struct.caches = caches = ffi.new("struct fd_cache[]", [cache.struct[0] for cache in keys.caches])
                held.append(caches)
        tiles = lib.fd_attention_tiles(most_keys + request.ahead)
        if tiles > p.split_tiles:
            tiles = 1 << (tiles - 1).bit_length()
            floats = max((lib.fd_attention_floats(*shape, tiles) for shape in self.plan.attention_shapes), default=0)
            self._partial_attention = np.empty(floats, np.float32)
            p.split_tiles, p.partial_attention = tiles, pointer(self._partial_attention)
        rare = request.inputs, request.wanted_tokens, request.banned, request.bans, request.draws, logits
        some = any(array is not None for array in rare)
        if some or self._rare:  # else they are NULL already
            p.inputs, p.wanted_tokens, p.banned, p.bans = map(const, rare[:4])
            p.draws, p.logits = map(pointer, rare[4:])
            self._rare = some
        return held

    def _part(self, first: int, end: int, segments: tuple[str, ...]) -> Part:
        """What runs of the program: layers [first, end) with what belongs to them, or other segments."""
        key = first, end, segments
        if key not in self._parts:
            steps = self.program.part(self.plan, first, end, segments)
            counts = self.program.stages(steps)
            ops, held = self._ops(steps)
            written = {value for step in steps for value in step.outputs}
            written |= set() if segments else {self.plan.boundaries[end]}
            given, taps = (
                {name: value for name, value in numbers.items() if value in written}
                for numbers in (self.plan.given(end), self.program.taps)
            )
            stages = ffi.new("int64_t[]", [0, *accumulate(counts)])
            self._parts[key] = Part(steps, ops, held, stages, len(counts), given, taps)
        return self._parts[key]

    def _outline(self, part: Part) -> Outline:
        if id(part) not in self._outlines:
            self._outlines[id(part)] = outline(part.steps, self.program.stages(part.steps), self._weights)
        return self._outlines[id(part)]

    def _ops(self, steps: list[Step]) -> tuple[Any, Any]:
        """struct fd_op[] of the steps, and the pointers that they point to: one array, an op's together, for they are read together."""
        ops, lists = ffi.new("struct fd_op[]", len(steps)), [self._pointers(step) for step in steps]
        held = ffi.new("void *[]", [one for four in lists for some in four for one in some])
        at = held + 0
        for op, step, four in zip(ops, steps, lists, strict=True):
            self._op(op, step)
            op.inputs, op.outputs, op.parts, vectors = map(len, four)
            for field, some in zip(("in", "out", "weights", "vectors"), four, strict=True):
                if field != "vectors" or vectors:
                    setattr(op, field, ffi.cast(_OP_FIELDS[field].type, at))
                at += len(some)
        return ops, held

    def _pointers(self, step: Step) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        """What a step's struct points to: inputs, outputs, matrices, vectors."""
        matrices, vectors = [], []
        if step.op is not None:
            kind = OPS[step.op.kind]
            for role, name in (pair for names in step.weights for pair in kind.roles(names)):
                if role in (MATRIX, TABLE):
                    matrices.append(self._weights.matrix(name).struct)
                elif role == VECTOR:
                    vectors.append(const(self._weights.vector(name)))
                elif role == MATRIX_SUM:
                    matrices.append(self._weights.matrix_gradient(name))
                elif role == VECTOR_SUM:
                    vectors.append(const(self._weights.vector_gradient(name)))
            arrays = [value for name, value in step.op.constants.items() if kind.constants[name] == "vectors"]
            vectors += map(const, arrays)
        inputs, outputs = ([self._pointer(value) for value in values] for values in (step.inputs, step.outputs))
        return inputs, outputs, matrices, vectors

    def _op(self, op: Any, step: Step) -> None:
        """All of a struct but its pointers."""
        op.kind, op.read_rows = getattr(lib, f"FD_OP_{step.kind}"), step.reads
        op.epilogue = getattr(lib, step.epilogue)
        op.width = self.program.widths[(step.inputs or step.outputs)[0]]
        for of in filter(None, (step.op, step.then)):
            fields = OPS[of.kind].constants
            for name, value in of.constants.items():
                if fields[name] not in ("vectors", ""):
                    setattr(op, fields[name], self._number(of, name, value))
        for name, coded in (("codes_in", step.codes_in), ("codes_out", step.codes_out)):
            if coded is not None:
                place = self._arena[self.program.code_places[coded] * self._arena_rows :]
                setattr(op, name, ffi.cast("struct fd_block *", pointer(place)))

    def _number(self, op: Op, name: str, value: Any) -> Any:
        """A constant as C has it: a key set and an activation by their numbers, a layer by where it begins."""
        if name == "activation":
            return getattr(lib, f"FD_{value.upper()}")
        if name == "key_set":
            return [*self.plan.key_sets].index(value)
        if name == "layer":
            return sum(map(numbers, self.plan.key_sets[op.constants.get("key_set", OWN)][:value]))
        return value

    def _view(self, value: int, rows: int) -> np.ndarray:
        stride = -(-self.program.widths[value] // 32) * 32
        start = self.program.places[value] * self._arena_rows
        return self._arena[start : start + rows * stride].reshape(rows, stride)

    def _pointer(self, value: int) -> Any:
        return pointer(self._arena[self.program.places[value] * self._arena_rows :])


class _Chain:
    """Rows of one sequence where C reads them, laid out once: they move on with the text, and any first few of them are a chain too."""

    def __init__(self, executor: NativeExecutor, request: ForwardPass, most: int) -> None:
        """At most `most` rows, the first one where the request's stands."""
        whole = _behind(request, 0, np.zeros(most, np.int32), executor.plan)
        executor._fill(whole, None)
        self._pass, self._draws, self._base = executor._pass, whole.draws, 0
        held = executor._inbox.held
        self._tokens, self._moving = held("tokens", most), [held("positions", most)]
        self._counts = list[tuple[Any, np.ndarray]]()
        for struct, name in executor._key_sets:
            if name in executor.plan.windows and whole.keys(name) is not None:  # a source stays what it is
                counts = held(f"key_counts of {name}", most)
                self._moving += [held(f"slots of {name}", most), held(f"runs of {name}", 2 * most)[1::2], counts]
                self._counts.append((struct, counts))

    def place(self, base: int, tokens: np.ndarray) -> None:
        """These tokens, int32 (n,) of 1 to `most`, `base` rows behind the request's first one."""
        count = len(tokens)
        self._pass.rows = self._pass.reads = count
        self._tokens[:count] = tokens
        for array in self._moving:
            array += base - self._base
        for struct, counts in self._counts:
            struct.most_keys = counts[count - 1]
        if self._draws is not None:
            self._draws["reached"][:count] = 0
        self._base = base


def _behind(request: ForwardPass, base: int, tokens: np.ndarray, plan: Plan) -> ForwardPass:
    """A chain that stands where the request's does, `base` rows on."""
    each = np.arange(len(tokens), dtype=np.int32)
    offsets = np.arange(len(tokens) + 1)

    def moved(name: str, keys: KeySet) -> KeySet:
        if name not in plan.windows:  # a source, of which all rows see all
            return KeySet(np.zeros_like(each), np.zeros_like(each), keys.runs, keys.run_offsets, keys.caches)
        runs = np.stack([np.full_like(each, keys.runs[0, 0]), keys.runs[0, 1] + base + each], axis=1)
        return KeySet(keys.slots[0] + base + each, each, runs, offsets, keys.caches)

    own = moved(OWN, request)
    draws = None if request.draws is None else np.repeat(request.draws[:1], len(tokens))
    if draws is not None:
        draws["reached"] = 0
    bans = None if request.bans is None else np.repeat(request.bans[:1], len(tokens), axis=0)
    return ForwardPass(
        own.slots, own.nodes, own.runs, own.run_offsets, own.caches, tokens, None, request.positions[0] + base + each,
        np.zeros_like(each), each, banned=request.banned, bans=bans, draws=draws, want_outputs=request.want_outputs, end_layer=request.end_layer,
        others=None if request.others is None else {name: moved(name, keys) for name, keys in request.others.items()},
    )  # fmt: skip


def _no_memory(rows: int, floats: Mapping[str, int]) -> CapacityError:
    sizes = ", ".join(f"{name} {4e-6 * size:,.0f} MB" for name, size in floats.items())
    return CapacityError(f"no memory for forwards of {rows} rows ({sizes}); give the session a smaller max_rows")
