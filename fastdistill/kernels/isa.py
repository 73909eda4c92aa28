"""Instruction-set levels: which this CPU runs, which is selected, how to force one."""

from __future__ import annotations

import os

from fastdistill.errors import IsaError
from fastdistill.kernels.boundary import ffi, lib
from fastdistill.messages import short

_NAMES = tuple(ffi.string(lib.fd_isa_name(level)).decode() for level in range(lib.fd_isa_count()))


def isa_levels() -> tuple[str, ...]:
    """The levels that this machine runs, worst first."""
    return tuple(name for level, name in enumerate(_NAMES) if lib.fd_isa_supported(level))


def isa() -> str:
    """The selected level."""
    return _NAMES[lib.fd_isa_selected()]


def set_isa(name: str) -> None:
    """Select a level for the whole process.

    raises  IsaError when the name is unknown or this CPU lacks the level
    """
    if not isinstance(name, str) or name not in isa_levels():
        known = "is built in but this CPU lacks it" if isinstance(name, str) and name in _NAMES else "is unknown"
        raise IsaError(f"instruction set {short(name)} {known}; this machine runs: {', '.join(isa_levels())}")
    lib.fd_isa_select(_NAMES.index(name))


set_isa(os.environ.get("FASTDISTILL_ISA") or isa_levels()[-1])
