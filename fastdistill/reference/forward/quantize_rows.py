"""What `kernels.quantize_rows` means."""

from __future__ import annotations

import numpy as np


def quantize_rows(x):
    """x float32 (rows, width) -> codes int8 (rows, blocks * 32), scale, sum float32, total int32 (rows, blocks).

    Blocks of 32 (the last one padded with zeros): scale = largest magnitude / 127, codes = x / scale to nearest, half
    to even. A block whose scale would be subnormal is zero. sum = scale * total, total = the sum of the codes.
    """
    rows, width = x.shape
    blocks = -(-width // 32)
    padded = np.zeros((rows, blocks * 32), np.float32)
    padded[:, :width] = x
    padded = padded.reshape(rows, blocks, 32)
    scale = np.abs(padded).max(axis=2) / np.float32(127)
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(0))
    divisor = np.where(scale > 0, scale, np.float32(1))[..., None]
    codes = np.where(scale[..., None] > 0, np.rint(padded / divisor), 0).astype(np.int8)
    total = codes.sum(axis=2, dtype=np.int32)
    return codes.reshape(rows, blocks * 32), scale, scale * total.astype(np.float32), total
