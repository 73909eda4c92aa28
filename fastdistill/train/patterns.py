"""Weights by patterns of their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from fastdistill.errors import ArgumentError
from fastdistill.messages import listed, short


def matching(argument: str, patterns: Iterable[str], names: Sequence[str], what: str) -> list[str]:
    """Those of the names that a pattern of shells fits, in their order.

    Parameters
    ----------
    argument : str
        what the patterns are called
    patterns : Iterable[str]
        such as "*.q_proj.*"
    names : Sequence[str]
        at least one
    what : str
        what they are names of

    Raises
    ------
    ArgumentError
        for a pattern that fits none, which a misspelt one is
    """
    every = [patterns] if isinstance(patterns, str) else list(patterns)
    lost = [each for each in every if not any(fnmatchcase(name, each) for name in names)]
    if lost or not every:
        raise ArgumentError(
            f"{argument} must name {what}, such as {names[0]}; "
            + (f"none is called {listed(map(short, lost))}" if lost else "got no pattern")
        )
    return [name for name in names if any(fnmatchcase(name, each) for each in every)]
