"""Folders: written and read back, complete or absent, and refused where a file does not say the truth."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.checkpoint import folder as folder_module
from fastdistill.checkpoint.folder import INDEX, check_tensors, open_checkpoint, write_checkpoint
from fastdistill.checkpoint.tensor import FORMATS, Tensor, layout
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.models import plan_for
from tests.small_models import config, tensors


@st.composite
def tensor_lists(draw):
    names = draw(st.lists(st.text("abc.", min_size=1, max_size=6), unique=True, max_size=6))
    return [
        random_tensor(name, draw(st.sampled_from(FORMATS)), draw(st.tuples(sizes, sizes)), i)
        for i, name in enumerate(names)
    ]


sizes = st.sampled_from([0, 1, 2, 31, 32, 33, 65])


def random_tensor(name, format, shape, seed=0):
    bits = np.random.default_rng(seed)
    parts = {
        part: np.frombuffer(bits.bytes(np.dtype(dtype).itemsize * int(np.prod(size))), dtype).reshape(size)
        for part, (dtype, size) in layout(format, shape).items()
    }
    return Tensor(name, format, shape, **parts)


def same(left, right):
    return (left.name, left.format, left.shape) == (right.name, right.format, right.shape) and all(
        left.parts[part].dtype == right.parts[part].dtype and left.parts[part].tobytes() == right.parts[part].tobytes()
        for part in left.parts | right.parts
    )


def bits(tensors):
    """Whether some are of a type that NumPy has not."""
    return any(tensor.format == "bf16" for tensor in tensors)


def litter(folder):
    return sorted(path.name for path in folder.iterdir())


def plain_folder(folder, config=None):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config or {}))
    safetensors.numpy.save_file(
        {"a": np.ones(2, np.float32), "b": np.zeros((1, 3), np.float16)}, folder / "model.safetensors"
    )


def sharded_folder(folder, places=None, index=None):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    safetensors.numpy.save_file({"a": np.ones(2, np.float32)}, folder / "one.safetensors")
    safetensors.numpy.save_file({"b": np.ones((1, 3), np.float16)}, folder / "two.safetensors")
    places = {"a": "one.safetensors", "b": "two.safetensors"} if places is None else places
    (folder / INDEX).write_text(json.dumps({"weight_map": places} if index is None else index))


@given(tensors=tensor_lists(), shard=st.sampled_from([1, 100, 1 << 28]))
def test_what_is_written_is_read_back(tmp_path_factory, tensors, shard):
    folder = tmp_path_factory.mktemp("written") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_module, "SHARD_BYTES", shard)
        write_checkpoint(folder, {"hidden_size": 3}, iter(tensors), {"tokenizer.json": b"{}"})
    with open_checkpoint(folder) as found:
        assert found.config.integer("hidden_size") == 3 and found.generation_config == {}
        assert found.tensors.keys() == {tensor.name for tensor in tensors}
        assert all(same(found.tensors[tensor.name], tensor) for tensor in tensors)
    assert (folder / "tokenizer.json").read_bytes() == b"{}"
    assert litter(folder.parent) == ["model"]
    files = list(folder.glob("*.safetensors"))
    if len(files) > 1:
        assert all(path.name.endswith(f"-of-{len(files):05}.safetensors") for path in files)
        index = json.loads((folder / INDEX).read_text())
        stored = [name for path in files for name in safetensors.numpy.load_file(path)] if not bits(tensors) else None
        assert index.keys() == {"metadata", "weight_map"}
        assert index["metadata"] == {"total_size": sum(tensor.nbytes for tensor in tensors)}
        assert stored is None or index["weight_map"].keys() == set(stored)


@pytest.mark.peers
@pytest.mark.parametrize("shard", [1, 20_000, 1 << 28])
def test_transformers_reads_what_is_written(tmp_path, monkeypatch, shard):
    """From one file and from several."""
    transformers = pytest.importorskip("transformers")
    made = config(tie_word_embeddings=False)
    written = tensors(plan_for(made))
    monkeypatch.setattr(folder_module, "SHARD_BYTES", shard)
    raw = {"architectures": ["LlamaForCausalLM"], **made.raw}
    write_checkpoint(tmp_path / "model", raw, written.values())
    assert (tmp_path / "model" / INDEX).exists() == (shard < 1 << 28)
    state = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    assert state.keys() == written.keys()
    for name, tensor in written.items():
        np.testing.assert_array_equal(state[name].numpy(), tensor.data)


def test_dequantises_exactly():
    q8 = Tensor("x", "q8", (1, 3), np.array([[-128, 0, 127] + [9] * 29], np.int8), np.array([[0.5]], np.float16))
    assert q8.to_float32().tolist() == [[-64, 0, 63.5]]
    codes = np.array([[0x10 * 15 + j for j in range(16)]], np.uint8)
    q4 = Tensor("x", "q4", (1, 18), codes, np.array([[2]], np.float16), np.array([[-1]], np.float16))
    assert q4.to_float32().tolist() == [[2 * j - 1 for j in range(16)] + [29, 29]]
    bf16 = Tensor("x", "bf16", (2,), np.array([0x3F80, 0xC000], np.uint16))
    assert bf16.to_float32().tolist() == [1, -2]
    assert Tensor("x", "f16", (), np.array(0.1, np.float16)).to_float32() == np.float32(np.float16(0.1))


def test_reads_shards_symlinks_and_generation_config(tmp_path):
    sharded_folder(tmp_path / "blobs")
    (tmp_path / "model").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "model" / path.name).symlink_to(path)
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    with open_checkpoint(tmp_path / "model") as checkpoint:
        assert {name: tensor.format for name, tensor in checkpoint.tensors.items()} == {"a": "f32", "b": "f16"}
        assert checkpoint.generation_config == {"eos_token_id": [1, 2]}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_files_are_never_mapped_and_closed_with_the_last_tensor(tmp_path):
    def open_files():
        return [os.path.basename(os.readlink(path)) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]

    plain_folder(tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model")
    tensor = checkpoint.tensors["a"]
    checkpoint.close()
    gc.collect()
    view = tensor.data
    assert "model.safetensors" in open_files() and view.tolist() == [1, 1]
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    del tensor
    assert "model.safetensors" not in open_files() and view.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ({"a": "one.safetensors", "b": "three.safetensors"}, "three.safetensors: there is no such file"),
        (
            {"a": "one.safetensors", "b": "../two.safetensors"},
            "'b' must lie in a .* beside it, found '../two.safetensors'",
        ),
        ({"a": "/one.safetensors"}, "beside it"),
        ({"a": "one\0.safetensors"}, "beside it"),
        ({"a": "\udc80.safetensors"}, "beside it"),
        ({"a": "a" * 5000 + ".safetensors"}, "cannot be read|no such file"),
        ({"a": "config.json"}, "beside it"),
        ({"a": 1}, "beside it"),
        ({"a": "one.safetensors"}, "does not hold|one and no|two.safetensors"),
        ({"b": "two.safetensors", "a": "two.safetensors"}, "two.safetensors: does not hold the tensor 'a'"),
        ({"a": "two.safetensors", "b": "one.safetensors"}, "which .* places in"),
        ({"a": "one.safetensors", "c": "two.safetensors"}, "holds the tensor 'b', which .* does not name"),
    ],
)
def test_an_index_must_agree_with_its_shards(tmp_path, places, text):
    sharded_folder(tmp_path / "model", places)
    if places == {"a": "one.safetensors"}:  # a shard that the index does not name is not the model's
        assert list(open_checkpoint(tmp_path / "model").tensors) == ["a"]
        return
    with pytest.raises(CheckpointError, match=text):
        open_checkpoint(tmp_path / "model")


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    sharded_folder(tmp_path / "model")
    both = {"a": np.ones(2, np.float32), "b": np.ones((1, 3), np.float16)}
    safetensors.numpy.save_file(both, tmp_path / "model" / "two.safetensors")
    with pytest.raises(
        CheckpointError, match=r"two.safetensors: holds the tensor 'a', which .* places in one.safetensors"
    ):
        open_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": None}])
def test_an_index_without_a_map_is_refused(tmp_path, index):
    sharded_folder(tmp_path / "model", index=index)
    with pytest.raises(CheckpointError, match="weight_map"):
        open_checkpoint(tmp_path / "model")


def test_a_folder_without_one_set_of_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such folder"):
        open_checkpoint(tmp_path / "model")
    sharded_folder(tmp_path / "model")
    (tmp_path / "model" / INDEX).unlink()
    with pytest.raises(CheckpointError, match="has 2 safetensors files and no"):
        open_checkpoint(tmp_path / "model")
    for path in (tmp_path / "model").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match="has 0 safetensors files"):
        open_checkpoint(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda said: said.pop("tensors"), "tensors is missing"),
        (lambda said: said["tensors"]["w"].update(format="q5"), "format must be one of 'q8', 'q4', found 'q5'"),
        (lambda said: said["tensors"]["w"].update(format="q8"), r"needs w.codes as I8 \[2, 64\], found U8 \[2, 32\]"),
        (lambda said: said["tensors"]["w"].update(shape=[2, 65]), r"q4 \[2, 65\] needs w.codes as U8 \[2, 48\]"),
        (lambda said: said["tensors"]["w"].update(shape=[2, 2**40]), "shape must be a list of integers"),
        (lambda said: said["tensors"]["w"].update(shape=[128]), "shape must be two integers"),
        (lambda said: said["tensors"].update(v={"format": "q4", "shape": [2, 33]}), "needs v.codes .*, found nothing"),
        (lambda said: said["tensors"].update(norm=said["tensors"]["w"]), "needs norm.codes .*, found nothing"),
    ],
)
def test_what_the_config_calls_quantised_must_be_there(tmp_path, change, text):
    tensors = [random_tensor("w", "q4", (2, 33)), random_tensor("norm", "f32", (3,))]
    write_checkpoint(tmp_path / "model", {}, tensors)
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    assert config == {
        "quantization_config": {"quant_method": "fastdistill", "tensors": {"w": {"format": "q4", "shape": [2, 33]}}}
    }
    change(config["quantization_config"])
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=text):
        open_checkpoint(tmp_path / "model")


def test_a_tensor_stored_both_ways_is_refused(tmp_path):
    w = random_tensor("w", "q4", (2, 33))
    write_checkpoint(tmp_path / "model", {}, [w, random_tensor("w", "f32", (2, 33))])
    with pytest.raises(CheckpointError, match="'w' is called quantised, but is there as F32 too"):
        open_checkpoint(tmp_path / "model")


def test_other_quantisation_is_unsupported(tmp_path):
    plain_folder(tmp_path / "model", {"quantization_config": {"quant_method": "hqq"}})
    with pytest.raises(UnsupportedError, match=r"the method 'hqq' cannot be read.*save the model unquantised"):
        open_checkpoint(tmp_path / "model")


def test_check_tensors_lists_every_problem():
    tensors = {
        "right": random_tensor("right", "f32", (2, 3)),
        "turned": random_tensor("turned", "f16", (3, 2)),
        "left.over": random_tensor("left.over", "f32", (1,)),
        "layers.7.inv_freq": random_tensor("layers.7.inv_freq", "f32", (4,)),
        "counts": Tensor("counts", "i64", (2,), np.zeros(2, np.int64)),
    }
    expected = {"right": (2, 3), "turned": (2, 3), "counts": (2,), "absent": (5,), "also.absent": (6, 7)}
    ignored = {"*.inv_freq": "computed from the config"}
    with pytest.raises(CheckpointError) as error:
        check_tensors(tensors, expected, ignored)
    assert str(error.value).splitlines()[1:] == [
        "  missing: absent [5]",
        "  missing: also.absent [6, 7]",
        "  misshapen: turned [3, 2], expected [2, 3]",
        "  unexpected: left.over [1]",
        "  of another type: counts i64, expected one of f32, f16, bf16, q8, q4",
    ]
    check_tensors({"right": tensors["right"], "layers.7.inv_freq": tensors["turned"]}, {"right": (2, 3)}, ignored)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, CheckpointError])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error, there, count):
    monkeypatch.setattr(folder_module, "SHARD_BYTES", 1)
    model = tmp_path / "model"
    if there:
        plain_folder(model)
    before = {path.name: path.read_bytes() for path in model.iterdir()} if there else None

    def tensors():
        for i in range(count):
            yield random_tensor(f"t{i}", "f32", (2, 2))
        raise error("midway")

    with pytest.raises(error, match="midway"):
        write_checkpoint(model, {}, tensors(), overwrite=there)
    assert litter(tmp_path) == (["model"] if there else [])
    assert not there or {path.name: path.read_bytes() for path in model.iterdir()} == before


@pytest.mark.parametrize("fails", [1, 2, 3])  # the file of tensors, the old folder, the new one
def test_a_rename_that_fails_leaves_the_old_folder(tmp_path, monkeypatch, fails):
    plain_folder(tmp_path / "model")
    calls, rename = [], os.replace

    def failing(source, destination):
        calls.append(source)
        if len(calls) == fails:
            raise OSError("no")
        rename(source, destination)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(CheckpointError, match="cannot be written: no"):
        write_checkpoint(tmp_path / "model", {}, [], overwrite=True)
    assert litter(tmp_path) == ["model"] and list(open_checkpoint(tmp_path / "model").tensors) == ["a", "b"]


def test_a_folder_is_replaced_only_on_request_and_only_by_its_like(tmp_path):
    plain_folder(tmp_path / "model")
    with pytest.raises(CheckpointError, match="is there already"):
        write_checkpoint(tmp_path / "model", {}, [])
    (tmp_path / "link").symlink_to(tmp_path / "model")
    write_checkpoint(tmp_path / "link", {}, [random_tensor("new", "f32", (1,))], overwrite=True)
    assert list(open_checkpoint(tmp_path / "model").tensors) == ["new"] and litter(tmp_path) == ["link", "model"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").write_text("dear")
    for path in (tmp_path / "home", tmp_path / "home" / "thesis"):
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            write_checkpoint(path, {}, [], overwrite=True)
    assert (tmp_path / "home" / "thesis").read_text() == "dear"


def test_names_written_twice_and_configs_without_json_are_refused(tmp_path):
    twice = [random_tensor("a", "f32", (1,)), random_tensor("a", "f16", (1,))]
    with pytest.raises(CheckpointError, match="a is to be written twice"):
        write_checkpoint(tmp_path / "model", {}, twice)
    for value in (float("nan"), object()):
        with pytest.raises(CheckpointError, match=r"config\.json: cannot be written as JSON"):
            write_checkpoint(tmp_path / "model", {"a": value}, [])
    assert litter(tmp_path) == []
