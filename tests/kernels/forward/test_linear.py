"""linear against its reference, and law 1 in the small: the same bits for any rows beside, threads and level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from fastdistill.errors import ArgumentError, IsaError, NotFiniteError
from fastdistill.kernels import PackedWeight, linear, set_isa
from fastdistill.kernels.forward.linear import packed_bytes
from fastdistill.kernels.isa import LAYOUTS, isa_layout
from fastdistill.testing import strategies
from fastdistill.testing.cases.forward.linear import check


@given(case=strategies.linear())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.linear())
def test_a_row_has_the_same_bits_alone_on_any_level_and_threads(isa, case):
    x, format, *parts = case.values()
    packed = PackedWeight(format, *parts, inputs=x.shape[1])
    got = packed.multiply(x, threads=3)
    set_isa("scalar")
    packed = PackedWeight(format, *parts, inputs=x.shape[1])  # its layout may be another one
    alone = [packed.multiply(row[None]) for row in x]
    set_isa(isa)
    np.testing.assert_array_equal(got.view(np.int32), np.concatenate([got[:0], *alone]).view(np.int32))


def test_a_row_that_cannot_be_quantised_is_not_finite(isa):
    codes, scale = np.zeros((16, 32), np.int8), np.zeros((16, 1), np.float16)
    with pytest.raises(NotFiniteError):
        linear(np.full((1, 32), np.nan, np.float32), "q8", codes, scale)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (dict(format="q5"), "format must be one of f32, f16, bf16, q8, q4"),
        (dict(data=np.zeros((2, 32))), "data must have dtype float32"),
        (dict(x=np.zeros((1, 31), np.float32)), "does not fit data of shape"),
        (dict(scale=np.zeros((2, 1), np.float16)), "scale must be None for format f32"),
        (dict(bias=np.zeros(3, np.float32)), r"bias must have shape \(2,\)"),
        (dict(format="q8", data=np.zeros((2, 32), np.int8)), "scale must be given for format q8"),
        (dict(format="q4", data=np.zeros((2, 15), np.uint8)), "whole blocks of 16"),
        (dict(threads=0), "threads must lie in"),
    ],
)
def test_refuses(arguments, text):
    good = dict(x=np.zeros((1, 32), np.float32), format="f32", data=np.zeros((2, 32), np.float32))
    with pytest.raises(ArgumentError, match=text):
        linear(**good | arguments)


def test_packs_to_where_it_is_told():
    data = np.arange(40 * 33, dtype=np.float32).reshape(40, 33)
    size = packed_bytes("f32", 40, 33)
    room = np.zeros(size + 128, np.uint8)
    start = -room.ctypes.data % 64
    weight = PackedWeight("f32", data, packed=room[start : start + size])
    np.testing.assert_array_equal(weight.multiply(np.eye(33, dtype=np.float32)), data.T)
    assert not room[:start].any() and not room[start + size :].any() and weight.nbytes == size
    with pytest.raises(ArgumentError, match=r"packed must have shape"):
        PackedWeight("f32", data, packed=room[start : start + size - 1])
    with pytest.raises(ArgumentError, match="packed must begin on a cache line"):
        PackedWeight("f32", data, packed=room[start + 1 : start + 1 + size])


def weight_of(format):
    """40 x 70, three tiles and three blocks, none of the last full."""
    random = np.random.default_rng(1)
    scale, minimum = random.random((2, 40, 3)).astype(np.float16)
    if format == "q8":
        return random.integers(-128, 128, (40, 96)).astype(np.int8), scale, None
    if format == "q4":
        return random.integers(0, 256, (40, 48)).astype(np.uint8), scale, minimum
    return random.standard_normal((40, 70)).astype({"f32": np.float32, "f16": np.float16}[format]), None, None


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("format", "width"), [("q8", 32), ("q4", 16)])
def test_codes_lie_as_the_layout_says(layout, format, width):
    outputs, size = map(int, layout.split("x"))
    codes, *scales = weight_of(format)
    packed = PackedWeight(format, codes, *scales, inputs=70, layout=layout)._packed
    tiles = np.zeros((3, 16, 3, width), np.uint8)
    tiles.reshape(48, 3, width)[:40] = codes.view(np.uint8).reshape(40, 3, width)
    want = (
        tiles.reshape(3, 16 // outputs, outputs, 3, width // size, size).transpose(0, 3, 1, 4, 2, 5).reshape(3, 3, -1)
    )
    blocks = packed.reshape(4, 3, -1)  # 40 outputs are padded to 64
    np.testing.assert_array_equal(blocks[:3, :, : 16 * width], want)
    assert not blocks[3].any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("format", ["f32", "f16", "q8", "q4"])
def test_a_level_reads_codes_of_its_layout_and_refuses_others(isa, format, layout):
    x = np.random.default_rng(2).standard_normal((3, 70)).astype(np.float32)
    weight = PackedWeight(format, *weight_of(format), inputs=70, layout=layout)
    if format in ("f32", "f16") or layout == isa_layout():
        np.testing.assert_array_equal(
            weight.multiply(x).view(np.int32), linear(x, format, *weight_of(format)).view(np.int32)
        )
    else:
        message = f"instruction set '{isa}' reads weights packed as {isa_layout()}, and these are packed as {layout}: load or pack"
        with pytest.raises(IsaError, match=message):
            weight.multiply(x)


def test_an_unknown_layout_is_refused():
    with pytest.raises(ArgumentError, match="layout must be one of 16x4, 8x8"):
        PackedWeight("f32", np.zeros((2, 2), np.float32), layout="4x4")
