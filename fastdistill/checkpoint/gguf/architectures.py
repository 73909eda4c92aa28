"""The records of every architecture that GGUF files are converted of, by llama.cpp's names, and the words that they share.

A record says which tensor of a file is which of Hugging Face's, of what size, and what moves between the two; which metadata
are which keys of config.json; and what llama.cpp takes for granted, which a config has to agree with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fastdistill.checkpoint.gguf.moves import (
    ADD_ONE,
    GROUPED_ROWS,
    KEEP,
    ROTARY_KEYS,
    ROTARY_QUERIES,
    STACK,
    TRANSPOSE,
)
from fastdistill.checkpoint.gguf.record import Architecture, Sizes, Weight

_MODEL = {
    "token_embd": Weight("model.embed_tokens", "vocab width"),
    "output_norm": Weight("model.norm", "width"),
    "output": Weight("lm_head", "vocab width", only="not tie_word_embeddings"),
}
_PRE_NORMS = {"attn_norm": Weight("input_layernorm", "width"), "ffn_norm": Weight("post_attention_layernorm", "width")}
_MLP = {
    "ffn_gate": Weight("mlp.gate_proj", "inner width"),
    "ffn_up": Weight("mlp.up_proj", "inner width"),
    "ffn_down": Weight("mlp.down_proj", "width inner"),
}
_EXPERTS = {
    "ffn_gate_inp": Weight("mlp.gate", "experts width"),
    "ffn_gate_exps": Weight("mlp.experts.{}.gate_proj", "experts expert_inner width", STACK),
    "ffn_up_exps": Weight("mlp.experts.{}.up_proj", "experts expert_inner width", STACK),
    "ffn_down_exps": Weight("mlp.experts.{}.down_proj", "experts width expert_inner", STACK),
}
_HEAD_NORMS = {"attn_q_norm": Weight("self_attn.q_norm", "head"), "attn_k_norm": Weight("self_attn.k_norm", "head")}


def _attention(bias: str = "", out_bias: str = "", rotated: bool = False) -> dict[str, Weight]:
    queries, keys = (ROTARY_QUERIES, ROTARY_KEYS) if rotated else (KEEP, KEEP)
    return {
        "attn_q": Weight("self_attn.q_proj", "q width", queries, bias),
        "attn_k": Weight("self_attn.k_proj", "kv width", keys, bias),
        "attn_v": Weight("self_attn.v_proj", "kv width", KEEP, bias),
        "attn_output": Weight("self_attn.o_proj", "width q", KEEP, out_bias),
    }


def _biased(weights: dict[str, Weight], bias: str) -> dict[str, Weight]:
    return {name: weight._replace(bias=bias) for name, weight in weights.items()}


def _norms_plus_one(weights: dict[str, Weight]) -> dict[str, Weight]:
    return {
        name: weight._replace(move=ADD_ONE) if name.endswith("norm") else weight for name, weight in weights.items()
    }


_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_GROUPS = {"attention.head_count_kv": "num_key_value_heads"}
_HEAD = {"attention.key_length": "head_dim?"}
_RMS = {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}
_LAYER_NORM = {"attention.layer_norm_epsilon": "layer_norm_eps"}
_SILU = {"hidden_act": "silu"}
_ROUTED = {"expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size"}


def _full(lengths: Sizes) -> list[str]:
    return ["full_attention"] * lengths["layers"]


def _every(period: int) -> Callable[[Sizes], list[str]]:
    """Windows in all layers but each `period`th."""
    return lambda lengths: [
        "full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(lengths["layers"])
    ]


def _query_scalar(largest: int) -> Callable[[Sizes], int]:
    """Scores are divided by the root of a head's width, but in the model of that many layers by that of width / heads."""
    return lambda lengths: lengths["width"] // lengths["heads"] if lengths["layers"] == largest else lengths["head"]


# --- the records ------------------------------------------------------------------------------------------------------

