"""What `generate` and `fill` are asked for, as tasks of the engine: options checked once, a prompt or a source, a decoder, a session."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from typing import Any, Protocol

import numpy as np

from fastdistill.arguments import check_integer, check_integers
from fastdistill.checkpoint import Target
from fastdistill.checkpoint.config import Section
from fastdistill.decode.allowed import allowed_tokens, early_tokens
from fastdistill.decode.auto import Auto
from fastdistill.decode.autoregressive import Autoregressive
from fastdistill.decode.beam_search import MOST_BEAMS, MOST_PENALTY, BeamSearch, drawn_by
from fastdistill.decode.check_decoder import check_decoder
from fastdistill.decode.constraint import Constraint, check_constraint, check_follows
from fastdistill.decode.costs import Costs
from fastdistill.decode.engine import MOST_ROWS, Beginning, Task
from fastdistill.decode.generation import Generation
from fastdistill.decode.request import Decoder, Request
from fastdistill.decode.text import Text, prepare_session
from fastdistill.decode.unmask.decoder import FillsMasks, Unmask
from fastdistill.errors import ArgumentError, BusyError, CapacityError, UnsupportedError, attempt
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.messages import listed, short, warn
from fastdistill.models import Plan
from fastdistill.runtime.network import Network
from fastdistill.runtime.session import Session
from fastdistill.runtime.source import Source, check_source
from fastdistill.text.stream import TextStream, check_stop
from fastdistill.text.tokenizer import Tokenizer

PROCESSORS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)  # those a Sampler has by the same name
MOST_LOGPROBS = 1000
MAX_TOKENS = 128  # of a text, where neither the caller nor the model says
MAX_ROWS = 256  # of a forward, where no decoder needs more


class Writer(Protocol):
    """What a task knows of the model that writes it: `fd.Model`."""

    @property
    def network(self) -> Network: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def target(self) -> Target | None: ...
    @property
    def search(self) -> BeamSearch | None: ...
    @property
    def end_tokens(self) -> frozenset[int]: ...
    @property
    def max_new_tokens(self) -> int | None: ...
    @property
    def has_text(self) -> bool: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def costs(self) -> Costs: ...


class Reading:
    """What texts that are asked for together are written of: sources that come next are read in one pass, as many as it has rows for."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._tokens: list[np.ndarray] = []
        self._ready: dict[int, Source] = {}

    def add(self, tokens: np.ndarray) -> int:
        """The number of one more."""
        self._tokens.append(tokens)
        return len(self._tokens) - 1

    def read(self, number: int) -> Source | None:
        """What the encoder makes of one; None where it fails, perhaps of another: then each is read, and fails, alone."""
        if number not in self._ready:
            rows, end = 0, number
            while end < len(self._tokens) and (end == number or rows + len(self._tokens[end]) <= MOST_ROWS):
                rows, end = rows + len(self._tokens[end]), end + 1
            given = attempt(self._network.encoded, self._tokens[number:end], self._network.cache_dtype)
            if isinstance(given, Exception):
                return None
            self._ready |= zip(range(number, end), given, strict=True)
        return self._ready.pop(number)


def task(
    model: Writer, prompt: Any, asked: Mapping[str, Any], sequence: int = 0, reading: Reading | None = None
) -> Task:
    """A text to be written, as `resolved` options ask.

    Parameters
    ----------
    model : Writer
    prompt : Any
    asked : Mapping[str, Any]
    sequence : int, default 0
        number of the text among those of one prompt and seed
    reading : Reading | None, default None
        of texts that are asked for together
    """
    if isinstance(prompt, str):
        prompt = encoded(model, prompt)
    ids = check_integers("prompt", prompt, 0, model.vocab_size - 1, empty=True)
    if len(ids) == 0:
        raise ArgumentError("the prompt is empty: give at least one token of text to go on from")
    max_tokens = asked["max_tokens"]
    if max_tokens is None:
        max_tokens = MAX_TOKENS if model.max_new_tokens is None else model.max_new_tokens
    max_tokens = check_integer("max_tokens", max_tokens, 0, 1 << 30)
    min_tokens = check_integer("min_tokens", asked["min_tokens"], 0, 1 << 30)
    ends = model.end_tokens.union(
        check_integers("stop_token_ids", asked["stop_token_ids"], 0, model.vocab_size - 1, empty=True).tolist()
    )
    sampler, allowed = _sampler(model, asked, sequence), allowed_tokens(asked["allowed"], model.vocab_size)
    early = early_tokens(allowed, ends, model.vocab_size) if min_tokens else None
    decoder = asked_decoder(model, asked)
    logprobs = check_integer("logprobs", asked["logprobs"], 0, MOST_LOGPROBS)
    stop = check_stop(asked["stop"])
    stream = TextStream(model.tokenizer, stop) if model.has_text or stop else None
    stops = stream if stop else None
    given = asked["session"]
    if given is not None and not isinstance(given, Session):
        raise ArgumentError(f"session must be a Session, got {type(given).__name__}")
    if given is not None and given.network is not model.network:
        raise ArgumentError("session belongs to another model")

    # Those that may begin with each other's rows: of this model, and with the same rotary frequencies.
    long = 0 < model.plan.long_beyond < len(ids) + max_tokens
    family = (id(model.network), long) if given is None and model.plan.causal else None
    fields: dict[str, Any] = dict(
        sampler=sampler, allowed=allowed, allowed_early=early, min_tokens=min_tokens, max_tokens=max_tokens, end_tokens=ends,
        logprobs=logprobs, measured_costs=lambda: model.costs, stops=stops, constraint=_constraint(model, asked, decoder),
    )  # fmt: skip
    if model.target is not None:
        return _task_of(model, model.target, ids, decoder, given, fields, stream, reading)

    def begin(beginning: Beginning | None) -> Text:
        session = _session_for(model, len(ids) + max_tokens, decoder) if given is None else given
        if beginning is not None:
            with suppress(BusyError):  # then it is read here too
                session.share(*beginning)
        cached = prepare_session(session, ids)
        return Text(session, Request(ids, cached, **fields), decoder, stream)

    return Task(ids, begin, family=family)


