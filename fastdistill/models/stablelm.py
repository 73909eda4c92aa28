"""StableLM (Bellagente et al. 2024): layer norms, a quarter of each head rotated, perhaps both halves of a layer side by side."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.config_keys import without
from fastdistill.models.decoder import Names
from fastdistill.models.described import Sizes, decoder
from fastdistill.models.llama import LLAMA
from fastdistill.models.plan import Plan
from fastdistill.models.source import Source, stacked, stored

_NOT_STABLELM = ("head_dim", "rms_norm_eps", "attention_bias", "mlp_bias")
MODEL_TYPES = {
    "stablelm": without(LLAMA, *_NOT_STABLELM)
    | {
        "vocab_size": 50304,
        "hidden_size": 2560,
        "intermediate_size": 6912,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "layer_norm_eps": 1e-5,
        "use_qkv_bias": False,
        "qk_layernorm": False,
        "use_parallel_residual": False,
    }
}


def plan(config: Config) -> Plan:
    """The forward pass of one StableLM; where queries and keys are normed, each head has a norm of its own."""
    parallel, normed = config.boolean("use_parallel_residual"), config.boolean("qk_layernorm")
    size, kv_heads = Sizes.of(config), config.integer("num_key_value_heads", minimum=1)

    def sources(at: str) -> dict[str, Source]:
        def of_heads(norm: str, count: int) -> Source:
            return stacked(*(stored(f"{at}self_attn.{norm}.norms.{i}.weight", (size.head_dim,)) for i in range(count)))

        norms = {"q_layernorm": size.heads, "k_layernorm": kv_heads} if normed else {}
        return {f"{at}self_attn.{norm}.weight": of_heads(norm, count) for norm, count in norms.items()}

    return decoder(
        config,
        "stablelm",
        partial=0.25,
        names=Names(
            mlp_norm="" if parallel else "post_attention_layernorm",
            q_norm="self_attn.q_layernorm",
            k_norm="self_attn.k_layernorm",
        ),
        sources=sources,
        layer_norm=True,
        parallel=parallel,
        qk_norm="head" if normed else "",
        qkv_bias=config.boolean("use_qkv_bias"),
    )
