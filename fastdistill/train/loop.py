"""The loop: batches of a step, their gradients, one step of the optimiser; what is measured, and what is saved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastdistill.arguments import check_integer, check_number
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.train.batch import Batch, Objective
from fastdistill.train.optimisers import EMA, Optimiser
from fastdistill.train.runs import Progress, RunFolder

Record = dict[str, Any]  # a line of metrics.jsonl


class Values(Protocol):
    """A parameter: its numbers, flat float32."""

    @property
    def value(self) -> np.ndarray: ...


class Trainable(Protocol):
    """What is trained: an Engine, or what stands in for one, with batches and objectives of its own kind."""

    @property
    def parameters(self) -> Mapping[str, Values]: ...
    def accumulate(self, batch: Any, objective: Any, total_weight: float) -> float: ...
    def finish(self) -> None: ...
    def zero_gradients(self) -> None: ...
    def value(self, batch: Any, objective: Any, total_weight: float) -> float: ...


class Trained(NamedTuple):
    """How a loop ended.

    Attributes
    ----------
    step : int
        steps that are done
    seconds : float
        of work, those of processes before this one included
    finished : bool
        False: it was asked to stop
    loss : float
        of the last step that was made here; NaN where there was none
    """

    step: int
    seconds: float
    finished: bool
    loss: float


def train(
    engine: Trainable,
    optimiser: Optimiser,
    batches: Callable[[int], Sequence[Any]],
    objective: Any,
    *,
    learning_rate: float | Callable[[int], float],
    steps: int | None = None,
    minutes: float | None = None,
    clip: float | None = None,
    average: EMA | None = None,
    evaluation: Sequence[Batch] = (),
    evaluate_every: int | None = None,
    run: RunFolder | None = None,
    save_every: int | None = None,
    save_minutes: float | None = 10.0,
    report: Callable[[Record], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Trained:
    """Train: from the beginning, or from where a run's newest checkpoint is.

    Every step is a function of the state before it and of its number, so that a run which goes on after an interruption
    gives the bits of one that was not interrupted; so must `batches` and `learning_rate` be.

    Parameters
    ----------
    engine : Engine
        whose parameters are trained
    optimiser : AdamW or SGD
        over them
    batches : Callable[[int], Sequence[Batch]]
        of a step, from 0: its micro-batches, whose rows count as those of one batch
    objective : Objective
    learning_rate : float or Callable[[int], float]
        of all steps, or of each, from 0
    steps, minutes : optional
        end after so many steps, or after a step that is the last to begin within so many minutes of work; one at least
    clip : float, optional
        bounds the norm of the gradients
    average : EMA, optional
        of the parameters: updated after each step, and what is evaluated
    evaluation : Sequence[Batch], default ()
        held out: their mean loss is measured before the first step and after the last
    evaluate_every : int, optional
        and after every so many steps
    run : RunFolder, optional
        where metrics and checkpoints go
    save_every : int, optional
        save after every so many steps; and
    save_minutes : float, default 10.0
        where the last checkpoint is so old, and at the end
    report : Callable[[Record], None], optional
        called with the metrics of each step
    stop : Callable[[], bool], optional
        asked after each step whether to save and end there

    Returns
    -------
    Trained

    Raises
    ------
    ArgumentError
    NotFiniteError
        where a loss or a gradient is no number; the newest checkpoint is of an earlier step
    CheckpointError
        where what is to be saved cannot be written
    """
    if steps is None and minutes is None:
        raise ArgumentError("steps or minutes must say when training ends, got neither")
    last = check_integer("steps", steps, 0, 1 << 60) if steps is not None else None
    most_seconds = 60 * check_number("minutes", minutes, 0, 1e9) if minutes is not None else math.inf
    rate = learning_rate if callable(learning_rate) else lambda step: learning_rate
    arrays = state_of(engine, optimiser, average)
    begun = run.restore(arrays) if run is not None else Progress()
    optimiser.steps = begun.step
    clock = time.perf_counter
    start = saved_at = clock() - begun.seconds
    saved_at += begun.seconds
    loss = math.nan

    def held_out() -> float:
        with average.swapped() if average is not None else nullcontext():
            return evaluate(engine, evaluation, objective)

    def publish(record: Record) -> None:
        if run is not None:
            run.measured(record)
        if report is not None:
            report(record)

    if begun.step == 0 and evaluation:
        publish({"step": 0, "evaluation": held_out()})
    engine.zero_gradients()
    step, seconds = begun
    asked = False
    while not asked and (last is None or step < last) and seconds < most_seconds:
        before = clock()
        micro_batches = batches(step)
        total = math.fsum(weight for batch in micro_batches for weight in batch.weights.ravel().tolist())
        try:
            loss = math.fsum(engine.accumulate(batch, objective, total) for batch in micro_batches)
            engine.finish()
            if not math.isfinite(loss):
                raise NotFiniteError(f"the loss is {loss:g}")
            norm = optimiser.clip(math.inf if clip is None else clip)
        except NotFiniteError as error:
            kept = f"; the newest checkpoint is of step {run.progress.step}" if run is not None else ""
            raise NotFiniteError(f"step {step + 1}: {error}: try a lower learning rate{kept}") from error
        step_rate = rate(step)
        optimiser.step(step_rate)  # which clears the gradients
        if average is not None:
            average.update()
        step += 1
        now = clock()
        seconds = now - start
        tokens = sum(map(len, micro_batches))
        record: Record = {"step": step, "loss": loss, "learning_rate": step_rate, "gradient_norm": norm}
        record |= {
            "tokens": tokens,
            "tokens_per_second": round(tokens / (now - before), 1),
            "seconds": round(seconds, 3),
        }
        asked = stop is not None and stop()
        done = step == last or seconds >= most_seconds
        if evaluation and (done or (evaluate_every and step % evaluate_every == 0)):
            record["evaluation"] = held_out()
        publish(record)
        due = save_every is not None and step % save_every == 0
        due |= save_minutes is not None and clock() - saved_at >= 60 * save_minutes
        if run is not None and (due or asked or done):
            run.save(Progress(step, seconds), arrays)
            saved_at = clock()
    return Trained(step, seconds, step == last or seconds >= most_seconds, loss)


def evaluate(engine: Trainable, batches: Sequence[Batch], objective: Objective) -> float:
    """The mean loss of batches, as if they were one.

    Parameters
    ----------
    engine : Engine
    batches : Sequence[Batch]
    objective : Objective

    Returns
    -------
    float
    """
    total = math.fsum(batch.weight for batch in batches)
    return math.fsum(engine.value(batch, objective, total) for batch in batches)


def state_of(engine: Trainable, optimiser: Optimiser, average: EMA | None = None) -> dict[str, np.ndarray]:
    """All that the next step depends on, beside its number: the arrays themselves.

    Returns
    -------
    dict[str, np.ndarray]
        float32 (n,): value/NAME of each parameter, what the optimiser calls its own, average/NAME
    """
    arrays = {f"value/{name}": parameter.value for name, parameter in engine.parameters.items()}
    arrays |= optimiser.state
    if average is not None:
        arrays |= {f"average/{name}": array for name, array in average.state.items()}
    return arrays
