"""A small config of every family, and of what each can be besides: what tests of all families go through."""

from __future__ import annotations

import functools

from fastdistill.checkpoint import Config
from fastdistill.kernels.isa import isa_layout
from fastdistill.models import plan_for
from fastdistill.runtime.network import Network
from tests import small_models
from tests.small_models import CONFIGS, dream_config, llada_config, tensors

# No multiple of 16 but by chance, grouped heads, an odd vocabulary: padding has to stay zero.
SIZES = dict(
    hidden_size=44, intermediate_size=50, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=83, max_position_embeddings=96,
)  # fmt: skip
GPT = dict(n_embd=40, n_layer=2, n_head=4, n_positions=64, vocab_size=83)
NEOX = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"} | dict(hidden_size=64)
FALCON = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=83)
MIXTURE = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=20)
LLADA_MOE = {key: value for key, value in SIZES.items() if key != "intermediate_size"} | dict(
    hidden_size=48, dense_intermediate_size=50, expert_intermediate_size=20, num_experts=6, num_experts_per_tok=2,
    moe_layer_freq=[1, 1], qk_layernorm=True, rope_theta=5e4, rms_norm_eps=1e-5, mask_token_id=82,
)  # fmt: skip
SDAR = dict(block_size=4, rope_theta=1e6, rms_norm_eps=1e-6, mask_token_id=82)

