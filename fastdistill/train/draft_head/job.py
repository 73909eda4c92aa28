"""A target distils its own draft head, within so many minutes: it writes texts, the head learns from them, and is judged on some."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.arguments import check_choice, check_integer, check_number, check_path
from fastdistill.checkpoint import eos_token_ids, open_checkpoint
from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.distill.laws.divergence import divergence
from fastdistill.distill.loss import Loss
from fastdistill.errors import CheckpointError, DataError, UnsupportedError
from fastdistill.fetch import find_folder
from fastdistill.files import read_json, replace_file, work_folder
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.models import Plan, plan_of
from fastdistill.models.draft_head import HEAD, HEAD_BIAS, SHARES, TABLE, DraftHead, SavedHead
from fastdistill.runtime.network import Network
from fastdistill.text.chat import render_chat
from fastdistill.text.tokenizer import Tokenizer
from fastdistill.train.data.examples import examples
from fastdistill.train.data.own_prompts import own_prompts
from fastdistill.train.data.records import read_records
from fastdistill.train.draft_head.acceptance import Acceptance, acceptance
from fastdistill.train.draft_head.closed_form import first_weights
from fastdistill.train.draft_head.engine import HeadBatch, HeadEngine
from fastdistill.train.draft_head.texts import Texts, write_texts
from fastdistill.train.loop import Record, train
from fastdistill.train.optimisers import AdamW, Schedule
from fastdistill.train.runs import RunFolder

TOGETHER = 64  # prompts whose texts are written at once, and kept
HELD_OUT = 16  # of so many texts one is for judging alone
FADING = 0.8  # what a step's guess counts, beside the guess before it
OFTEN = 3  # of so many steps of the optimiser one goes through all steps of the head
SURE = 8.0  # guesses that a prior counts for
AGAIN = "the same call"  # goes on with what there is
_OWN = 8192  # prompts of the package: more than any half hour needs
_TEXT_PROMPT = 32  # tokens of a plain text that are a prompt
_LEAST_ROOM = 16  # tokens of a text

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What decides a draft head.

    Parameters
    ----------
    model : str
        the target: a folder, or the name of a model that has been fetched
    minutes : float, default 30.0
        of work in all
    writing : float, default 0.4
        the share of them in which the target writes
    prompts : str, optional
        a .jsonl or .txt file or a folder, as `fastdistill train` reads them: their prompts come beside the package's own
    max_tokens : int, default 256
        of a text
    temperature : float, default 0.8
        of every third lot of texts; the others are greedy
    draft_vocab_size : int, default 8192
        tokens that it can guess: the most frequent ones of the texts
    intermediate_size : int, default 1536
        of its feed-forward network
    steps : int, default 3
        guesses in a row that it learns
    objective : str, default "forward_kl"
        a divergence of its law from the target's, over the tokens that it can guess
    learning_rate : float, default 1e-3
        the highest
    rows : int, default 256
        of a batch
    format : str, default "q4"
        that the head is kept in: "q4", "q8", "f16" or "f32"
    seed : int, default 0
        of what is drawn: the order of prompts, the texts that are not greedy, the first weights, the order of batches
    threads : int, optional
        change no bit

    Raises
    ------
    ArgumentError
    """

    model: str
    minutes: float = 30.0
    writing: float = 0.4
    prompts: str | None = None
    max_tokens: int = 256
    temperature: float = 0.8
    draft_vocab_size: int = 8192
    intermediate_size: int = 1536
    steps: int = 3
    objective: str = "forward_kl"
    learning_rate: float = 1e-3
    rows: int = 256
    format: str = "q4"
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("model", "prompts"):
            if name == "model" or self.prompts is not None:
                check_path(name, getattr(self, name))
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
        check_number("minutes", self.minutes, 1e-3, 1e6)
        check_number("writing", self.writing, 0.01, 0.99)
        check_integer("max_tokens", self.max_tokens, 4, 1 << 20)
        check_number("temperature", self.temperature, 0, 1e3)
        for name in ("draft_vocab_size", "intermediate_size", "steps", "rows"):
            check_integer(name, getattr(self, name), 1, 1 << 20)
        check_choice("objective", self.objective, KINDS)
        check_number("learning_rate", self.learning_rate, 0, 10)
        check_choice("format", self.format, ("q4", "q8", "f16", "f32"))
        check_integer("seed", self.seed, 0, 2**63 - 1)


