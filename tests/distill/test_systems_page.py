"""docs/distill.md: its table of published systems and their examples say the same; its list of functions is whole."""

from __future__ import annotations

import ast
import re

import pytest

from fastdistill import distill
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs/distill.md"
MOST_LINES = 12


def part(heading: str) -> str:
    """The text of a section of the page, up to the next one of its level."""
    text = PAGE.read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def names(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def table() -> dict[str, set[str]]:
    """The systems of the table, each a link to its example, and the functions beside it."""
    found = {}
    for line in re.findall(r"^\| \[.*\|$", part("Published systems"), re.MULTILINE):
        link, _, functions = line.strip("| ").split(" | ")
        system, anchor = re.fullmatch(r"\[(.+)\]\(#(.+)\)", link).groups()
        assert anchor == re.sub(r"[^\w\- ]", "", system.lower()).replace(" ", "-")
        found[system] = names(functions)
    return found


SYSTEMS = table()
FIRST_LINES = {
    number: heading
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1)
    if (heading := line.removeprefix("#### ")) != line
}


def heading_of(line: int) -> str | None:
    before = [number for number in FIRST_LINES if number < line]
    return FIRST_LINES[before[-1]] if before else None


EXAMPLES: dict[str | None, list[str]] = {}
for block in blocks(PAGE):
    if block.language == "python":
        EXAMPLES.setdefault(heading_of(block.line), []).append(block.text)


def test_the_table_has_the_systems_of_the_examples_in_their_order():
    assert list(SYSTEMS) == list(FIRST_LINES.values())
    assert len(SYSTEMS) >= 40


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_has_one_short_example_of_the_functions_beside_it(system):
    (example,) = EXAMPLES[system]
    assert len(example.strip().splitlines()) <= MOST_LINES
    used = {
        node.attr
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "distill"
    }
    assert SYSTEMS[system], "the table names no function"
    assert SYSTEMS[system] <= used & set(distill.__all__)


def test_the_list_of_functions_is_whole():
    functions = {name for name in distill.__all__ if name[0].islower()}
    assert functions <= names(part("What there is"))
