"""Text from tokens as they come: never half a character, never past a stop string.

What the pieces make together is the tokenizer's own decoding of all tokens, special ones left out, cut before the
first stop string.  Stop strings are looked for in that same text with the special tokens spelt where they came.  Two
things hold text back: a character whose bytes are not all there, and what may yet become a stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from copy import copy

from fastdistill.arguments import check_instance
from fastdistill.errors import ArgumentError
from fastdistill.messages import short
from fastdistill.text.tokenizer import Tokenizer, check_token

# A character that is looked at, and what of it is shown.  A special token's are looked at and not shown; an unfinished
# one is shown as U+FFFD where the text ends there, but what it will be is not known, so it is looked at as "".
_Character = tuple[str, str]


class TextStream:
    """Turns tokens into pieces of text, one call a token.

    Parameters
    ----------
    stop : str | Sequence[str], default ()
        a string or several; the text ends before the one that is complete first, and of those that are complete at the
        same character before the one that begins first. A special token's text is one too.

    Attributes
    ----------
    text : str
        the pieces so far, in one
    stopped : bool
        a stop string has come; later tokens add nothing
    """

    def __init__(self, tokenizer: Tokenizer, stop: str | Sequence[str] = ()) -> None:
        check_instance("tokenizer", tokenizer, Tokenizer)
        self._tokenizer = tokenizer
        self._decoder = _ByteDecoder(tokenizer) if tokenizer.byte_level else _WindowDecoder(tokenizer)
        self._stop = check_stop(stop)
        self._stops = [_StopString(text) for text in self._stop]
        self._specials: list[
            tuple[int, str]
        ] = []  # those behind the certain text: after how many characters, spelt how
        self._held: list[str] = []  # of each character looked at and not yet passed on: what of it is shown
        self._pieces: list[str] = []
        self._finished = False
        self.stopped = False

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def fresh(self) -> TextStream:
        """One for another text, with the same tokenizer and stop strings."""
        return TextStream(self._tokenizer, self._stop)

    def fork(self) -> TextStream:
        """One that has taken the same tokens, and goes on by itself."""
        other = copy(self)
        other._decoder, other._stops = self._decoder.fork(), [copy(stop) for stop in self._stops]
        other._specials, other._held, other._pieces = self._specials[:], self._held[:], self._pieces[:]
        return other

    def push(self, token: int) -> str:
        """Take the next token and return the text that has become certain, often "".

        Raises
        ------
        ArgumentError
            for what is no token id, or after `finish`
        """
        token = check_token(token)
        if self._finished:
            raise ArgumentError("push after finish: a TextStream serves one text")
        if self.stopped:
            return ""
        if token not in self._tokenizer.special_ids:
            certain = self._decoder.push(token)
            return self._emit(certain, self._decoder.likely() if self._stops else "")
        if not self._stops:
            return ""
        rest = self._decoder.rest()
        self._specials.append((len(rest), self._tokenizer.token(token) or ""))
        return self._emit("", rest)

    def finish(self) -> str:
        """End the text and return what was held back; an unfinished character becomes U+FFFD."""
        if self.stopped or self._finished:
            return ""
        self._finished = True
        piece = self._emit(self._decoder.rest(), "")
        if not self.stopped:
            piece += self._release(len(self._held))
        return piece

    def _emit(self, certain: str, rest: str | None) -> str:
        """Pass text on up to the first stop string, or to what may begin one.

        Parameters
        ----------
        certain : str
        rest : str | None
            follows `certain` in the text as it stands, but the next token may change it; None: not looked at
        """
        fixed: list[_Character] = []
        if certain or rest == "":
            fixed = self._spelt([(char, char) for char in certain])
            self._specials.clear()
        loose: list[_Character] = []
        if rest is not None:
            known = len(rest.rstrip("\ufffd"))
            loose = self._spelt([(char if i < known else "", char) for i, char in enumerate(rest)])
        ends = [(end, end - len(stop.text)) for stop in self._stops if (end := stop.push(fixed, loose)) is not None]
        before = len(self._held)
        self._held += [shown for _, shown in fixed]
        if ends:
            self.stopped = True
            self._held += [shown for _, shown in loose]
            return self._release(before + min(ends)[1])
        return self._release(len(self._held) - max((stop.matched for stop in self._stops), default=0))

    def _spelt(self, characters: list[_Character]) -> list[_Character]:
        """The characters with the special tokens among them."""
        length = len(characters)
        for at, spelling in reversed(self._specials):
            at = min(at, length)  # bytes that made several U+FFFD may have become one character
            characters[at:at] = [(char, "") for char in spelling]
        return characters

    def _release(self, length: int) -> str:
        piece = "".join(self._held[:length])
        del self._held[:length]
        self._pieces.append(piece)
        return piece


class _StopString:
    """One stop string looked for as text passes (Knuth, Morris, Pratt): constant work a character.

    Attributes
    ----------
    matched : int
        how much of its beginning the text ends with
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        self._fallback = [0]  # [i]: the longest proper prefix of text[: i + 1] that also ends it
        for char in text[1:]:
            self._fallback.append(self._step(self._fallback[-1], char))

    def push(self, fixed: list[_Character], loose: list[_Character]) -> int | None:
        """Where the string first ends, counted from the start of `fixed`, if it does; else `fixed` has passed."""
        matched = self.matched
        for i, (char, _) in enumerate(fixed + loose, 1):
            matched = self._step(matched, char)
            if matched == len(self.text):
                return i
            if i == len(fixed):
                self.matched = matched
        return None

    def _step(self, matched: int, char: str) -> int:
        while matched and self.text[matched] != char:
            matched = self._fallback[matched - 1]
        return matched + (self.text[matched] == char)


