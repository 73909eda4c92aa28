"""Regular expressions of a tokenizer: how many ways they have is told without trying one."""

from __future__ import annotations

from collections.abc import Iterator

from fastdistill.text.pattern import MANY, MOST_WAYS, shortest_and_ways
from tests.fuzz.targets.tokenizer import REGEX


def run(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        shortest, ways = shortest_and_ways(text)
    except ValueError as error:
        assert len(str(error)) < 200
    else:
        assert shortest >= 0 and 1 <= ways <= MANY * MOST_WAYS


def seeds() -> Iterator[bytes]:
    for pattern in (
        REGEX,
        r"\w*\w*[xy]$",
        r"(?<name>a|b{2,3})++(?#note)\k<name>",
        r"[^a[b-z]\]]{,4}?",
        r"(?=a)(?<!b)(?i-m:c)|\p{L}",
        r" {2,}|\A +",
    ):
        yield pattern.encode()
