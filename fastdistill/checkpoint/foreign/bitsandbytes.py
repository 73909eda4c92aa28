"""bitsandbytes: LLM.int8() (Dettmers et al. 2022), and NF4 or FP4 (Dettmers et al. 2023). Both as f32: no f16 holds their scales.

Of 8 bits: X.weight int8 (N, K), times X.SCB float32 (N,) / 127.  Of 4 bits

- X.weight: uint8 (N K / 2, 1), two codes a byte, the first in the high half
- X.weight.quant_map: float32 (16,), what a code means
- X.weight.absmax: float32, times what, one a block of codes in sequence, whatever their rows; or uint8 codes of that,
  less an offset, which X.weight.nested_quant_map float32 (256,) and nested_absmax explain likewise
- X.weight.quant_state.bitsandbytes__nf4: uint8, JSON that says shape, block sizes and the offset
"""

from __future__ import annotations

import math

import numpy as np

from fastdistill.checkpoint.config import Section
from fastdistill.checkpoint.foreign.foreign import Foreign, plain, unsupported
from fastdistill.errors import CheckpointError
from fastdistill.files import parse_json
from fastdistill.messages import short

_HARMLESS_WORDS = """
quant_method load_in_4bit load_in_8bit _load_in_4bit _load_in_8bit bnb_4bit_compute_dtype bnb_4bit_quant_type
bnb_4bit_use_double_quant llm_int8_enable_fp32_cpu_offload llm_int8_has_fp16_weight llm_int8_skip_modules
llm_int8_threshold
"""
_HARMLESS = _HARMLESS_WORDS.split()
_TYPES = ("nf4", "fp4")
_STATE = "quant_state.bitsandbytes__"


def read(foreign: Foreign) -> None:
    """The tensors of a folder whose quant_method is bitsandbytes."""
    section = foreign.section
    foreign.check_keys([*_HARMLESS, "bnb_4bit_quant_storage"])
    storage = section.string("bnb_4bit_quant_storage", default="uint8")
    if storage != "uint8":
        unsupported(section, f"bnb_4bit_quant_storage {short(storage)} is not read, only 'uint8'")
    for module in foreign.modules(".SCB"):
        _add_int8(foreign, module)
    for type in _TYPES:
        for name in foreign.modules(f".{_STATE}{type}"):
            _add_4bit(foreign, name, type)


def _add_int8(foreign: Foreign, module: str) -> None:
    weight = foreign.take(f"{module}.weight", ["I8"], (None, None)).array
    scales = foreign.take(f"{module}.SCB", ["F32"], weight.shape[:1]).array
    if f"{module}.weight_format" in foreign.arrays:
        order = foreign.take(f"{module}.weight_format", ["U8"], (), (1,)).array
        if np.asarray(order).any():  # 0 is row by row
            unsupported(
                foreign.section, f"{plain(module)}.weight_format {np.asarray(order).tolist()} is not read, only 0"
            )

    def make() -> dict[str, np.ndarray]:
        values = np.asarray(weight).astype(np.float32)
        values *= np.asarray(scales)[:, None]
        values *= np.float32(1 / 127)  # as bitsandbytes does: a product more, and no quotient
        return {"data": values}

    foreign.add(f"{module}.weight", "f32", weight.shape, make, "f16 does not hold their scales")


def _add_4bit(foreign: Foreign, name: str, type: str) -> None:
    state = _state(foreign, name, type)
    shape = tuple(state.integers("shape"))
    size = math.prod(shape)
    block = state.integer("blocksize", minimum=1)
    if len(shape) != 2 or size % 2:
        state.refuse("shape", [*shape], "two integers with an even product")
    count = -(-size // block)
    codes = foreign.take(name, ["U8"], (size // 2, 1)).array
    values_of = foreign.take(f"{name}.quant_map", ["F32"], (16,)).array
    nested = state.integer("nested_blocksize", minimum=1, default=None)
    absmax = foreign.take(f"{name}.absmax", ["F32" if nested is None else "U8"], (count,)).array
    outer = outer_map = None
    offset = 0.0
    if nested is not None:
        outer = foreign.take(f"{name}.nested_absmax", ["F32"], (-(-count // nested),)).array
        outer_map = foreign.take(f"{name}.nested_quant_map", ["F32"], (256,)).array
        offset = state.number("nested_offset")

    def make() -> dict[str, np.ndarray]:
        scales = np.asarray(absmax)
        if outer is not None and nested is not None:
            scales = np.asarray(outer_map)[scales] * np.asarray(outer)[np.arange(count) // nested] + np.float32(offset)
        packed = np.asarray(codes)[:, 0]
        values = np.asarray(values_of)[np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)]
        values *= scales[np.arange(size) // block]
        return {"data": values.reshape(shape)}

    foreign.add(name, "f32", shape, make, f"codes of {type} are no steps of one size")


def _state(foreign: Foreign, name: str, type: str) -> Section:
    stored = foreign.take(f"{name}.{_STATE}{type}", ["U8"], (None,)).array
    source = f"{foreign.section.source}: {plain(name)}.{_STATE}{type}"
    if stored.nbytes > 1 << 16:
        raise CheckpointError(f"{source}: has {stored.nbytes} bytes; expected a few lines of JSON")
    state = Section(parse_json(np.asarray(stored).tobytes(), source), source)
    known = ["quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset"]
    foreign.check_keys(known, state)
    state.choice("quant_type", type)
    return state
