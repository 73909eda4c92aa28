"""Reading GGUF files: as the package reads them, and no file that does harm."""

from __future__ import annotations

import contextlib
import os
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint.folder import open_checkpoint
from fastdistill.checkpoint.gguf import GgufFile, convert_gguf
from fastdistill.errors import CheckpointError, FastDistillError, UnsupportedError
from fastdistill.text.tokenizer import Tokenizer
from tests.checkpoint.gguf_files import T, gguf, write_gguf


def test_the_header_is_read_as_the_package_reads_it(tmp_path):
    write_gguf(tmp_path / "model.gguf", metadata={"general.alignment": 64})
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    with GgufFile(tmp_path / "model.gguf") as file:
        for key, value in file.metadata.items():
            found = reader.fields[key].contents()
            assert list(value) == list(found) if isinstance(found, list) else value == found
        assert len(file.tensors) == len(reader.tensors)
        for theirs in reader.tensors:
            ours = file.tensors[theirs.name]
            assert (ours.offset, ours.size, ours.shape[::-1]) == (
                theirs.data_offset,
                theirs.n_bytes,
                tuple(theirs.shape),
            )
            assert file.read(ours).tobytes() == theirs.data.tobytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A valid file's bytes, and where its tensors begin."""
    path = tmp_path_factory.mktemp("small") / "model.gguf"
    write_gguf(
        path, kinds={"blk.0.ffn_down.weight": T.Q6_K, "blk.0.attn_q.weight": T.Q4_0, "blk.0.ffn_up.weight": T.Q8_0}
    )
    with GgufFile(path) as file:
        return path.read_bytes(), min(tensor.offset for tensor in file.tensors.values())


def answer(path, content):
    """Convert; only our own errors and a folder that opens are answers, and a failure leaves nothing behind."""
    path.write_bytes(content)
    out = path.parent / "out"
    try:
        convert_gguf(path, out, overwrite=True)
    except FastDistillError as error:
        assert [found.name for found in path.parent.iterdir() if found.name != "out"] == [path.name]
        return error
    with open_checkpoint(out):
        Tokenizer(out).encode("the 12 <|start|>")
    return None


@given(data=st.data())
@settings(max_examples=1500)
def test_a_damaged_file_converts_or_is_a_typed_error(small, tmp_path_factory, data):
    content, start = small
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        # Mostly in the header, and there mostly outside the long lists of tokens and merges.
        limit = data.draw(st.sampled_from([700, start, len(content)]))
        at = data.draw(st.one_of(st.integers(0, limit - 9), st.integers(start - 1400, start - 9)))
        how = data.draw(st.sampled_from(["bit", "byte", "word", "cut", "drop", "insert", "swap"]))
        if how == "bit":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "byte":
            content[at] = data.draw(st.sampled_from([0, 1, 2, 8, 9, 127, 128, 255]))
        elif how == "word":
            word = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1, 2**64 - 32]))
            content[at : at + 8] = struct.pack("<Q", word)
        elif how == "cut":
            del content[at:]
            break
        elif how == "drop":
            del content[at : at + data.draw(st.integers(1, 64))]
        elif how == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=16))
        else:
            content[at : at + 4], content[at + 4 : at + 8] = content[at + 4 : at + 8], content[at : at + 4]
        start = min(start, len(content))
        if len(content) < 2000:
            break
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    answer(folder / "model.gguf", bytes(content))


@pytest.mark.parametrize("length", [0, 1, 3, 4, 7, 8, 15, 16, 23, 24, 25, 31, 32, 100])
def test_a_file_cut_in_its_header_is_a_checkpoint_error(small, tmp_path, length):
    error = answer(tmp_path / "model.gguf", small[0][:length])
    assert isinstance(error, CheckpointError) and "model.gguf" in str(error)


