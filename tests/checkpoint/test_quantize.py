"""Quantising: errors within the derived bounds, exact where a block can be, folders complete or absent."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint import quantize as quantize_module
from fastdistill.checkpoint.blocks import dequantize_q4, dequantize_q8, quantize_q4, quantize_q8
from fastdistill.checkpoint.folder import open_checkpoint, write_checkpoint
from fastdistill.checkpoint.quantize import quantize_checkpoint, quantize_tensor
from fastdistill.checkpoint.tensor import FORMATS, Tensor
from fastdistill.errors import ArgumentError, CheckpointError

widths = st.sampled_from([0, 1, 31, 32, 33, 64, 100])


@st.composite
def weight_matrices(draw, largest=20):
    """Bell-shaped, lopsided, constant and sparse rows, at scales from below f16's smallest step up to 2**largest."""
    rows, inputs, seed = draw(st.integers(0, 3)), draw(widths), draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    weights = random.normal(size=(rows, inputs)) * draw(st.sampled_from([0.0, 1.0, 1e-3]))
    weights += draw(st.sampled_from([0.0, 0.0, 1.0, -3.0])) + (random.random((rows, inputs)) < 0.05) * draw(
        st.sampled_from([0.0, 10.0])
    )
    return (weights * 2.0 ** draw(st.integers(-34, largest - 4))).astype(np.float32)


