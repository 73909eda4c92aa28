"""What the reader of a method works with: its section of the config, the arrays, the tensors that it makes of them.

An array is made when it is read.  What has been made last stays, for rows of a tensor are asked for one after another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from types import EllipsisType
from typing import Any, NoReturn

import numpy as np

from fastdistill.checkpoint.config import Section
from fastdistill.checkpoint.safetensors_file import Stored, StoredArray
from fastdistill.checkpoint.tensor import Tensor, layout
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.messages import listed, short

Make = Callable[[], dict[str, np.ndarray]]  # the arrays of a tensor, by field
FLOATS = ("F32", "F16", "BF16")


class MadeArray(StoredArray):
    """An array that is made of others: when it is read, as those are, and by `parts`."""

    def __init__(
        self, parts: Callable[[], dict[str, np.ndarray]], field: str, dtype: str, shape: tuple[int, ...]
    ) -> None:
        self._parts, self._field = parts, field
        self.dtype, self.shape = np.dtype(dtype), shape
        self.nbytes = int(np.prod(shape, dtype=object)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        data = self._parts()[self._field]
        return data if dtype is None else data.astype(dtype, copy=False)

    def __getitem__(self, index: np.ndarray | slice | EllipsisType) -> np.ndarray:
        return np.asarray(self)[index]


class Foreign:
    """A folder while its tensors are being made.

    Attributes
    ----------
    section : Section
        quantization_config
    arrays : dict[str, Stored]
        those that have not been taken, by name
    tensors : dict[str, Tensor]
        those that have been made
    """

    def __init__(self, section: Section, arrays: dict[str, Stored]) -> None:
        self.section, self.arrays = section, arrays
        self.tensors: dict[str, Tensor] = {}
        self._made: tuple[Make, dict[str, np.ndarray]] | None = None
        self._reasons: Counter[str] = Counter()

    @property
    def notes(self) -> list[str]:
        """What became of tensors that are not held as they were stored, and why."""
        return [f"{count} tensors {reason}" for reason, count in self._reasons.items()]

    def check_keys(self, known: Collection[str], section: Section | None = None) -> None:
        """Refuse keys of the config that nobody here understands."""
        section = section or self.section
        others = [key for key, value in section.raw.items() if key not in known and value not in (None, {}, [])]
        if others:
            unsupported(section, f"says {listed(map(short, others))}, which is not understood")

    def modules(self, suffix: str, *dtypes: str) -> list[str]:
        """What has an array of that name behind it, of one of these types where there are some."""
        return [
            name.removesuffix(suffix)
            for name, stored in self.arrays.items()
            if name.endswith(suffix) and (not dtypes or stored.dtype in dtypes)
        ]

    def take(self, name: str, dtypes: Collection[str], *shapes: tuple[int | None, ...]) -> Stored:
        """An array, of one of these types and of these shapes (None: any size), which is used up.

        Raises
        ------
        CheckpointError
        """
        stored = self.arrays.pop(name, None)
        if stored is None or stored.dtype not in dtypes or not any(_fits(stored.array.shape, one) for one in shapes):
            wanted = " or ".join(f"[{', '.join('any' if n is None else str(n) for n in shape)}]" for shape in shapes)
            found = "nothing" if stored is None else f"{stored.dtype} {[*stored.array.shape]}"
            raise CheckpointError(
                f"{self.section.source}: {plain(name)} must be {' or '.join(dtypes)} {wanted}, found {found}"
            )
        return stored

    def drop(self, *suffixes: str, reason: str) -> None:
        """Leave out arrays of these names."""
        for name in [name for name in self.arrays if name.endswith(suffixes)]:
            del self.arrays[name]
            self._reasons[f"are left out: {reason}"] += 1

    def add(self, name: str, format: str, shape: tuple[int, ...], make: Make, reason: str = "") -> None:
        """A tensor, and why it is held as f32."""

        def parts() -> dict[str, np.ndarray]:
            made = self._made
            if made is None or made[0] is not make:
                made = self._made = make, {field: np.ascontiguousarray(part) for field, part in make().items()}
            return made[1]

        fields = {field: MadeArray(parts, field, dtype, size) for field, (dtype, size) in layout(format, shape).items()}
        self.tensors[name] = Tensor(name, format, shape, **fields)
        if reason:
            self._reasons[f"are read as {format}: {reason}"] += 1


def unsupported(section: Section, problem: str) -> NoReturn:
    """The error for what is not read here, with a way out."""
    raise UnsupportedError(
        f"{section.source}: {problem}; save the model unquantised (in transformers: model.dequantize(), then "
        "model.save_pretrained(...)) or take the one that it was made of, and let `fastdistill quantize` quantise that"
    )


def plain(name: str) -> str:
    """A tensor's name in a message, unquoted; files name them as they like."""
    return short(name, 200)[1:-1]


def floats(stored: Stored) -> np.ndarray:
    """An array of FLOATS as float32, exactly."""
    return Tensor("", stored.dtype.lower(), stored.array.shape, stored.array).to_float32()


def unpacked(words: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """int32 words that hold 32 / bits codes each, the first in the lowest bits -> uint8, so many times as long along an axis (0 or 1)."""
    count = 32 // bits
    codes = np.empty((*words.shape[: axis + 1], count, *words.shape[axis + 1 :]), np.uint8)
    unsigned = words.view(np.uint32)
    for place in range(count):
        codes[(slice(None),) * (axis + 1) + (place,)] = unsigned >> np.uint32(bits * place) & np.uint32(2**bits - 1)
    shape = list(words.shape)
    shape[axis] *= count
    return codes.reshape(shape)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(n in (None, size) for size, n in zip(shape, wanted, strict=True))
