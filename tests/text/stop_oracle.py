"""Where stop strings end a text, told from the whole of it; and stop strings that may."""

from __future__ import annotations

import codecs

from hypothesis import strategies as st

OPEN = "\U0010ffff"  # in the oracle's texts: a character that is not all there, equal to none


def spelt_out(tokenizer, ids, ended):
    """What stop strings are looked for in: each character of the decoded text, and of the special tokens between them,
    with what of it is shown."""
    text = tokenizer.decode(ids)
    if ended:
        unfinished = 0
    elif tokenizer.byte_level:
        data = b"".join(tokenizer.token_bytes(token) or b"" for token in ids if token not in tokenizer.special_ids)
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        utf8.decode(data)
        unfinished = len(utf8.getstate()[0] and "?")
    else:
        unfinished = len(text) - len(text.rstrip("\ufffd"))
    characters = [(char, char) for char in text]
    for i in range(len(text) - unfinished, len(text)):
        characters[i] = (OPEN, text[i])
    for n in reversed([n for n, token in enumerate(ids) if token in tokenizer.special_ids]):
        at = min(len(tokenizer.decode(ids[:n])), len(text))
        characters[at:at] = [(char, "") for char in tokenizer.token(ids[n])]
    return characters


def first_stop(text, stops):
    """Where the stop string begins that is complete first, the longest of those; None without one."""
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def oracle(tokenizer, ids, stops):
    """The text, whether a stop string ends it, and after how many tokens: each beginning of them as a whole."""
    for n in range(len(ids) + 2):
        characters = spelt_out(tokenizer, ids[:n], ended=n > len(ids))
        at = first_stop("".join(char for char, _ in characters), stops)
        if at is not None:
            return "".join(shown for _, shown in characters[:at]), True, min(n, len(ids))
    return tokenizer.decode(ids), False, len(ids)


@st.composite
def stops_for(draw, text):
    """Stop strings likely to occur: pieces of the text and pieces of those, some with another end."""
    found = []
    for _ in range(draw(st.integers(0, 3))):
        source = draw(st.sampled_from([text, *found]))
        start = draw(st.integers(0, len(source)))
        length = draw(st.sampled_from([1, 2, 3, 5, 13]))
        found.append(source[start : start + length] + draw(st.sampled_from(["", "", "", "z", "日"])))
    return [stop for stop in found if stop]
