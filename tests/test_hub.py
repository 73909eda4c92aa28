"""Models of the Hub: a huggingface_hub made here brings a repository made here, or fails in the ways that the real one does."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import fastdistill as fd
from fastdistill import fetch as fetching
from fastdistill.checkpoint import write_checkpoint
from fastdistill.errors import ArgumentError, CheckpointError, FetchError
from fastdistill.fetch import cached_folder, fetch, find_folder, is_fetched
from fastdistill.models import plan_for
from fastdistill.sources import Repository
from tests.checkpoint.gguf_files import write_gguf
from tests.small_models import config, tensors

FAKE_HUB = """
import fnmatch, json, os, pathlib, shutil
root, mode = pathlib.Path(os.environ["FAKE_HUB"]), os.environ.get("FAKE_HUB_MODE", "")
class Anything:
    def __init__(self, **fields):
        self.__dict__.update(fields)
class HfApi:
    def model_info(self, repo_id, files_metadata):
        if mode == "offline":
            raise ConnectionError("cannot reach the Hub\\nand more")
        assert repo_id == "org/Tiny-1B" and files_metadata
        hashes = json.loads(os.environ["FAKE_HUB_HASHES"])
        return Anything(sha="0123ab", siblings=[
            Anything(rfilename=name, size=(root / name).stat().st_size, lfs=Anything(sha256=sha256) if sha256 else None)
            for name, sha256 in hashes.items()])
def snapshot_download(repo_id, revision, local_dir, allow_patterns):
    assert (repo_id, revision) == ("org/Tiny-1B", "0123ab")
    if mode == "fail":
        raise OSError("no route to the Hub's store")
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_file() and any(fnmatch.fnmatch(name, each) for each in allow_patterns) and mode != "forgets " + name:
            target = pathlib.Path(local_dir, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes()[:-1] if mode == "cut" else path.read_bytes())
    pathlib.Path(local_dir, ".cache", "huggingface").mkdir(parents=True)
