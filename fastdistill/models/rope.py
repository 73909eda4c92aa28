"""Inverse frequencies of rotary positions, from a config's `rope_parameters`."""

from __future__ import annotations

import math

import numpy as np

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short

# Why a kind is not supported.
REFUSED = {
    "dynamic": "its frequencies depend on the text's length, so each token would change the logits of those before it",
    "longrope": "its frequencies depend on the text's length, so each token would change the logits of those before it",
    "yarn": "it scales queries and keys beside their frequencies, which no plan here does",
    "mrope": "its positions have several coordinates",
}
REFUSED["su"] = REFUSED["longrope"]  # its name in Phi-3's first files


def inverse_frequencies(config: Config, head_dim: int) -> np.ndarray:
    """float32 (head_dim / 2,): theta^(-2 i / head_dim), scaled as `rope_type` says.

    `linear` divides all by `factor`; `llama3` divides low frequencies by `factor` and blends between the two
    wavelengths that `low_freq_factor` and `high_freq_factor` name (Llama 3.1's released code).

    Raises
    ------
    UnsupportedError
        for any other kind
    CheckpointError
        for impossible numbers
    """
    rope = config.section("rope_parameters")
    if rope.number("partial_rotary_factor", minimum=0.0, maximum=1.0, default=1.0) != 1.0:
        raise UnsupportedError("partial_rotary_factor: only rotary positions over the whole head are supported")
    kind = rope.string("rope_type", default="default")
    frequencies = _plain(config, head_dim)
    if kind == "linear":
        frequencies /= rope.number("factor", minimum=1.0, maximum=1e6)
    elif kind == "llama3":
        factor = rope.number("factor", minimum=1.0, maximum=1e6)
        low = rope.number("low_freq_factor", minimum=1e-3, maximum=1e6)
        high = rope.number("high_freq_factor", minimum=1e-3, maximum=1e6)
        original = rope.integer("original_max_position_embeddings", minimum=1, maximum=1 << 30)
        if not low < high:
            rope.refuse("high_freq_factor", high, f"more than low_freq_factor = {low:g}")
        turns = original * frequencies / (2 * math.pi)  # of each frequency over the original context
        share = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies = share * frequencies + (1 - share) * frequencies / factor
    elif kind != "default":
        reason = REFUSED.get(kind, "it is not known here")
        raise UnsupportedError(f"rope_type {short(kind)} is not supported, only default, linear and llama3: {reason}")
    elif (factor := rope.number("factor", default=1.0)) != 1.0:
        raise UnsupportedError(f"{rope.source}: factor is {factor:g}, but no rope_type says what it scales")
    return frequencies.astype(np.float32)


def plain_frequencies(config: Config, head_dim: int) -> np.ndarray:
    """float32 (head_dim / 2,): theta^(-2 i / head_dim), whatever the `rope_type`."""
    return _plain(config, head_dim).astype(np.float32)


def _plain(config: Config, head_dim: int) -> np.ndarray:
    theta = config.section("rope_parameters").number("rope_theta", minimum=1.0, maximum=1e12, default=10000.0)
    return np.array([theta ** (-2 * i / head_dim) for i in range(head_dim // 2)])
