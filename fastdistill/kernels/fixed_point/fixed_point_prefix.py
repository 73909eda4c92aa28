"""How much of an iterate is final."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.kernels.boundary import const, lib, pointer


def fixed_point_prefix(previous: np.ndarray, current: np.ndarray) -> np.ndarray | np.int32:
    """How many leading positions of an iterate are final, where a position depends on those before it alone.

    `current` was made from `previous`. Positions equal in both are final as far as all before them are, and so is the
    first that differs: what it was made from is final. So min(equal + 1, n), and n where all agree.

    Parameters
    ----------
    previous : int32 (..., n)
    current : int32 (..., n)
        the same shape

    Returns
    -------
    int32 (...)
        in 1..n, 0 where n is 0; of (n,) a NumPy int32

    Raises
    ------
    ArgumentError

    References
    ----------
    Song et al. 2021, Jacobi iteration of a triangular system
    """
    previous = as_array("previous", previous, np.int32, (..., "n"))
    current = as_array("current", current, np.int32, previous.shape)
    *leading, n = previous.shape
    prefix = np.empty(tuple(leading), np.int32)
    lib.fd_fixed_point_prefix(prefix.size, n, const(previous), const(current), pointer(prefix))
    return prefix[()]
