"""Rotary positions, from a config's `rope_parameters`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastdistill.checkpoint.config import Section
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short

# Why a kind is not supported.
REFUSED = {
    "dynamic": "its frequencies depend on the text's length, so each token would change the logits of those before it",
    "mrope": "its positions have several coordinates",
}
# What each kind reads beside rope_type and rope_theta.
KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
        "original_max_position_embeddings",
    ),
    "longrope": ("short_factor", "long_factor", "factor", "attention_factor", "original_max_position_embeddings"),
}  # fmt: skip
_KINDS = {"su": "longrope"}  # its name in Phi-3's first files


@dataclass(frozen=True, eq=False)
class Rotary:
    """How positions turn queries and keys.

    Attributes
    ----------
    inverse_frequencies : float32 (pairs,)
        times the position: the angle of each pair of numbers that turns
    factor : float, default 1.0
        times their cosine and sine
    plain : float32 (pairs,)
        the inverse frequencies before any scaling
    long : float32 (pairs,) or None
        those of sessions that have room for more than `original` positions; None: all sessions have the same
    original : int
        positions of the context before it was extended; 0 without `long`
    """

    inverse_frequencies: np.ndarray
    factor: float
    plain: np.ndarray
    long: np.ndarray | None = None
    original: int = 0


def rotary(
    rope: Section, head_dim: int, positions: int, *, theta: float = 10000.0, partial: float | None = None
) -> Rotary:
    """What `rope_parameters` says: theta^(-2 i / d) of each pair of the d numbers of a head that turn, scaled as `rope_type` says.

    `linear` divides all by `factor`; `llama3` divides low frequencies by `factor` and blends between the two
    wavelengths that `low_freq_factor` and `high_freq_factor` name (Llama 3.1's released code); `yarn` blends between
    pairs that turn `beta_fast` and `beta_slow` times over the original context (Peng et al. 2023); `longrope` divides each
    by a factor of its own, and by another where a session has room for more than the original context (Ding et al. 2024): a
    text's frequencies do not change as it grows.

    Parameters
    ----------
    rope : Section
    head_dim : int
    positions : int
        max_position_embeddings
    theta : float
        rope_theta, where the section does not say
    partial : float, optional
        partial_rotary_factor, the part of a head that turns, where the section does not say; None: of a family whose heads
        turn as a whole

    Raises
    ------
    UnsupportedError
        for any other kind
    CheckpointError
        for impossible numbers
    """
    asked = rope.number("partial_rotary_factor", minimum=0.0, maximum=1.0, default=1.0 if partial is None else partial)
    if partial is None and asked != 1.0:
        raise UnsupportedError(
            f"{rope.source}: partial_rotary_factor is {asked:g}, but this family's heads turn as a whole"
        )
    partial = asked
    turning = int(head_dim * partial + 1e-6)  # 44 * (30 / 44) is 29.999...
    pairs = turning // 2
    if pairs < 1 or turning % 2:
        rope.refuse("partial_rotary_factor", partial, f"an even part of head_dim = {head_dim}")
    theta = rope.number("rope_theta", minimum=1.0, maximum=1e12, default=theta)
    kind = rope.string("rope_type", default="default")
    kind = _KINDS.get(kind, kind)
    if kind not in KEYS:
        reason = REFUSED.get(kind, "it is not known here")
        raise UnsupportedError(f"rope_type {short(kind)} is not supported, only {', '.join(KEYS)}: {reason}")
    for key, value in rope.raw.items():
        known = key in ("rope_type", "type", "rope_theta", "partial_rotary_factor", *KEYS[kind])
        if not known and value is not None and not (key == "factor" and value == 1.0):
            raise UnsupportedError(
                f"{rope.source}: {short(key)} is {short(value)}, but rope_type {kind} does not read it"
            )
    plain = np.array([theta ** (-i / pairs) for i in range(pairs)])
    if kind == "longrope":
        return _longrope(rope, plain, positions)
    scaled, factor = _SCALED[kind](rope, plain, theta, positions) if kind != "default" else (plain, 1.0)
    return Rotary(scaled.astype(np.float32), factor, plain.astype(np.float32))


def _factor(rope: Section, default: object = ...) -> float:
    return float(rope.number("factor", minimum=1.0, maximum=1e6, default=default))


def _original(rope: Section, positions: int) -> int:
    return int(rope.integer("original_max_position_embeddings", minimum=2, maximum=1 << 30, default=positions))


def _linear(rope: Section, plain: np.ndarray, theta: float, positions: int) -> tuple[np.ndarray, float]:
    return plain / _factor(rope), 1.0


def _llama3(rope: Section, plain: np.ndarray, theta: float, positions: int) -> tuple[np.ndarray, float]:
    factor = _factor(rope)
    low = rope.number("low_freq_factor", minimum=1e-3, maximum=1e6)
    high = rope.number("high_freq_factor", minimum=1e-3, maximum=1e6)
    if not low < high:
        rope.refuse("high_freq_factor", high, f"more than low_freq_factor = {low:g}")
    turns = _original(rope, positions) * plain / (2 * math.pi)  # of each frequency over the original context
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return share * plain + (1 - share) * plain / factor, 1.0


def _yarn(rope: Section, plain: np.ndarray, theta: float, positions: int) -> tuple[np.ndarray, float]:
    original, pairs = _original(rope, positions), len(plain)
    factor = _factor(rope, max(1.0, positions / original))
    fast = rope.number("beta_fast", minimum=1e-3, maximum=1e6, default=32.0)
    slow = rope.number("beta_slow", minimum=1e-3, maximum=1e6, default=1.0)
    # The pair that turns so many times over the original context.
    first, last = (pairs * math.log(original / (turns * 2 * math.pi)) / math.log(theta) for turns in (fast, slow))
    if rope.boolean("truncate", default=True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    share = np.clip((np.arange(pairs) - first) / (last - first or 1e-3), 0.0, 1.0)  # of what is divided

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0

    own, all_dim = (rope.number(key, minimum=0.0, maximum=1e3, default=0.0) for key in ("mscale", "mscale_all_dim"))
    usual = magnitude(own) / magnitude(all_dim) if own and all_dim else magnitude(1.0)
    stretch = rope.number("attention_factor", minimum=0.0, maximum=1e3, default=usual)
    return share * plain / factor + (1 - share) * plain, stretch


def _longrope(rope: Section, plain: np.ndarray, positions: int) -> Rotary:
    original = _original(rope, positions)
    factor = rope.number("factor", minimum=1e-3, maximum=1e6, default=positions / original)
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    stretch = rope.number("attention_factor", minimum=0.0, maximum=1e3, default=usual)
    short, long = (
        (plain / rope.numbers(key, len(plain), minimum=1e-3, maximum=1e6)).astype(np.float32)
        for key in ("short_factor", "long_factor")
    )
    return Rotary(short, stretch, plain.astype(np.float32), long, original)


_SCALED = {"linear": _linear, "llama3": _llama3, "yarn": _yarn}
