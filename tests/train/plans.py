"""Small plans that together have every op with an adjoint."""

from __future__ import annotations

from functools import partial

import numpy as np

from fastdistill.checkpoint.config import Section
from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan
from fastdistill.models.rope import rotary

WIDTH, INNER, VOCAB = 12, 20, 23
FACTS = dict(vocab_size=VOCAB, hidden_size=WIDTH, max_positions=64, architecture="none")


def linear(bias: bool = True) -> Plan:
    """x + down(up x + gate x), times a half."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    for i in range(2):
        with b.layer(i, x):
            up, gate = (b.linear(x, f"{name}{i}", INNER, bias=bias) for name in ("up", "gate"))
            x = b.add(x, b.scale(b.linear(b.add(up, gate), f"down{i}", WIDTH, bias=bias), 0.5))
    return b.plan(x, {"hidden": b.read(x)}, {}, **FACTS)


HEADS, HEAD_DIM = 4, 6
SLOPES = np.array([0.5, 0.25, 0.125, -0.02], np.float32)
WAYS = {
    "attention": {},
    "windowed attention": dict(window=3),
    "capped attention": dict(softcap=0.7),
    "sloped attention": dict(slopes=SLOPES),
    "attention in all ways": dict(window=4, softcap=0.7, slopes=SLOPES),
}


def attention(
    kv_heads: int = 2, head_dim: int = HEAD_DIM, layers: int = 2, width: int = WIDTH, heads: int = HEADS, **how
) -> Plan:
    """x + out(attention), its queries and keys rotated, in layers."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, width)
    turn = rotary(Section({}, "rope"), head_dim, 64)
    for i in range(layers):
        with b.layer(i, x):
            q, k, v = (
                b.linear(x, f"{name}{i}", n * head_dim)
                for name, n in zip("qkv", (heads, kv_heads, kv_heads), strict=True)
            )
            q, k = (b.rotary(y, head_dim, turn) for y in (q, k))
            y = b.attention(q, k, v, head_dim, head_dim**-0.5, **how)
            x = b.add(x, b.linear(y, f"out{i}", width))
    return b.plan(x, {"hidden": b.read(x)}, {}, **FACTS | dict(hidden_size=width))


PLANS = {"linear": linear} | {name: partial(attention, **how) for name, how in WAYS.items()}
