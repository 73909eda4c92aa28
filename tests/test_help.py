"""help() of a type says what each of its fields is: by name, arrays with a dtype and a shape, the rest in words."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap

import pytest

import fastdistill as fd
from fastdistill import checkpoint, decode, distill, kernels, models, runtime, show, transport, unmask

# What is not for a user's hands: references, the command line; and a family's config, whose fields are keys of config.json.
ELSEWHERE = re.compile(r"fastdistill\.(reference|cli|embedded|__main__|text\.template_worker)|.*\.models\..*Config$")


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


def _classes() -> dict[str, type]:
    """Every other class that a package exports."""
    packages = (fd, kernels, transport, distill, decode, show, unmask, checkpoint, models, runtime)
    things = {name: getattr(package, name) for package in packages for name in package.__all__}
    known = set(RECORDS.values())
    return {name: thing for name, thing in things.items() if inspect.isclass(thing) and thing not in known}


RECORDS = _records()
CLASSES = _classes()
NUMERIC = {getattr(package, name) for package in (kernels, transport, distill) for name in package.__all__}


def _line(thing: type, field: str) -> str | None:
    """What the docstring says behind a field's name, which stands alone or in a list of names, a shape perhaps behind it."""
    text = inspect.cleandoc(vars(thing).get("__doc__") or "")
    found = re.search(rf"^(?:\w+, )*{field}(?:, \w+)*  +(\S.*)$", text, re.MULTILINE)
    return found and found[1]


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
    for field in _names(thing):
        line = _line(thing, field)
        assert line, f"{name}: nothing is said of {field}"
        if kinds[field].removesuffix(" | None") == "np.ndarray" or (issubclass(thing, tuple) and thing in NUMERIC):
            shape = re.match(r"(bool|u?int\d*|float\d*|DRAW)\b|\(", line)
            assert shape, f"{name}.{field}: no dtype and shape in {line!r}"


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
    missing = sorted(attribute for attribute in _attributes(CLASSES[name]) if not _line(CLASSES[name], attribute))
    assert not missing, f"{name}: nothing is said of {', '.join(missing)}"
