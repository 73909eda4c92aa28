"""The cffi builder: fastdistill.h and the C files -> fastdistill._native.  Run by setup.py only."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from cffi import FFI

here = Path(__file__).resolve().parent
LEVEL_SOURCES = sorted(path.name for path in here.glob("isa_*.c"))
SOURCES = ["levels.c", "dispatch.c", "plain.c", "plan.c", "platform.c", "threads.c", *LEVEL_SOURCES]

FLAGS = [
    # No -m flag: each level switches its own target on.
    *("-std=gnu11", "-O2", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra"),
    "-Wno-unused-parameter",  # all ops have one signature
    # Contraction off: vf_fma is the only fused multiply-add.
    *("-ffp-contract=off", "-fno-math-errno"),
]


# What brings a compiler and the headers.
PACKAGES = """
  Debian, Ubuntu   apt install gcc python3-dev
  Alpine           apk add gcc musl-dev python3-dev
  Fedora           dnf install gcc python3-devel
  macOS            xcode-select --install"""


def compiler() -> list[str]:
    """The command that setuptools will call; where that one is not there, gcc or clang in its place.  On Windows it is zig, a clang that pip
    brings with that system's headers and libraries: MSVC has no vector types."""
    if os.name == "nt":
        os.environ.setdefault("CC", f'"{Path(sys.executable).as_posix()}" -m ziglang cc')
    words = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(words[0]) is None:
        found = next(filter(shutil.which, ("gcc", "clang")), None)
        if found is None:
            raise SystemExit(f"fastdistill is built with gcc or clang; found neither, nor {words[0]}:{PACKAGES}")
        words = [found]
        os.environ.update(CC=found, LDSHARED=f"{found} -shared")
    return words


def is_clang() -> bool:
    return "clang" in subprocess.run([*compiler(), "--version"], capture_output=True, text=True).stdout


if not is_clang():
    # GCC would put off the additions of a register tile until its registers overflow: a third of the speed (docs/numerics.md).
    FLAGS += ["-fno-tree-ter", "-fno-tree-reassoc"]
    # What -O3 gains here is the words of a level inlined: its limits, without the rest of it, which takes as long again.
    for limit in (
        "max-inline-insns-single=200",
        "max-inline-insns-auto=30",
        "early-inlining-insns=14",
        "inline-min-speedup=15",
    ):
        FLAGS += ["--param", limit]
    # A quarter of the time that a level takes to compile goes into what pointers may point to, a tenth into loads after reload.
    FLAGS += ["-fno-tree-pta", "-fno-gcse-after-reload"]
    # On ARM, GCC would put loads first until registers overflow; a tile's statements stand in their order.  On x86 that pass is off.
    # Registers are then given new names, so that the pass after it may order instructions: a CPU that cannot would wait.
    FLAGS += ["-fno-schedule-insns", "-frename-registers"]

if not is_clang() and "mingw" in subprocess.run([*compiler(), "-dumpmachine"], capture_output=True, text=True).stdout:
    # GCC keeps vectors of 32 and 64 bytes on a stack that Windows aligns to 16, with moves that need more: its bug 54412,
    # mended in Debian's.
    FLAGS += ["-Wa,-muse-unaligned-vector-move"]

FLAGS += os.environ.get("FASTDISTILL_CFLAGS", "").split()


def declarations() -> str:
    """fastdistill.h with what it includes, without preprocessor lines and comments: what cffi understands."""
    text = (here / "fastdistill.h").read_text(encoding="utf-8")
    text = re.sub(r'#include "(\w+\.h)"', lambda found: (here / found[1]).read_text(encoding="utf-8"), text)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    text = re.sub(r"\bFD_OP\((\w+), \w+\)", r"FD_OP_\1,", text)
    return re.sub(r"\bFD_(?:\w+_)?KERNEL\((.+?), (\w+),\s*(\([^()]*\)),\s*\([^()]*\)\)", r"\1 fd_\2\3;", text)


ffi = FFI()
ffi.cdef(declarations())
ffi.set_source(
    "fastdistill._native",
    '#include "fastdistill.h"',
    sources=[os.path.relpath(here / name, here.parent) for name in SOURCES],
    include_dirs=[os.path.relpath(here, here.parent)],
    depends=[os.path.relpath(path, here.parent) for path in sorted(here.rglob("*.[ch]"))],
    libraries=["m"],
    extra_compile_args=FLAGS,
    extra_link_args=[*(["-pthread"] if os.name == "posix" else []), *os.environ.get("FASTDISTILL_LDFLAGS", "").split()],
)
