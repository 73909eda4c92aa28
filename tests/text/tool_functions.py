"""Functions to be shown to models as tools."""

from __future__ import annotations

import enum
from typing import Any, Literal


class Unit(enum.Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


class Level(enum.Enum):
    LOW = 1
    NONE = None


def add(a: float, b: float):
    """Adds two numbers.

    Args:
        a: The first one
        b (float): The second one
    """


def weather(
    place: str, unit: Unit, level: Level | None = None, days: int = 3, mode: Literal["a", 1, None] = "a"
) -> dict[str, float]:
    """
    Say what the weather is like.

    It is asked of the sky,
    in two paragraphs.

    Args:
        place: a town,
            either: near one
        unit: of the temperature

        level: how much (choices: ["low", " high "])
        days: so many
        mode: how
    Returns:
        temperatures by day
    Raises:
        Nothing: ever
    """


def everything(
    a: Any, b: list, c: list[int], d: tuple[int, str], e: dict, f: dict[str, list[bool]], g: int | str | None,
    h: float | None, i: list[int] | str, j: list[dict[str, int] | None], k: list | tuple, m: tuple = (),
) -> Unit:  # fmt: skip
    """Every type.

    Args:
        a: A
        b: B
        c: C
        d: D
        e: E
        f: F
        g: G
        h: H
        i: I
        j: J
        k: K
        m: M
    """


def nothing() -> object:
    """Takes nothing."""


class Tool:
    def method(self, text: str) -> str:
        """Says it.

        Args:
            text: what

        Returns:
            The same.
        """


FUNCTIONS = [add, weather, everything, nothing, Tool().method, Tool.method]
