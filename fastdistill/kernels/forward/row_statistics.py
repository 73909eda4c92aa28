"""The best token of each row, the runner-up, and how sure the model is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import check_array, check_integer
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import check_status, const, lib, pointer, refuse_rows
from fastdistill.kernels.threads import check_threads


class RowStatistics(NamedTuple):
    """Statistics of rows of logits (..., vocab).

    Attributes
    ----------
    argmax : int32 (...)
        the token of the largest logit, the lowest of them on a tie
    top : float32 (...)
        the largest logit
    second : float32 (...)
        the second largest, equal to top on a tie; -inf where there is no other
    log_sum_exp : float32 (...)
        the natural logarithm of the sum of e^logit: a token's log probability is its logit minus this
    entropy : float32 (...)
        of the softmax, in nats
    log_prob : float32 (...)
        log p of argmax, to its own last digits where p is near 1: top - log_sum_exp has lost them
    """

    argmax: np.ndarray
    top: np.ndarray
    second: np.ndarray
    log_sum_exp: np.ndarray
    entropy: np.ndarray
    log_prob: np.ndarray

    @classmethod
    def empty(cls, shape: int | tuple[int, ...]) -> RowStatistics:
        """Uninitialised statistics of so many rows."""
        sizes = shape if isinstance(shape, tuple) else (shape,)
        shape = tuple([check_integer("shape", size, 0, 2**31 - 1) for size in sizes])
        return cls(np.empty(shape, np.int32), *(np.empty(shape, np.float32) for _ in range(5)))


def row_statistics(logits: np.ndarray, threads: int | None = 1) -> RowStatistics:
    """Argmax, top, second, log-sum-exp, entropy and log p of the argmax of each row, in two passes over it.

    Parameters
    ----------
    logits : float32 (..., vocab)
        1 <= vocab < 2^31: rows in any dimensions before it; -inf is a ban
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    RowStatistics
        each field (...,)

    Raises
    ------
    ArgumentError
    NotFiniteError
        when a row holds NaN or +inf, or nothing but -inf

    Examples
    --------
    >>> logits = np.log(np.array([[1, 2, 5], [6, 1, 1]], np.float32))
    >>> found = fd.kernels.row_statistics(logits)
    >>> found.argmax, np.exp(found.log_prob).round(4)
    (array([2, 0], dtype=int32), array([0.625, 0.75 ], dtype=float32))
    """
    *leading, vocab = check_array("logits", logits, np.float32, (..., "vocab"))
    if not 0 < vocab < 2**31:
        raise ArgumentError(f"logits must have at least one column and fewer than 2^31, got shape {logits.shape}")
    out = RowStatistics.empty(tuple(leading))
    status = lib.fd_row_statistics(
        out.argmax.size, vocab, const(logits), *(pointer(field) for field in out), check_threads(threads)
    )
    if status == lib.FD_NOT_FINITE:
        refuse_rows("row_statistics", logits)
    check_status("row_statistics", status)
    return out
