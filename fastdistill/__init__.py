"""fastdistill: parallel decoding for small distilled language models on a CPU, from plain Python.

    import fastdistill as fd
    model = fd.load("a-model-folder")
    print(model.generate("The capital of France is", max_tokens=8).text)

Names are imported on first use: `fastdistill --help` needs no NumPy, and a wrong FASTDISTILL_ISA is an error in its place.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdistill import errors as errors
    from fastdistill import kernels as kernels
    from fastdistill.api import Model as Model
    from fastdistill.api import Score as Score
    from fastdistill.api import load as load
    from fastdistill.decode import Autoregressive as Autoregressive
    from fastdistill.decode import Generation as Generation
    from fastdistill.kernels import Sampler as Sampler
    from fastdistill.kernels import isa as isa
    from fastdistill.kernels import isa_levels as isa_levels
    from fastdistill.kernels import set_isa as set_isa
    from fastdistill.runtime import Read as Read
    from fastdistill.runtime import forward_many as forward_many
    from fastdistill.runtime import from_callable as from_callable

__version__ = "0.1.0"

_HOMES = {
    "api": ("Model", "Score", "load"),
    "decode": ("Autoregressive", "Generation"),
    "kernels": ("Sampler", "isa", "isa_levels", "set_isa"),
    "runtime": ("Read", "forward_many", "from_callable"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(("errors", "kernels", *_HOME_OF))


def __getattr__(name: str) -> Any:
    if name in ("errors", "kernels"):
        return import_module(f"fastdistill.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'fastdistill' has no attribute {name!r}")
    value = getattr(import_module(f"fastdistill.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
