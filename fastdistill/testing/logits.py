"""Law 1 on this machine: the logits of a model that comes with the package, to the bit.

A token's logits depend on what it sees and on nothing else: neither on the level, nor on how many threads compute them, nor on which rows
are computed beside it.  So all ways here give one hash, the one that is written below, on every machine.  What comes before the
forward must have the same bits everywhere too: weights are stored as f32, and their conversions are single roundings, of which q4's are
those of the block's range alone, since fitting lines to codes sums with NumPy, in an order of its own.  Rotary frequencies are powers
of the C library rounded to float32, and none of them is within 2^-28 of its size of where that rounding turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from fastdistill.checkpoint import open_checkpoint
from fastdistill.checkpoint.blocks import quantize_q4
from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.fetch import find_folder
from fastdistill.kernels import default_threads
from fastdistill.models import plan_of
from fastdistill.runtime.network import Network
from fastdistill.runtime.read import Read
from fastdistill.testing.report import SMALL_MODEL

TOKENS = tuple((7 * place + 5) % 74 for place in range(24))  # more than one block of 16 rows, and of keys
WHOLE, UNEVEN, ONE_BY_ONE = (24,), (5, 16, 3), (1,) * 24  # rows of each forward, each of which sees those before it
# SHA-256 of the logits float32 (24, 74), little-endian, by the format of the weights.
HASHES = {
    "f32": "5f65f90d4489bba37f16a4f6a9405f62b4f54d4e7d3168354ebbf7fe7c276f5a",
    "f16": "85dad8afbd130e0e4920ad83a0da7b4f231c9c7506fd24e53ff86a2d368fa611",
    "bf16": "d8115faf704f2c401b3780a7bab1e51d1d8d960b68a1012976cc2d366e1ec1df",
    "q8": "60a06b469f660a7a9c1c9d95d8cb5bfbad62d6a1801efc4bdfee2546eedcf7a8",
    "q4": "042cb7625e8a9261ee2572b4a48fa256df8565ded6eb275460593ecd6adcb6ee",
}


class Way(NamedTuple):
    """How logits are computed.

    Attributes
    ----------
    format : str
        of the weights
    threads : int
        of each forward
    split : tuple[int, ...]
        rows of each forward
    """

    format: str
    threads: int
    split: tuple[int, ...]

    def __str__(self) -> str:
        rows = "one by one" if self.split == ONE_BY_ONE else "in forwards of " + ", ".join(map(str, self.split))
        return f"{self.format} weights, {self.threads} thread{'s' * (self.threads > 1)}, rows {rows}"


class SmallModel:
    """The plan of the model, and its tensors in every format, converted once."""

    def __init__(self) -> None:
        with open_checkpoint(find_folder(SMALL_MODEL)) as checkpoint:
            self._plan = plan_of(checkpoint)
            stored = {name: checkpoint.tensors[name] for name in self._plan.stored}
            self._tensors = {
                format: {name: _converted(tensor, format) for name, tensor in stored.items()} for format in HASHES
            }

    def hashes(self) -> Iterator[tuple[Way, str]]:
        """At the selected level the hash of every format, by one thread and by several, of rows together and apart."""
        for format, tensors in self._tensors.items():
            for threads, splits in ((1, (WHOLE, ONE_BY_ONE)), (max(default_threads(), 2), (UNEVEN,))):
                network = Network(self._plan, tensors, None, threads)
                for split in splits:
                    yield Way(format, threads, split), _hash(network, split)


def _converted(tensor: Tensor, format: str) -> Tensor:
    """A tensor that no longer needs its file."""
    values = np.array(tensor.to_float32())
    if len(tensor.shape) < 2:
        return Tensor(tensor.name, "f32", tensor.shape, values)
    if format == "q4":
        return Tensor(tensor.name, format, tensor.shape, *quantize_q4(values, refits=0))
    return quantize_tensor(Tensor(tensor.name, "f32", tensor.shape, values), format)


def _hash(network: Network, split: tuple[int, ...]) -> str:
    session: Any = network.session(len(TOKENS))
    found, begin = [], 0
    for rows in split:
        read = session.forward(TOKENS[begin : begin + rows], read=Read(logits=True))
        found.append(np.array(read.logits))
        begin += rows
    return sha256(np.concatenate(found).astype("<f4").tobytes()).hexdigest()
