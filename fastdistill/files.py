"""Files: those of others are read whole or at places, never more than is honest; ours appear whole or not at all.

Nothing is mapped: a mapped file that somebody cuts short ends the process that looks at it.  Opening never waits for a
pipe's writer, and what is no regular file is not read.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdistill.errors import CheckpointError, FastDistillError
from fastdistill.messages import short
from fastdistill.platform import locked, open_at_once, read_at

if TYPE_CHECKING:
    import numpy as np

# Longer than any honest JSON here (tokenizers reach 20 MB); safetensors has the same limit for its header.
MAX_JSON_BYTES = 100_000_000

TEMPLATES = "additional_chat_templates"
# What lies in folders within a model's: further chat templates, and what sentence-transformers puts behind a model.
WITHIN = f"{TEMPLATES}/*.jinja", "[0-9]_*/config.json", "[0-9]_*/model.safetensors"

OLD = "old"  # what a work folder calls that which is being replaced


class RegularFile:
    """An open file, read at places, by any number of threads.

    Attributes
    ----------
    size
        bytes, when it was opened
    error : type[FastDistillError]
        what is raised, here and later, with the file's name and what is wrong
    """

    _descriptor = -1

    def __init__(self, path: str | os.PathLike[str], error: type[FastDistillError] = CheckpointError) -> None:
        text = os.fsdecode(path)
        self.path = text if len(text) < 1000 and text.isprintable() else short(text)
        self.error = error
        try:
            self._descriptor = open_at_once(path)
            found = os.fstat(self._descriptor)  # a device may give bytes without end
        except FileNotFoundError:
            raise error(f"{self.path}: there is no such file") from None
        except (OSError, ValueError) as problem:  # ValueError: its name holds a zero byte, or what has no bytes
            raise error(f"{self.path}: cannot be read: {getattr(problem, 'strerror', problem)}") from problem
        if not stat.S_ISREG(found.st_mode):
            self.close()
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise error(f"{self.path}: cannot be read: it is {kind}")
        self.size = found.st_size

    def __enter__(self) -> RegularFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, size: int, offset: int, what: str) -> np.ndarray:
        """Fresh memory, uint8 (size,), with the bytes from an offset; errors say `what` they are."""
        import numpy as np  # here alone: the command line reads its arguments without it

        try:
            data = np.empty(size, np.uint8)
        except MemoryError as problem:
            raise self.error(f"{self.path}: {short(what)} takes {size} bytes, more than there is memory") from problem
        done = 0
        while done < size:
            try:
                count = read_at(self._descriptor, data.data[done:], offset + done)
            except OSError as problem:
                raise self.error(f"{self.path}: {short(what)} cannot be read: {problem.strerror}") from problem
            if count == 0:
                raise self.error(f"{self.path}: ends inside {short(what)}: the file was cut meanwhile")
            done += count
        return data


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether the name of a file within a folder, a/b, is as one of the patterns has it, part by part."""
    return any(fnmatchcase(name, each) and name.count("/") == each.count("/") for each in patterns)


def read_file(path: Path, most: int = MAX_JSON_BYTES, error: type[FastDistillError] = CheckpointError) -> bytes:
    """The bytes of a regular file of at most `most`, which takes no more memory than twice them.

    Raises
    ------
    `error`
        naming the file and what is wrong with it
    """
    with RegularFile(path, error) as file:
        if file.size > most:
            raise error(f"{file.path}: has {file.size} bytes; expected at most {most}")
        return file.read(file.size, 0, "what it holds").tobytes()


def read_text(path: Path, most: int, error: type[FastDistillError] = CheckpointError) -> str:
    """The text of a file, UTF-8: `read_file`, and what is no text of its own is refused."""
    data = read_file(path, most, error)
    if text := foreign_text(data):
        raise error(f"{path}: is {text}")
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise error(f"{path}: is not UTF-8: {problem.reason} at {problem.start}") from None


def parse_json(data: bytes, source: str, error: type[FastDistillError] = CheckpointError) -> dict[str, Any]:
    """One JSON object, as RFC 8259 has it: UTF-8, no name twice in an object, every number finite.

    Raises
    ------
    `error`
        naming the source
    """
    value = _parsed(data, source, error)
    if not isinstance(value, dict):
        raise error(f"{source}: must be a JSON object, found {short(value)}")
    return value


