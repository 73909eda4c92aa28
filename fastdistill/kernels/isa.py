"""Instruction-set levels: which this CPU runs, which is selected, how to force one."""

from __future__ import annotations

import os
from typing import NoReturn

from fastdistill.errors import IsaError
from fastdistill.kernels.boundary import ffi, lib
from fastdistill.messages import short

LAYOUTS = {"16x4": lib.FD_16X4, "8x8": lib.FD_8X8}  # of packed weights: csrc/kernels/forward/packed.h
_NAMES = tuple(ffi.string(lib.fd_isa_name(level)).decode() for level in range(lib.fd_isa_count()))


def isa_levels() -> tuple[str, ...]:
    """The levels that this machine runs, worst first."""
    return tuple(name for level, name in enumerate(_NAMES) if lib.fd_isa_supported(level))


def isa() -> str:
    """The selected level."""
    return _NAMES[lib.fd_isa_selected()]


def isa_layout() -> str:
    """The layout of packed weights that the selected level reads, one of LAYOUTS; several levels may share it."""
    number = lib.fd_isa_layout(lib.fd_isa_selected())
    return next(name for name, layout in LAYOUTS.items() if layout == number)


def refuse_layout(layout: str) -> NoReturn:
    """Weights packed as `layout`, and the selected level reads another one."""
    readers = [name for name in isa_levels() if lib.fd_isa_layout(_NAMES.index(name)) == LAYOUTS[layout]]
    raise IsaError(
        f"instruction set {short(isa())} reads weights packed as {isa_layout()}, and these are packed as {layout}: "
        f"load or pack them again, or select {' or '.join(readers) or 'a level that reads them, which this machine lacks'}"
    )


def set_isa(name: str) -> None:
    """Select a level for the whole process.

    Weights that were packed for a level of another layout are to be loaded again.

    Parameters
    ----------
    name : str
        of a level

    Raises
    ------
    IsaError
        when the name is unknown or this CPU lacks the level
    """
    if not isinstance(name, str) or name not in isa_levels():
        known = "is built in but this CPU lacks it" if isinstance(name, str) and name in _NAMES else "is unknown"
        raise IsaError(f"instruction set {short(name)} {known}; this machine runs: {', '.join(isa_levels())}")
    lib.fd_isa_select(_NAMES.index(name))


set_isa(os.environ.get("FASTDISTILL_ISA") or isa_levels()[-1])
