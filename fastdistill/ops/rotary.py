"""Rotary positions: csrc/kernels/forward/rotary.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastdistill.messages import short
from fastdistill.ops.kind import OpKind, PassRows, StepKind, Table, same_width


def rotary(x: np.ndarray, *, head_dim: int, inverse_frequencies: np.ndarray, request: PassRows) -> np.ndarray:
    """Rotate each head of x (rows, heads * head_dim): (a, b) -> (a cos - b sin, b cos + a sin), a and b its halves.

    angle = float32(position) * inverse frequency, rounded to float32 as the models were trained; the rest in float64
    (Su et al. 2021, halves rotated as in the GPT-NeoX form).
    """
    positions = request.positions.astype(np.float32)
    angles = (positions[:, None] * inverse_frequencies.astype(np.float32)).astype(np.float64)
    cosine, sine = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    heads = x.astype(np.float64).reshape(len(x), -1, head_dim)
    a, b = heads[..., : head_dim // 2], heads[..., head_dim // 2 :]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1).reshape(x.shape)


def rotary_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    """That of the input, whole heads; each has an inverse frequency for a pair of its floats."""
    head_dim, frequencies = constants["head_dim"], constants["inverse_frequencies"]
    assert head_dim % 2 == 0 and widths[0] % head_dim == 0, (widths, head_dim)
    assert (
        frequencies.dtype == np.float32 and frequencies.shape == (head_dim // 2,) and frequencies.flags.c_contiguous
    ), f"inverse_frequencies must be float32 ({head_dim // 2},), contiguous, got {short(frequencies)}"
    return same_width(widths, shapes, constants)


KINDS = (
    OpKind(
        name="rotary",
        meaning="x with each head rotated by position * inverse_frequencies",
        reference=rotary,
        of_pass=True,
        constants={"head_dim": "head_dim", "inverse_frequencies": "vectors"},
        width=rotary_width,
        table=Table(
            StepKind("rotary_table", row_wise=True),
            "inverse_frequencies",
            lambda constants: (len(constants["inverse_frequencies"]),) * 2,
        ),
    ),
)
