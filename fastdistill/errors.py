"""The errors fastdistill raises: each names the thing, what was found and what was expected."""

from __future__ import annotations


class FastDistillError(Exception):
    """Base of every error that this package raises on purpose."""


class ArgumentError(FastDistillError, ValueError):
    """An argument of the wrong type, shape, dtype or value."""


class CheckpointError(FastDistillError, ValueError):
    """A model folder or file that is missing, malformed, or does not agree with its config."""


class UnsupportedError(FastDistillError, NotImplementedError):
    """A well-formed request for something this package does not do."""


class CapacityError(FastDistillError, ValueError):
    """More tokens or rows than a session has room for."""


class BusyError(FastDistillError, RuntimeError):
    """A session entered by a second caller while a first one is inside."""


class NotFiniteError(FastDistillError, ArithmeticError):
    """A NaN or an infinity where a finite number is needed."""


class IsaError(FastDistillError, RuntimeError):
    """An instruction-set level that is unknown or that this CPU cannot run."""


class NotBuiltError(FastDistillError, ImportError):
    """A checkout whose C has not been compiled where this Python finds it."""


class TextError(FastDistillError, ValueError):
    """A tokenizer or chat template that is missing or malformed."""


class FetchError(FastDistillError, OSError):
    """A model that could not be fetched or verified."""
