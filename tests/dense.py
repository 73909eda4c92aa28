"""A dense decoder written independently of the plans: float64, a matrix of who sees whom, no cache, no tiles.

Norms of queries and keys, and experts, where weights of such names are there.
"""

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
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + raw["rms_norm_eps"]) * w[name]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def rotate(x):  # (n, heads, size), as complex numbers: first half real, second half imaginary
        z = x[..., : size // 2] + 1j * x[..., size // 2 :]
        turns = np.outer(positions, [raw["rope_theta"] ** (-2 * i / size) for i in range(size // 2)])
        z = z * np.exp(1j * turns)[:, None, :]
        return np.concatenate([z.real, z.imag], axis=-1)

    def mlp(h, at):
        gate = linear(h, f"{at}.gate_proj")
        return linear(gate / (1 + np.exp(-gate)) * linear(h, f"{at}.up_proj"), f"{at}.down_proj")

    def mixture(h, at):  # row by row: its experts' outputs times their shares
        scores = linear(h, f"{at}.mlp.gate")
        shares, out = np.exp(scores - scores.max(axis=1, keepdims=True)), np.zeros_like(h)
        shares /= shares.sum(axis=1, keepdims=True)
        for i, row in enumerate(shares):
            chosen = np.argsort(-row)[: raw["num_experts_per_tok"]]
            whole = row[chosen].sum() if raw.get("norm_topk_prob") else 1.0
            for expert in chosen:
                out[i] += row[expert] / whole * mlp(h[i : i + 1], f"{at}.mlp.experts.{expert}")[0]
        return out + (mlp(h, f"{at}.shared_expert") if f"{at}.shared_expert.up_proj.weight" in w else 0)

    x = w["model.embed_tokens.weight"][tokens]
    for i in range(raw["num_hidden_layers"]):
        at = f"model.layers.{i}"
        h = norm(x, f"{at}.input_layernorm.weight")
        q, k, v = (linear(h, f"{at}.self_attn.{c}_proj").reshape(len(tokens), -1, size) for c in "qkv")
        if f"{at}.self_attn.q_norm.weight" in w:
            q, k = norm(q, f"{at}.self_attn.q_norm.weight"), norm(k, f"{at}.self_attn.k_norm.weight")
        q, k = rotate(q), rotate(k)
        k, v = (np.repeat(a, heads // kv_heads, axis=1) for a in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(size)
        scores = np.where(sees, scores, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        x = x + linear(np.einsum("hij,jhd->ihd", p, v).reshape(len(tokens), -1), f"{at}.self_attn.o_proj")
        h = norm(x, f"{at}.post_attention_layernorm.weight")
        x = x + (mixture(h, at) if f"{at}.mlp.gate.weight" in w else mlp(h, f"{at}.mlp"))
    head = w["model.embed_tokens.weight"] if raw.get("tie_word_embeddings") else w["lm_head.weight"]
    return norm(x, "model.norm.weight") @ head.T + w.get("lm_head.bias", 0.0)
