"""What `kernels.philox` means."""

from __future__ import annotations

import numpy as np


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011): words (n, 4) of counters (n, 4) under a key (2,), all uint32."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (counter[:, word].astype(np.uint64) for word in range(4))
    k0, k1 = key.astype(np.uint64)
    for _ in range(10):
        product0, product1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = product1 >> 32 ^ c1 ^ k0, product1 & low, product0 >> 32 ^ c3 ^ k1, product0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)
