"""Models that come with the package, found by name."""

from __future__ import annotations

import os
from pathlib import Path

_HERE = Path(__file__).parent
EMBEDDED = ("listops-mdlm",)


def embedded_folder(model: str | os.PathLike[str]) -> Path | None:
    """The folder of an embedded model by its name; None for anything else, a folder of that name included."""
    return _HERE / model if str(model) in EMBEDDED and not os.path.isdir(model) else None
