"""What a token is called in a drawing."""

from __future__ import annotations

from collections.abc import Callable

from fastdistill.arguments import check_callable


def check_label(label: Callable[[int], str] | None) -> None:
    """Refuse what is not None, for a token's number, and cannot be asked for the text of a token."""
    if label is not None:
        check_callable("label", label, "a function from a token to its text")


def spelt(token: int, label: Callable[[int], str] | None) -> str:
    """A token's number, or its label on one line: what does not print is written as Python writes it."""
    if label is None:
        return str(token)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(label(token)))
