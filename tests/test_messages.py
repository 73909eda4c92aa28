"""What errors say of values: one bounded line, whatever was given."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdistill
from fastdistill import errors
from fastdistill.messages import listed, short, suggestion


class Odd:
    def __repr__(self):
        raise RuntimeError("no")


class Long:
    def __repr__(self):
        return "x\n" * 10**6


deep = []
deep.append(deep)
ODD = [
    Odd(), Long(), deep, [Odd()], 10**5000, -(10**5000), "x" * 10**7, b"x" * 10**7, bytearray(10**7), [0] * 10**6, {1: {2: {3: {4: 5}}}},
    np.zeros((1000, 1000)), np.array([10**5000], object), np.array(Odd()), np.ma.masked, np.datetime64("NaT"), Odd, lambda: 0, float("nan"),
    {i: i for i in range(10**5)}, "\ud800", "a\nb\rc\x85d\u2028e", range(10**9), np.float32(0.1), memoryview(b"x" * 10**7),
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_a_message_stays_one_short_line(value):
    for given_value in (value, [value], {"key": value}, (1, value)):
        text = short(given_value)
        assert 0 < len(text) <= 80 and len(text.splitlines()) == 1


@given(st.recursive(st.one_of(st.text(), st.integers(), st.floats(), st.binary(), st.none()), st.lists, max_leaves=30))
def test_small_values_are_shown_as_they_are(value):
    text = short(value)
    assert len(text) <= 80 and len(text.splitlines()) == 1
    if type(value) in (int, float) and len(repr(value)) < 30:
        assert text == repr(value)


def test_what_is_shown():
    assert short(np.int64(3)) == "3" and short(np.float32(0.5)) == "0.5" and short(np.bool_(True)) == "True"
    assert short([1, np.int64(2)]) == "[1, 2]"
    assert short(10**5000) == "an integer of 16610 bits"
    assert short(np.zeros((3, 4), np.float32)) == "a float32 array of shape (3, 4)"
    assert short("x" * 500).endswith("...'") and short([0] * 100) == "[0, 0, 0, 0, 0, ...]"


ERRORS = [
    thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, errors.FastDistillError)
]


@pytest.mark.parametrize("error", [thing for thing in ERRORS if thing is not errors.PartialError])
def test_an_error_says_nothing_that_a_terminal_obeys(error):
    """Names in a file may hold the sequences that set a terminal's title or its clipboard, or turn a line around."""
    assert str(error("a \x1b]0;title\x07\x9b\r\u202e b\nc é")) == "a \\x1b]0;title\\x07\\x9b\\r\\u202e b\nc é"


def test_lists_end_after_ten():
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(25)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 15 more"


def test_suggestions():
    assert suggestion("max_token", ["max_tokens", "stop"]) == "; did you mean 'max_tokens'?"
    assert suggestion("zzz", ["max_tokens", "stop"]) == ""


# Texts with a repr of their own: bounded already, or one that has to be whole.
REPRS = {
    ("messages.py", "near[0]"),  # one of the known names
    ("text/template_worker.py", "name[:60]"),  # a process that imports nothing of this package
    ("checkpoint/recognise.py", "str(folder)"),  # in a line of Python to be copied
}


def test_values_are_shown_by_short_alone():
    """No `{value!r}` and no `{repr(value)}` anywhere in the package."""
    root, found = Path(fastdistill.__file__).parent, set()
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.FormattedValue):
                continue
            calls = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in ("repr", "ascii")
            if calls or node.conversion in (ord("r"), ord("a")):
                found.add((file.relative_to(root).as_posix(), ast.unparse(node.value)))
    assert found == REPRS
