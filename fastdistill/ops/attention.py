"""Attention over the cached keys and values: csrc/kernels/forward/attention.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastdistill.messages import short
from fastdistill.ops.adjoints.attention import attention_adjoint
from fastdistill.ops.kind import OWN, VECTOR, OpKind, PassRows, StepKind
from fastdistill.ops.scores import bias_of, capped_scores, in_window, per_head


def windowed(window: int) -> str:
    """The set of those layers that see so many positions back."""
    return f"window {window}"


def store(
    k: np.ndarray, v: np.ndarray, *, kv_heads: int, head_dim: int, layer: int, key_set: str = OWN, request: PassRows
) -> np.ndarray:
    """Put the rows' keys and values (rows, kv_heads * head_dim), and positions, into a layer of a key set's caches; (rows, 0)."""
    keys = request.keys(key_set)
    assert keys is not None, f"the pass has no key set {key_set}"
    for row, (sequence, slot) in enumerate(zip(request.sequences, keys.slots, strict=True)):
        parts = (x[row : row + 1].reshape(1, kv_heads, head_dim) for x in (k, v))
        keys.caches[sequence].write(layer, np.array([slot]), *parts)
        keys.caches[sequence].set_positions(np.array([slot]), request.positions[row : row + 1])
    return np.empty((len(k), 0))


def attention(
    q: np.ndarray,
    k: np.ndarray | None = None,
    v: np.ndarray | None = None,
    table: np.ndarray | None = None,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    scale: float,
    layer: int,
    key_set: str = OWN,
    window: int = 0,
    ahead: int = 0,
    softcap: float = 0.0,
    slopes: np.ndarray | None = None,
    reach: int = 0,
    request: PassRows,
) -> np.ndarray:
    """Store the rows' keys and values, where there are some, then attend: (rows, heads * head_dim).

    Queries are answered row by row, from the keys that the row's node sees; with a window, from those among them at
    positions beyond the row's own - window, and with `ahead` at most so far beyond its own.
    """
    if k is not None and v is not None:
        store(k, v, kv_heads=kv_heads, head_dim=head_dim, layer=layer, key_set=key_set, request=request)
    set_, out = request.keys(key_set), np.empty(q.shape)
    assert set_ is not None, f"the pass has no key set {key_set}"
    for row, (sequence, node) in enumerate(zip(request.sequences, set_.nodes, strict=True)):
        cache, slots = set_.caches[sequence], set_.visible(node)
        distances = cache.positions(slots) - request.positions[row]
        slots, distances = in_window(slots, distances, window, ahead)
        keys, values = (part.swapaxes(0, 1) for part in cache.read(layer, slots))
        queries, bias = q[row].reshape(heads, head_dim), bias_of(slopes, distances, table, reach)
        out[row] = attended(queries, keys, values, scale, softcap, bias).reshape(-1)
    return out


def attended(
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    scale: float,
    softcap: float = 0.0,
    bias: np.ndarray | float = 0.0,
) -> np.ndarray:
    """One row: q (heads, head_dim) over keys, values (kv_heads, n, head_dim) -> (heads, head_dim), in float64.

    To `capped_scores` a bias (heads, n) is added.
    """
    scores = capped_scores(q, keys, scale, softcap) + bias
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.einsum("hn,hnd->hd", weights / weights.sum(axis=1, keepdims=True), per_head(values, len(q)))


def attention_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    """That of the queries; keys and values have kv_heads each, and a slope is of a head, or numbers by distance are."""
    heads, kv_heads, slopes = constants["heads"], constants["kv_heads"], constants.get("slopes")
    reach = constants.get("reach", 0)
    queries, *stored = widths
    assert queries == heads * constants["head_dim"] and kv_heads and heads % kv_heads == 0, (widths, constants)
    assert not stored or store_width(stored, shapes, constants) == 0
    assert slopes is None or (slopes.dtype == np.float32 and slopes.shape == (heads,) and slopes.flags.c_contiguous), (
        f"slopes must be float32 ({heads},), contiguous, got {short(slopes)}"
    )
    assert [*shapes] == ([(heads * (2 * reach + 1),)] if reach else []), f"a table of {shapes}, {constants}"
    assert not reach or (stored and slopes is None), "a table by distance is of a row's own keys, without slopes"
    return queries


def store_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    """Nothing; keys and values have kv_heads each."""
    assert [*widths] == [constants["kv_heads"] * constants["head_dim"]] * 2, f"keys and values of {widths}, {constants}"
    return 0


_OF_KEYS = {name: name for name in ("kv_heads", "head_dim", "layer", "key_set")}
_STORE = StepKind("store", inputs=(0, 1), writes=False, row_wise=True)

KINDS = (
    OpKind(
        name="attention",
        meaning="softmax(x y scale) z over the keys y and values z that the row's node sees, this forward's included; x alone: those stored; w: numbers by distance, added to scores",
        reference=attention,
        of_pass=True,
        inputs=(1, 3),
        weights=(VECTOR,),
        constants=_OF_KEYS
        | {
            "heads": "heads",
            "scale": "scalar",
            "window": "window",
            "ahead": "ahead",
            "softcap": "softcap",
            "slopes": "vectors",
            "reach": "reach",
        },
        width=attention_width,
        steps=(
            replace(_STORE, inputs=(1, 2)),
            StepKind("attend", inputs=(0,), reads_keys=True),
            StepKind("attend_merge", inputs=(0,)),
        ),
        adjoint=attention_adjoint,
    ),
    OpKind(
        name="store",
        meaning="nothing: keys x and values y go to a layer of a key set, for attention by other rows",
        reference=store,
        of_pass=True,
        inputs=(2,),
        constants=_OF_KEYS,
        width=store_width,
        steps=(_STORE,),
    ),
)
