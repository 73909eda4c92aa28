"""Texts that the student writes itself, to learn from what it does with a prompt, and not from what others did (on-policy).

With probability lambda an example is the student's own (Agarwal et al. 2024, GKD).  No gradient goes through the drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastdistill.arguments import check_callable, check_has, check_instance, check_integer, check_integers, check_number
from fastdistill.decode.autoregressive import Autoregressive
from fastdistill.decode.engine import MOST_TEXTS, Beginning, Task, write
from fastdistill.decode.generation import unless_failed
from fastdistill.decode.request import Decoder, Request
from fastdistill.decode.text import Text, prepare_session
from fastdistill.errors import ArgumentError, CapacityError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.train.batch import Batch, batch_of
from fastdistill.train.data.chance import MIXTURE, uniforms
from fastdistill.train.data.packing import Batches

MAX_TOKENS = 128


def rollouts(
    model: Any,
    prompts: Iterable[Sequence[int] | np.ndarray],
    *,
    seed: int = 0,
    temperature: float = 1.0,
    max_tokens: int = MAX_TOKENS,
    max_length: int | None = None,
    end_tokens: Iterable[int] | None = None,
    numbers: Sequence[int] | None = None,
    max_texts: int = MOST_TEXTS,
) -> Batch:
    """What a model writes behind each prompt, its own tokens being what is to be predicted.

    Parameters
    ----------
    model : Model or Network
    prompts : iterable of token ids
    seed : int, default 0
        64 bits
    temperature : float, default 1.0
        0: the likeliest tokens
    max_tokens : int, default 128
        most of each text
    max_length : int, optional
        most tokens of prompt and text; the model's positions are, in any case
    end_tokens : iterable of int, optional
        tokens that end a text, as its last one; None: those of the Model (a Network knows none)
    numbers : sequence of int, optional
        of each prompt, below 2^32: seed and number fix what is drawn, whatever is written beside it; None: 0, 1, 2, ...
    max_texts : int, default 32
        so many are written at once

    Raises
    ------
    ArgumentError
    CapacityError
        for a prompt that leaves no room for a token
    PartialError
        where some texts failed
    UnsupportedError
        for a model that is not causal
    """
    texts = written(model, prompts, seed, temperature, max_tokens, max_length, end_tokens, numbers, max_texts)
    return batch_of([np.concatenate(both) for both in texts], [_drawn(*both) for both in texts])


def _drawn(prompt: np.ndarray, text: np.ndarray) -> np.ndarray:
    """bool: which tokens of both are the text's."""
    return np.arange(len(prompt) + len(text)) >= len(prompt)


