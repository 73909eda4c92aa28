"""GGUF conversion: bits kept, rows put back, tokenizer rebuilt, and no file that does harm."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tracemalloc
import unicodedata
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill import load
from fastdistill.arguments import MOST_PATH_BYTES
from fastdistill.checkpoint.config import eos_token_ids
from fastdistill.checkpoint.folder import open_checkpoint
from fastdistill.checkpoint.gguf import GgufFile, convert_gguf, rotary_rows
from fastdistill.errors import ArgumentError, CheckpointError, FastDistillError, UnsupportedError
from fastdistill.text.tokenizer import Tokenizer
from tests.test_files import not_files

gguf = pytest.importorskip("gguf", reason="the tests write GGUF files with the package gguf (extra: test)")
T = gguf.GGMLQuantizationType

WIDTH, INNER, HEADS, KEY_VALUE_HEADS = 64, 256, 4, 2
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
SPELLING = [chr(256 + OTHERS.index(byte)) if byte in OTHERS else chr(byte) for byte in range(256)]
MERGES = [
    "t h",
    "th e",
    "Ġ the",
    "Ġ Ġ",
    "ĠĠ Ġ",
    "i n",
    "Ġ a",
    "1 2",
    "Ċ Ċ",
    "Ã ©",
    "' s",
    "e r",
    "! !",
    "æ Ĺ",
    "æĹ ¥",
    "ð Ł",
]
TOKENS = ["<|end|>", "<|start|>", *SPELLING, *(merge.replace(" ", "") for merge in MERGES), "<|user|>"]
TYPES = [3, 3] + [1] * (len(TOKENS) - 3) + [4]

METADATA: dict[str, Any] = {
    "llama.block_count": 2,
    "llama.context_length": 128,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": INNER,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEY_VALUE_HEADS,
    "llama.rope.freq_base": 100000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "general.license": "apache-2.0",
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": TYPES,
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.chat_template": "{{ messages }}",
}


def shapes(layers: int = 2) -> dict[str, tuple[int, ...]]:
    key_value = WIDTH // HEADS * KEY_VALUE_HEADS
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    for i in range(layers):
        layer = {
            "attn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH), "attn_k": (key_value, WIDTH), "attn_v": (key_value, WIDTH),
            "attn_output": (WIDTH, WIDTH), "ffn_norm": (WIDTH,), "ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }  # fmt: skip
        found |= {f"blk.{i}.{name}.weight": shape for name, shape in layer.items()}
    return found


def packed(shape, kind, rng):
    """Random values of a shape as the bytes, or floats, of a tensor type."""
    values = rng.standard_normal(shape, np.float32)
    if len(shape) == 1:
        return values, T.F32
    if kind == T.Q6_K:  # which the package reads and does not write: random codes, a scale of 2^-6
        raw = rng.integers(0, 256, (shape[0], shape[1] // 256, 210), np.uint8)
        raw[:, :, 208:] = np.frombuffer(np.float16(2**-6).tobytes(), np.uint8)
        return raw.reshape(shape[0], -1), kind
    return gguf.quants.quantize(values, kind), kind


def write_gguf(path, kinds=T.Q4_1, metadata=(), without=(), tensors=(), architecture="llama"):
    """A small model; `kinds` is one type or {name: type}. Returns the arrays as written, by name."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (METADATA | dict(metadata)).items():
        if key in without or value is None:
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](key, value)
    rng = np.random.default_rng(5)
    written = {}
    for name, shape in shapes().items():
        if name not in without:
            written[name] = packed(shape, kinds.get(name, T.F32) if isinstance(kinds, dict) else kinds, rng)
    written |= dict(tensors)
    for name, (data, kind) in written.items():
        writer.add_tensor(name, np.ascontiguousarray(data), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def converted(tmp_path, **settings):
    written = write_gguf(tmp_path / "model.gguf", **settings)
    return written, convert_gguf(tmp_path / "model.gguf", tmp_path / "out")


def refused(tmp_path, error, words, **settings):
    write_gguf(tmp_path / "model.gguf", **settings)
    with pytest.raises(error, match=words):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "blk.1.attn_q.weight": "model.layers.1.self_attn.q_proj.weight",
    "blk.1.attn_k.weight": "model.layers.1.self_attn.k_proj.weight",
    "blk.1.attn_v.weight": "model.layers.1.self_attn.v_proj.weight",
    "blk.1.attn_output.weight": "model.layers.1.self_attn.o_proj.weight",
    "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
    "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
    "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
    "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
    "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
    "output_norm.weight": "model.norm.weight",
}


