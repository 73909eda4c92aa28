"""Files of sessions: half of the inputs have the digest that belongs to them, so that what is behind it is reached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np

from fastdistill.checkpoint.safetensors_file import Stored, read_safetensors
from fastdistill.errors import CheckpointError
from fastdistill.runtime.network import Network
from fastdistill.runtime.session_file import _digest
from tests.fuzz.law import lawful, stored
from tests.fuzz.mutators import safetensors_changed, safetensors_made, safetensors_parts
from tests.small_models import network

LONGEST = 16384
ROWS = 5


def model() -> Network:
    return network("odd", threads=1)


def run(data: bytes) -> None:
    with lawful():
        session = model().load_session(stored(data), capacity=24, max_rows=8)
        assert len(session.tokens) == session.length
        session.forward([1, 2], rows="last")


def changed(data: bytes, random: Random) -> bytes:
    found = safetensors_changed(data, random)
    return with_digest(found) if random.random() < 0.8 else found


def with_digest(data: bytes) -> bytes:
    """The same, with the digest of the arrays that it holds, and this model's fingerprint."""
    try:
        header, body = safetensors_parts(data)
        for name, value in (("model", lambda _: model().fingerprint), ("digest", _digest)):
            arrays = {
                key: Stored(dtype, np.asarray(array))
                for key, (dtype, array) in read_safetensors(stored(safetensors_made(header, body))).items()
            }
            begin, end = header[name]["data_offsets"]
            if end - begin == 32:
                body = body[:begin] + value(arrays) + body[end:]
        return safetensors_made(header, body)
    except (ValueError, KeyError, TypeError, CheckpointError, RecursionError):
        return data


def seeds() -> Iterator[bytes]:
    session = model().session(24, max_rows=8)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "session"
        for tokens in ([], [1], list(range(ROWS))):
            if tokens:
                session.prefill(tokens)
            session.save(path)
            yield path.read_bytes()