def fill_task(model: Writer, text: Any, asked: Mapping[str, Any]) -> Task:
    """A text whose masks are to be filled, as `resolved` options ask; one without masks has ended already.

    Parameters
    ----------
    model : Writer
    text : Any
    asked : Mapping[str, Any]
    """
    plan = model.plan
    if plan.causal:
        raise UnsupportedError(
            f"fill needs a model that sees a text from both sides: this one ({plan.architecture}) is causal, and writes on from a prompt"
        )
    if "logits" not in plan.outputs:
        raise UnsupportedError(
            f"this model ({plan.architecture}) has no head that predicts tokens: it gives {listed(plan.outputs)}"
        )
    decoder = asked_decoder(model, asked)
    mask = getattr(decoder, "mask_token", None)
    if mask is None and (mask := plan.mask_token) is None:
        raise ArgumentError("this model's files name no mask token: give decoder=Unmask(mask_token=...)")
    check_integer("mask_token", mask, 0, model.vocab_size - 1)
    sampler, allowed = _sampler(model, asked), allowed_tokens(asked["allowed"], model.vocab_size)
    logprobs = check_integer("logprobs", asked["logprobs"], 0, MOST_LOGPROBS)
    if sampler.top_k and not (getattr(decoder, "temperature", None) or sampler.temperature):
        raise ArgumentError(
            f"top_k={sampler.top_k} limits what is drawn, and at temperature 0 nothing is: logprobs={sampler.top_k} gives the "
            "likeliest tokens of each mask"
        )
    given = text
    if isinstance(text, str):
        given = model.tokenizer.encode(text) if plan.encodes else encoded(model, text)
    ids = check_integers("text", given, 0, model.vocab_size - 1, empty=True)
    if len(ids) > plan.max_positions:
        raise CapacityError(
            f"{len(ids)} tokens are more than {plan.max_positions}, the model's {plan.positions_source}"
        )
    masks = int((ids == mask).sum())
    whole = _Whole(model.tokenizer, ids, mask) if model.has_text else None
    if not masks:
        words = text if isinstance(text, str) else "" if whole is None else whole.finish()
        return Task.ended(Generation(words, finish_reason="length", logprobs=[] if logprobs else None))

    def begin(_: Beginning | None) -> Text:
        request = Request(ids, 0, sampler, allowed, max_tokens=masks, logprobs=logprobs, within=True)
        return Text(_session_for(model, len(ids), decoder), request, decoder, whole)

    return Task(ids, begin)


class _Whole:
    """Spells a text of which a part was to be filled, when that is there."""

    stopped = False

    def __init__(self, tokenizer: Tokenizer, ids: np.ndarray, mask: int) -> None:
        self._tokenizer, self._ids, self._masks = tokenizer, ids.tolist(), np.flatnonzero(ids == mask).tolist()
        self._filled = 0

    def push(self, token: int) -> str:
        self._ids[self._masks[self._filled]] = token
        self._filled += 1
        return ""

    def finish(self) -> str:
        return self._tokenizer.decode(self._ids)

    def fork(self) -> _Whole:
        other = copy(self)
        other._ids = [*self._ids]
        return other

    def fresh(self) -> _Whole:
        other = self.fork()
        other._filled = 0
        return other


