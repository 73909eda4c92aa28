"""A draft head learns from its target's texts, and is saved with what it has been judged to be."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.checkpoint import open_checkpoint
from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.distill.laws.divergence import divergence
from fastdistill.distill.loss import Loss
from fastdistill.files import read_json
from fastdistill.models.draft_head import HEAD, HEAD_BIAS, MEDUSA, SHARES, TABLE, DraftHead, SavedHead
from fastdistill.train.draft_head.acceptance import Acceptance, acceptance
from fastdistill.train.draft_head.closed_form import first_weights
from fastdistill.train.draft_head.engine import HeadBatch, HeadEngine
from fastdistill.train.draft_head.head_texts import HeadTexts
from fastdistill.train.draft_head.settings import HeadSettings
from fastdistill.train.loop import Record, train
from fastdistill.train.optimisers import AdamW, Schedule
from fastdistill.train.own_texts.target import Target
from fastdistill.train.own_texts.texts import Texts, held_out
from fastdistill.train.own_texts.work import WorkTime, keep
from fastdistill.train.runs import RunFolder

FADING = 0.8  # what a step's guess counts, beside the guess before it
# Of so many steps of the optimiser one goes through all steps of the head.  Medusa's later heads learn then alone, which in equal time is
# better all the same than to have them learn in each.
OFTEN = 3
INTERMEDIATE = 1536  # of eagle's feed-forward network
SURE = 8.0  # guesses that a prior counts for


class HeadTraining:
    """A draft head, its texts, and what trains it.

    Parameters
    ----------
    settings : HeadSettings
    target : Target
    texts : Texts
        of which some are for judging alone

    Raises
    ------
    ArgumentError, CapacityError, CheckpointError
    """

    def __init__(self, settings: HeadSettings, target: Target, texts: Texts) -> None:
        self.settings, self.texts = settings, (texts := HeadTexts.of(texts))
        seen, held = held_out(len(texts))
        self._seen, self._unseen = texts.places_in(seen), texts.places_in(held)
        learnt = texts.tokens[np.repeat(seen, np.diff(texts.starts))]
        plan = target.plan
        counts = np.bincount(learnt, minlength=plan.vocab_size)
        size = min(settings.draft_vocab_size, plan.vocab_size)
        self.d2t = np.sort(np.argsort(-counts, kind="stable")[:size]).astype(np.int32)
        table_op = next(op for op in plan.ops if op.kind == "embedding")
        head_op = next(op for op in plan.ops if op.kind == "head")
        with open_checkpoint(target.folder) as checkpoint:
            weights = {
                name: plan.weights[name].source.tensor(checkpoint.tensors).rows(...)
                for name in {table_op.weights[0], *head_op.weights}
            }
        table = self.table = weights[table_op.weights[0]]
        rows = {name: weights[of].rows(self.d2t) for name, of in zip((HEAD, HEAD_BIAS), head_op.weights, strict=False)}
        scales = [op.constants["factor"] for op in plan.ops if op.kind == "scale" and op.output in head_op.inputs]
        self.shape = DraftHead(
            plan.hidden_size, table.shape[1], plan.vocab_size, size, **_sizes(settings), taps=settings.reads(plan),
            logit_scale=math.prod(scales), logit_softcap=head_op.constants.get("softcap", 0.0), head_bias=HEAD_BIAS in rows,
        )  # fmt: skip
        first = first_weights(self.shape, texts, table, places=self._seen, seed=settings.seed)
        self.kept = {name: Tensor(name, some.format, some.shape, **some.parts) for name, some in rows.items()}
        self.engine = HeadEngine(
            self.shape, {**first, TABLE: table, **self.kept},
            steps=settings.steps, rows=settings.rows, threads=settings.threads,
        )  # fmt: skip
        self._learnt = len(learnt)
        self._order: tuple[int, np.ndarray] = (-1, self._seen)

    def train(
        self,
        run: RunFolder,
        clock: WorkTime,
        training: Callable[[int], Callable[[Record], None]],
        stop: Callable[[], bool],
    ) -> bool:
        """As many steps as the time that is left allows, found once; whether they are done.

        Parameters
        ----------
        run : RunFolder
            where its checkpoints go
        clock : WorkTime
            of the work so far
        training, stop : callables
            as of `distill_head`

        Raises
        ------
        CheckpointError, NotFiniteError
        """
        file = run.path / "steps.json"
        if not file.exists():
            keep(file, {"steps": self._affordable(clock.seconds)})
        steps = read_json(file)["steps"]
        settings = self.settings
        optimiser = AdamW(self.engine.parameters, beta2=0.95, weight_decay=0.0, threads=settings.threads)
        schedule = Schedule("cosine", settings.learning_rate, steps, min(100, math.ceil(steps / 10)))
        trained = train(
            self.engine, optimiser, lambda step: [self.batch(step)], self._objective, learning_rate=schedule, steps=steps, clip=1.0,
            run=run, save_minutes=3.0, report=training(steps), stop=stop,
        )  # fmt: skip
        return trained.finished

    def batch(self, step: int) -> HeadBatch:
        """Of a step of the optimiser: most go through the head once, some unroll it."""
        each = max(len(self._seen) // self.settings.rows, 1)
        epoch, number = divmod(step, each)
        if self._order[0] != epoch:
            chance = np.random.Generator(np.random.Philox(key=[self.settings.seed, epoch]))
            self._order = epoch, self._seen[np.argsort(chance.random(len(self._seen)), kind="stable")]
        at = np.sort(self._order[1][number * self.settings.rows : (number + 1) * self.settings.rows])
        return HeadBatch.of(self.shape, self.texts, at, self.settings.steps if step % OFTEN == 0 else 1, FADING)

    def save(self, folder: Path) -> Acceptance:
        """Judge it as it will be held, and write it."""
        format, settings = self.settings.format, self.settings
        learnt = self.engine.parameters.items()
        tensors = self.kept | {name: Tensor(name, "f32", each.shape, each.to_array()) for name, each in learnt}
        tensors = {
            name: quantize_tensor(tensor, format) if len(tensor.shape) == 2 else tensor
            for name, tensor in tensors.items()
        }
        held = HeadEngine(
            self.shape, {**tensors, TABLE: self.table}, steps=settings.steps, rows=settings.rows,
            threads=settings.threads,
        )  # fmt: skip
        found = acceptance(held, self.texts, self.d2t, places=self._unseen)
        facts: dict[str, Any] = {
            "target": Path(self.settings.model).name,
            "acceptance": [round(float(rate), 4) for rate in found.ranks[:, 0]] if len(self._unseen) else None,
            "tokens_of_texts": self._learnt,
        }
        SavedHead(self.shape, self.d2t, tensors, _priors(found), facts).save(folder)
        return found

    def _affordable(self, spent: float) -> int:
        """Steps of the optimiser in the time that is left after so many seconds, by what some take, which change nothing.

        They take a hundredth of that time, as the first ones of a process are slower than all that follow.
        """
        began, left = time.monotonic(), 60 * self.settings.minutes - spent
        rounds = list[list[float]]()  # of OFTEN steps
        while len(rounds) < 2 or time.monotonic() - began < left / 100:
            rounds.append([self._seconds(step) for step in range(OFTEN)])
        self.engine.parameters.zero_gradients()
        unrolled, *rest = np.median(rounds[len(rounds) // 2 :], axis=0).tolist()
        # Judging is forwards through all steps, a third of what gradients through all of them take.
        judging = len(self._unseen) / self.settings.rows * unrolled / 3
        left -= time.monotonic() - began + judging
        return max(int(left / (1.08 * float(np.mean([unrolled, *rest])))), 1)

    def _seconds(self, step: int) -> float:
        """What the gradients of a step take."""
        began = time.monotonic()
        batch = self.batch(step)
        self.engine.accumulate(batch, self._objective, float(batch.weights.sum()))
        return time.monotonic() - began

    def _objective(self, logits: np.ndarray, theirs: np.ndarray, weights: np.ndarray, total_weight: float) -> Loss:
        return divergence(
            logits, theirs, self.settings.objective, weights=weights, total_weight=total_weight, out=logits
        )


def _sizes(settings: HeadSettings) -> dict[str, int]:
    if settings.recipe == MEDUSA:
        return {"heads": settings.steps}
    return {"intermediate_size": settings.intermediate_size or INTERMEDIATE}


def _priors(found: Acceptance) -> tuple[tuple[float, float], ...]:
    """Of each kind as SURE guesses: as many right of them as there were, between what its share says where few were asked."""
    middles = np.array([0.01, *(np.array(SHARES[:-1]) + SHARES[1:]) / 2, 0.985])
    right = found.counts[:, 0] + SURE * middles
    rates = np.clip(right / (found.counts.sum(axis=1) + SURE), 0.005, 0.995)
    return tuple((float(round(SURE * rate, 4)), float(round(SURE * (1 - rate), 4))) for rate in rates)
