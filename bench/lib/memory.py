"""How much memory a call takes at its peak, beyond what is there before: in a process of its own."""

from __future__ import annotations

import subprocess
import sys

# argv: a module, and what its memory_calls takes.  That gives two calls: one over little, which loads what is loaded but once, and the one
# that is measured.
_PROGRAM = """
import importlib, sys
def kilobytes(line):
    return next(int(words.split()[1]) for words in open("/proc/self/status") if words.startswith(line))
little, whole = importlib.import_module(sys.argv[1]).memory_calls(*sys.argv[2:])
little()
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
whole()
print((kilobytes("VmHWM") - before) * 1024)
"""


def memory_beside(module: str, *arguments: object) -> int:
    """Bytes."""
    command = [sys.executable, "-c", _PROGRAM, module, *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
