"""A GGUF file's tensors as tensors of a checkpoint, and those of a checkpoint as a GGUF file's bytes.

Q4_0, Q4_1 and Q8_0 keep their codes and scales, Q5_0 and IQ4_NL their values, as q8, F32, F16 and BF16 their bits. The package
`gguf` is needed only for the other types, which are dequantised.
"""

from __future__ import annotations

import numpy as np

from fastdistill.checkpoint.gguf.reader import (
    BF16,
    BLOCKS,
    F16,
    F32,
    IQ4_NL,
    Q4_1,
    Q5_0,
    Q8_0,
    GgufFile,
    GgufTensor,
    gguf_package,
)
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.errors import CheckpointError, UnsupportedError

# Type -> the format here, and the dtype of its bytes.
_NUMBERS = {F32: ("f32", "<f4"), F16: ("f16", "<f2"), BF16: ("bf16", "<u2")}
# What the codes of IQ4_NL stand for.
_IQ4_NL = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
_TYPES = {format: kind for kind, (format, _) in _NUMBERS.items()} | {"q8": Q8_0, "q4": Q4_1}


def read_tensor(file: GgufFile, found: GgufTensor, name: str) -> Tensor:
    """What the header says of a tensor, with its bytes, as a tensor of this name; rows in the file's order."""
    raw = file.read(found)
    if found.type in _NUMBERS:
        format, dtype = _NUMBERS[found.type]
        return Tensor(name, format, found.shape, raw.view(dtype))
    if found.type in BLOCKS and len(found.shape) == 2:
        return _blocks(file, found, name, raw)
    gguf = gguf_package()
    try:
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(found.type))
    except NotImplementedError as error:
        raise UnsupportedError(f"{file.name}: tensor {found.name} cannot be dequantised: {error}") from None
    if not np.isfinite(values).all():
        raise CheckpointError(f"{file.name}: tensor {found.name} is not finite: some of its scales are not")
    return Tensor(name, "f32", found.shape, np.ascontiguousarray(values, np.float32))


def _blocks(file: GgufFile, found: GgufTensor, name: str, raw: np.ndarray) -> Tensor:
    """A matrix of blocks that those here hold without loss.

    Q4_0 means d * (code - 8): as q4, its minimum is -8 d. Times eight is exact in f16 unless it overflows; then the
    tensor becomes q8 with the codes less 8. Q5_0 has d * (code - 16), its codes' fifth bits in a word of their own, and IQ4_NL
    d times a whole number that the code stands for: as q8 both have one byte a value.
    """
    rows, blocks = found.shape[0], found.shape[1] // 32
    raw = raw.reshape(rows, blocks, BLOCKS[found.type][1])

    def scales(at: int) -> np.ndarray:
        values = np.ascontiguousarray(raw[:, :, at : at + 2]).view("<f2").reshape(rows, blocks)
        if not np.isfinite(values).all():
            row, block = np.argwhere(~np.isfinite(values))[0]
            raise CheckpointError(
                f"{file.name}: tensor {found.name}: the scale of row {row}, block {block} is {values[row, block]}"
            )
        return values

    scale = scales(0)
    if found.type == Q8_0:
        return Tensor(name, "q8", found.shape, raw[:, :, 2:].reshape(rows, -1).view(np.int8), scale)
    if found.type == Q4_1:
        return Tensor(name, "q4", found.shape, raw[:, :, 4:].reshape(rows, -1), scale, scales(2))
    codes = raw[:, :, 2:]
    if found.type == Q5_0:
        fifth = np.unpackbits(codes[:, :, :4], axis=2, bitorder="little")
        four = np.concatenate([codes[:, :, 4:] & 15, codes[:, :, 4:] >> 4], axis=2)
        return Tensor(name, "q8", found.shape, ((four | fifth << 4).view(np.int8) - 16).reshape(rows, -1), scale)
    if found.type == IQ4_NL:
        four = np.concatenate([codes & 15, codes >> 4], axis=2)
        return Tensor(name, "q8", found.shape, _IQ4_NL[four].reshape(rows, -1), scale)
    if (np.abs(scale) <= np.finfo(np.float16).max / 8).all():
        return Tensor(name, "q4", found.shape, codes.reshape(rows, -1), scale, scale * np.float16(-8))
    codes = np.concatenate([codes & 15, codes >> 4], axis=2).view(np.int8) - np.int8(8)
    return Tensor(name, "q8", found.shape, codes.reshape(rows, -1), scale)


def file_type(format: str, shape: tuple[int, ...]) -> int:
    """The type in a file of a tensor in a format: norms and biases are F32 there, and so are rows of no whole blocks."""
    kind = _TYPES[format]
    return F32 if len(shape) == 1 or shape[-1] % BLOCKS[kind][0] else kind


def file_bytes(tensor: Tensor, kind: int) -> np.ndarray:
    """A tensor as the bytes of a type that `file_type` gives: codes, scales and bits as they are."""
    if kind == F32:
        return np.ascontiguousarray(tensor.to_float32(), "<f4")
    if kind in _NUMBERS:
        return np.ascontiguousarray(tensor.data, _NUMBERS[kind][1])
    rows, blocks = tensor.shape[0], tensor.shape[1] // 32
    parts = [tensor.scale, tensor.minimum, tensor.data] if kind == Q4_1 else [tensor.scale, tensor.data]
    return np.concatenate([part.reshape(rows, blocks, -1).view(np.uint8) for part in parts if part is not None], axis=2)
