"""Models of the list tasks that are trained here: from random weights or from a model's own, and what they then can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastdistill as fd
from bench.lib.list_tasks import DETERMINISTIC, END, POSITIONS, PROMPT, TASKS, WORDS, ListPrompt, judge, prompts
from fastdistill.checkpoint import Tensor, open_checkpoint
from fastdistill.decode import Unmask
from fastdistill.distill import entropy
from fastdistill.embedded import embedded_folder
from fastdistill.models import plan_of
from fastdistill.models.plan import Plan
from fastdistill.train import EMA, AdamW, Batch, Engine, Schedule, batch_of, save_model
from fastdistill.train.batch import Objective
from fastdistill.unmask import Rule

EMBEDDED = "listops-mdlm"
LENGTH = PROMPT + POSITIONS
MASK = WORDS.index("<|mask|>")
COUNTED = np.arange(LENGTH) >= PROMPT


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    rate     the peak of a cosine that ends at nothing
    average  what a step keeps of the mean of the weights, which is the model
    """

    steps: int
    sequences: int
    rate: float
    average: float
    warm_up: int = 0
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip: float = 1.0


def folder_of(model: str | Path) -> Path:
    """Of an embedded model by its name, or as it is given."""
    return embedded_folder(model) or Path(model)


def engine_of(model: str | Path, sequences: int, threads: int, seed: int | None = None) -> Engine:
    """The model to be trained in batches of so many sequences; with a seed, its architecture with random weights."""
    with open_checkpoint(folder_of(model)) as checkpoint:
        plan = plan_of(checkpoint)
        tensors = checkpoint.tensors if seed is None else random_weights(plan, seed)
        return Engine(plan, tensors, rows=sequences * LENGTH, threads=threads)


def random_weights(plan: Plan, seed: int) -> dict[str, Tensor]:
    """Norms of 1; matrices whose outputs are as large as their inputs, what layers add to the stream less by sqrt(2 layers) (GPT-2)."""
    random, made = np.random.default_rng(seed), {}
    for name, shape in plan.stored.items():
        scale = shape[-1] ** -0.5
        if name.endswith(("attn_out.weight", "ff_out.weight")) and "blocks" in name:
            scale *= (2 * plan.num_layers) ** -0.5
        data = np.ones(shape) if len(shape) == 1 else scale * random.standard_normal(shape)
        made[name] = Tensor(name, "f32", shape, data.astype(np.float32))
    return made


def batch_of_answers(texts: np.ndarray) -> Batch:
    """Of prompts with answers, int32 (sequences, LENGTH): the answers are to be learnt."""
    return batch_of(list(texts), [COUNTED] * len(texts))


def fit(
    engine: Engine,
    batches: Callable[[int], Batch],
    objective_of: Callable[[int], Objective],
    recipe: Recipe,
    report: Callable[[int, EMA], None] = lambda done, average: None,
) -> None:
    """Train on a batch of each step, by its objective: in the end the engine has the mean of the weights.

    After each step it is reported how many are done, and the mean.
    """
    threads = engine.threads
    optimiser = AdamW(engine.parameters, beta2=recipe.beta2, weight_decay=recipe.weight_decay, threads=threads)
    average = EMA(engine.parameters, recipe.average, threads=threads)
    rate = Schedule("cosine", recipe.rate, recipe.steps, min(recipe.warm_up, recipe.steps))
    for step in range(recipe.steps):
        batch = batches(step)
        engine.accumulate(batch, objective_of(step), batch.weight)
        engine.finish()
        optimiser.clip(recipe.clip)
        optimiser.step(rate(step))
        average.update()
        report(step + 1, average)
    for name, mean in average.state.items():
        engine.parameters[name].value[:] = mean


def take(engine: Engine, other: Engine) -> None:
    """The weights of another engine of the same model."""
    for name, parameter in other.parameters.items():
        engine.parameters[name].value[:] = parameter.value


