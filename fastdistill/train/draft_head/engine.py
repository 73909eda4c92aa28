"""Forward, loss and reverse of all steps of a draft head: what a step of training asks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.distill.loss import Loss
from fastdistill.errors import ArgumentError
from fastdistill.kernels.threads import check_threads
from fastdistill.models.draft_head import COPIES, DraftHead
from fastdistill.models.plan import Plan
from fastdistill.runtime.forward_pass import ForwardPass
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.train.differentiate import BY_INPUTS, INPUTS, differentiate, reverse_segments
from fastdistill.train.draft_head.head_texts import HeadTexts
from fastdistill.train.parameters import Parameters, TrainedWeights
from fastdistill.train.parts import ROWS, head_of

# (student's logits float32 (n, draft vocab), the target's of these tokens, weights float32 (n,), total_weight) -> a Loss
# whose gradient stands in place of the student's logits; the target's may be written over.
HeadObjective = Callable[[np.ndarray, np.ndarray, np.ndarray, float], Loss]


@dataclass(frozen=True, eq=False)
class HeadBatch:
    """Places in texts, each a row: the target's state there, and what came after it.

    Parameters
    ----------
    hidden : float32 (rows, width)
        what the first step reads: what the target's head read there, and its taps
    tokens : int32 (steps, 1 + COPIES, rows)
        what a step reads: the token drawn there and its copies; the one after it and its copies; ...
    targets : float32 (steps, rows, hidden_size)
        what the target's head read after each of these tokens
    weights : float32 (steps, rows)
        of what each step guesses; 0 where the text has ended

    Raises
    ------
    ArgumentError
    """

    hidden: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        rows = len(as_array("hidden", self.hidden, np.float32, ("rows", "width")))
        steps = len(as_array("tokens", self.tokens, np.int32, ("steps", 1 + COPIES, rows)))
        as_array("targets", self.targets, np.float32, (steps, rows, "hidden_size"))
        as_array("weights", self.weights, np.float32, (steps, rows))

    def __len__(self) -> int:
        return len(self.hidden)

    @classmethod
    def of(cls, shape: DraftHead, texts: HeadTexts, places: np.ndarray, steps: int, fading: float = 1.0) -> HeadBatch:
        """Of these places, as a head of this shape reads them, each with the next tokens; what step t guesses counts fading^t."""
        at = places[None] + np.arange(steps + 1)[:, None]
        last = texts.ends[places] - 1
        there = at <= last
        at = np.minimum(at, last)
        weights = there[1:] * np.float32(fading) ** np.arange(steps, dtype=np.float32)[:, None]
        first = texts.states[places, : shape.width(0)].astype(np.float32)
        targets = texts.states[at[1:], : shape.hidden_size].astype(np.float32)
        tokens = np.ascontiguousarray(np.moveaxis(texts.read(at[:-1]), 0, 1))
        return cls(first, tokens, targets, weights.astype(np.float32))

    @property
    def steps(self) -> int:
        return len(self.tokens)


class HeadEngine:
    """A draft head that is trained: what `fastdistill.train.train` takes for an engine.

    Where steps are chained, the gradient goes back through all of them: what a step gives is judged by its guess and by
    what the later steps make of it.  The target's table and its head's rows stay as they are.

    Attributes
    ----------
    shape : DraftHead
    parameters : Parameters
    rows : int
        most of a batch
    """

    def __init__(
        self,
        shape: DraftHead,
        tensors: Mapping[str, Tensor],
        *,
        steps: int = 3,
        rows: int = 512,
        threads: int | None = None,
    ) -> None:
        """Pack the weights and reserve memory for batches of at most `rows` rows and `steps` steps.

        Parameters
        ----------
        shape : DraftHead
        tensors : Mapping[str, Tensor]
            of its plan's weights, by name
        steps : int, default 3
            medusa's: at most its heads
        rows : int, default 512
        threads : int, optional
            default: what this process may use

        Raises
        ------
        ArgumentError
        CapacityError
            where memory lacks
        """
        if steps > (shape.heads or steps):
            raise ArgumentError(f"a draft head of {shape.heads} heads has as many steps, got {steps}")
        threads, plan = check_threads(threads), shape.plan()
        self.shape, self.rows, self.steps = shape, rows, steps
        head = differentiate(head_of(plan), {INPUTS}, ROWS, over=True)
        weights = TrainedWeights(plan, tensors, shape.trained, None, threads)
        self.parameters: Parameters = weights.parameters
        self._cells = [
            NativeExecutor(_reversible(shape.plan(step), weights), weights, rows, threads) for step in range(steps)
        ]
        self._head = NativeExecutor(head, weights, rows, threads)
        self._back = {made: reverse_segments(made.plan) for made in (*self._cells, self._head)}

    def accumulate(self, batch: HeadBatch, objective: HeadObjective, total_weight: float) -> float:
        """Forward, objective and reverse of a batch: adds to the gradients, gives its share of the value.

        Parameters
        ----------
        batch : HeadBatch
        objective : HeadObjective
        total_weight : float
            of all batches whose shares add up to one value: of one step of the optimiser

        Raises
        ------
        ArgumentError
        NotFiniteError
        """
        passes, given, value = [], [], 0.0
        for step, (request, hidden) in enumerate(self._forward(batch)):
            loss, head = self._loss(batch, step, hidden, objective, total_weight)
            value += loss.value
            passes.append(request)
            given.append(self._reverse(self._head, head))
        by_later = np.zeros_like(batch.targets[0])
        for cell, request, gradient in reversed([*zip(self._cells, passes, given, strict=False)]):
            request.inputs = gradient + by_later if self.shape.chained else gradient
            by_later = self._reverse(cell, request)
        return value

    def value(self, batch: HeadBatch, objective: HeadObjective, total_weight: float) -> float:
        """A batch's share of the value, as `accumulate` gives it; gradients stay as they are."""
        losses = (
            self._loss(batch, step, hidden, objective, total_weight)[0]
            for step, (_, hidden) in enumerate(self._forward(batch))
        )
        return sum((float(loss.value) for loss in losses), 0.0)

    def logits(self, batch: HeadBatch) -> np.ndarray:
        """float32 (steps, rows, draft vocab): what each step guesses."""
        return np.stack([self._logits(hidden)[0].copy() for _, hidden in self._forward(batch)])

    def finish(self) -> None:
        """End a sum over batches."""

    def zero_gradients(self) -> None:
        """Begin new sums."""
        self.parameters.zero_gradients()

    def _forward(self, batch: HeadBatch) -> Iterator[tuple[ForwardPass, np.ndarray]]:
        """Step by step: its pass, and the states that it gives."""
        if len(batch) > self.rows or batch.steps > self.steps:
            raise ArgumentError(
                f"a batch must have at most {self.rows} rows and {self.steps} steps, got {len(batch)} and {batch.steps}"
            )
        widths, wanted = (batch.hidden.shape[1], batch.targets.shape[2]), (self.shape.width(0), self.shape.hidden_size)
        if widths != wanted:
            raise ArgumentError(f"a batch's hidden and targets must have {wanted} numbers a row, got {widths}")
        hidden = batch.hidden
        for cell, tokens in zip(self._cells, batch.tokens, strict=False):
            request = _pass(hidden if self.shape.chained else batch.hidden, tokens)
            cell.run(request)
            hidden = np.ascontiguousarray(cell.value(cell.plan.outputs["hidden"], len(batch)))
            yield request, hidden

    def _loss(
        self, batch: HeadBatch, step: int, hidden: np.ndarray, objective: HeadObjective, total_weight: float
    ) -> tuple[Loss, ForwardPass]:
        theirs = self._logits(batch.targets[step])[0].copy()
        logits, request = self._logits(hidden)
        own = np.ascontiguousarray(logits)
        loss = objective(own, theirs, batch.weights[step], total_weight)
        if not np.shares_memory(loss.gradient, logits):
            logits[:] = loss.gradient
        return loss, request

    def _logits(self, hidden: np.ndarray) -> tuple[np.ndarray, ForwardPass]:
        request = _pass(hidden)
        self._head.run(request)
        return self._head.value(self._head.plan.outputs[ROWS], len(hidden)), request

    def _reverse(self, executor: NativeExecutor, request: ForwardPass) -> np.ndarray:
        """The gradient by what entered, (rows, width)."""
        request.segments, request.phase = self._back[executor], "reverse"
        executor.run(request)
        return executor.value(executor.plan.outputs[BY_INPUTS], request.rows).copy()


def _reversible(step: Plan, weights: TrainedWeights) -> Plan:
    return differentiate(step, {INPUTS, *(weights.parameters.keys() & step.weights.keys())}, "hidden")


def _pass(hidden: np.ndarray, tokens: np.ndarray | None = None) -> ForwardPass:
    """Rows that nobody sees, all of them read."""
    rows = np.arange(len(hidden), dtype=np.int32)
    zeros = np.zeros(len(hidden), np.int32)
    return ForwardPass(
        rows, zeros, np.array([[0, 1]], np.int32), np.array([0, 1]), [], tokens, np.ascontiguousarray(hidden), zeros, zeros, rows,
        phase="forward",
    )  # fmt: skip
