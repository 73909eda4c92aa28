"""An engine small enough to be seen through, a bigram table, and batches for it."""

from __future__ import annotations

import numpy as np

from fastdistill.distill.laws.divergence import cross_entropy
from fastdistill.train.batch import Batch, batch_of
from fastdistill.train.loop import Record, Trained, train
from fastdistill.train.optimisers import EMA, AdamW, Schedule
from fastdistill.train.runs import RunFolder

VOCAB = 11


class Parameter:
    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.shape = shape
        self.value = np.random.default_rng(seed).standard_normal(shape).astype(np.float32).ravel()
        self.gradient = np.zeros_like(self.value)

    def to_array(self) -> np.ndarray:
        return self.value.reshape(self.shape)


class Bigram:
    """logits of the next token = table[token] + bias."""

    def __init__(self, seed: int = 0) -> None:
        self.parameters = {"table": Parameter((VOCAB, VOCAB), seed), "bias": Parameter((VOCAB,), seed + 1)}
        self.vocab_size = VOCAB

    def logits(self, batch: Batch) -> np.ndarray:
        return self.parameters["table"].to_array()[batch.tokens[batch.weights > 0]] + self.parameters["bias"].value

    def accumulate(self, batch: Batch, objective, total_weight: float) -> float:
        rows = np.flatnonzero(batch.weights)
        loss = objective(self.logits(batch), batch, rows, total_weight)
        for row, gradient in zip(rows, loss.gradient, strict=True):  # in row order, whatever a micro-batch holds
            self.parameters["table"].gradient.reshape(VOCAB, VOCAB)[batch.tokens[row]] += gradient
            self.parameters["bias"].gradient += gradient
        return loss.value

    def value(self, batch: Batch, objective, total_weight: float) -> float:
        return objective(self.logits(batch), batch, np.flatnonzero(batch.weights), total_weight).value

    def finish(self) -> None:
        pass

    def zero_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.gradient[:] = 0


def objective(logits: np.ndarray, batch: Batch, rows: np.ndarray, total_weight: float):
    return cross_entropy(
        logits, batch.labels[rows], weights=batch.weights[rows], total_weight=total_weight, out=logits, threads=1
    )


def batches(step: int) -> list[Batch]:
    random = np.random.default_rng(step)
    return [batch_of([random.integers(VOCAB, size=7) for _ in range(2)]) for _ in range(2)]


def go(run: RunFolder | None, steps: int, **settings) -> tuple[Trained, dict[str, np.ndarray], list[Record]]:
    """What `train` gives, the state after it, and the lines that it reported."""
    engine = Bigram()
    optimiser, average, records = AdamW(engine.parameters), EMA(engine.parameters, 0.75), []
    given = dict(
        batches=batches, objective=objective, learning_rate=Schedule("linear", 0.1, 40, 4), clip=0.3, average=average,
        steps=steps, run=run,
        evaluation=batches(10**6), evaluate_every=5, save_every=5, report=records.append,
    )  # fmt: skip
    given |= settings
    trained = train(engine, optimiser, **given)
    state = {name: each.value for name, each in engine.parameters.items()} | optimiser.state
    return trained, state | {f"average/{name}": array for name, array in average.state.items()}, records
