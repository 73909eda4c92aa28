"""Of each kernel one file: `cases`, the arguments it is tried with, and `check`, which compares a function with its reference.

`cases(draw)` is written against `fastdistill.testing.choices.Choices`, so that a seed and hypothesis make the same cases.
`check(case, function)` calls the function, which is the kernel unless another one is given, raises AssertionError where the result is
further from the reference than its roundings explain, and returns what the function gave.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

# The family of each kernel, in the order in which families build on one another.
_FAMILIES = ("forward", "sample", "verify", "fixed_point", "unmask", "transport", "distill", "train")
KERNELS = {
    path.stem: family
    for family in _FAMILIES
    for path in sorted((Path(__file__).parent / family).glob("*.py"))
    if path.stem != "__init__"
}


def cases_of(kernel: str) -> ModuleType:
    """The file of a kernel, with its `cases` and `check`."""
    return import_module(f"{__name__}.{KERNELS[kernel]}.{kernel}")


def kernel_of(kernel: str) -> Any:
    """The function or class that the cases of a kernel are for, as it is exported now."""
    function = signature(cases_of(kernel).check).parameters["function"].default
    return getattr(import_module(f"fastdistill.{function.__module__.split('.')[1]}"), function.__name__)
