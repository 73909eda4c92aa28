"""What a tokenizer.json may ask for: told from the file, before anything of it is built or run.

`tokenizers` does what a file says: a normalizer that doubles the text, forty times in a row; a pattern that tries
every way; a template that repeats the text a thousand times.  Here the parts of the file are walked by their shapes, as
the library reads them, whatever type they name.  The model, nearly all of the file, is not parsed a second time unless
there is a reason.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastdistill.errors import TextError
from fastdistill.files import parse_json
from fastdistill.messages import short
from fastdistill.text.pattern import MOST_WAYS, shortest_and_ways

# Public tokenizers have up to a dozen steps in a part; their normalizers and pre-tokenizers together make up to 36
# characters of one (a Unicode table and a mark before each word); they add thousands of tokens of some characters.
MOST_STEPS = 256
MOST_GROWTH = 256
MOST_ADDED = 100_000
MOST_ADDED_LENGTH = 1_000
MOST_ADDED_CHARACTERS = 20_000_000  # of all added tokens, as long as normalizing may make them
MOST_PATTERN = 20_000  # characters of a regular expression
MOST_WORD = 256  # characters of a word of WordPiece, a piece of Unigram, what BPE puts beside or in place of its own

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_VALUE = re.compile(rb'\s*:\s*[{\["]')  # behind a key, of what is neither a number nor null
_ESCAPED = re.compile(rb"\\u00[4-7]")  # a letter: a key may be spelt so
_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")


def check_tokenizer(data: bytes, source: str) -> None:
    """Refuse a tokenizer.json that would take memory or time without bound, or end the process.

    Raises
    ------
    TextError
    """
    parts = _parsed(data, source)
    _check_merges(parts.get("model"), source)
    steps = {name: list(_steps(parts.get(name), f"{source}: {name}")) for name in _PARTS}
    for name in _PARTS:
        if len(steps[name]) > MOST_STEPS:
            raise TextError(f"{source}: {name} has {len(steps[name])} steps; expected at most {MOST_STEPS}")
        for step in steps[name]:
            _check_step(step, f"{source}: {name}")
    normalized = _longest(steps["normalizer"], _normalized, 1, f"{source}: normalizer")
    _longest(steps["pre_tokenizer"], _pre_tokenized, normalized, f"{source}: normalizer and pre_tokenizer")
    _longest(steps["post_processor"], _post_processed, 1, f"{source}: post_processor")
    _longest(steps["decoder"], _decoded, 1, f"{source}: decoder")
    added = parts.get("added_tokens")
    if isinstance(added, list):
        if len(added) > MOST_ADDED:
            raise TextError(f"{source}: {len(added)} added tokens; expected at most {MOST_ADDED}")
        lengths = [_length(token.get("content")) for token in added if isinstance(token, dict)]
        if max(lengths, default=0) > MOST_ADDED_LENGTH:
            raise TextError(
                f"{source}: an added token of {max(lengths)} characters; expected at most {MOST_ADDED_LENGTH}"
            )
        if sum(lengths) * normalized > MOST_ADDED_CHARACTERS:
            raise TextError(f"{source}: added tokens of {sum(lengths)} characters, and normalizing makes them longer")


def check_model(tokenizer: Any, data: bytes, source: str) -> None:
    """The same of what `tokenizers` has read of these bytes and not yet run."""
    model = tokenizer.model
    word = getattr(model, "max_input_chars_per_word", None)
    if word is not None and word > MOST_WORD:  # WordPiece looks up each part of each of its parts
        raise TextError(f"{source}: max_input_chars_per_word is {word}; expected at most {MOST_WORD}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "unk_token"):  # may come once a character
        if _length(getattr(model, name, None)) > MOST_WORD:
            raise TextError(f"{source}: {name} has more than {MOST_WORD} characters")
    # Unigram copies, at each place of a text, all pieces that begin there.  Elsewhere a piece's length counts once a token that is written.
    most = MOST_WORD if type(model).__name__ == "Unigram" else MOST_ADDED_LENGTH
    if _longest_string(data) > most:
        longest = max(map(len, tokenizer.get_vocab(with_added_tokens=False)), default=0)
        if longest > most:
            raise TextError(f"{source}: a piece of {longest} characters; expected at most {most}")


def _longest_string(data: bytes) -> int:
    """Bytes that no string of a JSON text has more of: between quotes that certainly begin or end one."""
    import numpy as np

    text = np.frombuffer(data, np.uint8)
    sure = np.flatnonzero((text[1:] == ord('"')) & (text[:-1] != ord("\\")))
    return int(np.diff(sure, prepend=-1, append=len(text)).max())


# ---- the file ----


def _parsed(data: bytes, source: str) -> dict[str, Any]:
    """The file without its model, where that comes last and nothing of it is to be checked; else all of it."""
    found = re.search(rb'"model"\s*:\s*\{', data)
    if found and not _suspicious(data, found.end()):
        head = data[: found.start()].rstrip()
        if head.endswith(b","):
            try:
                return parse_json(head[:-1] + b"}", source, TextError)
            except (
                TextError
            ):  # this "model" lies deeper, or what is wrong with the file has to be told of the whole of it
                pass
    return parse_json(data, source, TextError)


def _suspicious(data: bytes, start: int) -> bool:
    """Whether what follows may hold more than a model without a prefix."""
    # Nearly always such words are not there, or tokens of the vocabulary, which numbers follow.  Counting them takes a
    # tenth of the time that searching for a pattern with them does.
    for name in (*_PARTS, "added_tokens", "continuing_subword_prefix"):
        key, at = f'"{name}"'.encode(), start
        for _ in range(data.count(key, start)):
            at = data.index(key, at) + len(key)
            if _VALUE.match(data, at):
                return True
    return bool(_ESCAPED.search(data, start))


def _check_merges(model: Any, source: str) -> None:
    """A BPE's continuing_subword_prefix must start every merge's second half: `tokenizers` cuts it off unseen, and a
    shorter half ends the process."""
    model = model if isinstance(model, dict) else {}
    prefix, merges = model.get("continuing_subword_prefix"), model.get("merges")
    if not prefix or not isinstance(merges, list):
        return  # nothing to cut off, or nothing that `tokenizers` would read
    for merge in merges:
        halves = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(halves, list) and halves and str(halves[-1]).startswith(str(prefix))):
            raise TextError(f"{source}: merge {short(merge)} does not continue with {short(prefix)}")


def _steps(part: Any, source: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a part, in order, those of sequences within sequences too.

    `tokenizers` also reads one as the list of its fields, of which nothing here would know what they are.
    """
    waiting = [part]
    while waiting:
        step = waiting.pop()
        _refuse_list(step, source)
        if isinstance(step, dict):
            yield step
            waiting += [item for key in _LISTS if isinstance(step.get(key), list) for item in reversed(step[key])]


