"""Weights as 8-bit floats: `fp8` of DeepSeek and Qwen (blocks of 128 x 128) and of transformers, `fbgemm_fp8` of Llama 3.1 405B.

- X.weight: F8_E4M3 or F8_E5M2 (N, K)
- X.weight_scale_inv: float32 (ceil(N / 128), ceil(K / 128)), what a block is multiplied by, whatever its name says
- X.weight_scale: float32, one or one an output, likewise; without weight_block_size
"""

from __future__ import annotations

from fastdistill.checkpoint.foreign.float8 import FLOATS8, add_scaled
from fastdistill.checkpoint.foreign.foreign import Foreign, unsupported
from fastdistill.messages import short

ACTIVATIONS = "they scale activations, which are not rounded to 8-bit floats here"
_KNOWN_WORDS = """
quant_method fmt activation_scheme weight_block_size modules_to_not_convert ignored_layers scale_fmt
activation_scale_ub dequantize
"""
_KNOWN = _KNOWN_WORDS.split()


def read(foreign: Foreign) -> None:
    """The tensors of a folder whose quant_method is fp8 or fbgemm_fp8."""
    section = foreign.section
    foreign.check_keys(_KNOWN)
    format = section.string("fmt", default="e4m3")
    if format not in ("e4m3", "e5m2", "float8_e4m3fn", "float8_e5m2"):
        unsupported(section, f"fmt {short(format)} is not read, only 'e4m3' and 'e5m2'")
    block = section.integers("weight_block_size", minimum=1, default=None)
    if block is not None and len(block) != 2:
        section.refuse("weight_block_size", block, "two integers")
    for module in foreign.modules(".weight", *FLOATS8):
        scale = "weight_scale_inv" if f"{module}.weight_scale_inv" in foreign.arrays else "weight_scale"
        add_scaled(foreign, module, scale, None if block is None else (block[0], block[1]))
    foreign.drop(".input_scale", ".activation_scale", ".input_scale_ub", reason=ACTIVATIONS)