def by_block(weights):
    """(N, K) -> (N, blocks, 32), padded with NaN."""
    padded = np.pad(weights.astype(np.float64), [(0, 0), (0, -weights.shape[1] % 32)], constant_values=np.nan)
    return padded.reshape(len(weights), padded.shape[1] // 32, 32)


@settings(max_examples=300)
@given(weights=weight_matrices())
def test_q8_error_is_half_a_step(weights):
    """A quotient w / scale of at most 128 rounds by 2^-17 in float32: its code is off by 1/2 + 2^-17 steps.

    Where f16 rounded amax / 127 down, code 127 falls short by 127 times that: 127 * 2^-11 < 1/2 steps, or 127 * 2^-25
    where the scale is subnormal (and 2^-23 of that for rounding amax / 127 to float32 first). The product is exact.
    """
    codes, scale = quantize_q8(weights)
    assert codes.dtype == np.int8 and scale.dtype == np.float16 and codes.min(initial=0) >= -127
    assert not codes[:, weights.shape[1] :].any()
    error = np.abs(by_block(weights) - by_block(dequantize_q8(codes, scale, weights.shape[1])))
    bound = scale.astype(np.float64) * (0.5 + 2.0**-17) + 127 * 2.0**-25 * (1 + 2.0**-23)
    assert not (error > bound[:, :, None]).any()


@settings(max_examples=300)
@given(weights=weight_matrices(largest=15))
def test_q4_error_is_half_a_step_of_the_range(weights):
    """Between the f16 at or below the lowest weight and the highest there are 15 steps.

    A weight is off by half a step; by 15 times the step's own rounding at the top, 15 * 2^-11 of it < 1/2 or 15 * 2^-25
    where it is subnormal; and by float32 roundings of the difference, the quotient and the sum, each 2^-24 of at most
    the range and the largest weight. A fitted line is taken only where its squared error (summed in float32: off by
    32 * 2^-24 of it) is lower.
    """
    codes, scale, minimum = quantize_q4(weights)
    assert codes.dtype == np.uint8 and scale.dtype == minimum.dtype == np.float16
    blocks, values = by_block(weights), by_block(dequantize_q4(codes, scale, minimum, weights.shape[1]))
    squared = np.nansum((blocks - values) ** 2, axis=2)
    _, whole_scale, _ = quantize_q4(weights, refits=0)
    rounding = 2.0**-22 * np.nanmax(np.abs(blocks), axis=2, initial=0)
    bound = whole_scale.astype(np.float64) * (0.5 + 2.0**-18) + 15 * 2.0**-25 * (1 + 2.0**-23) + rounding
    assert not (squared > 32 * bound**2 * (1 + 2.0**-18)).any()
    step = (np.nanmax(blocks, axis=2, initial=-np.inf) - np.nanmin(blocks, axis=2, initial=np.inf)) / 15
    below = 2.0**-10 * np.nanmax(np.abs(blocks), axis=2, initial=0) + 2.0**-24  # the f16 below the lowest weight
    assert not (whole_scale > (step + below / 15) * (1 + 2.0**-10) + 2.0**-24).any()
    # Codes that were not cut off are the nearest ones, whatever the line.
    packed = codes.reshape(*scale.shape, 16)
    inner = np.concatenate([packed & 15, packed >> 4], axis=2)
    assert not inner[np.isnan(blocks)].any()  # the padding
    inner = (inner > 0) & (inner < 15) & ~np.isnan(blocks)
    half = scale.astype(np.float64) * (0.5 + 2.0**-18) + rounding
    assert not (np.where(inner, np.abs(blocks - values), 0) > half[:, :, None]).any()


@given(seed=st.integers(0, 2**32 - 1))
def test_refits_lower_the_squared_error(seed):
    weights = np.random.default_rng(seed).normal(size=(20, 256)).astype(np.float32)

    def squared(refits):
        return np.nansum((by_block(weights) - by_block(dequantize_q4(*quantize_q4(weights, refits), 256))) ** 2, axis=2)

    before, after = squared(0), squared(4)
    assert (after <= before * (1 + 2.0**-18)).all()
    assert after.sum() < 0.92 * before.sum()


positive_halves = st.integers(1, 0x7BFF).map(lambda bits: np.array(bits, np.uint16).view(np.float16)[()])


@settings(max_examples=300)
@given(scale=positive_halves, seed=st.integers(0, 2**32 - 1))
def test_q8_keeps_a_block_that_it_can_hold(scale, seed):
    codes = np.random.default_rng(seed).integers(-127, 128, (1, 64)).astype(np.int8)
    codes[0, [5, 40]] = 127, -127  # the scale is amax / 127
    scales = np.full((1, 2), scale)
    found = quantize_q8(dequantize_q8(codes, scales, 64))
    assert np.array_equal(found[0], codes) and np.array_equal(found[1], scales)


@settings(max_examples=300)
@given(bits=st.integers(0x0400, 0x6FFF), offset=st.integers(-2048, 2048), seed=st.integers(0, 2**32 - 1))
def test_q4_keeps_a_block_that_it_can_hold(bits, offset, seed):
    """The step comes back from the range where float32's roundings of the top weight and of its distance, 2^-23
    (15 + |offset|) steps, are less than 15 times f16's half step, 2^-12.
    """
    scale = np.array(bits, np.uint16).view(np.float16)[()]
    minimum = np.float16(np.clip(np.float64(scale) * offset, -60000, 60000))
    codes = np.random.default_rng(seed).integers(0, 256, (1, 32)).astype(np.uint8)
    codes[0, [3, 20]] = 0xF0, 0x0F  # both ends of the range
    scales, minimums = np.full((1, 2), scale), np.full((1, 2), minimum)
    found = quantize_q4(dequantize_q4(codes, scales, minimums, 64))
    assert np.array_equal(found[0], codes) and np.array_equal(found[1], scales) and np.array_equal(found[2], minimums)


def test_constant_blocks():
    for value in (0.0, 1.0, -3.0, 0.25):
        weights = np.full((2, 40), value, np.float32)
        assert np.array_equal(dequantize_q4(*quantize_q4(weights), 40), weights)
    assert not dequantize_q8(*quantize_q8(np.zeros((2, 40), np.float32)), 40).any()


@pytest.mark.parametrize("format", FORMATS)
@given(weights=weight_matrices(largest=12))
def test_formats_round_to_nearest_and_stay_what_they_are(format, weights):
    tensor = quantize_tensor(Tensor("w", "f32", weights.shape, weights), format)
    assert (tensor.format, tensor.shape) == (format, weights.shape)
    assert quantize_tensor(tensor, format) is tensor
    values = tensor.to_float32()
    assert values.shape == weights.shape and values.dtype == np.float32
    if format == "f32":
        assert np.array_equal(values, weights)
    if format == "f16":
        assert np.array_equal(values, weights.astype(np.float16))


@given(
    high=st.lists(st.integers(0, 0x7F7E), min_size=1, max_size=20),
    low=st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]),
    sign=st.sampled_from([0, 0x8000]),
)
def test_bf16_is_the_nearest_and_of_two_the_even_one(high, low, sign):
    bits = np.array(high, np.uint32) | sign
    below, values, above = (part.view(np.float32) for part in (bits << 16, bits << 16 | low, bits + 1 << 16))
    found = quantize_tensor(Tensor("w", "f32", values.shape, values), "bf16").to_float32()
    down, up = (np.abs(values.astype(np.float64) - end) for end in (below, above))
    assert np.array_equal(found, np.where((down < up) | ((down == up) & (bits & 1 == 0)), below, above))


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("format", FORMATS)
def test_any_format_becomes_any_other_in_any_chunks(source, format, monkeypatch):
    weights = np.random.default_rng(1).normal(size=(7, 50)).astype(np.float32)
    tensor = quantize_tensor(Tensor("w", "f32", (7, 50), weights), source)
    whole = quantize_tensor(tensor, format)
    direct = quantize_tensor(Tensor("w", "f32", (7, 50), tensor.to_float32()), format)
    monkeypatch.setattr(quantize_module, "_CHUNK", 120)
    cut = quantize_tensor(tensor, format)
    for part in whole.parts:
        assert np.array_equal(whole.parts[part], cut.parts[part])
        assert source == format or np.array_equal(whole.parts[part], direct.parts[part])