def _refuse_list(value: Any, source: str) -> None:
    if isinstance(value, list):
        raise TextError(f"{source}: expected an object, its fields by name, found {short(value)}")


def _check_template(step: Mapping[str, Any], source: str) -> None:
    """Pieces and special tokens have their fields by name; of its ids each has its token."""
    pieces, known = step.get("single"), step.get("special_tokens")
    for piece in pieces if isinstance(pieces, list) else ():
        for fields in piece.values() if isinstance(piece, dict) else [piece]:
            _refuse_list(fields, source)
    for name, token in known.items() if isinstance(known, dict) else ():
        _refuse_list(token, source)
        ids, tokens = (_length(token.get(key)) if isinstance(token, dict) else 0 for key in ("ids", "tokens"))
        if ids != tokens:
            raise TextError(
                f"{source}: special token {short(name)} has {ids} ids and {tokens} tokens; expected one each"
            )


def _check_step(step: Mapping[str, Any], source: str) -> None:
    _check_template(step, source)
    table = step.get("precompiled_charsmap")
    if isinstance(table, str) and _strings(table) is None:
        raise TextError(f"{source}: precompiled_charsmap is no table")
    pattern = _regex(step)
    if pattern is None:
        return
    if len(pattern) > MOST_PATTERN:
        raise TextError(f"{source}: a pattern of {len(pattern)} characters; expected at most {MOST_PATTERN}")
    try:
        _, ways = shortest_and_ways(pattern)
    except ValueError as problem:
        raise TextError(f"{source}: pattern {short(pattern)}: {problem}") from None
    if ways > MOST_WAYS:
        raise TextError(
            f"{source}: pattern {short(pattern)} may match in too many ways: it could take minutes for a page"
        )


