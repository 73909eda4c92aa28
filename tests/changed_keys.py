"""Every key of a config changed in turn: what theirs computes, ours computes alike or refuses by a message."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from fastdistill.errors import FastDistillError


def others(key: str, value: object, changes: Mapping[str, list[object]]) -> list[object]:
    """Other values of a key: those of `changes`, or of its type."""
    if key in changes:
        return changes[key]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value] if value else [1]
    if isinstance(value, float):
        return [1.5 * value + 0.1]
    return []


def assert_never_silently_wrong(
    config: Mapping[str, Any],
    changes: Mapping[str, list[object]],
    never: Collection[str],
    folders: Callable[[], Path],
    make: Callable[[Path, dict[str, Any]], Any],
    alike: Callable[[Any, Path], None],
) -> set[str]:
    """Ours loads what theirs has saved and agrees, or says what it lacks; the keys that it refuses.

    `make` saves a model with one key changed and runs it, or raises; `alike` asserts that ours agrees with it.
    """
    tried, agreed, refused = 0, set(), set()
    for key, value in config.items():
        for other in others(key, value, changes) if key not in never else []:
            folder = folders()
            try:
                model = make(folder, {key: other})
            except Exception:
                continue  # not for transformers either
            tried += 1
            try:
                alike(model, folder)
                agreed.add(key)
            except AssertionError as error:
                raise AssertionError(f"{key} = {other!r}") from error
            except FastDistillError as error:
                assert str(error)
                refused.add(key)
    assert tried > 20 and len(agreed) > 12, (tried, agreed, refused)
    return refused
