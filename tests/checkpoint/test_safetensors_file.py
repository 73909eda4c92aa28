"""Safetensors files: what the library writes is read, and the library reads what is written."""

from __future__ import annotations

import json
import os
import tracemalloc

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastdistill.checkpoint.safetensors_file import _DTYPES, Stored, read_safetensors, write_safetensors
from fastdistill.errors import CheckpointError
from tests.test_files import not_files

NUMPY = {
    "F64": "f8", "F32": "f4", "F16": "f2", "C64": "c8", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8",
    "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
BITS = {
    "BF16": "u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1", "F8_E4M3FNUZ": "u1", "F8_E5M2FNUZ": "u1",
}  # fmt: skip
# NumPy has only the bits of the latter.


def stored(types):
    shape = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    one = st.sampled_from(sorted(types)).flatmap(
        lambda dtype: st.builds(Stored, st.just(dtype), arrays.arrays(types[dtype], shape))
    )
    return st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), one, max_size=5)


def same(left, right):
    left_array, right_array = np.asarray(left.array), np.asarray(right.array)
    return (
        left.dtype == right.dtype
        and left_array.tobytes() == right_array.tobytes()
        and left_array.shape == right_array.shape
    )


def test_every_type_is_the_library_s():
    assert {dtype: code.lstrip("<") for dtype, code in _DTYPES.items()} == NUMPY | BITS
    assert NUMPY.keys() == safetensors.numpy._TYPES.keys()


def file_of(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@given(tensors=stored(NUMPY))
def test_reads_what_the_library_writes(tmp_path, tensors):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.numpy.save({name: array for name, (_, array) in tensors.items()}))
    found = read_safetensors(path)
    assert found.keys() == tensors.keys()
    assert all(
        same(found[name], tensors[name]) and found[name].array.dtype == tensors[name].array.dtype for name in found
    )


@given(tensors=stored(NUMPY | BITS))
def test_the_library_reads_what_is_written(tmp_path, tensors):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, tensors)
    found = dict(safetensors.deserialize(path.read_bytes()))
    assert found.keys() == tensors.keys()
    for name, (dtype, array) in tensors.items():
        got = found[name]
        assert (got["dtype"], tuple(got["shape"]), bytes(got["data"])) == (dtype, array.shape, array.tobytes())
    again = read_safetensors(path)
    assert all(same(again[name], tensors[name]) for name in tensors)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("dtype", "name"),
    [("bfloat16", "BF16"), ("float8_e4m3fn", "F8_E4M3"), ("float8_e5m2", "F8_E5M2"), ("float8_e8m0fnu", "F8_E8M0")],
)
def test_reads_what_torch_writes(tmp_path, dtype, name):
    torch, safe = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    bits = np.random.default_rng(0).integers(0, 256, (3, 8), np.uint8)
    safe.save_file({"x": torch.from_numpy(bits).view(getattr(torch, dtype))}, tmp_path / "a")
    found = read_safetensors(tmp_path / "a")["x"]
    assert found.dtype == name and np.asarray(found.array).tobytes() == bits.tobytes()


def test_reads_bfloat16_written_by_hand(tmp_path):
    bits = np.array([[0x3F80, 0xC000], [0x7F80, 0x0001]], "<u2")
    (tmp_path / "a").write_bytes(file_of({"x": entry("BF16", (2, 2), (0, 8))}, bits.tobytes()))
    found = read_safetensors(tmp_path / "a")["x"]
    assert found.dtype == "BF16" and np.array_equal(found.array, bits)


def test_arrays_at_odd_places_are_aligned_in_memory(tmp_path):
    header = {"a": entry("U8", (1,), (0, 1)), "b": entry("F32", (2,), (1, 9))}
    (tmp_path / "a").write_bytes(file_of(header, b"\x07" + np.array([1, 2], "<f4").tobytes()))
    array = np.asarray(read_safetensors(tmp_path / "a")["b"].array)
    assert array.flags.aligned and array.tolist() == [1, 2]


def test_what_is_read_is_its_reader_s(tmp_path):
    write_safetensors(tmp_path / "a", {"x": Stored("F32", np.ones(3, np.float32))})
    stored = read_safetensors(tmp_path / "a")["x"].array
    mine = np.asarray(stored)
    mine[0] = 2
    assert np.asarray(stored).tolist() == [1, 1, 1]


