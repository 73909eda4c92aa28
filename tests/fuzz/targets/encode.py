"""Folders of encoders, any file of them but the weights: what `info` says, vectors, ranks, labels, a session.

An input is the number of a folder, then the files that differ from its own: which, and what it holds, nothing for one that is absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import fastdistill as fd
from fastdistill.checkpoint.safetensors_file import Stored, write_safetensors
from fastdistill.cli.info import _model_text, model_facts
from fastdistill.encode import POOLINGS, Ranked
from tests.encoders import SIZES, write_encoder
from tests.fuzz.law import Broken, folder, joined, lawful, parts
from tests.fuzz.mutators import ODD, json_changed, safetensors_changed
from tests.fuzz.targets.tokenizer import STEPS

LONGEST = 1 << 15
TEXTS = ["one text", "", "another text of the answer in two", "query"]
WIDTH = SIZES["hidden_size"]
DENSE = "2_Dense/model.safetensors"
BESIDE: dict[str, Any] = {
    "modules.json": [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{path[2:] or 'Transformer'}"}
        for i, path in enumerate(["", "1_Pooling", "2_Dense", "3_Normalize"])
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": WIDTH, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": False,
    },
    "2_Dense/config.json": {
        "in_features": WIDTH, "out_features": 8, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh",
    },
    "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": True},
    "config_sentence_transformers.json": {"prompts": {"query": "query of ", "document": ""}, "default_prompt_name": "query"},
}  # fmt: skip
TEXT = "tokenizer.json", "tokenizer_config.json"
FILES = ["config.json", *TEXT, *BESIDE, DENSE]
CASES = [
    "bert",
    "bert, labels",
    "bert, masks",
    "distilbert",
    "mpnet",
    "modernbert, labels",
    "camembert, labels",
    "bert",
]
CHECKED = [*POOLINGS, "Identity", "BertModel", "BertForSequenceClassification", "regression", "multi_label_classification"]  # fmt: skip
DONORS = [*ODD, *CHECKED, "../x", "1_Pooling", "model.safetensors", *STEPS[12:16]]


def _made() -> Iterator[dict[str, bytes]]:
    """The files of each folder."""
    with TemporaryDirectory() as place:
        for i, case in enumerate(CASES):
            layers = {"num_hidden_layers": 1} if i == len(CASES) - 1 else {}
            path = write_encoder(Path(place) / str(i), case, BESIDE if i < 3 else {}, **layers)
            if i < 3:
                arrays = {"linear.weight": np.ones((8, WIDTH), np.float32), "linear.bias": np.ones(8, np.float32)}
                write_safetensors(path / DENSE, {name: Stored("F32", array) for name, array in arrays.items()})
            yield {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


FOLDERS = [*_made()]


def _read(data: bytes) -> tuple[int, dict[str, bytes]]:
    """The number of a folder, and the files that are others."""
    number, data = (data[0] if data else 0) % len(FOLDERS), data[1:]
    files = {}
    while data:
        name = FILES[data[0] % len(FILES)]
        files[name], data = parts(data[1:])
    return number, files


def _written(number: int, files: dict[str, bytes]) -> bytes:
    return bytes([number]) + b"".join(bytes([FILES.index(name)]) + joined(each, b"") for name, each in files.items())


def run(data: bytes) -> None:
    number, files = _read(data)
    with lawful(), np.errstate(all="ignore"):
        path = folder({name: each for name, each in (FOLDERS[number] | files).items() if each})
        with lawful():
            _model_text(model_facts(path, None))
        model = fd.load(path)
        for pooling in (None, "max", "pooler"):
            with lawful():
                check_vectors(model, pooling)
        for query in TEXTS[:2]:
            with lawful():
                check_ranks(model.rank(query, TEXTS))
        with lawful():
            model.session(4).forward([1, 2])
        with lawful():
            check_labels(model, [*TEXTS, ("one text", "two texts")])


def check_vectors(model: fd.Model, pooling: str | None) -> None:
    vectors = model.encode(TEXTS, pooling=pooling)
    width = len(model.encode(TEXTS[0], pooling=pooling))
    ok = vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), width) and np.isfinite(vectors).all()
    if not ok or model.encode([], pooling=pooling).shape != (0, width):
        raise Broken(f"vectors are {vectors.dtype} {vectors.shape}, of {width} alone: {vectors}")


def check_ranks(found: list[Ranked]) -> None:
    scores = [each.score for each in found]
    if sorted(each.index for each in found) != [*range(len(TEXTS))] or not np.isfinite(scores).all() or scores != sorted(scores, reverse=True):  # fmt: skip
        raise Broken(f"ranks are {found}")


def check_labels(model: fd.Model, texts: list[Any]) -> None:
    labels = model.plan.labels
    for each in model.classify(texts):
        ok = [*each.scores] == [*labels] and each.score == max(each.scores.values()) == each.scores[each.label]
        if not ok or not np.isfinite([*each.scores.values()]).all():
            raise Broken(f"labels are {each}")


def changed(data: bytes, random: Random) -> bytes:
    number, files = _read(data)
    if random.random() < 0.1:
        number = random.randrange(len(FOLDERS))
    name = random.choice(FILES)
    held = files.get(name) or FOLDERS[number].get(name) or FOLDERS[0][name]
    if random.random() < 0.05:
        files[name] = b""
    elif name == DENSE:
        files[name] = safetensors_changed(held, random)
    else:
        files[name] = json_changed(held, random, DONORS)
    return _written(number, files)


def seeds() -> Iterator[bytes]:
    """Every folder; and of the first one without each file, and with each written out."""
    for number in range(len(FOLDERS)):
        yield _written(number, {})
    for name in FILES:
        yield _written(0, {name: b""})
        yield _written(0, {name: FOLDERS[0][name]})