@dataclass(frozen=True, eq=False)
class Target:
    """The model that distils.

    Attributes
    ----------
    folder : Path
        where it is
    network : Network
        what runs it
    tokenizer : Tokenizer
        its own
    end_tokens : frozenset[int]
        those that end a text
    """

    folder: Path
    network: Network
    tokenizer: Tokenizer
    end_tokens: frozenset[int]

    @property
    def plan(self) -> Plan:
        return self.network.plan

    @classmethod
    def load(cls, model: str, threads: int | None) -> Target:
        """From a folder, or by the name of a model that has been fetched."""
        folder = find_folder(model)
        with open_checkpoint(folder) as checkpoint:
            network = Network(plan_of(checkpoint), checkpoint.tensors, None, threads)
            ends = eos_token_ids(checkpoint.config, checkpoint.generation_config)
        return cls(folder, network, Tokenizer(folder), ends)


def distill_head(
    settings: HeadSettings,
    folder: str | os.PathLike[str],
    *,
    report: Report = lambda words: None,
    writing: Callable[[float, int], None] = lambda share, tokens: None,
    training: Callable[[int], Callable[[Record], None]] = lambda steps: lambda record: None,
    stop: Callable[[], bool] = lambda: False,
) -> Acceptance | None:
    """Make a draft head, as a folder for `HeadDrafter`; what an interrupt leaves beside it the same call goes on with.

    Parameters
    ----------
    settings : HeadSettings
    folder : str or PathLike
        to make; until it is there, FOLDER.run holds the work
    report : Callable[[str], None], optional
        called with what is being done
    writing : Callable[[float, int], None], optional
        called with the share that is written, and how many tokens that is
    training : Callable[[int], Callable[[Record], None]], optional
        called with how many steps there will be: what is called with the metrics of each
    stop : Callable[[], bool], optional
        asked now and then whether to keep what there is, and end

    Returns
    -------
    Acceptance or None
        on texts that it has not learnt from; None: it was asked to stop

    Raises
    ------
    ArgumentError, CheckpointError, UnsupportedError, DataError, TextError
    BusyError
        where another process is at work on it
    """
    folder = check_path("folder", folder)
    if os.path.lexists(folder):
        raise CheckpointError(f"{folder}: is there already: choose another name")
    work = folder.with_name(f"{folder.name}.run")
    report(f"loading {settings.model}")
    model = Target.load(
        settings.model, settings.threads
    )  # what is wrong with it, or with the prompts, leaves no folder behind
    if not model.plan.causal or "logits" not in model.plan.outputs:
        raise UnsupportedError(f"a draft head is for a causal model with a head, which {settings.model} is not")
    if settings.prompts is not None and next(_of_files(settings.prompts, model), None) is None:
        raise DataError(f"{settings.prompts}: holds no prompt")
    config = {"settings": asdict(replace(settings, threads=None))}
    begun = work.exists()
    with RunFolder(work, None if begun else config, AGAIN) as run:
        if begun and run.config.get("settings") != json.loads(json.dumps(config))["settings"]:
            raise CheckpointError(f"{work}: was begun with other settings; remove it, or choose another name")
        texts = _written(settings, model, work, report, writing, stop)
        if texts is None:
            return None
        report(f"{len(texts):,} texts of {len(texts.tokens):,} tokens; the linear cell in closed form")
        head = _Head(settings, model, texts)
        if not head.train(run, training, stop):
            return None
        found = head.save(folder)
    shutil.rmtree(work, ignore_errors=True)
    return found


