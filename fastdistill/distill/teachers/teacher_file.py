"""A teacher's answers on disk: of each token's law the k likeliest tokens, their log-probabilities in a few bits, and the tail.

A safetensors file of four arrays, a row a token, so that any part of it is read without the rest:

- ids uint8 (n, ascending_bytes): tokens in order, as `pack_ascending` packs them
- codes uint8 (n, packed_bytes): of each a code c below 2^bits; its log-probability is -scale c plus what makes
  probabilities and tail sum up to 1; the last code says that it is banned
- scale float16 (n,): nats a step
- tail float32 (n,): the mass of all other tokens

It is read at places and not mapped: a mapped file that somebody cuts short ends the process that looks at it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, check_array, check_flag, check_integer, check_path, check_text
from fastdistill.checkpoint.safetensors_file import Stored, layout, open_safetensors, safetensors_header
from fastdistill.distill.teachers.bit_packing import (
    ascending_bytes,
    pack_ascending,
    pack_bits,
    packed_bytes,
    unpack_ascending,
    unpack_bits,
)
from fastdistill.distill.teachers.teacher_top_k import TopK, as_top_k, teacher_top_k
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import replace_file, work_folder
from fastdistill.messages import short
from fastdistill.platform import write_at

FORMAT, VERSION = "fastdistill-teacher", "1"
_MOST_VOCAB = 2**31 - 1
_BITS = 2, 8
_ROWS = 4096  # decoded at a time: some tens of MB of bits
_COPIED = 1 << 24
_TYPES = {"ids": "U8", "codes": "U8", "scale": "F16", "tail": "F32"}
_DTYPES: dict[str, np.dtype[Any]] = {
    "ids": np.dtype("u1"),
    "codes": np.dtype("u1"),
    "scale": np.dtype("<f2"),
    "tail": np.dtype("<f4"),
}


class Settings(NamedTuple):
    """What a file says of all of its rows.

    Attributes
    ----------
    vocab_size : int
        tokens of the teacher's vocabulary
    k : int
        tokens kept of each row
    bits : int
        of each log-probability
    model : str
        whose answers they are
    data : str
        a digest of what it was asked; "": the file does not say
    """

    vocab_size: int
    k: int
    bits: int
    model: str
    data: str = ""

    @property
    def widths(self) -> dict[str, int | None]:
        """Entries of a row of each array; None: one, without an axis."""
        return {
            "ids": ascending_bytes(self.k, self.vocab_size),
            "codes": packed_bytes(self.k, self.bits),
            "scale": None,
            "tail": None,
        }

    @property
    def token_bytes(self) -> int:
        return sum((width or 1) * _DTYPES[name].itemsize for name, width in self.widths.items())

    def shape(self, name: str, tokens: int) -> tuple[int, ...]:
        width = self.widths[name]
        return (tokens,) if width is None else (tokens, width)


class TeacherWriter:
    """Write a teacher file, some rows after others: `with TeacherWriter(path, vocab_size) as file: file.append(logits)`.

    The file has its name when it is whole, at the end of the block; what has that name till then stays. If the block
    ends by an error or an interrupt, the rows until then are a whole file of the name with `.part` behind, and the
    error goes on; `resume=True` goes on there. A process that is killed leaves neither.

    Parameters
    ----------
    path : str or PathLike
    vocab_size : int
        columns of the teacher's logits
    k : int, default 50
        tokens kept of each row
    bits : int, default 5
        2 to 8, of each log-probability
    model : str, default ""
        whose answers they are; said in the file
    data : str, default ""
        a digest of what it was asked; said in the file
    resume : bool, default False
        begin with the rows of the part file, if there is one

    Attributes
    ----------
    tokens : int
        rows so far
    token_bytes : int
        of the file, a row

    Raises
    ------
    ArgumentError
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        vocab_size: int,
        k: int = 50,
        *,
        bits: int = 5,
        model: str = "",
        data: str = "",
        resume: bool = False,
    ) -> None:
        self._path = check_path("path", path)
        if not self._path.name:
            raise ArgumentError(f"path must name a file, got {short(str(self._path))}")
        vocab_size = check_integer("vocab_size", vocab_size, 1, _MOST_VOCAB)
        self._settings = Settings(
            vocab_size,
            check_integer("k", k, 1, vocab_size),
            check_integer("bits", bits, *_BITS),
            check_text("model", model),
            check_text("data", data),
        )
        self._resume = check_flag("resume", resume)
        self._open: ExitStack | None = None
        self._files: dict[str, IO[bytes]] = {}
        self._finished = False
        self.tokens, self.token_bytes = 0, self._settings.token_bytes

    def __enter__(self) -> TeacherWriter:
        if self._open is not None or self._files:
            raise ArgumentError("a TeacherWriter writes one file: make another one")
        part = TeacherFile(self._part) if self._resume and os.path.lexists(self._part) else None
        if part is not None and part.settings != self._settings:
            raise ArgumentError(
                f"{short(self._part.name)} has {short(str(tuple(part.settings)))} (vocab_size, k, bits, model, data), "
                f"expected {short(str(tuple(self._settings)))} to resume"
            )
        with self._writing(), ExitStack() as stack:
            self._work = stack.enter_context(work_folder(self._path))
            for name in _TYPES:
                self._files[name] = stack.enter_context((self._work / name).open("w+b", buffering=0))
            if part is not None:
                for rows in part._stored_rows():
                    self._write(rows)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open is not None
        with self._open:
            self._open = None
            try:
                if kind is None:
                    self._finish(self._path)
                    with suppress(FileNotFoundError):
                        self._part.unlink()
                    self._finished = True
            finally:
                if not self._finished and self.tokens:
                    with suppress(CheckpointError):  # a full disk, say: the error on its way is the one to see
                        self._finish(self._part)

    def append(self, logits: np.ndarray) -> None:
        """The k likeliest tokens of rows of logits.

        Parameters
        ----------
        logits : float32 or float64 (n, vocab_size)
            -inf is a ban

        Raises
        ------
        ArgumentError
        NotFiniteError
            naming the row
        CheckpointError
            where it cannot be written
        """
        check_array("logits", logits, REAL, ("rows", self._settings.vocab_size))
        self._append(*teacher_top_k(logits, self._settings.k))

    def append_top_k(self, ids: Any, log_probs: Any, tail: Any = None) -> None:
        """Rows of which the likeliest tokens are known, in any order.

        Parameters
        ----------
        ids : int (n, k)
        log_probs : float (n, k)
            of the whole law at temperature 1; -inf for a ban
        tail : float (n,), optional
            the mass of all other tokens; None: what the others leave of 1

        Raises
        ------
        ArgumentError
        CheckpointError
            where it cannot be written
        """
        self._append(ids, log_probs, tail)

    def _append(self, ids: Any, log_probs: Any, tail: Any) -> None:
        if self._open is None:
            raise ArgumentError("a TeacherWriter takes rows within its block: `with TeacherWriter(...) as file:`")
        rows = as_top_k(ids, log_probs, tail, vocab=self._settings.vocab_size)
        if rows[0].shape[1] != self._settings.k:
            raise ArgumentError(f"ids must have k = {self._settings.k} columns, got {rows[0].shape[1]}")
        self._write(encoded(self._settings, *rows))

    def _write(self, rows: dict[str, np.ndarray]) -> None:
        """At the place of the rows so far: what an interrupt has left of others is written over."""
        with self._writing():
            for name, array in rows.items():
                data = memoryview(array.tobytes())
                at = self.tokens * (len(data) // max(1, len(array)))
                while data:
                    done = write_at(self._files[name].fileno(), data, at)
                    data, at = data[done:], at + done
        self.tokens += len(rows["tail"])

    def _finish(self, target: Path) -> None:
        """The rows so far as a whole file of that name."""
        made = self._work / "made"
        names = layout(_DTYPES)
        with self._writing(), made.open("wb") as file:
            shapes = {name: (_TYPES[name], self._settings.shape(name, self.tokens)) for name in names}
            file.write(safetensors_header(shapes, _metadata(self._settings, self.tokens)))
            for name in names:
                left = self.tokens * (self._settings.widths[name] or 1) * _DTYPES[name].itemsize
                self._files[name].seek(0)
                while left:
                    data = self._files[name].read(min(left, _COPIED))
                    file.write(data)
                    left -= len(data)
        with self._writing():
            replace_file(target, made)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(f"{self._path}: cannot be written: {error.strerror or error}") from error

    @property
    def _part(self) -> Path:
        return self._path.with_name(self._path.name + ".part")


class TeacherFile:
    """A teacher file to read: `TeacherFile(path)[start:stop]` is a TopK of those rows; `len` of it, how many there are.

    Only the rows asked for are read. Any number of threads may.

    Parameters
    ----------
    path : str or PathLike

    Attributes
    ----------
    settings : Settings
        vocab_size, k, bits, model, data

    Raises
    ------
    CheckpointError
        where it is no teacher file, or not all of one: what was found, and what was expected
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = check_path("path", path)
        stored, metadata = open_safetensors(self._path)
        self.settings, self._tokens = _read_metadata(self._path, metadata)
        _check_arrays(self._path, stored, self.settings, self._tokens)
        self._arrays = {name: stored[name].array for name in _TYPES}

    def __len__(self) -> int:
        return self._tokens

    def __getitem__(self, rows: slice) -> TopK:
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise ArgumentError(f"rows of a teacher file must be a slice without a step, got {short(rows)}")
        try:
            begin, end, _ = rows.indices(self._tokens)
        except Exception:
            raise ArgumentError(f"rows of a teacher file must be a slice of integers, got {short(rows)}") from None
        count, k = max(0, end - begin), self.settings.k
        found = TopK(np.empty((count, k), np.int32), np.empty((count, k), np.float32), np.empty(count, np.float32))
        for part in range(0, count, _ROWS):
            first, last = begin + part, min(begin + part + _ROWS, end)
            try:
                decoded = self._decoded(first, last)
            except _WrongRow as wrong:
                raise CheckpointError(f"{self._path}: token {first + wrong.row}: {wrong}") from None
            for whole, rows_of in zip(found, decoded, strict=True):
                whole[part : part + last - first] = rows_of
        return found

    def _decoded(self, first: int, last: int) -> TopK:
        return decoded(self.settings, {name: array[first:last] for name, array in self._arrays.items()})

    def _stored_rows(self) -> Iterator[dict[str, np.ndarray]]:
        for first in range(0, self._tokens, _ROWS):
            yield {name: array[first : first + _ROWS] for name, array in self._arrays.items()}


class _WrongRow(Exception):
    """A row that no writer has written."""

    def __init__(self, rows: np.ndarray, problem: str) -> None:
        super().__init__(problem)
        self.row = int(rows.argmax())


def encoded(settings: Settings, ids: np.ndarray, log_probs: np.ndarray, tail: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each array.

    Parameters
    ----------
    settings : Settings
    ids : int32 (n, k)
        ascending
    log_probs : float64 (n, k)
    tail : float64 (n,)
    """
    banned = (1 << settings.bits) - 1
    top = log_probs.max(axis=1, keepdims=True)
    below = np.where(np.isfinite(log_probs), top - log_probs, 0)
    scale = np.minimum(below.max(axis=1) / (banned - 1), np.finfo(np.float16).max).astype(np.float16)
    step = scale.astype(np.float64)[:, None]
    codes = (
        np.rint(np.divide(below, step, out=np.zeros_like(below), where=step > 0)).clip(0, banned - 1).astype(np.int32)
    )
    codes[log_probs == -np.inf] = banned
    return {
        "ids": pack_ascending(ids, settings.vocab_size),
        "codes": pack_bits(codes, settings.bits),
        "scale": scale,
        "tail": np.minimum(tail, np.nextafter(np.float32(1), np.float32(0))).astype(np.float32),  # the others have some
    }


def decoded(settings: Settings, rows: dict[str, np.ndarray]) -> TopK:
    """What `encoded` made, but for what the codes round.

    Raises
    ------
    _WrongRow
        where no writer can have written it
    """
    ids, wrong = unpack_ascending(rows["ids"], settings.k, settings.vocab_size)
    if wrong.any():
        raise _WrongRow(wrong, f"its ids are not {settings.k} ascending tokens below {settings.vocab_size}")
    codes = unpack_bits(rows["codes"], settings.k, settings.bits)
    scale, tail = rows["scale"].astype(np.float64), rows["tail"].astype(np.float64)
    banned = codes == (1 << settings.bits) - 1
    if (wrong := banned.all(axis=1)).any():
        raise _WrongRow(wrong, "none of its tokens has a probability")
    if (wrong := ~((scale >= 0) & np.isfinite(scale))).any():
        raise _WrongRow(wrong, f"its scale is {scale[wrong][0]}; expected a number from 0")
    if (wrong := ~((tail >= 0) & (tail < 1))).any():
        raise _WrongRow(wrong, f"its tail is {tail[wrong][0]}; expected a number from 0, below 1")
    below = np.where(banned, -np.inf, -scale[:, None] * codes)
    below -= below.max(axis=1, keepdims=True)
    log_probs = below - np.log(np.exp(below).sum(axis=1, keepdims=True)) + np.log1p(-tail)[:, None]
    return TopK(ids, log_probs.astype(np.float32), rows["tail"].astype(np.float32))


def _metadata(settings: Settings, tokens: int) -> dict[str, str]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "vocab_size": str(settings.vocab_size),
        "k": str(settings.k),
        "bits": str(settings.bits),
        "tokens": str(tokens),
        "temperature": "1",
        "model": settings.model,
    } | ({"data": settings.data} if settings.data else {})


