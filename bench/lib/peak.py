"""The inner loop of a linear without its memory, as C that the benches compile for themselves: a limit, no part of the package."""

from __future__ import annotations

import ctypes
import runpy
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fastdistill.kernels.forward.linear import FORMATS

ROOT = Path(__file__).resolve().parents[2]
TILES = (4, 6, 8, 12)  # rows of the register tiles that peak.c has


@cache
def peak(level: str) -> Callable[[str, bool, int, int], int]:
    """The loop of one level, compiled with the package's own flags: (format, scales, rows of the tile, blocks) -> multiply-adds done.

    scales  with the instructions that follow each block of 32 inputs, beside the dot products
    """
    build = runpy.run_path(str(ROOT / "csrc" / "build_native.py"))
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        words = ["-w", f'-DFD_WORDS="vec_{level}.h"', f"-I{ROOT / 'csrc'}"]
        command = [*build["compiler"](), *build["FLAGS"], *words, "-shared", "-fPIC", "-o", str(library)]
        subprocess.run([*command, str(ROOT / "bench" / "lib" / "peak.c"), "-lm"], check=True)
        loop = ctypes.CDLL(str(library)).peak
    loop.argtypes, loop.restype = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64], ctypes.c_int64
    return lambda format, scales, rows, blocks: loop(FORMATS[format], scales, rows, blocks)
