"""The best token of each row, the runner-up, and how sure the model is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import check_array, check_status, lib, pointer
from fastdistill.kernels.threads import check_threads


class RowStatistics(NamedTuple):
    """Statistics of rows of logits, each (rows,): argmax int32, the rest float32; logarithms are natural."""

    argmax: np.ndarray
    top: np.ndarray  # the largest logit
    second: np.ndarray  # the second largest, equal to top on a tie; -inf where there is no other
    log_sum_exp: np.ndarray
    entropy: np.ndarray

    @classmethod
    def empty(cls, rows: int) -> RowStatistics:
        """Uninitialised statistics of so many rows."""
        return cls(np.empty(rows, np.int32), *(np.empty(rows, np.float32) for _ in range(4)))


def row_statistics(logits: np.ndarray, threads: int | None = 1) -> RowStatistics:
    """Argmax, top, second, log-sum-exp and entropy of each row, in two passes over it.

    logits   float32 (rows, vocab), vocab >= 1; -inf is a ban
    returns  RowStatistics, each field (rows,)
    raises   ArgumentError; NotFiniteError when a row holds NaN or +inf, or nothing but -inf
    """
    rows, vocab = check_array("logits", logits, np.float32, (None, None))
    if vocab == 0:
        raise ArgumentError("logits must have at least one column, got shape " + str(logits.shape))
    out = RowStatistics.empty(rows)
    status = lib.fd_row_statistics(
        rows, vocab, pointer(logits), *(pointer(field) for field in out), check_threads(threads)
    )
    check_status("row_statistics", status)
    return out
