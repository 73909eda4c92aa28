"""StarCoder2 (Lozhkov et al. 2024): layer norms, a plain feed-forward network, biases everywhere, windows."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short
from fastdistill.models.decoder import Names
from fastdistill.models.described import decoder
from fastdistill.models.plan import Plan

# What published files say beside: all that the class has.
FIXED = {"norm_type": "layer_norm", "mlp_type": "default", "scale_attn_weights": True}
MODEL_TYPES: dict[str, dict[str, Any]] = {
    "starcoder2": {
        "vocab_size": 49152,
        "hidden_size": 3072,
        "intermediate_size": 12288,
        "num_hidden_layers": 30,
        "num_attention_heads": 24,
        "num_key_value_heads": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096,
        "norm_epsilon": 1e-5,
        "sliding_window": None,
        "use_bias": True,
        "tie_word_embeddings": True,
        "is_causal": True,
    }
    | FIXED
}
NAMES = Names(gate="", up="mlp.c_fc", down="mlp.c_proj")


def plan(config: Config) -> Plan:
    """The forward pass of one StarCoder2."""
    for key, value in FIXED.items():
        if (found := config.raw.get(key)) not in (None, value):
            raise UnsupportedError(f"{key} {short(found)} is not supported by the starcoder2 plan, only {short(value)}")
    bias = config.boolean("use_bias")
    return decoder(
        config.respelt(layer_norm_eps="norm_epsilon"),
        "starcoder2",
        names=NAMES,
        layer_norm=True,
        qkv_bias=bias,
        attention_out_bias=bias,
        mlp_bias=bias,
    )
