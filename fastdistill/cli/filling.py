"""An answer of masks, drawn anew in its place after each forward that fills some of them."""

from __future__ import annotations

import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import fastdistill.cli.terminal as terminal
from fastdistill.cli.accepted import PLAIN, spelt_after

if TYPE_CHECKING:
    from fastdistill.decode import Generation, Request, Run
    from fastdistill.decode.unmask.run import UnmaskRun
    from fastdistill.runtime import Rows, SessionLike
    from fastdistill.text.tokenizer import Tokenizer
    from fastdistill.unmask import Trace

NEW, DIM = "\x1b[1;32m", "\x1b[2m"
MASK, SPECIAL = "░", "·"
_PAUSE = 0.25  # seconds of a picture in a replay, so that it can be seen


class ShowFilling:
    """A decoder whose answer is shown while it is filled: the same text, since another decoder writes it and this one looks on."""

    fills_masks = True

    def __init__(self, decoder: Any, tokenizer: Tokenizer) -> None:
        self._decoder, self._tokenizer = decoder, tokenizer
        self.rows: Callable[[int], int] = decoder.rows

    def start(self, session: SessionLike, request: Request) -> Run:
        run: UnmaskRun = self._decoder.start(session, request)
        self._picture = picture = Picture(self._tokenizer, request.prompt.tolist(), session.mask_token)
        take, first = run.take, len(request.prompt)

        def watched(rows: Rows) -> list[tuple[int, int]]:
            tokens = take(rows)
            picture.draw(run.text[first:].tolist())
            return tokens

        run.take = watched  # type: ignore[method-assign]
        picture.draw(run.text[first:].tolist())
        picture.seconds = 0.0  # decoding begins now
        return run

    def coloured(self, piece: str) -> str:
        """A piece of the text as it has become certain: nothing, while the picture shows it."""
        return self._picture.piece(piece)

    def rest(self, generation: Generation) -> str:
        """The text itself, in the picture's place."""
        generation.stats.decode_seconds -= self._picture.seconds  # drawing is no decoding
        return self._picture.close()


class Picture:
    """An answer on a terminal's lines: masks, what has just been filled, what was there.

    Where it needs more lines than the terminal has, it is taken away, and the text is written piece by piece instead.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], mask_token: int | None) -> None:
        self._tokenizer, self._context, self._mask = tokenizer, list(prompt[-8:]), mask_token
        self._answer: list[int] | None = None
        self._lines = 0  # on the terminal
        self._text = ""  # that has become certain
        self._open = True
        self.seconds = 0.0  # that drawing took

    def draw(self, answer: list[int]) -> None:
        """The answer's tokens, masks included."""
        if not self._open or answer == self._answer:
            return
        started = time.perf_counter()
        columns, rows = shutil.get_terminal_size()
        lines = wrapped(self._cells(answer), max(columns - 1, 1))
        if len(lines) >= rows:
            terminal.show(self.close())
        else:
            terminal.show(self._back() + "\n".join(lines))
            self._answer, self._lines = list(answer), len(lines)
        self.seconds += time.perf_counter() - started

    def piece(self, text: str) -> str:
        """What to write of a piece of certain text."""
        self._text += text
        return "" if self._open else text

    def close(self) -> str:
        """What puts the certain text in the picture's place."""
        if not self._open:
            return ""
        self._open = False
        return self._back() + self._text

    def _back(self) -> str:
        """To the picture's first line, and erase it."""
        if not self._lines:
            return ""
        return "\r" + (f"\x1b[{self._lines - 1}A" if self._lines > 1 else "") + "\x1b[J"

    def _cells(self, answer: list[int]) -> Iterator[tuple[str, str]]:
        """(colour, text) of neighbours of one kind: a token's text may need the tokens beside it."""
        before = self._answer or answer
        special = self._tokenizer.special_ids

        def kind(place: int) -> str:
            token = answer[place]
            if token == self._mask:
                return MASK
            if token in special:
                return SPECIAL
            return NEW if place >= len(before) or before[place] != token else ""

        for what, group in groupby(range(len(answer)), kind):
            places = list(group)
            if what in (MASK, SPECIAL):
                yield DIM, "".join(self._blank(answer[place], what, place) for place in places)
            else:
                yield what, self._spelt([answer[place] for place in places], places[0])

    def _blank(self, token: int, sign: str, place: int) -> str:
        """A sign, with whatever the tokenizer puts between tokens."""
        name = self._tokenizer.token(token)
        return self._spelt([token], place).replace(name, sign) if name else sign

    def _spelt(self, tokens: list[int], place: int) -> str:
        return spelt_after(self._tokenizer, self._context if place else (), tokens, skip_special=False)


def replay(trace: Trace, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
    """Show on a terminal, slowly, how an answer was filled; its place is free afterwards."""
    picture = Picture(tokenizer, prompt, trace.mask_token)
    for state in trace.states().tolist():
        picture.draw(state)
        time.sleep(_PAUSE)
    terminal.show(picture.close())


def wrapped(cells: Iterable[tuple[str, str]], columns: int) -> list[str]:
    """Lines of at most so many columns, of (colour, text) one after the other; each line begins and ends plain."""
    lines, line, column = [], "", 0
    for colour, text in cells:
        line += colour
        for char in text:
            width = _width(char)
            if char == "\n" or column + width > columns:
                lines.append(line + (PLAIN if colour else ""))
                line, column = colour, 0
            if char != "\n":
                line, column = line + (char if width or unicodedata.combining(char) else ""), column + width
        line += PLAIN if colour else ""
    return [*lines, line]


def _width(char: str) -> int:
    """Columns of a character; 0: it belongs to the one before it, or is not shown."""
    if unicodedata.combining(char) or not (char.isprintable() or char == "\t"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
