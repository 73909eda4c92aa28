"""Models by name: fetched into the user's cache, once.

Nothing takes a model's name before it is complete: its source (`fastdistill.sources`) works in a folder beside that name
(`work_folder`). One process at a time works on a model, by a lock that the system releases when its holder dies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastdistill.embedded import EMBEDDED, embedded_folder
from fastdistill.errors import ArgumentError, CheckpointError, FetchError
from fastdistill.files import read_json, replace, work_folder
from fastdistill.messages import short, suggestion
from fastdistill.platform import lock, open_at_once
from fastdistill.sources import MODELS, Progress, Repository, Source
from fastdistill.user_cache import user_cache

MARKER = ".fetched.json"  # written last; says what the folder was made from


def fetch(name: str, progress: Progress | None = None) -> Path:
    """The folder of a model by name, fetched first where the cache does not have it.

    Parameters
    ----------
    name : str
        one of MODELS; or a repository of the Hugging Face Hub, "org/name", or a GGUF file of one, "org/name:file.gguf",
        which need huggingface_hub
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
    source, folder = source_of(name), cached_folder(name)
    if is_fetched(name):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock"), progress):
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
    source = _known(name)
    if source is None:
        return False
    folder = cached_folder(name)
    try:
        record = read_json(folder / MARKER)
        sizes = record.pop("files", None)
        if record != _record(source) or type(sizes) is not dict or "config.json" not in sizes:
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
    source = _known(name)
    if source is not None and is_fetched(name):
        return cached_folder(name)
    if name in MODELS:
        raise CheckpointError(f"{name} has not been fetched yet: run `fastdistill fetch {name}`")
    known = (*MODELS, *EMBEDDED)
    hint = suggestion(name, known)
    if isinstance(source, Repository):
        hint += (
            f"; for one of the Hub's, run `fastdistill fetch {name}`, or `hf download {source.name} --local-dir FOLDER` "
            "and give the folder"
        )
    shown = name if name.isprintable() else short(name)
    raise CheckpointError(
        f"{shown}: is neither a folder nor the name of a model; known names: {', '.join(known)}{hint}"
    )


def source_of(name: str) -> Source:
    """Where a model of this name comes from.

    Raises
    ------
    ArgumentError
        for a name that none has
    """
    source = _known(name)
    if source is None:
        raise ArgumentError(
            f"there is no model named {short(name)}; known: {', '.join(MODELS)}, and of the Hub org/name and "
            "org/name:file.gguf"
        )
    return source


def _known(name: object) -> Source | None:
    if not isinstance(name, str):
        return None
    return MODELS.get(name) or Repository.parse(name)


def _record(source: Source) -> dict[str, object]:
    return source.record()


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with open(open_at_once(path, os.O_RDWR | os.O_CREAT), "rb") as file:
        try:
            lock(file.fileno(), wait=False)
        except BlockingIOError:
            progress("waiting for another process that fetches it", 0, 0)
            lock(file.fileno(), wait=True)
        yield


def _make(source: Source, folder: Path, work: Path, progress: Progress) -> None:
    made = source.make(work, progress)
    sizes = {str(path.relative_to(made)): path.stat().st_size for path in sorted(made.rglob("*")) if path.is_file()}
    (made / MARKER).write_text(json.dumps(_record(source) | {"files": sizes}, indent=2), "utf-8")
    replace(folder, made, work)  # what is there is of an earlier conversion, or damaged
