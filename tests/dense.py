"""A dense decoder written independently of the plans: float64, a matrix of who sees whom, no cache, no tiles."""

from __future__ import annotations

import math

import numpy as np

# f32 against f64: some hundred roundings of 2^-24 on values near one, three hundred ulp of 6e-8 at most.
TOLERANCE = 1e-4


def dense(raw: dict, weights: dict, tokens: list[int], positions: list[int], sees: np.ndarray) -> np.ndarray:
    """Logits (n, vocab); sees[i, j]: row i sees row j."""
    w = {name: tensor.to_float32().astype(np.float64) for name, tensor in weights.items()}
    heads, kv_heads = raw["num_attention_heads"], raw["num_key_value_heads"]
    size = raw.get("head_dim", raw["hidden_size"] // heads)

    def norm(x, name):
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + raw["rms_norm_eps"]) * w[name]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def rotate(x):  # (n, heads, size), as complex numbers: first half real, second half imaginary
        z = x[..., : size // 2] + 1j * x[..., size // 2 :]
        turns = np.outer(positions, [raw["rope_theta"] ** (-2 * i / size) for i in range(size // 2)])
        z = z * np.exp(1j * turns)[:, None, :]
        return np.concatenate([z.real, z.imag], axis=-1)

    x = w["model.embed_tokens.weight"][tokens]
    for i in range(raw["num_hidden_layers"]):
        at = f"model.layers.{i}"
        h = norm(x, f"{at}.input_layernorm.weight")
        q, k, v = (linear(h, f"{at}.self_attn.{c}_proj").reshape(len(tokens), -1, size) for c in "qkv")
        q, k = rotate(q), rotate(k)
        k, v = (np.repeat(a, heads // kv_heads, axis=1) for a in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(size)
        scores = np.where(sees, scores, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        x = x + linear(np.einsum("hij,jhd->ihd", p, v).reshape(len(tokens), -1), f"{at}.self_attn.o_proj")
        h = norm(x, f"{at}.post_attention_layernorm.weight")
        gate, up = linear(h, f"{at}.mlp.gate_proj"), linear(h, f"{at}.mlp.up_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * up, f"{at}.mlp.down_proj")
    head = w["model.embed_tokens.weight"] if raw.get("tie_word_embeddings") else w["lm_head.weight"]
    return norm(x, "model.norm.weight") @ head.T + w.get("lm_head.bias", 0.0)