def save(engine: Engine, folder: Path) -> None:
    """The model as it is now, with the embedded model's tokenizer."""
    save_model(engine.plan, engine.parameters, folder_of(EMBEDDED), folder)


def model_of(engine: Engine) -> fd.Model:
    """The model of the moment, to decode with."""
    return fd.Model(engine.network(), folder_of(EMBEDDED), frozenset({WORDS.index(END)}), POSITIONS)


def some_prompts(count: int, seed: int = 0, tasks: Sequence[str] = TASKS) -> list[ListPrompt]:
    """So many of each task."""
    return [prompt for task in tasks for prompt in prompts(task, count, seed)]


def unmask(rule: Rule) -> Unmask:
    """All ten positions are filled, so that forwards can be compared."""
    return Unmask(rule, early_exit=False)


class Answers(NamedTuple):
    """What a model wrote: int32 (prompts, LENGTH), prompts with answers, which ends fill up; and forwards of each, int64 (prompts,)."""

    texts: np.ndarray
    forwards: np.ndarray

    @property
    def written(self) -> np.ndarray:
        """int32 (prompts, POSITIONS): the answers alone."""
        return self.texts[:, PROMPT:]


def answers_of(model: fd.Model, some: Sequence[ListPrompt], rule: Rule | Sequence[Rule]) -> Answers:
    """All of the prompts by one rule, or each by its own."""
    if isinstance(rule, Rule):
        found = model.generate([prompt.text for prompt in some], max_tokens=POSITIONS, decoder=unmask(rule))
    else:
        pairs = zip(some, rule, strict=True)
        found = [model.generate(prompt.text, max_tokens=POSITIONS, decoder=unmask(own)) for prompt, own in pairs]
    texts = np.full((len(some), LENGTH), WORDS.index(END), np.int32)
    for row, prompt, answer in zip(texts, some, found, strict=True):
        row[:PROMPT] = model.tokenizer.encode(prompt.text)
        row[PROMPT : PROMPT + len(answer.tokens)] = answer.tokens
    return Answers(texts, np.array([answer.stats.forwards for answer in found]))


@dataclass(frozen=True)
class Score:
    """What a decoder made of prompts, of each task: the share of right answers, and forwards of a prompt."""

    right: dict[str, float]
    forwards: dict[str, float]

    @staticmethod
    def one_answer(of_tasks: dict[str, float]) -> float:
        """The mean of the tasks whose answer follows from the prompt."""
        return float(np.mean([of_tasks[task] for task in DETERMINISTIC]))


def score(model: fd.Model, rule: Rule | Sequence[Rule], some: Sequence[ListPrompt]) -> Score:
    found = answers_of(model, some, rule)
    right: dict[str, list[bool]] = {}
    forwards: dict[str, list[int]] = {}
    for prompt, answer, count in zip(some, found.written, found.forwards.tolist(), strict=True):
        right.setdefault(prompt.task, []).append(judge(prompt, answer))
        forwards.setdefault(prompt.task, []).append(count)
    return Score(*({task: float(np.mean(of_task)) for task, of_task in each.items()} for each in (right, forwards)))


def choice_kept(engine: Engine, task: str, count: int) -> float:
    """How free the first word of an answer is: its law's entropy where all is masked, over that of any word of the list alike."""
    some = prompts(task, count)
    texts = np.full((count, LENGTH), MASK, np.int32)
    texts[:, :PROMPT] = [[WORDS.index(word) for word in prompt.text.split()] for prompt in some]
    rows, most = PROMPT + LENGTH * np.arange(count), engine.rows // LENGTH
    batch = batch_of(list(texts))
    logits = np.concatenate(
        [
            engine.logits(batch.part(at, min(at + most, count)), rows[: min(most, count - at)])
            for at in range(0, count, most)
        ]
    )
    logits[:, MASK] = -np.inf
    return float(entropy(logits, gradient=False).rows.sum() / sum(np.log(len(prompt.slots)) for prompt in some))
