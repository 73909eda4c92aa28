"""The drawing of a layout: of tokens, of counts and of any tree; its marks are what is visible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from fastdistill import show
from fastdistill.errors import ArgumentError
from fastdistill.kernels import LookaheadLayout, lookahead_layout
from fastdistill.testing import strategies
from tests.kernels.fixed_point.test_lookahead_layout import array


def test_the_drawing_says_who_sees_whom():
    layout = lookahead_layout(array([7, 8], [8, 6]), 3, array([7, 9], [4, 4]), seed=-1)
    assert show.layout(layout).splitlines() == [
        "                                               sees row: # yes, . no",
        "row  position  what                     token  0 12 3 4 56",
        "  0         0  seed                            # .. . . ..",
        "  1         1  window level 0 column 0      7  # #. . . ..  also guess 0 token 0",
        "  2         2  window level 0 column 1      8  # ## . . ..  also window level 1 column 0",
        "  3         3  window level 1 column 1      6  # ## # . ..",
        "  4         2  guess 0 token 1              9  # #. . # ..",
        "  5         1  guess 1 token 0              4  # .. . . #.",
        "  6         2  guess 1 token 1              4  # .. . . ##",
    ]


def test_the_drawing_of_counts_and_of_a_tree_has_no_tokens():
    assert show.layout(lookahead_layout(0, 2, 1)).splitlines() == [
        "                                sees row: # yes, . no",
        "row  position  what             0 1",
        "  0         0  seed             # .",
        "  1         1  guess 0 token 0  # #",
    ]
    drawn = show.layout(array(-1, 0, 0, 1, 3, 3, 3, 3, 3, 3, 3)).splitlines()
    assert drawn[1:4] == [
        "                                        1",
        "row  position  what          0 1234567890",
        "  0         0  seed          # ..........",
    ]
    assert drawn[-1] == " 10         3  node below 3  # #.#......#"


@given(case=strategies.lookahead_layout())
def test_the_marks_of_a_drawing_are_what_is_visible(case):
    layout = lookahead_layout(**case)
    header, *lines = show.layout(layout, label=lambda token: f"<{token}>").splitlines()
    start = header.index("sees")
    for row, line in enumerate(lines[-len(layout.tokens) :]):
        marks = line[start:].split("  ")[0].replace(" ", "")
        assert [mark == "#" for mark in marks] == layout.visible[row].tolist()
        assert line.split()[:2] == [str(row), str(layout.positions[row])]
        assert (layout.tokens[row] == -1) == ("<" not in line) and (f"<{layout.tokens[row]}>" in line) == ("<" in line)


def test_a_label_keeps_to_its_line():
    layout = lookahead_layout(0, 3, array([7, 8]), seed=6)
    texts = {6: "\n", 7: " caf\u00e9", 8: "\x1b[0m"}
    lines = show.layout(layout, label=texts.__getitem__).splitlines()
    assert len(lines) == 5
    assert [line[32:39] for line in lines[2:]] == [r"\n     ", " caf\u00e9  ", r"\x1b[0m"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"layout": "-1"}, "layout must be a NumPy array or list of int32, got '-1'"),
        ({"layout": np.array(-1, np.int32)}, r"layout must have shape \(rows,\), got \(\)"),
        ({"layout": np.array([-1.0, 0])}, "layout must have dtype int32, got float64"),
        ({"layout": array(-1, 1)}, r"parents\[1\] must lie in 0\.\.0, got 1"),
        ({"layout": array()}, "at least one node"),
        ({"layout": np.arange(-1, 4096, dtype=np.int32)}, "layout must have at most 4096 rows to be shown, got 4097"),
        ({"layout": array(-1), "label": "a"}, "label must be a function from a token to its text, got 'a'"),
    ],
)
def test_refuses(arguments, text):
    with pytest.raises(ArgumentError, match=text):
        show.layout(**arguments)


def test_refuses_tokens_of_other_rows():
    layout = lookahead_layout(1, 2, 1)
    assert isinstance(layout, LookaheadLayout)
    with pytest.raises(ArgumentError, match=r"layout\.tokens must have shape \(3,\), got \(2,\)"):
        show.layout(layout._replace(tokens=layout.tokens[:2].copy()))