def written(
    model: Any, prompts: Iterable[Any], seed: int, temperature: float, max_tokens: int, max_length: int | None,
    end_tokens: Iterable[int] | None, numbers: Sequence[int] | None, max_texts: int,
) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Each prompt and what is written behind it: `rollouts`."""
    tasks = tasks_of(model, prompts, seed, temperature, max_tokens, max_length, end_tokens, numbers)
    texts = unless_failed(write(tasks, max_texts))
    return [(task.prompt, np.array(text.tokens, np.int32)) for task, text in zip(tasks, texts, strict=True)]


def tasks_of(
    model: Any, prompts: Iterable[Any], seed: int, temperature: float, max_tokens: int, max_length: int | None,
    end_tokens: Iterable[int] | None, numbers: Sequence[int] | None, decoders: Sequence[Decoder] | None = None,
) -> list[Task]:  # fmt: skip
    """For an Engine: of each prompt what is to be written behind it, by a decoder of its own where these are given."""
    network = getattr(model, "network", model)
    check_has("model", network, ["session", "vocab_size", "plan"], "a Model or a Network")
    if not network.plan.causal:
        raise UnsupportedError("rollouts need a causal model: this one fills in masks")
    most, long_beyond = network.plan.max_positions, network.plan.long_beyond
    if max_length is not None:
        most = min(most, check_integer("max_length", max_length, 2, 2**31 - 1))
    max_tokens = check_integer("max_tokens", max_tokens, 1, 1 << 30)
    given = [check_integers("a prompt", prompt, 0, network.vocab_size - 1) for prompt in prompts]
    ends = frozenset(getattr(model, "end_tokens", ()) if end_tokens is None else end_tokens)
    each = range(len(given)) if numbers is None else numbers
    if len(each) != len(given):
        raise ArgumentError(f"numbers must name each of {len(given)} prompts, got {len(each)}")
    if decoders is None:
        decoders = [Autoregressive()] * len(given)

    def task(prompt: np.ndarray, number: int, decoder: Decoder) -> Task:
        sampler = Sampler(temperature=temperature, seed=seed, sequence=number)
        room = min(max_tokens, most - len(prompt))
        if room < 1:
            raise CapacityError(f"a prompt of {len(prompt)} tokens leaves no room for a token within {most}")

        def begin(beginning: Beginning | None) -> Text:
            session = network.session(len(prompt) + room, taps=getattr(decoder, "taps", ()))
            if beginning is not None:
                session.share(*beginning)
            request = Request(prompt, prepare_session(session, prompt), sampler, max_tokens=room, end_tokens=ends)
            return Text(session, request, decoder, None)

        # Those of one family may begin with each other's rows: with the same rotary frequencies, that is.
        return Task(prompt, begin, family=0 < long_beyond < len(prompt) + room)

    return [task(*of_it) for of_it in zip(given, each, decoders, strict=True)]


class OnPolicy:
    """`batches[n]`, of which each example that has a prompt is with probability lam what the student writes behind it.

    Which examples these are is a function of the seed and of their place in the run; what is written is one of that and
    of the student's weights.  So a run that resumes with the same weights writes the same.

    Parameters
    ----------
    batches : Batches
    student : Callable[[], Model or Network]
        gives the student as it is now: called once a batch that needs it
    lam : float, default 0.5
        0 to 1
    temperature : float, default 1.0
    max_tokens : int, default 128
    end_tokens : iterable of int, optional
        as in `rollouts`
    max_length : int, optional
        likewise; None: the rows of a batch, so that `Batch.split` can part what the texts have made longer

    Raises
    ------
    ArgumentError
        also for batches that have a teacher's rows, which no rollout can have
    """

    def __init__(
        self,
        batches: Batches,
        student: Callable[[], Any],
        lam: float = 0.5,
        *,
        temperature: float = 1.0,
        max_tokens: int = MAX_TOKENS,
        end_tokens: Iterable[int] | None = None,
        max_length: int | None = None,
    ) -> None:
        check_instance("batches", batches, Batches)
        check_callable("student", student)
        self._lam = check_number("lam", lam, 0, 1)
        if lam > 0 and batches.teacher is not None:
            raise ArgumentError("a teacher file has rows of the data alone: rollouts need a Teacher that runs beside")
        if lam > 0 and not (batches.data.prompts > 0).any():
            raise ArgumentError(f"lam = {lam:g} needs examples with prompts, the data has none")
        self._batches, self._student = batches, student
        self._options: dict[str, Any] = {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "end_tokens": end_tokens,
            "max_length": batches.rows if max_length is None else max_length,
            "max_texts": MOST_TEXTS,
        }

    def count(self, epochs: int = 1) -> int:
        """How many batches the first epochs have."""
        return self._batches.count(epochs)

    def own(self, number: int) -> np.ndarray:
        """bool (sequences,): which examples of batch `number` the student writes."""
        sequences, epoch, _ = self._batches.drawn(number)
        data, chances = self._batches.data, uniforms(self._batches.seed, MIXTURE, epoch, sequences)
        alone = data.predicted[sequences] == 0  # there is nothing else to learn
        return np.asarray((data.prompts[sequences] > 0) & ((chances < self._lam) | alone))

    def __getitem__(self, number: int) -> Batch:
        sequences, epoch, first = self._batches.drawn(number)
        own = self.own(number)
        if not own.any():
            return self._batches[number]
        data = self._batches.data
        sequences_of = [data.tokens[data.rows(each)] for each in sequences]
        counted = [data.counted[data.rows(each)] for each in sequences]
        which = np.flatnonzero(own)
        prompts = [sequences_of[each][: data.prompts[sequences[each]]] for each in which]
        numbers = ((epoch * self._batches.per_epoch + first + which) % 2**32).tolist()
        options = self._options | {"seed": self._batches.seed, "numbers": numbers}
        for each, (prompt, text) in zip(which, written(self._student(), prompts, **options), strict=True):
            sequences_of[each], counted[each] = np.concatenate([prompt, text]), _drawn(prompt, text)
        return batch_of(sequences_of, counted)
