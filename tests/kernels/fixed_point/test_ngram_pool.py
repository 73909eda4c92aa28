"""NgramPool against a model that scans, on every level: sequences of calls, bounds, crowded buckets, threads, edges."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import NgramPool, isa_levels, set_isa
from fastdistill.kernels.boundary import aligned_bytes, ffi, lib, pointer
from fastdistill.kernels.fixed_point.ngram_pool import _AT_WORK
from fastdistill.reference.fixed_point.ngram_pool import NgramPool as ReferencePool
from fastdistill.testing import strategies
from fastdistill.testing.cases.fixed_point.ngram_pool import (
    any_insertions,
    any_settings,
    check,
    insert,
    keys,
    same_pools,
)
from fastdistill.testing.strategies import drawn


@given(case=strategies.ngram_pool())
def test_matches_reference_after_each_call(isa, case):
    check(case)


@given(data=st.data(), settings=drawn(any_settings))
def test_one_pool_on_every_level_in_turn(isa, data, settings):
    """What one level has written the others read."""
    pool, want = NgramPool(**settings), ReferencePool(**settings)
    inserted = data.draw(drawn(any_insertions, pool.ngram))
    for i, tokens in enumerate(inserted):
        set_isa(isa_levels()[i % len(isa_levels())])
        insert(pool, tokens)
        insert(want, tokens)
    set_isa(isa)
    same_pools(pool, want, inserted)


@given(data=st.data(), settings=drawn(any_settings))
def test_a_copy_goes_its_own_way(isa, data, settings):
    pool, want = NgramPool(**settings), ReferencePool(**settings)
    before, ours, others = (data.draw(drawn(any_insertions, pool.ngram)) for _ in range(3))
    for tokens in before:
        insert(pool, tokens)
        insert(want, tokens)
    other, want_other = data.draw(st.sampled_from([pool.copy, lambda: copy.copy(pool)]))(), want.copy()
    for tokens, other_tokens in zip(ours, others, strict=False):
        insert(pool, tokens)
        insert(want, tokens)
        insert(other, other_tokens)
        insert(want_other, other_tokens)
    same_pools(pool, want, before + ours + others)
    same_pools(other, want_other, before + ours + others)


@given(data=st.data(), settings=drawn(any_settings), count=st.integers(0, 300))
def test_a_few_are_the_first_of_all_and_looking_up_changes_nothing(isa, data, settings, count):
    pool, want = NgramPool(**settings), ReferencePool(**settings)
    inserted = data.draw(drawn(any_insertions, pool.ngram))
    for tokens in inserted:
        insert(pool, tokens)
        insert(want, tokens)
    for key in keys(inserted, pool.key):
        np.testing.assert_array_equal(pool.lookup(key, count), pool.lookup(key)[:count])
        np.testing.assert_array_equal(pool.lookup(key, count), want.lookup(key, count))
    same_pools(pool, want, inserted)


def hashes(prefix, last):
    """The kernel's hash of prefix ++ (token,), for each of `last`: to find tokens that it does not tell apart."""
    tokens = [np.full_like(last, token) for token in prefix] + [last]
    hash = np.zeros(len(last), np.uint64)
    for token in tokens:
        hash = (hash ^ token.astype(np.uint32)) * np.uint64(0x9E3779B97F4A7C15)
        hash ^= hash >> np.uint64(32)
    return hash


@pytest.mark.parametrize("where", ["keys", "n-grams", "both"])
def test_crowded_buckets(isa, where):
    """Keys, n-grams and both, all of one bucket of a pool of 64 (128 buckets): slow then, and right."""
    everything = np.arange(60000, dtype=np.int32)
    crowd = everything[hashes((), everything) % 128 == 5]
    pool, want = NgramPool(2, 64, 256), ReferencePool(2, 64, 256)
    rows = []
    for key in crowd[:1].repeat(200) if where == "n-grams" else crowd[:100]:
        after = everything[hashes((key,), everything) % 128 == 5] if where != "keys" else everything
        rows += [(key, after[len(rows) % 97]), (key, after[len(rows) % 3])]
    for part in np.array_split(np.array(rows, np.int32), 7):
        for each in (pool, want):
            each.insert(part)
        same_pools(pool, want, [np.array(rows, np.int32)])


