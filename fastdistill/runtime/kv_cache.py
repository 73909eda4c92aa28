"""Keys and values of one sequence, in the layout that C reads."""

from __future__ import annotations

import numpy as np

from fastdistill.errors import CapacityError
from fastdistill.kernels.boundary import mapped_bytes
from fastdistill.models.plan import Plan

LANES = 16  # slots of one tile of keys


def whole_tiles(slots: int) -> int:
    """As many slots or a few more: what a cache of `slots` really holds."""
    return -(-slots // LANES) * LANES


def padded_head_dim(plan: Plan) -> int:
    """Numbers that a head of one slot takes."""
    return -(-plan.head_dim // 16) * 16


class KVCache:
    """Keys and values of `slots` tokens, zeros of f16 or f32; pages are only taken when written.

    In memory: [layer][key, value][kv_head] planes.  A plane of keys is [slot / 16][padded][slot % 16], for scores of 16 slots at
    a time, a plane of values [slot][padded]; padded is head_dim rounded up to 16.
    """

    def __init__(self, plan: Plan, slots: int, dtype: str) -> None:
        padded, slots = padded_head_dim(plan), whole_tiles(slots)
        self.dtype = np.dtype(np.float16 if dtype == "f16" else np.float32)
        self.slots = slots
        size = slots * self.slot_bytes(plan, dtype)
        try:
            self.array = mapped_bytes(size).view(self.dtype)
        except MemoryError:
            raise CapacityError(
                f"no memory for a cache of {slots} tokens ({size / 1e6:.0f} MB); give the session a smaller capacity"
            ) from None
        planes = self.array.reshape(plan.num_layers, 2, plan.num_kv_heads, slots * padded)
        self.row_bytes = self.slot_bytes(plan, dtype) // plan.num_layers  # of a token in one layer
        self._keys = planes[:, 0].reshape(*planes.shape[:3:2], slots // LANES, padded, LANES)
        self._values = planes[:, 1].reshape(*planes.shape[:3:2], slots, padded)

    @property
    def format(self) -> str:
        """The name of its type: f16 or f32."""
        return "f16" if self.dtype == np.float16 else "f32"

    @staticmethod
    def slot_bytes(plan: Plan, dtype: str) -> int:
        """Bytes that one token takes."""
        return plan.num_layers * 2 * plan.num_kv_heads * padded_head_dim(plan) * (2 if dtype == "f16" else 4)

    def move(self, sources: np.ndarray, start: int) -> None:
        """Put the rows of slots `sources`, in that order, at start, start + 1, ..."""
        targets = np.arange(start, start + len(sources))
        moved = targets != sources
        if not moved.any():
            return
        (tile, lane), (from_tile, from_lane) = np.divmod(targets[moved], LANES), np.divmod(sources[moved], LANES)
        self._keys[:, :, tile, :, lane] = self._keys[:, :, from_tile, :, from_lane]
        self._values[:, :, targets[moved]] = self._values[:, :, sources[moved]]

    def read(self, layers: int | slice, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values (n, ..., kv_heads, padded) of these slots; `...` are the layers, where they are a slice."""
        keys = self._keys[layers][..., slots // LANES, :, slots % LANES]
        return keys, np.moveaxis(self._values[layers][..., slots, :], -2, 0)

    def write(self, layers: int | slice, slots: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
        """Put there what `read` gives, or its first numbers of each head; the others are zeros then, for C multiplies them too."""
        width, (tile, lane) = keys.shape[-1], np.divmod(slots, LANES)
        self._keys[layers][..., tile, :width, lane], self._keys[layers][..., tile, width:, lane] = keys, 0
        values = np.moveaxis(values, 0, -2)
        self._values[layers][..., slots, :width], self._values[layers][..., slots, width:] = values, 0

    def copy_from(self, other: KVCache, slots: int) -> None:
        """The first `slots` slots of another cache of the same model."""
        tiles = whole_tiles(slots) // LANES
        self._keys[:, :, :tiles] = other._keys[:, :, :tiles]
        self._values[:, :, :slots] = other._values[:, :, :slots]
