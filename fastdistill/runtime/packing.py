"""Tensors -> packed weights, in parallel, each once: a tied embedding and head share theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.kernels.boundary import aligned_bytes
from fastdistill.kernels.forward.linear import PackedWeight, packed_bytes
from fastdistill.kernels.isa import isa_layout
from fastdistill.models.plan import Plan
from fastdistill.ops import BIAS, OPS

QUANTISED = ("q8", "q4")


def held_formats(
    plan: Plan, tensors: Mapping[str, Tensor], format: str | None, others: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The format that each weight of the plan is held in: linears and head in `format`, where one is given; `others` by name."""
    stored = plan.formats({name: tensors[name].format for name in plan.stored})
    held = {
        name: format if format is not None and plan.weights[name].linear else found for name, found in stored.items()
    }
    return held | dict(others or {})


class PackedWeights:
    """The weights of one plan, ready for C at the levels that read their `layout`; immutable.

    All matrices lie in one array: NumPy asks for huge pages for a large one, which fill several times faster than small
    ones.  One stored tensor at a time is in memory, and large ones come first: stored and packed weights together never
    take much more than the packed ones.
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, Tensor],
        format: str | None,
        threads: int,
        progress: Callable[[int, int], None] | None = None,
        others: Mapping[str, str] | None = None,
    ) -> None:
        self.layout = isa_layout()
        self.formats = held_formats(plan, tensors, format, others)
        self._vectors: dict[str, np.ndarray] = {}
        self._matrices: dict[str, PackedWeight] = {}
        biases = {
            op.weights[0]: name for op in plan.ops for role, name in OPS[op.kind].roles(op.weights) if role == BIAS
        }
        sizes = {
            name: packed_bytes(self.formats[name], *weight.shape)
            for name, weight in plan.weights.items()
            if len(weight.shape) == 2
        }
        room = aligned_bytes(sum(sizes.values()))
        for done, name in enumerate(sorted(plan.weights, key=lambda name: -math.prod(plan.weights[name].shape)), 1):
            shape = plan.weights[name].shape
            tensor = quantize_tensor(plan.weights[name].source.tensor(tensors), self.formats[name])
            if name in sizes:
                bias = plan.weights[biases[name]].source.tensor(tensors).to_float32() if name in biases else None
                packed, room = np.split(room, [sizes[name]])
                self._matrices[name] = PackedWeight(
                    tensor.format,
                    **tensor.parts,
                    bias=bias,
                    inputs=shape[1],
                    threads=threads,
                    packed=packed,
                    layout=self.layout,
                )
            elif name not in biases.values():  # a bias is held by its matrix
                self._vectors[name] = np.zeros(-(-shape[0] // 32) * 32, np.float32)
                self._vectors[name][: shape[0]] = tensor.to_float32()
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

    def vector_gradient(self, name: str) -> np.ndarray:
        """What an op adds a vector's gradient to; only weights that are trained have one: `fastdistill.train.parameters`."""
        raise KeyError(f"{name} is not trained")

    def matrix_gradient(self, name: str) -> Any:
        """The same of a matrix, as `struct fd_weight *`."""
        raise KeyError(f"{name} is not trained")
