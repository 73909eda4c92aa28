"""Small GGUF files, written with the package gguf, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fastdistill.checkpoint.gguf import convert_gguf, rotary_rows

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
        if isinstance(value, (list, bytes)):
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


def config_of(folder) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())
