"""What is trained, beside an immutable network: float32 values and gradients, in the layout that C multiplies by.

A matrix lies in tiles of 16 outputs (csrc/kernels/forward/packed.h), and so does its gradient: nothing is packed anew
between a step and the next forward. Element by element the layout does not matter, and what pads it stays zero.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.kernels.boundary import aligned_bytes, const, ffi, lib
from fastdistill.models.plan import Plan
from fastdistill.ops import BIAS, OPS
from fastdistill.runtime.packing import PackedWeights

LANES = 16  # outputs of a tile


@dataclass(frozen=True, eq=False)
class Parameter:
    """One weight that is trained.

    Attributes
    ----------
    name : str
        as the plan has it
    shape : tuple[int, ...]
        (outputs, inputs) of a matrix, (width,) of a norm or a bias
    value : float32 (n,)
        its numbers as C has them, padded with zeros; what is written here is what the next forward reads
    gradient : float32 (n,)
        what passes in reverse have added up, in the same places
    """

    name: str
    shape: tuple[int, ...]
    value: np.ndarray
    gradient: np.ndarray

    def to_array(self, what: np.ndarray | None = None) -> np.ndarray:
        """float32 of `shape`: the value, or another array of its layout, such as the gradient or a moment."""
        found = self.value if what is None else what
        if len(self.shape) == 1:
            return found[: self.shape[0]].copy()
        outputs, inputs = self.shape
        return np.ascontiguousarray(found.reshape(-1, inputs, LANES).swapaxes(1, 2).reshape(-1, inputs)[:outputs])

    def assign(self, array: np.ndarray, to: np.ndarray | None = None) -> None:
        """Write float32 of `shape` to the value, or to another array of its layout.

        Raises
        ------
        ArgumentError
        """
        array = as_array(self.name, array, np.float32, self.shape)
        place = self.value if to is None else to
        place[:] = 0
        if len(self.shape) == 1:
            place[: self.shape[0]] = array
            return
        outputs, inputs = self.shape
        tiles = place.reshape(-1, inputs, LANES)
        whole = outputs // LANES
        tiles[:whole] = array[: whole * LANES].reshape(whole, LANES, inputs).swapaxes(1, 2)
        if outputs % LANES:
            tiles[whole, :, : outputs % LANES] = array[whole * LANES :].T


class Parameters(Mapping[str, Parameter]):
    """Those of a plan, by name, in the plan's order; a tied weight once."""

    def __init__(self, parameters: Mapping[str, Parameter], gradients: np.ndarray) -> None:
        self._parameters, self._gradients = dict(parameters), gradients

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    @property
    def count(self) -> int:
        """Numbers that are trained, padding aside."""
        return sum(int(np.prod(parameter.shape)) for parameter in self.values())

    def zero_gradients(self) -> None:
        """Begin new sums."""
        self._gradients[:] = 0


class TrainedWeights(PackedWeights):
    """The weights of a plan of which some are trained: those in float32, with gradients; the others as they are held.

    Attributes
    ----------
    parameters : Parameters
        those that are trained
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, Tensor],
        trained: Collection[str],
        format: str | None,
        threads: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(plan, tensors, format, threads, progress, dict.fromkeys(trained, "f32"))
        matrix_of = {
            name: op.weights[0] for op in plan.ops for role, name in OPS[op.kind].roles(op.weights) if role == BIAS
        }
        values = {name: self._floats(name, matrix_of.get(name)) for name in plan.weights if name in trained}
        gradients = aligned_bytes(4 * sum(value.size for value in values.values())).view(np.float32)
        gradients[:] = 0
        found, begin = {}, 0
        for name, value in values.items():
            end = begin + value.size
            found[name] = Parameter(name, plan.weights[name].shape, value, gradients[begin:end])
            begin = end
        self.parameters = Parameters(found, gradients)
        self._structs: dict[str, Any] = {}

    def _floats(self, name: str, matrix: str | None) -> np.ndarray:
        if matrix is not None:
            bias = self.matrix(matrix).bias
            assert bias is not None
            return bias
        return self._vectors[name] if name in self._vectors else self.matrix(name).floats

    def vector_gradient(self, name: str) -> np.ndarray:
        """float32, padded to a multiple of 32."""
        return self.parameters[name].gradient

    def matrix_gradient(self, name: str) -> Any:
        """`struct fd_weight *` of a matrix's gradient, for C."""
        if name not in self._structs:
            parameter = self.parameters[name]
            struct = self._structs[name] = ffi.new("struct fd_weight *")
            struct.format = lib.FD_F32
            struct.outputs, struct.inputs = parameter.shape
            struct.packed = const(parameter.gradient)
        return self._structs[name]
