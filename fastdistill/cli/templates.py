"""Options of what a model's chat template is told."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fastdistill.cli.options import flag, given, named_values
from fastdistill.errors import ArgumentError
from fastdistill.files import MAX_JSON_BYTES, read_text

_OPTIONS = ("tools", "documents", "chat_template")
_MAX_TEMPLATE_BYTES = 1 << 20


def add_template_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what the chat template is told")
    group.add_argument("--tools", metavar="FILE.json", help="a list of JSON schemas of functions")
    group.add_argument("--documents", metavar="FILE.json", help='a list of objects, usually of "title" and "text"')
    group.add_argument(
        "--chat-template", metavar="NAME", help="one of the model's templates by name, or a file that ends in .jinja"
    )
    group.add_argument(
        "--template-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what else it reads, as JSON or text: enable_thinking=false; may be repeated",
    )


def template_options(arguments: argparse.Namespace, chat: bool = True) -> dict[str, Any]:
    """Those that were given, as `Model.chat_prompt` takes them.

    Raises
    ------
    ArgumentError
        where no chat is asked for, and for a file that does not hold what it should
    """
    options = given(**{name: getattr(arguments, name) for name in _OPTIONS})
    if not chat and (options or arguments.template_option):
        raise ArgumentError(f"{flag(next(iter(options), 'template_option'))} goes with --chat")
    for name in ("tools", "documents"):
        if name in options:
            options[name] = _list(flag(name), Path(options[name]))
    if options.get("chat_template", "").endswith(".jinja"):
        options["chat_template"] = read_text(Path(options["chat_template"]), _MAX_TEMPLATE_BYTES, ArgumentError)
    taken = (*_OPTIONS, "messages", "tokenizer")
    return options | named_values("template_option", arguments.template_option, taken, "a name of the template's own")


def _list(name: str, path: Path) -> list[Any]:
    try:
        value = json.loads(read_text(path, MAX_JSON_BYTES, ArgumentError))
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{name}: {path} is not valid JSON: {error}") from None
    if not isinstance(value, list):
        raise ArgumentError(f"{name}: {path} must hold a JSON list")
    return value
