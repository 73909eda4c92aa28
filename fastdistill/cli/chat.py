"""chat: a conversation, whose cache is kept from one answer to the next."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from fastdistill.cli.accepted import ShowAccepted
from fastdistill.cli.decoders import decoding, trace, watching
from fastdistill.cli.filling import ShowFilling
from fastdistill.cli.generate import (
    add_model_options,
    add_writing_options,
    load_model,
    machine,
    sampling,
    statistics,
    write_answer,
)
from fastdistill.cli.grammars import grammar_options
from fastdistill.cli.options import given
from fastdistill.cli.templates import add_template_options, template_options
from fastdistill.cli.terminal import add_command, say, show, visible
from fastdistill.errors import ArgumentError, CapacityError
from fastdistill.fetch import find_folder
from fastdistill.files import read_json

if TYPE_CHECKING:
    from fastdistill.api import Model
    from fastdistill.decode import Request, Run
    from fastdistill.decode.request import Decoder
    from fastdistill.runtime import Forward, SessionLike

_CHAT = """\
  fastdistill chat smollm2-135m-instruct
  fastdistill chat ./model --system "You answer in one sentence." --temperature 0.7 --seed 3
  fastdistill chat smollm2-135m-instruct --decoder auto --show-accepted
  printf 'What is gravity?\\nSay that in five words.\\n' | fastdistill chat smollm2-135m-instruct

Piped in, each line is a message.
"""
_MAX_TOKENS = 1024  # of an answer, where neither the user nor the model says
_TEMPERATURE = 0.7  # where neither says: the likeliest token, always, ends in loops
_HELP = """\
/reset   forget the conversation and begin anew
/help    this
/exit    leave (so does Ctrl-D)
Ctrl-C stops an answer, or takes back a line; the conversation goes on. A message may begin with / after a space."""


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "chat", run_chat, "talk with a model", _CHAT)
    add_model_options(parser)
    parser.add_argument(
        "--capacity", type=int, metavar="N", help="tokens that the conversation may have (default: the model's context)"
    )
    parser.add_argument("--system", metavar="TEXT", help="how to behave (default: as the model's template says)")
    add_template_options(parser)
    usual = "the model's, by its generation_config.json, else "
    add_writing_options(
        parser, _MAX_TOKENS, temperature=f"{usual}{_TEMPERATURE}", top_k=f"{usual}0", top_p=f"{usual}1.0"
    )


def run_chat(arguments: argparse.Namespace) -> None:
    template, decoder_of, grammar_of = template_options(arguments), decoding(arguments), grammar_options(arguments)
    model, loading = load_model(find_folder(arguments.model), arguments.format, arguments.threads)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        say(f"{machine(model, loading)}. /help lists the commands, Ctrl-D leaves.")
    options = _usual_sampling(model) | sampling(arguments) | {"max_tokens": _max_tokens(arguments.max_tokens, model)}
    options |= grammar_of(model)
    decoder = decoder_of(model, options)
    watcher = watching(arguments, decoder, model.tokenizer)
    conversation = Conversation(model, arguments.system, options, watcher or decoder, arguments.capacity, template)
    for line in _typed() if interactive else _piped():
        command = line.split()[0] if line.startswith("/") else ""
        if command == "/exit":
            break
        elif command == "/reset":
            conversation.reset()
            say("(a new conversation)")
        elif command == "/help":
            say(_HELP)
        elif command:
            say(f"(there is no command {command}; /help lists them)")
        elif line.strip():
            try:
                conversation.answer(line, interactive, arguments.stats, bool(arguments.trace))
            except CapacityError as error:
                full = CapacityError(f"the context is full: {error}")
                if not interactive:
                    raise full from error
                say(f"({full}; /reset begins a new conversation)")


def _usual_sampling(model: Model) -> dict[str, Any]:
    """How the model's makers draw from it; a masked diffusion model takes the likeliest tokens."""
    from fastdistill.checkpoint.config import Section

    path = model.folder / "generation_config.json"
    section = Section(read_json(path) if os.path.lexists(path) else {}, str(path))
    drawn = section.boolean("do_sample", default=model.plan.causal)
    if not drawn:
        return {}
    return given(
        temperature=section.number("temperature", minimum=0.0, default=_TEMPERATURE),
        top_k=section.integer("top_k", default=None),
        top_p=section.number("top_p", minimum=0.0, maximum=1.0, default=None),
    )


