"""A model in several GGUF files: they are read as one, from whichever is named, and what is missing is named."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.checkpoint.gguf import GgufFile, convert_gguf
from fastdistill.checkpoint.gguf.writer import Described, write_gguf
from fastdistill.errors import CheckpointError
from tests.checkpoint.gguf_files import T
from tests.checkpoint.gguf_files import write_gguf as write_whole
from tests.checkpoint.tiny_families import bits, stored

COUNT = 3
NAMES = [f"model-{i + 1:05}-of-{COUNT:05}.gguf" for i in range(COUNT)]


def parts(tmp_path, **changes):
    """A small model, whole.gguf, and the same in three parts, the first of which has the metadata; `changes` to one's."""
    write_whole(tmp_path / "whole.gguf", kinds=T.Q4_1)
    with GgufFile(tmp_path / "whole.gguf") as file:
        tensors = list(file.tensors.values())
        for number, name in enumerate(NAMES):
            mine = tensors[number::COUNT]
            metadata = {"split.no": number, "split.count": COUNT, "split.tensors.count": len(tensors)}
            metadata = (metadata | dict(file.metadata) if number == 0 else metadata) | changes.get(f"part{number}", {})
            metadata = {
                key: value.astype(np.int32) if isinstance(value, np.ndarray) else value
                for key, value in metadata.items()
            }
            described = [Described(tensor.name, tensor.type, tensor.shape, tensor.size) for tensor in mine]
            pieces = ((tensor.name, np.ascontiguousarray(file.read(tensor))) for tensor in mine)
            write_gguf(tmp_path / name, metadata, described, pieces)


@pytest.mark.parametrize("name", NAMES)
def test_any_part_gives_the_whole(tmp_path, name):
    parts(tmp_path)
    whole = stored(convert_gguf(tmp_path / "whole.gguf", tmp_path / "one"))
    found = stored(convert_gguf(tmp_path / name, tmp_path / "other"))
    assert {key: bits(tensor) for key, tensor in found.items()} == {key: bits(tensor) for key, tensor in whole.items()}
    assert (tmp_path / "one/config.json").read_bytes() == (tmp_path / "other/config.json").read_bytes()


@pytest.mark.parametrize("gone", range(COUNT))
def test_a_missing_part_is_named(tmp_path, gone):
    parts(tmp_path)
    (tmp_path / NAMES[gone]).unlink()
    with pytest.raises(CheckpointError, match=f"one of 3 parts of a model; {NAMES[gone]} is not beside it"):
        convert_gguf(tmp_path / NAMES[gone - 1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"part1": {"split.no": 2}}, "00002-of-00003.gguf: is part 3 of 3, not 2 of 3"),
        ({"part1": {"split.count": 2}}, "not 2 of 3"),
        ({"part0": {"split.tensors.count": 99}}, "3 parts have 20 tensors; expected 99"),
        ({"part0": {"split.count": 1 << 20}}, "expected 1 to 1024"),
        ({"part0": {"split.count": 0}}, "one of 0 parts"),
    ],
)
def test_parts_that_disagree_are_refused(tmp_path, changes, words):
    parts(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=words):
        convert_gguf(tmp_path / NAMES[0], tmp_path / "out")


def test_a_tensor_in_two_parts_is_refused(tmp_path):
    parts(tmp_path)
    data = np.zeros(4, np.float32)
    with GgufFile(tmp_path / NAMES[1]) as part:
        name = next(iter(part.tensors))
    metadata = {"split.no": 2, "split.count": COUNT, "split.tensors.count": 20}
    write_gguf(tmp_path / NAMES[2], metadata, [Described(name, 0, data.shape, data.nbytes)], [(name, data)])
    with pytest.raises(CheckpointError, match=r"00003-of-00003\.gguf: tensor .* is in .* or another part too"):
        convert_gguf(tmp_path / NAMES[0], tmp_path / "out")


def test_a_part_of_another_name_says_what_it_should_be_called(tmp_path):
    parts(tmp_path)
    (tmp_path / NAMES[0]).rename(tmp_path / "first.gguf")
    with pytest.raises(CheckpointError, match=r"a name that ends in -00001-of-00003\.gguf"):
        convert_gguf(tmp_path / "first.gguf", tmp_path / "out")


def test_one_part_is_a_whole(tmp_path):
    write_whole(tmp_path / "model.gguf", metadata={"split.count": 1})
    assert convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
