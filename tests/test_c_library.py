"""The C of this package is a library without Python: a program of a page calls it, and gets what Python gets."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fastdistill import kernels

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "tests" / "cross" / "example.c"
COMPILER = os.environ.get("CC", "cc").split()


def objects() -> list[Path]:
    """What this checkout's extension was linked from, but for the module itself: of each unit the newest."""
    builder = ast.parse((ROOT / "csrc" / "build_native.py").read_text())
    (named,) = [node.value for node in builder.body if isinstance(node, ast.Assign) and node.targets[0].id == "SOURCES"]
    units = [ast.literal_eval(element) for element in named.elts if isinstance(element, ast.Constant)]
    units += [path.name for path in (ROOT / "csrc").glob("isa_*.c")]
    kept = {
        unit: sorted((ROOT / "build" / "objects").glob(f"{Path(unit).stem}-*.o"), key=os.path.getmtime)
        for unit in units
    }
    missing = [unit for unit, found in kept.items() if not found]
    if missing:
        pytest.skip(f"build/objects has not: {', '.join(missing)}: this package was not built in this checkout")
    return [found[-1] for found in kept.values()]


def test_a_program_in_c_calls_a_kernel_and_links_no_python(tmp_path):
    if shutil.which(COMPILER[0]) is None:
        pytest.skip(f"{COMPILER[0]} is missing, which compiles a program in C")
    program = tmp_path / "example"
    command = [
        *COMPILER,
        f"-I{ROOT / 'csrc'}",
        str(EXAMPLE),
        *map(str, objects()),
        "-lm",
        "-pthread",
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    found = kernels.row_statistics(np.array([[0.5, 3.0, -1.0, 2.0]], np.float32))
    assert said == f"token {found.argmax[0]}, log probability {found.log_prob[0]:.4f}\n"


def test_no_c_but_the_modules_own_knows_python():
    files = [
        path for path in (ROOT / "csrc").rglob("*.[ch]") if re.search(r"Python\.h|\bPy[A-Z_]\w+\(", path.read_text())
    ]
    assert files == []


def test_the_page_shows_the_program():
    page = (ROOT / "docs" / "building.md").read_text()
    (shown,) = re.findall(r"```c\n(.*?)```", page, re.DOTALL)
    assert shown == EXAMPLE.read_text().partition("*/\n")[2]
