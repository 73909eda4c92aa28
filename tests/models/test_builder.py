"""What the builder refuses, since C trusts it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastdistill.models.builder import Builder
from fastdistill.models.source import stored
from fastdistill.ops import OPS
from fastdistill.ops.kind import OpKind
from tests.plans import HEAD_DIM, ROTARY, SLOPES, VOCAB, WIDTH


def begun() -> tuple[Builder, int]:
    b = Builder()
    return b, b.embedding("embedding", VOCAB, WIDTH)


def attend(b: Builder, x: int, keys: int = HEAD_DIM, values: int = HEAD_DIM, **how) -> int:
    q, k, v = b.linear(x, "q", WIDTH), b.linear(x, "k", keys), b.linear(x, "v", values)
    return b.attention(q, k, v, HEAD_DIM, HEAD_DIM**-0.5, **how)


@pytest.mark.parametrize(
    "slopes", [SLOPES.astype(np.float64), SLOPES[:2], np.repeat(SLOPES, 2)[::2], SLOPES[None]], ids=range(4)
)
def test_slopes_that_c_would_read_otherwise_are_refused(slopes):
    attend(*begun(), slopes=SLOPES)
    with pytest.raises(AssertionError, match=r"slopes must be float32 \(3,\)"):
        attend(*begun(), slopes=slopes)


@pytest.mark.parametrize(
    "how", [dict(reach=2), dict(distances="d"), dict(distances="d", reach=2, slopes=SLOPES)], ids=range(3)
)
def test_numbers_by_distance_without_a_reach_or_beside_slopes_are_refused(how):
    attend(*begun(), distances="d", reach=2)
    with pytest.raises(AssertionError, match="a table"):
        attend(*begun(), **how)


def test_keys_of_other_rows_have_no_numbers_by_distance():
    b, x = begun()
    with pytest.raises(AssertionError, match="a row's own keys"):
        b.op(
            "attention", x, weights={"d": (3 * 5,)}, heads=3, kv_heads=1, head_dim=HEAD_DIM, scale=1.0, layer=0, reach=2
        )


@pytest.mark.parametrize(("keys", "values"), [(28, 14), (14, 28), (16, 16), (28, 28), (7, 7)])
def test_keys_and_values_that_are_no_heads_alike_are_refused(keys, values):
    with pytest.raises(AssertionError):  # (28, 28): two heads of keys do not divide three of queries
        attend(*begun(), keys, values)


@pytest.mark.parametrize(("keys", "values"), [(28, 14), (16, 16)])
def test_stored_keys_and_values_that_are_no_heads_alike_are_refused(keys, values):
    b, x = begun()
    with pytest.raises(AssertionError, match="keys and values of"):
        b.store(b.linear(x, "k", keys), b.linear(x, "v", values), HEAD_DIM, "cross")


@pytest.mark.parametrize(
    "change", [lambda f: f.astype(np.float64), lambda f: np.repeat(f, 2)[::2], lambda f: np.repeat(f, 2)], ids=range(3)
)
def test_frequencies_that_c_would_read_otherwise_are_refused(change):
    b, x = begun()
    with pytest.raises(AssertionError, match=r"inverse_frequencies must be float32 \(7,\)|14, 28"):
        b.rotary(x, HEAD_DIM, replace(ROTARY, inverse_frequencies=change(ROTARY.inverse_frequencies)))


def test_a_matrix_comes_with_one_bias():
    b, x = begun()
    shape = {"a.weight": (WIDTH, WIDTH)}
    x = b.linear(b.linear(x, "a", WIDTH, bias=True), "a", WIDTH, bias=True)
    for other in ({}, {"b.bias": (WIDTH,)}):
        with pytest.raises(AssertionError, match=r"a.weight comes with another bias elsewhere"):
            b.op("linear", x, weights=shape | other)


def test_rows_that_are_read_alone_have_no_tap():
    b, x = begun()
    b.tap(x, "embedding")
    read = b.read(x)
    for value in (read, b.rms_norm(read, "norm", 1e-5)):
        with pytest.raises(AssertionError, match="normed is a tap of rows that are read alone"):
            b.tap(value, "normed")


def test_what_a_weight_is_made_of_is_said_before_its_op():
    b, _ = begun()
    with pytest.raises(AssertionError, match="embedding has been used already"):
        b.made_of("embedding", stored("other", (VOCAB, WIDTH)))


def test_layers_of_keys_are_counted_by_the_ops_that_store(monkeypatch):
    """An op of three values that has nothing to do with attention is none of them."""
    monkeypatch.setitem(OPS, "sum", OpKind("sum", "x + y + z", lambda x, y, z: x + y + z, inputs=(3,)))
    b, x = begun()
    attend(b, b.op("sum", x, x, x))
    assert b._ops[-1].constants["layer"] == 0
