"""A Python function as the JSON schema that a chat template shows of a tool.

Types come from the hints, words from a docstring in Google's style, and the schema is that of transformers'
`get_json_schema`: models are trained on tools so described.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
from collections.abc import Callable, Iterable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fastdistill.errors import ArgumentError
from fastdistill.messages import short

_NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
    list: "array",
    tuple: "array",
    dict: "object",
}
_SCALARS = (int, float, str, bool, type(None))
_SECTION = re.compile(r"\s*(Args|Returns|Raises):\s*")
_ARGUMENT = re.compile(r"(\s*)(\w+)(?:[ \t]*\([^()]*\))?:\s*(.*)")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def function_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """What a template is told of a function: {"type": "function", "function": {"name": ..., "parameters": ...}}.

        def weather(place: str, unit: Literal["C", "F"] = "C"):
            '''Say what the weather is like.

            Args:
                place: a town
                unit: of the temperature
            '''

    Raises
    ------
    ArgumentError
        for a function without a docstring, an argument without a hint or a description, and a hint that JSON has no
        type for
    """
    name = getattr(function, "__name__", "operation")
    doc = inspect.getdoc(function)
    if not doc:
        raise ArgumentError(f"tool {name} must have a docstring that says what it does and what its arguments are")
    sections = _sections(doc)
    described = _described(sections["Args"])
    try:
        hints, signature = get_type_hints(function), inspect.signature(function)
    except (NameError, TypeError, ValueError) as error:
        raise ArgumentError(f"tool {name}: its type hints cannot be read: {error}") from None
    properties, required = {}, []
    for i, (argument, parameter) in enumerate(signature.parameters.items()):
        if argument not in hints:
            if i == 0 and argument in ("self", "cls"):
                continue
            raise ArgumentError(f"tool {name}: argument {argument} must have a type hint")
        if argument not in described:
            raise ArgumentError(f"tool {name}: its docstring must describe argument {argument} under Args:")
        properties[argument] = _argument(hints[argument], described[argument], f"tool {name}: argument {argument}")
        if parameter.default is inspect.Parameter.empty:
            required.append(argument)
    parameters = {"type": "object", "properties": properties, **({"required": required} if required else {})}
    schema = {"name": name, "description": _words(sections[""]), "parameters": parameters}
    if "return" in hints and (returned := _returned(hints["return"])) is not None:
        says = _words(sections["Returns"])
        schema["return"] = returned | ({"description": says} if says else {})
    return {"type": "function", "function": schema}


def _sections(doc: str) -> dict[str, list[str]]:
    """A docstring's lines, by the head that they stand under."""
    found: dict[str, list[str]] = {"": [], "Args": [], "Returns": [], "Raises": []}
    head = ""
    for line in doc.strip().splitlines():
        section = _SECTION.fullmatch(line)
        if section:
            head = section[1]
        else:
            found[head].append(line)
    return found


def _words(lines: Iterable[str]) -> str:
    return "\n".join(lines).strip()


def _described(lines: list[str]) -> dict[str, str]:
    """What is said of each argument. What is indented deeper than its name goes on with it."""
    found: dict[str, list[str]] = {}
    name, indent = "", 0
    for line in filter(str.strip, lines):
        argument = _ARGUMENT.match(line)
        if argument and (not found or len(argument[1]) <= indent):
            indent, name = len(argument[1]), argument[2]
            found[name] = [argument[3]]
        elif found:
            found[name].append(line)
    return {name: " ".join(filter(None, map(str.strip, words))) for name, words in found.items()}


def _argument(hint: Any, words: str, what: str) -> dict[str, Any]:
    schema = _schema(hint, what)
    choices = _CHOICES.search(words)
    if choices:
        try:
            values = json.loads(choices[1])
        except ValueError as error:
            raise ArgumentError(f"{what}: its choices must be a JSON list, got {short(choices[1])}: {error}") from None
        schema["enum"] = [value.strip() if isinstance(value, str) else value for value in values]
        words = words[: choices.start()].strip()
    return schema | {"description": words}


def _returned(hint: Any) -> dict[str, Any] | None:
    """Of the type that a function returns, which no model has to write: None where JSON has none for it."""
    try:
        return _schema(hint, "")
    except ArgumentError:
        return None


def _schema(hint: Any, what: str) -> dict[str, Any]:
    """A type as JSON schema has it."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin in (Union, types.UnionType):
        return _union([_schema(each, what) for each in inside if each is not type(None)], type(None) in inside)
    if origin is Literal:
        return _enumeration(inside, what)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enumeration([member.value for member in hint], what)
    if origin is tuple and (len(inside) == 1 or ... in inside):
        raise ArgumentError(f"{what}: a tuple of one type must be hinted as list[...], got {short(hint)}")
    kind = hint if origin is None else origin
    if not isinstance(kind, type) or kind not in _NAMES:
        raise ArgumentError(f"{what} must be hinted by a type that JSON has, got {short(hint)}")
    schema: dict[str, Any] = {"type": _NAMES[kind]}
    if kind is list and inside:
        schema["items"] = _schema(inside[0], what)
    elif kind is tuple and inside:
        schema["prefixItems"] = [_schema(each, what) for each in inside]
    elif kind is dict and inside:
        schema["additionalProperties"] = _schema(inside[1], what)
    return schema


def _union(kinds: list[dict[str, Any]], optional: bool) -> dict[str, Any]:
    if len(kinds) == 1:
        schema = kinds[0]
    elif all(kind.keys() == {"type"} and isinstance(kind["type"], str) for kind in kinds):
        names = sorted({kind["type"] for kind in kinds})
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": kinds}
    return schema | ({"nullable": True} if optional else {})


def _enumeration(values: Iterable[Any], what: str) -> dict[str, Any]:
    values = list(values)
    if not values or any(type(value) not in _SCALARS for value in values):
        raise ArgumentError(f"{what} must be one of some numbers, texts, booleans or None, got {short(values)}")
    names = list(dict.fromkeys(_NAMES[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": values}