def test_the_most_recent_comes_first_and_the_oldest_goes(isa):
    pool = NgramPool(2, capacity=4, per_key=3)
    pool.insert(np.array([[1, 10], [1, 11], [1, 12]], np.int32))
    assert pool.lookup(1).tolist() == [[12], [11], [10]] and pool.lookup(1, 2).tolist() == [[12], [11]]
    pool.insert(np.array([1, 10], np.int32))  # again: the most recent
    assert pool.lookup(1).tolist() == [[10], [12], [11]]
    pool.insert(np.array([1, 13], np.int32))  # a fourth of one key
    assert pool.lookup(1).tolist() == [[13], [10], [12]] and len(pool) == 3
    pool.insert(np.array([[2, 20], [3, 30]], np.int32))  # a fifth of all
    assert pool.lookup(1).tolist() == [[13], [10]] and len(pool) == 4
    pool.insert(np.array([4, 5, 6, 7, 8], np.int32))  # windows overlap
    assert [len(pool.lookup(key)) for key in range(9)] == [0, 0, 0, 0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("ngram", [2, 15, 16, 17, 63, 64])
def test_every_token_of_an_ngram_counts(isa, ngram):
    first = np.arange(ngram, dtype=np.int32)
    for key in {1, ngram // 2, ngram - 1} - {0}:
        for changed in range(ngram):
            other = first.copy()
            other[changed] ^= np.int32(-(2**31))
            pool = NgramPool(ngram, key=key)
            pool.insert(np.stack([first, other, first]))
            assert len(pool) == 2
            same_key = [first, other] if changed >= key else [first]
            assert pool.lookup(first[:key]).tolist() == [each[key:].tolist() for each in same_key]


def test_the_largest_pool(isa):
    """Its last nodes have indices that fit; only what is written takes memory."""
    pool = NgramPool(2, 2**24, 256)
    pool.insert(np.arange(1000, dtype=np.int32))
    assert len(pool) == 999 and pool.lookup(998).tolist() == [[999]]


def test_writes_nothing_outside_its_memory(isa):
    """A pool that turns over again and again, and continuations, between guards."""
    for ngram, capacity, per_key, key in [(2, 1, 1, 1), (5, 3, 2, 2), (64, 7, 256, 63)]:
        size = lib.fd_ngram_pool_bytes(ngram, capacity)
        guarded = aligned_bytes(size + 128)
        guarded[:64] = guarded[-64:] = 0xA5
        pool = ffi.new("struct fd_ngram_pool *", [ngram, capacity, per_key, key, pointer(guarded[64:-64])])
        tokens = np.random.default_rng(0).integers(0, 3, (4, 500)).astype(np.int32)
        lib.fd_ngram_pool_insert(pool, *tokens.shape, pointer(tokens))
        assert lib.fd_ngram_pool_count(pool) == capacity
        for count in range(3):
            found = np.full((4, ngram - key), -7, np.int32)
            last = np.ascontiguousarray(tokens[-1, -ngram:][:key])
            assert lib.fd_ngram_pool_lookup(pool, pointer(last), count, pointer(found)) <= count
            assert (found[count:] == -7).all()
        lib.fd_ngram_pool_clear(pool)
        assert lib.fd_ngram_pool_count(pool) == 0
        assert (guarded[:64] == 0xA5).all() and (guarded[-64:] == 0xA5).all()


def in_threads(*functions):
    failures = []

    def run(function):
        try:
            function()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_two_threads_at_once(isa):
    """Each inserts keys of its own, long texts in few calls, and finds what it would have found alone; a third looks and copies."""
    generator = np.random.default_rng(0)
    texts = [(2 * generator.integers(0, 500, (4, 100000)) + parity).astype(np.int32) for parity in range(2)]
    pool, alone = (NgramPool(4, capacity=2**14, per_key=5) for _ in range(2))
    start = threading.Barrier(3)

    def write(text):
        start.wait()
        for row in text:
            pool.insert(row)

    def read():
        start.wait()
        for _ in range(50):
            other = pool.copy()
            assert len(other) == sum(len(other.lookup(key)) for key in range(1000)) <= 1000 * pool.per_key

    in_threads(lambda: write(texts[0]), lambda: write(texts[1]), read)
    for text in texts:
        for row in text:
            alone.insert(row)
    assert len(pool) == len(alone)
    for key in range(1000):
        np.testing.assert_array_equal(pool.lookup(key), alone.lookup(key))


@pytest.mark.parametrize("method", ["insert", "lookup", "__len__", "clear", "copy"])
def test_calls_take_turns(isa, method):
    """None of them begins while another one is under way."""
    pool = NgramPool(2)
    arguments = {"insert": [np.zeros(2, np.int32)], "lookup": [1]}.get(method, [])
    thread = threading.Thread(target=getattr(pool, method), args=arguments)
    with _AT_WORK:
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join()


def test_tokens_that_change_while_they_are_inserted(isa):
    """Another thread writes to the very array: some n-grams or others come, and the pool stays whole."""
    tokens, pool = np.zeros(200000, np.int32), NgramPool(3, capacity=64, per_key=4)
    generator, done = np.random.default_rng(0), threading.Event()

    def change():
        while not done.is_set():
            tokens[:] = generator.integers(0, 5, len(tokens))

    def write():
        for _ in range(5):
            pool.insert(tokens)
        done.set()

    in_threads(change, write)
    assert len(pool) == sum(len(pool.lookup(key)) for key in range(5)) <= 64
    pool.insert(np.full(3, 9, np.int32))
    assert pool.lookup(9).tolist() == [[9, 9]]


def test_keys_may_be_numbers_sequences_and_arrays(isa):
    pool = NgramPool(4, key=2)
    pool.insert(np.array([-5, 6, 7, 8], np.int32))
    for key in ([-5, 6], (-5, 6), np.array([-5, 6], np.int32), np.array([-5, 6]), range(-5, 7, 11)):
        assert pool.lookup(key).tolist() == [[7, 8]]
    pool = NgramPool(2)
    pool.insert(np.array([-5, 6], np.int32))
    for key in (-5, np.int32(-5), [-5], np.array([-5], np.int32)):
        assert pool.lookup(key).tolist() == [[6]]


def test_settings_can_be_read_and_not_written(isa):
    pool = NgramPool(5, 10, 3, 2)
    assert (pool.ngram, pool.capacity, pool.per_key, pool.key) == (5, 10, 3, 2)
    for name in ("ngram", "capacity", "per_key", "key"):
        with pytest.raises(AttributeError):
            setattr(pool, name, 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ngram": 1}, r"ngram must lie in 2\.\.64, got 1"),
        ({"ngram": 65}, r"ngram must lie in 2\.\.64, got 65"),
        ({"ngram": 4, "key": 4}, r"ngram must lie in 5\.\.64, got 4"),
        ({"ngram": 4.0}, "ngram must be an integer, got 4.0"),
        ({"key": 0}, r"key must lie in 1\.\.63, got 0"),
        ({"key": 64}, r"key must lie in 1\.\.63, got 64"),
        ({"capacity": 0}, r"capacity must lie in 1\.\.16777216, got 0"),
        ({"capacity": 2**24 + 1}, r"capacity must lie in 1\.\.16777216, got 16777217"),
        ({"per_key": 0}, r"per_key must lie in 1\.\.256, got 0"),
        ({"per_key": 257}, r"per_key must lie in 1\.\.256, got 257"),
        ({"per_key": True}, "per_key must be an integer, got True"),
    ],
)
def test_refuses_settings(change, text):
    with pytest.raises(ArgumentError, match=text):
        NgramPool(**({"ngram": 4} | change))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda pool: pool.insert([1, 2, 3, 2**31]), r"tokens\[3\] must lie in"),
        (lambda pool: pool.insert(np.zeros(4)), "tokens must have dtype int32, got float64"),
        (lambda pool: pool.insert(np.zeros((), np.int32)), r"tokens must have shape \(\.\.\., n\), got \(\)"),
        (lambda pool: pool.lookup(1), "key must have 2 tokens, got 1"),
        (lambda pool: pool.lookup([1, 2, 3]), "key must have 2 tokens, got 3"),
        (lambda pool: pool.lookup([]), "key must be a non-empty sequence of integers"),
        (lambda pool: pool.lookup([1.0, 2.0]), "key must be a non-empty sequence of integers"),
        (lambda pool: pool.lookup("ab"), "key must be a non-empty sequence of integers"),
        (lambda pool: pool.lookup(np.zeros((1, 2), np.int32)), "key must be a non-empty sequence of integers"),
        (lambda pool: pool.lookup({1, 2}), "key must have an order, got set"),
        (lambda pool: pool.lookup([1, 2**31]), r"key\[1\] must lie in -2147483648\.\.2147483647, got 2147483648"),
        (lambda pool: pool.lookup(2**31), r"key must lie in -2147483648\.\.2147483647, got 2147483648"),
        (lambda pool: pool.lookup(True), "key must be an integer, got True"),
        (lambda pool: pool.lookup([1, 2], -1), r"count must lie in 0\.\.2147483647, got -1"),
        (lambda pool: pool.lookup([1, 2], 1.0), "count must be an integer, got 1.0"),
    ],
)
def test_refuses_and_changes_nothing(call, text):
    pool = NgramPool(4, key=2)
    pool.insert(np.array([1, 2, 3, 4, 5], np.int32))
    with pytest.raises(ArgumentError, match=text):
        call(pool)
    assert len(pool) == 2 and pool.lookup([1, 2]).tolist() == [[3, 4]]