def test_a_file_cut_in_its_tensors_is_a_checkpoint_error(small, tmp_path):
    content, start = small
    for length in (start, start + 1, (start + len(content)) // 2):
        assert isinstance(answer(tmp_path / "model.gguf", content[:length]), CheckpointError)


def test_a_file_cut_while_it_is_read_is_a_checkpoint_error(small, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(small[0])
    with GgufFile(path) as file:
        with open(path, "r+b") as other:
            other.truncate(small[1] + 10)
        with pytest.raises(CheckpointError, match="cut meanwhile"):
            for tensor in file.tensors.values():
                file.read(tensor)


def header(*, version=3, tensors=0, pairs=0, body=b"", magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors, pairs) + body


def string(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def info(name: bytes, *shape: int, kind: int = 0, offset: int = 0, rank: int | None = None) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape) if rank is None else rank, *shape, kind, offset)


HUGE = 2**62
FULL = {
    # What no honest header holds, each file a hole of the size that it says: nothing on the disk.
    "'k' takes 1073741824 bytes": header(pairs=1, body=string(b"k") + struct.pack("<IQ", 8, 1 << 30)),
    "takes 4294967296 bytes": header(pairs=1, body=string(b"k") + struct.pack("<IIQ", 9, 10, 1 << 29)),
    "'k' has 1099511627776 strings": header(pairs=1, body=string(b"k") + struct.pack("<IIQ", 9, 8, 1 << 40)),
    "'l' has 2097151 strings": header(
        pairs=2, body=string(b"k") + struct.pack("<IIQQQ", 9, 8, 2, 0, 0) + string(b"l") + struct.pack("<IIQ", 9, 8, (1 << 21) - 1)
    ),
    "a metadata key takes 1073741824 bytes": header(pairs=1, body=struct.pack("<Q", 1 << 30)),
    "a tensor name takes 1073741824 bytes": header(tensors=1, body=struct.pack("<Q", 1 << 30)),
    "has 16777216 tensors": header(tensors=1 << 24),
    "and 16777216 metadata": header(pairs=1 << 24),
}  # fmt: skip


@pytest.mark.parametrize("words", FULL)
def test_what_a_header_holds_is_bounded(tmp_path, words):
    """In what it takes as in time: most of these would take gigabytes."""
    path = tmp_path / "model.gguf"
    path.write_bytes(FULL[words])
    os.truncate(path, 1 << 36)
    tracemalloc.start()
    try:
        with pytest.raises((CheckpointError, UnsupportedError), match=words):
            convert_gguf(path, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()


COUNTS = st.sampled_from([0, 1, 2, 3, 7, 1 << 16, 1 << 31, 1 << 40, HUGE, 2**64 - 1])
WORDS = st.sampled_from([b"", b"k", b"general.alignment", b"a" * 99, b"\xff", "日".encode()])
PIECES = st.one_of(
    st.builds(string, WORDS, st.none() | COUNTS),
    st.builds(lambda kind, code, value: struct.pack("<I" + code, kind, value), st.integers(0, 13), st.just("Q"), COUNTS),
    st.builds(lambda kind, item, count: struct.pack("<IIQ", kind, item, count), st.just(9), st.integers(0, 13), COUNTS),
    st.builds(lambda name, shape, kind, offset: info(name, *shape, kind=kind, offset=offset), WORDS,
              st.lists(COUNTS, max_size=5), st.integers(0, 45), COUNTS),
    st.binary(max_size=9),
)  # fmt: skip


@given(
    tensors=COUNTS, pairs=COUNTS, body=st.lists(PIECES, max_size=9).map(b"".join), size=st.sampled_from([0, 1 << 36])
)
@settings(max_examples=150)
def test_any_header_is_read_or_refused_in_little_memory(tmp_path, tensors, pairs, body, size):
    path = tmp_path / "model.gguf"
    path.write_bytes(header(tensors=tensors, pairs=pairs, body=body))
    if size:
        os.truncate(path, size)  # zeros, which are empty strings and small numbers
    tracemalloc.start()
    try:
        with contextlib.suppress(CheckpointError, UnsupportedError), GgufFile(path) as file:
            assert all(
                tensor.offset + tensor.size <= max(size, path.stat().st_size) for tensor in file.tensors.values()
            )
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()


LIES = {
    "not a GGUF file": header(magic=b"GGML"),
    "version 0x1;": header(version=1),
    "version 0x3000000": header(version=0x03000000),  # big-endian
    "has 0 tensors and 4611686018427387904 metadata": header(pairs=HUGE),
    "has 4611686018427387904 tensors": header(tensors=HUGE),
    "a tensor name takes 8 bytes at offset 24, but the file has 24": header(tensors=9),
    "a metadata key takes 8 bytes at offset 24, but the file has 24": header(pairs=9),
    "a metadata key": header(pairs=1, body=string(b"k", HUGE)),
    "not UTF-8": header(pairs=1, body=string(b"\xff") + struct.pack("<IB", 0, 1)),
    "unknown value type 13": header(pairs=1, body=string(b"k") + struct.pack("<I", 13)),
    "array of the unknown value type 9": header(pairs=1, body=string(b"k") + struct.pack("<IIQ", 9, 9, 1)),
    "takes 4611686018427387904 bytes": header(pairs=1, body=string(b"k") + struct.pack("<IIQ", 9, 0, HUGE)),
    "metadata 'k' takes 8 bytes": header(pairs=1, body=string(b"k") + struct.pack("<IIQ", 9, 8, 1 << 20)),
    "metadata 'k' comes twice": header(pairs=2, body=2 * (string(b"k") + struct.pack("<IB", 0, 1))),
    "1 to 4 dimensions, got 0": header(tensors=1, body=info(b"t")),
    "1 to 4 dimensions, got 5": header(tensors=1, body=info(b"t", 1, 1, 1, 1, 1)),
    "1 to 4 dimensions, got 4294967295": header(tensors=1, body=info(b"t", 1, rank=2**32 - 1)),
    "is empty": header(tensors=1, body=info(b"t", 0)),
    "the type 999": header(tensors=1, body=info(b"t", 1, kind=999)),
    "whole blocks of 32": header(tensors=1, body=info(b"t", 33, kind=2)),
    r"has \d+ bytes at offset": header(tensors=1, body=info(b"t", HUGE, HUGE, HUGE, HUGE)),
    "expected a multiple of 32": header(tensors=1, body=info(b"t", 1, offset=1)) + bytes(64),
    "tensor 't' comes twice": header(tensors=2, body=2 * info(b"t", 1)) + bytes(64),
    "tensor 'u' has 4 bytes at": header(tensors=2, body=info(b"t", 1) + info(b"u", 1)) + bytes(64),  # the same bytes
    "alignment must be a power of two": header(
        pairs=1, body=string(b"general.alignment") + struct.pack("<II", 4, 3)
    ),
    "alignment must be int": header(pairs=1, body=string(b"general.alignment") + struct.pack("<If", 6, 32.0)),
    "general.architecture is missing": header(),
}  # fmt: skip


@pytest.mark.parametrize("words", LIES)
def test_a_lie_is_named_and_allocates_nothing(tmp_path, words):
    path = tmp_path / "model.gguf"
    path.write_bytes(LIES[words])
    tracemalloc.start()
    try:
        with pytest.raises((CheckpointError, UnsupportedError), match=words):
            convert_gguf(path, tmp_path / "out")
        # The package gguf, where it is imported for the first time, is a few megabytes of Python.
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()
    assert [found.name for found in tmp_path.iterdir()] == ["model.gguf"]
