"""AWQ (Lin et al. 2024), as AutoAWQ writes it for its GEMM kernel: 4 bits, a scale and a zero a group of inputs.

- X.qweight: int32 (K, N / 8), codes of 8 outputs a word; from the lowest bits on those of outputs 0 2 4 6 1 3 5 7
- X.qzeros: int32 (groups, N / 8), likewise
- X.scales: float16 (groups, N)
"""

from __future__ import annotations

import numpy as np

from fastdistill.checkpoint.foreign.foreign import FLOATS, Foreign, floats, unpacked, unsupported
from fastdistill.checkpoint.foreign.grouped import Scales, add_grouped
from fastdistill.messages import short

_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]  # of outputs 0 .. 7 in a word: the order above, turned round
_HARMLESS_WORDS = """
quant_method modules_to_not_convert backend do_fuse fuse_max_seq_len modules_to_fuse exllama_config
"""
_HARMLESS = _HARMLESS_WORDS.split()


def read(foreign: Foreign) -> None:
    """The tensors of a folder whose quant_method is awq."""
    section = foreign.section
    foreign.check_keys([*_HARMLESS, "bits", "w_bit", "group_size", "q_group_size", "version", "zero_point"])
    for names, wanted in ((("bits", "w_bit"), 4), (("version",), "gemm"), (("zero_point",), True)):
        for found in (section.raw[name] for name in names if section.raw.get(name) is not None):
            if type(found) is not type(wanted) or (found.lower() if isinstance(found, str) else found) != wanted:
                unsupported(section, f"{names[0]} {short(found)} is not read, only {short(wanted)}")
    size = section.integer("group_size", minimum=-1, default=None)
    size = section.integer("q_group_size", minimum=-1) if size is None else size
    for module in foreign.modules(".qweight"):
        _add(foreign, module, size)


def _add(foreign: Foreign, module: str, size: int) -> None:
    qweight = foreign.take(f"{module}.qweight", ["I32"], (None, None)).array
    inputs, outputs = qweight.shape[0], qweight.shape[1] * 8
    group = size if size > 0 else max(inputs, 1)
    count = -(-inputs // group)
    qzeros = foreign.take(f"{module}.qzeros", ["I32"], (count, outputs // 8)).array
    scales = foreign.take(f"{module}.scales", FLOATS, (count, outputs))

    def read_scales() -> Scales:
        return np.ascontiguousarray(floats(scales).T), _in_order(np.asarray(qzeros)).astype(np.int32)

    add_grouped(
        foreign, f"{module}.weight", (outputs, inputs), 4, group, read_scales, lambda: _in_order(np.asarray(qweight))
    )


def _in_order(words: np.ndarray) -> np.ndarray:
    """int32 (rows, N / 8) -> uint8 (N, rows)."""
    codes = unpacked(words, 4, axis=1).reshape(*words.shape, 8)[:, :, _PLACES]
    return np.ascontiguousarray(codes.reshape(len(words), -1).T)
