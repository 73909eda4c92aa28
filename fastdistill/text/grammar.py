"""Grammars of text as constraints on tokens: JSON schemas, regular expressions, Lark and GBNF, by llguidance (extra `grammar`); lists of texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from fastdistill.arguments import check_integer, check_text
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.messages import short

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from fastdistill.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class JsonSchema:
    """Text that is JSON, and valid under a schema.

    Parameters
    ----------
    schema : Mapping[str, Any] | str | bool
        the schema, or its JSON
    whitespace : int, default 1
        most spaces and line ends at each place that may have some: a small model would write them without end

    Raises
    ------
    ArgumentError
        for what is no schema; where a text is asked for, for keywords that cannot be held: none is ignored
    """

    schema: Mapping[str, Any] | str | bool
    whitespace: int = 1

    def __post_init__(self) -> None:
        check_integer("whitespace", self.whitespace, 0, 1 << 10)
        schema = self.schema
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                raise ArgumentError(f"schema is no JSON: {error}") from error
        if not isinstance(schema, (Mapping, bool)):
            raise ArgumentError(f"schema must be a JSON object or a bool, got {short(schema)}")
        object.__setattr__(self, "schema", schema)

    def bound(self, tokenizer: Tokenizer, vocab_size: int) -> Guidance:
        try:
            schema = json.dumps(self.schema, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(f"schema is no JSON: {error}") from error
        options: Any = {"whitespace_flexible": False}
        if self.whitespace:
            options = {"whitespace_flexible": True, "whitespace_pattern": rf"[\x20\n\r\t]{{0,{self.whitespace}}}"}
        text = _library().LLMatcher.grammar_from_json_schema(schema, overrides=options | {"lenient": False})
        return Guidance(tokenizer, vocab_size, text, "JSON schema")


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
        return Guidance(
            tokenizer, vocab_size, _library().LLMatcher.grammar_from_regex(self.pattern), "regular expression"
        )


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
        return Guidance(tokenizer, vocab_size, _library().LLMatcher.grammar_from_lark(self.grammar), "grammar")


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
        try:
            _library()
            from llguidance.gbnf_to_lark import gbnf_to_lark

            lark = gbnf_to_lark(self.grammar)
        except Exception as error:  # it names no type of its own
            raise ArgumentError(f"this GBNF cannot be read: {error}") from error
        return Lark(lark).bound(tokenizer, vocab_size)


class Guidance:
    """A constraint by llguidance: its matchers are copied at each step, which takes a few microseconds."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, grammar: str, what: str) -> None:
        self._words = -(-vocab_size // 32)
        self._start = _library().LLMatcher(_tokens(tokenizer, vocab_size), grammar, log_level=0)
        if self._start.is_error():
            raise ArgumentError(f"this {what} cannot be held: {self._start.get_error().strip()}")

    def start(self) -> LLMatcher:
        return self._start

    def advance(self, state: LLMatcher, token: int) -> LLMatcher | None:
        after = state.deep_copy()
        return after if after.consume_token(token) else None

    def mask(self, state: LLMatcher) -> np.ndarray:
        bits = state.compute_bitmask()
        if state.is_error():
            raise ArgumentError(f"the grammar gave up: {state.get_error().strip()}")
        return np.frombuffer(bits, np.uint32, self._words)

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
    """A constraint: one of a few sequences of tokens. A state is the node that is reached."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self._root: dict[int | None, Any] = {}
        for sequence in sequences:
            node = self._root
            for token in sequence:
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


_READ: WeakKeyDictionary[Tokenizer, dict[int, LLTokenizer]] = WeakKeyDictionary()


def _tokens(tokenizer: Tokenizer, vocab_size: int) -> LLTokenizer:
    """What llguidance makes of a tokenizer, which takes as long as reading it."""
    read = _READ.setdefault(tokenizer, {})
    if vocab_size not in read:
        read[vocab_size] = _library().LLTokenizer(tokenizer.json, n_vocab=vocab_size)
    return read[vocab_size]


def _library() -> Any:
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            "grammars of text need the package llguidance: pip install 'fastdistill[grammar]'"
        ) from error
    return llguidance
