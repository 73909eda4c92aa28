"""Models of the list tasks that are trained here: from random weights or from a model's own, and what they then can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fastdistill as fd
from bench.lib.list_tasks import DETERMINISTIC, END, POSITIONS, PROMPT, TASKS, WORDS, ListPrompt, judge, prompts
from fastdistill.checkpoint import Tensor, open_checkpoint
from fastdistill.decode import Decoder, Unmask
from fastdistill.embedded import embedded_folder
from fastdistill.models import plan_of
from fastdistill.models.plan import Plan
from fastdistill.train import EMA, AdamW, Batch, Engine, Schedule, batch_of, save_model
from fastdistill.train.batch import Objective
from fastdistill.train.loop import Record, train
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
    objective: Objective,
    recipe: Recipe,
    report: Callable[[Record], None] | None = None,
) -> EMA:
    """Train; the mean of the weights is what has been made."""
    threads = engine.threads
    optimiser = AdamW(engine.parameters, beta2=recipe.beta2, weight_decay=recipe.weight_decay, threads=threads)
    average = EMA(engine.parameters, recipe.average, threads=threads)
    train(
        engine, optimiser, lambda step: [batches(step)], objective, steps=recipe.steps, clip=recipe.clip, average=average, report=report,
        learning_rate=Schedule("cosine", recipe.rate, recipe.steps, min(recipe.warm_up, recipe.steps)),
    )  # fmt: skip
    return average


def save(engine: Engine, average: EMA, folder: Path) -> None:
    """The mean of the weights, with the embedded model's tokenizer."""
    with average.swapped():
        save_model(engine.plan, engine.parameters, folder_of(EMBEDDED), folder)


@contextmanager
def loaded(engine: Engine, average: EMA) -> Iterator[fd.Model]:
    """What has been trained, to decode with."""
    with TemporaryDirectory() as folder:
        save(engine, average, Path(folder) / "model")
        yield fd.load(Path(folder) / "model", threads=engine.threads)


def some_prompts(count: int, seed: int = 0) -> list[ListPrompt]:
    """So many of each task."""
    return [prompt for task in TASKS for prompt in prompts(task, count, seed)]


def unmask(rule: Rule) -> Unmask:
    """All ten positions are filled, so that forwards can be compared."""
    return Unmask(rule, early_exit=False)


def answers_of(model: fd.Model, texts: Sequence[str], decoder: Decoder) -> tuple[np.ndarray, float]:
    """int32 (texts, LENGTH), prompts with a model's answers, filled up with ends; and forwards of one."""
    found = model.generate(list(texts), max_tokens=POSITIONS, decoder=decoder)
    rows = np.full((len(texts), LENGTH), WORDS.index(END), np.int32)
    for row, text, answer in zip(rows, texts, found, strict=True):
        row[:PROMPT] = model.tokenizer.encode(text)
        row[PROMPT : PROMPT + len(answer.tokens)] = answer.tokens
    return rows, sum(answer.stats.forwards for answer in found) / len(found)


@dataclass(frozen=True)
class Score:
    """What a decoder made of prompts: right answers, as a share of each task's, and forwards of a prompt."""

    right: dict[str, float]
    forwards: float

    @property
    def one_answer(self) -> float:
        """The mean of tasks whose answer follows from the prompt."""
        return float(np.mean([self.right[task] for task in DETERMINISTIC]))


def score(model: fd.Model, rule: Rule, some: Sequence[ListPrompt]) -> Score:
    texts, forwards = answers_of(model, [prompt.text for prompt in some], unmask(rule))
    right: dict[str, list[bool]] = {}
    for prompt, text in zip(some, texts, strict=True):
        right.setdefault(prompt.task, []).append(judge(prompt, text[PROMPT:]))
    return Score({task: float(np.mean(each)) for task, each in right.items()}, forwards)


def choice_kept(engine: Engine, average: EMA | None, task: str, count: int) -> float:
    """How free the first word of an answer is: its law's entropy where all is masked, over that of any word of the list alike."""
    some, length = prompts(task, count), engine.rows // LENGTH
    entropies, words = [], dict(zip(WORDS, range(len(WORDS)), strict=True))
    for first in range(0, count, length):
        part = some[first : first + length]
        texts = np.full((len(part), LENGTH), MASK, np.int32)
        texts[:, :PROMPT] = [[words[word] for word in prompt.text.split()] for prompt in part]
        rows = np.arange(len(part)) * LENGTH + PROMPT
        if average is None:
            logits = engine.logits(batch_of(list(texts)), rows)
        else:
            with average.swapped():
                logits = engine.logits(batch_of(list(texts)), rows)
        logits[:, MASK] = -np.inf
        law = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
        law /= law.sum(axis=1, keepdims=True)
        entropies += (-np.sum(law * np.log(np.maximum(law, 1e-300)), axis=1)).tolist()
    return sum(entropies) / sum(float(np.log(len(prompt.slots))) for prompt in some)
