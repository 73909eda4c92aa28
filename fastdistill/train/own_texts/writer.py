"""A target writes texts, many at once, and the state that gave each token is kept: decoding has made it anyway."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import check_has
from fastdistill.decode.autoregressive import AutoregressiveRun
from fastdistill.decode.drafters.copies import Repeats
from fastdistill.decode.engine import MOST_TEXTS, Engine, Task
from fastdistill.decode.generation import Generation, unless_failed
from fastdistill.decode.request import Request
from fastdistill.errors import ArgumentError
from fastdistill.models.plan import Plan
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Rows
from fastdistill.train.data.rollouts import tasks_of
from fastdistill.train.own_texts.texts import Texts

LOOP = 32  # tokens: a text that ends with so many that stood in it before repeats itself, and is ended


class Written(NamedTuple):
    """A text that has ended.

    Attributes
    ----------
    prompt : Sequence[int]
        token ids
    result : Generation
        what became of it
    states : list[np.ndarray]
        float32 (n, width) of each forward that gave tokens: what the head read, then the taps
    """

    prompt: Sequence[int]
    result: Generation
    states: list[np.ndarray]


class TextWriter:
    """Has a model write; texts come in the order in which they were asked for, and each is what it would be alone.

    Parameters
    ----------
    model : Model
    seed : int
    max_tokens : int
        most of each text
    max_texts : int, default 32
        so many are written at once
    max_length : int, optional
        most tokens of a prompt and its text
    taps : tuple[str, ...], default ()
        names of hidden states to keep beside what the head reads

    Raises
    ------
    ArgumentError
    """

    def __init__(
        self, model: Any, seed: int, max_tokens: int, max_texts: int = MOST_TEXTS, max_length: int | None = None,
        taps: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        check_has("model", model, ["network", "end_tokens"], "a Model")
        self._taps = taps
        self._model, self._seed, self._most = model, seed, (max_tokens, max_length)
        self._engine = Engine(max_texts)
        self._asked = deque[tuple[Task, _Watching]]()

    @property
    def waiting(self) -> int:
        """Texts that have been asked for and have not come."""
        return len(self._asked)

    def ask(
        self, prompts: Iterable[Sequence[int] | np.ndarray], numbers: Sequence[int] | None, temperature: float
    ) -> None:
        """Have texts written behind prompts: `write_texts`."""
        prompts = [*prompts]
        watching = [_Watching([*map(int, prompt)], self._taps) for prompt in prompts]
        tasks = tasks_of(self._model, prompts, self._seed, temperature, *self._most, None, numbers, watching)
        for task, watched in zip(tasks, watching, strict=True):
            self._asked.append((self._engine.submit(task), watched))

    def step(self) -> list[Written]:
        """One forward of all that are being written; the texts that come."""
        self._engine.step()
        for task, watched in self._asked:
            if watched.loops and not task.finished:
                self._engine.cancel(task)
        come = []
        while self._asked and self._asked[0][0].finished:
            task, watched = self._asked.popleft()
            come.append(Written(watched.prompt, task.result, watched.states))
        return come

    def cut(self) -> list[Written]:
        """End all texts where they are; those of a token at least."""
        for task, _ in self._asked:
            self._engine.cancel(task)
        return [text for text in self.step() if text.result.tokens]


def gathered(texts: Sequence[Written], plan: Plan, taps: Sequence[str]) -> Texts:
    """Texts that have come, one after another, of a model from which these taps are kept; of those that failed what there is."""
    tokens = [np.array(text.result.tokens, np.int32) for text in texts]
    widths = [plan.hidden_size, *(plan.widths[plan.taps[name]] for name in taps)]
    nothing = np.empty((0, sum(widths)), np.float32)

    def kept(text: Written) -> np.ndarray:
        states = np.concatenate([nothing, *text.states])[: len(text.result.tokens)]
        last, *others = np.split(states, np.cumsum(widths)[:-1], axis=1)
        return np.concatenate([last, *map(_unit, others)], axis=1).astype(np.float16)

    states = [kept(text) for text in texts]
    prompts = [np.array(text.prompt, np.int32) for text in texts]
    starts, prompt_starts = (np.cumsum([0, *map(len, some)], dtype=np.int64) for some in (tokens, prompts))
    return Texts(np.concatenate(tokens), np.concatenate(states), starts, np.concatenate(prompts), prompt_starts)


def _unit(x: np.ndarray) -> np.ndarray:
    """Rows of root mean square 1: float16 does not hold the states of every model as they are."""
    return x / np.maximum(np.sqrt(np.square(x).mean(axis=1, keepdims=True)), np.finfo(np.float32).tiny)


def write_texts(
    model: Any,
    prompts: Iterable[Sequence[int] | np.ndarray],
    *,
    temperature: float = 0.0,
    seed: int = 0,
    max_tokens: int = 256,
    numbers: Sequence[int] | None = None,
    max_texts: int = MOST_TEXTS,
    taps: tuple[str, ...] = (),
) -> Texts:
    """What a model writes behind each prompt, and the states that gave it.

    Parameters
    ----------
    model : Model
    prompts : iterable of token ids
    temperature : float, default 0.0
    seed : int, default 0
    max_tokens : int, default 256
        most of each text
    numbers : sequence of int, optional
        of each prompt: seed and number fix what is drawn; None: 0, 1, 2, ...
    max_texts : int, default 32
        so many are written at once
    taps : tuple[str, ...], default ()
        names of hidden states to keep beside what the head reads, at root mean square 1

    Raises
    ------
    ArgumentError
    CapacityError
        for a prompt that leaves no room for a token
    PartialError
        where some texts failed
    """
    prompts = [*prompts]
    if not prompts:
        raise ArgumentError("prompts must have at least one, got none")
    writer, texts = TextWriter(model, seed, max_tokens, max_texts, taps=taps), list[Written]()
    writer.ask(prompts, numbers, temperature)
    while writer.waiting:
        texts += writer.step()
    unless_failed([text.result for text in texts])
    return gathered(texts, model.network.plan, taps)


class _Watching:
    """Plain decoding that keeps the state behind each token, and says when the text loops."""

    def __init__(self, prompt: Sequence[int], taps: tuple[str, ...]) -> None:
        self.prompt, self.taps, self.states = prompt, taps, list[np.ndarray]()
        self.repeats, self.loops = Repeats(LOOP), False

    def start(self, session: SessionLike, request: Request) -> _WatchingRun:
        return _WatchingRun(session, request, self)


class _WatchingRun(AutoregressiveRun):
    def __init__(self, session: SessionLike, request: Request, watching: _Watching) -> None:
        super().__init__(session, request)
        self._watching, self._goes_on = watching, False  # what a session draws by itself has no states

    def forward(self) -> Forward:
        asked = super().forward()
        return replace(asked, read=replace(asked.read, hidden=True))

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        watching = self._watching
        if rows.tokens is not None:
            assert rows.hidden is not None
            taps = [rows.taps[name][-1:] for name in watching.taps]  # of a prompt's rows the last one alone is read
            watching.states.append(np.concatenate([rows.hidden, *taps], axis=1))
        taken = super().take(rows)
        watching.loops |= watching.repeats.append(token for token, _ in taken)
        return taken
