"""Tensors -> packed weights, in parallel, each once: a tied embedding and head share theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.kernels.linear import PackedWeight
from fastdistill.models.plan import Plan

QUANTISED = ("q8", "q4")


def converted(plan: Plan, tensors: Mapping[str, Tensor], name: str, format: str | None) -> Tensor:
    """A tensor of the plan as it is to be held: linears and head in `format`, where one is given."""
    tensor = tensors[name]
    wanted = format is not None and plan.weights[name].linear and tensor.format != format
    return quantize_tensor(tensor, format) if wanted else tensor


class PackedWeights:
    """The weights of one plan, ready for C; immutable."""

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, Tensor],
        format: str | None,
        threads: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.formats: dict[str, str] = {}
        self._vectors: dict[str, np.ndarray] = {}
        self._matrices: dict[str, PackedWeight] = {}
        biases = {op.weights[0]: op.weights[1] for op in plan.ops if op.kind == "linear" and len(op.weights) > 1}
        for done, (name, weight) in enumerate(plan.weights.items(), 1):
            tensor = converted(plan, tensors, name, format)
            self.formats[name] = tensor.format
            if name in biases.values():
                continue  # its matrix holds it
            if len(weight.shape) == 1:
                self._vectors[name] = np.zeros(-(-weight.shape[0] // 32) * 32, np.float32)
                self._vectors[name][: weight.shape[0]] = tensor.to_float32()
            else:
                bias = tensors[biases[name]].to_float32() if name in biases else None
                arrays = (
                    None if part is None else np.ascontiguousarray(part)
                    for part in (tensor.data, tensor.scale, tensor.minimum)
                )
                self._matrices[name] = PackedWeight(tensor.format, *arrays, bias, weight.shape[1], threads)
            if progress is not None:
                progress(done, len(plan.weights))

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""
        return sum(held.nbytes for held in (*self._vectors.values(), *self._matrices.values()))

    def vector(self, name: str) -> np.ndarray:
        """float32, padded with zeros to a multiple of 32."""
        return self._vectors[name]

    def struct(self, name: str) -> Any:
        """The `struct fd_weight *` of a matrix and its bias."""
        return self._matrices[name].struct
