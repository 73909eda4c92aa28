"""compressed-tensors, as llm-compressor writes it: one scheme a folder, of these formats.

- pack-quantized: X.weight_packed int32 (N, K bits / 32), codes of inputs in sequence, the first in the lowest bits;
  X.weight_shape int64 (2,), N and K; X.weight_zero_point int32 (N bits / 32, groups), where not symmetric
- int-quantized: X.weight int8 (N, K), X.weight_zero_point int8
- float-quantized: X.weight F8_E4M3 (N, K)
- all: X.weight_scale (N, groups), (N, 1), (1,), or one a block; X.weight_g_idx int32 (K,), each input's group

Codes and zeros of b bits are signed; packed they are stored with 2^(b-1) added.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.checkpoint.config import Section
from fastdistill.checkpoint.foreign.float8 import FLOATS8, add_scaled
from fastdistill.checkpoint.foreign.foreign import FLOATS, Foreign, floats, plain, unpacked, unsupported
from fastdistill.checkpoint.foreign.fp8 import ACTIVATIONS
from fastdistill.checkpoint.foreign.grouped import Scales, add_grouped
from fastdistill.errors import CheckpointError
from fastdistill.messages import short

_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")
_HARMLESS_WORDS = """
quant_method config_groups format quantization_status ignore global_compression_ratio version run_compressed
"""
_HARMLESS = _HARMLESS_WORDS.split()
_OF_WEIGHTS_WORDS = """
num_bits type symmetric strategy group_size block_structure actorder dynamic observer observer_kwargs scale_dtype
zp_dtype
"""
_OF_WEIGHTS = _OF_WEIGHTS_WORDS.split()


def read(foreign: Foreign) -> None:
    """The tensors of a folder whose quant_method is compressed-tensors."""
    section = foreign.section
    foreign.check_keys([*_HARMLESS, "kv_cache_scheme", "sparsity_config", "transform_config"])
    for name in ("sparsity_config", "transform_config"):
        some = {key: value for key, value in section.section(name, default=Section({}, "")).raw.items() if value}
        if some.get("format", "dense") != "dense" or (some and "format" not in some):
            unsupported(section, f"{name} {short(some)} is not read")
    formats = {section.string("format", default="dense")}
    schemes = []
    for name in section.section("config_groups").raw:
        group = section.section("config_groups").section(name)
        foreign.check_keys(("targets", "weights", "input_activations", "output_activations", "format"), group)
        formats |= {group.string("format")} if group.raw.get("format") is not None else set()
        schemes.append(_scheme(foreign, group.section("weights")))
    formats -= {"dense", "mixed-precision"}
    if not formats <= {*_FORMATS} or len(formats) > 1:
        unsupported(section, f"the format {', '.join(sorted(formats))} is not read, only one of {', '.join(_FORMATS)}")
    if any(scheme != schemes[0] for scheme in schemes):
        unsupported(section, "several groups of layers have schemes of their own")
    for scheme in schemes[:1]:
        _add_all(foreign, *scheme)
    reason = "keys and values are not rounded to 8-bit floats here"
    foreign.drop(".k_scale", ".v_scale", ".q_scale", reason=reason)
    foreign.drop(".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point", reason=ACTIVATIONS)


def _scheme(foreign: Foreign, weights: Section) -> tuple[str, int, int | None, tuple[int, int] | None]:
    """Type, bits, inputs of a group (None: all), (outputs, inputs) of a block where there are some."""
    foreign.check_keys(_OF_WEIGHTS, weights)
    type = weights.choice("type", "int", "float")
    bits = weights.integer("num_bits", minimum=2, maximum=8)
    strategy = weights.string("strategy", default="tensor")
    if strategy not in ("tensor", "channel", "group", "block") or weights.boolean("dynamic", default=False):
        unsupported(weights, f"the strategy {short(strategy)} of weights is not read")
    if (type == "float" and bits != 8) or (type == "int" and (bits not in (4, 8) or strategy == "block")):
        unsupported(weights, f"{type} of {bits} bits by {strategy} is not read")
    group = weights.integer("group_size", minimum=1) if strategy == "group" else None
    if type == "float" and strategy == "group":
        unsupported(weights, "8-bit floats by group are not read")
    block: Any = weights.integers("block_structure", minimum=1) if strategy == "block" else None
    if block is not None and len(block) != 2:
        weights.refuse("block_structure", block, "two integers")
    return type, bits, group, None if block is None else (block[0], block[1])


def _add_all(foreign: Foreign, type: str, bits: int, group: int | None, block: tuple[int, int] | None) -> None:
    for module in foreign.modules(".weight_packed"):
        _add(foreign, module, bits, group, packed=True)
    if type == "float":
        for module in foreign.modules(".weight", *FLOATS8):
            add_scaled(foreign, module, "weight_scale", block)
    elif bits == 8:
        for module in foreign.modules(".weight", "I8"):
            _add(foreign, module, bits, group, packed=False)


def _add(foreign: Foreign, module: str, bits: int, group: int | None, packed: bool) -> None:
    half, per_word = 2 ** (bits - 1), 32 // bits
    if packed:
        words = foreign.take(f"{module}.weight_packed", ["I32"], (None, None)).array
        shape = np.asarray(foreign.take(f"{module}.weight_shape", ["I64", "I32"], (2,)).array).tolist()
        if min(shape) < 0 or words.shape != (shape[0], -(-shape[1] // per_word)):
            raise CheckpointError(
                f"{foreign.section.source}: {plain(module)}.weight_packed must be [N, K / {per_word}] for the weight_shape "
                f"{shape}, found {[*words.shape]}"
            )
    else:
        words = foreign.take(f"{module}.weight", ["I8"], (None, None)).array
        shape = [*words.shape]
    outputs, inputs = shape
    size = group or max(inputs, 1)
    count = -(-inputs // size)
    scales = foreign.take(
        f"{module}.weight_scale", FLOATS, (outputs, count), *([] if group else [(1,), (outputs,), ()])
    )
    zeros = None
    if f"{module}.weight_zero_point" in foreign.arrays:
        if packed:
            zeros = foreign.take(f"{module}.weight_zero_point", ["I32"], (-(-outputs // per_word), count)).array
        else:
            zeros = foreign.take(f"{module}.weight_zero_point", ["I8"], scales.array.shape).array

    def read_scales() -> Scales:
        factors = np.broadcast_to(floats(scales).reshape(-1, count), (outputs, count))
        if zeros is None:
            found = np.full((1, 1), half)
        elif packed:
            found = unpacked(np.asarray(zeros), bits, axis=0)[:outputs]
        else:
            found = np.asarray(zeros).astype(np.int32).reshape(-1, count) + half
        return factors, np.broadcast_to(found.astype(np.int32), (outputs, count))

    def read_codes() -> np.ndarray:
        if packed:
            return unpacked(np.asarray(words), bits, axis=1)[:, :inputs]
        return np.asarray(words).view(np.uint8) ^ 128  # plus 128

    groups = None
    if f"{module}.weight_g_idx" in foreign.arrays:
        groups = np.asarray(foreign.take(f"{module}.weight_g_idx", ["I32"], (inputs,)).array)
        if (groups == -1).all() or (groups == np.arange(inputs) // size).all():
            groups = None
        elif not (groups.min() >= 0 and groups.max() < count):
            raise CheckpointError(f"{foreign.section.source}: {plain(module)}.weight_g_idx must lie in 0..{count - 1}")
    add_grouped(foreign, f"{module}.weight", (outputs, inputs), bits, size, read_scales, read_codes, groups)