def put_back(name: str, array: np.ndarray) -> np.ndarray:
    heads = HEADS if ".attn_q." in name else KEY_VALUE_HEADS if ".attn_k." in name else None
    return array if heads is None else array[rotary_rows(len(array), heads)]


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "format"),
    [(T.Q4_0, "q4"), (T.Q4_1, "q4"), (T.Q8_0, "q8"), (T.F32, "f32"), (T.F16, "f16"), (T.BF16, "bf16"), (T.Q5_1, "f32"),
     (T.Q5_0, "f32")],
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
        if kind in (T.Q4_0, T.Q4_1, T.Q8_0):  # which are kept as they are: their scales in f16 must be finite
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
        assert tensor.format == {"F16": "f16", "BF16": "bf16", "Q4_1": "q4", "Q8_0": "q8"}.get(kind.name, tensor.format)
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


def test_format_converts_matrices_only(tmp_path):
    written = write_gguf(tmp_path / "model.gguf", kinds=T.Q4_0)
    convert_gguf(tmp_path / "model.gguf", tmp_path / "out", format="f32")
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert {tensor.format for tensor in checkpoint.tensors.values()} == {"f32"}
        for theirs, ours in NAMES.items():
            expected = put_back(theirs, gguf.quants.dequantize(*written[theirs]))
            assert np.array_equal(checkpoint.tensors[ours].data, expected)
    convert_gguf(tmp_path / "model.gguf", tmp_path / "q8", format="q8")
    with open_checkpoint(tmp_path / "q8") as checkpoint:
        assert {(len(t.shape), t.format) for t in checkpoint.tensors.values()} == {(1, "f32"), (2, "q8")}


