"""A session in a file: what its committed rows are, and whose they are.

A safetensors file of these arrays, n rows each:

- tokens, positions: int32 (n,)
- keys, values: float16 or float32 (n, floats of a token): of all layers without a window, one after another
- keys of NAME, values of NAME: likewise of the layers of each window's key set; the last rows alone, where the first are forgotten
- source: int32 (k,), of a model that reads one: its tokens, which are encoded anew; () where there is none yet
- session: int64 (3,): the format's version, how many leading rows have been read as a text is, and whether it is a long one
- model: uint8 (32,): the network's fingerprint
- digest: uint8 (32,): SHA-256 of all the others
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.arguments import check_path
from fastdistill.checkpoint.safetensors_file import Stored, read_safetensors, write_safetensors
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import whole_file
from fastdistill.messages import listed, short
from fastdistill.models.plan import Plan
from fastdistill.ops import OWN
from fastdistill.runtime.forward_pass import POSITION_LIMIT
from fastdistill.runtime.kv_cache import PAGE

VERSION = 3
_CACHES = {"F16": "f16", "F32": "f32"}


@dataclass(frozen=True)
class SavedSession:
    """The committed rows of a session.

    Attributes
    ----------
    tokens : int32 (n,)
        -1 where a row was given as `inputs`
    positions : int32 (n,)
    text_length : int
        leading rows that have seen the rows before them and no others
    held : dict[str, tuple[np.ndarray, np.ndarray]]
        keys and values of each key set, float16 or float32 (rows, floats of a token): of all its layers, one after
        another; rows are the last ones, those before are forgotten
    is_long : bool
        as of `Session`
    source : int32 (k,) or None
        the tokens of its source
    """

    tokens: np.ndarray
    positions: np.ndarray
    text_length: int
    held: dict[str, tuple[np.ndarray, np.ndarray]]
    is_long: bool = False
    source: np.ndarray | None = None

    @property
    def cache(self) -> str:
        """The type of keys and values: "f16" or "f32"."""
        return "f16" if self.held[OWN][0].dtype == np.float16 else "f32"


def write_session(path: Any, saved: SavedSession, fingerprint: bytes, reads_source: bool = False) -> None:
    """Write a session's file, whole or not at all; the source of a model that reads one.

    Raises
    ------
    ArgumentError
        for what is no path
    CheckpointError
        where it cannot be written
    """
    path = _path(path)
    kind = saved.cache.upper()
    arrays = {
        "tokens": Stored("I32", saved.tokens),
        "positions": Stored("I32", saved.positions),
        "session": Stored("I64", np.array([VERSION, saved.text_length, saved.is_long], np.int64)),
        "model": Stored("U8", np.frombuffer(fingerprint, np.uint8)),
    }
    if reads_source:
        arrays["source"] = Stored("I32", np.empty(0, np.int32) if saved.source is None else saved.source)
    for name, parts in saved.held.items():
        arrays |= {key: Stored(kind, np.ascontiguousarray(part)) for key, part in zip(_names(name), parts, strict=True)}
    arrays["digest"] = Stored("U8", np.frombuffer(_digest(arrays), np.uint8))
    with whole_file(path) as made:
        write_safetensors(made, arrays)


def read_session(path: Any, plan: Plan, fingerprint: bytes) -> SavedSession:
    """The session that a file holds, if it is one of this network, and whole.

    Raises
    ------
    ArgumentError
        for what is no path
    CheckpointError
        naming what is wrong with the file
    """
    path = _path(path)
    arrays = read_safetensors(path)
    names = [name for key_set in plan.windows for name in _names(key_set)]
    beside = ["source"] if plan.source_positions else []
    if set(arrays) != {"tokens", "positions", *names, *beside, "session", "model", "digest"}:
        raise CheckpointError(f"{path}: is no session: it holds the arrays {listed(map(short, arrays))}")
    _check_array(path, arrays, "session", (3,), "I64")
    version, text_length, is_long = np.asarray(arrays["session"].array).tolist()
    if version != VERSION:
        raise CheckpointError(f"{path}: is a session of version {version}; expected {VERSION}")
    _check_array(path, arrays, "model", (32,), "U8")
    if np.asarray(arrays["model"].array).tobytes() != fingerprint:
        raise CheckpointError(f"{path}: is a session of another model, or of this one in other formats")
    n = min(*(arrays["tokens"].array.shape or (0,))[:1], plan.max_positions, POSITION_LIMIT)
    _check_array(path, arrays, "tokens", (n,), "I32")
    _check_array(path, arrays, "positions", (n,), "I32")
    for name in beside:
        length = min(*(arrays[name].array.shape or (0,))[:1], plan.source_positions)
        _check_array(path, arrays, name, (length,), "I32")
    for key_set, window in plan.windows.items():
        rows = n
        if window:  # whole pages are forgotten
            found = min(*(arrays[_names(key_set)[0]].array.shape or (0,))[:1], n)
            rows = n - (n - found) // PAGE * PAGE
        for name in _names(key_set):
            shape = rows, sum(map(math.prod, plan.key_sets[key_set]))
            _check_array(path, arrays, name, shape, *(_CACHES if name == "keys" else [arrays["keys"].dtype]))
    _check_array(path, arrays, "digest", (32,), "U8")
    arrays = {
        name: Stored(dtype, np.asarray(array)) for name, (dtype, array) in arrays.items()
    }  # now that all sizes are right
    if np.asarray(arrays["digest"].array).tobytes() != _digest(arrays):
        raise CheckpointError(f"{path}: is damaged: its digest is not that of what it holds")
    tokens, positions = (np.asarray(arrays[name].array) for name in ("tokens", "positions"))
    source = np.asarray(arrays["source"].array) if beside else tokens[:0]
    for name, found, least, most in (
        ("the source", source, 0, plan.vocab_size - 1),
        ("tokens", tokens, -1, plan.vocab_size - 1),
        ("positions", positions, 0, POSITION_LIMIT - 1),
        ("the text's length", np.array([text_length]), 0, n),
    ):
        if found.size and not (found.min() >= least and found.max() <= most):
            raise CheckpointError(f"{path}: {name} must lie in {least}..{most}, found {found.min()}..{found.max()}")
    held: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for key_set in plan.windows:
        keys, values = (np.asarray(arrays[name].array) for name in _names(key_set))
        if not (np.isfinite(keys).all() and np.isfinite(values).all()):
            raise CheckpointError(f"{path}: its keys and values hold a NaN or an infinity")
        held[key_set] = keys, values
    return SavedSession(tokens, positions, text_length, held, bool(is_long), source if len(source) else None)


def _names(key_set: str) -> tuple[str, str]:
    """What a key set's keys and values are called."""
    return ("keys", "values") if key_set == OWN else (f"keys of {key_set}", f"values of {key_set}")


def _path(path: Any) -> Path:
    path = check_path("path", path)
    if not path.name:
        raise ArgumentError(f"path must name a file, got {short(str(path))}")
    return path


def _check_array(path: Path, arrays: Mapping[str, Stored], name: str, shape: tuple[int, ...], *dtypes: str) -> None:
    dtype, array = arrays[name]
    if dtype not in dtypes or array.shape != shape:
        raise CheckpointError(f"{path}: {name} must be {' or '.join(dtypes)} {shape}, found {dtype} {array.shape}")


def _digest(arrays: Mapping[str, Stored]) -> bytes:
    from hashlib import sha256  # its library takes 3 MB

    digest = sha256()
    for name in sorted(arrays.keys() - {"digest"}):
        dtype, array = arrays[name].dtype, np.asarray(arrays[name].array)
        digest.update(f"{name} {dtype} {array.shape}\n".encode())
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
        digest.update(plain.view(np.uint8).data)
    return digest.digest()