"""
UNWANTED = {"run.py": "print()", "pytorch_model.bin": "x", "onnx/model.onnx": "x", "models/other.safetensors": "x"}


class Hub:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        for name, value in {"FAKE_HUB": root / "hub", "XDG_CACHE_HOME": root / "cache"}.items():
            monkeypatch.setenv(name, str(value))
        (root / "fake").mkdir()
        (root / "fake" / "huggingface_hub.py").write_text(FAKE_HUB)
        python_path = [str(root / "fake"), str(Path(fetching.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, python_path)))
        monkeypatch.syspath_prepend(str(root / "fake"))
        self.hash()

    def mode(self, mode: str) -> None:
        self.monkeypatch.setenv("FAKE_HUB_MODE", mode)
        self.monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)

    def hash(self) -> None:
        """Let the Hub say what its files are now: SHA-256 of what is big alone."""
        hashes = {
            str(path.relative_to(self.root / "hub")): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.suffix in (".safetensors", ".gguf")
            else None
            for path in sorted((self.root / "hub").rglob("*"))
            if path.is_file()
        }
        self.monkeypatch.setenv("FAKE_HUB_HASHES", json.dumps(hashes))
        self.mode("")

    @property
    def cached(self) -> set[str]:
        models = self.root / "cache" / "fastdistill" / "models" / "org"
        return {path.name for path in models.iterdir() if path.suffix != ".lock"} if models.exists() else set()


@pytest.fixture
def model(tmp_path):
    write_checkpoint(tmp_path / "model", config().raw, tensors(plan_for(config())).values(), {"tokenizer.json": b"{}"})
    return tmp_path / "model"


@pytest.fixture
def hub(tmp_path, model, monkeypatch):
    for path in model.iterdir():
        (tmp_path / "hub").mkdir(exist_ok=True)
        (tmp_path / "hub" / path.name).write_bytes(path.read_bytes())
    for name, text in {"LICENSE": "its words", "additional_chat_templates/tool_use.jinja": "x", **UNWANTED}.items():
        (tmp_path / "hub" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "hub" / name).write_text(text)
    write_gguf(tmp_path / "hub" / "tiny-q4.gguf")
    return Hub(tmp_path, monkeypatch)


def test_a_repository_is_fetched_once_and_loaded_by_its_name(hub, model):
    seen = []
    folder = fetch("org/Tiny-1B", lambda *progress: seen.append(progress))
    assert folder == cached_folder("org/Tiny-1B") == find_folder("org/Tiny-1B") and is_fetched("org/Tiny-1B")
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {
        ".fetched.json", "LICENSE", "additional_chat_templates/tool_use.jinja", *(path.name for path in model.iterdir())
    }  # fmt: skip
    assert hub.cached == {"Tiny-1B"}
    total = sum((folder / name).stat().st_size for name in there - {".fetched.json"})
    assert seen[-2:] == [("downloading", total, total), ("checking", 0, 0)]
    np.testing.assert_array_equal(fd.load("org/Tiny-1B").logits([1, 2]), fd.load(model).logits([1, 2]))
    hub.mode("offline")
    assert fetch("org/Tiny-1B") == folder


def test_a_gguf_file_of_a_repository_is_converted(hub):
    name = "org/Tiny-1B:tiny-q4.gguf"
    folder = fetch(name)
    assert (folder / "model.safetensors").exists() and not list(folder.rglob("*.gguf"))
    assert "https://huggingface.co/org/Tiny-1B" in (folder / "NOTICE").read_text()
    assert find_folder(name) == folder and not is_fetched("org/Tiny-1B")


def test_all_parts_of_a_split_file_are_brought(hub):
    for i in (1, 2):
        write_gguf(hub.root / "hub" / f"q8-0000{i}-of-00002.gguf")
    hub.hash()
    _, files = Repository.parse("org/Tiny-1B:q8-00001-of-00002.gguf")._listing()
    assert list(files) == ["q8-00001-of-00002.gguf", "q8-00002-of-00002.gguf"]


def refused(hub: Hub, words: str, name: str = "org/Tiny-1B") -> None:
    with pytest.raises(FetchError, match=words):
        fetch(name)
    assert hub.cached == set() and not is_fetched(name)


def test_without_the_package_the_extra_is_named(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(hub, r'needs huggingface_hub .*pip install "fastdistill\[hub\]"')


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("offline", r"did not say what org/Tiny-1B holds \(ConnectionError: cannot reach the Hub\); check the name"),
        ("fail", "could not be downloaded from the Hub; it said:\n(.*\n)*.*no route to the Hub's store"),
        ("cut", "expected .*: the download is not whole"),
        ("forgets tokenizer.json", "the Hub brought no tokenizer.json"),
    ],
)
def test_a_hub_that_fails_leaves_nothing(hub, mode, words):
    hub.mode(mode)
    refused(hub, words)


def test_weights_with_another_hash_are_refused(hub):
    path = hub.root / "hub" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    hub.mode("")
    refused(hub, "model.safetensors: has the SHA-256")


def test_a_repository_without_a_model_says_what_it_holds(hub):
    refused(hub, r"holds no other\.gguf; its files are tiny-q4\.gguf", "org/Tiny-1B:other.gguf")
    (hub.root / "hub" / "config.json").unlink()
    hub.hash()
    refused(hub, r"holds no config.json and model\*.safetensors; .*give org/Tiny-1B:tiny-q4\.gguf")


def test_names_of_repositories():
    assert Repository.parse("org/na.me-1") == Repository("org/na.me-1")
    assert Repository.parse("org/name:sub/x-Q8_0.gguf") == Repository("org/name", "sub/x-Q8_0.gguf")
    for name in (
        "a/b/c",
        "../x",
        "a/..",
        "a/b:../x.gguf",
        "a/b:x.bin",
        "a/b:/x.gguf",
        "/a/b",
        "a/b:",
        "a",
        "a/b\n",
        "ä/b",
    ):
        assert Repository.parse(name) is None
        with pytest.raises(ArgumentError, match="no model named"):
            fetch(name)


def test_a_repository_not_fetched_says_how_to(hub):
    with pytest.raises(CheckpointError, match="`fastdistill fetch org/Other`, or `hf download org/Other"):
        find_folder("org/Other")


def test_names_are_listed(hub, run):
    code, out, _ = run("fetch", "--list")
    assert code == 0 and out.splitlines() == [
        "smollm2-135m-instruct  not fetched: 92.9 MB", "gemma3-270m  not fetched: 238.2 MB",
        "all-minilm-l6-v2  not fetched: 83.5 MB",
    ]  # fmt: skip
    code, out, _ = run("fetch", "org/Tiny-1B")
    assert code == 0 and "is now in" in out and "From https://huggingface.co/org/Tiny-1B" in out
