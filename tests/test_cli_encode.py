"""embed, rank, classify: what they read and print; and what info says of encoders."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint.safetensors_file import Stored, write_safetensors
from fastdistill.runtime.encode import ROWS, _cache, hidden_states
from tests.encoders import write_encoder
from tests.fuzz.targets.encode import BESIDE, DENSE

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


def test_a_text_is_what_lies_between_line_feeds(run, encoder, tmp_path):
    """A page break or a line separator within a text is not the end of it: rows of the array are lines of the file."""
    texts = ["one", "", "two\x0cthree\u2028four", "five"]
    for end, begin in (("\n", ""), ("\r\n", "\ufeff")):
        (tmp_path / "texts.txt").write_bytes((begin + "".join(text + end for text in texts)).encode())
        said = run("embed", encoder, tmp_path / "texts.txt")[1]
        assert [json.loads(line)["text"] for line in said.split("\n") if line] == texts
    (tmp_path / "texts.txt").write_bytes(b"")
    assert run("embed", encoder, tmp_path / "texts.txt") == (0, "", "")


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
    code, _, told = run("embed", encoder, file, "--out", tmp_path / "none" / "vectors.npy")
    assert code == 1 and "vectors.npy: cannot be written: No such file" in told
    code, _, told = run("classify", encoder, file)
    assert code == 1 and "no classifier" in told


@pytest.mark.parametrize("case", ["bert", "bert, labels", "modernbert"])
def test_info_of_an_encoder_is_what_a_pass_of_it_takes(run, tmp_path, case):
    folder = write_encoder(tmp_path / "model", case)
    said = json.loads(run("info", folder, "--json")[1])["model"]
    network = fd.load(folder).network
    texts = [np.zeros((network.plan.token_columns, 64), np.int32)] * (ROWS // 64)
    assert len([*hidden_states(network, texts)]) == len(texts)
    found, seat = said["pass"], network.pool(ROWS, ()).take()
    assert said["session"] is None and (found["capacity"], found["max_rows"]) == (ROWS, ROWS)
    caches = [_cache(network, name, ROWS) for name in network.plan.windows]
    assert found["cache_bytes"] == sum(cache.nbytes for cache in caches)
    assert (found["weights_bytes"], found["arena_bytes"]) == (network.weights.nbytes, seat.executor.nbytes)
    text = run("info", folder)[1]
    assert "in a pass of 1,024 tokens" in text and "shared by all passes" in text
    assert "session" not in text and "context" not in text
    assert "in a pass of 100 tokens" in run("info", folder, "--capacity", 100)[1]
    code, _, told = run("info", folder, "--capacity", ROWS + 1)
    assert code == 2 and "capacity must lie in 1..1024" in told


def test_info_of_an_encoder_says_how_texts_become_vectors(run, tmp_path):
    folder = write_encoder(tmp_path / "model", files=BESIDE)
    write_safetensors(folder / DENSE, {"linear.weight": Stored("F32", np.ones((8, 40), np.float32)), "linear.bias": Stored("F32", np.ones(8, np.float32))})  # fmt: skip
    text = run("info", folder)[1]
    assert "texts        32 tokens at most, special ones included; the model has positions for 96; put into lower case\n" in text  # fmt: skip
    assert "vectors      8 numbers: cls of a text's rows, a linear from 40 to 8, Tanh, of length 1\n" in text
    assert "prompts      query, document; query where the caller names none\n" in text
    assert fd.load(folder).encode("one").shape == (8,)
    (folder / "tokenizer.json").unlink()
    assert "texts        not read: tokenizer.json is missing\n" in run("info", folder)[1]


@pytest.mark.parametrize(("length", "tokens"), [(300, 1024), (1500, 1500), (4000, 2000)])
def test_info_sizes_a_pass_of_the_longest_text_that_is_read(run, tmp_path, length, tokens):
    beside = {"sentence_bert_config.json": {"max_seq_length": length}}
    folder = write_encoder(tmp_path / "model", files=beside, max_position_embeddings=2000)
    assert f"in a pass of {tokens:,} tokens\n" in run("info", folder)[1]


@pytest.mark.parametrize(
    ("case", "changes", "kind"),
    [
        ("bert, labels", {}, "classifier: LABEL_0, LABEL_1, LABEL_2; probabilities that sum to 1"),
        ("camembert, labels", {}, "classifier: LABEL_0; each by itself between 0 and 1"),
        (
            "bert, labels",
            {"problem_type": "multi_label_classification"},
            "LABEL_2; each by itself between 0 and 1",
        ),
        ("camembert, labels", {"problem_type": "regression"}, "classifier: LABEL_0; scores as the model gives them"),
        ("bert, masks", {}, "encoder: makes vectors of texts, and says what masks hide, token 4 ([MASK])"),
    ],
)
def test_info_says_what_an_encoder_gives(run, tmp_path, case, changes, kind):
    text = run("info", write_encoder(tmp_path / "model", case, **changes))[1]
    assert f"{kind}\n" in text and "texts        9" in text and "vectors      40 numbers: mean" in text
    assert ("in a session of 96 tokens" if case == "bert, masks" else "in a pass of 1,024 tokens") in text
