"""Grammars of text as constraints on tokens: JSON schemas, regular expressions, Lark and GBNF, by llguidance (extra `grammar`); lists of texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from fastdistill.arguments import check_integer, check_integers, check_text
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.messages import printable, short
from fastdistill.text.json_schema import place_named, plain_schema, with_exact_patterns

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from fastdistill.text.tokenizer import Tokenizer

MOST_SAID = 240  # characters of an error of the library's


@dataclass(frozen=True)
class JsonSchema:
    """Text that is JSON, and valid under a schema.

    Parameters
    ----------
    schema : Mapping[str, Any] | str | bool
        the schema, or the JSON of an object
    whitespace : int, default 1
        most spaces and line ends at each place that may have some: a small model would write them without end

    Raises
    ------
    ArgumentError
        for what is no schema, and for keywords that cannot be held, saying where: none is ignored; for some, such as a format
        that is not known, where a text is asked for
    """

    schema: Mapping[str, Any] | str | bool
    whitespace: int = 1

    def __post_init__(self) -> None:
        check_integer("whitespace", self.whitespace, 0, 1 << 10)
        object.__setattr__(self, "schema", plain_schema(self.schema))

    def bound(self, tokenizer: Tokenizer, vocab_size: int) -> Guidance:
        # Options go into an object, and a bool is none.
        schema = json.dumps(
            {"allOf": [self.schema]} if isinstance(self.schema, bool) else with_exact_patterns(self.schema)
        )
        options: Any = {"whitespace_flexible": False}
        if self.whitespace:
            options = {"whitespace_flexible": True, "whitespace_pattern": rf"[\x20\n\r\t]{{0,{self.whitespace}}}"}
        try:
            grammar = _library().LLMatcher.grammar_from_json_schema(schema, overrides=options | {"lenient": False})
        except ValueError as error:  # a number that is too large, half a character
            raise ArgumentError(f"schema: {error}") from error
        return Guidance(tokenizer, vocab_size, grammar, self._refusal)

    def _refusal(self, error: str) -> str:
        said = (_REGEX.sub(lambda found: f"pattern {short(found[1])}: {found[3]}", error)).split(". Enable ")[0]
        place = place_named(self.schema, error)
        return f"schema: {place and f'at {place}: '}{said}"


@dataclass(frozen=True)
class Regex:
    """Text that a regular expression matches as a whole.

    Parameters
    ----------
    pattern : str
        in the syntax of Rust's `regex`, which has no references back
    """

    pattern: str

    def __post_init__(self) -> None:
        check_text("pattern", self.pattern)

    def bound(self, tokenizer: Tokenizer, vocab_size: int) -> Guidance:
        grammar = _library().LLMatcher.grammar_from_regex(self.pattern)
        return Guidance(tokenizer, vocab_size, grammar, self._refusal)

    def _refusal(self, error: str) -> str:
        found = _REGEX.search(error)
        if found is None:
            return f"pattern {short(self.pattern)}: {_where(error)[2].rpartition('(in regex): ')[2]}"
        at = left = 0
        for part in re.findall(r"\\.|.", self.pattern, re.DOTALL):  # as the library shows it, in one line
            left += len(part) if part not in "\n\r\t/" else 2
            if left > len(found[2]):
                break
            at += len(part)
        line, column = self.pattern.count("\n", 0, at) + 1, at - self.pattern.rfind("\n", 0, at)
        return f"pattern: line {line}, column {column}: {found[3]}"


@dataclass(frozen=True)
class Lark:
    """Text that a context-free grammar derives.

    Parameters
    ----------
    grammar : str
        in the syntax of Lark, as llguidance reads it; it begins at the rule `start`
    """

    grammar: str

    def __post_init__(self) -> None:
        check_text("grammar", self.grammar)

    def bound(self, tokenizer: Tokenizer, vocab_size: int) -> Guidance:
        grammar = _library().LLMatcher.grammar_from_lark(self.grammar)
        return Guidance(tokenizer, vocab_size, grammar, self._refusal)

    def _refusal(self, error: str) -> str:
        line, byte, said = _where(error)
        if not line:
            return f"grammar: {said}"
        before = b"".join(self.grammar.encode().split(b"\n")[line - 1 : line])[: byte - 1]  # it may be behind the last
        return f"grammar: line {line}, column {len(before.decode(errors='replace')) + 1}: {said}"


@dataclass(frozen=True)
class Gbnf:
    """Text that a grammar in llama.cpp's notation derives.

    Parameters
    ----------
    grammar : str
        it begins at the rule `root`
    """

    grammar: str

    def __post_init__(self) -> None:
        check_text("grammar", self.grammar)

    def bound(self, tokenizer: Tokenizer, vocab_size: int) -> Guidance:
        LLMatcher = _library().LLMatcher
        from llguidance.gbnf_to_lark import gbnf_to_lark

        try:
            grammar = LLMatcher.grammar_from_lark(gbnf_to_lark(self.grammar))
        except Exception as error:  # it names no type of its own for some
            at = getattr(error, "pos", None)
            if at is None:
                raise ArgumentError(f"grammar: {short(str(error))[1:-1]}") from error
            line, column = at.text.count("\n", 0, at.pos) + 1, at.pos - at.text.rfind("\n", 0, at.pos)
            raise ArgumentError(
                f"grammar: line {line}, column {column}: {str(error).partition(' at line ')[0]}"
            ) from error
        return Guidance(tokenizer, vocab_size, grammar, lambda error: f"grammar: {_where(error)[2]}")


class Guidance:
    """A constraint by llguidance: its matchers are copied at each step, which takes a few microseconds.

    Parameters
    ----------
    tokenizer : Tokenizer
    vocab_size : int
    grammar : str
        as the library writes it
    refusal : Callable[[str], str]
        what to say where the library refuses it, of what it says
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, grammar: str, refusal: Callable[[str], str]) -> None:
        tokens = _tokens(tokenizer, vocab_size)
        # What the library takes for ends of a text, and lets follow it: the model's are not its affair.
        self._ends = frozenset(tokens.eos_tokens)
        self._text = np.full(-(-vocab_size // 32), 0xFFFFFFFF, np.uint32)
        for token in self._ends:
            self._text[token // 32] &= np.uint32(0xFFFFFFFF ^ 1 << token % 32)
        self._start = _library().LLMatcher(tokens, grammar, log_level=0)
        if self._start.is_error():
            raise ArgumentError(" ".join(refusal(self._start.get_error().strip())[:MOST_SAID].split()))

    def start(self) -> LLMatcher:
        return self._start

    def advance(self, state: LLMatcher, token: int) -> LLMatcher | None:
        if token in self._ends:
            return None
        after = state.deep_copy()
        return after if after.consume_token(token) else None

    def mask(self, state: LLMatcher) -> np.ndarray:
        bits = state.compute_bitmask()
        if state.is_error():
            raise ArgumentError(f"the grammar gave up: {short(state.get_error().strip())[1:-1]}")
        return np.frombuffer(bits, np.uint32, len(self._text)) & self._text

    def may_end(self, state: LLMatcher) -> bool:
        return state.is_accepting()

    def guess(self, state: LLMatcher, most: int) -> Sequence[int]:
        return state.compute_ff_tokens()[:most]


@dataclass(frozen=True)
class Choices:
    """One of a few texts, spelt as the tokenizer spells them behind what was asked.

    Parameters
    ----------
    texts : Sequence[str]
        1 or more
    """

    texts: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or not isinstance(self.texts, Sequence) or not self.texts:
            raise ArgumentError(f"texts must be a list of str, one at least, got {short(self.texts)}")
        for text in self.texts:
            check_text("each of texts", text)
        object.__setattr__(self, "texts", tuple(self.texts))

    def bound(self, tokenizer: Tokenizer, vocab_size: int) -> Trie:
        return Trie([tokenizer.encode(text, special=False) for text in self.texts])


class Trie:
    """A constraint: one of a few sequences of tokens. A state is the node that is reached.

    Parameters
    ----------
    sequences : Sequence[Sequence[int]]
        1 or more; an empty one is a text without a token
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        if isinstance(sequences, str) or not isinstance(sequences, Sequence) or not len(sequences):
            raise ArgumentError(f"sequences must be a list of lists of token ids, one at least, got {short(sequences)}")
        self._root: dict[int | None, Any] = {}
        for sequence in sequences:
            node = self._root
            for token in check_integers("each of sequences", sequence, 0, (1 << 31) - 1, empty=True).tolist():
                node = node.setdefault(token, {})
            node[None] = True  # one ends here

    def start(self) -> dict[int | None, Any]:
        return self._root

    def advance(self, state: dict[int | None, Any], token: int) -> dict[int | None, Any] | None:
        return state.get(token)

    def mask(self, state: dict[int | None, Any]) -> list[int]:
        return [token for token in state if token is not None]

    def may_end(self, state: dict[int | None, Any]) -> bool:
        return None in state


# How the library shows a wrong regular expression: it, what is before the place, and what is wrong.
_REGEX = re.compile(r"regex parse error:\n {4}(.*)\n {4}( *)\^.*\nerror: ([^\n]*)")


def _where(error: str) -> tuple[int, int, str]:
    """The line and the column in bytes, 0 where the library names none, and what it says of them."""
    said = re.split(r"\n +\d+ \| ", _REGEX.sub(lambda found: found[3], error))[0]
    found = re.match(r"(?:at )?(\d+)\((\d+)\): ", said)
    return (int(found[1]), int(found[2]), said[found.end() :]) if found else (0, 0, said)


_READ: WeakKeyDictionary[Tokenizer, dict[int, LLTokenizer]] = WeakKeyDictionary()


def _tokens(tokenizer: Tokenizer, vocab_size: int) -> LLTokenizer:
    """What llguidance makes of a tokenizer, which takes as long as reading it."""
    read = _READ.setdefault(tokenizer, {})
    if vocab_size not in read:
        try:
            read[vocab_size] = _library().LLTokenizer(
                tokenizer.json, n_vocab=vocab_size, eos_token=min(tokenizer.special_ids, default=None)
            )
        except ValueError as error:
            raise UnsupportedError(
                f"llguidance does not read this model's tokenizer: {printable(str(error))[:160]}"
            ) from error
    return read[vocab_size]


def _library() -> Any:
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            "grammars of text need the package llguidance: pip install 'fastdistill[grammar]'"
        ) from error
    return llguidance
