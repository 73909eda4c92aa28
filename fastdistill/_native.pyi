"""For type checkers: the compiled module, which cffi makes."""

from typing import Any

ffi: Any
lib: Any
