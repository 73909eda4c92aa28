"""fastdistill: parallel decoding for small distilled language models on a CPU, from plain Python.

    import fastdistill as fd
    model = fd.load("a-model-folder")
    print(model.generate("The capital of France is", max_tokens=8).text)

Names are imported on first use: `fastdistill --help` needs no NumPy, and a wrong FASTDISTILL_ISA is an error in its
place.
"""

from __future__ import annotations

TYPE_CHECKING = False  # without `typing`, whose import takes longer than all else here

if TYPE_CHECKING:
    from typing import Any

    from fastdistill import constraint, distill, errors, kernels, show, testing, train, transport, unmask
    from fastdistill.api import Model, Score, load
    from fastdistill.decode import (
        Auto,
        Autoregressive,
        BeamSearch,
        CallableDrafter,
        Draft,
        FirstOf,
        Generation,
        HeadDrafter,
        Jacobi,
        LayerSkip,
        Lookahead,
        ModelDrafter,
        PromptLookup,
        Speculative,
        Tree,
        Unmask,
        static_tree,
    )
    from fastdistill.kernels import Sampler, isa, isa_levels, set_isa  # type: ignore[no-redef]
    from fastdistill.options import Options
    from fastdistill.runtime import Forward, Profile, Read, forward_many, from_callable  # type: ignore[no-redef]

__version__ = "0.1.0"

_HOMES = {
    "api": ("Model", "Score", "load"),
    "decode": (
        "Auto",
        "Autoregressive",
        "BeamSearch",
        "CallableDrafter",
        "Draft",
        "FirstOf",
        "Generation",
        "HeadDrafter",
        "Jacobi",
        "LayerSkip",
        "Lookahead",
        "ModelDrafter",
        "PromptLookup",
        "Speculative",
        "Tree",
        "Unmask",
        "static_tree",
    ),
    "kernels": ("Sampler", "isa", "isa_levels", "set_isa"),
    "options": ("Options",),
    "runtime": ("Forward", "Profile", "Read", "forward_many", "from_callable"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "Auto",
    "Autoregressive",
    "BeamSearch",
    "CallableDrafter",
    "Draft",
    "FirstOf",
    "Forward",
    "Generation",
    "HeadDrafter",
    "Jacobi",
    "LayerSkip",
    "Lookahead",
    "Model",
    "ModelDrafter",
    "Options",
    "Profile",
    "PromptLookup",
    "Read",
    "Sampler",
    "Score",
    "Speculative",
    "Tree",
    "Unmask",
    "constraint",
    "distill",
    "errors",
    "forward_many",
    "from_callable",
    "isa",
    "isa_levels",
    "kernels",
    "load",
    "set_isa",
    "show",
    "static_tree",
    "testing",
    "train",
    "transport",
    "unmask",
]


if not TYPE_CHECKING:  # there a wrong name is an error at once

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in ("constraint", "distill", "errors", "kernels", "show", "testing", "train", "transport", "unmask"):
            return import_module(f"fastdistill.{name}")
        if name not in _HOME_OF:
            from fastdistill.messages import short

            raise AttributeError(f"module 'fastdistill' has no attribute {short(name)}")
        value = getattr(import_module(f"fastdistill.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