def _task_of(
    model: Writer, target: Target, ids: np.ndarray, decoder: Decoder, given: Session | None, asked: dict[str, Any],
    stream: TextStream | None, reading: Reading | None,
) -> Task:  # fmt: skip
    """A text to be written of a source; `asked` are fields of `Request`."""
    source, prompt = check_source(ids, model.plan), np.array([target.start], np.int32)
    first, last = (
        None if token is None else allowed_tokens([token], model.vocab_size) for token in (target.first, target.last)
    )
    banned = np.array(target.banned, np.int32) if target.banned else None
    number = None if reading is None or given is not None else reading.add(source)

    def begin(_: Beginning | None) -> Text:
        session = _session_for(model, 1 + asked["max_tokens"], decoder) if given is None else given
        started = time.perf_counter()
        held = None if reading is None or number is None else reading.read(number)
        read = session.read_source(source)  # which finds it, where it is held
        seconds = time.perf_counter() - started
        del held
        cached = prepare_session(session, prompt)
        request = Request(prompt, cached, allowed_first=first, allowed_last=last, banned=banned, **asked)
        text = Text(session, request, decoder, stream)
        stats = text.result.stats
        stats.prompt_tokens, stats.reused_tokens = len(source), 0 if read else len(source)
        stats.prefill_seconds += seconds
        return text

    return Task(prompt, begin)


def _session_for(model: Writer, tokens: int, decoder: Decoder) -> Session:
    """A session for a text of so many tokens, prompt and answer."""
    length = min(model.plan.max_positions, tokens)
    rows = decoder.rows(length) if isinstance(decoder, FillsMasks) else 0
    taps = getattr(decoder, "taps", ())
    return model.network.session(length, max_rows=min(max(MAX_ROWS, rows), 1 << 16), taps=taps)


def search_of(said: Section) -> BeamSearch | None:
    """The search that a folder asks for; None: it asks for none.

    Parameters
    ----------
    said : Section
        what it says of how texts are written

    Raises
    ------
    CheckpointError
    """
    num_beams = said.integer("num_beams", minimum=1, maximum=MOST_BEAMS, default=1)
    if num_beams == 1:
        return None
    penalty = said.number("length_penalty", minimum=-MOST_PENALTY, maximum=MOST_PENALTY, default=1.0)
    early = said.raw.get("early_stopping")
    if type(early) is not bool and early not in (None, "never"):
        said.refuse("early_stopping", early, 'true, false or "never"')
    return BeamSearch(num_beams, penalty, early or False)


def _sampler(model: Writer, asked: Mapping[str, Any], sequence: int = 0) -> Sampler:
    size = asked["no_repeat_ngram_size"]
    if size is None:
        size = 0 if model.target is None else model.target.no_repeat_ngram_size
    processors = {name: asked[name] for name in PROCESSORS} | {"no_repeat_ngram_size": size}
    logit_bias = {} if asked["logit_bias"] is None else asked["logit_bias"]
    sampler = Sampler(**processors, logit_bias=logit_bias, sequence=sequence)
    if sampler.logit_bias and max(sampler.logit_bias) >= model.vocab_size:
        raise ArgumentError(f"logit_bias names token {max(sampler.logit_bias)}, the model has {model.vocab_size}")
    return sampler


def _constraint(model: Writer, asked: Mapping[str, Any], decoder: Decoder) -> Constraint | None:
    """What the text may be, for this model's tokens; None: anything."""
    grammar = asked["grammar"]
    if grammar is None:
        return None
    if model.target is not None:
        raise UnsupportedError("grammar is for models that write on from a prompt: this one has an encoder")
    check_follows(decoder)
    if asked["stop"]:
        raise ArgumentError("stop would end a text before it is what the grammar asks for: leave one of them out")
    bound = None if isinstance(grammar, type) else getattr(grammar, "bound", None)
    return check_constraint(grammar if bound is None else bound(model.tokenizer, model.vocab_size))


def asked_decoder(model: Writer, asked: Mapping[str, Any]) -> Decoder:
    """The decoder that `resolved` options ask for, without one the model's own; or an error that says how to make one."""
    decoder = asked["decoder"]
    if decoder is None and not model.plan.causal:
        return Unmask()
    if decoder is None:
        search = model.search
        return Autoregressive() if search is None or drawn_by(_sampler(model, asked)) else search
    if isinstance(decoder, str) and decoder == "auto":
        decoder = Auto()
    check_decoder(decoder)
    if not model.plan.causal and not isinstance(decoder, FillsMasks):
        raise ArgumentError(
            f"this model fills in masks, in any order: its decoder must be an Unmask, got {short(decoder)}"
        )
    return decoder


def encoded(model: Writer, text: str) -> list[int]:
    """A prompt's tokens."""
    ids = model.tokenizer.encode(text)
    if model.plan.encodes:  # what its tokenizer puts behind a text would end it before the answer
        return ids[: len(ids) - len(model.tokenizer.encode("")) + 1]
    if len(ids) > 1 and ids[0] == ids[1]:
        begin = model.tokenizer.token(ids[0])
        if begin and text.startswith(begin) and model.tokenizer.encode("")[:1] == ids[:1]:
            warn(
                f"the prompt begins with {short(begin)} twice: its text has it and the tokenizer adds it; give messages to "
                "chat(), or tokens: tokenizer.encode(text, special=False)"
            )
    return ids
