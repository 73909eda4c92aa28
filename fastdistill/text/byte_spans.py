"""Where the tokens of a text lie in its bytes.

The offsets that `tokenizers` gives count characters, of tokens within a character give all of it, and leave out blanks where the
tokenizer trims them; where characters are dropped they are wrong. So they are hints here: a token lies where its own bytes stand
in the text, and where its bytes are not in the text it lies where the offsets say, if no other token is said to be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import accumulate

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BLANK = "\u2581"  # how SentencePiece spells a blank


def byte_spans(
    text: str,
    offsets: Sequence[tuple[int, int]],
    spellings: Sequence[Sequence[bytes]],
    believed: Sequence[bool],
) -> list[tuple[int, int]]:
    """Begin and end of each token in the text's UTF-8 bytes, in order and not overlapping.

    Parameters
    ----------
    text : str
    offsets : Sequence[tuple[int, int]]
        begin and end of each token in characters, as `tokenizers` gives them
    spellings : Sequence[Sequence[bytes]]
        what a token's bytes may be, the likeliest first; none: the token was added to the text, and lies in no byte
    believed : Sequence[bool]
        the offsets of a token may say what its bytes do not: of an unknown word, say, or after a normaliser
    """
    data, at = text.encode(), [0, *accumulate(len(character.encode()) for character in text)]
    hints = [(at[min(begin, len(text))], at[min(end, len(text))]) for begin, end in offsets]
    found, position, previous = [], 0, 0
    for index, (begin, end) in enumerate(hints):
        following = next((hints[i][0] for i in range(index + 1, len(hints)) if spellings[i]), len(data))
        span = None
        if spellings[index]:
            span = _spelt(data, position, begin, end, spellings[index])
            alone = max(position, previous) <= begin and end <= following
            if span is None and believed[index] and alone:
                span = begin, end
            previous = end
        found.append(span or (position, position))
        position = found[-1][1]
    return found


def _spelt(data: bytes, position: int, begin: int, end: int, spellings: Sequence[bytes]) -> tuple[int, int] | None:
    """Where one of the spellings stands from `position` on, there if it can be, within begin..end or around it."""
    places = [(spelling, position) for spelling in spellings]
    places += [(spelling, start) for spelling in spellings for start in (end - len(spelling), begin) if spelling]
    for spelling, start in places:
        stop = start + len(spelling)
        near = (start <= begin and end <= stop) or (begin <= start and stop <= end)
        if start >= position and (near or not spelling) and data[start:stop] == spelling:
            return start, stop
    return None


def without_blank(spellings: Sequence[bytes]) -> list[bytes]:
    """Also what a token is that a tokenizer has put a blank before, as it may where a text begins."""
    return [*spellings, *(spelling[1:] for spelling in spellings if spelling[:1] == b" ")]


def speller(prefix: str | None, suffix: str | None, byte_fallback: bool) -> Callable[[str], list[bytes]]:
    """What the bytes of a token may be, of a tokenizer that spells them as text.

    Parameters
    ----------
    prefix : str, optional
        of tokens that continue a word
    suffix : str, optional
        of tokens that end one
    byte_fallback : bool
        it spells bytes as <0x00>
    """

    def spellings(token: str) -> list[bytes]:
        if byte_fallback and (byte := _BYTE.fullmatch(token)):
            return [bytes([int(byte[1], 16)])]
        bare = token.removeprefix(prefix or "").removesuffix(suffix or "")
        text = bare.replace(_BLANK, " ")
        return [kind.encode() for kind in dict.fromkeys([text, bare, token])]

    return spellings
