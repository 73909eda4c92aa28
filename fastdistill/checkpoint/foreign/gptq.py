"""GPTQ (Frantar et al. 2022), as AutoGPTQ and GPTQModel write it: 2, 4 or 8 bits, a scale and a zero a group of inputs.

- X.qweight: int32 (K bits / 32, N), codes of inputs in sequence, the first in the lowest bits
- X.qzeros: int32 (groups, N bits / 32), zeros of outputs in sequence, less 1 but for checkpoint_format gptq_v2
- X.scales: float16 (groups, N)
- X.g_idx: int32 (K,), each input's group; in order unless desc_act
- X.bias: also where the model has none; then it is zeros
"""

from __future__ import annotations

import numpy as np

from fastdistill.checkpoint.foreign.foreign import FLOATS, Foreign, floats, plain, unpacked, unsupported
from fastdistill.checkpoint.foreign.grouped import Scales, add_grouped
from fastdistill.checkpoint.safetensors_file import Stored
from fastdistill.errors import CheckpointError
from fastdistill.messages import short

# What says how the weights were made, or how others are to run them, and nothing of what they are.
_HARMLESS_WORDS = """
quant_method sym true_sequential static_groups damp_percent damp_auto_increment dataset tokenizer meta
model_name_or_path model_file_base_name model_seqlen block_name_to_quantize module_name_preceding_first_block
modules_in_block_to_quantize batch_size pad_token_id use_cuda_fp16 cache_block_outputs max_input_length backend
use_exllama disable_exllama exllama_config lm_head
method act_group_aware mse
"""
_HARMLESS = _HARMLESS_WORDS.split()


def read(foreign: Foreign) -> None:
    """The tensors of a folder whose quant_method is gptq."""
    section = foreign.section
    known = ["bits", "group_size", "desc_act", "checkpoint_format", "format", "is_marlin_format", "pack_dtype"]
    foreign.check_keys([*_HARMLESS, *known])
    bits = section.integer("bits", minimum=2, maximum=8)
    if bits not in (2, 4, 8):
        unsupported(section, f"bits {bits} are not read, only 2, 4 and 8")
    size = section.integer("group_size", minimum=-1, default=-1)
    section.boolean("desc_act", default=False)
    layout = section.string("checkpoint_format", default=section.string("format", default="gptq"))
    if section.string("pack_dtype", default="int32") != "int32":
        unsupported(section, f"pack_dtype {short(section.raw['pack_dtype'])} is not read, only 'int32'")
    if layout not in ("gptq", "gptq_v2") or section.boolean("is_marlin_format", default=False):
        unsupported(section, f"checkpoint_format {short(layout)} is not read, only 'gptq' and 'gptq_v2'")
    for module in foreign.modules(".qweight"):
        _add(foreign, module, bits, size, less_one=layout == "gptq")
        bias = foreign.arrays.get(f"{module}.bias")
        if bias is not None and bias.dtype in FLOATS and not floats(bias).any():
            foreign.drop(f"{module}.bias", reason="they are biases of zeros, which AutoGPTQ adds")


def _add(foreign: Foreign, module: str, bits: int, size: int, less_one: bool) -> None:
    per_word = 32 // bits
    qweight = foreign.take(f"{module}.qweight", ["I32"], (None, None)).array
    inputs, outputs = qweight.shape[0] * per_word, qweight.shape[1]
    group = size if size > 0 else max(inputs, 1)
    count = -(-inputs // group)
    scales = foreign.take(f"{module}.scales", FLOATS, (count, outputs))
    qzeros = foreign.take(f"{module}.qzeros", ["I32"], (count, -(-outputs // per_word))).array
    if outputs % per_word:
        unsupported(foreign.section, f"{plain(module)} has {outputs} outputs, not a multiple of {per_word}")

    def read_scales() -> Scales:
        stored = unpacked(np.asarray(qzeros), bits, axis=1).T.astype(np.int32)
        if less_one and (stored == 2**bits - 1).any():
            unsupported(
                foreign.section,
                f"{plain(module)}.qzeros holds {2**bits - 1}, which some read as {2**bits} and others as 0",
            )
        return np.ascontiguousarray(floats(scales).T), stored + less_one

    def read_codes() -> np.ndarray:
        return np.ascontiguousarray(unpacked(np.asarray(qweight), bits, axis=0).T)

    groups = None
    if f"{module}.g_idx" in foreign.arrays:
        groups = _groups(foreign, foreign.take(f"{module}.g_idx", ["I32"], (inputs,)), module, group)
    add_grouped(foreign, f"{module}.weight", (outputs, inputs), bits, group, read_scales, read_codes, groups)


def _groups(foreign: Foreign, stored: Stored, module: str, group: int) -> np.ndarray | None:
    """Each input's group; None where they are in order."""
    groups = np.asarray(stored.array)
    count = -(-len(groups) // group)
    if groups.size and not (groups.min() >= 0 and groups.max() < count):
        raise CheckpointError(
            f"{foreign.section.source}: {plain(module)}.g_idx must lie in 0..{count - 1}, found {groups.min()}..{groups.max()}"
        )
    return None if (groups == np.arange(len(groups)) // group).all() else groups
