"""Options of what a text has to be."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastdistill.errors import ArgumentError
from fastdistill.files import read_json, read_text
from fastdistill.messages import short

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdistill.api import Model
    from fastdistill.decode.constraint import Grammar

T = TypeVar("T")
_MOST_BYTES = 1 << 22


def add_grammar_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what the text has to be",
        "One of these, by the extra `grammar`; --choice needs none. docs/grammar.md says more.",
    ).add_mutually_exclusive_group()
    group.add_argument(
        "--json-schema",
        metavar="FILE.json",
        help="JSON that is valid under the schema in FILE.json: --json-schema person.json",
    )
    group.add_argument(
        "--regex", metavar="PATTERN", help="what PATTERN matches as a whole: --regex '[A-Z][a-z]+, [0-9]{4}'"
    )
    group.add_argument(
        "--grammar",
        metavar="FILE",
        help="what the grammar in FILE derives: llama.cpp's notation if its name ends in .gbnf, else Lark",
    )
    group.add_argument(
        "--choice", action="append", metavar="TEXT", help="TEXT, or that of another --choice: --choice yes --choice no"
    )


def grammar_options(arguments: argparse.Namespace) -> Callable[[Model], dict[str, Any]]:
    """What makes the option `grammar` of `Model.generate` for a model, where one was asked for; files are read now.

    Raises
    ------
    ArgumentError
        naming the file, or the option, whose grammar cannot be held, here or for the model
    """
    asked = _asked(arguments)
    if asked is None:
        return lambda model: {}
    source, grammar = asked
    return lambda model: {"grammar": _said(source, lambda: grammar.bound(model.tokenizer, model.vocab_size))}


def _asked(arguments: argparse.Namespace) -> tuple[str, Grammar] | None:
    """Where the grammar comes from, and it; None: there is none."""
    from fastdistill.constraint import Choices, Gbnf, JsonSchema, Lark, Regex

    make: Callable[[], Grammar]
    if arguments.json_schema is not None:
        source, schema = arguments.json_schema, read_json(Path(arguments.json_schema), _MOST_BYTES, ArgumentError)
        make = lambda: JsonSchema(schema)  # noqa: E731
    elif arguments.grammar is not None:
        source, text = arguments.grammar, read_text(Path(arguments.grammar), _MOST_BYTES, ArgumentError)
        make = lambda: (Gbnf if source.endswith(".gbnf") else Lark)(text)  # noqa: E731
    elif arguments.regex is not None:
        source, make = "--regex", lambda: Regex(arguments.regex)
    elif arguments.choice is not None:
        source, make = "--choice", lambda: Choices(arguments.choice)
    else:
        return None
    return source, _said(source, make)


def _said(source: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except ArgumentError as error:
        raise ArgumentError(f"{short(source)[1:-1]}: {error}") from error
