"""Folders of other methods: their weights are what their descriptions say, bit for bit, in blocks where blocks hold them."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.checkpoint import FORMATS, open_checkpoint, write_checkpoint
from fastdistill.checkpoint.foreign import METHODS
from fastdistill.checkpoint.foreign.foreign import unpacked
from fastdistill.checkpoint.safetensors_file import Stored, write_safetensors
from fastdistill.errors import CheckpointError, NotFiniteError, UnsupportedError
from fastdistill.models import quantize_folder
from tests.checkpoint.foreign_folders import (
    LINEARS,
    PLAN,
    awq,
    bnb4,
    bnb8,
    e4m3,
    f16_scales,
    float8,
    gptq,
    int8,
    packed,
    plain,
    words,
    write_foreign,
)
from tests.small_models import config

LINEAR = LINEARS[0]
MODULE = LINEAR.removesuffix(".weight")
GPTQ = dict(
    quant_method="gptq", bits=4, group_size=32, desc_act=False, sym=True, damp_percent=0.01, true_sequential=True
)
AWQ = dict(quant_method="awq", bits=4, group_size=32, version="gemm", zero_point=True, modules_to_not_convert=None)
BNB4 = dict(quant_method="bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
BNB8 = dict(quant_method="bitsandbytes", load_in_8bit=True, llm_int8_threshold=6.0)
FP8 = dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[32, 48])


def compressed(format="pack-quantized", **weights):
    scheme = dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32, dynamic=False) | weights
    group = dict(targets=["Linear"], weights=scheme, input_activations=None, output_activations=None)
    return dict(
        quant_method="compressed-tensors", format=format, config_groups=dict(group_0=group), ignore=["lm_head"],
        quantization_status="compressed", sparsity_config={}, transform_config={}, version="0.12.0", kv_cache_scheme=None,
    )  # fmt: skip


def f32_scales(random, shape):
    return random.uniform(0.01, 0.02, shape).astype(np.float32)


def round_scales(random, shape):
    """Of few bits: f16 holds all their multiples."""
    return (random.integers(1, 9, shape) / 256).astype(np.float16)


CASES = {
    "gptq": (GPTQ, gptq(), "q4"),
    "gptq of zeros that differ": (GPTQ | {"sym": False}, gptq(symmetric=False), "q8"),
    "gptq of zeros that differ, and round scales": (GPTQ | {"sym": False}, gptq(symmetric=False, scales=round_scales), "q4"),
    "gptq version 2": (GPTQ | {"checkpoint_format": "gptq_v2"}, gptq(less_one=False), "q4"),
    "gptq of whole rows": (GPTQ | {"group_size": -1}, gptq(group=-1), "q4"),
    "gptq of groups of 64": (GPTQ | {"group_size": 64}, gptq(group=64), "q4"),
    "gptq of groups of 16": (GPTQ | {"group_size": 16}, gptq(group=16), "f32"),
    "gptq in act order": (GPTQ | {"desc_act": True}, gptq(act_order=True), "f32"),
    "gptq of f32 scales": (GPTQ, gptq(scales=f32_scales), "f32"),
    "gptq of 8 bits": (GPTQ | {"bits": 8}, gptq(bits=8), "q8"),
    "gptq of 8 bits, zeros that differ": (GPTQ | {"bits": 8, "sym": False}, gptq(bits=8, symmetric=False), "f32"),
    "gptq of 2 bits": (GPTQ | {"bits": 2}, gptq(bits=2), "q4"),
    "awq": (AWQ, awq(), "q8"),
    "awq of one zero": (AWQ | {"group_size": 64, "q_group_size": 64}, awq(group=64, symmetric=True), "q4"),
    "packed": (compressed(), packed(), "q4"),
    "packed of zeros that differ": (compressed(symmetric=False), packed(symmetric=False), "q8"),
    "packed by channel": (compressed(strategy="channel", group_size=None), packed(group=None), "q4"),
    "packed of 8 bits": (compressed(num_bits=8), packed(bits=8), "q8"),
    "packed in act order": (compressed(actorder="group"), packed(act_order=True), "f32"),
    "packed of scales too small": (compressed(), packed(tiny=True), "f32"),
    "int8": (compressed("int-quantized", num_bits=8, strategy="channel", group_size=None), int8(), "q8"),
    "int8 of f32 scales": (compressed("int-quantized", num_bits=8, strategy="channel", group_size=None), int8("F32"), "f32"),
    "float8 of compressed-tensors": (
        compressed("float-quantized", num_bits=8, type="float", strategy="channel", group_size=None), float8("output", "weight_scale"), "f32",
    ),
    "float8 in blocks, of compressed-tensors": (
        compressed("float-quantized", num_bits=8, type="float", strategy="block", block_structure=[32, 48], group_size=None),
        float8("block", "weight_scale"), "f32",
    ),
    "fp8 in blocks": (FP8, float8("block", "weight_scale_inv"), "f32"),
    "fp8 of one scale": (FP8 | {"weight_block_size": None, "activation_scheme": "static"}, float8("one", "weight_scale"), "f32"),
    "fbgemm": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, float8("output", "weight_scale"), "f32"),
    "int8 of bitsandbytes": (BNB8, bnb8, "f32"),
    "nf4": (BNB4, bnb4(), "f32"),
    "fp4 of plain scales": (BNB4 | {"bnb_4bit_quant_type": "fp4"}, bnb4("fp4", nested=False), "f32"),
}  # fmt: skip


def loaded(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes
        return fd.load(folder, **options)


@pytest.mark.parametrize("case", CASES)
def test_weights_are_what_the_description_says(tmp_path, case):
    quantization, make, format = CASES[case]
    exact = write_foreign(tmp_path / "m", dict(quantization), make)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert {checkpoint.tensors[name].format for name in LINEARS} == {format}
        assert set(checkpoint.tensors) == set(PLAN.stored)
        for name, tensor in checkpoint.tensors.items():
            np.testing.assert_array_equal(tensor.to_float32(), exact[name].astype(np.float32), err_msg=name)
            for rows in (slice(3, 9), np.array([5, 1]), ...):
                np.testing.assert_array_equal(tensor.rows(rows).to_float32(), exact[name].astype(np.float32)[rows])
        noted = [note for note in checkpoint.notes if "read as f32" in note]
        assert bool(noted) == (format == "f32") and all(f"{len(LINEARS)} tensors" in note for note in noted)


@pytest.mark.parametrize("case", ["gptq", "gptq in act order", "awq", "packed", "int8", "fp8 in blocks", "nf4"])
def test_logits_are_those_of_the_folder_dequantised(tmp_path, case):
    quantization, make, format = CASES[case]
    exact = write_foreign(tmp_path / "m", dict(quantization), make)
    write_checkpoint(tmp_path / "plain", {k: v for k, v in config().raw.items()}, plain(exact).values())
    got, want = (loaded(tmp_path / name, format="f32").logits([1, 2, 3, 4]) for name in ("m", "plain"))
    np.testing.assert_array_equal(got, want)
    kept = loaded(tmp_path / "m")
    assert {kept.network.weights.formats[name] for name in LINEARS} == {format}
    np.testing.assert_allclose(kept.logits([1, 2, 3, 4]), want, atol=0.1)
    quantize_folder(tmp_path / "m", tmp_path / "q", "q4" if format == "q4" else "q8")
    with open_checkpoint(tmp_path / "m") as one, open_checkpoint(tmp_path / "q") as other:
        assert other.notes == [] and {other.tensors[name].format for name in LINEARS} <= {"q4", "q8"}
        if format != "f32":  # nothing is lost
            for name in LINEARS:
                np.testing.assert_array_equal(one.tensors[name].to_float32(), other.tensors[name].to_float32())


def test_words_are_unpacked_from_their_lowest_bits():
    word = np.array([[0x76543210, -1]], np.int32)
    assert unpacked(word, 4, axis=1).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, *[15] * 8]]
    assert unpacked(word, 8, axis=0).tolist() == [[0x10, 255], [0x32, 255], [0x54, 255], [0x76, 255]]
    codes = np.arange(32).reshape(2, 16) % 16
    np.testing.assert_array_equal(unpacked(words(codes, 4), 4, axis=1), codes)


def test_the_order_of_awq_is_that_of_its_kernel():
    """In a word of outputs 0 .. 7, from the lowest bits: 0 2 4 6 1 3 5 7."""
    assert words(np.arange(8)[None], 4, [0, 2, 4, 6, 1, 3, 5, 7]).view(np.uint32).tolist() == [[0x75316420]]


# ---- 8-bit floats by themselves ----


def float8_folder(folder, dtype, codes):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_safetensors(folder / "model.safetensors", {"a.weight": Stored(dtype, codes)})
    return open_checkpoint(folder).tensors["a.weight"]


def test_all_codes_of_8_bit_floats(tmp_path):
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    small = float8_folder(tmp_path / "e4m3", "F8_E4M3", codes)
    want = np.array([e4m3(code) for code in range(256)], np.float32).reshape(16, 16)
    assert (small.format, small.shape, small.nbytes) == ("f16", (16, 16), 512) and np.nanmax(want) == 448
    np.testing.assert_array_equal(small.to_float32(), want)
    np.testing.assert_array_equal(small.rows(slice(2, 4)).to_float32(), want[2:4])
    wide = float8_folder(tmp_path / "e5m2", "F8_E5M2", codes)
    np.testing.assert_array_equal(wide.data.view(np.uint16).reshape(-1), np.arange(256, dtype=np.uint16) << 8)


@pytest.mark.peers
def test_8_bit_floats_are_those_of_torch(tmp_path):
    torch, codes = pytest.importorskip("torch"), np.arange(256, dtype=np.uint8)
    for dtype in ("F8_E4M3", "F8_E5M2"):
        got = float8_folder(tmp_path / dtype, dtype, codes).to_float32()
        name = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}[dtype]
        np.testing.assert_array_equal(got, torch.from_numpy(codes).view(getattr(torch, name)).float().numpy())


def test_a_nan_among_8_bit_floats_is_refused_as_any(tmp_path):
    def change(arrays, _):
        arrays[f"{MODULE}.weight"].array[3, 4] = 127

    write_foreign(tmp_path / "m", dict(FP8), float8("block", "weight_scale_inv"), change)
    for format in ("f16", "q8"):
        with pytest.raises(CheckpointError, match="holds nan; expected finite numbers"):
            loaded(tmp_path / "m", format=format)
    with pytest.raises(NotFiniteError):  # as of any f32
        loaded(tmp_path / "m").logits([1, 2, 3])


# ---- what is left out, and what is refused ----


def test_scales_of_activations_are_left_out_and_the_reason_is_said(tmp_path):
    quantization, make, _ = CASES["int8"]
    write_foreign(tmp_path / "m", dict(quantization), make)
    with pytest.warns(UserWarning, match=f"{len(LINEARS)} tensors are left out: they scale activations, which are not"):
        fd.load(tmp_path / "m")


def named(name, value):
    return lambda arrays, quantization: quantization.update({name: value})


def without(name):
    return lambda arrays, quantization: arrays.pop(f"{MODULE}.{name}")


def other(name, make):
    def change(arrays, _):
        dtype, array = arrays[f"{MODULE}.{name}"]
        arrays[f"{MODULE}.{name}"] = make(dtype, array)

    return change


def cut(dtype, array):
    return Stored(dtype, array[:-1])


def retyped(dtype, array):
    return Stored("U32", array.view(np.uint32))


def no_inputs(arrays, _):
    """Fewer than none, which packed are none."""
    arrays[f"{MODULE}.weight_packed"] = Stored("I32", np.empty((64, 0), np.int32))
    arrays[f"{MODULE}.weight_shape"] = Stored("I64", np.array([64, -5], np.int64))


def of_weights(**more):
    return lambda arrays, quantization: quantization["config_groups"]["group_0"]["weights"].update(more)


@pytest.mark.parametrize(
    ("case", "change", "error", "text"),
    [
        ("gptq", named("bits", 3), UnsupportedError, "bits 3 are not read, only 2, 4 and 8; save the model unquantised"),
        ("gptq", named("bits", "4"), CheckpointError, "bits must be an integer from 2 to 8, found '4'"),
        ("gptq", named("dynamic", {"-:lm_head": {}}), UnsupportedError, "'dynamic', which is not understood"),
        ("gptq", named("checkpoint_format", "marlin"), UnsupportedError, "checkpoint_format 'marlin' is not read"),
        ("gptq", named("group_size", 64), CheckpointError, r"qzeros must be I32 \[1, 8\], found I32 \[2, 8\]|scales must be"),
        ("gptq", without("scales"), CheckpointError, r"scales must be F32 or F16 or BF16 \[2, 64\], found nothing"),
        ("gptq", other("qweight", cut), CheckpointError, r"must be I32 \[56\], found I32 \[64\]"),
        ("gptq", other("qzeros", cut), CheckpointError, "qzeros must be"),
        ("gptq", other("qweight", retyped), CheckpointError, "qweight must be I32"),
        ("gptq", other("qweight", lambda dtype, array: Stored(dtype, array.reshape(-1))), CheckpointError, "must be I32"),
        ("gptq", other("g_idx", lambda dtype, array: Stored(dtype, array + 7)), CheckpointError, r"g_idx must lie in 0..1, found 7..8"),
        ("gptq", other("qzeros", lambda dtype, array: Stored(dtype, np.full_like(array, -1))), UnsupportedError, "which some read as 16 and others as 0"),
        ("awq", named("version", "gemv"), UnsupportedError, "version 'gemv' is not read, only 'gemm'"),
        ("awq", named("bits", 8), UnsupportedError, "bits 8 is not read, only 4"),
        ("awq", named("zero_point", False), UnsupportedError, "zero_point False"),
        ("awq", other("scales", cut), CheckpointError, "scales must be"),
        ("packed", named("format", "nvfp4-pack-quantized"), UnsupportedError, "the format .*nvfp4-pack-quantized.* is not read"),
        ("packed", named("sparsity_config", {"format": "sparse-24-bitmask"}), UnsupportedError, "sparsity_config .* is not read"),
        ("packed", named("transform_config", {"config_groups": {"u": {}}}), UnsupportedError, "transform_config .* is not read"),
        ("packed", of_weights(num_bits=3), UnsupportedError, "int of 3 bits by group is not read"),
        ("packed", of_weights(is_new=True), UnsupportedError, "'is_new', which is not understood"),
        ("packed", other("weight_shape", lambda dtype, array: Stored(dtype, array[::-1] * 3)), CheckpointError, "weight_packed must be"),
        ("packed", no_inputs, CheckpointError, "weight_packed must be"),
        ("packed", other("weight_scale", cut), CheckpointError, "weight_scale must be"),
        ("packed in act order", other("weight_g_idx", lambda dtype, array: Stored(dtype, array + 7)), CheckpointError, "g_idx must lie in"),
        ("fp8 in blocks", without("weight_scale_inv"), CheckpointError, "weight_scale must be .* found nothing"),
        ("fp8 in blocks", named("weight_block_size", [32, 32]), CheckpointError, "weight_scale_inv must be"),
        ("fp8 in blocks", named("weight_block_size", [32]), CheckpointError, "weight_block_size must be two integers"),
        ("fp8 in blocks", named("fmt", "e3m4"), UnsupportedError, "fmt 'e3m4' is not read"),
        ("int8 of bitsandbytes", without("SCB"), CheckpointError, "of another type: .*i8"),
        ("int8 of bitsandbytes", other("weight_format", lambda dtype, array: Stored(dtype, array + 1)), UnsupportedError, "weight_format"),
        ("nf4", named("bnb_4bit_quant_storage", "bfloat16"), UnsupportedError, "bnb_4bit_quant_storage 'bfloat16' is not read"),
        ("nf4", other("weight.absmax", cut), CheckpointError, "absmax must be U8"),
        ("nf4", other("weight.quant_map", cut), CheckpointError, "quant_map must be F32"),
        ("nf4", other("weight.quant_state.bitsandbytes__nf4", cut), CheckpointError, "quant_state"),
        ("nf4", other("weight.quant_state.bitsandbytes__nf4", lambda dtype, array: Stored(dtype, np.frombuffer(
            b'{"quant_type": "nf4", "blocksize": 64, "shape": [1000000000, 1000000000]}', np.uint8
        ))), CheckpointError, "must be U8"),
        ("nf4", without("weight.nested_absmax"), CheckpointError, "nested_absmax must be"),
    ],
)  # fmt: skip
def test_what_is_not_as_described_is_refused(tmp_path, case, change, error, text):
    quantization, make, _ = CASES[case]
    write_foreign(tmp_path / "m", json.loads(json.dumps(quantization)), make, change)
    with pytest.raises(error, match=text):
        loaded(tmp_path / "m")


def test_a_scheme_for_some_layers_is_refused(tmp_path):
    two = compressed()
    two["config_groups"]["group_1"] = json.loads(json.dumps(two["config_groups"]["group_0"]))
    two["config_groups"]["group_1"]["weights"]["group_size"] = 64
    write_foreign(tmp_path / "m", two, packed())
    with pytest.raises(UnsupportedError, match="several groups of layers have schemes of their own"):
        open_checkpoint(tmp_path / "m")


def odd(dtype: str, array: np.ndarray, random: np.random.Generator) -> Stored:
    """An array that is not what it should be, or perhaps is."""
    shape = list(array.shape)
    ways = ["value", "flat", "type", *(["size", "nothing", "longer"] if shape else [])]
    way = random.choice(ways)
    axis = random.integers(len(shape)) if shape else 0
    if way == "flat":
        return Stored(dtype, array.reshape(-1))
    if way == "type":
        return Stored(
            {1: "U8", 2: "U16", 4: "U32", 8: "U64"}[array.dtype.itemsize], array.view(f"u{array.dtype.itemsize}")
        )
    if way == "value":
        changed = array.copy()
        changed.reshape(-1).view(np.uint8)[random.integers(array.nbytes)] ^= 1 << random.integers(8)
        return Stored(dtype, changed)
    if way == "longer":
        return Stored(dtype, np.concatenate([array, array], axis=axis))
    shape[axis] = 0 if way == "nothing" else shape[axis] // 2
    return Stored(dtype, np.ascontiguousarray(array[tuple(map(slice, shape))]))


VALUES = [None, True, 0, -1, 7, 2**31, 0.5, "", "x", [], [1], [0, 0], [-1, 3], {}, {"a": 1}, [[]]]


@settings(max_examples=200)
@given(
    case=st.sampled_from([*CASES]),
    seed=st.integers(0, 2**32 - 1),
    value=st.sampled_from(VALUES),
    of_config=st.booleans(),
)
def test_nothing_but_errors_of_ours_comes_of_hostile_folders(tmp_path_factory, case, seed, value, of_config):
    """One module alone: any array cut, grown, turned or changed in a bit; any key of the config anything."""
    quantization, make, _ = CASES[case]
    quantization, random = json.loads(json.dumps(quantization)), np.random.default_rng(seed)
    arrays, _ = make(LINEAR, (16, 64))
    if of_config:
        section = quantization
        while any(isinstance(each, dict) and each for each in section.values()) and random.integers(3):
            section = random.choice([each for each in section.values() if isinstance(each, dict) and each])
        section[random.choice([*section])] = value
    else:
        name = random.choice(sorted(arrays))
        arrays[name] = odd(*arrays[name], random)
    folder = tmp_path_factory.getbasetemp() / "hostile"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    write_safetensors(folder / "model.safetensors", arrays)
    try:
        with open_checkpoint(folder) as checkpoint, np.errstate(all="ignore"):
            for tensor in checkpoint.tensors.values():
                if tensor.format in FORMATS:
                    assert tensor.to_float32().shape == tensor.shape
    except (CheckpointError, UnsupportedError) as error:
        assert len(str(error)) < 2000


@pytest.mark.peers
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("type", ["nf4", "fp4"])
def test_4_bits_are_those_of_bitsandbytes(tmp_path, type, nested):
    torch, functional = pytest.importorskip("torch"), pytest.importorskip("bitsandbytes.functional")
    weights = torch.randn(96, 5 * 64, generator=torch.Generator().manual_seed(0))
    codes, state = functional.quantize_4bit(weights, blocksize=64, quant_type=type, compress_statistics=nested)
    arrays = {"a.weight": codes} | {f"a.weight.{name}": part for name, part in state.as_dict(packed=True).items()}
    kinds = {torch.uint8: "U8", torch.float32: "F32"}
    stored = {name: Stored(kinds[part.dtype], part.contiguous().numpy()) for name, part in arrays.items()}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": BNB4 | {"bnb_4bit_quant_type": type}}))
    write_safetensors(tmp_path / "model.safetensors", stored)
    got = open_checkpoint(tmp_path).tensors["a.weight"].to_float32()
    np.testing.assert_array_equal(got, functional.dequantize_4bit(codes, state).numpy())


@pytest.mark.peers
@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_those_of_compressed_tensors(bits):
    torch, peer = pytest.importorskip("torch"), pytest.importorskip("compressed_tensors.compressors.pack_quantized")
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, (24, 64), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    for dimension in (1, 0):
        packed = peer.pack_to_int32(codes, bits, packed_dim=dimension).contiguous().numpy()
        np.testing.assert_array_equal(unpacked(packed, bits, dimension).astype(int) - half, codes.numpy())


def test_biases_of_zeros_that_autogptq_adds_are_left_out(tmp_path):
    def change(arrays, _):
        for name in LINEARS:
            outputs = PLAN.stored[name][0]
            arrays[f"{name.removesuffix('.weight')}.bias"] = Stored("F16", np.zeros(outputs, np.float16))

    write_foreign(tmp_path / "m", dict(GPTQ), gptq(), change)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert set(checkpoint.tensors) == set(PLAN.stored)
        assert checkpoint.notes == [
            f"{len(LINEARS)} tensors are left out: they are biases of zeros, which AutoGPTQ adds"
        ]


def test_every_method_is_tried():
    assert {quantization["quant_method"] for quantization, _, _ in CASES.values()} == set(METHODS)


@pytest.mark.parametrize("value", [6e-8, 9000.0, 70000.0 / 16])
def test_scales_at_the_border_of_f16(tmp_path, value):
    """Multiples by 8 that f16 holds or does not: q4 or q8, and nothing is lost."""
    scale = np.float16(value)
    exact = write_foreign(
        tmp_path / "m", dict(GPTQ), gptq(scales=lambda random, shape: np.full(shape, scale, np.float16))
    )
    with open_checkpoint(tmp_path / "m") as checkpoint:
        tensor = checkpoint.tensors[LINEAR]
        assert tensor.format == ("q4" if 8 * float(scale) <= 65504 else "q8")
        np.testing.assert_array_equal(tensor.to_float32(), exact[LINEAR].astype(np.float32))
    assert f16_scales(np.random.default_rng(0), (2, 3)).dtype == np.float16
