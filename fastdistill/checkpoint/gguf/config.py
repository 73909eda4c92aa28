"""A GGUF file's metadata as the config.json of Hugging Face's LlamaForCausalLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastdistill.checkpoint.folder import check_tensors
from fastdistill.checkpoint.gguf.reader import GgufFile
from fastdistill.checkpoint.gguf.tensors import read_tensor, tensor_shapes
from fastdistill.checkpoint.gguf.tokenizer import special_ids
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.messages import short

# What changes the arithmetic and is not in the list is refused: a wrong answer is worse than none.
_KEYS = {
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned", "tensor_data_layout", "expert_count",
    "expert_used_count",
}  # fmt: skip


def model_config(file: GgufFile) -> dict[str, Any]:
    """config.json in the form of Hugging Face's LlamaForCausalLM, checked against the tensors' names and shapes."""

    def refuse(what: str) -> None:
        raise UnsupportedError(f"{file.name}: {what} cannot be converted")

    def size(key: str, default: Any = ...) -> int:
        value = file.get("llama." + key, int, default)
        if value < 1:
            raise CheckpointError(f"{file.name}: metadata llama.{key} must be at least 1, got {value}")
        return value

    def positive(key: str, default: Any = ...) -> float:
        value = file.get("llama." + key, float, default)
        with np.errstate(all="ignore"):
            rounded = np.float32(value)
        if not 0 < rounded < np.inf:
            raise CheckpointError(f"{file.name}: metadata llama.{key} must be a positive float32, got {value}")
        return float(str(rounded))  # the shortest decimal of the same float32: 1e-05, not 9.999999747e-06

    for key in file.metadata:
        if key.startswith("llama.") and key.removeprefix("llama.") not in _KEYS:
            refuse(f"metadata {short(key)}")
    if file.get("llama.expert_count", int, 0) or file.get("llama.expert_used_count", int, 0):
        refuse("a mixture of experts")

    width, layers, heads = size("embedding_length"), size("block_count"), size("attention.head_count")
    key_value_heads = size("attention.head_count_kv", heads)
    head_dim = size("attention.key_length", max(1, width // heads))
    if size("attention.value_length", head_dim) != head_dim or size("rope.dimension_count", head_dim) != head_dim:
        refuse("a model whose key, value and rotary widths differ")
    if heads % key_value_heads or head_dim % 2:
        raise CheckpointError(
            f"{file.name}: {heads} heads of width {head_dim} over {key_value_heads} key and value heads; expected an "
            "even width, and heads in equal groups"
        )
    if layers > len(file.tensors):
        raise CheckpointError(f"{file.name}: llama.block_count is {layers}, but there are {len(file.tensors)} tensors")
    embedding = file.tensors.get("token_embd.weight")
    vocab = size("vocab_size", embedding.shape[0] if embedding else 1)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": size("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": size("context_length"),
        "vocab_size": vocab,
        "rms_norm_eps": positive("attention.layer_norm_rms_epsilon"),
        "rope_theta": positive("rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": any(".attn_" in name and name.endswith(".bias") for name in file.tensors),
        "mlp_bias": any(".ffn_" in name and name.endswith(".bias") for name in file.tensors),
    }
    try:
        check_tensors(file.tensors, tensor_shapes(config), {"rope_freqs.weight": "its meaning is in the config"})
    except CheckpointError as error:
        raise CheckpointError(f"{file.name}: {error}") from None
    config |= special_ids(file)

    older = "linear" if "llama.rope.scale_linear" in file.metadata else "none"
    scaling = file.get("llama.rope.scaling.type", str, older)
    if scaling == "linear":
        factor = positive("rope.scaling.factor", positive("rope.scale_linear", 1.0))
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    elif scaling != "none":
        refuse(f"rope scaling {short(scaling)}")
    if "rope_freqs.weight" in file.tensors:
        if scaling != "none":
            refuse(f"rope_freqs.weight beside rope scaling {scaling}")
        config["rope_scaling"] = _llama3_scaling(file, config)
    return config


def _llama3_scaling(file: GgufFile, config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters behind `rope_freqs.weight`, by which llama.cpp divides each rotary frequency.

    Llama 3's rule leaves wavelengths below original / high alone, divides those above original / low by `factor`, and
    interpolates between. The file has only the quotients, so the published parameters (low 1, high 4, original 8192)
    are tried, and must give every one of them back to float32's precision.
    """
    found = read_tensor(file, file.tensors["rope_freqs.weight"], "rope_freqs.weight").to_float32().astype(np.float64)
    head_dim = config["head_dim"]
    factor, low, high, original = float(found.max(initial=1.0)), 1.0, 4.0, 8192
    wavelength = 2 * np.pi * config["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth) if np.isfinite(factor) and factor >= 1 else np.zeros(0)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-5, atol=0):
        raise UnsupportedError(f"{file.name}: rope_freqs.weight is not of the form that Llama 3's scaling gives")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
