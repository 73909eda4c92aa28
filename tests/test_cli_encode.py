"""embed, rank, classify: what they read and print."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

import fastdistill as fd
from tests.encoders import write_encoder

TEXTS = ["one two", "a text", "another one"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n", "utf-8")
    return tmp_path / "texts.txt"


def test_vectors_are_an_array_or_lines(run, encoder, file, tmp_path):
    want = fd.load(encoder).encode(TEXTS, normalize_embeddings=True)
    out = tmp_path / "vectors.npy"
    code, said, told = run("embed", encoder, file, "--normalize", "--out", out)
    assert code == 0 and said == "" and "3 vectors of 40 numbers" in told
    np.testing.assert_array_equal(np.load(out), want)
    code, said, _ = run("embed", encoder, file, "--normalize")
    lines = [json.loads(line) for line in said.splitlines()]
    assert code == 0 and [line["text"] for line in lines] == TEXTS
    np.testing.assert_array_equal(np.array([line["vector"] for line in lines], np.float32), want)


def test_json_lines_are_read(run, encoder, tmp_path):
    (tmp_path / "texts.jsonl").write_text('"one two"\n\n{"text": "a text", "id": 3}\n', "utf-8")
    code, said, _ = run("embed", encoder, tmp_path / "texts.jsonl", "--pooling", "cls", "--truncate-dim", 5)
    assert code == 0 and [json.loads(line)["text"] for line in said.splitlines()] == TEXTS[:2]
    np.testing.assert_array_equal(
        np.array([json.loads(line)["vector"] for line in said.splitlines()], np.float32),
        fd.load(encoder).encode(TEXTS[:2], pooling="cls", truncate_dim=5),
    )


def test_documents_are_ranked(run, encoder, file):
    want = fd.load(encoder).rank("one", TEXTS, top_k=2)
    code, said, _ = run("rank", encoder, "one", file, "--top-k", 2)
    assert code == 0 and [line.split(maxsplit=1)[1] for line in said.splitlines()] == [each.text for each in want]
    code, said, _ = run("rank", encoder, "one", file, "--top-k", 2, "--json")
    assert [json.loads(line) for line in said.splitlines()] == [asdict(each) for each in want]


def test_texts_and_pairs_are_classified(run, tmp_path):
    folder = write_encoder(tmp_path / "model", "bert, labels")
    (tmp_path / "texts.jsonl").write_text('"one"\n["one", "two"]\n{"text": "one", "pair": "two"}\n', "utf-8")
    want = fd.load(folder).classify(["one", ("one", "two"), ("one", "two")])
    code, said, _ = run("classify", folder, tmp_path / "texts.jsonl", "--json")
    lines = [json.loads(line) for line in said.splitlines()]
    assert code == 0 and [line["scores"] for line in lines] == [each.scores for each in want]
    code, said, _ = run("classify", folder, tmp_path / "texts.jsonl")
    assert [line.split()[1] for line in said.splitlines()] == [each.label for each in want]


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("a.jsonl", "{", "a.jsonl:1: is no JSON"), ("a.jsonl", "3", "must be a text"), ("a.jsonl", '{"words": "a"}', "must be a text"),
        ("a.jsonl", '["a", "b"]', "holds a pair"), ("a.txt", "\udcff", "not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_said(run, encoder, tmp_path, name, text, said):
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    code, _, told = run("embed", encoder, tmp_path / name)
    assert code == 2 and said in told


def test_wrong_use_is_said(run, encoder, file, tmp_path):
    assert run("embed", encoder, file, "--out", "vectors.bin")[0] == 2
    code, _, told = run("embed", encoder, tmp_path / "none.txt")
    assert code == 1 and "none.txt" in told
    code, _, told = run("classify", encoder, file)
    assert code == 1 and "no classifier" in told
