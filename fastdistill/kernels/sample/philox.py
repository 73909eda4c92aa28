"""Random words by counter: Philox4x32-10."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.kernels.boundary import const, lib, pointer


def philox(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Four random words for each counter under one key.

    Parameters
    ----------
    counter : uint32 (n, 4)
    key : uint32 (2,)

    Returns
    -------
    uint32 (n, 4)

    Raises
    ------
    ArgumentError
    """
    counter = as_array("counter", counter, np.uint32, ("n", 4))
    key, n = as_array("key", key, np.uint32, (2,)), len(counter)
    words = np.empty((n, 4), np.uint32)
    lib.fd_philox(n, const(counter), const(key), pointer(words))
    return words
