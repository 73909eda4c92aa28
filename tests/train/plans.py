"""Small plans that together have every op with an adjoint."""

from __future__ import annotations

from functools import partial

import numpy as np

from fastdistill.checkpoint.config import Section
from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan
from fastdistill.models.rope import rotary
from fastdistill.ops.activation import ACTIVATIONS

WIDTH, INNER, WIDE, VOCAB = 12, 20, 270, 23
FACTS = dict(vocab_size=VOCAB, hidden_size=WIDTH, max_positions=64, architecture="none")


def linear(bias: bool = True) -> Plan:
    """x + down(up x + gate x) / 2, of few numbers, and of more than a tile of C sums or writes at a time."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    for i, inner in enumerate((INNER, WIDE)):
        with b.layer(i, x):
            up, gate = (b.linear(x, f"{name}{i}", inner, bias=bias) for name in ("up", "gate"))
            x = b.add(x, b.scale(b.linear(b.add(up, gate), f"down{i}", WIDTH, bias=bias), 0.5))
    return b.plan(x, {"hidden": b.read(x)}, {}, **FACTS)


def columns() -> Plan:
    """Rows of three tables for three tokens of each row, of which some have none."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    with b.layer(0, x):
        for column, table in enumerate(("second", "third"), 1):
            x = b.add(x, b.linear(b.embedding(table, VOCAB, WIDTH, column=column), f"proj{column}", WIDTH))
    return b.plan(x, {"hidden": b.read(x)}, {}, **FACTS)


def norms() -> Plan:
    """x + norm of x, for each norm of the row and of heads, which have their own weights or share them."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    with b.layer(0, x):
        for how in ((0, False), (4, False), (4, True)):
            x = b.add(x, b.rms_norm(x, f"rms{how}", 1e-5, *how))
            x = b.add(x, b.layer_norm(x, f"layer{how}", f"bias{how}", 1e-5, *how))
        wide = b.linear(x, "wide", 2 * WIDE)
        for head_dim in (WIDE, 36):
            wide = b.rms_norm(wide, f"rms{head_dim}", 1e-5, head_dim, shared=True)
        x = b.add(x, b.linear(wide, "out", WIDTH))
    return b.plan(x, {"hidden": b.read(x)}, {}, **FACTS)


def activations() -> Plan:
    """x + down(f(gate x) * up x) + down2(f(up2 x)), for each activation f."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    for i, name in enumerate(ACTIVATIONS):
        with b.layer(i, x):
            gate, up, one = (b.linear(x, f"{of}{i}", INNER) for of in ("gate", "up", "one"))
            x = b.add(x, b.linear(b.gated(gate, up, name), f"down{i}", WIDTH))
            x = b.add(x, b.linear(b.activation(one, name), f"two{i}", WIDTH))
    return b.plan(x, {"hidden": b.read(x)}, {}, **FACTS)


def shares() -> Plan:
    """Tokens and positions, x + c tanh(inner x / c) sigmoid(share x), and a head over the tokens' table with a cap."""
    b = Builder()
    x = b.embedding("embedding.weight", VOCAB, WIDTH)
    x = b.add(x, b.position_embedding("positions", FACTS["max_positions"], WIDTH))
    with b.layer(0, x):
        inner = b.op("softcap", b.linear(x, "inner", WIDTH), softcap=1.5)
        x = b.add(x, b.sigmoid_mul(inner, b.linear(x, "share", 1)))
    read = b.read(x)
    return b.plan(x, {"hidden": read, "logits": b.head(read, "embedding", VOCAB, softcap=2.0)}, {}, **FACTS)


def experts() -> Plan:
    """x + a mixture of experts of x: shares over all or among those picked, of several experts or of one."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    for i, (count, top_k, inner, renormalised) in enumerate(
        [(5, 2, INNER, False), (3, 1, 32, False), (4, 3, WIDE, True)]
    ):
        with b.layer(i, x):
            routes = b.route(b.linear(x, f"router{i}", count, exact=True), top_k, renormalised)
            names = [f"{i}.{of}{expert}" for expert in range(count) for of in ("gate", "up")]
            made = b.experts_up(x, routes, names, inner, top_k, "silu")
            x = b.add(x, b.experts_down(made, routes, [f"{i}.down{n}" for n in range(count)], WIDTH, inner, top_k))
    return b.plan(x, {"hidden": b.read(x)}, {}, **FACTS)


HEADS, HEAD_DIM = 4, 6
SLOPES = np.array([0.5, 0.25, 0.125, -0.02], np.float32)
WAYS = {
    "attention": {},
    "windowed attention": dict(window=3),
    "attention to both sides": dict(window=3, ahead=2),
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


PLANS = {
    "linear": linear,
    "columns": columns,
    "norms": norms,
    "activations": activations,
    "shares": shares,
    "experts": experts,
}
PLANS |= {name: partial(attention, **how) for name, how in WAYS.items()}
