"""What a JSON schema may say to be held, and where in it something stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from fastdistill.arguments import check_text
from fastdistill.errors import ArgumentError
from fastdistill.files import parse_json
from fastdistill.messages import short

_OF_NAMES = {"properties", "patternProperties", "$defs", "definitions"}  # schemas by name
_OF_SCHEMAS = {
    "items",
    "prefixItems",
    "additionalItems",
    "additionalProperties",
    "anyOf",
    "oneOf",
    "allOf",
}  # one, or a list
_OF_VALUES = {
    "$ref", "const", "enum", "type", "required", "minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength",
    "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
}  # fmt: skip
_NOTES = {
    "$schema", "$id", "id", "$anchor", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly",
    "writeOnly", "discriminator",
}  # fmt: skip
_DATE = (
    "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    "|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)"
)
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_FORMATS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}[Tt]{_TIME}$"}
MOST_MULTIPLE = 10_000  # an automaton of multiples has a state for each remainder
_KEYWORDS = _OF_NAMES | _OF_SCHEMAS | _OF_VALUES | _NOTES


def plain_schema(schema: Any) -> dict[str, Any] | bool:
    """A copy of a schema, or of its JSON, all of whose keywords can be held.

    Raises
    ------
    ArgumentError
        for what is no schema, and for a keyword that nothing would come of, saying where it stands
    """
    if isinstance(schema, str):
        schema = parse_json(check_text("schema", schema).encode(), "schema", ArgumentError)
    else:
        try:
            schema = json.loads(json.dumps(schema, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(f"schema is no JSON: {error}") from error
    places = set()
    for place, part in _parts(schema):
        places.add(place)
        if isinstance(part, bool):
            continue
        if not isinstance(part, dict):
            raise ArgumentError(f"schema: {_shown(place)} must be a JSON object or a bool, got {short(part)}")
        for keyword in part:
            if keyword not in _KEYWORDS and (not keyword.startswith("x-") or keyword == "x-guidance"):
                raise ArgumentError(
                    f"schema: {_shown(place)} has {short(keyword)}, which cannot be held{_meant(keyword)}"
                )
        if {"prefixItems", "additionalItems"} <= part.keys():
            raise ArgumentError(
                f"schema: {_shown(place)} has additionalItems beside prefixItems, where it means nothing: did you mean items?"
            )
        multiple = part.get("multipleOf")
        if isinstance(multiple, (int, float)) and multiple <= 0:
            raise ArgumentError(f"schema: {_shown(place)} has a multipleOf that is not above 0, got {multiple}")
        if _digits(multiple) > MOST_MULTIPLE:
            raise ArgumentError(
                f"schema: {_shown(place)} has a multipleOf of {multiple}, whose digits without zeros at their ends make more than "
                f"{MOST_MULTIPLE:,}: which numbers divide by it could not be found out in time"
            )
        if {"$id", "$ref"} <= part.keys() and place != "#":
            raise ArgumentError(
                f"schema: {_shown(place)} has $id beside $ref, which drafts read in two ways: put one of them into allOf"
            )
    for place, part in _parts(schema):
        to = part.get("$ref") if isinstance(part, dict) else None
        if isinstance(to, str) and to.startswith("#/") and unquote(to) not in places:
            raise ArgumentError(f"schema: {_shown(place)} refers to {short(to)}, where no schema is")
    return schema  # type: ignore[no-any-return]


def _digits(number: Any) -> int:
    """A number's digits, without zeros at their ends, as an integer: 250 and 0.025 are 25; 0 for what is none."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return 0
    return int("".join(map(str, Decimal(str(number)).normalize().as_tuple().digits)))


def with_exact_patterns(schema: Any) -> Any:
    """A copy for llguidance: what `format` means of dates and times as patterns, 29 February in leap years alone and no leap second; and
    white space in patterns as ECMA 262 has it, with U+FEFF, which the expressions of Rust leave out."""
    schema = json.loads(json.dumps(schema))
    for _, part in [*_parts(schema)]:
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("pattern"), str):
            part["pattern"] = _with_ecma_space(part["pattern"])
        if isinstance(part.get("patternProperties"), dict):
            part["patternProperties"] = {
                _with_ecma_space(name): each for name, each in part["patternProperties"].items()
            }
        pattern = _FORMATS.get(str(part.get("format")))
        if pattern is None:
            continue
        del part["format"]
        if "pattern" in part:
            part["allOf"] = [*part.get("allOf", ()), {"pattern": pattern}]
        else:
            part["pattern"] = pattern
    return schema


def _with_ecma_space(pattern: str) -> str:
    spaces = {r"\s": r"[\s\x{FEFF}]", r"\S": r"[^\s\x{FEFF}]"}
    return re.sub(r"\\.", lambda found: spaces.get(found[0], found[0]), pattern, flags=re.DOTALL)


def place_named(schema: Any, error: str) -> str:
    """Where the keyword stands that an error of llguidance's speaks of, as `$ref` would call it; "" where several may be it."""
    named = {
        (place, str(value) in error)
        for place, part in _parts(schema)
        if isinstance(part, dict)
        for keyword, value in part.items()
        if (
            f"\n    {value}\n" in error
            if keyword == "pattern"
            else re.search(rf"(?<![\w$]){re.escape(keyword)}(?!\w)", error)
        )
        and (not isinstance(value, str) or value in error)
    }
    surest = {place for place, of_value in named if of_value} or {place for place, _ in named}
    return _shown(surest.pop()) if len(surest) == 1 else ""


def _parts(schema: Any) -> Iterator[tuple[str, Any]]:
    """Each schema within one, itself first, with what `$ref` would call it."""
    waiting = [("#", schema)]
    while waiting:
        place, part = waiting.pop()
        yield place, part
        for keyword, value in part.items() if isinstance(part, dict) else ():
            within = f"{place}/{keyword}"
            if keyword in _OF_NAMES and isinstance(value, dict):
                waiting += [(f"{within}/{_escaped(name)}", each) for name, each in value.items()]
            elif keyword in _OF_SCHEMAS and isinstance(value, list):
                waiting += [(f"{within}/{number}", each) for number, each in enumerate(value)]
            elif keyword in _OF_SCHEMAS:
                waiting.append((within, value))


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _shown(place: str) -> str:
    return short(place if len(place) <= 60 else f"...{place[-57:]}")


def _meant(keyword: str) -> str:
    import difflib

    near = difflib.get_close_matches(keyword[:60], sorted(_KEYWORDS), n=1, cutoff=0.8)
    return f": did you mean {near[0]}?" if near else ": leave it out, and check what is written"
