"""What this machine can do: its memory, how fast it reads that, and what becomes of it when rows are multiplied by weights."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastdistill.api import load
from fastdistill.kernels import PackedWeight, Sampler
from fastdistill.kernels.forward.linear import packed_bytes
from fastdistill.runtime.profile import Profile
from fastdistill.runtime.read import Read
from fastdistill.testing.report import WEIGHT_BYTES, ModelSpeed

FORMATS = "f16", "q8", "q4"
_INPUTS = 1024
_SECONDS = 0.15  # of each format
_CONTEXT = 32  # tokens before those that are timed


def weight_rates(threads: int) -> dict[str, float]:
    """By format: bytes of weights a second, read by the product with one row; the best of some."""
    return {format: _weight_rate(format, threads) for format in FORMATS}


def _weight_rate(format: str, threads: int) -> float:
    outputs = WEIGHT_BYTES // packed_bytes(format, 64, _INPUTS) * 64
    size, blocks = packed_bytes(format, outputs, _INPUTS), (outputs, _INPUTS // 32)
    if format == "f16":
        weight = PackedWeight(format, np.full((outputs, _INPUTS), 0.5, np.float16), threads=threads)
    else:
        codes = np.full((outputs, _INPUTS), 3, np.int8) if format == "q8" else None
        data = np.full((outputs, _INPUTS // 2), 0x35, np.uint8) if codes is None else codes
        scale = np.full(blocks, 0.5, np.float16)
        minimum = np.full(blocks, -1, np.float16) if format == "q4" else None
        weight = PackedWeight(format, data, scale, minimum, threads=threads)
    x, best, end = np.ones((1, _INPUTS), np.float32), float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end or best == float("inf"):
        started = time.perf_counter()
        weight.multiply(x, threads=threads)
        best = min(best, time.perf_counter() - started)
    return size / best if best > 0 else 0.0


def model_speed(name: str, threads: int | None, seconds: float) -> ModelSpeed:
    """Time forwards of one row behind a short text; a model that fills masks is run as if it wrote from left to right, too.

    A model with an encoder has read a source before; one that is an encoder is timed by `encoder_speed`.

    Parameters
    ----------
    name : str
        what `load` takes
    threads : int | None
        of the forwards
    seconds : float
        how long to go on
    """
    model = load(name, threads=threads)
    session: Any = model.session(min(model.plan.max_positions, 256))
    if model.plan.source_positions:
        session.read_source(np.arange(min(_CONTEXT, model.plan.source_positions), dtype=np.int32) % model.vocab_size)
    tokens = np.arange(session.capacity, dtype=np.int32) % model.vocab_size
    context, read = min(_CONTEXT, session.capacity // 2), Read(sampler=Sampler())
    with Profile() as profile:
        while profile.decode.seconds < seconds:
            if session.length in (0, session.capacity):
                session.truncate(0)
                session.forward(tokens[:context], rows="last")
            session.forward(tokens[session.length : session.length + 1], read=read)
    found = profile.decode
    return ModelSpeed(name, found.forwards, found.rows, found.seconds, found.total.bytes // found.forwards)
