"""The k largest logits of each row."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import check_array, check_integer
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import check_status, const, lib, pointer, refuse_rows
from fastdistill.kernels.threads import check_threads


def top_k(logits: np.ndarray, k: int, threads: int | None = 1) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of the k largest logits of each row, and these; the largest first, of equal ones the lowest token.

    Parameters
    ----------
    logits : float32 (rows, vocab)
        1 <= vocab < 2^31; -inf is a ban, which comes last
    k : int
        from 1 to vocab
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    tokens : int32 (rows, k)
    values : float32 (rows, k)

    Raises
    ------
    ArgumentError
    NotFiniteError
        when a row holds NaN or +inf, or nothing but -inf
    """
    rows, vocab = check_array("logits", logits, np.float32, ("rows", "vocab"))
    if not 0 < vocab < 2**31:
        raise ArgumentError(f"logits must have at least one column and fewer than 2^31, got shape {logits.shape}")
    k = check_integer("k", k, 1, vocab)
    tokens, values, workspace = (
        np.empty((rows, k), np.int32),
        np.empty((rows, k), np.float32),
        np.empty((rows, k), np.uint64),
    )
    status = lib.fd_top_k(
        rows, vocab, k, const(logits), pointer(tokens), pointer(values), pointer(workspace), check_threads(threads)
    )
    if status == lib.FD_NOT_FINITE:
        refuse_rows("top_k", logits)
    check_status("top_k", status)
    return tokens, values
