"""The cache of keys and values: what its slots hold, what it takes, and that a fork has its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fastdistill.errors import CapacityError
from fastdistill.models import plan_for
from fastdistill.runtime.kv_cache import LANES, KVCache
from tests.small_models import config

STATUS = Path("/proc/self/status")
PLAN = plan_for(config())


def filled(slots: int, dtype: str) -> KVCache:
    """Every number another one, as far as f16 has so many."""
    cache = KVCache(PLAN, slots, dtype)
    cache.array[:] = np.arange(cache.array.size) % 2048
    return cache


@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_what_is_written_to_a_slot_is_read_there_and_nowhere_else(dtype):
    cache, every = filled(40, dtype), np.arange(48)
    assert cache.slots == 48
    before = [part.copy() for part in cache.read(slice(None), every)]
    slots = np.array([15, 16, 47, 3])
    written = tuple(np.full((4, *part.shape[1:]), -1 - np.arange(4).reshape(-1, 1, 1, 1)) for part in before)
    cache.write(slice(None), slots, *written)
    for part, old, new in zip(cache.read(slice(None), every), before, written, strict=True):
        np.testing.assert_array_equal(part[slots], new)
        others = np.setdiff1d(every, slots)
        np.testing.assert_array_equal(part[others], old[others])


def test_move_and_copy_take_whole_rows():
    cache, other = filled(40, "f16"), KVCache(PLAN, 64, "f16")
    before = [part.copy() for part in cache.read(slice(None), np.arange(48))]
    other.copy_from(cache, 35)
    sources = np.array([20, 7, 33])
    cache.move(sources, 5)
    for part, copied, old in zip(
        cache.read(slice(None), np.arange(48)), other.read(slice(None), np.arange(35)), before, strict=True
    ):
        np.testing.assert_array_equal(part[5:8], old[sources])
        np.testing.assert_array_equal(part[8:], old[8:])
        np.testing.assert_array_equal(copied, old[:35])


def test_keys_lie_16_slots_in_lanes():
    """The layout that csrc/kernels/forward/attention.c reads."""
    cache, padded = filled(32, "f32"), 16
    plane = cache.array.reshape(PLAN.num_layers, 2, PLAN.num_kv_heads, -1)[1, 0, 1].reshape(-1, padded, LANES)
    keys, _ = cache.read(1, np.arange(32))
    np.testing.assert_array_equal(keys[17, 1], plane[1, :, 1])


def test_a_fork_has_its_own():
    cache = filled(16, "f16")
    before = cache.array.copy()
    child = os.fork()
    if child == 0:
        cache.array[:] = 0
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(cache.array, before)


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
def test_only_what_is_written_takes_memory():
    def resident() -> int:
        return 1024 * int(STATUS.read_text().split("VmRSS:")[1].split()[0])

    before = resident()
    cache = KVCache(PLAN, 1 << 20, "f16")
    cache.write(
        slice(None), np.arange(16), *(np.zeros((16, *part.shape[1:])) for part in cache.read(slice(None), np.arange(1)))
    )
    assert cache.array.nbytes > 100 << 20 > 10 * (resident() - before)


def test_a_cache_beyond_memory_is_refused_by_its_size():
    with pytest.raises(CapacityError, match=r"no memory for a cache of \d+ tokens \(\d+ MB\)"):
        KVCache(PLAN, 1 << 44, "f32")
