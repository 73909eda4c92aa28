"""What `kernels.linear` and the linear op mean."""

from __future__ import annotations

import numpy as np

from fastdistill.reference.forward.quantize_rows import quantize_rows


def linear(x, format, data, scale=None, minimum=None, bias=None):
    """x (rows, inputs) times weights (outputs, inputs), in float64.

    - f32, f16, bf16: data holds the numbers (bf16: its bits as uint16)
    - q8, q4: x is quantised too, and the product is that of the codes, block by block: sum of w_scale x_scale (codes .
      codes) and, for q4, of w_minimum x_scale (sum of x's codes)
    """
    x = np.asarray(x)
    if format == "bf16":
        y = x.astype(np.float64) @ (data.astype(np.uint32) << 16).view(np.float32).astype(np.float64).T
    elif format in ("f32", "f16"):
        y = x.astype(np.float64) @ data.astype(np.float64).T
    else:
        x_codes, x_scale, x_sum, _ = quantize_rows(np.asarray(x, np.float32))
        blocks = x_scale.shape[1]
        w_codes = data if format == "q8" else unpack_q4(data)
        products = np.einsum(
            "rbk,obk->rob",
            x_codes.reshape(len(x), blocks, 32).astype(np.float64),
            w_codes.reshape(len(data), blocks, 32).astype(np.float64),
        )
        y = np.einsum("rob,ob,rb->ro", products, scale.astype(np.float64), x_scale.astype(np.float64))
        if format == "q4":
            y += x_sum.astype(np.float64) @ minimum.astype(np.float64).T
    return y if bias is None else y + bias


def unpack_q4(data):
    """q4 bytes (outputs, blocks * 16) -> codes 0..15 (outputs, blocks * 32): low nibbles of a block, then high ones."""
    bytes_ = data.reshape(len(data), -1, 16)
    return np.concatenate([bytes_ & 15, bytes_ >> 4], axis=2).reshape(len(data), -1)
