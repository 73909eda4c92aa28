"""fill: what it reads, prints and refuses."""

from __future__ import annotations

import json
import math

import pytest

import fastdistill as fd
from tests.encoders import write_encoder
from tests.test_cli import write_model

TEXTS = ["one [MASK] three", "a text", "[MASK] is [MASK] of the answer"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("models") / "bert", "bert, masks")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n", "utf-8")
    return tmp_path / "texts.txt"


def test_texts_are_printed_filled(run, folder, file):
    want = fd.load(folder).fill(TEXTS)
    none = "(1 of 3 texts: nothing to fill, as there is no [MASK], the model's mask token)\n"
    printed = "".join(each.text + "\n" for each in want)
    assert run("fill", folder, "--file", file) == (0, printed, none)
    assert run("fill", folder, stdin=file.read_bytes()) == run("fill", folder, "--file", "-", stdin=file.read_bytes())
    assert run("fill", folder, stdin=file.read_bytes())[:2] == (0, printed)
    assert run("fill", folder, TEXTS[0]) == (0, want[0].text + "\n", "")


def test_more_texts_than_share_a_pass(run, folder, tmp_path):
    texts = [f"{word} [MASK] three" for word in ("one", "two", "four") for _ in range(14)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)), "utf-8")
    said = run("fill", folder, "--file", tmp_path / "texts.jsonl", "--temperature", 1, "--seed", 4)[1]
    want = fd.load(folder).fill(texts, temperature=1.0, seed=4)
    assert said.splitlines() == [each.text for each in want]


def test_the_likeliest_tokens_are_shown(run, folder, file):
    model = fd.load(folder)
    want = model.fill(TEXTS, logprobs=3)
    _, said, _ = run("fill", folder, "--file", file, "--top-k", 3)
    lines = iter(said.splitlines())
    code, out, _ = run("fill", folder, "--file", file, "--top-k", 3, "--json")
    assert code == 0
    for text, filled, line in zip(TEXTS, want, map(json.loads, out.splitlines()), strict=True):
        assert next(lines) == filled.text
        assert (line["text"], line["filled"], len(line["masks"])) == (text, filled.text, text.count("[MASK]"))
        for number, (mask, entry) in enumerate(zip(line["masks"], filled.logprobs, strict=True), 1):
            assert (mask["id"], mask["score"]) == (entry.token, math.exp(entry.log_prob))
            assert [(each["id"], each["score"]) for each in mask["top"]] == [(t, math.exp(p)) for t, p in entry.top]
            for each in mask["top"]:
                assert next(lines) == f"{number:4}  {each['score']:8.4f}  {each['token']}"
                assert each["token"] == model.tokenizer.decode([each["id"]], skip_special=False)
    assert next(lines, None) is None
    assert json.loads(run("fill", folder, TEXTS[0], "--json")[1])["masks"][0]["top"] == []


@pytest.mark.parametrize(
    ("options", "decoder"),
    [
        ([], fd.Unmask()),
        (["--commit", "schedule", "--block-length", 3], fd.Unmask(fd.unmask.Schedule(), block_length=3)),
        (["--max-steps", 1, "--cache", "dual"], fd.Unmask(max_steps=1, cache="dual")),
        (["--remask", "revise"], fd.Unmask(remask=fd.unmask.Revise())),
    ],
)
def test_options_become_decoders(run, folder, monkeypatch, options, decoder):
    seen, fill = [], fd.Model.fill

    def spy(self, texts, *, decoder, **options):
        seen.append(decoder)
        return fill(self, texts, decoder=decoder, **options)

    monkeypatch.setattr(fd.Model, "fill", spy)
    assert run("fill", folder, TEXTS[0], *options)[0] == 0 and seen == [decoder]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["MODEL", "a", "--file", "b"], 2, "--file is in place of TEXT"),
        (["MODEL", "a", "--top-k", 0], 2, "--top-k must"),
        (["MODEL", "a", "--remask", "running"], 2, "--remask running goes with --commit schedule"),
        (["MODEL", "a", "--drafts", 2], 2, "unrecognized arguments: --drafts"),
        (["MODEL", "one " * 200 + "[MASK]"], 1, "203 tokens are more than 96"),
        (["MODEL", "--file", "LONG"], 1, "text 2: 202 tokens are more than 96"),
        (["CAUSAL", "a"], 1, "is causal, and writes on from a prompt"),
    ],
)
def test_wrong_use_is_said(run, folder, tmp_path, arguments, code, words):
    (tmp_path / "long.txt").write_text("[MASK]\n" + "one " * 200 + "\n", "utf-8")
    names = {"MODEL": folder, "LONG": tmp_path / "long.txt"}
    if "CAUSAL" in arguments:
        names["CAUSAL"] = write_model(tmp_path / "causal")
    found, out, told = run("fill", *(names.get(each, each) for each in arguments))
    assert (found, out) == (code, "") and words in told
