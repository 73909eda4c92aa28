"""Files of a teacher's answers: their metadata, and every row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np

from fastdistill.distill import TeacherFile, TeacherWriter
from fastdistill.distill.teachers.teacher_file import _TYPES, Settings
from fastdistill.errors import CheckpointError
from tests.fuzz.law import lawful, stored
from tests.fuzz.mutators import ODD, safetensors_changed, safetensors_made, safetensors_parts

DONORS = [*ODD, "1", "2", "3", "4", "8", "40", "256", "99999999999", "-1", "1.0", "١"]


def run(data: bytes) -> None:
    with lawful():
        file = TeacherFile(stored(data))
        for rows in (slice(0, 1), slice(None)):
            found = file[rows]
            k, vocab = file.settings.k, file.settings.vocab_size
            assert found.ids.shape == found.log_probs.shape == (len(found.tail), k)
            assert (np.diff(found.ids, axis=1) > 0).all() and (found.ids >= 0).all() and (found.ids < vocab).all()
            assert not np.isnan(found.log_probs).any() and ((found.tail >= 0) & (found.tail < 1)).all()


def changed(data: bytes, random: Random) -> bytes:
    """Also other settings, with arrays of the shapes that belong to them."""
    if random.random() < 0.5:
        return safetensors_changed(data, random, DONORS)
    try:
        header, body = safetensors_parts(data)
        vocab, k = random.choice([(1, 1), (2, 2), (3, 1), (40, 3), (300, 5), (2**31 - 1, 2)])
        bits = random.randrange(2, 9)
        tokens, settings = random.randrange(4), Settings(vocab, k, bits, "m", "")
        header["__metadata__"] |= {"vocab_size": str(vocab), "k": str(k), "bits": str(bits), "tokens": str(tokens)}
        made, at = {"__metadata__": header["__metadata__"]}, 0
        for name in header:
            if name == "__metadata__":
                continue
            shape = settings.shape(name, tokens)
            size = int(np.prod(shape)) * {"F16": 2, "F32": 4}.get(_TYPES[name], 1)
            made[name] = {"dtype": _TYPES[name], "shape": list(shape), "data_offsets": [at, at := at + size]}
        return safetensors_made(made, (body * (1 + at // max(1, len(body))) + random.randbytes(at))[:at])
    except (ValueError, KeyError, TypeError, AttributeError, CheckpointError, RecursionError):
        return safetensors_changed(data, random, DONORS)


def seeds() -> Iterator[bytes]:
    logits = np.random.default_rng(0).normal(size=(4, 40)).astype(np.float32)
    with TemporaryDirectory() as folder:
        for k, bits in ((1, 2), (3, 8), (40, 5)):
            with TeacherWriter(path := Path(folder) / f"{k}", 40, k, bits=bits, model="m") as file:
                file.append(logits)
            yield path.read_bytes()
