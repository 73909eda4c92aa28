"""Options of what a text has to be."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdistill.errors import ArgumentError
from fastdistill.files import read_json, read_text
from fastdistill.messages import short

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdistill.api import Model

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
    from fastdistill.constraint import Choices, Gbnf, JsonSchema, Lark, Regex

    def made(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ArgumentError as error:
            raise ArgumentError(f"{source}: {error}") from error

    source, grammar = "", None
    if arguments.json_schema is not None:
        schema = read_json(Path(arguments.json_schema), _MOST_BYTES, ArgumentError)
        source, grammar = short(arguments.json_schema)[1:-1], lambda: JsonSchema(schema)
    elif arguments.grammar is not None:
        text = read_text(Path(arguments.grammar), _MOST_BYTES, ArgumentError)
        kind = Gbnf if arguments.grammar.endswith(".gbnf") else Lark
        source, grammar = short(arguments.grammar)[1:-1], lambda: kind(text)
    elif arguments.regex is not None:
        source, grammar = "--regex", lambda: Regex(arguments.regex)
    elif arguments.choice is not None:
        source, grammar = "--choice", lambda: Choices(arguments.choice)
    else:
        return lambda model: {}
    asked = made(grammar)
    return lambda model: {"grammar": made(lambda: asked.bound(model.tokenizer, model.vocab_size))}
