"""Options that go with certain values of others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from typing import Any

from fastdistill.errors import ArgumentError
from fastdistill.messages import short


def given(**options: Any) -> dict[str, Any]:
    """Those that were given; the others have a decoder's own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def named_values(option: str, given: Iterable[str], taken: Iterable[str] = (), whose: str = "a name") -> dict[str, Any]:
    """What NAME=VALUE said, each time that an option was given: values as JSON, or as text where they are none.

    Raises
    ------
    ArgumentError
        also for a name that is `taken`
    """
    values = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier() or name in taken:
            raise ArgumentError(f"{flag(option)} must be NAME=VALUE, {whose}, got {short(each)}")
        try:
            values[name] = json.loads(value)
        except (ValueError, RecursionError):
            values[name] = value
    return values


def check_goes_with(
    arguments: argparse.Namespace, goes_with: Mapping[str, Mapping[str, tuple[str, ...]]], chosen: Mapping[str, Any]
) -> None:
    """Refuse an option that was given where the others are not as it needs them.

    Parameters
    ----------
    arguments : argparse.Namespace
    goes_with : Mapping[str, Mapping[str, tuple[str, ...]]]
        by option: the values that other options must have
    chosen : Mapping[str, Any]
        what they have, defaults included
    """
    for name, wanted in goes_with.items():
        if getattr(arguments, name, None) is None:
            continue
        for option, values in wanted.items():
            if chosen[option] not in values:
                raise ArgumentError(
                    f"{flag(name)} goes with {flag(option)} {' or '.join(values)}, not with {chosen[option]}"
                )
