"""What is no grammar, or none that can be held, is refused: in one line, saying where."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.constraint import Choices, Gbnf, JsonSchema, Lark, Regex, Trie
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.text.json_schema import plain_schema
from fastdistill.text.tokenizer import Tokenizer
from tests.text.tokenizers_made_here import KINDS, write_folder

pytest.importorskip("llguidance")

# Of the drafts from 4 to 2020-12, what llguidance does not hold, and beside it words that are no keyword: it would skip these.
UNHELD = (
    "uniqueItems", "contains", "minContains", "maxContains", "propertyNames", "dependentRequired", "dependentSchemas", "dependencies",
    "if", "then", "else", "not", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$dynamicAnchor", "$recursiveRef",
    "$recursiveAnchor", "$vocabulary", "contentEncoding", "contentMediaType", "contentSchema", "divisibleBy", "disallow", "extends", "nullable", "components", "x-guidance", "anything",
)  # fmt: skip
NOTES = {
    "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "http://example.com/a", "$comment": "a", "$anchor": "a", "title": "a",
    "description": "a", "default": 1, "examples": [1], "deprecated": True, "readOnly": True, "writeOnly": True, "discriminator": {"propertyName": "a"}, "x-order": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(write_folder(tmp_path_factory.mktemp("text"), KINDS["byte_level"]))


@pytest.fixture
def refused(tokenizer):
    def refused(make, *arguments, **options) -> str:
        with pytest.raises(ArgumentError) as caught:
            make(*arguments, **options).bound(tokenizer, 300)
        said = str(caught.value)
        assert len(said) < 300 and len(said.splitlines()) == 1
        return said

    return refused


@pytest.mark.parametrize("keyword", UNHELD)
@pytest.mark.parametrize(
    ("place", "within"),
    [
        ("#", lambda part: part),
        ("#/properties/a~1b", lambda part: {"properties": {"a/b": part}}),
        ("#/items/anyOf/1", lambda part: {"items": {"anyOf": [{}, part]}}),
        ("#/$defs/unused/prefixItems/0", lambda part: {"$defs": {"unused": {"prefixItems": [part]}}}),
        (
            "#/patternProperties/^a/additionalProperties",
            lambda part: {"patternProperties": {"^a": {"additionalProperties": part}}},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_keyword_is_ignored(refused, keyword, place, within):
    for value in (True, {}, "a"):
        said = refused(JsonSchema, within({"type": "array", keyword: value}))
        assert (
            said == f"schema: '{place}' has '{keyword}', which cannot be held: leave it out, and check what is written"
        )


def test_what_is_no_keyword_where_names_and_values_stand(tokenizer):
    """A property may have any name, and a value any keys."""
    names = {name: {"type": "null"} for name in UNHELD}
    JsonSchema({"properties": names, "$defs": names, "default": names}).bound(tokenizer, 300)
    JsonSchema({"enum": [names], "examples": [names]}).bound(tokenizer, 300)


def test_notes_are_taken_and_say_nothing_of_the_text(tokenizer):
    bound = JsonSchema(NOTES | {"type": "integer", "const": 7}, whitespace=0).bound(tokenizer, 300)
    assert not bound.may_end(bound.start())
    state = bound.advance(bound.start(), tokenizer.encode("7", special=False)[0])
    assert bound.may_end(state) and not np.any(bound.mask(state))
    ends = sorted(tokenizer.special_ids)  # one of them is what llguidance takes for the end of a text
    assert [bound.advance(state, token) for token in ends] == [None] * len(ends) != []


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (3, "schema: '#' must be a JSON object or a bool, got 3"),
        ([], "schema: '#' must be a JSON object or a bool, got []"),
        ({"a": float("nan")}, "schema is no JSON: Out of range float values are not JSON compliant"),
        ({"const": {1, 2}}, "schema is no JSON: Object of type set is not JSON serializable"),
        ('{"type":\n  }', "schema: is not valid JSON: Expecting value: line 2 column 3 (char 11)"),
        ('{"type": "null", "type": "null"}', "schema: is not valid JSON: 'type' comes twice in one object"),
        ('{"const": "\\ud800"}', "schema: unexpected end of hex escape"),
        (False, "schema: Unsatisfiable schema: schema is false"),
        ({"properties": {"a": 3}}, "schema: '#/properties/a' must be a JSON object or a bool, got 3"),
        ({"type": "string", "maxLenght": 3}, "schema: '#' has 'maxLenght', which cannot be held: did you mean maxLength?"),
        ({"prefixItems": [], "additionalItems": False}, "schema: '#' has additionalItems beside prefixItems, where it means nothing: did you mean items?"),
        ({"items": {"$id": "a", "$ref": "#/$defs/a"}, "$defs": {"a": {}}}, "schema: '#/items' has $id beside $ref, which drafts read in two ways: put one of them into allOf"),
        ({"items": {"$ref": "#/examples/0"}, "examples": [{}]}, "schema: '#/items' refers to '#/examples/0', where no schema is"),
        ({"$ref": "http://example.com/a"}, "schema: Resource 'http://example.com/a' is not present"),
        # What llguidance finds; where it stands is looked for:
        ({"items": {"type": "string", "format": "colour"}}, "schema: at '#/items': Unknown format: colour"),
        ({"properties": {"a": {"type": "text"}, "b": {"type": "null"}}}, "schema: at '#/properties/a': Invalid type: text"),
        ({"properties": {"a": {"maxLength": -1}, "b": {"maxLength": 2}}}, "schema: at '#/properties/a': Expected positive integer for 'maxLength', got -1"),
        ({"properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}}, "schema: at '#/properties/a': oneOf constraints are not supported"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "schema: at '#': Unsatisfiable schema: minimum (5) is greater than maximum (2)"),
        ({"properties": {"a": {"pattern": "(?=a)b"}, "b": {"pattern": "a"}}}, "schema: at '#/properties/a': pattern '(?=a)b': look-around"),
        ({"properties": {"a": {"pattern": "(b"}, "b": {"pattern": "(b"}}}, "schema: pattern '(b': unclosed group"),
        ({"patternProperties": {"(": {}}, "properties": {"a": {"pattern": "a"}}}, "schema: pattern '(': unclosed group"),
    ],
)  # fmt: skip
def test_schemas_are_refused_with_the_place(refused, schema, said):
    assert refused(JsonSchema, schema).startswith(said)


def test_schemas_without_an_end_or_a_bottom_are_refused(refused):
    endless = {}
    endless["items"] = endless
    assert refused(JsonSchema, endless) == "schema is no JSON: Circular reference detected"
    assert "recursion" in refused(JsonSchema, '{"items":' * 100_000)
    assert refused(JsonSchema, {"properties": {"x" * 10**5: {"y" * 10**5: 1}}})
    assert refused(JsonSchema, {"properties": {"x" * 10**5: {"format": "y" * 10**5}}})


def test_a_schema_is_copied():
    schema = {"properties": {"a": {"type": "null"}}}
    grammar = JsonSchema(schema)
    schema["properties"]["a"]["type"] = "string"
    assert grammar.schema == {"properties": {"a": {"type": "null"}}}
    assert grammar == JsonSchema(json.dumps(grammar.schema))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_a_schema_or_refused(value):
    try:
        assert plain_schema(value if not isinstance(value, str) else json.dumps(value)) == value
    except ArgumentError as error:
        assert len(str(error)) < 300 and len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a", "pattern: line 1, column 1: unclosed group"),
        ("a\n/é\\/(b", "pattern: line 2, column 5: unclosed group"),
        (r"(a)\1", "pattern: line 1, column 4: backreferences are not supported"),
        (r"\bfoo", r"pattern '\\bfoo': lookarounds not supported yet; WordUnicode in regex /\bfoo/"),
        ("x" * 10**4 + "[", "pattern: line 1, column 10001: unclosed character class"),
        ("a\ud800", "pattern must be Unicode without lone surrogates; there is one at 1"),
        (b"a", "pattern must be a str, got b'a'"),
    ],
)
def test_patterns_are_refused_with_line_and_column(refused, pattern, said):
    assert refused(Regex, pattern) == said


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ("start: a", 'line 1, column 8: unknown name: "a"'),
        ('start: "é" )', "line 1, column 12: expecting rule, token or statement (at \")\" (')'))"),
        ('start: "a" |\nfoo bar', "line 2, column 5: Expected token ':', found 'rule_name' (at \"bar\" ('rule_name'))"),
        ("start: /a", "line 2, column 1: lexer error"),
        ("\nstart: /(a/", 'line 2, column 8: invalid regex "(a" (in regex): unclosed group'),
        ("other: /a/", "no start rule found"),
        ("", "Empty grammar"),
    ],
)
def test_lark_is_refused_with_line_and_column(refused, grammar, said):
    assert refused(Lark, grammar) == f"grammar: {said}"


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ('root ::= "a', "line 1, column 12: Unexpected end of input"),
        ('root ::= "a"\nx ::= ]', "line 2, column 7: Expected name"),
        ("root ::= a", "Rule 'a' not found"),
        ("", "No 'root' rule found"),
        # Found in what it is translated to, whose lines are not these.
        ("# one\nroot ::= [z-a]", 'invalid regex "[z-a]" (in regex): invalid character class range, the start must be <= the end'),
    ],
)  # fmt: skip
def test_gbnf_is_refused_with_line_and_column(refused, grammar, said):
    assert refused(Gbnf, grammar) == f"grammar: {said}"
    assert refused(Gbnf, "root ::= " + "(" * 10**5)


def test_lists_of_texts_are_refused():
    for texts in ([], "ab", None, 3, {"a"}, ["a", 3], ["\ud800"]):
        with pytest.raises(ArgumentError):
            Choices(texts)
    for sequences in ([], "ab", None, [3], [["a"]], [[-1]], [[1 << 31]]):
        with pytest.raises(ArgumentError):
            Trie(sequences)


def test_tokenizers_that_the_library_does_not_read_are_said(tmp_path):
    with pytest.raises(
        UnsupportedError, match="llguidance does not read this model's tokenizer: can't determine decoder"
    ):
        Regex("a").bound(Tokenizer(write_folder(tmp_path, KINDS["word_piece"])), 300)


def test_without_the_package_the_extra_is_named():
    program = """
import sys
sys.modules["llguidance"] = None
from fastdistill import constraint, errors
constraint.Choices(["a"]), constraint.JsonSchema({"type": "null"})
for grammar in constraint.JsonSchema({}), constraint.JsonSchema(True), constraint.Regex("a"), constraint.Lark(""), constraint.Gbnf(""):
    try:
        grammar.bound(None, 8)
    except errors.UnsupportedError as error:
        assert str(error) == "grammars of text need the package llguidance: pip install 'fastdistill[grammar]'", error
    else:
        raise SystemExit(f"{grammar} needs no package")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (99999, "make more than 10,000"),
        (3.00001, "make more than 10,000"),
        (0, "not above 0, got 0"),
        (-3, "not above 0"),
    ],
)
def test_multiples_that_would_take_too_long_are_refused(value, said):
    with pytest.raises(ArgumentError, match=rf"'#/items' has a multipleOf .*{said}"):
        JsonSchema({"items": {"multipleOf": value}})
    JsonSchema({"items": {"multipleOf": 10000000}})
