"""The native executor: a lowered plan, an arena, one C call a forward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from fastdistill.errors import CapacityError, NotFiniteError
from fastdistill.kernels.boundary import aligned_bytes, const, ffi, lib, pointer
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.kernels.isa import refuse_layout
from fastdistill.models.plan import Plan
from fastdistill.runtime.forward_pass import ForwardPass, Outcome
from fastdistill.runtime.lowering import Program, Step, lower
from fastdistill.runtime.packing import QUANTISED, PackedWeights
from fastdistill.runtime.profile import Outline, active_profile, outline

_EPILOGUES = {"store": lib.FD_STORE_ONLY, "residual": lib.FD_RESIDUAL, "gated": lib.FD_GATED}


class NativeExecutor:
    """Runs passes of at most `max_rows` rows; everything it needs is allocated here.  Raises CapacityError where memory lacks."""

    def __init__(
        self,
        plan: Plan,
        weights: PackedWeights,
        max_rows: int,
        threads: int,
        taps: Iterable[str] = (),
        *,
        fuse: bool = True,
        keep: bool = False,
    ) -> None:
        self.plan, self.max_rows, self.threads = plan, max_rows, threads
        self._weights = weights
        quantised = {name: format in QUANTISED for name, format in weights.formats.items()}
        self.program: Program = lower(plan, quantised, taps, fuse=fuse, keep=keep)
        floats = {
            "values": max_rows * self.program.arena_width,
            "statistics": max_rows * lib.fd_statistics_floats(plan.vocab_size),
        }
        try:
            self._arena = aligned_bytes(4 * floats["values"]).view(np.float32)
            self._partial_statistics = np.empty(floats["statistics"], np.float32)
        except MemoryError:
            raise _no_memory(max_rows, floats) from None
        self._statistics = RowStatistics.empty(max_rows)
        self._log_probs = np.empty(max_rows, np.float32)
        self._drawn = np.empty(max_rows, np.int32)
        self._where = ffi.new("int64_t[2]")
        self._pass = ffi.new("struct fd_pass *")
        self._pass.partial_statistics = pointer(self._partial_statistics)
        self._partial_attention = np.empty(0, np.float32)
        self._pass.wanted_log_prob = pointer(self._log_probs)
        self._pass.drawn = pointer(self._drawn)
        for name, field in zip(RowStatistics._fields, self._statistics, strict=True):
            setattr(self._pass, name, pointer(field))
        self._programs: dict[tuple[int, int], tuple[Any, Any, int, list[Step]]] = {}
        self._outlines: dict[tuple[int, int], Outline] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the arena and the buffers beside it; pages are only taken when used."""
        return self._arena.nbytes + self._partial_attention.nbytes + self._partial_statistics.nbytes

    def run(self, request: ForwardPass) -> Outcome:
        """Run one pass.

        raises  NotFiniteError naming the op and the row that met a NaN or an infinity; IsaError where the selected level reads
                weights of another layout
        """
        first, end = request.first_layer, request.end_layer
        ops, stages, stage_count, steps = self._program(first, end)
        stream = self._view(self.plan.boundaries[first], request.rows)
        if request.stream is not None:
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
        clock = None if profile is None else np.empty(stage_count + 1, np.int64)
        status = lib.fd_forward(ops, stages, stage_count, self._pass, self.threads, self._where, pointer(clock))
        del held
        if status == lib.FD_OTHER_LAYOUT:
            refuse_layout(self._weights.layout)
        if status != lib.FD_OK:
            step, row = steps[self._where[0]], self._where[1]
            at = step.segment if isinstance(step.segment, str) else f"layer {step.segment}"
            raise NotFiniteError(f"{step.kind} ({at}) met a NaN or an infinity in row {row}")
        if profile is not None and clock is not None:
            profile.add(self._outline(first, end), request, clock, self.threads)
        reads = len(request.read_rows)
        taps = {}
        if self.program.taps:
            written = {value for step in steps if step.kind == "copy" for value in step.outputs}
            taps = {
                name: self.value(value, request.rows) for name, value in self.program.taps.items() if value in written
            }
        return Outcome(
            statistics=tuple(field[:reads] for field in self._statistics),
            log_probs=self._log_probs[:reads] if request.wanted_tokens is not None else None,
            logits=logits,
            hidden=self._view(self.plan.hidden, reads)[:, : self.plan.hidden_size] if request.want_hidden else None,
            stream=self._view(self.plan.boundaries[end], request.rows)[:, : self.plan.hidden_size],
            drawn=self._drawn[:reads] if request.draws is not None else None,
            taps=taps,
        )

    def value(self, number: int, rows: int) -> np.ndarray:
        """A value of the last pass, float32 (rows, width); meaningful where `keep` gave it a place of its own."""
        return self._view(number, rows)[:, : self.program.widths[number]]

    def _fill(self, request: ForwardPass, logits: np.ndarray | None) -> list[Any]:
        """Point the C struct at the request's arrays; what must outlive the call is returned."""
        p = self._pass
        caches = ffi.new("struct fd_cache[]", len(request.caches))
        for struct, cache in zip(caches, request.caches, strict=True):
            struct.pages = cache.pages
            struct.is_f32 = cache.dtype == np.float32
        key_counts = request.key_counts
        most_keys = int(key_counts.max())
        tiles = lib.fd_attention_tiles(most_keys)
        if tiles > p.split_tiles:
            tiles = 1 << (tiles - 1).bit_length()
            plan = self.plan
            self._partial_attention = np.empty(
                lib.fd_attention_floats(plan.num_heads, plan.head_dim, tiles), np.float32
            )
            p.split_tiles, p.partial_attention = tiles, pointer(self._partial_attention)
        p.rows, p.reads = request.rows, len(request.read_rows)
        p.caches = caches
        p.tokens, p.inputs = const(request.tokens), const(request.inputs)
        p.positions, p.sequences = const(request.positions), const(request.sequences)
        p.slots, p.nodes = const(request.slots), const(request.nodes)
        p.runs, p.run_offsets = const(request.runs), const(request.run_offsets)
        p.key_counts, p.most_keys = const(key_counts), most_keys
        p.read_rows, p.wanted_tokens = const(request.read_rows), const(request.wanted_tokens)
        p.banned, p.bans = const(request.banned), const(request.bans)
        p.draws = pointer(request.draws)
        p.logits = pointer(logits)
        return [caches, key_counts]

    def _program(self, first: int, end: int) -> tuple[Any, Any, int, list[Step]]:
        """The ops of layers [first, end): the embedding only before layer 0; final norm and head always."""
        if (first, end) not in self._programs:
            segments = {"positions", "exit", *range(first, end)} | ({"enter"} if first == 0 else set())
            steps = [step for step in self.program.steps if step.segment in segments]
            counts = self.program.stages(steps)
            ops = ffi.new("struct fd_op[]", len(steps))
            for op, step in zip(ops, steps, strict=True):
                self._op(op, step)
            self._programs[first, end] = ops, ffi.new("int64_t[]", [0, *accumulate(counts)]), len(counts), steps
        return self._programs[first, end]

    def _outline(self, first: int, end: int) -> Outline:
        if (first, end) not in self._outlines:
            steps = self._program(first, end)[3]
            self._outlines[first, end] = outline(steps, self.program.stages(steps), self._weights)
        return self._outlines[first, end]

    def _op(self, op: Any, step: Step) -> None:
        plan, constants = self.plan, step.op.constants if step.op is not None else {}
        op.kind = getattr(lib, "FD_OP_" + step.kind.upper())
        op.read_rows, op.epilogue, op.parts = step.reads, _EPILOGUES[step.epilogue], len(step.weights)
        op.heads, op.kv_heads = plan.num_heads, plan.num_kv_heads
        op.head_dim = constants.get("head_dim", 0)
        op.width = self.program.widths[step.inputs[0]] if step.inputs else plan.hidden_size
        inputs = [self._pointer(value) for value in step.inputs] + [ffi.NULL] * 3
        op.in1, op.in2, op.in3 = inputs[:3]
        for i, value in enumerate(step.outputs if step.kind != "head" else ()):
            op.out[i] = self._pointer(value)
        if step.kind == "rotary":
            op.heads = op.width // op.head_dim
        elif step.kind == "rotary_table":
            op.vector = const(constants["inverse_frequencies"])
        elif step.kind in ("store", "attend", "attend_merge"):
            op.scalar, op.layer = constants["scale"], constants["layer"]
        elif step.kind == "rms_norm":
            op.scalar, op.vector = constants["epsilon"], const(self._weights.vector(step.weights[0][0]))
        elif step.weights:
            for i, names in enumerate(step.weights):
                op.weights[i] = self._weights.matrix(names[0]).struct
        for struct, coded in ((op.codes_in, step.codes_in), (op.codes_out, step.codes_out)):
            if coded is not None:
                self._codes(struct, coded)

    def _codes(self, struct: Any, value: int) -> None:
        blocks = -(-self.program.widths[value] // 32)
        at = self.program.code_places[value] * self.max_rows
        arena, sizes = self._arena, [8 * blocks, blocks, blocks, blocks]
        starts = at + np.cumsum([0, *sizes[:-1]]) * self.max_rows
        struct.codes, struct.scale, struct.sum, struct.total = (
            pointer(arena[start : start + size * self.max_rows].view(dtype))
            for start, size, dtype in zip(starts, sizes, (np.int8, np.float32, np.float32, np.int32), strict=True)
        )

    def _view(self, value: int, rows: int) -> np.ndarray:
        stride = -(-self.program.widths[value] // 32) * 32
        start = self.program.places[value] * self.max_rows
        return self._arena[start : start + rows * stride].reshape(rows, stride)

    def _pointer(self, value: int) -> Any:
        return pointer(self._arena[self.program.places[value] * self.max_rows :])


def _no_memory(rows: int, floats: Mapping[str, int]) -> CapacityError:
    sizes = ", ".join(f"{name} {4e-6 * size:,.0f} MB" for name, size in floats.items())
    return CapacityError(f"no memory for forwards of {rows} rows ({sizes}); give the session a smaller max_rows")
