"""Grammars: schemas, expressions, Lark and GBNF, whatever they are, held or refused in words; what they let through is walked along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import numpy as np

from fastdistill.decode.constraint import Guided
from fastdistill.text.grammar import Gbnf, JsonSchema, Lark, Regex
from tests.fuzz.law import lawful
from tests.fuzz.mutators import json_changed
from tests.fuzz.targets.chat import tokenizer

KINDS = {b"S": JsonSchema, b"R": Regex, b"L": Lark, b"G": Gbnf}
STEPS = 12


def run(data: bytes) -> None:
    kind, text = KINDS.get(data[:1]), data[1:].decode("utf-8", "replace")
    if kind is None:
        return
    made, draw = tokenizer(), Random(len(data))
    with lawful():
        guided = Guided(kind(text).bound(made, made.vocab_size), frozenset([0]), made.vocab_size)
        for _ in range(STEPS):
            found = np.flatnonzero(np.unpackbits(guided.masks([guided.here])[0].view(np.uint8), bitorder="little"))
            assert len(found) and found[-1] < made.vocab_size
            token = draw.choice(found.tolist())
            if token == 0:
                break
            guided.write([token])
            guided.chain(4, None, True)


def changed(data: bytes, random: Random) -> bytes:
    return b"S" + json_changed(data[1:], random, SCHEMAS) if data[:1] == b"S" else data


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}, "b": {"$ref": "#/$defs/c"}}, "$defs": {"c": {"enum": [1, "x"]}}},
    {"anyOf": [{"type": "array", "items": {"type": "boolean"}, "maxItems": 3}, {"type": "string", "format": "date", "maxLength": 12}]},
    {"type": "number", "multipleOf": 0.5, "exclusiveMaximum": 7},
    {"const": {"é": [None]}},
    {"patternProperties": {"^a+$": {}}, "minProperties": 1, "additionalProperties": False},
    {"allOf": [{"type": "string", "pattern": "^[a-c]*$"}, {"minLength": 2}], "oneOf": [{"const": "ab"}, {"const": "ba"}]},
]  # fmt: skip


def seeds() -> Iterator[bytes]:
    for schema in SCHEMAS:
        yield b"S" + json.dumps(schema).encode()
    for pattern in (r"[A-Z][a-z]{2,5}, \d{2}", r"(a|b)*c{3}|\p{L}+", r"(?i)yes|no", r"[^x]*\n"):
        yield b"R" + pattern.encode()
    yield b'Lstart: "a" b* "c"\nb: /[0-9]{2}/ | "(" start ")"\n%ignore /[ ]+/'
    yield b'Lstart: %json {"type": "boolean"} | "x"~2..3'
    yield b'Groot ::= ("x" | "yy") tail\ntail ::= [0-9]+ | root? # or more'
