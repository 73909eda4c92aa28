"""The cache of keys and values: what its slots hold, what it takes, and that a fork has its own."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fastdistill.errors import CapacityError
from fastdistill.models import plan_for
from fastdistill.runtime.kv_cache import LANES, PAGE, KVCache
from tests.small_models import config

PLAN = plan_for(config())


def filled(slots: int, format: str = "f16", plan=PLAN) -> KVCache:
    """Every number another one, as far as f16 has so many."""
    cache = KVCache(plan, slots, format)
    cache.reserve(0, slots)
    for page in cache._pages:
        page.array[:] = np.arange(page.array.size) % 2048
    return cache


def held(cache: KVCache, slots: np.ndarray) -> np.ndarray:
    """Keys and values of slots in all layers, (n, numbers)."""
    return np.concatenate(cache.read_all(slots), axis=1)


@pytest.mark.parametrize("format", ["f16", "f32"])
def test_what_is_written_to_a_slot_is_read_there_and_nowhere_else(format):
    cache, every = filled(2 * PAGE, format), np.arange(2 * PAGE)
    before = held(cache, every)
    slots = np.array([15, 16, PAGE + 47, 3, PAGE - 1, PAGE])
    written = [
        np.full((len(slots), part.shape[1]), -1.0 - np.arange(len(slots))[:, None]) for part in cache.read_all(every)
    ]
    cache.write_all(slots, *written)
    after = held(cache, every)
    np.testing.assert_array_equal(after[slots], np.concatenate(written, axis=1))
    others = np.setdiff1d(every, slots)
    np.testing.assert_array_equal(after[others], before[others])


@pytest.mark.parametrize(
    "sources", [[20, 7, 33], [PAGE + 9, 7, 2 * PAGE - 1, PAGE], list(range(PAGE - 3, PAGE + 5)), [5, 6, 9]]
)
def test_move_takes_whole_rows_within_pages_and_between(sources):
    cache, every = filled(2 * PAGE), np.arange(2 * PAGE)
    before = held(cache, every)
    cache.move(np.array(sources), 5)
    after, end = held(cache, every), 5 + len(sources)
    np.testing.assert_array_equal(after[5:end], before[sources])
    np.testing.assert_array_equal(np.delete(after, np.s_[5:end], 0), np.delete(before, np.s_[5:end], 0))


def test_keys_lie_16_slots_in_lanes():
    """The layout that csrc/kernels/forward/attention.c reads."""
    cache, padded = filled(32, "f32"), 16
    plane = cache._pages[0].array.reshape(PLAN.num_layers, 2, PLAN.num_kv_heads, -1)[1, 0, 1].reshape(-1, padded, LANES)
    keys, _ = cache.read(1, np.arange(32))
    np.testing.assert_array_equal(keys[17, 1], plane[1, :, 1])


def test_a_beginning_is_shared_until_either_writes_there():
    cache, other, slots = filled(3 * PAGE), KVCache(PLAN, 3 * PAGE, "f16"), np.arange(PAGE + 9)
    other.share(cache, len(slots))
    assert [page is another for page, another in zip(other._pages, cache._pages, strict=False)] == [True, True]
    before = held(cache, slots)
    for writer, reader in ((other, cache), (cache, other)):
        writer.write_all(np.array([PAGE + 9]), *(np.zeros((1, part.shape[1])) for part in cache.read_all(slots)))
        np.testing.assert_array_equal(held(reader, slots), before)
        np.testing.assert_array_equal(held(writer, slots), before)
    assert other._pages[0] is cache._pages[0] and other._pages[1] is not cache._pages[1]


def test_the_last_who_holds_a_page_writes_in_place_whatever_became_of_the_others():
    cache, slots = filled(PAGE + 16), np.arange(PAGE + 16)
    before, pages = held(cache, slots), list(cache._pages)
    one, two = KVCache(PLAN, 2 * PAGE, "f16"), KVCache(PLAN, 2 * PAGE, "f16")
    one.share(cache, PAGE + 10)
    two.share(one, PAGE + 5)
    one.reserve(PAGE + 10, PAGE + 11)  # writes: has a copy
    assert one._pages[0] is pages[0] and one._pages[1] is not pages[1] and pages[1].is_shared
    del two  # forgets it
    cache.reserve(PAGE, PAGE + 16)
    assert cache._pages == pages and not pages[1].is_shared and pages[0].is_shared
    assert np.array_equal(held(one, slots[: PAGE + 10]), before[: PAGE + 10])


def test_pages_that_nobody_else_holds_serve_again_when_another_beginning_is_shared():
    cache, slots = filled(2 * PAGE), np.arange(2 * PAGE)
    before, other = held(cache, slots), filled(3 * PAGE)
    own = set(map(id, other._pages))
    third = KVCache(PLAN, PAGE, "f16")
    third.share(other, PAGE)  # it holds the first one
    for length in (2 * PAGE, PAGE + 7, 2 * PAGE - 1):
        other.share(cache, length)
        other.reserve(length - 1, length)
        assert id(other._pages[-1]) in own and other._pages[-1] is not third._pages[0]
        other._pages[-1].array[:] = -1  # that is its own
    assert np.array_equal(held(cache, slots), before) and np.array_equal(held(third, slots[:PAGE]), before[:PAGE])


def test_a_fork_of_the_process_has_its_own():
    cache = filled(16)
    before = held(cache, np.arange(16))
    child = os.fork()
    if child == 0:
        for page in cache._pages:
            page.array[:] = 0
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(held(cache, np.arange(16)), before)


def test_only_what_is_written_takes_memory():
    cache = KVCache(PLAN, 1 << 20, "f16")
    assert cache.nbytes == 0
    cache.reserve(5, 6)
    assert cache.nbytes == PAGE * KVCache.slot_bytes(PLAN, "f16")
    cache.reserve(PAGE, 40 * PAGE)
    assert cache.nbytes == 40 * PAGE * KVCache.slot_bytes(PLAN, "f16")


def test_it_takes_no_more_pages_than_its_slots_fill():
    cache = KVCache(PLAN, 3 * PAGE, "f16")
    for slots in range(1, 3 * PAGE + 1):
        cache.reserve(slots - 1, slots)
    assert cache.nbytes == 3 * PAGE * KVCache.slot_bytes(PLAN, "f16")


def test_a_cache_beyond_memory_is_refused_by_its_size():
    with pytest.raises(CapacityError, match=r"no memory for a cache of \d+ tokens \(\d+ MB\)"):
        KVCache(PLAN, 1 << 44, "f32").reserve(0, 1 << 44)
