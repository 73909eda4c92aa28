"""help() says what everything is, in numpydoc's sections: each field of a type, each parameter of a function, in one style."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import fastdistill as fd
from fastdistill import (
    checkpoint,
    constraint,
    decode,
    distill,
    kernels,
    models,
    runtime,
    show,
    testing,
    transport,
    unmask,
)
from fastdistill.options import DEFAULTS

# What is not for a user's hands: references, the command line; and a family's config, whose fields are keys of config.json.
ELSEWHERE = re.compile(r"fastdistill\.(reference|cli|embedded|__main__|text\.template_worker)|.*\.models\..*Config$")
PACKAGES = (fd, kernels, transport, distill, decode, show, unmask, constraint, checkpoint, models, runtime, testing)
# In this order, each at most once.
SECTIONS = ["Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "References", "Examples"]
HEADING = re.compile(r"^(\w[\w ]*)\n(-{3,})$", re.MULTILINE)
ARRAY = re.compile(r"(bool|u?int\d*|float\d*|str|DRAW|np\.ndarray|RowStatistics of)\b.*\(")


class Entry(NamedTuple):
    """One or more names of a section, their type and what is said of them."""

    names: list[str]
    kind: str
    words: str

    @property
    def says_something(self) -> bool:
        """Words, or a dtype and a shape: a type that the signature has too is not enough."""
        return bool(self.words or ARRAY.match(self.kind))


def sections(text: str) -> dict[str, str]:
    """The bodies of a docstring's sections; what is before them is under the empty name."""
    pieces = HEADING.split(inspect.cleandoc(text))
    return {"": pieces[0], **dict(zip(pieces[1::3], pieces[3::3], strict=True))}


def entries(body: str) -> list[Entry]:
    """Those of a section: `name, name : type`, and lines of words below, indented."""
    found = []
    for line in body.strip("\n").split("\n") if body.strip() else ():
        if line.startswith(" ") or not line:
            found[-1] = found[-1]._replace(words=f"{found[-1].words} {line.strip()}".strip())
        else:
            names, _, kind = line.partition(" : ")
            found.append(Entry([name.lstrip("*") for name in names.split(", ")], kind, ""))
    return found


