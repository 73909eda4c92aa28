"""Folders that lie, are cut or are damaged: each is read, or refused by a typed error, in little memory."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint.config import Config, eos_token_ids
from fastdistill.checkpoint.folder import INDEX, check_tensors, open_checkpoint, write_checkpoint
from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import FORMATS, Tensor
from fastdistill.errors import CheckpointError, UnsupportedError

# Most files here have a few KiB, the deepest JSON 5 MB: room for parsing it, not for what a shape or a length claims.
MOST_MEMORY = 16 << 20

weights = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
TENSORS = [
    *(quantize_tensor(Tensor(f"{format}.weight", "f32", (3, 40), weights), format) for format in FORMATS),
    Tensor("norm.weight", "f32", (40,), weights[0]),
    Tensor("ids", "i64", (2,), np.arange(2)),
]
ENTRIES = {
    "a": ("F32", [2, 3], [0, 24]),
    "b": ("BF16", [4], [24, 32]),
    "c": ("I8", [0, 5], [32, 32]),
    "d": ("U8", [], [32, 33]),
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest") / "model"
    write_checkpoint(folder, {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}}, TENSORS)
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def read_or_refuse(folder, files):
    """Open the folder of these files and use all of it; True where it was read."""
    for path in folder.iterdir():
        path.unlink()  # a mapped file is never changed, it is replaced
    for name, data in files.items():
        (folder / name).write_bytes(data)
    tracemalloc.start()
    read = False
    with contextlib.suppress(CheckpointError, UnsupportedError), open_checkpoint(folder) as checkpoint:
        expected = {tensor.name: tensor.shape for tensor in TENSORS}
        with contextlib.suppress(CheckpointError):
            check_tensors(checkpoint.tensors, expected, {})
        for tensor in checkpoint.tensors.values():
            if tensor.format in FORMATS:
                assert tensor.to_float32().shape == tensor.shape
            else:
                assert tensor.data.shape == tensor.shape
        read_config(checkpoint.config, checkpoint.generation_config)
        read = True
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < MOST_MEMORY
    return read


def read_config(config, generation_config):
    for name in [*config.raw, "rope_parameters"]:
        for read in (config.integer, config.number, config.boolean, config.string, config.section, config.integers):
            with contextlib.suppress(CheckpointError):
                read(name)
    with contextlib.suppress(CheckpointError):
        eos_token_ids(config, generation_config)


def with_header(data, header, length=None):
    """The file with another header; its length told truly, or as given."""
    size = int.from_bytes(data[:8], "little")
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data[8 + size :]


def test_the_honest_folder_is_read(folder, honest):
    assert read_or_refuse(folder, honest)


@st.composite
def damages(draw, size):
    """Functions that flip a bit, set, drop, repeat or insert bytes, or cut the file; half of them at its start."""
    kind = draw(st.sampled_from(["flip", "set", "drop", "repeat", "insert", "cut"]))
    at = draw(st.integers(0, size - 1) | st.integers(0, min(size, 1200) - 1))
    length, bit, new = draw(st.integers(1, 40)), draw(st.integers(0, 7)), draw(st.binary(min_size=1, max_size=8))

    def damage(data):
        head, tail = data[:at], data[at:]
        return {
            "flip": head + bytes(byte ^ 1 << bit for byte in tail[:1]) + tail[1:],
            "set": head + new + tail[len(new) :],
            "drop": head + tail[length:],
            "repeat": head + tail[:length] + tail,
            "insert": head + new + tail,
            "cut": head,
        }[kind]

    return damage


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_bytes(folder, honest, name):
    outcomes = {True: 0, False: 0}

    @settings(max_examples=1500)
    @given(damage=st.lists(damages(len(honest[name])), min_size=1, max_size=3))
    def run(damage):
        data = honest[name]
        for change in damage:
            data = change(data)
        outcomes[read_or_refuse(folder, honest | {name: data})] += 1

    run()
    assert all(outcomes.values())  # both happen: the bytes of a body are anybody's, those of a header are not


def test_every_cut(folder, honest):
    for name, data in honest.items():
        for size in range(0, len(data), 1 + len(data) // 400):
            assert not read_or_refuse(folder, honest | {name: data[:size]})


numbers = st.integers(-2, 40) | st.sampled_from(
    [2**31, 2**32, 2**40, 2**62, 2**63, 2**64, 10**400, -(2**63), True, 1.0, 1e300, None, "3"]
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=4) | st.floats(),
    lambda item: st.lists(item, max_size=4) | st.dictionaries(st.text(max_size=4), item, max_size=4),
    max_leaves=4,
)
dtypes = st.sampled_from(["F32", "BF16", "I8", "U8", "F16", "C64", "BOOL"]) | st.sampled_from(
    ["F4", "f32", "", None, 4]
)
lying_entries = st.builds(
    lambda dtype, shape, offsets, more: {"dtype": dtype, "shape": shape, "data_offsets": offsets} | more,
    dtypes,
    st.lists(numbers, max_size=10) | json_values,
    st.lists(numbers, min_size=2, max_size=2) | json_values,
    st.just({})
    | st.just({})
    | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "extra"]), json_values, max_size=1),
)


plausible = dtypes | st.sampled_from([[3, 2], [6], [2, 0], [], [0, 24], [24, 32], [32, 32]])


@st.composite
def headers(draw):
    """An honest header with a field or two replaced, or one of nothing but claims."""
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for name, (dtype, shape, offsets) in ENTRIES.items()
    }
    for name in draw(st.lists(st.sampled_from([*ENTRIES, "e", "__metadata__"]), max_size=2)):
        if isinstance(header.get(name), dict) and draw(st.booleans()):
            header[name] = header[name] | {
                draw(st.sampled_from(["dtype", "shape", "data_offsets"])): draw(
                    plausible | st.lists(numbers, max_size=3)
                )
            }
        else:
            header[name] = draw(lying_entries | json_values)
    return header


def test_lying_headers(folder, honest):
    outcomes = {True: 0, False: 0}
    body = bytes(range(33))

    @settings(max_examples=700)
    @given(
        header=headers() | headers() | json_values,
        length=st.none() | st.none() | st.none() | st.integers(0, 400) | st.integers(0, 2**64 - 1),
    )
    def run(header, length):
        data = with_header(bytes(8) + body, header, length)
        outcomes[read_or_refuse(folder, {"config.json": b"{}", "model.safetensors": data})] += 1

    run()
    assert all(outcomes.values())


@settings(max_examples=700)
@given(
    places=st.dictionaries(
        st.sampled_from(["norm.weight", "ids", "x"]),
        st.sampled_from(
            ["model.safetensors", "one.safetensors", "../config.json", "/etc/passwd", "", "\0", ".safetensors"]
        )
        | json_values,
        max_size=3,
    )
    | json_values,
    index=st.dictionaries(st.sampled_from(["weight_map", "metadata"]), json_values, max_size=2),
    whole=st.booleans(),
)
def test_lying_indexes(folder, honest, places, index, whole):
    index = {"weight_map": places} | (index if whole else {})
    files = {"config.json": b"{}", "one.safetensors": honest["model.safetensors"], INDEX: json.dumps(index).encode()}
    read_or_refuse(folder, files)


keys = st.sampled_from(
    [
        "hidden_size",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "torch_dtype",
        "dtype",
        "eos_token_id",
        "quantization_config",
    ]
)
objects = st.dictionaries(
    st.sampled_from(["type", "rope_type", "rope_theta", "factor", "quant_method", "tensors"]), json_values, max_size=3
)
quantised = st.builds(
    lambda method, tensors: {"quant_method": method, "tensors": tensors},
    st.sampled_from(["fastdistill"] * 9 + ["gptq"]),
    st.dictionaries(
        st.sampled_from(["q8.weight", "q4.weight", "f32.weight", "norm.weight"]),
        st.fixed_dictionaries(
            {
                "format": st.sampled_from(["q8", "q4", "q5", None]),
                "shape": st.sampled_from([[3, 40], [3, 41], [3, 64]]) | st.lists(numbers, max_size=3),
            }
        )
        | json_values,
        max_size=3,
    )
    | json_values,
)


@settings(max_examples=700)
@given(
    config=st.dictionaries(keys, json_values | objects, max_size=4) | json_values,
    quantization=st.none() | quantised,
    generation=st.none() | st.dictionaries(keys, json_values, max_size=2) | json_values,
)
def test_absurd_configs(folder, honest, config, quantization, generation):
    if quantization is not None and isinstance(config, dict):
        config = config | {"quantization_config": quantization}
    files = honest | {"config.json": json.dumps(config).encode()}
    if generation is not None:
        files["generation_config.json"] = json.dumps(generation).encode()
    read_or_refuse(folder, files)
    if isinstance(config, dict):
        with contextlib.suppress(CheckpointError):
            read_config(Config(config), generation if isinstance(generation, dict) else {})


@settings(max_examples=300)
@given(
    bits=st.lists(
        st.integers(0, 2**32 - 1) | st.sampled_from([0x7F800000, 0x7FC00001, 0x7F7FFFFF, 1]), min_size=1, max_size=70
    ),
    format=st.sampled_from(["f16", "bf16", "q8", "q4"]),
)
def test_any_bits_are_quantised_or_refused(bits, format):
    """To finite numbers, or to an error that names the tensor; on the way no warning of NumPy's."""
    tensor = Tensor("w", "f32", (1, len(bits)), np.array([bits], np.uint32).view(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            values = quantize_tensor(tensor, format).to_float32()
        except CheckpointError as error:
            assert str(error).startswith("w: holds")
        else:
            assert np.isfinite(values).all() and np.isfinite(tensor.data).all()


@pytest.mark.parametrize("depth", [10, 100, 300, 900, 990, 10**5])
@pytest.mark.parametrize("opening", [b"[", b'{"rope_scaling":', b'{"rope_parameters":{"factor":'])
def test_deep_nesting(folder, honest, depth, opening):
    """Whatever depth the parser still takes, nothing after it gives in."""
    closing = b"]" if opening == b"[" else b"}" * opening.count(b"{")
    value = opening * depth + b"1" + closing * depth
    both = b'{"rope_scaling": {"factor": %b}, "rope_parameters": {"factor": %b}}' % (value, value)
    for config in (value, b'{"a": %b}' % value, both):
        read = read_or_refuse(folder, honest | {"config.json": config})
        assert not (read and depth > 10**4)
        if read:
            with contextlib.suppress(CheckpointError), open_checkpoint(folder) as checkpoint:
                write_checkpoint(folder.parent / "copy", checkpoint.config.raw, [], overwrite=True)
    read_or_refuse(
        folder, honest | {"model.safetensors": with_header(honest["model.safetensors"], b'{"a": %b}' % value)}
    )
