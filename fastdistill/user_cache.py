"""Where this user's cache lies: fetched models, measured costs."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """fastdistill in XDG_CACHE_HOME, which is ~/.cache unless set; None without a home directory.  Not made here."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # the specification wants those ignored
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            return None
    return cache / "fastdistill"
