"""A GGUF file's tensors: bits kept, rows put back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.checkpoint.folder import open_checkpoint
from fastdistill.checkpoint.gguf import rotary_rows
from fastdistill.errors import CheckpointError, UnsupportedError
from tests.checkpoint.gguf_files import (
    HEADS,
    INNER,
    KEY_VALUE_HEADS,
    NAMES,
    WIDTH,
    T,
    config_of,
    converted,
    gguf,
    put_back,
    refused,
)


@pytest.mark.parametrize(
    ("kind", "format"),
    [(T.Q4_0, "q4"), (T.Q4_1, "q4"), (T.Q8_0, "q8"), (T.F32, "f32"), (T.F16, "f16"), (T.BF16, "bf16"), (T.Q5_1, "f32"),
     (T.Q5_0, "q8")],
)  # fmt: skip
def test_every_value_is_the_file_s(tmp_path, kind, format):
    written, folder = converted(tmp_path, kinds=kind)
    with open_checkpoint(folder) as checkpoint:
        assert len(checkpoint.tensors) == len(written)
        for theirs, ours in NAMES.items():
            data, stored = written[theirs]
            expected = put_back(theirs, gguf.quants.dequantize(data, stored))
            tensor = checkpoint.tensors[ours]
            assert tensor.format == (format if data.ndim == 2 else "f32")
            assert np.array_equal(tensor.to_float32(), expected), ours


def test_k_quants_are_dequantised(tmp_path):
    written, folder = converted(tmp_path, kinds={"blk.0.ffn_down.weight": T.Q6_K})
    with open_checkpoint(folder) as checkpoint:
        tensor = checkpoint.tensors["model.layers.0.mlp.down_proj.weight"]
        assert tensor.format == "f32"
        assert np.array_equal(tensor.to_float32(), gguf.quants.dequantize(*written["blk.0.ffn_down.weight"]))


@pytest.mark.parametrize("kind", [kind for kind in T if kind in gguf.GGML_QUANT_SIZES], ids=lambda kind: kind.name)
def test_every_type_that_the_package_reads_is_exact(tmp_path, kind):
    """Any bits but scales that are not finite, which no file has."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(kind).integers(0, 256, (WIDTH, INNER // values, size), np.uint8)
    try:
        with np.errstate(all="ignore"):
            gguf.quants.dequantize(raw.reshape(WIDTH, -1), kind)
    except NotImplementedError:
        refused(
            tmp_path,
            UnsupportedError,
            "blk.0.ffn_down.weight",
            tensors={"blk.0.ffn_down.weight": (raw.reshape(WIDTH, -1), kind)},
        )
        return
    for _ in range(100):  # scales lie here and there in a block
        with np.errstate(all="ignore"):
            found = gguf.quants.dequantize(raw.reshape(WIDTH, -1), kind).reshape(WIDTH, INNER // values, values)
        wrong = ~np.isfinite(found).all(axis=2) | (np.abs(found) > 6e4).any(axis=2)
        if kind in (
            T.Q4_0,
            T.Q4_1,
            T.Q5_0,
            T.Q8_0,
            T.IQ4_NL,
        ):  # which are kept as they are: their scales in f16 must be finite
            scales = raw[:, :, : 4 if kind == T.Q4_1 else 2].copy().view("<f2")
            wrong |= ~np.isfinite(scales).all(axis=2)
        if not wrong.any():
            break
        raw[wrong] = np.random.default_rng(wrong.sum()).integers(0, 256, (wrong.sum(), size), np.uint8)
    data = np.ascontiguousarray(raw.reshape(WIDTH, -1))
    stored = {T.F32: np.float32, T.F16: np.float16}.get(kind)
    name = "blk.0.ffn_down.weight"
    _, folder = converted(tmp_path, kinds={}, tensors={name: (data.view(stored) if stored else data, kind)})
    with open_checkpoint(folder) as checkpoint:
        tensor = checkpoint.tensors[NAMES[name]]
        assert tensor.format == {
            "F16": "f16",
            "BF16": "bf16",
            "Q4_1": "q4",
            "Q5_0": "q8",
            "IQ4_NL": "q8",
            "Q8_0": "q8",
        }.get(kind.name, tensor.format)
        np.testing.assert_array_equal(tensor.to_float32(), gguf.quants.dequantize(data, kind))


@pytest.mark.parametrize("kind", [T.Q4_0, T.Q4_1, T.Q8_0])
def test_codes_and_scales_keep_their_bits(tmp_path, kind):
    written, folder = converted(tmp_path, kinds=kind)
    with open_checkpoint(folder) as checkpoint:
        for theirs, ours in NAMES.items():
            raw, stored = written[theirs]
            if stored != kind:
                continue
            tensor = checkpoint.tensors[ours]
            rows, blocks = tensor.scale.shape
            raw = put_back(theirs, raw).reshape(rows, blocks, -1)
            codes = raw[:, :, 4 if kind == T.Q4_1 else 2 :]
            assert tensor.data.tobytes() == codes.tobytes()
            assert tensor.scale.tobytes() == raw[:, :, :2].tobytes()
            if kind == T.Q4_1:
                assert tensor.minimum.tobytes() == raw[:, :, 2:4].tobytes()
            if kind == T.Q4_0:
                assert np.array_equal(tensor.minimum.astype(np.float64), -8 * tensor.scale.astype(np.float64))


def q4_0(scale: float) -> np.ndarray:
    """A (WIDTH, INNER) tensor in which one block has this scale and every code occurs."""
    raw = np.random.default_rng(1).integers(0, 256, (WIDTH, INNER // 32, 18), np.uint8)
    scales = np.full((WIDTH, INNER // 32), 2.0**-10, np.float16)
    scales[3, 2] = scale
    raw[:, :, :2] = scales[..., None].view(np.uint8)
    return raw.reshape(WIDTH, -1)


@pytest.mark.parametrize(
    ("scale", "format"),
    [(8188.0, "q4"), (-8188.0, "q4"), (8192.0, "q8"), (-65504.0, "q8"), (2.0**-24, "q4"), (0.0, "q4")],
)
def test_q4_0_is_q4_unless_its_minimum_overflows(tmp_path, scale, format):
    name = "blk.0.ffn_down.weight"
    written, folder = converted(tmp_path, tensors={name: (q4_0(scale), T.Q4_0)})
    with open_checkpoint(folder) as checkpoint:
        tensor = checkpoint.tensors[NAMES[name]]
        assert tensor.format == format
        assert np.array_equal(tensor.to_float32(), gguf.quants.dequantize(*written[name]))


def test_q8_0_keeps_minus_128(tmp_path):
    raw = np.full((WIDTH, INNER // 32, 34), 0x80, np.uint8)
    raw[:, :, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    name = "blk.0.ffn_down.weight"
    _, folder = converted(tmp_path, tensors={name: (raw.reshape(WIDTH, -1), T.Q8_0)})
    with open_checkpoint(folder) as checkpoint:
        assert (checkpoint.tensors[NAMES[name]].to_float32() == -64).all()


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_a_scale_that_is_not_finite_is_refused_by_its_place(tmp_path, scale):
    tensors = {"blk.0.ffn_down.weight": (q4_0(scale), T.Q4_0)}
    refused(tmp_path, CheckpointError, r"blk\.0\.ffn_down\.weight: the scale of row 3, block 2 is", tensors=tensors)


def llama_cpp_order(rows: int, heads: int) -> np.ndarray:
    """Which row of a Hugging Face projection llama.cpp's converter writes at each place."""
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).ravel()


@given(heads=st.integers(1, 9), half=st.integers(1, 40))
def test_rows_return_to_their_places(heads, half):
    rows = heads * half * 2
    assert np.array_equal(llama_cpp_order(rows, heads)[rotary_rows(rows, heads)], np.arange(rows))


@given(heads=st.integers(1, 4), half=st.integers(1, 8), seed=st.integers(0, 99))
def test_rotating_neighbours_there_is_rotating_halves_here(heads, half, seed):
    width = heads * half * 2
    there = np.random.default_rng(seed).standard_normal(width)
    angle = np.arange(half) + 0.5
    real, imaginary = np.cos(angle), np.sin(angle)
    pairs = there.reshape(heads, half, 2)
    x, y = pairs[..., 0], pairs[..., 1]
    rotated_there = np.stack([x * real - y * imaginary, x * imaginary + y * real], axis=-1).ravel()
    first, second = np.split(there[rotary_rows(width, heads)].reshape(heads, -1), 2, axis=1)
    rotated_here = np.concatenate(
        [first * real - second * imaginary, second * real + first * imaginary], axis=1
    ).ravel()
    assert np.array_equal(rotated_there[rotary_rows(width, heads)], rotated_here)


def test_biases_follow_their_rows(tmp_path):
    names = {"attn_q": HEADS, "attn_k": KEY_VALUE_HEADS, "attn_v": KEY_VALUE_HEADS, "attn_output": HEADS}
    biases = {
        f"blk.{i}.{name}.bias": (np.arange(heads * 16, dtype=np.float32), T.F32)
        for name, heads in names.items()
        for i in (0, 1)
    }
    _, folder = converted(tmp_path, tensors=biases)
    assert config_of(folder)["attention_bias"] is True and config_of(folder)["mlp_bias"] is False
    with open_checkpoint(folder) as checkpoint:
        for name, ours in {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj"}.items():
            theirs = f"blk.1.{name}.bias"
            found = checkpoint.tensors[f"model.layers.1.self_attn.{ours}.bias"].data
            assert np.array_equal(found, put_back(theirs, biases[theirs][0]))
    del biases["blk.1.attn_output.bias"]
    (tmp_path / "some").mkdir()
    refused(tmp_path / "some", CheckpointError, r"blk\.1\.attn_output\.bias", tensors=biases)
