"""Rotary positions: csrc/kernels/forward/rotary.c."""

from __future__ import annotations

import numpy as np

from fastdistill.ops.kind import OpKind, PassRows, StepKind, Table


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


KINDS = (
    OpKind(
        name="rotary",
        meaning="x with each head rotated by position * inverse_frequencies",
        reference=rotary,
        of_pass=True,
        constants={"head_dim": "head_dim", "inverse_frequencies": "vectors"},
        table=Table(
            StepKind("rotary_table", row_wise=True),
            "inverse_frequencies",
            lambda constants: (len(constants["inverse_frequencies"]),) * 2,
        ),
    ),
)
