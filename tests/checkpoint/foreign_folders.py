"""Small Llama folders as other methods write them, packed code by code from their descriptions, and what they mean.

Each maker takes an f32 matrix's name and shape and gives {array name: Stored} and the exact weights, float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastdistill.checkpoint import Tensor
from fastdistill.checkpoint.safetensors_file import Stored, write_safetensors
from fastdistill.models import plan_for
from tests.small_models import config, tensors

PLAN = plan_for(config())
LINEARS = [name for name, shape in PLAN.stored.items() if len(shape) == 2 and ".layers." in name]
Made = tuple[dict[str, Stored], np.ndarray]


def random_of(name: str) -> np.random.Generator:
    return np.random.default_rng(sum(name.encode()))


def words(codes: np.ndarray, bits: int, order=None) -> np.ndarray:
    """(rows, n) -> int32 (rows, n bits / 32): one code after another is put into its word, from the lowest bits on.

    `order[i]` of each word's codes takes place i.
    """
    count = 32 // bits
    order = range(count) if order is None else order
    packed = np.zeros((codes.shape[0], codes.shape[1] // count), np.uint32)
    for row in range(codes.shape[0]):
        for word in range(packed.shape[1]):
            for place, which in enumerate(order):
                packed[row, word] |= np.uint32(int(codes[row, count * word + which]) << (bits * place))
    return packed.view(np.int32)


def f16_scales(random, shape) -> np.ndarray:
    return (random.uniform(0.5, 2, shape) * 0.02).astype(np.float16)


def gptq(bits=4, group=32, symmetric=True, act_order=False, less_one=True, scales=f16_scales):
    def make(name: str, shape: tuple[int, int]) -> Made:
        random, (outputs, inputs), module = random_of(name), shape, name.removesuffix(".weight")
        size = inputs if group == -1 else group
        count = -(-inputs // size)
        codes = random.integers(0, 2**bits, (inputs, outputs))
        zeros = np.full((count, outputs), 2 ** (bits - 1))
        if not symmetric:
            zeros = random.integers(1, 2**bits, zeros.shape)
        scale = scales(random, (count, outputs))
        g_idx = np.arange(inputs) // size
        if act_order:
            random.shuffle(g_idx)
        arrays = {
            f"{module}.qweight": Stored("I32", np.ascontiguousarray(words(codes.T, bits).T)),
            f"{module}.qzeros": Stored("I32", words(zeros - less_one, bits)),
            f"{module}.scales": Stored({"float16": "F16", "float32": "F32"}[scale.dtype.name], scale),
            f"{module}.g_idx": Stored("I32", g_idx.astype(np.int32)),
        }
        exact = [scale[g_idx[k]].astype(np.float64) * (codes[k] - zeros[g_idx[k]]) for k in range(inputs)]
        return arrays, np.stack(exact, axis=1)

    return make


def awq(group=32, symmetric=False):
    def make(name: str, shape: tuple[int, int]) -> Made:
        random, (outputs, inputs), module = random_of(name), shape, name.removesuffix(".weight")
        count = -(-inputs // group)
        codes = random.integers(0, 16, (inputs, outputs))
        zeros = np.full((count, outputs), 8) if symmetric else random.integers(0, 16, (count, outputs))
        scale = f16_scales(random, (count, outputs))
        order = [0, 2, 4, 6, 1, 3, 5, 7]
        arrays = {
            f"{module}.qweight": Stored("I32", words(codes, 4, order)),
            f"{module}.qzeros": Stored("I32", words(zeros, 4, order)),
            f"{module}.scales": Stored("F16", scale),
        }
        exact = [scale[k // group].astype(np.float64) * (codes[k] - zeros[k // group]) for k in range(inputs)]
        return arrays, np.stack(exact, axis=1)

    return make


def bf16(values: np.ndarray) -> np.ndarray:
    """Bits of the bf16 at or below, of values that are to be such."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def of_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def packed(bits=4, group=32, symmetric=True, act_order=False, tiny=False):
    """compressed-tensors' pack-quantized."""

    def make(name: str, shape: tuple[int, int]) -> Made:
        random, (outputs, inputs), module = random_of(name), shape, name.removesuffix(".weight")
        size = group or inputs
        count, half = -(-inputs // size), 2 ** (bits - 1)
        codes = random.integers(-half, half, shape)
        zeros = np.zeros((outputs, count), int) if symmetric else random.integers(-half, half, (outputs, count))
        scale = bf16(random.uniform(0.5, 2, (outputs, count)) * (1e-9 if tiny else 0.02))
        g_idx = np.arange(inputs) // size
        if act_order:
            random.shuffle(g_idx)
        arrays = {
            f"{module}.weight_packed": Stored("I32", words(codes + half, bits)),
            f"{module}.weight_scale": Stored("BF16", scale),
            f"{module}.weight_shape": Stored("I64", np.array(shape, np.int64)),
        }
        if not symmetric:
            zero_words = np.ascontiguousarray(words((zeros + half).T, bits).T)
            arrays[f"{module}.weight_zero_point"] = Stored("I32", zero_words)
        if act_order:
            arrays[f"{module}.weight_g_idx"] = Stored("I32", g_idx.astype(np.int32))
        return arrays, of_bf16(scale)[:, g_idx] * (codes - zeros[:, g_idx])

    return make


def int8(kind="F16"):
    """compressed-tensors' int-quantized, a scale an output."""

    def make(name: str, shape: tuple[int, int]) -> Made:
        random, module = random_of(name), name.removesuffix(".weight")
        codes = random.integers(-128, 128, shape).astype(np.int8)
        scale = (random.uniform(0.5, 2, (shape[0], 1)) * 1e-3).astype(np.float16 if kind == "F16" else np.float32)
        return {
            f"{module}.weight": Stored("I8", codes), f"{module}.weight_scale": Stored(kind, scale),
            f"{module}.input_scale": Stored("F32", np.ones(1, np.float32)),
        }, scale.astype(np.float64) * codes  # fmt: skip

    return make


def e4m3(code: int) -> float:
    """One number, from its bits."""
    sign, exponent, mantissa = -1.0 if code & 128 else 1.0, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def float8(scaling: str, scale_name: str):
    """Codes of magnitudes up to 2, times a scale a block of 32 x 48, an output, or one."""

    def make(name: str, shape: tuple[int, int]) -> Made:
        random, (outputs, inputs), module = random_of(name), shape, name.removesuffix(".weight")
        codes = (random.integers(0, 65, shape) | random.choice([0, 128], shape)).astype(np.uint8)
        sizes = {"block": (-(-outputs // 32), -(-inputs // 48)), "output": (outputs, 1), "one": (1,)}[scaling]
        scale = (random.uniform(0.5, 2, sizes) * 0.1).astype(np.float32)
        exact = np.empty(shape)
        for row in range(outputs):
            for column in range(inputs):
                at = {"block": (row // 32, column // 48), "output": (row, 0), "one": (0,)}[scaling]
                exact[row, column] = e4m3(int(codes[row, column])) * float(scale[at])
        return {f"{module}.weight": Stored("F8_E4M3", codes), f"{module}.{scale_name}": Stored("F32", scale)}, exact

    return make


def bnb8(name: str, shape: tuple[int, int]) -> Made:
    random, module = random_of(name), name.removesuffix(".weight")
    codes = random.integers(-127, 128, shape).astype(np.int8)
    scale = random.uniform(0.1, 0.3, shape[0]).astype(np.float32)
    exact = (codes * scale[:, None]).astype(np.float32) * np.float32(7.874015718698502e-3)
    return {
        name: Stored("I8", codes), f"{module}.SCB": Stored("F32", scale),
        f"{module}.weight_format": Stored("U8", np.zeros((), np.uint8)),
    }, exact.astype(np.float64)  # fmt: skip


def bnb4(type="nf4", nested=True):
    def make(name: str, shape: tuple[int, int]) -> Made:
        random, size, block, outer = random_of(name), shape[0] * shape[1], 64, 16
        codes = random.integers(0, 16, size)
        quant_map = np.sort(random.uniform(-1, 1, 16)).astype(np.float32)
        count = -(-size // block)
        state: dict[str, object] = {"quant_type": type, "blocksize": block, "dtype": "bfloat16", "shape": [*shape]}
        arrays = {name: Stored("U8", (codes[0::2] * 16 + codes[1::2]).astype(np.uint8)[:, None])}
        if nested:
            absmax = random.integers(0, 256, count).astype(np.uint8)
            outer_map = np.sort(random.uniform(-1, 1, 256)).astype(np.float32)
            outer_max = random.uniform(0.1, 0.2, -(-count // outer)).astype(np.float32)
            state |= {"nested_blocksize": outer, "nested_dtype": "float32", "nested_offset": 0.25}
            scale = np.array(
                [outer_map[absmax[i]] * outer_max[i // outer] + np.float32(0.25) for i in range(count)], np.float32
            )
            arrays[f"{name}.nested_absmax"] = Stored("F32", outer_max)
            arrays[f"{name}.nested_quant_map"] = Stored("F32", outer_map)
        else:
            scale = absmax = random.uniform(0.1, 0.4, count).astype(np.float32)
        arrays[f"{name}.absmax"] = Stored("U8" if nested else "F32", absmax)
        arrays[f"{name}.quant_map"] = Stored("F32", quant_map)
        text = np.frombuffer(json.dumps(state).encode(), np.uint8)
        arrays[f"{name}.quant_state.bitsandbytes__{type}"] = Stored("U8", text)
        exact = [float(quant_map[code]) * float(scale[i // block]) for i, code in enumerate(codes)]
        return arrays, np.array(exact).reshape(shape)

    return make


def write_foreign(folder: Path, quantization: dict, make: Callable[[str, tuple[int, int]], Made], change=None) -> dict:
    """Write a folder whose layers' matrices `make` makes; the exact weights of all, float64, by name."""
    folder.mkdir()
    made = tensors(PLAN)
    arrays = {name: Stored("F32", tensor.data) for name, tensor in made.items() if name not in LINEARS}
    exact = {name: stored.array.astype(np.float64) for name, stored in arrays.items()}
    for name in LINEARS:
        more, exact[name] = make(name, PLAN.stored[name])
        arrays |= more
    raw = dict(config().raw) | {"quantization_config": quantization}
    if change is not None:
        change(arrays, raw["quantization_config"])
    (folder / "config.json").write_text(json.dumps(raw))
    write_safetensors(folder / "model.safetensors", arrays)
    return exact


def plain(exact: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: Tensor(name, "f32", array.shape, array.astype(np.float32)) for name, array in exact.items()}