def described(thing: Any, *titles: str) -> dict[str, Entry]:
    """Name -> its entry in these sections of a docstring of the thing's own."""
    parts = sections((vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or "")
    return {name: entry for title in titles for entry in entries(parts.get(title, "")) for name in entry.names}


def _records() -> dict[str, type]:
    """Every public dataclass and NamedTuple of the package."""
    found = {}
    modules = (module.name for module in pkgutil.walk_packages(fd.__path__, "fastdistill."))
    for module in map(importlib.import_module, (name for name in modules if not ELSEWHERE.match(name))):
        for name, thing in vars(module).items():
            full = f"{module.__name__}.{name}"
            if name[0] == "_" or not inspect.isclass(thing) or thing.__module__ != module.__name__:
                continue
            if not ELSEWHERE.match(full) and (dataclasses.is_dataclass(thing) or hasattr(thing, "_fields")):
                found[full] = thing
    return found


def _exported() -> dict[str, Any]:
    return {name: getattr(package, name) for package in PACKAGES for name in package.__all__}


def _classes() -> dict[str, type]:
    """Every other class that a package exports."""
    known = set(RECORDS.values())
    return {name: thing for name, thing in _exported().items() if inspect.isclass(thing) and thing not in known}


def _functions() -> dict[str, Callable[..., Any]]:
    """Every function that a package exports, and the methods of every class that it does."""
    found = {}
    for name, thing in _exported().items():
        if inspect.isfunction(thing):
            found[name] = thing
        elif inspect.isclass(thing) and not ELSEWHERE.match(thing.__module__):
            for key, value in vars(thing).items():
                method = getattr(value, "__func__", value)
                if inspect.isfunction(method) and (key[0] != "_" or key == "__init__") and method.__doc__:
                    found[f"{name}.{key}"] = method
    return {name: function for name, function in found.items() if function.__module__.startswith("fastdistill")}


RECORDS = _records()
CLASSES = _classes()
FUNCTIONS = _functions()
NUMERIC = {getattr(package, name) for package in (kernels, transport, distill) for name in package.__all__}


def _names(thing: type) -> list[str]:
    fields = getattr(thing, "_fields", None) or [field.name for field in dataclasses.fields(thing)]
    return [name for name in fields if name[0] != "_"]


@pytest.mark.parametrize("name", RECORDS)
def test_every_field_is_described(name):
    thing = RECORDS[name]
    kinds = {
        key: str(kind)
        for base in reversed(thing.__mro__)
        for key, kind in vars(base).get("__annotations__", {}).items()
    }
    said = described(thing, "Parameters", "Attributes")
    for field in _names(thing):
        assert field in said and said[field].says_something, f"{name}: nothing is said of {field}"
        kind = said[field].kind
        if kinds[field].removesuffix(" | None") == "np.ndarray":
            assert ARRAY.match(kind), f"{name}.{field}: no dtype and shape in {kind!r}"
        elif issubclass(thing, tuple) and thing in NUMERIC:
            assert re.match(r"(bool|u?int\d*|float\d*|np\.ndarray|dict)\b", kind), (
                f"{name}.{field}: no dtype in {kind!r}"
            )


def _attributes(thing: type) -> set[str]:
    """What `__init__` gives an object, and its properties without words of their own."""
    properties = {
        key for key, value in vars(thing).items() if isinstance(value, property) and not value.__doc__ and key[0] != "_"
    }
    init = vars(thing).get("__init__")
    if init is None or not inspect.isfunction(init):
        return properties
    tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    return properties | {name for name in stored if name[0] != "_"}


@pytest.mark.parametrize("name", CLASSES)
def test_every_attribute_is_described(name):
    said = described(CLASSES[name], "Parameters", "Attributes")
    silent = (each for each in _attributes(CLASSES[name]) if each not in said or not said[each].says_something)
    missing = sorted(silent)
    assert not missing, f"{name}: nothing is said of {', '.join(missing)}"


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(function).parameters)
    return {name: each for name, each in found.items() if name not in ("self", "cls")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_is_described(name):
    """Of each function, and of Model's methods; other methods may say in a sentence what their arguments are."""
    function = FUNCTIONS[name]
    said, wanted = described(function, "Parameters"), list(_parameters(function))
    if "options" in said:  # those of `generate`, listed there
        wanted = [*(each for each in wanted if each not in DEFAULTS), "options"]
    if said or "." not in name or (name.startswith("Model.") and not name.endswith("__init__")):
        assert list(said) == wanted or (
            sorted(said) == sorted(wanted) and any(len(entry.names) > 1 for entry in said.values())
        ), f"{name} describes {', '.join(said)}, and has {', '.join(wanted)}"
        silent = [each for each, entry in said.items() if not entry.says_something]
        assert not silent, f"{name}: nothing is said of {', '.join(silent)}"


@pytest.mark.parametrize("name", [*FUNCTIONS, *RECORDS])
def test_the_defaults_that_are_told_are_those_of_the_signature(name):
    thing = FUNCTIONS.get(name) or RECORDS[name]
    parameters = _parameters(thing)
    for each, entry in described(thing, "Parameters").items():
        if each == "options" and each not in parameters:
            continue
        told = re.search(r"(?:, |^)(optional|default (.*))$", entry.kind)
        parameter = parameters[each]
        given = parameter.default is not parameter.empty
        assert bool(told) == given, f"{name}: {each} is {'' if given else 'not '}optional, and {entry.kind!r} is said"
        if told and told[2]:
            defaults = [ast.literal_eval(text) for text in told[2].split(" and ")]
            want = defaults[entry.names.index(each)] if len(defaults) > 1 else defaults[0]
            assert parameter.default == want, f"{name}: the default of {each} is not {want!r}"


# ---- one style ----

ROOT = Path(fd.__file__).parent
COLUMNS = re.compile(r"^ *[\w*]+(=\S+)?(, [\w*]+(=\S+)?)*  +\S", re.MULTILINE)  # name   what it is


def _docstrings(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Each docstring of a file, with where it is and whether it is the module's."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield f"{path.name}:{node.body[0].lineno}", text, isinstance(node, ast.Module)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_have_one_style(path):
    """numpydoc's: its sections, in its order; no columns of names and descriptions."""
    for where, text, is_module in _docstrings(path):
        columns = COLUMNS.search(text)
        assert not columns, f"{where}: {columns[0]!r}: names and descriptions in columns"
        said = re.search(r"^(Raises|Returns|Sources?:?|raises|returns|Sources?) +\S.*$", text, re.MULTILINE)
        assert is_module or not said, f"{where}: {said[0]!r} has a section of its own"
        headings = HEADING.findall(text)
        titles = [title for title, _ in headings]
        assert titles == [title for title in SECTIONS if title in titles], f"{where}: sections {', '.join(titles)}"
        assert all(len(title) == len(line) for title, line in headings), f"{where}: a line under a title is not as long"
        for title, body in sections(text).items():
            if title:
                assert body.strip(), f"{where}: nothing in {title}"
            if title in ("Parameters", "Attributes", "Raises"):
                assert not body.startswith(" "), f"{where}: {title} begins with words"
                for entry in entries(body):
                    assert all(re.fullmatch(r"`?\w+`?", each) for each in entry.names), (
                        f"{where}: {entry.names} in {title}"
                    )
