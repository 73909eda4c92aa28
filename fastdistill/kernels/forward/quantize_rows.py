"""Activations as int8 blocks of 32: what a quantised linear multiplies."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import check_array
from fastdistill.kernels.boundary import check_status, const, lib, pointer, refuse_rows


def quantize_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Quantise each row in blocks of 32: scale = largest magnitude / 127, codes to nearest, half to even.

    Parameters
    ----------
    x : float32 (rows, width)
        finite

    Returns
    -------
    codes : int8 (rows, blocks * 32)
    scale : float32 (rows, blocks)
    sum : float32 (rows, blocks)
        scale * total
    total : int32 (rows, blocks)
        sum of the codes; blocks = ceil(width / 32); a block whose scale would be subnormal is zero

    Raises
    ------
    ArgumentError
    NotFiniteError
    """
    rows, width = check_array("x", x, np.float32, ("rows", "width"))
    blocks = -(-width // 32)
    codes = np.empty((rows, blocks * 32), np.int8)
    scale, sums = np.empty((rows, blocks), np.float32), np.empty((rows, blocks), np.float32)
    total = np.empty((rows, blocks), np.int32)
    status = lib.fd_quantize_rows(rows, width, const(x), pointer(codes), pointer(scale), pointer(sums), pointer(total))
    if status == lib.FD_NOT_FINITE:
        refuse_rows("quantize_rows", x, bans=False)
    check_status("quantize_rows", status)
    return codes, scale, sums, total
