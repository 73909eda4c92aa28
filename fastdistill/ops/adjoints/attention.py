"""Of attention, over passes that hold whole sequences, a slot a row: csrc/kernels/train/attention_gradient.c.

Keys and values are those that the pass itself has made: a visible slot is the row of that number. With weights
p = softmax(scores) of one row and head over the keys that it sees:

    dv = p dy,  dp = v dy,  dscores = p (dp - D),  D = sum p dp = y dy,  dq = scale dscores k,  dk = scale dscores q

(Dao et al. 2022), where a cap c of scores s makes dscores (1 - (s / c)^2) of it. Sums over keys run in the order of
slots; those over queries by rows, of each head, then those of heads that share keys are added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill.errors import UnsupportedError
from fastdistill.ops.kind import OWN, OpKind, PassRows, Reverse, StepKind
from fastdistill.ops.scores import bias_of, capped_scores, in_window, per_head


def attention_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """Weights are made again, of queries and keys: nothing in the size of rows times rows is kept."""
    if len(op.inputs) != 3:
        raise UnsupportedError(f"{op.kind} ({op.segment}) over keys that other rows have stored has no adjoint")
    if op.weights:
        raise UnsupportedError(f"{op.kind} ({op.segment}) with numbers by distance, {op.weights[0]}, has no adjoint")
    q, k, v = op.inputs
    constants = {name: value for name, value in op.constants.items() if name != "layer"}
    by_heads = reverse.op("attention_gradient", q, k, v, op.output, gradient, **constants)
    heads, kv_heads, head_dim = (constants[name] for name in ("heads", "kv_heads", "head_dim"))
    for i, value in enumerate((q, k, v)):
        shared = {} if i == 0 or heads == kv_heads else {"heads": heads // kv_heads, "head_dim": head_dim}
        width = (kv_heads if shared else heads) * head_dim
        if reverse.wants(value):
            reverse.give(value, reverse.op("columns", by_heads, first=i * heads * head_dim, width=width, **shared))


@dataclass(frozen=True)
class Attended:
    """What one row sees.

    Attributes
    ----------
    row : int
        its number in the pass
    seen : int (n,)
        rows, whose keys and values it sees
    q : float64 (heads, head_dim)
        its queries
    k : float64 (heads, n, head_dim)
        once for each query head
    scores : float64 (heads, n)
        scaled and capped, slopes added
    bend : float64 (heads, n) or float
        the slope of the cap there
    """

    row: int
    seen: np.ndarray
    q: np.ndarray
    k: np.ndarray
    scores: np.ndarray
    bend: np.ndarray | float

    @property
    def weights(self) -> np.ndarray:
        """Softmax of the scores: (heads, n)."""
        weights = np.exp(self.scores - self.scores.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)


def _attended(
    q: np.ndarray,
    k: np.ndarray,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    scale: float,
    key_set: str = OWN,
    window: int = 0,
    ahead: int = 0,
    softcap: float = 0.0,
    slopes: np.ndarray | None = None,
    request: PassRows,
) -> Iterator[Attended]:
    set_ = request.keys(key_set)
    assert set_ is not None, f"the pass has no key set {key_set}"
    assert np.array_equal(set_.slots, np.arange(len(q))), "a row of the pass is not in the slot of its number"
    for row, node in enumerate(set_.nodes):
        slots = set_.visible(node)
        seen, distances = in_window(slots, request.positions[slots] - request.positions[row], window, ahead)
        keys = k[seen].reshape(len(seen), kv_heads, head_dim).swapaxes(0, 1)
        queries = q[row].reshape(heads, head_dim).astype(np.float64)
        capped = capped_scores(queries, keys, scale, softcap)
        bend = 1 - (capped / softcap) ** 2 if softcap else 1.0
        yield Attended(row, seen, queries, per_head(keys, heads), capped + bias_of(slopes, distances), bend)


def attention_gradient(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, y: np.ndarray, dy: np.ndarray, **how: Any
) -> np.ndarray:
    """By the queries, by each head's keys, by its values: (rows, 3 * heads * head_dim)."""
    heads, head_dim = how["heads"], how["head_dim"]
    gradient = np.zeros((len(q), 3, heads, head_dim))
    for at in _attended(q, k, **how):
        outer = dy[at.row].reshape(at.q.shape).astype(np.float64)
        values = per_head(v[at.seen].reshape(len(at.seen), -1, head_dim).swapaxes(0, 1), heads)
        mean = (y[at.row].reshape(at.q.shape) * outer).sum(axis=1, keepdims=True)
        change = at.weights * (np.einsum("hd,hnd->hn", outer, values) - mean) * at.bend * how["scale"]
        gradient[at.row, 0] = np.einsum("hn,hnd->hd", change, at.k)
        gradient[at.seen, 1] += np.einsum("hn,hd->nhd", change, at.q)
        gradient[at.seen, 2] += np.einsum("hn,hd->nhd", at.weights, outer)
    return gradient.reshape(len(q), -1)


def columns(x: np.ndarray, *, first: int, width: int, heads: int = 1, head_dim: int = 0) -> np.ndarray:
    """Those of x from the first on, (rows, width); each so many `heads` after one another summed."""
    return (
        x[:, first : first + heads * width]
        .reshape(len(x), -1, heads, head_dim or width)
        .sum(axis=2)
        .reshape(len(x), width)
    )


def _gradient_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    queries, keys = (constants[name] * constants["head_dim"] for name in ("heads", "kv_heads"))
    assert [*widths] == [queries, keys, keys, queries, queries], (widths, constants)
    return 3 * queries


_HOW = {
    "heads": "heads",
    "kv_heads": "kv_heads",
    "head_dim": "head_dim",
    "scale": "scalar",
    "key_set": "key_set",
    "window": "window",
    "ahead": "ahead",
    "softcap": "softcap",
    "slopes": "vectors",
}

KINDS = (
    OpKind(
        name="attention_gradient",
        meaning="of attention of x over y, z, of its result and the gradient by that: by x, by y and by z, side by side, these of each head of x",
        reference=attention_gradient,
        of_pass=True,
        inputs=(5,),
        constants=_HOW,
        width=_gradient_width,
        steps=(StepKind("attention_gradient"),),
    ),
    OpKind(
        name="columns",
        meaning="width columns of x from the first on; where heads are given, of each so many of x the sum",
        reference=columns,
        constants={"first": "first", "width": "columns", "heads": "heads", "head_dim": "head_dim"},
        width=lambda widths, shapes, constants: int(constants["width"]),
    ),
)
