"""Grammars of text: what is written is what they ask for, whatever the model would write; errors say what cannot be held."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.constraint import Choices, Gbnf, JsonSchema, Lark, Regex
from fastdistill.decode.constraint import Guided
from fastdistill.errors import ArgumentError, UnsupportedError

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

pytestmark = pytest.mark.model
CLOSED = {"additionalProperties": False}
leaves = st.sampled_from([
    {"type": "integer", "minimum": -5, "maximum": 300}, {"type": "boolean"}, {"type": "null"}, {"type": "string", "maxLength": 6},
    {"enum": ["red", "green", 3, None, [1]]}, {"const": {"a": "é"}}, {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "string", "pattern": "^[a-c]{1,4}$"}, {"type": "string", "format": "date"},
])  # fmt: skip


def _object(fields, required):
    names = [f"f{n}" for n in range(len(fields))]
    return {
        "type": "object",
        "properties": dict(zip(names, fields, strict=True)),
        "required": names[:required],
        **CLOSED,
    }


schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(_object, st.lists(inner, min_size=1, max_size=3), st.integers(0, 3)),
        st.builds(lambda item, most: {"type": "array", "items": item, "maxItems": most}, inner, st.integers(0, 3)),
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def model(smollm2):
    return fd.load(smollm2, threads=1)


def walked(model, constraint, seed, most=200):
    """A text of tokens drawn evenly of what may follow, until it ends; None where it does not."""
    draw, guided, tokens = random.Random(seed), Guided(constraint, model.end_tokens, model.vocab_size), []
    for _ in range(most):
        bits = np.unpackbits(guided.masks([guided.here])[0].view(np.uint8), bitorder="little")
        ids = np.flatnonzero(bits).tolist()
        ends = [token for token in ids if token in model.end_tokens]
        if ends and (len(ids) == len(ends) or draw.random() < 0.3):
            return model.tokenizer.decode(tokens)
        tokens.append(draw.choice([token for token in ids if token not in model.end_tokens]))
        guided.write(tokens[-1:])
    return None


@settings(max_examples=60)
@given(schema=schemas, seed=st.integers(0, 10**6), whitespace=st.integers(0, 2))
def test_whatever_is_drawn_is_valid(model, schema, seed, whitespace):
    text = walked(model, JsonSchema(schema, whitespace=whitespace).bound(model.tokenizer, model.vocab_size), seed)
    if text is not None:
        jsonschema.validate(json.loads(text), schema)
        assert whitespace or " " not in re.sub(r'"[^"]*"', "", text)
        assert not re.search(rf"\s{{{whitespace + 1}}}", re.sub(r'"[^"]*"', "text", text))


VALUES = [{"f0": 3, "f1": "ab"}, {"f1": "ab"}, {"f0": 3}, {"f0": 301}, {"f0": 3, "f2": 1}, {"f0": "3"}, [], 3, {}]


@pytest.mark.parametrize("value", VALUES)
def test_values_come_through_that_are_valid_and_no_others(model, value):
    schema = _object([{"type": "integer", "maximum": 300}, {"type": "string", "maxLength": 2}], 1)
    constraint = JsonSchema(schema).bound(model.tokenizer, model.vocab_size)
    state = constraint.start()
    for token in model.tokenizer.encode(json.dumps(value), special=False):
        state = None if state is None else constraint.advance(state, token)
    valid = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert valid == (state is not None and constraint.may_end(state))


DECODERS = [
    fd.Speculative(fd.PromptLookup()), fd.Speculative(fd.PromptLookup(min_match=1), tree=fd.Tree(2, 4)), "auto", fd.Jacobi(), fd.Lookahead(),
    fd.Speculative(fd.LayerSkip(8)),
]  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_decoder_writes_the_same(model, temperature):
    schema = _object(
        [
            {"type": "string", "maxLength": 30},
            {"type": "integer"},
            {"type": "array", "items": {"type": "boolean"}, "maxItems": 4},
        ],
        3,
    )
    asked = dict(max_tokens=60, temperature=temperature, seed=11, grammar=JsonSchema(schema))
    plain = model.generate("A person as JSON: ", **asked)
    if plain.finish_reason == "stop":
        jsonschema.validate(json.loads(plain.text), schema)
    for decoder in DECODERS:
        other = model.generate("A person as JSON: ", decoder=decoder, **asked)
        assert (other.tokens, other.text, other.finish_reason) == (plain.tokens, plain.text, plain.finish_reason)
        assert other.stats.forwards <= plain.stats.forwards


GRAMMARS = [
    (Regex(r"[A-Z][a-z]{2,5}, \d{2}"), r"[A-Z][a-z]{2,5}, \d{2}"),
    (Lark('start: "a" b* "c"\nb: /[0-9]{2}/'), r"a([0-9]{2})*c"),
    (Gbnf('root ::= ("x" | "yy") tail\ntail ::= [0-9] [0-9]'), r"(x|yy)[0-9]{2}"),
    (Choices(["yes", "no", "perhaps not"]), r"yes|no|perhaps not"),
]


@pytest.mark.parametrize(("grammar", "pattern"), GRAMMARS)
def test_other_grammars(model, grammar, pattern):
    for seed in range(5):
        text = model.generate("The answer: ", grammar=grammar, temperature=1.5, seed=seed, max_tokens=40)
        assert text.finish_reason == "length" or re.fullmatch(pattern, text.text)


def test_a_list_of_prompts_and_a_stream_are_held(model):
    grammar = Choices(["left", "right"])
    several = model.generate(["Go ", "Turn "], grammar=grammar, max_tokens=8)
    assert all(each.text in ("left", "right") for each in several)
    assert "".join(model.stream("Go ", grammar=grammar, max_tokens=8)) == several[0].text


def test_what_cannot_be_held_is_an_error(model):
    def held(grammar, **options):
        model.generate("x", grammar=grammar, max_tokens=4, **options)

    with pytest.raises(ArgumentError, match="unclosed group"):  # test_grammar_errors.py has the others
        held(Regex("a(b"))
    with pytest.raises(ArgumentError, match="stop would end a text before"):
        held(Choices(["a"]), stop=["b"])
    with pytest.raises(UnsupportedError, match="Unmask does not write under a grammar"):
        fd.load("listops-mdlm").generate([1, 2], grammar=Choices(["a"]), max_tokens=4)
    with pytest.raises(ArgumentError, match="the constraint lets none of the tokens follow that allowed"):
        held(Choices(["yes"]), allowed=[5])


@pytest.mark.parametrize(
    ("pattern", "value", "right"),
    [(r"^\\S$", "\ufeff", False), (r"^\\s$", "\ufeff", True), (r"^[a\\S]$", "b", True), (r"^\\\\S$", "\\S", True)],
)
def test_white_space_of_patterns_is_that_of_ecma(model, pattern, value, right):
    constraint = JsonSchema(json.dumps({"pattern": "PATTERN"}).replace("PATTERN", pattern)).bound(
        model.tokenizer, model.vocab_size
    )
    state = constraint.start()
    for token in model.tokenizer.encode(json.dumps(value, ensure_ascii=False), special=False):
        state = None if state is None else constraint.advance(state, token)
    assert (state is not None and constraint.may_end(state)) == right


RIGHT = {
    "date": ["2024-02-29", "2000-02-29", "2023-04-30", "2023-12-31"],
    "time": ["23:59:59Z", "20:00:00.25+23:59", "00:00:00z"],
    "date-time": ["2024-02-29T23:59:59Z", "1999-01-01t00:00:00-01:30"],
}
WRONG = {
    "date": ["2023-02-29", "2100-02-29", "2023-04-31", "2023-13-01", "2023-00-10", "2023-1-10"],
    "time": ["23:59:60Z", "24:00:00Z", "20:60:00Z", "20:00:00+24:00", "20:00:00"],
    "date-time": ["2023-02-29T23:59:59Z", "2024-02-29T23:59:60Z", "2024-02-29", "23:59:59Z"],
}


@pytest.mark.parametrize("format", RIGHT)
@pytest.mark.parametrize("beside", [{}, {"pattern": "^[12]"}])
def test_dates_are_those_of_the_calendar(model, format, beside):
    constraint = JsonSchema({"type": "string", "format": format, **beside}).bound(model.tokenizer, model.vocab_size)

    def passes(value):
        state = constraint.start()
        for token in model.tokenizer.encode(json.dumps(value), special=False):
            state = None if state is None else constraint.advance(state, token)
        return state is not None and constraint.may_end(state)

    assert [passes(value) for value in WRONG[format]] == [False] * len(WRONG[format])
    assert [passes(value) for value in RIGHT[format]] == [not beside or value[0] in "12" for value in RIGHT[format]]
