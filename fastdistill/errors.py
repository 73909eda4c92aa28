"""The errors fastdistill raises: each names the thing, what was found and what was expected."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fastdistill.messages import printable

_T = TypeVar("_T")


class FastDistillError(Exception):
    """Base of every error that this package raises on purpose."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ArgumentError(FastDistillError, ValueError):
    """An argument of the wrong type, shape, dtype or value."""


class CheckpointError(FastDistillError, ValueError):
    """A model folder or file that is missing, malformed, or does not agree with its config."""


class UnsupportedError(FastDistillError, NotImplementedError):
    """A well-formed request for something this package does not do."""


class CapacityError(FastDistillError, ValueError):
    """More tokens or rows than a session has room for."""


class ForgottenError(FastDistillError, ValueError):
    """A place of a text whose keys and values a session has forgotten, since a sliding window had passed over them."""


class BusyError(FastDistillError, RuntimeError):
    """A session, or memory that a call writes, entered by a second caller while a first one is inside."""


class NotFiniteError(FastDistillError, ArithmeticError):
    """A NaN or an infinity where a finite number is needed."""


class IsaError(FastDistillError, RuntimeError):
    """An instruction-set level that is unknown, that this CPU cannot run, or that reads weights packed otherwise than these are."""


class NotBuiltError(FastDistillError, ImportError):
    """A checkout whose C has not been compiled where this Python finds it."""


class TextError(FastDistillError, ValueError):
    """A tokenizer or chat template that is missing or malformed."""


class DataError(FastDistillError, ValueError):
    """A file of training data that is missing or malformed, or a record of one that is no example."""


class FetchError(FastDistillError, OSError):
    """A model that could not be fetched or verified."""


class PartialError(FastDistillError, RuntimeError):
    """Some of several requests have failed, each alone; the others have run as if these had not been there.

    Attributes
    ----------
    results
        what each request gave, in order; of one that failed its error, of a text what it was until then
    errors
        {number: error} of those that failed
    """

    def __init__(self, results: Sequence[Any], errors: Mapping[int, Exception]) -> None:
        super().__init__(results, errors)
        self.results, self.errors = list(results), dict(errors)

    def __str__(self) -> str:
        number, error = next(iter(self.errors.items()))
        return (
            f"{len(self.errors)} of {len(self.results)} requests failed (what the others gave is in `results`); "
            f"number {number}: {type(error).__name__}: {error}"
        )


def all_given(results: list[Any], errors: Mapping[int, Exception]) -> list[Any]:
    """The results of several requests, where none has failed.

    Raises
    ------
    Exception
        where all have failed, the first one
    PartialError
        where some have
    """
    if not errors:
        return results
    try:
        if len(errors) == len(results):
            raise next(iter(errors.values()))
        raise PartialError(results, errors) from next(iter(errors.values()))
    finally:
        del results, errors  # an error holds this frame


def attempt(function: Callable[..., _T], *arguments: Any) -> _T | Exception:
    """What a function returns, or the error that it raises: of one request among several.

    Such an error may be kept for long, and a traceback holds all that was at work. Of errors that are not this
    package's own, which a user's function has raised, a note says where they came from.
    """
    try:
        return function(*arguments)
    except Exception as error:
        if not isinstance(error, FastDistillError):
            came_from = "".join(traceback.format_tb(error.__traceback__))
            error.__notes__ = [*getattr(error, "__notes__", ()), came_from]  # type: ignore[attr-defined]  # Python 3.11 shows them
        seen: set[int] = set()  # an error may be its own cause
        cause: BaseException | None = error
        while cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            cause.__traceback__ = None
            cause = cause.__cause__ or cause.__context__
        return error
