"""Chat prompts that come with the package: what a model answers, to train a draft of it, where its user has no texts at hand.

They are kept as `embedded/prompts/KIND.txt`, in groups that end with a blank line: forms, a line `---`, and topics, a line each.
Each form of a group makes a prompt of each of its topics.  In a line

    {}            is the topic
    {text}        is each of the passages of passages.txt, whose groups are a passage and, as topics, questions about it; a group
                  without topics has those questions
    {one|two}     is one of these
    {20..90..5}   is a number of this range, in steps of one where none is told
    \\n            is a new line
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import fastdistill.embedded
from fastdistill.arguments import check_integer
from fastdistill.errors import ArgumentError

KINDS = (
    "advice", "coding", "editing", "extraction", "history", "howto", "letters", "opinions", "plans", "problems", "questions",
    "reading", "roles", "science", "stories", "summary", "talk", "translation",
)  # fmt: skip
_FOLDER = Path(fastdistill.embedded.__file__).parent / "prompts"
_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")


def own_prompts(count: int, seed: int = 0) -> list[str]:
    """Different prompts for a chat model, of each kind in turn until it has no more.

    Parameters
    ----------
    count : int
        the first so many of the order of the seed; of about 3,000 and fewer, each kind has the same share
    seed : int, default 0
        64 bits; fixes the order, and the numbers and words within prompts

    Raises
    ------
    ArgumentError
    """
    count, seed = check_integer("count", count, 0, 1 << 31), check_integer("seed", seed, 0, 2**64 - 1)
    turns = zip_longest(*(_prompts(kind, seed) for kind in KINDS))
    prompts = list(dict.fromkeys(prompt for turn in turns for prompt in turn if prompt))
    if count > len(prompts):
        raise ArgumentError(f"count must be at most {len(prompts)}, the prompts that there are, got {count}")
    return prompts[:count]


def _prompts(kind: str, seed: int) -> list[str]:
    """All of a kind, in rounds: one with each topic or passage, then another one with each, and so on; within a round, in any order."""
    chance = random.Random(f"{kind} {seed}")
    found = []
    for forms, topics in _groups(kind):
        subjects = [("", [topic]) for topic in topics]
        if "{text}" in forms[0]:
            subjects = [(text, topics or questions) for (text,), questions in _groups("passages")]
        for text, asked in subjects:
            pairs = [(form, topic) for form in forms for topic in asked]
            for number, (form, topic) in enumerate(sorted(pairs, key=lambda _: chance.random())):
                prompt = form.replace("{text}", text).replace("{}", topic)
                found.append((number, chance.random(), _fill(prompt, chance)))
    return [prompt for _, _, prompt in sorted(found)]


def _groups(name: str) -> Iterator[tuple[list[str], list[str]]]:
    """The forms and the topics of each group of a file."""
    for group in (_FOLDER / f"{name}.txt").read_text("utf-8").strip().split("\n\n"):
        forms, _, topics = group.partition("\n---\n")
        yield forms.splitlines(), topics.splitlines()


def _fill(line: str, chance: random.Random) -> str:
    """A line with its choices and new lines.  Of `chance` only `random()` is asked, which every Python draws alike."""

    def choice(slot: re.Match[str]) -> str:
        numbers = _NUMBERS.fullmatch(slot[1])
        options: Sequence[object] = slot[1].split("|")
        if numbers:
            first, last, step = numbers.groups("1")
            options = range(int(first), int(last) + 1, int(step))
        return str(options[int(chance.random() * len(options))])

    return re.sub(r"\{([^{}]*)\}", choice, line).replace("\\n", "\n")
