"""Functions as the schemas that templates show of tools."""

from __future__ import annotations

import enum

import pytest
from tool_functions import add, weather

from fastdistill.errors import ArgumentError
from fastdistill.text.tool_schema import function_schema


def test_a_function_says_what_it_takes():
    assert function_schema(add) == {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "number", "description": "The first one"},
                    "b": {"type": "number", "description": "The second one"},
                },
                "required": ["a", "b"],
            },
        },
    }


def test_words_and_choices_come_from_the_docstring():
    function = function_schema(weather)["function"]
    assert function["description"] == "Say what the weather is like.\n\nIt is asked of the sky,\nin two paragraphs."
    properties = function["parameters"]["properties"]
    assert properties["place"]["description"] == "a town, either: near one"
    assert properties["unit"] == {"type": "string", "enum": ["C", "F"], "description": "of the temperature"}
    assert properties["level"]["nullable"] is True
    assert properties["level"]["enum"] == ["low", "high"] and properties["level"]["description"] == "how much"
    assert function["parameters"]["required"] == ["place", "unit"]
    assert function["return"]["description"] == "temperatures by day"


def no_docstring(a: int): ...


def no_hint(a):
    """Has none.

    Args:
        a: so
    """


def no_words(a: int):
    """Has none."""


def no_type(a: set[int]):
    """Has none.

    Args:
        a: so
    """


def one_tuple(a: tuple[int]):
    """Has one.

    Args:
        a: so
    """


def no_name(a: Unknown):  # noqa: F821
    """Has none.

    Args:
        a: so
    """


def no_choices(a: int):
    """Has none.

    Args:
        a: so (choices: [1, 2)
    """


class Empty(enum.Enum):
    pass


def no_member(a: Empty):
    """Has none.

    Args:
        a: so
    """


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_docstring, "tool no_docstring must have a docstring"),
        (no_hint, "argument a must have a type hint"),
        (no_words, "must describe argument a under Args:"),
        (no_type, r"tool no_type: argument a must be hinted by a type that JSON has, got set\[int\]"),
        (one_tuple, r"must be hinted as list"),
        (no_name, "its type hints cannot be read: .*Unknown"),
        (no_choices, r"choices must be a JSON list, got '\[1, 2'"),
        (no_member, "must be one of some numbers"),
    ],
)
def test_what_no_schema_can_be_made_of_is_refused_by_name(function, words):
    with pytest.raises(ArgumentError, match=words):
        function_schema(function)