def test_an_unknown_format_is_an_argument_error(tmp_path):
    write_gguf(tmp_path / "model.gguf")
    with pytest.raises(ArgumentError, match="format"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out", format="q3")
    assert not (tmp_path / "out").exists()


# --- the order of rows ------------------------------------------------------------------------------------------------


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


# --- config -----------------------------------------------------------------------------------------------------------


def config_of(folder) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def test_config_is_hugging_face_s(tmp_path):
    _, folder = converted(tmp_path)
    config = config_of(folder)
    config.pop("quantization_config")
    assert config == {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": KEY_VALUE_HEADS, "head_dim": 16,
        "hidden_act": "silu", "max_position_embeddings": 128, "vocab_size": len(TOKENS), "rms_norm_eps": 1e-05,
        "rope_theta": 100000.0, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 1, "eos_token_id": 0,
    }  # fmt: skip
    assert b'"rms_norm_eps": 1e-05' in (folder / "config.json").read_bytes()
    assert "apache-2.0" in (folder / "NOTICE").read_text()
    with warnings.catch_warnings():  # what was converted is asked nothing and warned of nothing
        warnings.simplefilter("error")
        assert load(folder, threads=1).logits([1, 2]).shape == (2, len(TOKENS))


def test_an_output_matrix_unties_the_head(tmp_path):
    head = np.ones((len(TOKENS), WIDTH), np.float32)
    _, folder = converted(tmp_path, tensors={"output.weight": (head, T.F32)})
    assert config_of(folder)["tie_word_embeddings"] is False
    with open_checkpoint(folder) as checkpoint:
        assert np.array_equal(checkpoint.tensors["lm_head.weight"].data, head)


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


@pytest.mark.parametrize(
    "metadata",
    [{"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, {"llama.rope.scale_linear": 4.0}],
)
def test_linear_rope_scaling(tmp_path, metadata):
    _, folder = converted(tmp_path, metadata=metadata)
    assert config_of(folder)["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


def llama3_quotients(factor: float, low: float = 1.0, high: float = 4.0, original: int = 8192) -> np.ndarray:
    """What llama.cpp's converter writes for Llama 3's scaling, frequency by frequency, as it is published."""
    found = []
    for i in range(0, 16, 2):
        wavelength = 2 * np.pi * 100000.0 ** (i / 16)
        if wavelength < original / high:
            found.append(1.0)
        elif wavelength > original / low:
            found.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recovered(tmp_path, factor):
    _, folder = converted(tmp_path, tensors={"rope_freqs.weight": (llama3_quotients(factor), T.F32)})
    assert config_of(folder)["rope_scaling"] == {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip


@pytest.mark.parametrize(
    "quotients",
    [
        llama3_quotients(8.0, high=5.0),
        llama3_quotients(8.0)[:-1],
        *(np.full(8, value) for value in (np.nan, np.inf, 0.0, -1.0)),
    ],
)
def test_other_rope_quotients_are_refused(tmp_path, quotients):
    tensors = {"rope_freqs.weight": (quotients.astype(np.float32), T.F32)}
    refused(tmp_path, UnsupportedError, "rope_freqs", tensors=tensors)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"architecture": "qwen2"}, UnsupportedError, "architecture 'qwen2'"),
        ({"metadata": {"llama.expert_count": 8}}, UnsupportedError, "mixture of experts"),
        ({"metadata": {"llama.attention.scale": 2.0}}, UnsupportedError, r"llama\.attention\.scale"),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, UnsupportedError, "yarn"),
        ({"metadata": {"llama.rope.dimension_count": 8}}, UnsupportedError, "rotary widths"),
        ({"metadata": {"tokenizer.ggml.model": "llama"}}, UnsupportedError, "tokenizer 'llama'"),
        ({"metadata": {"tokenizer.ggml.pre": "tekken"}}, UnsupportedError, "pre-tokenizer 'tekken'"),
        ({"without": ["tokenizer.ggml.pre"]}, UnsupportedError, "pre-tokenizer 'default'"),
        ({"metadata": {"llama.attention.head_count_kv": [2, 2]}}, CheckpointError, "head_count_kv must be int"),
        ({"metadata": {"llama.attention.head_count": 0}}, CheckpointError, "at least 1"),
        ({"metadata": {"llama.attention.head_count": 64}}, CheckpointError, "even width"),
        ({"metadata": {"llama.attention.head_count_kv": 3}}, CheckpointError, "equal groups"),
        ({"metadata": {"llama.attention.key_length": 32}}, CheckpointError, "value|attn_q"),
        ({"metadata": {"llama.embedding_length": 1 << 31}}, CheckpointError, "token_embd"),
        ({"metadata": {"llama.block_count": 1 << 31}}, CheckpointError, "block_count"),
        ({"metadata": {"llama.block_count": 3}}, CheckpointError, r"blk\.2\.attn_q"),
        ({"metadata": {"llama.block_count": 1}}, CheckpointError, r"blk\.1\.attn_q"),
        ({"metadata": {"llama.attention.layer_norm_rms_epsilon": float("nan")}}, CheckpointError, "epsilon"),
        ({"metadata": {"llama.rope.freq_base": float("inf")}}, CheckpointError, "freq_base"),
        ({"metadata": {"llama.rope.freq_base": -1.0}}, CheckpointError, "freq_base"),
        ({"metadata": {"llama.vocab_size": 5}}, CheckpointError, "token_embd"),
        ({"metadata": {"llama.feed_forward_length": "wide"}}, CheckpointError, "must be int, got 'wide'"),
        ({"metadata": {"tokenizer.ggml.eos_token_id": 1 << 20}}, CheckpointError, "eos_token_id is 1048576"),
        ({"metadata": {"tokenizer.ggml.add_bos_token": True}, "without": ["tokenizer.ggml.bos_token_id"]},
         CheckpointError, "without a bos_token_id"),
        ({"metadata": {"tokenizer.ggml.tokens": TOKENS[:-1]}}, CheckpointError, "token types"),
        ({"metadata": {"tokenizer.ggml.tokens": [*TOKENS[:-1], TOKENS[0]]}}, CheckpointError, "come twice"),
        ({"metadata": {"tokenizer.ggml.tokens": TYPES}}, CheckpointError, "must be an array of strings"),
        ({"metadata": {"tokenizer.ggml.merges": ["t h", "q q"]}}, CheckpointError, "merge 'q q'"),
        ({"metadata": {"tokenizer.ggml.merges": ["th"]}}, CheckpointError, "merge 'th'"),
        ({"without": ["tokenizer.ggml.tokens"]}, CheckpointError, "tokens must be an array"),
        ({"without": ["llama.context_length"]}, CheckpointError, "context_length is missing"),
        ({"without": ["output_norm.weight"]}, CheckpointError, "output_norm"),
        ({"tensors": {"blk.0.extra.weight": (np.ones(3, np.float32), T.F32)}}, CheckpointError, "extra"),
        ({"tensors": {"output_norm.weight": (np.ones(3, np.float32), T.F32)}}, CheckpointError, "output_norm"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_and_leaves_nothing(tmp_path, settings, error, words):
    refused(tmp_path, error, words, **settings)


def test_an_existing_folder_is_kept_unless_told(tmp_path):
    _, folder = converted(tmp_path)
    before = (folder / "config.json").stat().st_mtime_ns
    with pytest.raises(FastDistillError, match="out"):
        convert_gguf(tmp_path / "model.gguf", folder)
    assert (folder / "config.json").stat().st_mtime_ns == before
    convert_gguf(tmp_path / "model.gguf", folder, overwrite=True)


def test_progress_ends_at_all_the_bytes(tmp_path):
    written = write_gguf(tmp_path / "model.gguf")
    calls = []
    convert_gguf(tmp_path / "model.gguf", tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    total = sum(data.nbytes for data, _ in written.values())
    assert [done for done, _ in calls] == sorted(done for done, _ in calls) and calls[-1] == (total, total)


# --- tokenizer --------------------------------------------------------------------------------------------------------


def words_of_gpt2(text: str) -> list[str]:
    """GPT-2's splitting of a text, by hand: contractions, then [space] letters | digits | others, then spaces, of
    which the last goes to the word after."""

    def kind(char: str) -> str:
        category = unicodedata.category(char)[0]
        return "s" if char.isspace() and char not in "\x1c\x1d\x1e\x1f" else category if category in "LN" else "o"

    words, at = [], 0
    while at < len(text):
        for ending in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
            if text.startswith(ending, at):
                end = at + len(ending)
                break
        else:
            start = at + (text[at] == " " and at + 1 < len(text) and kind(text[at + 1]) != "s")
            end = start + 1
            while end < len(text) and kind(text[end]) == kind(text[start]):
                end += 1
            if kind(text[start]) == "s" and end < len(text) and end - at > 1:
                end -= 1
        words.append(text[at:end])
        at = end
    return words


def ids_by_hand(text: str) -> list[int]:
    """The tokens of a text: numerals alone (Digits), the rest in GPT-2's words, each merged pair by pair."""
    ids, parts = [], []
    for char in text:
        alone = unicodedata.category(char)[0] == "N"
        if alone or not parts or parts[-1][1]:
            parts.append([char, alone])
        else:
            parts[-1][0] += char
    for part, _ in parts:
        for word in words_of_gpt2(part):
            symbols = [SPELLING[byte] for byte in word.encode()]
            while True:
                ranks = [
                    (MERGES.index(pair), i) for i, pair in enumerate(map(" ".join, pairwise(symbols))) if pair in MERGES
                ]
                if not ranks:
                    break
                i = min(ranks)[1]
                symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            ids += [TOKENS.index(symbol) for symbol in symbols]
    return ids


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(converted(tmp_path_factory.mktemp("gguf"))[1])


PARTS = ["the", " the", "  ", "   ", "12", "1", "'s", "'", "é", "日", "🙂", "\n\n", " \n", "\t", "!!", "²", "a"]
TEXTS = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PARTS), max_size=12).map("".join))


@given(text=TEXTS)
@settings(max_examples=400)
def test_ids_are_those_worked_out_by_hand(tokenizer, text):
    assert tokenizer.encode(text) == ids_by_hand(text)


def test_control_tokens_are_special_and_user_tokens_are_text(tokenizer):
    ids = tokenizer.encode("a<|start|>the<|user|>")
    assert ids[1] == 1 and ids[-1] == len(TOKENS) - 1 and tokenizer.special_ids == {0, 1}
    assert tokenizer.decode(ids) == "athe<|user|>"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|start|>", "<|end|>")
    assert tokenizer.config.chat_template() == "{{ messages }}"


@pytest.mark.parametrize(
    ("metadata", "around"),
    [
        ({}, ([], [])),
        ({"tokenizer.ggml.add_bos_token": True}, ([1], [])),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}, ([1], [0])),
        ({"tokenizer.ggml.pre": "llama-bpe"}, ([1], [])),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, ([], [])),
    ],
)
def test_bos_and_eos_are_added_as_the_file_says(tmp_path, metadata, around):
    tokenizer = Tokenizer(converted(tmp_path, metadata=metadata)[1])
    plain = tokenizer.encode("the", special=False)
    assert tokenizer.encode("the") == around[0] + plain + around[1]


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "12", ["1", "2"]),
        ("gpt-2", "12", ["12"]),
        ("llama-bpe", "12", ["12"]),
        ("qwen2", "12", ["1", "2"]),
        ("gpt-2", " the", [" the"]),
        ("qwen2", "!\n\n", ["!", "\n\n"]),
        ("qwen2", "e\u0301", ["é"]),  # normalised to one character
        ("llama-bpe", "e\u0301", ["e", "\xcc", "\x81"]),
    ],
)
def test_pre_tokenizers_split_as_named(tmp_path, pre, text, pieces):
    tokenizer = Tokenizer(converted(tmp_path, metadata={"tokenizer.ggml.pre": pre})[1])
    found = [tokenizer.token_bytes(token) for token in tokenizer.encode(text, special=False)]
    assert found == [piece.encode("latin-1") if piece in ("\xcc", "\x81") else piece.encode() for piece in pieces]


