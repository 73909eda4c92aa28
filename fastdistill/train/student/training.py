"""A student as it learns: its engine, its batches, what it minimises, and the reference that it may have beside it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection

import numpy as np

from fastdistill.checkpoint import open_checkpoint
from fastdistill.models import Plan, plan_of
from fastdistill.runtime.network import Network
from fastdistill.train.batch import Batch, Objective
from fastdistill.train.data import Batches, OnPolicy, Teacher
from fastdistill.train.data.dataset import Dataset
from fastdistill.train.engine import Engine
from fastdistill.train.loop import Record, train
from fastdistill.train.objectives import objective
from fastdistill.train.optimisers import AdamW, Schedule
from fastdistill.train.runs import RunFolder
from fastdistill.train.saved_model import save_model, trainable
from fastdistill.train.student.selective import SelectiveDistillation
from fastdistill.train.student.settings import StudentSettings


class StudentTraining:
    """A student and what trains it.

    Parameters
    ----------
    settings : StudentSettings
    folder : str or PathLike
        the model that it begins as: `cut_folder`
    target : Network
    data : Dataset
        what the target wrote
    end_tokens : Collection[int]
        those that end a text that the student writes
    reference : Network, optional
        a student that has learnt already, with `settings.selection`

    Attributes
    ----------
    plan : Plan
    engine : Engine
        with the weights of the moment
    objective : Objective

    Raises
    ------
    ArgumentError, CheckpointError, UnsupportedError, DataError
    """

    def __init__(
        self,
        settings: StudentSettings,
        folder: str | os.PathLike[str],
        target: Network,
        data: Dataset,
        end_tokens: Collection[int],
        reference: Network | None = None,
    ) -> None:
        self._settings, self._folder = settings, folder
        with open_checkpoint(folder) as checkpoint:
            self.plan: Plan = plan_of(checkpoint)
            names = _trained(self.plan, settings.whole)
            tensors, rows, threads = checkpoint.tensors, settings.rows, settings.threads
            self.engine = Engine(self.plan, tensors, names, rows=rows, threads=threads)
        teacher, on_policy = Teacher(target), settings.on_policy > 0
        self.objective: Objective
        if reference is None:
            self.objective = objective(settings.objective, teacher=teacher)
        else:
            assert settings.selection is not None
            self.objective = SelectiveDistillation(settings.objective, teacher, Teacher(reference), settings.selection)
        batches = Batches(data, settings.rows, seed=settings.seed, prompts=on_policy)
        self._batches: Batches | OnPolicy = batches
        if on_policy:
            most = settings.max_tokens
            self._batches = OnPolicy(
                batches, self.engine.network, settings.on_policy, max_tokens=most, end_tokens=end_tokens
            )

    def batches(self, step: int) -> list[Batch]:
        """Of a step of the optimiser, from 0: what the student writes itself is a function of its weights."""
        return [*self._batches[step].split(self._settings.rows)]

    def train(
        self,
        steps: int,
        run: RunFolder | None = None,
        report: Callable[[Record], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> bool:
        """So many steps, those of a run that is gone on with among them; whether all are done.

        Parameters
        ----------
        steps : int
        run, report, stop : optional
            as of `fastdistill.train.loop.train`

        Raises
        ------
        NotFiniteError, CheckpointError
        """
        settings = self._settings
        optimiser = AdamW(self.engine.parameters, beta2=0.95, weight_decay=0.0, threads=settings.threads)
        schedule = Schedule("cosine", settings.learning_rate, steps, min(100, math.ceil(steps / 10)))
        trained = train(
            self.engine, optimiser, self.batches, self.objective, learning_rate=schedule, steps=steps, clip=1.0,
            run=run, save_minutes=3.0, report=report, stop=stop,
        )  # fmt: skip
        return trained.finished

    def seconds(self, samples: int = 3) -> float:
        """Of a step: the mean of some that change nothing, without the first, which fills caches."""
        taken = []
        for step in range(samples + 1):
            began = time.monotonic()
            for batch in self.batches(step):
                self.engine.accumulate(batch, self.objective, batch.weight)
            self.engine.finish()
            taken.append(time.monotonic() - began)
        self.engine.zero_gradients()
        return float(np.mean(taken[1:]))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write it as it is now, as a folder to load, in float32."""
        save_model(self.plan, self.engine.parameters, self._folder, folder)


def _trained(plan: Plan, whole: bool) -> list[str]:
    """Names of the weights that learn: all, or those of the layers and the last norm."""
    outer = {name for op in plan.ops if op.kind in ("embedding", "position_embedding", "head") for name in op.weights}
    return [name for name in trainable(plan) if whole or name not in outer]
