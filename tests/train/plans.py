"""Small plans that together have every op with an adjoint."""

from __future__ import annotations

from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan
from fastdistill.ops.activation import ACTIVATIONS

WIDTH, INNER, VOCAB = 12, 20, 23
FACTS = dict(vocab_size=VOCAB, hidden_size=WIDTH, max_positions=16, architecture="none")


def linear(bias: bool = True) -> Plan:
    """x + down(up x + gate x), times a half."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    for i in range(2):
        with b.layer(i, x):
            up, gate = (b.linear(x, f"{name}{i}", INNER, bias=bias) for name in ("up", "gate"))
            x = b.add(x, b.scale(b.linear(b.add(up, gate), f"down{i}", WIDTH, bias=bias), 0.5))
    return b.plan(x, {"hidden": b.read(x)}, {}, **FACTS)


def norms() -> Plan:
    """x + norm of x, for each norm of the row and of heads."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    with b.layer(0, x):
        for head_dim in (0, 4):
            x = b.add(x, b.rms_norm(x, f"rms{head_dim}", 1e-5, head_dim))
            x = b.add(x, b.layer_norm(x, f"layer{head_dim}", f"bias{head_dim}", 1e-5, head_dim))
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


PLANS = {"linear": linear, "norms": norms, "activations": activations, "shares": shares}
