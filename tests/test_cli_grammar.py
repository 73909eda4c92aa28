"""generate and chat: texts that are held to a schema, a pattern, a grammar or a few texts, and what is said of wrong ones."""

from __future__ import annotations

import json
import re

import pytest

import fastdistill as fd
from fastdistill import constraint
from tests.test_cli import stripped, write_model

pytest.importorskip("llguidance")

SCHEMA = {"type": "object", "properties": {"name": {"enum": ["Ann", "Bob"]}, "age": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["name", "age"], "additionalProperties": False}  # fmt: skip
LARK, GBNF = 'start: "x" ("a" | "b")~3 "y"', 'root ::= "x" ("a" | "b") "y"\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "model", eos_token_id=0)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    texts = {
        "a.json": json.dumps(SCHEMA), "a.lark": LARK, "a.gbnf": GBNF, "unheld.json": '{"items": {"uniqueItems": true}}',
        "format.json": '{"items": {"format": "colour"}}', "half.json": '{\n "type":', "list.json": "[]",
        "wrong.lark": 'start: "a" |\nfoo bar', "wrong.gbnf": 'root ::= "yes"\nx ::= ]',
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("options", "grammar", "texts"),
    [
        (("--json-schema", "a.json"), constraint.JsonSchema(SCHEMA), r'\{\s?"name"\s?:\s?"(Ann|Bob)"\s?,\s?"age"\s?:\s?[1-9][0-9]?\s?\}'),
        (("--regex", "[ab]{2}c?"), constraint.Regex("[ab]{2}c?"), "[ab]{2}c?"),
        (("--grammar", "a.lark"), constraint.Lark(LARK), "x[ab]{3}y"),
        (("--grammar", "a.gbnf"), constraint.Gbnf(GBNF), "x[ab]y"),
        (("--choice", "yes", "--choice", "no"), constraint.Choices(["yes", "no"]), "yes|no"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_texts_are_what_is_asked_for(run, model, files, monkeypatch, options, grammar, texts):
    chance = dict(max_tokens=60, temperature=1.0, seed=3)
    want = fd.load(model).generate("the ", grammar=grammar, **chance)
    assert re.fullmatch(texts, want.text) and want.finish_reason == "stop"
    flags = ("--max-tokens", 60, "--temperature", 1, "--seed", 3, *options)
    for more in ((), ("--decoder", "auto"), ("--decoder", "speculative")):
        code, out, err = run("generate", model, "the ", *flags, *more)
        assert (code, out) == (0, want.text + "\n"), err
    with monkeypatch.context() as patch:
        patch.setattr("fastdistill.cli.decoders.colours", lambda: True)
        code, out, _ = run("generate", model, "the ", *flags, "--decoder", "jacobi", "--show-accepted")
        assert (code, stripped(out)) == (0, want.text + "\n")
    code, out, _ = run("chat", model, *flags, stdin=b"one\ntwo\n")
    assert code == 0 and re.fullmatch(f"(({texts})\n){{2}}", out)


def test_a_text_that_is_cut_says_so(run, model, files):
    _, out, _ = run("generate", model, "the ", "--json-schema", "a.json", "--max-tokens", 3, "--json")
    assert json.loads(out)["finish_reason"] == "length"


@pytest.mark.parametrize("command", ["generate", "chat"])
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        # Before a model is looked for:
        (("nowhere", "--json-schema", "missing.json"), 2, "missing.json: there is no such file"),
        (("nowhere", "--json-schema", "half.json"), 2, "half.json: is not valid JSON: Expecting value: line 2 column 9"),
        (("nowhere", "--json-schema", "list.json"), 2, "list.json: must be a JSON object, found []"),
        (("nowhere", "--json-schema", "unheld.json"), 2, "unheld.json: schema: '#/items' has 'uniqueItems', which cannot be held"),
        (("nowhere", "--grammar", "missing.lark"), 2, "missing.lark: there is no such file"),
        (("nowhere", "--choice", "\udcff"), 2, "--choice: each of texts must be Unicode"),
        (("nowhere", "--choice", "a", "--regex", "a"), 2, "argument --regex: not allowed with argument --choice"),
        (("nowhere", "--json-schema", "a.json", "--grammar", "a.lark"), 2, "argument --grammar: not allowed with"),
        # For the model:
        (("MODEL", "--json-schema", "format.json"), 2, "format.json: schema: at '#/items': Unknown format: colour"),
        (("MODEL", "--grammar", "wrong.lark"), 2, "wrong.lark: grammar: line 2, column 5: Expected token ':'"),
        (("MODEL", "--grammar", "wrong.gbnf"), 2, "wrong.gbnf: grammar: line 2, column 7: Expected name"),
        (("MODEL", "--regex", "ab(c"), 2, "--regex: pattern: line 1, column 3: unclosed group"),
    ],
)  # fmt: skip
def test_mistakes_name_the_file_the_line_and_the_column(run, model, files, command, options, code, words):
    folder, *flags = (model if each == "MODEL" else each for each in options)
    prompt = ("the ",) if command == "generate" else ()
    found, out, err = run(command, folder, *prompt, *flags, stdin=b"the \n")
    assert (found, out) == (code, "") and words in err


def test_help_teaches(run):
    for command in ("generate", "chat"):
        _, out, _ = run(command, "--help")
        said = " ".join(out.split())
        assert "--json-schema person.json" in said and "--choice yes --choice no" in said
        assert "[--json-schema FILE.json | --regex PATTERN | --grammar FILE | --choice TEXT]" in said
