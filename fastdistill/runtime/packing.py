"""Tensors -> the tile layout of csrc/kernels/pack.c, in parallel, each once: a tied embedding and head share theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..checkpoint.quantize import quantize_tensor
from ..checkpoint.tensor import Tensor
from ..kernels.boundary import ffi, lib, pointer
from ..models.plan import Plan

FORMATS = {"f32": lib.FD_F32, "f16": lib.FD_F16, "bf16": lib.FD_BF16, "q8": lib.FD_Q8, "q4": lib.FD_Q4}
QUANTISED = ("q8", "q4")


def aligned_bytes(size: int) -> np.ndarray:
    """uint8 (size,), zeros, on a cache line; pages are only taken when written."""
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


class PackedWeights:
    """The weights of one plan, ready for C; immutable."""

    def __init__(self, plan: Plan, tensors: Mapping[str, Tensor], format: str | None, threads: int, progress: Callable[[int, int], None] | None = None):
        self.formats: dict[str, str] = {}
        self.nbytes = 0
        self._arrays: list[np.ndarray] = []
        self._structs: dict[tuple[str, ...], Any] = {}
        self._vectors: dict[str, np.ndarray] = {}
        self._packed: dict[str, tuple[int, tuple[int, ...], np.ndarray]] = {}
        for done, (name, weight) in enumerate(plan.weights.items()):
            tensor = tensors[name]
            if len(weight.shape) == 1:
                vector = np.zeros(-(-weight.shape[0] // 32) * 32, np.float32)
                vector[: weight.shape[0]] = tensor.to_float32()
                self._vectors[name] = self._own(vector)
                self.formats[name] = "f32"
                continue
            if weight.linear and format is not None and tensor.format != format:
                tensor = quantize_tensor(tensor, format)
            self.formats[name] = tensor.format
            self._packed[name] = FORMATS[tensor.format], weight.shape, self._own(_pack(tensor, weight.shape, threads))
            if progress is not None:
                progress(done + 1, len(plan.weights))

    def vector(self, name: str) -> np.ndarray:
        """float32, padded with zeros to a multiple of 32."""
        return self._vectors[name]

    def struct(self, names: tuple[str, ...]) -> Any:
        """The `struct fd_weight *` of a weight and, where named, its bias."""
        if names not in self._structs:
            format, shape, packed = self._packed[names[0]]
            struct = ffi.new("struct fd_weight *")
            struct.format = format
            struct.outputs, struct.inputs = shape
            struct.packed = ffi.from_buffer(packed)
            struct.bias = pointer(self._vectors[names[1]]) if len(names) > 1 else ffi.NULL
            self._structs[names] = struct
        return self._structs[names]

    def _own(self, array: np.ndarray) -> np.ndarray:
        self._arrays.append(array)
        self.nbytes += array.nbytes
        return array


def _pack(tensor: Tensor, shape: tuple[int, ...], threads: int) -> np.ndarray:
    outputs, inputs = shape
    code = FORMATS[tensor.format]
    packed = aligned_bytes(lib.fd_packed_bytes(code, outputs, inputs))
    parts = [np.ascontiguousarray(part) if part is not None else None for part in (tensor.scale, tensor.minimum)]
    scale, minimum = (pointer(part.view(np.uint16)) if part is not None else ffi.NULL for part in parts)
    data = np.ascontiguousarray(tensor.data)
    lib.fd_pack(code, outputs, inputs, ffi.from_buffer(data), scale, minimum, ffi.from_buffer(packed), threads)
    return packed
