"""The builder that a model file describes its forward pass to, one call an op."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from fastdistill.models.plan import Ignored, Op, Plan, Weight


class Builder:
    """Collects ops, values and the weights they need; `plan` closes it.

    A value is a number; every method returns the value that its op writes.
    """

    def __init__(self) -> None:
        self._ops: list[Op] = []
        self._widths: list[int] = []
        self._weights: dict[str, Weight] = {}
        self._taps: dict[str, int] = {}
        self._boundaries: list[int] = []
        self._segment: int | str = "enter"

    @contextmanager
    def layer(self, number: int, entering: int) -> Iterator[None]:
        """The ops of one layer, which `entering` flows into; layers can be run on their own."""
        self._boundaries.append(entering)
        self._segment = number
        yield
        self._segment = "exit"

    def embedding(self, name: str, vocab_size: int, width: int) -> int:
        """Rows of the embedding (vocab_size, width) for the tokens, or the rows given as `inputs`."""
        return self._op("embedding", (), width, [self._weight(name, (vocab_size, width))])

    def rms_norm(self, x: int, name: str, epsilon: float) -> int:
        """Root-mean-square norm with the weight `name` (width,)."""
        width = self._widths[x]
        return self._op("rms_norm", (x,), width, [self._weight(name, (width,))], epsilon=epsilon)

    def linear(self, x: int, name: str, outputs: int, bias: bool = False) -> int:
        """`name`.weight (outputs, width) times x, plus `name`.bias (outputs,)."""
        return self._op("linear", (x,), outputs, self._linear(x, name, outputs, bias))

    def add(self, x: int, y: int) -> int:
        """x + y; x is the residual stream."""
        return self._op("add", (x, y), self._widths[x])

    def silu_mul(self, gate: int, up: int) -> int:
        """silu(gate) * up."""
        return self._op("silu_mul", (gate, up), self._widths[up])

    def rotary(self, x: int, head_dim: int, inverse_frequencies: np.ndarray) -> int:
        """Rotary positions in the split-half form; inverse_frequencies float32 (head_dim / 2,)."""
        return self._op("rotary", (x,), self._widths[x], head_dim=head_dim, inverse_frequencies=inverse_frequencies)

    def attention(self, q: int, k: int, v: int, head_dim: int, scale: float) -> int:
        """Grouped-query attention; stores k and v in this layer's cache first."""
        return self._op("attention", (q, k, v), self._widths[q], head_dim=head_dim, scale=scale, layer=self._segment)

    def read(self, x: int) -> int:
        """Only the rows that the caller reads."""
        return self._op("read", (x,), self._widths[x])

    def head(self, x: int, name: str, vocab_size: int, bias: bool = False) -> int:
        """Logits and their statistics: `name`.weight (vocab_size, width) times x, plus `name`.bias (vocab_size,)."""
        return self._op("head", (x,), vocab_size, self._linear(x, name, vocab_size, bias))

    def tap(self, x: int, name: str) -> None:
        """Let sessions expose x as `name`."""
        self._taps[name] = x

    def plan(self, leaving: int, hidden: int, ignored: Mapping[str, Ignored], **facts) -> Plan:
        """The finished plan: `leaving` leaves the last layer, `hidden` is what the head reads."""
        return Plan(
            ops=tuple(self._ops),
            widths=tuple(self._widths),
            weights=self._weights,
            ignored=ignored,
            taps=self._taps,
            boundaries=(*self._boundaries, leaving),
            hidden=hidden,
            num_layers=len(self._boundaries),
            **facts,
        )

    def _linear(self, x: int, name: str, outputs: int, bias: bool) -> list[str]:
        weight = self._weight(f"{name}.weight", (outputs, self._widths[x]), linear=True)
        return [weight, self._weight(f"{name}.bias", (outputs,))] if bias else [weight]

    def _weight(self, name: str, shape: tuple[int, ...], linear: bool = False) -> str:
        known = self._weights.get(name)
        self._weights[name] = Weight(shape, linear or (known is not None and known.linear))
        return name

    def _op(self, kind: str, inputs: tuple[int, ...], width: int, weights: list[str] | None = None, **constants) -> int:
        self._widths.append(width)
        output = len(self._widths) - 1
        self._ops.append(Op(kind, inputs, output, tuple(weights or ()), constants, self._segment))
        return output
