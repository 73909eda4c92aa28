"""How much a regular expression of a tokenizer can cost: told from the expression, before anything is matched.

The engine of `tokenizers` tries ways of matching until one fits and gives up a place after ten million of them.
Patterns of public tokenizers decide as they go: behind something that may repeat at will, little has to follow that may
fail.  So their ways at one place grow with the text behind it and no faster; a pattern such as `\\w*\\w*[xy]$` takes a
second for a thousand letters in a row, and a minute for four thousand.  What is counted here is a bound on the ways,
with a text of a thousand characters in mind.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MANY = 1000  # ways of what repeats without an end
MOST_WAYS = 100 * MANY  # one such, and a few choices beside it
_MOST_DEPTH = 100
_BRACES = re.compile(r"\{(?=\d|,\d)(\d{0,9})(,?)(\d{0,9})\}\??")


class _Piece(NamedTuple):
    """A part of a pattern.

    Attributes
    ----------
    shortest : int
        characters that it matches at least
    ways : int
        in which it may match
    until_fail : int
        of them, those that may be tried before it fails
    certain : bool
        it cannot fail
    """

    shortest: int
    ways: int
    until_fail: int
    certain: bool


def shortest_and_ways(pattern: str) -> tuple[int, int]:
    """The fewest characters that a pattern matches, and a bound on the ways that are tried at one place.

    Raises
    ------
    ValueError
        for a pattern that is not understood
    """
    parser = _Parser(pattern)
    piece = parser.alternatives(0)
    if parser.at < len(pattern):
        raise ValueError("unbalanced )")
    return piece.shortest, piece.until_fail


class _Parser:
    """The syntax of Oniguruma, as far as lengths and repetitions need it."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0

    def alternatives(self, depth: int) -> _Piece:
        if depth > _MOST_DEPTH:
            raise ValueError("groups within groups without an end")
        pieces = [self._sequence(depth)]
        while self._next("|"):
            pieces.append(self._sequence(depth))
        return _Piece(
            min(piece.shortest for piece in pieces),
            _most(sum(piece.ways for piece in pieces)),
            _most(sum(piece.until_fail for piece in pieces)),
            any(piece.certain for piece in pieces),
        )

    def _sequence(self, depth: int) -> _Piece:
        shortest, ways, until_fail, certain = 0, 1, 1, True
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            piece = self._repeated(self._atom(depth))
            # All that came before may be tried again for what fails; what cannot fail is only tried itself.
            until_fail = max(until_fail, piece.until_fail if piece.certain else _most(ways * piece.until_fail))
            certain = certain and piece.certain
            shortest, ways = shortest + piece.shortest, _most(ways * piece.ways)
        return _Piece(shortest, ways, until_fail, certain)

    def _atom(self, depth: int) -> _Piece:
        char = self.pattern[self.at]
        self.at += 1
        if char == "\\":
            return self._escape()
        if char == "[":
            self._class()
        elif char == "(":
            return self._group(depth)
        elif char in "*+?":
            raise ValueError(f"{char} without what it repeats")
        return _Piece(int(char not in "^$"), 1, 1, False)

    def _escape(self) -> _Piece:
        char = self._take()
        if char in "kg":
            raise ValueError("a pattern that refers to a part of itself")
        if char in "pPx" and self._next("{"):
            self._until("}")
        return _Piece(int(char not in "bBAzZGK" and not char.isdigit()), 1, 1, False)

    def _class(self) -> None:
        self._next("^")
        self._next("]")
        while (char := self._take()) != "]":
            if char == "\\":
                self._take()
            elif char == "[":
                self._class()

    def _group(self, depth: int) -> _Piece:
        looking = False
        if self._next("?"):
            if self._next("#"):
                self._until(")")
                return _Piece(0, 1, 1, True)
            if self._next("=") or self._next("!") or self._next("<=") or self._next("<!"):
                looking = True
            elif self._next("<"):
                self._until(">")
            elif not (self._next(":") or self._next(">")):
                while (char := self._take()) not in ":)":
                    if char not in "im-":  # x makes spaces and comments of what is counted here
                        raise ValueError(f"(?{char} is not known")
                if char == ")":  # for what follows: matches nothing itself
                    return _Piece(0, 1, 1, True)
        inside = self.alternatives(depth + 1)
        if not self._next(")"):
            raise ValueError("a group without its end")
        return _Piece(0, 1, inside.until_fail, False) if looking else inside  # a look is taken once

    def _repeated(self, piece: _Piece) -> _Piece:
        while (times := self._times()) is not None:
            least, most = times
            if most is not None and most < least:  # the engine takes them in either order
                least, most = most, least
            spread = MANY if most is None else min(most - least + 1, MANY)
            rounds = min(MANY if most is None else most, 20)
            ways = _most(spread * piece.ways**rounds)
            shortest = min(least * piece.shortest, 1 << 20)
            until_fail = max(piece.until_fail, ways if least > 1 else 1)
            piece = _Piece(shortest, ways, until_fail, piece.certain or least == 0)
        return piece

    def _times(self) -> tuple[int, int | None] | None:
        """The repetition that stands here: how often at least and at most; None where none does."""
        for sign, found in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._next(sign):
                if not self._next("?"):  # lazy, possessive: no more ways
                    self._next("+")
                return found
        braces = _BRACES.match(self.pattern, self.at)
        if braces is None:
            return None
        self.at = braces.end()
        least, comma, most = braces.groups()
        return int(least or 0), int(most) if most else (None if comma else int(least))

    def _next(self, text: str) -> bool:
        """Whether this text stands here; it is taken then."""
        if not self.pattern.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _take(self) -> str:
        if self.at == len(self.pattern):
            raise ValueError("ends in the middle")
        self.at += 1
        return self.pattern[self.at - 1]

    def _until(self, end: str) -> None:
        while self._take() != end:
            pass


def _most(ways: int) -> int:
    return min(ways, MANY * MOST_WAYS)