def _written(
    settings: HeadSettings,
    model: Target,
    work: Path,
    report: Report,
    writing: Callable[[float, int], None],
    stop: Callable[[], bool],
) -> Texts | None:
    """What the target writes in its share of the minutes, lot by lot; those of an earlier call are taken as they are."""
    place = work / "texts"
    place.mkdir(exist_ok=True)
    done = place / "done"
    lots = [Texts.load(path) for path in sorted(place.glob("*.safetensors"))]
    if lots:
        report(f"{sum(len(lot.tokens) for lot in lots):,} tokens have been written already")
    began, seconds, prompts = time.monotonic(), 60 * settings.minutes * settings.writing, _prompts(settings, model)
    spent = read_json(place / "time.json")["seconds"] if lots else 0.0
    begin = len(lots) * TOGETHER
    for _ in range(begin):
        next(prompts, None)
    while not done.exists():
        lot = [prompt for _, prompt in zip(range(TOGETHER), prompts, strict=False)]
        taken = spent + time.monotonic() - began
        if not lot or (lots and taken >= seconds):
            done.touch()
            break
        if stop():
            return None
        numbers = range(begin, begin := begin + len(lot))
        temperature = settings.temperature if len(lots) % 3 == 2 else 0.0
        most = settings.max_tokens
        lots.append(
            write_texts(model, lot, temperature=temperature, seed=settings.seed, max_tokens=most, numbers=numbers)
        )
        taken = spent + time.monotonic() - began
        _keep(place / "time.json", {"seconds": taken})
        with _writing_to(place):
            lots[-1].save(place / f"{len(lots):06}.safetensors")
        writing(min(taken / seconds, 1.0), sum(len(lot.tokens) for lot in lots))
    if not any(len(lot.places) for lot in lots):
        raise DataError(
            f"{settings.model}: {sum(map(len, lots))} texts have come, of which none has two tokens: a prompt must leave room for "
            f"{_LEAST_ROOM} tokens of the model's {model.plan.max_positions}"
        )
    return Texts.joined(lots)


@contextmanager
def _writing_to(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{place}: cannot be written: {error.strerror or error}; nothing before is lost: {AGAIN} goes on"
        ) from error


def _keep(path: Path, facts: Mapping[str, float]) -> None:
    """Write a JSON file, whole or not at all."""
    with _writing_to(path), work_folder(path) as work:
        (work / "facts").write_text(json.dumps(facts), "utf-8")
        replace_file(path, work / "facts")


def _prompts(settings: HeadSettings, model: Target) -> Iterator[list[int]]:
    """Token ids: the user's, each before one of the package's own while there are some of both; those that leave no room are left out."""
    prompts: Iterator[list[int]] = (_asked(model, text) for text in own_prompts(_OWN, settings.seed))
    if settings.prompts is not None:
        theirs = _of_files(settings.prompts, model)
        pairs = zip(theirs, prompts, strict=False)
        prompts = chain(chain.from_iterable(pairs), theirs, prompts)
    return (prompt for prompt in prompts if len(prompt) + _LEAST_ROOM <= model.plan.max_positions)


def _asked(model: Target, text: str) -> list[int]:
    """A question as the model is asked it: by its template, where it has one."""
    if model.tokenizer.config.chat_template is None:
        return model.tokenizer.encode(text)
    asked = render_chat(model.tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)
    return model.tokenizer.encode(asked, special=False)


def _of_files(paths: str, model: Target) -> Iterator[list[int]]:
    for _, record in read_records(paths):
        for example in examples(record, model.tokenizer):
            prompt: list[int] = []
            for part in example:
                if part.answer:
                    prompt = prompt or part.tokens[:_TEXT_PROMPT]
                    break
                prompt += part.tokens
            if prompt:
                yield prompt


