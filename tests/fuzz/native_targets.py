"""The targets in C: one program of them all, compiled with the sanitizers, for libFuzzer or to repeat inputs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from fastdistill.kernels import isa

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"


def names() -> list[str]:
    return re.findall(r'^ {4}\{"(\w+)", fuzz_', (HERE / "native" / "main.c").read_text("utf-8"), re.MULTILINE)


def compiler(fuzzer: bool) -> str | None:
    """clang, which alone has libFuzzer; to repeat inputs any."""
    return next(filter(None, map(shutil.which, ["clang"] if fuzzer else ["gcc", "clang"])), None)


def build(program: Path, fuzzer: bool, *options: str) -> str:
    """Compile the program for the selected level; "", or what it lacks for that."""
    command = compiler(fuzzer)
    if command is None:
        return (
            "needs clang, and its run-time library: on Debian, apt install clang libclang-rt-14-dev"
            if fuzzer
            else "needs gcc or clang"
        )
    words = CSRC / f"vec_{isa()}.h"
    words = words if words.exists() else CSRC / "vec_neon.h"
    flags = [
        "-std=gnu11",
        "-g",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-pthread",
        "-w",
        f"-I{CSRC}",
        f"-I{HERE / 'native'}",
        f'-DFUZZ_WORDS="{words}"',
    ]
    if fuzzer:  # comparisons are not traced: of small numbers in bytes that tells little, and takes most of the time
        flags += ["-O2", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-coverage=trace-cmp"]
    else:
        flags += ["-O0", "-fsanitize=address,undefined", "-DFUZZ_REPLAY"]
    files = [HERE / "native" / "main.c", CSRC / "threads.c", CSRC / "platform.c"]
    program.parent.mkdir(parents=True, exist_ok=True)
    found = subprocess.run(
        [command, *flags, "-fno-sanitize-recover=undefined", *options, *map(str, files), "-lm", "-o", str(program)],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, f"{command} cannot build it: {found.stderr[-1000:]}"
    return ""