def _parsed(data: bytes, source: str, error: type[FastDistillError]) -> Any:
    if text := foreign_text(data):
        raise error(f"{source}: is {text}")
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_distinct, parse_constant=_finite_float, parse_float=_finite_float
        )
    except (ValueError, RecursionError) as problem:
        raise error(f"{source}: is not valid JSON: {problem}") from problem


def read_json(
    path: Path, most: int = MAX_JSON_BYTES, error: type[FastDistillError] = CheckpointError
) -> dict[str, Any]:
    """The JSON object of a file: `read_file`, then `parse_json`."""
    return parse_json(read_file(path, most, error), str(path), error)


def read_json_objects(path: Path, most: int) -> list[dict[str, Any]]:
    """The list of at most `most` JSON objects of a file, as strict as `parse_json`."""
    value = _parsed(read_file(path), str(path), CheckpointError)
    if type(value) is not list or len(value) > most or not all(type(each) is dict for each in value):
        raise CheckpointError(f"{path}: must be a list of at most {most} objects, found {short(value)}")
    return value


def foreign_text(start: bytes) -> str | None:
    """What lies in a file's place where its download went wrong, from its first bytes; None: nothing known."""
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the file: run `git lfs install && git lfs pull` in its repository"
    if start[:1024].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file: a model's page or a login; download the file itself"
    return None


def clear_left(target: Path) -> None:
    """Remove what killed processes have left beside a name: work folders that nobody is at work in."""
    pattern = re.compile(re.escape(f".{_work_name(target)}.") + r"[0-9a-f]{8}\.partial")
    names = []
    with suppress(OSError):  # a folder that may be written and not listed
        names = [name for name in os.listdir(target.parent) if pattern.fullmatch(name)]
    for name in names:
        stale = target.with_name(name)
        with suppress(OSError), locked(stale, wait=False) as there:
            if there:
                _clear(stale, target)


def _work_name(target: Path) -> str:
    return os.fsdecode(os.fsencode(target.name)[:200])  # with what is added it is a name too


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """A new, empty folder beside a name, on its file system, in which is made what will have that name.

    It goes at the end, whatever happens. A process that is killed leaves its own: the next one at work on that name
    removes it. Whether somebody is still at work says the folder's lock, which the system takes from those who die.

    Raises
    ------
    OSError
    """
    clear_left(target)
    name = _work_name(target)
    while True:
        work = target.with_name(f".{name}.{os.urandom(4).hex()}.partial")
        work.mkdir()
        with locked(work, wait=True) as there:
            if not there:  # taken for a dead one's between the two lines above
                continue
            try:
                yield work
            finally:
                _clear(work, target)
            return


def replace(target: Path, made: Path, work: Path) -> None:
    """Give what was made in a work folder its name; what has that name goes with the work folder."""
    try:
        if os.path.lexists(target) and (made.is_dir() or target.is_dir()):  # a file takes a file's place at once
            os.replace(target, work / OLD)
        os.replace(made, target)
    except BaseException:
        _restore(work, target)
        raise


def replace_file(target: Path, made: Path) -> None:
    """Give what was made a name that is free or a file's: a pipe, a device or a folder of that name stays.

    Raises
    ------
    OSError
    """
    try:
        if not stat.S_ISREG(os.lstat(target).st_mode):
            raise FileExistsError(errno.EEXIST, "what has that name is no regular file")
    except FileNotFoundError:
        pass
    os.replace(made, target)


@contextmanager
def whole_file(path: str | os.PathLike[str], error: type[FastDistillError] = CheckpointError) -> Iterator[Path]:
    """Where to make a file that takes its name at the end of the block: it is there whole or not at all.

    Raises
    ------
    `error`
        where it cannot be written
    """
    target = Path(os.path.realpath(path))
    try:
        with work_folder(target) as work:
            made = work / "made"
            yield made
            replace_file(target, made)
    except OSError as problem:
        raise error(f"{target}: cannot be written: {problem.strerror or problem}") from problem


def _clear(work: Path, target: Path) -> None:
    """Remove a work folder, of a process that may have been killed between the two renames."""
    import shutil  # with its compressors, which a start has no use for

    _restore(work, target)
    shutil.rmtree(work, ignore_errors=True)


def _restore(work: Path, target: Path) -> None:
    """Give what was to be replaced its name back where nothing has taken that."""
    if os.path.lexists(work / OLD) and not os.path.lexists(target):
        os.replace(work / OLD, target)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{short(name)} comes twice in one object")
            seen.add(name)
    return value


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{short(text)} is not a finite number")
    return number
