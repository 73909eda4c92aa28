"""What is no model's folder is named for what it is, with the command that helps: by load, and on the command line."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy

import fastdistill as fd
from fastdistill.checkpoint import open_checkpoint, write_checkpoint
from fastdistill.cli import main
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.fetch import MARKER, MODELS, find_folder
from fastdistill.models import plan_for
from tests.small_models import config, tensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 538090408\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(tmp_path):
    write_checkpoint(tmp_path / "model", config().raw, tensors(plan_for(config())).values())
    return tmp_path / "model"


def refusal(what, capsys) -> str:
    """One line, the same from Python as from the command line, in as many words as fit a terminal's page."""
    with pytest.raises(CheckpointError) as refused:
        fd.load(what)
    message = str(refused.value)
    assert len(message) < 1000 and message.isprintable()
    assert main(["generate", str(what), "x"]) == 1
    assert message in capsys.readouterr().err
    return message


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "generation_config.json"])
@pytest.mark.parametrize(("data", "kind"), [(POINTER, "a Git LFS pointer.*git lfs pull"), (PAGE, "a web page")])
def test_a_file_that_was_not_downloaded(model, capsys, name, data, kind):
    (model / name).write_bytes(data)
    message = refusal(model, capsys)
    assert message.startswith(f"{model / name}: is {kind.split('.*')[0]}") and kind.split(".*")[-1] in message


def test_a_shard_or_an_index_that_was_not_downloaded(model, capsys):
    os.rename(model / "model.safetensors", model / "one.safetensors")
    (model / INDEX).write_bytes(POINTER)
    assert f"{INDEX}: is a Git LFS pointer" in refusal(model, capsys)
    (model / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    (model / "one.safetensors").write_bytes(POINTER)
    assert "one.safetensors: is a Git LFS pointer" in refusal(model, capsys)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("m.gguf", b"GGUF\3\0\0\0", ["a GGUF file", "fastdistill convert", "m.gguf FOLDER"]),
        ("unnamed", b"GGUF\3\0\0\0", ["a GGUF file", "fastdistill convert"]),
        ("m.gguf", POINTER, ["a Git LFS pointer"]),
        (
            "m-00002-of-00003.gguf",
            b"GGUF",
            ["part 2 of 3 of a GGUF file", "fastdistill convert", "m-00002-of-00003.gguf FOLDER"],
        ),
        ("model.safetensors", bytes(8), ["one file of a model", "give the folder"]),
        ("model.safetensors", PAGE, ["a web page"]),
        ("config.json", b"{}", ["one file of a model"]),
        ("pytorch_model.bin", b"PK\3\4", ["a pickle", "save_pretrained"]),
        ("consolidated.00.pth", b"\x80\2", ["a pickle"]),
        ("notes", b"dear diary", ["is a file; expected the folder of a model"]),
    ],
)
def test_a_file_in_place_of_a_folder(tmp_path, capsys, name, data, words):
    (tmp_path / name).write_bytes(data)
    message = refusal(tmp_path / name, capsys)
    assert message.startswith(f"{tmp_path / name}: is ") and all(word in message for word in words)


def test_what_is_neither_file_nor_folder(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe", capsys) == f"{tmp_path / 'pipe'}: is no folder"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ["config.json: there is no such file; the folder is empty"]),
        (["m.Q4_1.gguf", "README.md"], ["it holds a GGUF file", "fastdistill convert", "m.Q4_1.gguf FOLDER"]),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], ["part 1 of 2 of a GGUF"]),
        (["snapshots/0123ab/config.json", "blobs/x", "refs/main"], ["a cache of the Hub's", "snapshots/0123ab"]),
        (["models--org--name/snapshots/0123ab/config.json"], ["a cache of the Hub's", "models--org--name/snapshots/0123ab"]),
        (["snapshots/0123ab/x", "refs/main"], ["holds no whole model"]),
        (["adapter_config.json", "adapter_model.safetensors"], ["an adapter", "merge_and_unload"]),
        (["consolidated.00.pth", "params.json"], ["pickles of PyTorch's", "consolidated.00.pth"]),
        (["inner/config.json"], ["did you mean", "inner"]),
        (["README.md"], ["there is no such file"]),
    ],
)  # fmt: skip
def test_a_folder_without_a_config(tmp_path, capsys, names, words):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}")
    message = refusal(folder, capsys)
    assert "config.json: there is no such file" in message and all(word in message for word in words)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["pytorch_model.bin"], ["pickles of PyTorch's", "(pytorch_model.bin)", "save_pretrained"]),
        ([f"pytorch_model-{i:05}-of-00012.bin" for i in range(12)], ["00009-of-00012.bin and 2 more"]),
        (["m.gguf"], ["it holds a GGUF file"]),
        ([], ["has 0 safetensors files"]),
    ],
)
def test_a_folder_without_safetensors(model, capsys, names, words):
    (model / "model.safetensors").unlink()
    for name in names:
        (model / name).write_bytes(b"PK\3\4")
    message = refusal(model, capsys)
    assert "has 0 safetensors files" in message and all(word in message for word in words)


# ---- by name ----


def test_a_model_is_loaded_by_its_name(monkeypatch, tmp_path, model, capsys):
    """When fetched; and before, how to fetch it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = next(iter(MODELS))
    assert f"`fastdistill fetch {name}`" in refusal(name, capsys)
    folder = tmp_path / "cache" / "fastdistill" / "models" / name
    folder.parent.mkdir(parents=True)
    shutil.copytree(model, folder)
    monkeypatch.setattr("fastdistill.fetch._record", lambda source: {"made": "here"})
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    (folder / MARKER).write_text(json.dumps({"made": "here", "files": sizes}))
    loaded = fd.load(name)
    assert loaded.folder == folder
    np.testing.assert_array_equal(loaded.logits([1, 2]), fd.load(model).logits([1, 2]))


def test_a_name_that_is_none_says_which_there_are(capsys):
    assert "did you mean 'listops-mdlm'" in refusal("listop-mdlm", capsys)
    assert "`hf download org/SomeModel-1B --local-dir FOLDER`" in refusal("org/SomeModel-1B", capsys)
    for name in ("", "x" * 100_000, "a\0b", "\udc80", "new\nline"):
        refusal(name, capsys)


@pytest.mark.parametrize("model", [None, 3, 1.5, [], object(), np.zeros(2)])
def test_what_is_no_path_is_an_argument_error(model):
    with pytest.raises(ArgumentError, match="must be a path or a name"):
        find_folder(model)
    with pytest.raises(ArgumentError, match="must be a path"):
        fd.load(model)


def test_a_path_may_be_bytes(model):
    assert find_folder(os.fsencode(model)) == model


# ---- safetensors ----


def test_metadata_of_null_is_none_at_all(model):
    """As the format's own reader has it."""
    path = model / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size]) | {"__metadata__": None}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    theirs = safetensors.numpy.load_file(path)
    with open_checkpoint(model) as checkpoint:
        assert checkpoint.tensors.keys() == theirs.keys()
        assert all(np.array_equal(tensor.data, theirs[name]) for name, tensor in checkpoint.tensors.items())