# name -> (model_type, config.json beside it)
CASES: dict[str, tuple[str, dict]] = {
    "llama": ("llama", SIZES | dict(hidden_size=48)),
    "mistral": ("mistral", SIZES | dict(hidden_size=48, sliding_window=5)),
    "mixtral": ("mixtral", SIZES | dict(hidden_size=48, num_local_experts=5, num_experts_per_tok=2)),
    "qwen2": ("qwen2", SIZES | dict(hidden_size=48, tie_word_embeddings=True)),
    "qwen2, windows above": ("qwen2", SIZES | dict(hidden_size=48, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    "qwen3": ("qwen3", SIZES | dict(head_dim=10)),
    "qwen3, yarn": ("qwen3", SIZES | dict(head_dim=24, rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=24))),
    "qwen2_moe": ("qwen2_moe", SIZES | MIXTURE | dict(hidden_size=48, shared_expert_intermediate_size=28)),
    "qwen3_moe": ("qwen3_moe", SIZES | MIXTURE | dict(head_dim=14, norm_topk_prob=True, mlp_only_layers=[1])),
    "gemma2": ("gemma2", SIZES | dict(head_dim=14, sliding_window=6, query_pre_attn_scalar=20)),
    "gemma3": ("gemma3_text", SIZES | dict(head_dim=14, sliding_window=6, sliding_window_pattern=2, num_hidden_layers=3)),
    "phi3": ("phi3", SIZES | dict(hidden_size=48, partial_rotary_factor=0.5, pad_token_id=0)),
    "phi3, long": (
        "phi3",
        SIZES | dict(hidden_size=48, pad_token_id=0, original_max_position_embeddings=24,
                     rope_scaling=dict(type="longrope", short_factor=[1.0, 1.1, 1.2, 1.5, 2.0, 3.0], long_factor=[1.0, 1.5, 2.0, 4.0, 6.0, 9.0])),
    ),
    "smollm3": ("smollm3", SIZES | dict(hidden_size=48, pad_token_id=0, no_rope_layer_interval=2, num_hidden_layers=3)),
    "olmo2": ("olmo2", SIZES | dict(hidden_size=48)),
    "olmoe": ("olmoe", SIZES | dict(hidden_size=48, num_experts=6, num_experts_per_tok=2)),
    "granite": ("granite", SIZES | dict(hidden_size=48, embedding_multiplier=3.0, attention_multiplier=0.2, residual_multiplier=0.3, logits_scaling=4.0)),
    "stablelm": ("stablelm", SIZES | dict(hidden_size=64, use_qkv_bias=True)),
    "stablelm, parallel": ("stablelm", SIZES | dict(hidden_size=64, qk_layernorm=True, use_parallel_residual=True)),
    "starcoder2": ("starcoder2", SIZES | dict(hidden_size=48)),
    "starcoder2, windows, no biases": ("starcoder2", SIZES | dict(hidden_size=48, sliding_window=5, use_bias=False, tie_word_embeddings=False)),
    "gpt2": ("gpt2", GPT),
    "gpt_neox": ("gpt_neox", NEOX),
    "gpt_neox, one after the other": ("gpt_neox", NEOX | dict(use_parallel_residual=False, attention_bias=False, rotary_pct=0.5)),
    "gptj": ("gptj", GPT | dict(rotary_dim=4)),
    "falcon": ("falcon", FALCON),
    "falcon, grouped": ("falcon", FALCON | dict(new_decoder_architecture=True, num_kv_heads=2)),
    "falcon, one after the other": ("falcon", FALCON | dict(multi_query=False, parallel_attn=False, bias=True)),
    "llada": ("llada", {key: value for key, value in llada_config().raw.items() if key != "model_type"}),
    "dream": ("Dream", {key: value for key, value in dream_config().raw.items() if key != "model_type"}),
    "llada_moe": ("lladamoe", LLADA_MOE),
    "llada_moe, a dense layer": ("lladamoe", LLADA_MOE | dict(moe_layer_freq=[0, 1], shared_expert_intermediate_size=12, qk_layernorm=False)),
    "sdar": ("sdar", SIZES | SDAR | dict(head_dim=10)),
    "sdar_moe": ("sdar_moe", SIZES | MIXTURE | SDAR | dict(head_dim=14, norm_topk_prob=True)),
}  # fmt: skip
# Models with an encoder, whose rows attend to a source: as many heads as keys, none of both stacks alike.
BART = dict(
    vocab_size=83, d_model=44, max_position_embeddings=96, encoder_layers=2, encoder_ffn_dim=50, encoder_attention_heads=4,
    decoder_layers=2, decoder_ffn_dim=38, decoder_attention_heads=2, decoder_start_token_id=2, bos_token_id=0, eos_token_id=2,
    pad_token_id=1, forced_eos_token_id=2,
)  # fmt: skip
SOURCED: dict[str, tuple[str, dict]] = {
    "bart": ("bart", BART),
    "bart, scaled": ("bart", BART | dict(scale_embedding=True, activation_function="gelu_new", encoder_layers=1, decoder_layers=3, forced_bos_token_id=0)),
    "marian": ("marian", BART | dict(d_model=36, activation_function="swish", scale_embedding=True, decoder_start_token_id=82, eos_token_id=0,
                                     forced_eos_token_id=0, pad_token_id=82, bad_words_ids=[[82]])),
}  # fmt: skip
T5 = dict(
    vocab_size=83, d_model=44, d_kv=10, d_ff=50, num_layers=2, num_decoder_layers=3, num_heads=3, relative_attention_num_buckets=8,
    relative_attention_max_distance=20, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
)  # fmt: skip
SOURCED |= {
    "t5": ("t5", T5),
    "t5, gated, a head of its own": (
        "t5",
        T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_layers=3, num_decoder_layers=2),
    ),
    "mt5": ("mt5", T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "umt5": ("umt5", T5 | dict(feed_forward_proj="gated-gelu", num_decoder_layers=2)),
}
EVERY = CASES | SOURCED
MASKED = ("llada", "lladamoe", "Dream", "sdar", "sdar_moe")
CAUSAL = [name for name, (model_type, _) in CASES.items() if model_type not in MASKED]
OF_TYPE = {model_type: name for name, (model_type, _) in reversed(EVERY.items())}  # the first case of each


def family_config(name: str, **changes) -> Config:
    """The config of a case."""
    model_type, raw = EVERY[name]
    return Config({"model_type": model_type} | raw | changes)


def network(name: str, format: str = "f32", executor: str = "native", threads: int = 2) -> Network:
    """A network of a case, or of one of `small_models.CONFIGS`, with random weights."""
    if name in CONFIGS:
        return small_models.network(name, format, executor, threads)
    return _network(name, format, executor, threads, isa_layout())


@functools.cache
def _network(name: str, format: str, executor: str, threads: int, layout: str) -> Network:
    plan = plan_for(family_config(name))
    return Network(plan, tensors(plan), format=None if format == "f32" else format, threads=threads, executor=executor)
