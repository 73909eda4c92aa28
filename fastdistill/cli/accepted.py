"""A text in colours as it is written: which tokens were guessed right, and what was guessed wrong in their place."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdistill.cli.terminal import say

if TYPE_CHECKING:
    from fastdistill.decode import Generation, Request, Round, Run
    from fastdistill.decode.request import Decoder
    from fastdistill.runtime import Rows, SessionLike
    from fastdistill.text.tokenizer import Tokenizer

ACCEPTED, REFUSED, PLAIN = "\x1b[32m", "\x1b[2;31;9m", "\x1b[0m"
_CONTEXT = 8  # tokens before a wrong guess, which may change how it is spelt


def colours() -> bool:
    """Whether stdout shows colours, and its reader wants them (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class ShowAccepted:
    """A decoder whose text is shown in colours: the same text, since another decoder writes it and this one looks on."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer) -> None:
        self._decoder, self._tokenizer = decoder, tokenizer
        said = f"{ACCEPTED}right guesses{PLAIN}, what each forward gave itself, {REFUSED}wrong guesses{PLAIN}"
        if not sys.stderr.isatty():
            said = "green: right guesses; plain: what each forward gave itself; red, struck out: wrong guesses"
        say(said)

    @property
    def taps(self) -> tuple[str, ...]:
        return getattr(self._decoder, "taps", ())

    @property
    def takes_constraint(self) -> bool:
        return getattr(self._decoder, "takes_constraint", False)

    def start(self, session: SessionLike, request: Request) -> Run:
        self._text = text = Coloured(self._tokenizer, request.prompt[-_CONTEXT:].tolist())
        run = self._decoder.start(session, request)
        take, seen = run.take, 0

        def watched(rows: Rows) -> list[tuple[int, int]]:
            nonlocal seen
            taken = take(rows)
            tokens, new = [token for token, _ in taken], run.rounds[seen:]
            seen += len(new)
            for round in new[:-1]:  # several, where rounds have gone on by themselves
                text.forward(tokens[: round.tokens], round)
                tokens = tokens[round.tokens :]
            text.forward(tokens, new[-1] if new else None)
            return taken

        run.take = watched  # type: ignore[method-assign]
        return run

    def coloured(self, piece: str) -> str:
        """A piece of the text that is being written, in colours."""
        return self._text.piece(piece)

    def rest(self, generation: Generation) -> str:
        """The wrong guesses behind the text's last character."""
        return self._text.rest(len(generation.tokens))


@dataclass
class _Stretch:
    """Text of one token that has still to be written."""

    length: int
    accepted: bool


@dataclass(frozen=True)
class _Refused:
    """Wrong guesses in the place of a token."""

    text: str
    token: int  # its number


class Coloured:
    """One text: its tokens come forward by forward, its pieces as they become certain; the pieces, coloured, go out.

    A piece is coloured by the token that completed each of its characters.  What the text leaves out (special tokens, a
    stop string and what follows it) has no piece, and so is never seen.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        from fastdistill.text.stream import TextStream

        self._tokenizer, self._stream = tokenizer, TextStream(tokenizer)
        self._context = list(context)
        self._tokens = 0
        self._waiting: deque[_Stretch | _Refused] = deque()

    def forward(self, tokens: Sequence[int], round: Round | None) -> None:
        """The tokens of a forward: those accepted, then the one that it gave itself."""
        accepted = 0 if round is None else round.accepted
        for number, token in enumerate(tokens):
            if number == accepted and round is not None and round.refused:
                self._waiting.append(_Refused(self._spelt(round.refused), self._tokens))
            length = len(self._stream.push(token))
            if length:
                self._waiting.append(_Stretch(length, number < accepted))
            self._context = [*self._context[1 - _CONTEXT :], token]
            self._tokens += 1

    def piece(self, text: str) -> str:
        """A piece of the text in colours, the wrong guesses before and within it shown."""
        shown = ""
        while text:
            if not self._waiting:  # the rest of a last character
                return shown + text
            part = self._waiting[0]
            if isinstance(part, _Refused):
                shown += REFUSED + part.text + PLAIN
                self._waiting.popleft()
                continue
            here, text = text[: part.length], text[part.length :]
            shown += ACCEPTED + here + PLAIN if part.accepted else here
            part.length -= len(here)
            if not part.length:
                self._waiting.popleft()
        return shown

    def rest(self, tokens: int) -> str:
        """Of a text of so many tokens: the wrong guesses behind its last character."""
        shown = ""
        while self._waiting and isinstance(part := self._waiting.popleft(), _Refused) and part.token < tokens:
            shown += REFUSED + part.text + PLAIN
        return shown

    def _spelt(self, guesses: Sequence[int]) -> str:
        """Guesses as they would have stood here, in one line."""
        text = spelt_after(self._tokenizer, self._context, guesses)
        return "".join("↵" if char == "\n" else char if char.isprintable() else " " for char in text)


def spelt_after(tokenizer: Tokenizer, context: Sequence[int], tokens: Sequence[int], skip_special: bool = True) -> str:
    """Tokens as they are spelt behind others."""
    before = tokenizer.decode(context, skip_special)
    after = tokenizer.decode([*context, *tokens], skip_special)
    while not after.startswith(before):  # half a character became a whole one
        before = before[:-1]
    return after[len(before) :]
