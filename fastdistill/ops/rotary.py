"""Rotary positions, and back: csrc/kernels/forward/rotary.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fastdistill.messages import short
from fastdistill.ops.kind import OWN, OpKind, PassRows, Reverse, StepKind, Table, same_width


def rotary_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """The transpose of a rotation turns back."""
    reverse.give(op.inputs[0], reverse.op("rotary_gradient", gradient, **op.constants))


def rotary(
    x: np.ndarray,
    *,
    head_dim: int,
    rotary_dim: int,
    inverse_frequencies: np.ndarray,
    factor: float,
    long_frequencies: np.ndarray | None = None,
    request: PassRows,
    back: bool = False,
) -> np.ndarray:
    """Rotate each head of x (rows, heads * head_dim): (a, b) -> (a cos - b sin, b cos + a sin), a and b the halves of what turns.

    Of a head the first rotary_dim numbers turn, the others stay. Rows of a long text (`KVCache.is_long`) turn by
    long_frequencies, where there are some. Cosine and sine are times `factor` (YaRN: Peng et al. 2023).
    angle = float32(position) * inverse frequency, rounded to float32 as the models were trained; the rest in float64
    (Su et al. 2021, halves rotated as in the GPT-NeoX form). Back: by minus the angle.
    """
    frequencies = np.tile(inverse_frequencies, (len(x), 1))
    if long_frequencies is not None:
        own = request.keys(OWN)
        assert own is not None
        frequencies[[own.caches[sequence].is_long for sequence in request.sequences]] = long_frequencies
    angles = (request.positions.astype(np.float32)[:, None] * frequencies).astype(np.float64)
    cosine, sine = (
        np.float32(factor) * turned[:, None, :] for turned in (np.cos(angles), np.sin(-angles if back else angles))
    )
    heads = x.astype(np.float64).reshape(len(x), -1, head_dim)
    a, b, rest = np.split(heads, [rotary_dim // 2, rotary_dim], axis=-1)
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine, rest], axis=-1).reshape(x.shape)


def rotary_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    """That of the input, whole heads; each has an inverse frequency for a pair of the floats that turn."""
    head_dim, rotary_dim = constants["head_dim"], constants["rotary_dim"]
    assert rotary_dim % 2 == 0 and rotary_dim <= head_dim and widths[0] % head_dim == 0, (widths, head_dim, rotary_dim)
    for name in ("inverse_frequencies", "long_frequencies"):
        found, shape = constants.get(name), (rotary_dim // 2,)
        assert found is None or (found.dtype == np.float32 and found.shape == shape and found.flags.c_contiguous), (
            f"{name} must be float32 {shape}, contiguous, got {short(found)}"
        )
    return same_width(widths, shapes, constants)


ROTARY = OpKind(
    name="rotary",
    meaning="x with the first rotary_dim numbers of each head rotated by position * inverse_frequencies, and times factor",
    reference=rotary,
    of_pass=True,
    constants={
        "head_dim": "head_dim",
        "rotary_dim": "rotary_dim",
        "inverse_frequencies": "vectors",
        "factor": "scalar",
        "long_frequencies": "vectors",
    },
    width=rotary_width,
    adjoint=rotary_adjoint,
    table=Table(
        StepKind("rotary_table", row_wise=True),
        "inverse_frequencies",
        lambda constants: (len(constants["inverse_frequencies"]),) * 2,
    ),
)
KINDS = (
    ROTARY,
    replace(
        ROTARY,
        name="rotary_gradient",
        meaning="the same, rotated back",
        reference=partial(rotary, back=True),
        steps=(StepKind("rotary_gradient", row_wise=True),),
        adjoint=None,
    ),
)