class _ByteDecoder:
    """Byte-level BPE: the tokens' bytes in a row are the text's."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def fork(self) -> _ByteDecoder:
        other = _ByteDecoder(self._tokenizer)
        other._utf8.setstate(self._utf8.getstate())
        return other

    def push(self, token: int) -> str:
        """The text that the token has made certain."""
        return self._utf8.decode(self._tokenizer.token_bytes(token) or b"")

    def rest(self) -> str:
        """The text behind the certain one, as it stands."""
        return self._utf8.getstate()[0].decode("utf-8", "replace")

    likely = rest


class _WindowDecoder:
    """Any other tokenizer: decode the last few tokens with and without the new one; what differs is its text.

    The window begins some tokens back, so that rules about a text's first token (no leading space) and about
    neighbours do not touch the new ones. While the last token is a lone byte, nothing is certain: one invalid byte
    turns its whole run into U+FFFD.
    """

    _CONTEXT = 8  # tokens kept before the new ones; dropping those before only once there are twice as many
    _EVERY_TOKEN = 64  # a run of bytes is decoded at each token up to this length, then whenever it has doubled

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._known = ""  # the text of the window's first `_certain` tokens
        self._certain = 0

    def fork(self) -> _WindowDecoder:
        other = copy(self)
        other._window = self._window[:]
        return other

    def push(self, token: int) -> str:
        """The text that the token has made certain."""
        spelling = self._tokenizer.token(token)
        if spelling is None:
            return ""
        self._window.append(token)
        if len(spelling) == 6 and spelling.startswith("<0x"):
            return ""
        now = self._tokenizer.decode(self._window)
        fresh = now[len(self._known) :]
        if fresh.endswith("\ufffd"):
            return ""
        if len(self._window) > 2 * self._CONTEXT:
            self._window = self._window[-self._CONTEXT :]
            now = self._tokenizer.decode(self._window)
        self._known, self._certain = now, len(self._window)
        return fresh

    def rest(self) -> str:
        """The text behind the certain one, as it stands."""
        if len(self._window) == self._certain:
            return ""
        return self._tokenizer.decode(self._window)[len(self._known) :]

    def likely(self) -> str | None:
        """The rest; of a long run of bytes not at every token, else None."""
        run = len(self._window) - self._certain
        return None if run > self._EVERY_TOKEN and run & (run - 1) else self.rest()


def check_stop(stop: str | Sequence[str]) -> tuple[str, ...]:
    """One stop string or several, as a tuple.

    Raises
    ------
    ArgumentError
        for what is no string, or empty
    """
    if not isinstance(stop, (str, list, tuple, set, frozenset)):
        raise ArgumentError(f"stop must be a string or several, got {short(stop)}")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise ArgumentError(f"stop must hold strings of at least one character, got {short(text)}")
    return stops
