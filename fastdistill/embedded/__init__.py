"""Models that come with the package, found by name.  Beside them lie the prompts that train/data/own_prompts.py reads."""

from __future__ import annotations

import os
from pathlib import Path

_HERE = Path(__file__).parent
EMBEDDED = ("listops-mdlm",)


def embedded_folder(model: str | os.PathLike[str]) -> Path | None:
    """The folder of an embedded model by its name; None for anything else, a folder of that name included."""
    name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else None
    return _HERE / name if name in EMBEDDED and not os.path.isdir(name) else None
