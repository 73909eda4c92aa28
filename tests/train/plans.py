"""Small plans that together have every op with an adjoint."""

from __future__ import annotations

from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan

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


PLANS = {"linear": linear}