def _read_metadata(path: Path, metadata: dict[str, str]) -> tuple[Settings, int]:
    """The settings and how many tokens there are."""
    for name, expected in (("format", FORMAT), ("version", VERSION), ("temperature", "1")):
        if metadata.get(name) != expected:
            raise CheckpointError(f"{path}: its {name} is {short(metadata.get(name))}; expected {short(expected)}")
    numbers = {}
    vocab_size = metadata.get("vocab_size", "")
    for name, least, most in (
        ("vocab_size", 1, _MOST_VOCAB),
        ("k", 1, int(vocab_size) if vocab_size.isascii() and vocab_size.isdigit() and len(vocab_size) < 12 else 0),
        ("bits", *_BITS),
        ("tokens", 0, 2**53),
    ):
        text = metadata.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise CheckpointError(f"{path}: its {name} is {short(metadata.get(name))}; expected {least} to {most}")
        numbers[name] = int(text)
    if "model" not in metadata:
        raise CheckpointError(f"{path}: names no model; expected one, or an empty name")
    settings = Settings(
        numbers["vocab_size"], numbers["k"], numbers["bits"], metadata["model"], metadata.get("data", "")
    )
    return settings, numbers["tokens"]


def _check_arrays(path: Path, stored: dict[str, Stored], settings: Settings, tokens: int) -> None:
    if set(stored) != set(_TYPES):
        raise CheckpointError(
            f"{path}: has the arrays {short(', '.join(sorted(stored)))}; expected {', '.join(_TYPES)}"
        )
    for name, (dtype, array) in stored.items():
        found, expected = (dtype, array.shape), (_TYPES[name], settings.shape(name, tokens))
        if found != expected:
            raise CheckpointError(
                f"{path}: {name} is {found[0]} of shape {short(found[1])}; expected {expected[0]} of shape {expected[1]}, "
                f"for {tokens} tokens of k = {settings.k}, bits = {settings.bits}, vocab_size = {settings.vocab_size}"
            )