@pytest.mark.parametrize("format", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("shape", [(), (5,), (0,), (2, 3, 4)])
def test_any_rank_becomes_any_float(format, shape):
    weights = np.ones(shape, np.float32)
    for tensor in (
        quantize_tensor(Tensor("w", source, shape, weights.astype(dtype)), format)
        for source, dtype in (("f16", np.float16), ("f32", np.float32))
    ):
        assert tensor.shape == tensor.data.shape == shape and np.array_equal(tensor.to_float32(), weights)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", ["f16", "bf16", "q8", "q4"])
def test_weights_that_are_not_finite_are_refused(format, value):
    weights = np.ones((3, 40), np.float32)
    weights[2, 35] = value
    with pytest.raises(CheckpointError, match=rf"layer\.weight: holds {value}"):
        quantize_tensor(Tensor("layer.weight", "f32", (3, 40), weights), format)


@pytest.mark.parametrize(
    ("format", "value"), [("f16", 65520), ("bf16", 3.4e38), ("q8", 65520 * 127), ("q4", -65505), ("q4", 1e6)]
)
def test_weights_that_the_format_cannot_hold_are_refused(format, value):
    weights = np.zeros((1, 2), np.float32)
    weights[0, 1] = value
    with pytest.raises(CheckpointError, match=rf"layer\.weight: holds .* more than {format} can"):
        quantize_tensor(Tensor("layer.weight", "f32", (1, 2), weights), format)


def test_arguments_are_refused():
    tensor = Tensor("bias", "f32", (3,), np.ones(3, np.float32))
    with pytest.raises(ArgumentError, match="format must be one of f32, f16, bf16, q8, q4, got 'q5'"):
        quantize_tensor(tensor, "q5")
    with pytest.raises(ArgumentError, match=r"bias: q4 is for matrices, got the shape \(3,\)"):
        quantize_tensor(tensor, "q4")
    with pytest.raises(CheckpointError, match="counts: has the type i64"):
        quantize_tensor(Tensor("counts", "i64", (1, 1), np.ones((1, 1), np.int64)), "q8")


def quantize_folder(source, *arguments, **options):
    with open_checkpoint(source) as checkpoint:
        quantize_checkpoint(checkpoint, *arguments, **options)


@pytest.fixture
def source(tmp_path):
    random = np.random.default_rng(0)
    tensors = [
        Tensor("embed.weight", "f32", (9, 40), random.normal(size=(9, 40)).astype(np.float32)),
        Tensor("up.weight", "f16", (40, 9), random.normal(size=(40, 9)).astype(np.float16)),
        Tensor("norm.weight", "f32", (40,), np.ones(40, np.float32)),
        Tensor("table", "f32", (2, 2), np.ones((2, 2), np.float32)),
        Tensor("ids.weight", "i64", (1, 2), np.arange(2).reshape(1, 2)),
    ]
    files = {
        name: name.encode()
        for name in (
            "tokenizer.json", "chat_template.jinja", "LICENSE", "pytorch_model.bin", ".hidden",
            "additional_chat_templates/tool_use.jinja", "additional_chat_templates/notes", "1_Pooling/config.json", "1_Pooling/notes",
        )
    }  # fmt: skip
    write_checkpoint(tmp_path / "source", {"hidden_size": 40, "torch_dtype": "float32"}, tensors, files)
    return tmp_path / "source"


@pytest.mark.parametrize("format", ["q8", "q4", "f16"])
def test_a_folder_has_its_matrices_quantised(source, format):
    reports = []
    quantize_folder(source, source.parent / "made", format, progress=lambda done, total: reports.append((done, total)))
    with open_checkpoint(source) as before, open_checkpoint(source.parent / "made") as after:
        formats = {name: tensor.format for name, tensor in after.tensors.items()}
        assert formats == {
            "embed.weight": format,
            "up.weight": format,
            "norm.weight": "f32",
            "table": "f32",
            "ids.weight": "i64",
        }
        for name, tensor in before.tensors.items():
            expected = quantize_tensor(tensor, format) if formats[name] == format else tensor
            assert all(np.array_equal(part, after.tensors[name].parts[key]) for key, part in expected.parts.items())
        total = sum(tensor.nbytes for tensor in before.tensors.values())
    assert sorted(reports) == reports and len(reports) == 5 and reports[-1] == (total, total)
    names = {path.name for path in (source.parent / "made").iterdir()}
    further, pooling = (source.parent / "made" / name for name in ("additional_chat_templates", "1_Pooling"))
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "LICENSE",
        further.name,
        pooling.name,
    }
    assert [path.name for path in pooling.iterdir()] == ["config.json"]
    assert {path.name: path.read_text() for path in further.iterdir()} == {
        "tool_use.jinja": f"{further.name}/tool_use.jinja"
    }
    config = json.loads((source.parent / "made" / "config.json").read_text())
    assert config["torch_dtype"] == "float32" and ("quantization_config" in config) == (format != "f16")


