"""Where a weight's numbers lie in a checkpoint: in a tensor of its name, or made of what is stored otherwise.

stored("h.0.attn.qkv.weight", (192, 64)).rows(64, 128)      the keys' part of queries, keys and values in one
stored("h.0.mlp.c_fc.weight", (64, 256)).transposed()       a Conv1D: (inputs, outputs)
stacked(stored("a", (8, 64)), stored("b", (8, 64)))         rows of both, one below the other
computed("one more", lambda w: 1 + w, stored("norm", (64,)))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.errors import UnsupportedError

Formats = Mapping[str, str]  # of a checkpoint's tensors, by name
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Source:
    """How a weight is made of a checkpoint's tensors.

    Attributes
    ----------
    shape : tuple[int, ...]
        of the weight
    stored : Mapping[str, tuple[int, ...]]
        the shapes of the tensors that it is made of, by the names they are stored under
    format : Callable[[Formats], str]
        formats of the checkpoint's tensors -> that of the weight: the same, or f32 where it is computed
    tensor : Callable[[Tensors], Tensor]
        the checkpoint's tensors -> the weight, which is read now, or where it is as stored, later
    """

    shape: tuple[int, ...]
    stored: Mapping[str, tuple[int, ...]]
    format: Callable[[Formats], str]
    tensor: Callable[[Tensors], Tensor]

    def rows(self, begin: int, end: int) -> Source:
        """Rows begin .. end - 1, of any format."""
        return self.picked(np.arange(begin, end))

    def picked(self, rows: np.ndarray) -> Source:
        """These rows in this order, of any format: of heads that lie interleaved, or of pairs that are rotated otherwise."""
        assert rows.min() >= 0 and rows.max() < self.shape[0], (self, rows)
        neighbours = (np.diff(rows) == 1).all()
        index = slice(int(rows[0]), int(rows[-1]) + 1) if neighbours else rows  # a slice is all that is read of a file
        return Source(
            (len(rows), *self.shape[1:]), self.stored, self.format, lambda tensors: self.tensor(tensors).rows(index)
        )

    def transposed(self) -> Source:
        """Rows and columns exchanged; blocks of q8 and q4 lie along rows, so not of these: UnsupportedError."""

        def format(formats: Formats) -> str:
            found = self.format(formats)
            if found in ("q8", "q4"):
                raise UnsupportedError(
                    f"{', '.join(self.stored)}: is used transposed, where blocks of {found} would lie across; "
                    "keep it in f32, f16 or bf16: `load` converts it where it is given a format"
                )
            return found

        def tensor(tensors: Tensors) -> Tensor:
            format({name: tensors[name].format for name in self.stored})
            found = self.tensor(tensors)
            return Tensor(found.name, found.format, found.shape[::-1], np.ascontiguousarray(found.data.T))

        return Source(self.shape[::-1], self.stored, format, tensor)


def stored(name: str, shape: tuple[int, ...]) -> Source:
    """A tensor as it is stored."""
    return Source(shape, {name: shape}, lambda formats: formats[name], lambda tensors: tensors[name])


def filled(value: float, shape: tuple[int, ...]) -> Source:
    """What no checkpoint stores: one value throughout, in float32."""
    return constant(f"{value:g}", np.full(shape, value, np.float32))


def constant(name: str, array: np.ndarray) -> Source:
    """What no checkpoint stores, but the config says: float32 of any shape, with a name for messages."""
    made = Tensor(name, "f32", array.shape, array)
    return Source(array.shape, {}, lambda formats: "f32", lambda tensors: made)


def stacked(*parts: Source) -> Source:
    """The rows of all parts, one below the other.  Parts of several formats are an UnsupportedError."""
    assert len({part.shape[1:] for part in parts}) == 1, parts

    def format(formats: Formats) -> str:
        found = {part.format(formats) for part in parts}
        if len(found) > 1:
            raise UnsupportedError(
                f"{', '.join(_names(parts))}: are one weight, and stored as {', '.join(sorted(found))}; expected one format"
            )
        return found.pop()

    def tensor(tensors: Tensors) -> Tensor:
        format({name: tensors[name].format for name in _names(parts)})
        found = [part.tensor(tensors) for part in parts]
        arrays = [each.parts for each in found]
        joined = {field: np.concatenate([each[field] for each in arrays]) for field in arrays[0]}
        return Tensor(", ".join(_names(parts)), found[0].format, shape, **joined)

    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Source(shape, _names(parts), format, tensor)


def computed(
    name: str, function: Callable[..., np.ndarray], *parts: Source, shape: tuple[int, ...] | None = None
) -> Source:
    """What a function makes of the parts' float32 arrays, rounded to float32.

    Parameters
    ----------
    name : str
        what it does, for messages
    function : Callable[..., np.ndarray]
    *parts : Source
    shape : tuple[int, ...], optional
        of what it makes; default: that of the first part
    """

    def format(formats: Formats) -> str:
        for part in parts:
            part.format(formats)  # refuses what it cannot be made of
        return "f32"

    def tensor(tensors: Tensors) -> Tensor:
        made = np.asarray(function(*(part.tensor(tensors).to_float32() for part in parts)), np.float32)
        return Tensor(f"{', '.join(_names(parts))} ({name})", "f32", made.shape, np.ascontiguousarray(made))

    return Source(shape or parts[0].shape, _names(parts), format, tensor)


def _names(parts: tuple[Source, ...]) -> dict[str, tuple[int, ...]]:
    return {name: shape for part in parts for name, shape in part.stored.items()}