def _max_tokens(asked: int | None, model: Model) -> int:
    return next(count for count in (asked, model.max_new_tokens, _MAX_TOKENS) if count is not None)


class Conversation:
    """The messages so far, and a session that holds the tokens of most of them."""

    def __init__(
        self,
        model: Model,
        system: str | None,
        options: Mapping[str, Any],
        decoder: Decoder,
        capacity: int | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._options, self._decoder, self._template = model, options, decoder, template or {}
        rows = 0
        if getattr(decoder, "fills_masks", False):  # a forward runs the whole text
            rows = cast(Any, decoder).rows(model.plan.max_positions if capacity is None else capacity)
        taps = getattr(decoder, "taps", ())
        self._session = model.session(capacity, max_rows=min(max(128, rows), 1 << 16), taps=taps)
        self._begin = [{"role": "system", "content": system}] if system is not None else []
        self.reset()

    def reset(self) -> None:
        self._messages = list(self._begin)

    def answer(self, message: str, stoppable: bool, stats: bool, traced: bool) -> None:
        """Add a message, write the answer, and add that; where there is no answer, the message goes too.

        Raises
        ------
        CapacityError
            where the message no longer fits the context
        """
        messages = [*self._messages, {"role": "user", "content": message}]
        pieces: list[str] = []
        watcher = self._decoder if isinstance(self._decoder, ShowAccepted | ShowFilling) else None

        def keep(piece: str) -> None:
            pieces.append(piece)
            show(visible(piece) if watcher is None else watcher.coloured(visible(piece)))

        prompt = self._model.chat_prompt(messages, **self._template)
        answer = None
        with (
            _Stoppable(self._decoder, stoppable) as decoder,
            suppress(Stopped, *([KeyboardInterrupt] if stoppable else [])),
        ):
            answer = write_answer(self._model, prompt, keep, session=self._session, decoder=decoder, **self._options)
            if watcher is not None:
                show(watcher.rest(answer.generation))
        print(flush=True)
        if pieces or answer is not None:
            self._messages = [*messages, {"role": "assistant", "content": "".join(pieces)}]
        if answer is None:
            say("(stopped)")
            return
        reason = answer.generation.finish_reason
        if reason == "length":
            say("(cut after --max-tokens)")
        elif reason == "capacity":
            say(f"(cut: the context of {self._session.capacity} tokens is full; /reset begins a new conversation)")
        if stats:
            say(statistics(self._model, answer))
        if traced:
            say(trace(answer.generation, self._model.tokenizer))


class Stopped(Exception):
    """The user has stopped an answer."""


class _Stoppable:
    """A decoder that Ctrl-C stops between two forwards; a second Ctrl-C does not wait for that."""

    def __init__(self, decoder: Decoder, enabled: bool) -> None:
        self._decoder, self._enabled = decoder, enabled
        self.asked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)  # what a decoder for masks has beside

    def __enter__(self) -> _Stoppable:
        if self._enabled:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._enabled:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def start(self, session: SessionLike, request: Request) -> Run:
        run = self._decoder.start(session, request)
        forward = run.forward

        def stoppable() -> Forward | Sequence[tuple[SessionLike, Forward]]:
            if self.asked:
                raise Stopped
            return forward()

        run.forward = stoppable  # type: ignore[method-assign]
        return run


def _typed() -> Iterator[str]:
    """Lines typed at a terminal, until Ctrl-D.  Ctrl-C takes back the line: no conversation is lost to one too many."""
    with suppress(ImportError):
        import readline  # noqa: F401  (gives `input` editing and a history)

    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            say("\n(Ctrl-D or /exit leaves)")


def _piped() -> Iterator[str]:
    for line in sys.stdin.buffer:
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ArgumentError(f"stdin is not UTF-8: {error}") from None
