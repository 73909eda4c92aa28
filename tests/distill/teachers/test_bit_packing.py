"""Bits: what is packed comes back, in as many bytes as are said, and what cannot have been packed is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill.teachers.bit_packing import (
    ascending_bytes,
    pack_ascending,
    pack_bits,
    packed_bytes,
    unpack_ascending,
    unpack_bits,
)


@given(seed=st.integers(0, 2**32), rows=st.integers(0, 5), count=st.integers(1, 40), width=st.integers(1, 20))
def test_integers_come_back(seed, rows, count, width):
    values = np.random.default_rng(seed).integers(0, 1 << width, (rows, count)).astype(np.int32)
    packed = pack_bits(values, width)
    assert packed.dtype == np.uint8 and packed.shape == (rows, packed_bytes(count, width))
    assert packed_bytes(count, width) == math.ceil(count * width / 8)
    found = unpack_bits(packed, count, width)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, values)


def test_the_highest_bit_is_first_and_zeros_are_last():
    assert pack_bits(np.array([[0b101, 0b001, 0b110]]), 3).tolist() == [[0b10100111, 0b00000000]]


@st.composite
def rows_of_ids(draw):
    limit = draw(st.one_of(st.integers(1, 70), st.sampled_from([255, 256, 257, 49152, 151_936, 2**31 - 1])))
    count = draw(st.integers(1, min(limit, 60)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from(["anywhere", "lowest", "highest"]))
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        ids = random.permutation(limit)[:count] if limit < 1000 else random.choice(limit, 4 * count, replace=True)
        ids = np.unique(ids)[:count] if len(np.unique(ids)) >= count else np.arange(count)
        rows.append({"anywhere": ids, "lowest": np.arange(count), "highest": np.arange(limit - count, limit)}[spread])
    return np.array(rows, np.int32).reshape(-1, count), limit


@given(case=rows_of_ids())
def test_ascending_ids_come_back(case):
    ids, limit = case
    packed = pack_ascending(ids, limit)
    assert packed.dtype == np.uint8 and packed.shape == (len(ids), ascending_bytes(ids.shape[1], limit))
    found, wrong = unpack_ascending(packed, ids.shape[1], limit)
    np.testing.assert_array_equal(found, ids)
    assert found.dtype == np.int32 and not wrong.any()


@pytest.mark.parametrize("limit", [49152, 151_936])
@pytest.mark.parametrize("count", [20, 50, 64])
def test_ids_take_less_than_a_bit_more_than_they_must(count, limit):
    least = (math.lgamma(limit + 1) - math.lgamma(count + 1) - math.lgamma(limit - count + 1)) / math.log(2)
    assert least / 8 <= ascending_bytes(count, limit) <= (least + count) / 8 + 1
    assert ascending_bytes(50, 49152) == 75 < 100


@given(case=rows_of_ids(), seed=st.integers(0, 2**32))
def test_bytes_that_are_no_ids_are_found(case, seed):
    """Whatever the bytes: ids within the limit, ascending, or the row is said to be wrong."""
    ids, limit = case
    packed = pack_ascending(ids, limit)
    random = np.random.default_rng(seed)
    packed ^= (random.random(packed.shape) < 0.1).astype(np.uint8) << random.integers(0, 8, packed.shape).astype(
        np.uint8
    )
    found, wrong = unpack_ascending(packed, ids.shape[1], limit)
    assert (found[~wrong] < limit).all() and (found >= 0).all() and not found[wrong].any()
    assert (np.diff(found[~wrong], axis=1) > 0).all()
    assert unpack_ascending(np.zeros_like(packed), ids.shape[1], limit)[1].all()
    beyond = pack_ascending(np.array([[0, 9], [0, 8]]), 9)
    assert unpack_ascending(beyond, 2, 9)[1].tolist() == [True, False]
    repeated = pack_ascending(np.zeros((1, 2), int), 9)
    assert unpack_ascending(repeated, 2, 9)[1].all()