@given(shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5), data=st.data())
def test_rows_are_read_as_numpy_takes_them(tmp_path, shape, data):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    write_safetensors(tmp_path / "a", {"x": Stored("I16", array)})
    rows = (
        st.slices(shape[0]) | st.lists(st.integers(0, shape[0] - 1)).map(np.array)
        if shape and shape[0]
        else st.just(...)
    )
    index = data.draw(rows | st.just(...))
    if isinstance(index, np.ndarray):
        index = index.astype(np.int64)
    np.testing.assert_array_equal(read_safetensors(tmp_path / "a")["x"].array[index], array[index])


def test_a_large_file_is_opened_without_reading_it(tmp_path):
    size = 1 << 33
    path = tmp_path / "a"
    header = json.dumps({"x": entry("F32", (size // 4,), (0, size))}).encode()
    path.write_bytes(file_of(header + b" " * (-len(header) % 8)))
    os.truncate(path, path.stat().st_size + size)  # a hole: nothing on the disk
    tracemalloc.start()
    array = read_safetensors(path)["x"].array
    assert array.shape == (size // 4,) and array[size // 4 - 3 :].tolist() == [0, 0, 0]
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "has 0 bytes"),
        (b"\x02\0\0\0\0\0\0", "has 7 bytes"),
        ((2**63).to_bytes(8, "little") + b"{}", "header takes 9223372036854775808 bytes; expected at most 2"),
        (file_of(b"[]"), "must be a JSON object, found \\[\\]"),
        (file_of(b"{"), "is not valid JSON"),
        (file_of(b'{"a\xff": 1}'), "is not valid JSON"),
        (file_of('{"a": 1}'.encode("utf-16")), "is not valid JSON"),
        (file_of(b'{"a":' * 100_000), "is not valid JSON"),
        (file_of(b'{"a": NaN}'), "is not valid JSON"),
        (file_of(b'{"a": 1' + b"0" * 5000 + b"}"), "is not valid JSON"),
        (file_of(b'{"a": 1, "a": 2}'), "'a' comes twice"),
        (file_of({"__metadata__": {"a": 1}}), "__metadata__ must be an object of strings"),
        (file_of({"a": 1}), "'a' must be an object of dtype, shape and data_offsets, found 1"),
        (file_of({"a": entry() | {"more": 1}}, b"8" * 8), "must be an object of dtype, shape and data_offsets"),
        (file_of({"a": entry("F33")}, b"8" * 8), "has the dtype 'F33'"),
        (file_of({"a": entry(["F32"])}, b"8" * 8), "has the dtype \\['F32'\\]"),
        (file_of({"a": entry(shape=(-2,))}, b"8" * 8), "shape must be"),
        (file_of({"a": entry(shape=(2.0,))}, b"8" * 8), "shape must be"),
        (file_of({"a": entry(shape=(True, 2))}, b"8" * 8), "shape must be"),
        (file_of({"a": entry(shape=(1,) * 9 + (2,))}, b"8" * 8), "shape must be"),
        (file_of({"a": entry(shape=(2**32, 2**32))}, b"8" * 8), "too large"),
        (file_of({"a": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}), "too large"),
        (file_of({"a": entry(offsets=(0, 8, 8))}, b"8" * 8), "data_offsets must be two"),
        (file_of({"a": entry(offsets=(8, 0))}, b"8" * 8), "takes -8 bytes"),
        (file_of({"a": entry("F16")}, b"8" * 8), r"takes 8 bytes; F16 of shape \(2,\) takes 4"),
        (file_of({"a": entry()}, b"8" * 7), "lies at 0..8"),
        (file_of({"a": entry()}, b"8" * 9), "take 8 bytes, but 9 follow"),
        (file_of({"a": entry(offsets=(4, 12))}, b"8" * 12), "lies at 4..12; expected it to start at 0"),
        (
            file_of({"a": entry(), "b": entry(offsets=(4, 12))}, b"8" * 12),
            "'b' lies at 4..12; expected it to start at 8",
        ),
        (file_of({"a": entry(), "b": entry(offsets=(12, 20))}, b"8" * 20), "'b' lies at 12..20"),
    ],
)
def test_refuses(tmp_path, data, text):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(CheckpointError, match=text) as error:
        read_safetensors(tmp_path / "a")
    assert str(tmp_path / "a") in str(error.value)


def test_null_metadata_are_none(tmp_path):
    (tmp_path / "a").write_bytes(
        file_of(b'{"__metadata__": null, "x": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]}}', b"7")
    )
    assert safetensors.deserialize((tmp_path / "a").read_bytes())[0][0] == "x"
    assert read_safetensors(tmp_path / "a").keys() == {"x"}


def test_refuses_what_is_not_a_file(tmp_path):
    for path in not_files(tmp_path):
        with pytest.raises(CheckpointError, match=r"there is no such file|cannot be read"):
            read_safetensors(path)
