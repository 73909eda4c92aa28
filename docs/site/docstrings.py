"""Docstrings as pages: of every public name of a module its signature and what help() says, in Markdown.

tests/test_help.py holds docstrings to one style, numpydoc's; this reads no other.  Public modules are those of `fastdistill.__all__`, then
every package with an `__all__`.  What several of them have is described by the first one.
"""

from __future__ import annotations

import html
import inspect
import pkgutil
import re
import textwrap
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

import fastdistill
from fastdistill.messages import short

WIDTH = 90  # columns of a signature
SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)


def public_modules() -> list[ModuleType]:
    named = [name for name in fastdistill.__all__ if inspect.ismodule(getattr(fastdistill, name))]
    walked = [module.name for module in pkgutil.walk_packages(fastdistill.__path__, "fastdistill.") if module.ispkg]
    found = [fastdistill, *(getattr(fastdistill, name) for name in named), *map(import_module, walked)]
    return [module for module in dict.fromkeys(found) if public(module)]


def public(module: ModuleType) -> dict[str, Any]:
    """What a module has, by name: `__all__`, or the classes of a file without one."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = (
            []
            if hasattr(module, "__path__")
            else [name for name, thing in vars(module).items() if is_of(module, thing)]
        )
    things = {name: getattr(module, name) for name in names}
    return {name: thing for name, thing in things.items() if not inspect.ismodule(thing)}


def is_of(module: ModuleType, thing: Any) -> bool:
    return inspect.isclass(thing) and thing.__module__ == module.__name__


def page_of(module: ModuleType) -> str:
    return f"docs/reference/{module.__name__}.md"


MODULES = public_modules()
HOMES = {
    id(thing): f"{module.__name__}.{name}" for module in reversed(MODULES) for name, thing in public(module).items()
}
LINKS = {home.rpartition(".")[2]: home for home in reversed(HOMES.values())}  # the first of a name


def text_of(module: ModuleType) -> str:
    """The page of a module: a part for each folder below it that its names come from."""
    parts: dict[str, list[str]] = {"": []}
    elsewhere = []
    for name, thing in public(module).items():
        full = f"{module.__name__}.{name}"
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            parts[""].append(f"### `{name}` {{#{full}}}\n\n{escaped(short(thing, 400))}\n")
        elif HOMES[id(thing)] != full:
            elsewhere.append(linked(f"`{name}`", HOMES[id(thing)]))
        else:
            parts.setdefault(folder_of(module, thing), []).append(entry(full, thing))
    text = f"# {module.__name__}\n\n{prose(module.__doc__ or '')}\n"
    for title, entries in sorted(parts.items()):
        if title and entries:
            text += f"\n## {title}\n\n{prose(import_module(f'{module.__name__}.{title}').__doc__ or '')}\n"
        text += "\n".join(entries)
    if "**Examples**" in text:
        text += "\nIn examples `fd` is fastdistill, `np` is NumPy, and `folder` is a model's folder.\n"
    return text + (f"\nDescribed elsewhere: {', '.join(elsewhere)}.\n" if elsewhere else "")


def folder_of(module: ModuleType, thing: Any) -> str:
    """The package below a module that something is made in, or none."""
    below = thing.__module__.removeprefix(f"{module.__name__}.").split(".")
    found = thing.__module__ != ".".join(below) and hasattr(import_module(f"{module.__name__}.{below[0]}"), "__path__")
    return below[0] if found else ""


def entry(full: str, thing: Any) -> str:
    """A heading, the signature, the docstring; of a class its methods too."""
    name = full.rpartition(".")[2]
    text = f"### `{name}` {{#{full}}}\n\n{signature(name, thing)}{docstring(inspect.getdoc(thing) or '')}\n"
    for key, value in vars(thing).items() if inspect.isclass(thing) else ():
        method = getattr(value, "__func__", value)
        said = inspect.isfunction(method) or isinstance(value, property | cached_property)
        if said and method.__doc__ and (key[0] != "_" or key == "__call__"):
            shown = signature(f"{name}.{key}", getattr(thing, key)) if inspect.isfunction(method) else ""
            text += f"\n#### `{name}.{key}` {{#{full}.{key}}}\n\n{shown}{docstring(inspect.cleandoc(method.__doc__))}\n"
    return text


class Written:
    """A default as a signature shows it."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        return short(self.value, 40)


def signature(name: str, thing: Any) -> str:
    """How it is called, without types: the docstring has those."""
    try:
        found = inspect.signature(thing)
    except ValueError:
        return ""
    parameters = [
        each.replace(
            annotation=each.empty, default=each.default if each.default is each.empty else Written(each.default)
        )
        for each in found.parameters.values()
        if each.name not in ("self", "_cls")
    ]
    text = f"{name}{inspect.Signature(parameters)}"
    lines = textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * (len(name) + 1), break_long_words=False, break_on_hyphens=False
    )
    return "```python\n" + "\n".join(lines) + "\n```\n\n"


def docstring(text: str) -> str:
    """A docstring in Markdown."""
    words, *pieces = SECTION.split(text)
    found = prose(words)
    for title, body in zip(pieces[::2], pieces[1::2], strict=True):
        shown = prose(body) if title in ("Notes", "References", "Examples") else entries(body)
        found += f"\n**{title}**\n\n{shown}"
    return found


def entries(body: str) -> str:
    """Each `name : type` and the words below it, as a list."""
    found = ""
    for item in re.split(r"\n(?=\S)", body.strip("\n")):
        head, _, words = item.partition("\n")
        names, colon, kind = head.partition(" : ")
        shown = f"**{escaped(names)}**{colon}{escaped(kind)}" if colon else escaped(head)
        below = textwrap.indent(prose(textwrap.dedent(words)).rstrip(), "    ")
        found += f"- {shown}  \n{below}\n" if below else f"- {shown}\n"
    return found


def prose(text: str) -> str:
    """Paragraphs: code stays as it is, and the rest means nothing else in Markdown than in plain text."""
    found = ""
    for block in re.split(r"\n{2,}", text.strip("\n")):
        if block.startswith(">>> "):
            found += f"```pycon\n{block}\n```\n\n"
        elif block.startswith("    "):
            found += f"```python\n{textwrap.dedent(block)}\n```\n\n"
        else:
            found += re.sub(r"(?m)^(?!- )(.*\n)(?=- )", r"\1\n", escaped(block)) + "\n\n"
    return found


def escaped(text: str) -> str:
    """Words and `code`; what is described somewhere becomes a link."""
    pieces = re.split(r"(`[^`\n]+`)", text)
    pieces[::2] = [re.sub(r"([\\*_\[\]{}#])", r"\\\1", html.escape(each, quote=False)) for each in pieces[::2]]
    pieces[1::2] = [linked(each, LINKS.get(each.strip("`").removeprefix("fd."))) for each in pieces[1::2]]
    return re.sub(r"docs/([\w/]+\.md)", r"[\g<0>](../\1)", "".join(pieces))


def linked(text: str, home: str | None) -> str:
    """A text that leads to where something public is described."""
    return f"[{text}]({home.rpartition('.')[0]}.md#{home})" if home else text
