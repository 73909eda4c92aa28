"""Tensors -> packed weights, in parallel, each once: a tied embedding and head share theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.kernels.linear import PackedWeight
from fastdistill.models.plan import Plan

QUANTISED = ("q8", "q4")


def converted(plan: Plan, tensors: Mapping[str, Tensor], name: str, format: str | None) -> Tensor:
    """A tensor of the plan as it is to be held: linears and head in `format`, where one is given."""
    tensor = tensors[name]
    if format is None or not plan.weights[name].linear or tensor.format == format:
        return tensor
    return quantize_tensor(tensor, format)


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
                self._matrices[name] = PackedWeight(
                    tensor.format, **tensor.parts, bias=bias, inputs=weight.shape[1], threads=threads
                )
            if progress is not None:
                progress(done, len(plan.weights))

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""
        vectors = sum(vector.nbytes for vector in self._vectors.values())
        return vectors + sum(matrix.nbytes for matrix in self._matrices.values())

    def vector(self, name: str) -> np.ndarray:
        """float32, padded with zeros to a multiple of 32."""
        return self._vectors[name]

    def matrix(self, name: str) -> PackedWeight:
        """A matrix and its bias."""
        return self._matrices[name]