def test_what_cannot_be_copied_is_not_left_out(source):
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.json").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: there is no such file"):
        quantize_folder(source, source.parent / "made", "q8")
    assert [path.name for path in source.parent.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "additional_chat_templates/",
        "additional_chat_templates/../a",
        "1_x/../a",
        "1_x/..",
        "1_x/",
        "a\0",
        3,
    ],
)
def test_no_file_is_written_outside_the_folder(tmp_path, name):
    with pytest.raises(ArgumentError, match="files must map plain names"):
        write_checkpoint(tmp_path / "made", {}, [], {name: b""})
    assert not list(tmp_path.iterdir())


def test_a_folder_may_be_requantised_over_itself(source):
    for name in ("1_Pooling/notes", "additional_chat_templates/notes", "pytorch_model.bin"):
        with pytest.raises(CheckpointError, match=f"'{name}', which is no part of a checkpoint"):
            quantize_folder(source, source, "q4", overwrite=True)
        (source / name).unlink()
    quantize_folder(source, source, "q8", overwrite=True)
    assert (source / "additional_chat_templates/tool_use.jinja").is_file() and (
        source / "1_Pooling/config.json"
    ).is_file()
    once = (source / "model.safetensors").read_bytes()
    quantize_folder(source, source, "q8", overwrite=True)
    assert (source / "model.safetensors").read_bytes() == once
    quantize_folder(source, source, "f32", overwrite=True)
    assert {tensor.format for tensor in open_checkpoint(source).tensors.values()} == {"f32", "i64"}
    assert "quantization_config" not in json.loads((source / "config.json").read_text())


def test_an_interrupted_folder_leaves_nothing(source):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_folder(source, source.parent / "made", "q4", progress=interrupt)
    with pytest.raises(ArgumentError, match="format must be"):
        quantize_folder(source, source.parent / "made", "int4")
    with pytest.raises(CheckpointError, match="is there already"):
        quantize_folder(source, source, "q4")
    assert [path.name for path in source.parent.iterdir()] == ["source"]
