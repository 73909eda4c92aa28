"""Law 4, as a target asks for it: whatever a file or an argument holds, the answer is a result or a typed error.

A target is a module of `targets/` with `run(data: bytes)`, which raises whatever breaks the law, and `seeds()`, inputs to begin with;
also `changed(data, random)`, where bytes alone would not get deep, and `LONGEST`, the most bytes of an input.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

from fastdistill.errors import FastDistillError

HERE = Path(__file__).resolve().parent
MOST_MESSAGE = 8_000  # characters: the longest list ten tensors of a kind, each with its name and shape
MEMORY = 4 << 30  # bytes of address space: no input has a right to more, the largest of them has 1 MB


class Broken(AssertionError):
    """What an input has made of law 4."""


def names() -> list[str]:
    return sorted(path.stem for path in (HERE / "targets").glob("*.py"))


def target(name: str) -> ModuleType:
    return import_module(f"tests.fuzz.targets.{name}")


@contextmanager
def lawful() -> Iterator[None]:
    """A block that gives a result, or raises an error of the package's own, whose message has a bound."""
    try:
        yield
    except FastDistillError as error:
        if len(str(error)) > MOST_MESSAGE:
            raise Broken(f"a message of {len(str(error))} characters: {str(error)[:1000]}") from error


_file = os.memfd_create("input") if hasattr(os, "memfd_create") else -1


def stored(data: bytes) -> Path:
    """A regular file of these bytes, in memory, until the next call."""
    os.ftruncate(_file, 0)
    os.pwrite(_file, data, 0)
    return Path(f"/proc/self/fd/{_file}")


_folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def folder(files: dict[str, bytes]) -> Path:
    """A folder of these files alone, until the next call."""
    path = Path(_folder.name)
    for old in path.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for name, data in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(data)
    return path


def parts(data: bytes) -> tuple[bytes, bytes]:
    """One input as two files: the first one's length comes first, in 4 bytes."""
    length = int.from_bytes(data[:4], "little")
    return data[4 : 4 + length], data[4 + length :]


def joined(first: bytes, second: bytes) -> bytes:
    return len(first).to_bytes(4, "little") + first + second


def limit_memory() -> None:
    """A claim that takes memory without bound is a MemoryError from now on, which no target of files lets pass.

    Under the address sanitizer, which takes terabytes of addresses, its own option has to say so.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() < MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
