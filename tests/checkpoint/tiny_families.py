"""A tiny config of each family that GGUF files hold, as transformers writes it, and a folder of random weights for it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fastdistill.checkpoint import Config, Tensor, open_checkpoint, quantize_tensor, write_checkpoint
from fastdistill.checkpoint.gguf.config import folder_model
from tests.checkpoint.gguf_files import MERGES, TOKENS, TYPES

# Heads of 32: what llama.cpp's kernels take. 300 rows for 275 tokens; fewer layers than Gemma 3's period would hide it.
_BASE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "tie_word_embeddings": False, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
_ROUTED = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GEMMA: dict[str, Any] = {
    "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8, "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
}  # fmt: skip
_LONGROPE = {
    "rope_scaling": {"type": "longrope", "short_factor": [1.0 + i / 8 for i in range(16)], "long_factor": [2.0 + i for i in range(16)]},
}  # fmt: skip
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
_LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "head_dim": 32, "attention_bias": True, "mlp_bias": True},
    "llama linear": {"model_type": "llama", "num_attention_heads": 4, "head_dim": 32, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "llama 3": {"model_type": "llama", "head_dim": 32, "tie_word_embeddings": True, "rope_theta": 500000.0, "rope_scaling": _LLAMA3},
    "mistral": {"model_type": "mistral", "head_dim": 32, "sliding_window": None},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "use_sliding_window": False},
    "qwen2 yarn": {"model_type": "qwen2", "tie_word_embeddings": True, "use_sliding_window": False, "rope_scaling": _YARN},
    "qwen2_moe": {"model_type": "qwen2_moe", **_ROUTED, "shared_expert_intermediate_size": 64, "norm_topk_prob": False},
    "qwen3": {"model_type": "qwen3", "head_dim": 64, "num_attention_heads": 4, "num_key_value_heads": 2},
    "qwen3_moe": {"model_type": "qwen3_moe", **_ROUTED, "head_dim": 32, "norm_topk_prob": True},
    "gemma2": {"model_type": "gemma2", **_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {"model_type": "gemma3_text", **_GEMMA, "num_hidden_layers": 7, "rope_theta": 1e6, "rope_local_base_freq": 1e4},
    "gemma3_text linear": {"model_type": "gemma3_text", **_GEMMA, "rope_theta": 1e6, "num_hidden_layers": 6,
                           "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    "phi3": {"model_type": "phi3", "sliding_window": None},
    # llama.cpp takes the long factors where its context is longer than the original, transformers where the text is.
    "phi3 longrope, short": {"model_type": "phi3", "sliding_window": None, **_LONGROPE, "max_position_embeddings": 1024,
                             "original_max_position_embeddings": 512},
    "phi3 longrope, long": {"model_type": "phi3", "sliding_window": None, **_LONGROPE, "original_max_position_embeddings": 32},
    "phi3 partial": {"model_type": "phi3", "sliding_window": None, "partial_rotary_factor": 0.75, "tie_word_embeddings": True},
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 5, "tie_word_embeddings": True},
    "olmo2": {"model_type": "olmo2"},
    "olmoe": {"model_type": "olmoe", "num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2},
    "granite": {"model_type": "granite", "attention_multiplier": 0.2, "embedding_multiplier": 12.0,
                "residual_multiplier": 0.22, "logits_scaling": 8.0, "tie_word_embeddings": True},
    "stablelm": {"model_type": "stablelm", "layer_norm_eps": 1e-5, "use_qkv_bias": True, "partial_rotary_factor": 0.25},
    "stablelm 2": {"model_type": "stablelm", "layer_norm_eps": 1e-5, "qk_layernorm": True, "use_parallel_residual": True,
                   "num_attention_heads": 4, "hidden_size": 128},
    "starcoder2": {"model_type": "starcoder2", "norm_epsilon": 1e-5, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True},
    "starcoder2 untied": {"model_type": "starcoder2", "norm_epsilon": 1e-5, "hidden_act": "gelu_pytorch_tanh"},
    "gpt2": {"model_type": "gpt2", "n_positions": 128, "n_embd": 64, "n_layer": 3, "n_head": 2, "layer_norm_epsilon": 1e-5,
             "activation_function": "gelu_new", "tie_word_embeddings": True},
    "falcon": {"model_type": "falcon", "layer_norm_epsilon": 1e-5, "new_decoder_architecture": False, "multi_query": True,
               "parallel_attn": True, "bias": False, "alibi": False, "tie_word_embeddings": True, "num_attention_heads": 4},
    "falcon 40": {"model_type": "falcon", "layer_norm_epsilon": 1e-5, "new_decoder_architecture": True, "num_kv_heads": 2,
                  "multi_query": True, "parallel_attn": True, "bias": False, "alibi": False, "num_attention_heads": 4,
                  "hidden_size": 128, "ffn_hidden_size": 192, "num_ln_in_parallel_attn": 2},
    "gpt_neox": {"model_type": "gpt_neox", "layer_norm_eps": 1e-5, "hidden_act": "gelu", "use_parallel_residual": True,
                 "rotary_pct": 0.25, "rotary_emb_base": 10000.0},
    "gpt_neox in a row": {"model_type": "gpt_neox", "layer_norm_eps": 1e-5, "hidden_act": "gelu",
                          "use_parallel_residual": False, "rotary_pct": 0.5},
}  # fmt: skip
# What transformers has no class of its own for.
OTHERS: dict[str, dict[str, Any]] = {
    "llada": {
        "model_type": "llada",
        "vocab_size": 300,
        "embedding_size": 300,
        "d_model": 64,
        "n_heads": 2,
        "n_kv_heads": 1,
        "n_layers": 3,
        "mlp_hidden_size": 96,
        "max_sequence_length": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
        "include_bias": False,
        "include_qkv_bias": False,
        "weight_tying": False,
        "mask_token_id": 274,
    },
    "Dream": {"model_type": "Dream", "mask_token_id": 274, "use_sliding_window": False},
}
_OWN_WORDS = {"gpt2": {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 0}, "llada": {}}


def tiny_config(name: str) -> dict[str, Any]:
    own = (FAMILIES | OTHERS)[name]
    base = dict(_OWN_WORDS.get(own["model_type"], _BASE))
    foreign = {
        "gpt_neox": ("rms_norm_eps", "num_key_value_heads", "rope_theta"),
        "stablelm": ("rms_norm_eps",),
        "starcoder2": ("rms_norm_eps",),
        "falcon": ("rms_norm_eps", "num_key_value_heads", "intermediate_size", "hidden_act"),
    }
    foreign |= {"gemma2": ("hidden_act",), "gemma3_text": ("hidden_act",)}
    for key in foreign.get(own["model_type"], ()):
        del base[key]
    return base | own


def tokenizer_files() -> dict[str, bytes]:
    """The tokenizer of `gguf_files`, as a folder has it."""
    added = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": kind == 3}
        for i, (token, kind) in enumerate(zip(TOKENS, TYPES, strict=True))
        if kind != 1
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]}, "post_processor": None, "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(TOKENS)}, "merges": [merge.split(" ") for merge in MERGES],
        },
    }  # fmt: skip
    config = {"bos_token": TOKENS[1], "eos_token": TOKENS[0], "chat_template": "{{ messages }}"}
    return {"tokenizer.json": json.dumps(tokenizer).encode(), "tokenizer_config.json": json.dumps(config).encode()}


def write_tiny(folder, name: str, format: str = "f32", **changes: Any) -> dict[str, Any]:
    """A folder of a family with random weights, matrices in a format; its config."""
    config = tiny_config(name) | changes
    model, _ = folder_model(Config(config))
    random = np.random.default_rng(3)

    def tensors():
        for place in model.places:
            for tensor in place.names:
                shape = place.folder_shape
                data = random.standard_normal(shape).astype(np.float32)
                if len(shape) == 1:  # of Gemma's norms a GGUF file holds one more: in eighths that is exact
                    data = np.round(data * 8) / 8 + np.float32(0)  # no -0.0
                else:
                    data *= np.float32(shape[-1] ** -0.5)
                made = Tensor(tensor, "f32", shape, data)
                yield quantize_tensor(made, format) if len(shape) == 2 else made

    write_checkpoint(folder, config, tensors(), tokenizer_files())
    return config


def stored(folder) -> dict[str, Tensor]:
    """Every tensor of a folder, in memory."""
    with open_checkpoint(folder) as checkpoint:
        return {name: tensor.rows(...) for name, tensor in checkpoint.tensors.items()}


def bits(tensor: Tensor) -> tuple[str, dict[str, bytes]]:
    return tensor.format, {part: array.tobytes() for part, array in tensor.parts.items()}
