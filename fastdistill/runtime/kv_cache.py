"""Keys and values of one sequence, in the layout that C reads."""

from __future__ import annotations

import numpy as np

from fastdistill.errors import CapacityError
from fastdistill.kernels.boundary import aligned_bytes
from fastdistill.models.plan import Plan


class KVCache:
    """[layer][k, v][kv_head][slot][head_dim rounded up to 16] of f16 or f32, zeros; pages are only taken when written."""

    def __init__(self, plan: Plan, slots: int, dtype: str) -> None:
        padded = -(-plan.head_dim // 16) * 16
        shape = (plan.num_layers, 2, plan.num_kv_heads, slots, padded)
        self.dtype = np.dtype(np.float16 if dtype == "f16" else np.float32)
        self.slots = slots
        size = slots * self.slot_bytes(plan, dtype)
        try:
            self.array = aligned_bytes(size).view(self.dtype).reshape(shape)
        except MemoryError:
            raise CapacityError(
                f"no memory for a cache of {slots} tokens ({size / 1e6:.0f} MB); give the session a smaller capacity"
            ) from None

    @staticmethod
    def slot_bytes(plan: Plan, dtype: str) -> int:
        """Bytes that one token takes."""
        return plan.num_layers * 2 * plan.num_kv_heads * (-(-plan.head_dim // 16) * 16) * (2 if dtype == "f16" else 4)

    def move(self, sources: np.ndarray, start: int) -> None:
        """Put the rows of slots `sources`, in that order, at start, start + 1, ..."""
        targets = np.arange(start, start + len(sources))
        changed = targets != sources
        if changed.any():
            self.array[:, :, :, targets[changed]] = self.array[:, :, :, sources[changed]]

    def copy_from(self, other: KVCache, slots: int) -> None:
        """The first `slots` slots of another cache of the same model."""
        self.array[:, :, :, :slots] = other.array[:, :, :, :slots]
