"""Forward, loss and reverse over the rows of a batch: what a step of training asks of a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from fastdistill.arguments import check_callable, check_choice, check_instance, check_integer, check_integers
from fastdistill.checkpoint import FORMATS
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.distill.loss import Loss
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.kernels.threads import check_threads
from fastdistill.messages import listed, short
from fastdistill.models.plan import Plan
from fastdistill.ops import OWN
from fastdistill.runtime.forward_pass import POSITION_LIMIT, ForwardPass, KeySet
from fastdistill.runtime.kv_cache import KVCache
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.runtime.network import Network
from fastdistill.runtime.profile import stage
from fastdistill.train.batch import Batch, Objective
from fastdistill.train.differentiate import BY_INPUTS, INPUTS, TABLE, differentiate, reverse_of, reverse_segments
from fastdistill.train.parameters import Parameters, TrainedWeights
from fastdistill.train.parts import ROWS, head_of

HEAD_ROWS = 512  # that the head sees at a time: their logits are most of what it needs of memory


class Engine:
    """A model that is trained: its plan in both directions, and its parameters.

    Gradients have the same bits for any number of threads, on any instruction set, and however the rows of a step are
    split over batches.

    Attributes
    ----------
    plan : Plan
        of the model
    weights : TrainedWeights
        those that are trained, and the others
    parameters : Parameters
        those that are trained
    rows : int
        most of a batch

    Examples
    --------
    >>> from fastdistill.checkpoint import open_checkpoint
    >>> from fastdistill.models import plan_of
    >>> with open_checkpoint(folder) as checkpoint:
    ...     engine = fd.train.Engine(plan_of(checkpoint), checkpoint.tensors, rows=64)
    >>> batch = fd.train.batch_of([np.arange(10, 30, dtype=np.int32)])
    >>> optimiser, losses = fd.train.AdamW(engine.parameters), []
    >>> for step in range(10):
    ...     losses.append(engine.accumulate(batch, fd.train.objective("cross_entropy"), batch.weight))
    ...     engine.finish()
    ...     optimiser.step(0.01)
    >>> losses[-1] < 0.5 * losses[0]
    True
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, Tensor],
        trained: Collection[str] | None = None,
        *,
        format: str | None = None,
        rows: int = 512,
        checkpoint: bool = False,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Pack the weights and reserve memory for batches of at most `rows` rows.

        Parameters
        ----------
        plan : Plan
        tensors : Mapping[str, Tensor]
            by name, those that the plan needs
        trained : Collection[str], optional
            names of weights; None: all. They are held in float32
        format : str, optional
            of linears that are not trained; None keeps what is stored
        rows : int, default 512
            most of a batch
        checkpoint : bool, default False
            keep what enters each layer and nothing else, and run it again in reverse
        threads : int, optional
            default: what this process may use
        progress : Callable[[int, int], None], optional
            called with (tensors packed, tensors in all)

        Raises
        ------
        ArgumentError
        UnsupportedError
            for a model with an op that has no adjoint
        CapacityError
            where memory lacks
        """
        self.plan, self.threads = plan, check_threads(threads)
        self.rows = check_integer("rows", rows, 1, 1 << 16)
        if format is not None:
            check_choice("format", format, FORMATS)
        names = set(plan.weights) if trained is None else set(trained)
        if not names or names - plan.weights.keys():
            raise ArgumentError(
                f"trained must name weights of the model, got {listed(sorted(names - plan.weights.keys()))}"
            )
        self._positions = min(plan.position_rows or POSITION_LIMIT, POSITION_LIMIT)
        tables = {op.weights[0] for op in plan.ops if op.kind == "embedding"}
        head = head_of(plan)
        head = differentiate(head, names & head.weights.keys() | {INPUTS}, ROWS, over=True)
        body = differentiate(plan, names | ({INPUTS} if names & tables else set()), "hidden", checkpoint=checkpoint)
        self.weights = TrainedWeights(plan, tensors, names, format, self.threads, progress)
        self.parameters: Parameters = self.weights.parameters
        self._body = NativeExecutor(body, self.weights, self.rows, self.threads)
        self._head = NativeExecutor(head, self.weights, min(HEAD_ROWS, self.rows), self.threads)
        self._back = {
            part: tuple(name for name in reverse_segments(made) if name != reverse_of(TABLE))
            for part, made in (("body", body), ("head", head))
        }
        self._caches = {name: KVCache(plan, self.rows, "f32", name) for name in plan.key_sets}
        self._waiting: list[tuple[ForwardPass, np.ndarray]] = []  # of tables: passes, and gradients by their inputs

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self.plan.vocab_size

    def network(self) -> Network:
        """The model as it is now, for sessions: their forwards see the weights of the moment, what they have cached does not."""
        return Network.over(self.plan, self.weights, self.threads)

    def accumulate(self, batch: Batch, objective: Objective, total_weight: float) -> float:
        """Forward, objective and reverse of a batch: adds to the gradients, gives its share of the value.

        Parameters
        ----------
        batch : Batch
            of at most `rows` rows
        objective : Objective
        total_weight : float
            of all batches whose shares add up to one value: of one step

        Raises
        ------
        ArgumentError
        UnsupportedError
            for sequences beyond a context that the model turns positions otherwise behind
        NotFiniteError
            where a weight or a value is not finite; gradients are then undefined
        """
        reads = _counted(batch, objective)
        if not len(reads):
            return 0.0
        request, hidden = self._hidden(batch, reads)
        body, gradient, value = self._body, np.empty(hidden.shape, np.float32), 0.0
        for chunk, logits, head, loss in self._losses(request, hidden, batch, objective, total_weight):
            value += loss.value
            if np.shape(loss.gradient) != logits.shape:
                found = short(np.shape(loss.gradient))
                raise ArgumentError(
                    f"objective must give a gradient of the shape of the logits, {logits.shape}, got {found}"
                )
            if not np.shares_memory(loss.gradient, logits):
                logits[:] = loss.gradient
            head.segments, head.phase = self._back["head"], "reverse"
            self._head.run(head)
            gradient[chunk] = self._head.value(self._head.plan.outputs[BY_INPUTS], len(logits))
        if self._back["body"]:
            request.inputs, request.segments, request.phase = gradient, self._back["body"], "reverse"
            body.run(request)
        if BY_INPUTS in body.plan.outputs:
            by_inputs = body.value(body.plan.outputs[BY_INPUTS], request.rows).copy()
            self._waiting.append((request, by_inputs))
        return value

    def finish(self) -> None:
        """End a sum over batches: tables of tokens get theirs now, so that it does not matter how rows were split."""
        body = self._body
        for request, by_inputs in self._waiting:
            body.value(body.plan.outputs[BY_INPUTS], request.rows)[:] = by_inputs
            request.segments, request.phase = (reverse_of(TABLE),), "reverse"
            body.run(request)
        self._waiting.clear()

    def zero_gradients(self) -> None:
        """Begin new sums."""
        self._waiting.clear()
        with stage("step", "zero_gradients"):
            self.parameters.zero_gradients()

    def value(self, batch: Batch, objective: Objective, total_weight: float) -> float:
        """A batch's share of the value, as `accumulate` gives it, with no more logits in memory; gradients stay as they are.

        Parameters
        ----------
        batch : Batch
            of at most `rows` rows
        objective : Objective
        total_weight : float
            of all batches whose shares add up to one value

        Raises
        ------
        ArgumentError
        NotFiniteError
        """
        reads = _counted(batch, objective)
        if not len(reads):
            return 0.0
        losses = self._losses(*self._hidden(batch, reads), batch, objective, total_weight)
        return sum((float(loss.value) for *_, loss in losses), 0.0)

    def logits(self, batch: Batch, rows: np.ndarray | None = None) -> np.ndarray:
        """float32 (n, vocab_size): what the model says of rows of a batch, of those that count, or of `rows` (n,), ascending.

        Raises
        ------
        ArgumentError
        NotFiniteError
            where a weight or a value is not finite
        """
        check_instance("batch", batch, Batch)
        if rows is None:
            reads = np.flatnonzero(batch.weights)
        else:
            reads = check_integers("rows", rows, 0, len(batch) - 1, empty=True)
            if (np.diff(reads) <= 0).any():
                raise ArgumentError(f"rows must be ascending, got {short(rows)}")
        if not len(reads):
            return np.empty((0, self.vocab_size), np.float32)
        _, hidden = self._hidden(batch, reads)
        made = [self._logits(hidden[chunk])[0].copy() for chunk in self._chunks(len(hidden))]
        return np.concatenate(made)

    def _hidden(self, batch: Batch, reads: np.ndarray) -> tuple[ForwardPass, np.ndarray]:
        """A forward of the body, and what the head reads of it: of these rows, at least one."""
        request = self._forward(batch, reads)
        return request, self._body.value(self._body.plan.outputs["hidden"], len(request.read_rows))

    def _losses(
        self, request: ForwardPass, hidden: np.ndarray, batch: Batch, objective: Objective, total_weight: float
    ) -> Iterator[tuple[slice, np.ndarray, ForwardPass, Loss]]:
        """Chunks of the head's rows: their logits, which hold until the next, or what is over them; the pass; the loss."""
        for chunk in self._chunks(len(hidden)):
            logits, head = self._logits(hidden[chunk])
            rows = request.read_rows[chunk].astype(np.int64)
            with stage("forward", "objective"):
                loss = objective(np.ascontiguousarray(logits), batch, rows, total_weight)
            yield chunk, logits, head, loss

    def _chunks(self, rows: int) -> list[slice]:
        return [slice(begin, min(begin + self._head.max_rows, rows)) for begin in range(0, rows, self._head.max_rows)]

    def _logits(self, hidden: np.ndarray) -> tuple[np.ndarray, ForwardPass]:
        """Of rows that the head reads: (n, vocab_size), which hold until the next; and the pass they were made in."""
        rows = np.arange(len(hidden), dtype=np.int32)
        zeros, runs = np.zeros(len(hidden), np.int32), np.array([[0, 1]], np.int32)  # nobody attends
        request = ForwardPass(
            rows,
            zeros,
            runs,
            np.array([0, 1]),
            [],
            None,
            np.ascontiguousarray(hidden),
            zeros,
            zeros,
            rows,
            phase="forward",
        )
        self._head.run(request)
        return self._head.value(self._head.plan.outputs[ROWS], len(hidden)), request

    def _forward(self, batch: Batch, reads: np.ndarray) -> ForwardPass:
        if len(batch) > self.rows:
            raise ArgumentError(f"a batch must have at most {self.rows} rows, got {len(batch)}")
        check_integers("tokens", batch.tokens, 0, self.vocab_size - 1)
        long, longest = self.plan.long_beyond, int(batch.positions.max()) + 1
        if 0 < long < longest:
            raise UnsupportedError(
                f"a sequence has {longest} tokens; training knows the positions of this model's original {long} alone"
            )
        if longest > self._positions:
            raise ArgumentError(f"positions must be below the model's {self._positions}, got {longest - 1}")
        nodes, runs, offsets = _seen(self.plan, batch)
        slots = np.arange(len(batch), dtype=np.int32)
        for cache in self._caches.values():
            cache.reserve(0, len(batch))
        request = ForwardPass(
            slots, nodes, runs, offsets, [self._caches[OWN]], batch.tokens, None, batch.positions,
            np.zeros(len(batch), np.int32), reads.astype(np.int32), end_layer=self.plan.num_layers,
            others={name: KeySet(slots, nodes, runs, offsets, [cache]) for name, cache in self._caches.items() if name != OWN},
            phase="forward",
        )  # fmt: skip
        self._body.run(request)
        return request


def _counted(batch: Batch, objective: Objective) -> np.ndarray:
    """int64 (n,): the rows that count of a batch which an objective is to judge."""
    check_instance("batch", batch, Batch)
    check_callable("objective", objective)
    return np.flatnonzero(batch.weights)


def _seen(plan: Plan, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """nodes, runs, run_offsets: what the batch says, or of its own sequence what is before a row, or all, or up to the end of its block, as the model does."""
    rows = len(batch)
    if batch.seen is not None:
        return np.arange(rows, dtype=np.int32), batch.seen.runs, batch.seen.run_offsets
    starts = np.repeat(batch.starts[:-1], batch.lengths)
    if plan.causal:
        seen = batch.positions + 1
    elif plan.block:
        seen = np.minimum((batch.positions // plan.block + 1) * plan.block, np.repeat(batch.lengths, batch.lengths))
    else:
        seen = np.repeat(batch.lengths, batch.lengths)
    runs = np.stack([starts, seen], axis=1).astype(np.int32)
    return np.arange(rows, dtype=np.int32), runs, np.arange(rows + 1, dtype=np.int64)