def test_llama3_takes_whole_tokens_before_it_merges(tmp_path):
    # "inthe" is a token that no merges lead to: Llama 3's tokenizer finds it all the same.
    tokens = [*TOKENS[:-2], "inthe", TOKENS[-1]]
    merges = MERGES[:-1]
    for pre, count in {"llama-bpe": 1, "gpt-2": 2}.items():
        metadata = {"tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges}
        (tmp_path / pre).mkdir()
        tokenizer = Tokenizer(converted(tmp_path / pre, metadata=metadata)[1])
        assert len(tokenizer.encode("inthe", special=False)) == count


ALIASES = {
    "gpt-2": ["phi-2", "gigachat", "modern-bert", "exaone4", "mpt", "olmo", "a.x-4.0"],
    "smollm": ["starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
    "llama-bpe": ["llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
    "qwen2": ["deepseek-r1-qwen", "megrez", "kormo", "stablelm2"],
}


@pytest.mark.parametrize(("known", "alias"), [(known, alias) for known, names in ALIASES.items() for alias in names])
def test_other_names_mean_the_same_tokenizer(tmp_path, known, alias):
    """But for qwen2's own NFC: of the others nobody says that they normalise."""
    made = []
    for name in (known, alias):
        (tmp_path / name).mkdir()
        folder = converted(tmp_path / name, metadata={"tokenizer.ggml.pre": name})[1]
        tokenizer, config = (
            json.loads((folder / file).read_text()) for file in ("tokenizer.json", "tokenizer_config.json")
        )
        assert tokenizer.pop("normalizer") == ({"type": "NFC"} if name == "qwen2" else None)
        made.append((tokenizer, config))
    assert made[0] == made[1]


def ends_of(tmp_path, controls=(), others=(), **metadata):
    """The tokens that end a text, of a file with these control tokens and these other ones."""
    added = [*controls, *others]
    tokens, types = [*TOKENS[: len(TOKENS) - len(added)], *added], TYPES[: len(TYPES) - len(added)]
    merges = [merge for merge in MERGES if merge.replace(" ", "") in tokens]
    settings = {
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types + [3] * len(controls) + [4] * len(others),
        "tokenizer.ggml.merges": merges, **{f"tokenizer.ggml.{key}_token_id": index for key, index in metadata.items()},
    }  # fmt: skip
    folder = converted(tmp_path, metadata=settings)[1]
    assert config_of(folder)["eos_token_id"] == 0
    with open_checkpoint(folder) as checkpoint:
        ends = eos_token_ids(checkpoint.config, checkpoint.generation_config)
    found = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert found == sorted(ends)
    return [tokens[index] for index in found]


@pytest.mark.parametrize("key", ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"])
def test_what_ends_a_turn_a_message_or_a_file_ends_a_text(tmp_path, key):
    assert ends_of(tmp_path, **{key: 1}) == ["<|end|>", "<|start|>"]


@pytest.mark.parametrize(
    ("controls", "others", "ends"),
    [
        (["<|eot_id|>", "<|eom_id|>", "<|im_end|>"], [], ["<|eot_id|>", "<|eom_id|>", "<|im_end|>"]),
        (["<|im_start|>", "<end_of_turn>", "</s>"], ["<|endoftext|>"], ["<end_of_turn>", "</s>"]),
        (["<|return|>", "<|call|>"], [], ["<|return|>", "<|call|>"]),
        (["</s>", "<|tool_response>"], [], ["<|tool_response>"]),
        (["</s>"], ["<|tool_response>"], ["</s>"]),
        (["<|file_sep|>", "<reponame>", "<file_sep>"], [], ["<|file_sep|>", "<reponame>"]),
    ],
)
def test_control_tokens_end_a_text_by_their_names(tmp_path, controls, others, ends):
    """The file's own <|end|> is its eos."""
    assert ends_of(tmp_path, controls, others) == ["<|end|>", *ends]


def test_the_end_of_a_part_is_no_end(tmp_path):
    assert ends_of(tmp_path, ["<|return|>", "<|call|>", "<|flush|>"], eos=0) == [
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
    ]
    (tmp_path / "harmony").mkdir()
    tokens = [*TOKENS[:-2], "<|return|>", "<|call|>"]
    settings = {
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 4) + [3, 3],
        "tokenizer.ggml.merges": MERGES[:-1], "tokenizer.ggml.eos_token_id": len(tokens) - 2,
    }  # fmt: skip
    folder = converted(tmp_path / "harmony", metadata=settings)[1]
    found = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert [tokens[index] for index in found] == ["<|return|>", "<|call|>"]  # and not <|end|>


def test_a_part_of_a_split_model_says_how_to_join_it(tmp_path):
    settings = {"split.count": 3, "split.no": 0, "split.tensors.count": 20}
    refused(tmp_path, UnsupportedError, r"one of the 3 parts .*`llama-gguf-split --merge", metadata=settings)
    assert converted(tmp_path, metadata={"split.count": 1})


# --- hostile files ----------------------------------------------------------------------------------------------------


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


def test_a_file_that_cannot_be_opened_is_a_checkpoint_error(tmp_path):
    for path in not_files(tmp_path):
        error, words = (
            (ArgumentError, "source must be a path")
            if "\0" in str(path) or len(str(path)) > MOST_PATH_BYTES
            else (CheckpointError, r"cannot be read|no such")
        )
        with pytest.raises(error, match=words):
            convert_gguf(path, tmp_path / "out")


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    write_gguf(tmp_path / "model.gguf", kinds={"blk.0.ffn_down.weight": T.Q6_K})
    write_gguf(tmp_path / "plain.gguf", kinds=T.Q4_1)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UnsupportedError, match=r'pip install "fastdistill\[demo\]"'):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    convert_gguf(tmp_path / "plain.gguf", tmp_path / "out")  # Q4_0, Q4_1, Q8_0 and floats need no package