_LLAMA = Architecture(
    "llama",
    ("llama", "mistral"),
    "LlamaForCausalLM",
    _MODEL,
    _PRE_NORMS | _attention("attention_bias", "attention_bias", rotated=True) | _biased(_MLP, "mlp_bias"),
    _KEYS | _GROUPS | _HEAD | _RMS,
    facts=_SILU,
)
_QWEN2 = Architecture(
    "qwen2",
    ("qwen2",),
    "Qwen2ForCausalLM",
    _MODEL,
    _PRE_NORMS | _attention("always") | _MLP,
    _KEYS | _GROUPS | _RMS,
    facts=_SILU | {"use_sliding_window": False},
    silent={"layer_types": _full},
)
_QWEN3 = replace(
    _QWEN2,
    name="qwen3",
    model_types=("qwen3",),
    model_class="Qwen3ForCausalLM",
    layer=_PRE_NORMS | _attention() | _HEAD_NORMS | _MLP,
    keys=_QWEN2.keys | _HEAD,
    facts=_QWEN2.facts | {"attention_bias": False},
)
_GEMMA2 = Architecture(
    "gemma2",
    ("gemma2",),
    "Gemma2ForCausalLM",
    _norms_plus_one(_MODEL),
    _norms_plus_one(
        {
            "attn_norm": Weight("input_layernorm", "width"),
            "post_attention_norm": Weight("post_attention_layernorm", "width"),
            "ffn_norm": Weight("pre_feedforward_layernorm", "width"),
            "post_ffw_norm": Weight("post_feedforward_layernorm", "width"),
        }
    )
    | _attention()
    | _MLP,
    _KEYS
    | _GROUPS
    | _HEAD
    | _RMS
    | {
        "attention.sliding_window": "sliding_window",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    facts={
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _query_scalar(46),
        "layer_types": _every(2),
        "tie_word_embeddings": True,
    },
    silent={"attention_bias": False, "use_bidirectional_attention": False},
    absent={"query_pre_attn_scalar": 256},
)

_FALCON = Architecture(
    "falcon",
    ("falcon",),
    "FalconForCausalLM",
    {
        "token_embd": Weight("transformer.word_embeddings", "vocab width"),
        "output_norm": Weight("transformer.ln_f", "width", bias="always"),
        "output": Weight("lm_head", "vocab width", only="not tie_word_embeddings"),
    },
    {
        "attn_norm": Weight("input_layernorm", "width", bias="always"),
        "attn_qkv": Weight("self_attention.query_key_value", "qkv width", GROUPED_ROWS),
        "attn_output": Weight("self_attention.dense", "width q"),
        "ffn_up": Weight("mlp.dense_h_to_4h", "inner width"),
        "ffn_down": Weight("mlp.dense_4h_to_h", "width inner"),
    },
    _KEYS
    | {
        "feed_forward_length": "ffn_hidden_size?",
        "attention.head_count_kv": "1",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    layers="transformer.h",
    facts={
        "new_decoder_architecture": False,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
        "alibi": False,
    },
    silent={"activation": "gelu"},
    absent={"tie_word_embeddings": True, "max_position_embeddings": 2048},
)

ARCHITECTURES = (
    _LLAMA,
    replace(
        _LLAMA,
        model_types=("mixtral",),
        model_class="MixtralForCausalLM",
        sign="blk.0.ffn_gate_inp.weight",
        layer=_PRE_NORMS
        | _attention(rotated=True)
        | {
            "ffn_gate_inp": Weight("block_sparse_moe.gate", "experts width"),
            "ffn_gate_exps": Weight("block_sparse_moe.experts.{}.w1", "experts inner width", STACK),
            "ffn_down_exps": Weight("block_sparse_moe.experts.{}.w2", "experts width inner", STACK),
            "ffn_up_exps": Weight("block_sparse_moe.experts.{}.w3", "experts inner width", STACK),
        },
        keys=_LLAMA.keys
        | {"expert_count": "num_local_experts|num_experts", "expert_used_count": "num_experts_per_tok"},
    ),
    _QWEN2,
    replace(
        _QWEN2,
        name="qwen2moe",
        model_types=("qwen2_moe",),
        model_class="Qwen2MoeForCausalLM",
        layer=_PRE_NORMS
        | _attention("qkv_bias")
        | _EXPERTS
        | {
            "ffn_gate_inp_shexp": Weight("mlp.shared_expert_gate", "one width"),
            "ffn_gate_shexp": Weight("mlp.shared_expert.gate_proj", "shared_inner width"),
            "ffn_up_shexp": Weight("mlp.shared_expert.up_proj", "shared_inner width"),
            "ffn_down_shexp": Weight("mlp.shared_expert.down_proj", "width shared_inner"),
        },
        keys=_QWEN2.keys
        | _ROUTED
        | {
            "expert_count": "num_experts|num_local_experts",
            "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
        },
        facts=_QWEN2.facts | {"norm_topk_prob": False, "tie_word_embeddings": False},
        silent=_QWEN2.silent | {"decoder_sparse_step": 1, "mlp_only_layers": []},
        absent={"qkv_bias": True},
    ),
    _QWEN3,
    replace(
        _QWEN3,
        name="qwen3moe",
        model_types=("qwen3_moe",),
        model_class="Qwen3MoeForCausalLM",
        layer=_PRE_NORMS | _attention() | _HEAD_NORMS | _EXPERTS,
        keys=_QWEN3.keys | _ROUTED | {"expert_count": "num_experts|num_local_experts"},
        facts=_QWEN3.facts | {"norm_topk_prob": True},
        silent=_QWEN3.silent | {"decoder_sparse_step": 1, "mlp_only_layers": []},
        absent={"norm_topk_prob": False},
    ),
    replace(
        _QWEN2,
        name="dream",
        model_types=("Dream",),
        model_class="DreamModel",
        facts=_SILU | {"use_sliding_window": False, "tie_word_embeddings": False},
        mask=True,
    ),
    Architecture(
        "llada",
        ("llada",),
        "LLaDAModelLM",
        {
            "token_embd": Weight("model.transformer.wte", "vocab width"),
            "output_norm": Weight("model.transformer.ln_f", "width"),
            "output": Weight("model.transformer.ff_out", "vocab width", only="not weight_tying"),
        },
        {
            "attn_norm": Weight("attn_norm", "width"),
            "attn_q": Weight("q_proj", "q width", ROTARY_QUERIES),
            "attn_k": Weight("k_proj", "kv width", ROTARY_KEYS),
            "attn_v": Weight("v_proj", "kv width"),
            "attn_output": Weight("attn_out", "width q"),
            "ffn_norm": Weight("ff_norm", "width"),
            "ffn_gate": Weight("ff_proj", "inner width"),
            "ffn_up": Weight("up_proj", "inner width"),
            "ffn_down": Weight("ff_out", "width inner"),
        },
        {
            "context_length": "max_sequence_length",
            "embedding_length": "d_model",
            "block_count": "n_layers",
            "feed_forward_length": "mlp_hidden_size",
            "attention.head_count": "n_heads",
            "attention.head_count_kv": "n_kv_heads",
            "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        },
        layers="model.transformer.blocks",
        facts={
            "block_type": "llama",
            "activation_type": "silu",
            "layer_norm_type": "rms",
            "rope": True,
            "include_bias": False,
            "include_qkv_bias": False,
            "embedding_size": lambda lengths: lengths["vocab"],
        },
        silent={
            "multi_query_attention": False,
            "layer_norm_with_affine": True,
            "bias_for_layer_norm": False,
            "attention_layer_norm": False,
            "input_emb_norm": False,
            "scale_logits": False,
            "alibi": False,
        },
        absent={
            "block_type": "sequential",
            "activation_type": "swiglu",
            "layer_norm_type": "default",
            "rope": False,
            "weight_tying": True,
        },
        mask=True,
    ),
    _GEMMA2,
    replace(
        _GEMMA2,
        name="gemma3",
        model_types=("gemma3_text",),
        model_class="Gemma3ForCausalLM",
        layer=_GEMMA2.layer | _norms_plus_one(_HEAD_NORMS),
        keys={key: name for key, name in _GEMMA2.keys.items() if key != "attn_logit_softcapping"}
        | {"final_logit_softcapping": "final_logit_softcapping?"},
        facts={
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": _query_scalar(62),
            "layer_types": _every(6),
        },
        silent=_GEMMA2.silent
        | {"attn_logit_softcapping": None, "sliding_window_pattern": 6, "_sliding_window_pattern": 6},
        absent={"query_pre_attn_scalar": 256, "tie_word_embeddings": True},
        local_theta="rope_local_base_freq",
    ),
    Architecture(
        "phi3",
        ("phi3",),
        "Phi3ForCausalLM",
        _MODEL,
        _PRE_NORMS
        | {
            "attn_qkv": Weight("self_attn.qkv_proj", "qkv width"),
            "attn_output": Weight("self_attn.o_proj", "width q"),
            "ffn_up": Weight("mlp.gate_up_proj", "gate_up width"),
            "ffn_down": Weight("mlp.down_proj", "width inner"),
        },
        _KEYS | _GROUPS | _RMS | {"attention.sliding_window": "sliding_window?"},
        facts=_SILU,
        silent={"attention_bias": False},
        partial="partial_rotary_factor",
    ),
    replace(
        _LLAMA,
        name="smollm3",
        model_types=("smollm3",),
        model_class="SmolLM3ForCausalLM",
        layer=_PRE_NORMS | _attention(rotated=True) | _MLP,
        keys=_KEYS | _GROUPS | _RMS,
        facts=_SILU
        | {
            "use_sliding_window": False,
            "no_rope_layer_interval": 4,
            "no_rope_layers": lambda lengths: [int((i + 1) % 4 != 0) for i in range(lengths["layers"])],
        },
        silent={"attention_bias": False, "mlp_bias": False, "layer_types": _full},
        absent={"tie_word_embeddings": True},
    ),
    Architecture(
        "olmo2",
        ("olmo2",),
        "Olmo2ForCausalLM",
        _MODEL,
        {
            "post_attention_norm": Weight("post_attention_layernorm", "width"),
            "post_ffw_norm": Weight("post_feedforward_layernorm", "width"),
            "attn_q_norm": Weight("self_attn.q_norm", "q"),
            "attn_k_norm": Weight("self_attn.k_norm", "kv"),
        }
        | _attention()
        | _MLP,
        _KEYS | _GROUPS | _RMS,
        facts=_SILU | {"tie_word_embeddings": False},
        silent={"attention_bias": False},
    ),
    Architecture(
        "olmoe",
        ("olmoe",),
        "OlmoeForCausalLM",
        _MODEL,
        _PRE_NORMS
        | _attention()
        | _EXPERTS
        | {"attn_q_norm": Weight("self_attn.q_norm", "q"), "attn_k_norm": Weight("self_attn.k_norm", "kv")},
        _KEYS
        | _GROUPS
        | _RMS
        | {"expert_count": "num_experts|num_local_experts", "expert_used_count": "num_experts_per_tok"},
        facts=_SILU | {"norm_topk_prob": False, "tie_word_embeddings": False},
        silent={
            "attention_bias": False,
            "clip_qkv": None,
            "num_key_value_heads": lambda lengths: lengths["heads"],  # its norm of keys is as wide as that of queries
        },
    ),
    replace(
        _LLAMA,
        name="granite",
        model_types=("granite",),
        model_class="GraniteForCausalLM",
        keys=_KEYS
        | _GROUPS
        | _RMS
        | {
            "attention.scale": "attention_multiplier",
            "embedding_scale": "embedding_multiplier",
            "residual_scale": "residual_multiplier",
            "logit_scale": "logits_scaling",
        },
    ),
    Architecture(
        "stablelm",
        ("stablelm",),
        "StableLmForCausalLM",
        _MODEL | {"output_norm": Weight("model.norm", "width", bias="always")},
        _attention("use_qkv_bias")
        | {
            "attn_norm": Weight("input_layernorm", "width", bias="always"),
            "ffn_norm": Weight("post_attention_layernorm", "width", bias="always", only="not use_parallel_residual"),
            "attn_q_norm": Weight("self_attn.q_layernorm.norms.{}", "heads head", STACK, only="qk_layernorm"),
            "attn_k_norm": Weight("self_attn.k_layernorm.norms.{}", "kv_heads head", STACK, only="qk_layernorm"),
        }
        | _MLP,
        _KEYS | _GROUPS | _LAYER_NORM,
        facts=_SILU | {"tie_word_embeddings": False},
        partial="partial_rotary_factor",
    ),
    Architecture(
        "starcoder2",
        ("starcoder2",),
        "Starcoder2ForCausalLM",
        _MODEL | {"output_norm": Weight("model.norm", "width", bias="always")},
        _biased(
            _PRE_NORMS
            | _attention()
            | {"ffn_up": Weight("mlp.c_fc", "inner width"), "ffn_down": Weight("mlp.c_proj", "width inner")},
            "always",
        ),
        _KEYS | _GROUPS | {"attention.layer_norm_epsilon": "norm_epsilon"},
        facts={"hidden_act": "gelu_pytorch_tanh", "use_bias": True},
        silent={"norm_type": "layer_norm", "mlp_type": "default", "scale_attn_weights": True},
        absent={"hidden_act": "gelu_pytorch_tanh", "use_bias": True, "tie_word_embeddings": True},
    ),
    Architecture(
        "gpt2",
        ("gpt2",),
        "GPT2LMHeadModel",
        {
            "token_embd": Weight("transformer.wte", "vocab width"),
            "position_embd": Weight("transformer.wpe", "positions width"),
            "output_norm": Weight("transformer.ln_f", "width", bias="always"),
            "output": Weight("lm_head", "vocab width", only="not tie_word_embeddings"),
        },
        {
            "attn_norm": Weight("ln_1", "width", bias="always"),
            "attn_qkv": Weight("attn.c_attn", "qkv width", TRANSPOSE, "always"),
            "attn_output": Weight("attn.c_proj", "width q", TRANSPOSE, "always"),
            "ffn_norm": Weight("ln_2", "width", bias="always"),
            "ffn_up": Weight("mlp.c_fc", "inner width", TRANSPOSE, "always"),
            "ffn_down": Weight("mlp.c_proj", "width inner", TRANSPOSE, "always"),
        },
        {
            "context_length": "n_positions",
            "embedding_length": "n_embd",
            "block_count": "n_layer",
            "feed_forward_length": "n_inner?",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        layers="transformer.h",
        facts={"activation_function": "gelu_new"},
        silent={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
        absent={"tie_word_embeddings": True},
        rotary=False,
    ),
    replace(
        _FALCON,
        sign="blk.0.attn_norm_2.weight",
        layer=_FALCON.layer
        | {
            "attn_norm": Weight("ln_mlp", "width", bias="always"),
            "attn_norm_2": Weight("ln_attn", "width", bias="always"),
        },
        keys=_FALCON.keys | {"attention.head_count_kv": "num_kv_heads"},
        facts=_FALCON.facts | {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2},
        absent=_FALCON.absent | {"new_decoder_architecture": False},
    ),
    _FALCON,
    Architecture(
        "gptneox",
        ("gpt_neox",),
        "GPTNeoXForCausalLM",
        {
            "token_embd": Weight("gpt_neox.embed_in", "vocab width"),
            "output_norm": Weight("gpt_neox.final_layer_norm", "width", bias="always"),
            "output": Weight("embed_out", "vocab width"),
        },
        {
            "attn_norm": Weight("input_layernorm", "width", bias="always"),
            "attn_qkv": Weight("attention.query_key_value", "qkv width", GROUPED_ROWS, "always"),
            "attn_output": Weight("attention.dense", "width q", bias="always"),
            "ffn_norm": Weight("post_attention_layernorm", "width", bias="always"),
            "ffn_up": Weight("mlp.dense_h_to_4h", "inner width", bias="always"),
            "ffn_down": Weight("mlp.dense_4h_to_h", "width inner", bias="always"),
        },
        _KEYS | _LAYER_NORM | {"use_parallel_residual": "use_parallel_residual"},
        layers="gpt_neox.layers",
        facts={"hidden_act": "gelu", "tie_word_embeddings": False},
        silent={"attention_bias": True},
        partial="rotary_pct",
        theta="rotary_emb_base",
    ),
)