def _regex(step: Mapping[str, Any]) -> str | None:
    pattern = step.get("pattern")
    found = pattern.get("Regex") if isinstance(pattern, dict) else None
    return found if isinstance(found, str) else None


# ---- how long a text may become ----


def _longest(steps: list[Mapping[str, Any]], after: Any, length: int, source: str) -> int:
    """How many characters (ids, of a post-processor) one may become, step after step."""
    for step in steps:
        length = after(step, length)
        if length > MOST_GROWTH:
            raise TextError(f"{source} may make a text more than {MOST_GROWTH} times as long")
    return length


def _normalized(step: Mapping[str, Any], length: int) -> int:
    length = _replaced(step, length)
    length += _length(step.get("prepend"))
    if "precompiled_charsmap" in step:
        length *= _longest_mapped(step["precompiled_charsmap"])
    if "handle_chinese_chars" in step:
        length *= 3  # a space before and behind
    if step.get("type") == "ByteLevel":
        length *= 4  # the bytes of a character
    return length  # Unicode's own forms are reached once, however often they are asked for


def _pre_tokenized(step: Mapping[str, Any], length: int) -> int:
    if step.get("type") == "ByteLevel":
        length *= 4
    if "add_prefix_space" in step or "replacement" in step:  # a character before each piece
        length *= 2
    return length


def _post_processed(step: Mapping[str, Any], length: int) -> int:
    if not isinstance(step.get("single"), list):
        return length + ("sep" in step) + ("cls" in step)
    texts = specials = 0
    known = step.get("special_tokens")
    for piece in step["single"]:
        special = piece.get("SpecialToken") if isinstance(piece, dict) else None
        name = special.get("id") if isinstance(special, dict) else None
        token = known.get(name) if isinstance(known, dict) and isinstance(name, str) else None
        specials += _length(token.get("ids")) if isinstance(token, dict) else 0
        texts += special is None
    return length * texts + specials


def _decoded(step: Mapping[str, Any], length: int) -> int:
    length = _replaced(step, length)
    marks = [step[key] for key in ("prefix", "suffix", "word_delimiter_token", "pad_token") if key in step]
    if "" in marks:  # each place between two characters is one
        return 3 * length
    return length + bool(marks)


def _replaced(step: Mapping[str, Any], length: int) -> int:
    """After a Replace: the longest that one match may become, of a pattern that may be empty at each place."""
    pattern, content = step.get("pattern"), _length(step.get("content"))
    if pattern is None or "content" not in step:
        return length
    regex = _regex(step)
    text = pattern.get("String") if isinstance(pattern, dict) else pattern
    shortest = _length(text) if regex is None else shortest_and_ways(regex)[0]
    return max(length, -(-length * content // shortest)) if shortest else length * (1 + content) + content


def _longest_mapped(table: Any) -> int:
    """The most characters that a table puts in the place of one."""
    strings = _strings(table) if isinstance(table, str) else None
    return max((len(string.decode("utf-8", "replace")) for string in strings or ()), default=0) or 1


def _strings(table: str) -> list[bytes] | None:
    """Those of a table of SentencePiece's: the size of a trie, the trie, for which `tokenizers` takes memory before it
    looks for it, then strings that end in zeros.  None for what is no such table."""
    try:
        data = base64.b64decode(table, validate=True)
    except (ValueError, binascii.Error):
        return None
    start = 4 + int.from_bytes(data[:4], "little")
    return data[start:].split(b"\0") if start <= len(data) else None


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list)) else 0
