"""Random words by counter: Philox4x32-10."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import check_array
from fastdistill.kernels.boundary import check_status, lib, pointer


def philox(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Four random words for each counter under one key.

    counter  uint32 (n, 4)
    key      uint32 (2,)
    returns  uint32 (n, 4)
    raises   ArgumentError
    """
    n, _ = check_array("counter", counter, np.uint32, (None, 4))
    check_array("key", key, np.uint32, (2,))
    words = np.empty((n, 4), np.uint32)
    check_status("philox", lib.fd_philox(n, pointer(counter), pointer(key), pointer(words)))
    return words
