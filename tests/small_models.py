"""Small random models for tests: every shape that matters, in every format."""

from __future__ import annotations

import functools

import numpy as np

from fastdistill.checkpoint import Config, Tensor, quantize_tensor
from fastdistill.kernels.isa import isa_layout
from fastdistill.models import plan_for
from fastdistill.runtime.network import Network

FORMATS = ("f32", "f16", "bf16", "q8", "q4")

# Sizes that are and are not multiples of 16 and 32, one and several query heads a key head, biases, tied heads.
CONFIGS = {
    "plain": dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, vocab_size=300),
    "odd": dict(hidden_size=42, intermediate_size=50, num_attention_heads=7, num_key_value_heads=1, vocab_size=77, tie_word_embeddings=True),
    "biased": dict(
        hidden_size=48, intermediate_size=33, num_attention_heads=6, num_key_value_heads=6, head_dim=18, vocab_size=600,
        attention_bias=True, mlp_bias=True,
    ),
}  # fmt: skip


def config(name: str = "plain", layers: int = 2, **changes) -> Config:
    return Config(
        dict(
            model_type="llama",
            num_hidden_layers=layers,
            rms_norm_eps=1e-5,
            max_position_embeddings=512,
            rope_theta=10000.0,
        )
        | CONFIGS[name]
        | changes
    )


def llada_config(**changes) -> Config:
    """A masked diffusion model of LLaDA's layout; its last token is the mask."""
    return Config(
        dict(
            model_type="llada", d_model=48, n_heads=6, n_layers=2, mlp_hidden_size=56, vocab_size=90,
            max_sequence_length=128, rope=True, rope_theta=10000.0, block_type="llama", activation_type="silu",
            embedding_size=None,
            layer_norm_type="rms", weight_tying=False, mask_token_id=89,
        ) | changes
    )  # fmt: skip


def dream_config(**changes) -> Config:
    """A masked diffusion model of Dream's layout; its last token is the mask."""
    vocab_size = changes.get("vocab_size", CONFIGS["plain"]["vocab_size"])
    return config(**dict(model_type="Dream", mask_token_id=vocab_size - 1) | changes)


def tensors(plan, seed: int = 0, format: str = "f32") -> dict[str, Tensor]:
    """Random weights that keep activations near one; matrices in `format`."""
    random = np.random.default_rng(seed)
    made = {}
    for name, shape in plan.stored.items():
        scale = shape[-1] ** -0.5 if len(shape) == 2 else 0.3
        data = (random.standard_normal(shape) * scale).astype(np.float32)
        if name.endswith(("norm.weight", "ln_f.weight")):
            data += 1
        tensor = Tensor(name, "f32", shape, data)
        made[name] = quantize_tensor(tensor, format) if len(shape) == 2 and format != "f32" else tensor
    return made


def network(
    name: str = "plain", format: str = "f32", executor: str = "native", threads: int = 2, layers: int = 2, seed: int = 0
) -> Network:
    return _network(name, format, executor, threads, layers, seed, isa_layout())


@functools.cache
def _network(name: str, format: str, executor: str, threads: int, layers: int, seed: int, layout: str) -> Network:
    plan = plan_for(config(name, layers))
    return Network(plan, tensors(plan, seed, format), threads=threads, executor=executor)
