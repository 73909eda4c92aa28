"""Plans of shapes that no family here has, small: post-norm layers, parallel branches, an encoder without a head."""

from __future__ import annotations

import numpy as np

from fastdistill.checkpoint.config import Section
from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan
from fastdistill.models.rope import rotary

WIDTH, INNER, VOCAB, HEAD_DIM = 42, 50, 77, 14  # no multiples of 16: padding has to stay zero
FACTS = dict(vocab_size=VOCAB, hidden_size=WIDTH, max_positions=256, architecture="none")
ROTARY = rotary(Section({}, "rope"), HEAD_DIM, 256)


def attention(b: Builder, x: int, name: str, kv_heads: int = 1, **how) -> int:
    """Self-attention of three query heads, its output projected."""
    q = b.rotary(b.linear(x, f"{name}.q", 3 * HEAD_DIM), HEAD_DIM, ROTARY)
    k = b.rotary(b.linear(x, f"{name}.k", kv_heads * HEAD_DIM), HEAD_DIM, ROTARY)
    v = b.linear(x, f"{name}.v", kv_heads * HEAD_DIM)
    return b.linear(b.attention(q, k, v, HEAD_DIM, HEAD_DIM**-0.5, **how), f"{name}.out", WIDTH)


def feed_forward(b: Builder, x: int, name: str) -> int:
    """down(silu(gate x) * up x)."""
    gate, up = b.linear(x, f"{name}.gate", INNER), b.linear(x, f"{name}.up", INNER)
    return b.linear(b.gated(gate, up, "silu"), f"{name}.down", WIDTH)


def post_norm(b: Builder, x: int, name: str) -> int:
    """norm(x + f(x)), twice: x lies elsewhere after each layer, and linears read it as it enters."""
    x = b.rms_norm(b.add(x, attention(b, x, name)), f"{name}.attention.norm", 1e-5)
    return b.rms_norm(b.add(x, feed_forward(b, x, name)), f"{name}.inner.norm", 1e-5)


def parallel(b: Builder, x: int, name: str) -> int:
    """x + attention(norm x) + inner(norm x): the norm is read by both."""
    h = b.rms_norm(x, f"{name}.norm", 1e-5)
    return b.add(b.add(x, attention(b, h, name)), feed_forward(b, h, name))


def unprojected(b: Builder, x: int, name: str) -> int:
    """A norm straight behind rotary positions, and a norm and a sum straight behind attention: they read a row's padding."""
    h = b.rms_norm(x, f"{name}.norm", 1e-5)
    q = b.rms_norm(b.rotary(b.linear(h, f"{name}.q", WIDTH), HEAD_DIM, ROTARY), f"{name}.q.norm", 1e-5)
    k = b.rotary(b.linear(h, f"{name}.k", HEAD_DIM), HEAD_DIM, ROTARY)
    v = b.linear(h, f"{name}.v", HEAD_DIM)
    found = b.attention(q, k, v, HEAD_DIM, HEAD_DIM**-0.5)
    x = b.rms_norm(b.add(b.add(x, found), b.rms_norm(found, f"{name}.found.norm", 1e-5)), f"{name}.sum.norm", 1e-5)
    return b.add(x, feed_forward(b, x, name))


def attending(**how):
    """x + attention(norm x) alone, attention done in some way."""

    def layer(b: Builder, x: int, name: str) -> int:
        return b.add(x, attention(b, b.rms_norm(x, f"{name}.norm", 1e-5), name, **how))

    return layer


SLOPES = np.array([0.5, 0.05, -0.02], np.float32)  # the last one grows with distance: no model has it, C does not care
WAYS = {
    "window": dict(window=5),
    "long window": dict(window=150, kv_heads=3),
    "both sides": dict(window=5, ahead=3),
    "far to both sides": dict(window=150, ahead=130, kv_heads=3),
    "softcap": dict(softcap=2.0),
    "slopes": dict(slopes=SLOPES),
    "all": dict(window=140, softcap=3.0, slopes=SLOPES, kv_heads=3),
    "distances": dict(distances="distances", reach=20),  # all layers share one table, and texts go beyond its reach
    "far distances": dict(distances="distances", reach=150, window=170, softcap=3.0, kv_heads=3),
}

LAYERS = {"post-norm": post_norm, "parallel": parallel, "unprojected": unprojected}


def layered(layer, count: int, head: bool = True) -> Plan:
    """`count` layers behind an embedding; then the head, or a pooled output beside the stream itself."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    for i in range(count):
        with b.layer(i, x):
            x = layer(b, x, f"layers.{i}")
        b.tap(x, f"layers.{i}")
    read = b.read(x)
    if head:
        return b.plan(x, {"logits": b.head(read, "head", VOCAB), "hidden": read}, {}, **FACTS)
    return b.plan(x, {"hidden": x, "pooled": b.linear(b.rms_norm(read, "norm", 1e-5), "pooler", 20)}, {}, **FACTS)


def encoder_decoder(encoders: int = 2, decoders: int = 2) -> Plan:
    """An encoder whose rows see each other, and a decoder that attends to what it gives, layer by layer."""
    b = Builder()
    with b.segment("encode"):
        x = b.embedding("encoder.embedding", VOCAB, WIDTH)
        for i in range(encoders):
            x = b.rms_norm(b.add(x, attention(b, x, f"encoder.{i}", key_set="encode")), f"encoder.{i}.norm", 1e-5)
        stored = [
            b.store(
                b.linear(x, f"cross.{i}.k", 2 * HEAD_DIM), b.linear(x, f"cross.{i}.v", 2 * HEAD_DIM), HEAD_DIM, "cross"
            )
            for i in range(decoders)
        ]
    encoded, x = x, b.embedding("embedding", VOCAB, WIDTH)
    for i in range(decoders):
        with b.layer(i, x):
            x = post_norm(b, x, f"layers.{i}")
            q = b.linear(x, f"layers.{i}.cross.q", 4 * HEAD_DIM)
            y = b.linear(b.cross_attention(q, stored[i], HEAD_DIM, HEAD_DIM**-0.5), f"layers.{i}.cross.out", WIDTH)
            x = b.rms_norm(b.add(x, y), f"layers.{i}.cross.norm", 1e-5)
    hidden = b.read(x)
    return b.plan(x, {"logits": b.head(hidden, "head", VOCAB), "hidden": hidden, "encoded": encoded}, {}, **FACTS)


def text(length: int, seed: int = 0) -> list[int]:
    """Random tokens of these plans."""
    return np.random.default_rng(seed).integers(0, VOCAB, length).tolist()