class _Head:
    """A draft head, its texts, and what trains it."""

    def __init__(self, settings: HeadSettings, model: Target, texts: Texts) -> None:
        self.settings = settings
        held = np.arange(len(texts)) % HELD_OUT == HELD_OUT - 1
        parts = [texts.part(number, number + 1) for number in range(len(texts))]
        self.seen = Texts.joined([part for part, out in zip(parts, held, strict=True) if not out])
        self.unseen = Texts.joined([part for part, out in zip(parts, held, strict=True) if out] or parts[-1:])
        plan = model.plan
        counts = np.bincount(self.seen.tokens, minlength=plan.vocab_size)
        size = min(settings.draft_vocab_size, plan.vocab_size)
        self.d2t = np.sort(np.argsort(-counts, kind="stable")[:size]).astype(np.int32)
        table_op = next(op for op in plan.ops if op.kind == "embedding")
        head_op = next(op for op in plan.ops if op.kind == "head")
        with open_checkpoint(model.folder) as checkpoint:
            weights = {
                name: plan.weights[name].source.tensor(checkpoint.tensors).rows(...)
                for name in {table_op.weights[0], *head_op.weights}
            }
        table = self.table = weights[table_op.weights[0]]
        rows = {name: weights[of].rows(self.d2t) for name, of in zip((HEAD, HEAD_BIAS), head_op.weights, strict=False)}
        scales = [op.constants["factor"] for op in plan.ops if op.kind == "scale" and op.output in head_op.inputs]
        self.shape = DraftHead(
            plan.hidden_size, table.shape[1], plan.vocab_size, size, settings.intermediate_size,
            logit_scale=math.prod(scales), logit_softcap=head_op.constants.get("softcap", 0.0), head_bias=HEAD_BIAS in rows,
        )  # fmt: skip
        first = first_weights(self.shape, self.seen, table, seed=settings.seed)
        self.kept = {name: Tensor(name, some.format, some.shape, **some.parts) for name, some in rows.items()}
        self.engine = HeadEngine(
            self.shape, {**first, TABLE: table, **self.kept},
            steps=settings.steps, rows=settings.rows, threads=settings.threads,
        )  # fmt: skip
        self._places = self.seen.places
        self._order: tuple[int, np.ndarray] = (-1, self._places)

    def train(
        self, run: RunFolder, training: Callable[[int], Callable[[Record], None]], stop: Callable[[], bool]
    ) -> bool:
        """As many steps as the time that is left allows, found once; whether they are done."""
        file = run.path / "steps.json"
        if not file.exists():
            _keep(file, {"steps": self._affordable()})
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
        each = max(len(self._places) // self.settings.rows, 1)
        epoch, number = divmod(step, each)
        if self._order[0] != epoch:
            chance = np.random.Generator(np.random.Philox(key=[self.settings.seed, epoch]))
            self._order = epoch, self._places[np.argsort(chance.random(len(self._places)), kind="stable")]
        at = np.sort(self._order[1][number * self.settings.rows : (number + 1) * self.settings.rows])
        return self.seen.batch(at, self.settings.steps if step % OFTEN == 0 else 1, FADING)

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
        found = acceptance(held, self.unseen, self.d2t)
        facts: dict[str, Any] = {
            "target": Path(self.settings.model).name,
            "acceptance": [round(float(rate), 4) for rate in found.ranks[:, 0]],
            "tokens_of_texts": len(self.seen.tokens),
        }
        SavedHead(self.shape, self.d2t, tensors, _priors(found), facts).save(folder)
        return found

    def _affordable(self) -> int:
        """Steps of the optimiser in the time that writing has left: by what a few take, which change nothing."""
        parameters = self.engine.parameters
        samples = []
        for step in range(2 * OFTEN):
            began = time.monotonic()
            batch = self.batch(step)
            self.engine.accumulate(batch, self._objective, float(batch.weights.sum()))
            samples.append(time.monotonic() - began)
        parameters.zero_gradients()
        seconds = 60 * self.settings.minutes * (1 - self.settings.writing)
        return max(int(seconds / (1.08 * float(np.mean(samples[OFTEN:])))), 1)

    def _objective(self, logits: np.ndarray, theirs: np.ndarray, weights: np.ndarray, total_weight: float) -> Loss:
        return divergence(
            logits, theirs, self.settings.objective, weights=weights, total_weight=total_weight, out=logits
        )


def _priors(found: Acceptance) -> tuple[tuple[float, float], ...]:
    """Of each kind as SURE guesses: as many right of them as there were, between what its share says where few were asked."""
    middles = np.array([0.01, *(np.array(SHARES[:-1]) + SHARES[1:]) / 2, 0.985])
    right = found.counts[:, 0] + SURE * middles
    rates = np.clip(right / (found.counts.sum(axis=1) + SURE), 0.005, 0.995)
    return tuple((float(round(SURE * rate, 4)), float(round(SURE * (1 - rate), 4))) for rate in rates)
