"""cached_property, without the lock that functools gives it before Python 3.12.

That lock is one for all objects of a class, and a forked process finds it held for ever by a thread that it has not got.
Without it two threads may compute a value at once, and one of the two stays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functools import cached_property as cached_property
else:

    class cached_property(functools.cached_property):
        def __init__(self, function: Callable[[Any], Any]) -> None:
            super().__init__(function)
            self.lock = nullcontext()
