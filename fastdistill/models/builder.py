"""The builder that a model file describes its forward pass to, one call an op."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastdistill.models.plan import ENTER, EXIT, Ignored, Op, Plan, Weight
from fastdistill.models.rope import Rotary
from fastdistill.models.source import Source, stored
from fastdistill.ops import BIAS, MATRIX, OPS, OWN, windowed


def _given(**constants: Any) -> dict[str, Any]:
    """Those that say something: 0 is what C has where nothing is said."""
    return {name: value for name, value in constants.items() if value}


class Builder:
    """Collects ops, values and the weights they need; `plan` closes it.

    A value is a number; every method returns the value that its op writes. What an op computes, `fastdistill.ops` says.
    """

    def __init__(self) -> None:
        self._ops: list[Op] = []
        self._widths: list[int] = []
        self._weights: dict[str, Weight] = {}
        self._sources: dict[str, Source] = {}
        self._exact: set[str] = set()  # matrices that stay in the format that they are stored in
        self._biases: dict[str, tuple[str, ...]] = {}  # of each matrix, which holds it when packed: () for none
        self._read: set[int] = set()  # values whose rows are those that are read
        self._taps: dict[str, int] = {}
        self._boundaries: list[int] = []
        self._layers: list[str] = []
        self._segment = ENTER

    @contextmanager
    def layer(self, number: int, entering: int) -> Iterator[None]:
        """The ops of one layer, which `entering` flows into; layers can be run on their own."""
        self._boundaries.append(entering)
        self._segment = f"layer {number}"
        self._layers.append(self._segment)
        yield
        self._segment = EXIT

    @contextmanager
    def segment(self, name: str) -> Iterator[None]:
        """Ops that run when they are asked for by this name, and not with the layers: an encoder, say."""
        outer, self._segment = self._segment, name
        yield
        self._segment = outer

    def made_of(self, weight: str, source: Source) -> None:
        """What a checkpoint stores `weight` in, where that is no tensor of this name and shape; to be said before its op."""
        assert weight not in self._weights, f"{weight} has been used already"
        self._sources[weight] = source

    def is_new(self, weight: str) -> bool:
        """Whether nothing has been said of a weight, and no op has read it."""
        return weight not in self._weights and weight not in self._sources

    def width(self, x: int) -> int:
        """Floats a row of a value."""
        return self._widths[x]

    def op(
        self, kind: str, *inputs: int, weights: Mapping[str, tuple[int, ...]] | None = None, **constants: Any
    ) -> int:
        """Any op: its inputs, its weights' names and shapes in the order of their roles, its constants."""
        known, weights = OPS[kind], weights or {}
        enough = len(weights) % len(known.weights) == 0 if known.repeated else len(weights) <= len(known.weights)
        assert len(inputs) in known.inputs and enough, f"{kind} of {inputs}, {weights}"
        assert constants.keys() <= known.constants.keys(), f"{kind} has no constants {constants.keys()}"
        for role, name in known.roles(weights):
            shape = weights[name]
            multiplies = (role == MATRIX and name not in self._exact) or (
                name in self._weights and self._weights[name].linear
            )
            source = self._sources.get(name) or stored(name, shape)
            self._weights[name] = Weight(shape, multiplies, source, name in self._exact)
            assert self._weights[name].source.shape == shape, f"{name} {shape} is made otherwise"
        if BIAS in known.weights:
            matrix, *bias = weights
            assert self._biases.setdefault(matrix, tuple(bias)) == tuple(bias), (
                f"{matrix} comes with another bias elsewhere"
            )
        self._widths.append(known.width([self._widths[value] for value in inputs], [*weights.values()], constants))
        self._ops.append(Op(kind, inputs, len(self._widths) - 1, tuple(weights), constants, self._segment))
        output = self._ops[-1].output
        if known.selects or not (known.spreads or self._read.isdisjoint(inputs)):
            self._read.add(output)
        return output

    def embedding(self, name: str, vocab_size: int, width: int, column: int = 0) -> int:
        """Rows of the embedding (vocab_size, width) for a column of the tokens, the first as a rule, or the rows given as `inputs`."""
        others = {"column": column} if column else {}
        return self.op("embedding", weights={name: (vocab_size, width)}, **others)

    def position_embedding(self, name: str, positions: int, width: int) -> int:
        """Rows of a table (positions, width) for the rows' positions."""
        return self.op("position_embedding", weights={name: (positions, width)})

    def rms_norm(self, x: int, name: str, epsilon: float, head_dim: int = 0, shared: bool = False) -> int:
        """Root-mean-square norm of the row, or of each head, with the weight `name` (width,), or (head_dim,) that heads share."""
        return self._norm("rms_norm", x, (name,), epsilon, head_dim, shared)

    def layer_norm(self, x: int, name: str, bias: str, epsilon: float, head_dim: int = 0, shared: bool = False) -> int:
        """Layer norm with the weights `name` and `bias`, both of that shape."""
        return self._norm("layer_norm", x, (name, bias), epsilon, head_dim, shared)

    def _norm(self, kind: str, x: int, names: tuple[str, ...], epsilon: float, head_dim: int, shared: bool) -> int:
        width = self._widths[x]
        constants = _given(head_dim=head_dim, heads=width // head_dim if shared else 0)
        weights = dict.fromkeys(names, (head_dim if shared else width,))
        return self.op(kind, x, weights=weights, epsilon=epsilon, **constants)

    def linear(self, x: int, name: str, outputs: int, bias: bool = False, exact: bool = False) -> int:
        """`name`.weight (outputs, width) times x, plus `name`.bias (outputs,); `exact`: never quantised by `load`."""
        self._exact |= {f"{name}.weight"} if exact else set()
        return self.op("linear", x, weights=self._matrix(x, name, outputs, bias))

    def scale(self, x: int, factor: float) -> int:
        """x * factor; x itself where that is 1."""
        return x if factor == 1.0 else self.op("scale", x, factor=factor)

    def add(self, x: int, y: int) -> int:
        """x + y; x is the residual stream."""
        return self.op("add", x, y)

    def activation(self, x: int, activation: str) -> int:
        """A function of each number: one of `fastdistill.ops.activation.ACTIVATIONS`."""
        return self.op("activation", x, activation=activation)

    def gated(self, gate: int, up: int, activation: str) -> int:
        """activation(gate) * up."""
        return self.op("gated", gate, up, activation=activation)

    def sigmoid_mul(self, x: int, share: int) -> int:
        """x * sigmoid(share), one number a row."""
        return self.op("sigmoid_mul", x, share)

    def route(self, logits: int, top_k: int, renormalised: bool) -> int:
        """The top_k experts of largest logit, and their shares: for `experts_up` and `experts_down`."""
        return self.op("route", logits, experts=self._widths[logits], top_k=top_k, renormalised=renormalised)

    def experts_up(self, x: int, routes: int, names: list[str], inner: int, top_k: int, activation: str) -> int:
        """activation(gate x) * (up x) of the experts that routes name; `names` of gate and up, expert by expert."""
        weights = {f"{name}.weight": (inner, self._widths[x]) for name in names}
        return self.op(
            "experts_up", x, routes, weights=weights, experts=len(names) // 2, top_k=top_k, activation=activation
        )

    def experts_down(self, x: int, routes: int, names: list[str], width: int, inner: int, top_k: int) -> int:
        """The sum of the routes' shares times down of what `experts_up` made; `names` of down, expert by expert."""
        weights = {f"{name}.weight": (width, inner) for name in names}
        return self.op("experts_down", x, routes, weights=weights, experts=len(names), top_k=top_k)

    def rotary(self, x: int, head_dim: int, rotary: Rotary) -> int:
        """Rotary positions of the first numbers of each head, in the split-half form."""
        constants: dict[str, Any] = dict(
            head_dim=head_dim,
            rotary_dim=2 * len(rotary.inverse_frequencies),
            inverse_frequencies=rotary.inverse_frequencies,
            factor=rotary.factor,
        )
        if rotary.long is not None:
            constants["long_frequencies"] = rotary.long
        return self.op("rotary", x, **constants)

    def attention(
        self,
        q: int,
        k: int,
        v: int,
        head_dim: int,
        scale: float,
        *,
        window: int = 0,
        ahead: int = 0,
        softcap: float = 0.0,
        slopes: np.ndarray | None = None,
        distances: str = "",
        reach: int = 0,
        key_set: str = OWN,
        layer: int | None = None,
    ) -> int:
        """Grouped-query attention; stores k and v first, in the next layer of a key set's cache.

        Parameters
        ----------
        q : int
        k : int
        v : int
        head_dim : int
        scale : float
        window : int, default 0
            keys that a row sees, up to its own, counted in positions; 0: all
        ahead : int, default 0
            those that it sees beyond its own, where rows see each other; 0: all
        softcap : float, default 0.0
            c: scores become c tanh(score / c); 0: as they are
        slopes : float32 (heads,), optional
            times (key position - query position), added to scores; None: nothing
        distances : str, optional
            a weight (heads * (2 * reach + 1),), added to scores: numbers of each head by key position - query position, from -reach to reach, and
            those of the ends beyond. Layers may share one; default: none
        reach : int, default 0
            of that weight, at least 1
        key_set : str, optional
            default: the rows' own; those of one window are a set of their own, so that a session can forget what it passes over
        layer : int, optional
            of its cache; default: the next. Of a model that reads a text in one pass all layers may have one
        """
        if window and not ahead and key_set == OWN:
            key_set = windowed(window)
        return self._attend(
            (q, k, v),
            self._next_layer(key_set) if layer is None else layer,
            self._widths[k] // head_dim,
            head_dim,
            scale,
            window=window,
            ahead=ahead,
            softcap=softcap,
            slopes=slopes,
            distances=distances,
            reach=reach,
            key_set=key_set,
        )

    def store(self, k: int, v: int, head_dim: int, key_set: str) -> tuple[str, int, int]:
        """Keys and values for `cross_attention` of other rows: the key set, the layer of its cache, and how many heads it has."""
        layer, kv_heads = self._next_layer(key_set), self._widths[k] // head_dim
        self.op("store", k, v, kv_heads=kv_heads, head_dim=head_dim, layer=layer, key_set=key_set)
        return key_set, layer, kv_heads

    def cross_attention(self, q: int, stored: tuple[str, int, int], head_dim: int, scale: float) -> int:
        """Attention over what `store` has put away."""
        key_set, layer, kv_heads = stored
        return self._attend((q,), layer, kv_heads, head_dim, scale, key_set=key_set)

    def read(self, x: int) -> int:
        """Only the rows that the caller reads."""
        return self.op("read", x)

    def head(self, x: int, name: str, vocab_size: int, bias: bool = False, softcap: float = 0.0) -> int:
        """Logits and their statistics: `name`.weight (vocab_size, width) times x, plus `name`.bias (vocab_size,).

        With a softcap c a logit z is c tanh(z / c).
        """
        return self.op("head", x, weights=self._matrix(x, name, vocab_size, bias), **_given(softcap=softcap))

    def tap(self, x: int, name: str) -> None:
        """Let sessions expose x as `name`: of all rows, so it lies before `read`."""
        assert x not in self._read, f"{name} is a tap of rows that are read alone"
        self._taps[name] = x

    def plan(self, leaving: int, outputs: Mapping[str, int], ignored: Mapping[str, Ignored], **facts: Any) -> Plan:
        """The finished plan: `leaving` leaves the last layer, `outputs` are what it gives, by name; facts as of `Plan`."""
        boundaries = (*self._boundaries, leaving)
        self._check_segments(boundaries)
        return Plan(
            ops=tuple(self._ops),
            widths=tuple(self._widths),
            weights=self._weights,
            ignored=ignored,
            taps=self._taps,
            layers=tuple(self._layers),
            boundaries=boundaries,
            outputs=outputs,
            **facts,
        )

    def _attend(
        self,
        inputs: tuple[int, ...],
        layer: int,
        kv_heads: int,
        head_dim: int,
        scale: float,
        distances: str = "",
        **how: Any,
    ) -> int:
        heads, given = (
            self._widths[inputs[0]] // head_dim,
            {name: value for name, value in how.items() if value is not None},
        )
        window = how.get("window")
        assert not window or how.get("ahead") or how["key_set"] == windowed(window), how
        constants = {name: value for name, value in given.items() if name == "slopes" or value not in (0, OWN)}
        weights = {distances: (heads * (2 * constants.get("reach", 0) + 1),)} if distances else {}
        return self.op(
            "attention",
            *inputs,
            weights=weights,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=scale,
            layer=layer,
            **constants,
        )

    def _next_layer(self, key_set: str) -> int:
        stores = [op for op in self._ops if op.kind == "store" or (op.kind == "attention" and len(op.inputs) == 3)]
        return sum(op.constants.get("key_set", OWN) == key_set for op in stores)

    def _check_segments(self, boundaries: tuple[int, ...]) -> None:
        """Between layers nothing flows but the boundaries: so that each can be left and entered."""
        made = {op.output: op.segment for op in self._ops}
        entering = dict(zip([*self._layers, EXIT], boundaries, strict=True))
        for op in self._ops:
            for value in op.inputs:
                inside = made[value] == op.segment or value == entering.get(op.segment)
                assert inside, f"{op.kind} in {op.segment} reads a value of {made[value]} that does not enter it"

    def _matrix(self, x: int, name: str, outputs: int, bias: bool) -> dict[str, tuple[int, ...]]:
        weights: dict[str, tuple[int, ...]] = {f"{name}.weight": (outputs, self._widths[x])}
        return weights | {f"{name}.bias": (outputs,)} if bias else weights
