"""safetensors files: the header, and every array of it read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fastdistill.checkpoint.safetensors_file import Stored, open_safetensors, write_safetensors
from tests.fuzz.law import lawful, stored
from tests.fuzz.mutators import safetensors_changed

changed = safetensors_changed


def run(data: bytes) -> None:
    with lawful():
        arrays, _ = open_safetensors(stored(data))
        for name, (_, array) in arrays.items():
            whole = np.asarray(array)
            assert whole.shape == array.shape and whole.nbytes == array.nbytes and isinstance(name, str)
            if whole.size and whole.ndim:
                assert array[1:3].tobytes() == whole[1:3].tobytes()
                assert array[np.arange(0, len(whole), 2)].tobytes() == whole[::2].tobytes()


def seeds() -> Iterator[bytes]:
    numbers = np.arange(24, dtype=np.float32)
    files = [
        {},
        {"a": Stored("F32", numbers.reshape(4, 6)), "b": Stored("I8", np.arange(5, dtype=np.int8))},
        {"none": Stored("F16", numbers[:0].astype(np.float16).reshape(0, 7)), "one": Stored("I64", np.array(3))},
        {"bf": Stored("BF16", numbers.astype(np.uint16)), "yes": Stored("BOOL", numbers[:3] > 1)},
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for arrays in files:
            write_safetensors(path, arrays, {"k": "v"})
            yield path.read_bytes()
