"""Prompts that come with the package: many, different, of every kind, and fixed by the seed."""

from __future__ import annotations

import random
import re

import pytest

from fastdistill.errors import ArgumentError
from fastdistill.train.data.own_prompts import _FOLDER, KINDS, _fill, _groups, _prompts, own_prompts

LEAST = 4000


def test_prompts_differ_and_a_shorter_list_begins_a_longer_one():
    prompts = own_prompts(LEAST, 7)
    assert len(set(prompts)) == len(prompts) == LEAST
    assert own_prompts(20, 7) == prompts[:20]
    assert own_prompts(20, 8) != prompts[:20]
    assert own_prompts(0) == []


def test_choices_of_a_seed_are_the_same_on_every_python():
    slots = "{1..6} {-4..4..2} {a|b|c} {7}"
    assert _fill(slots, random.Random("fill 1")) == "4 2 c 7"
    drawn = {_fill(slots, random.Random(f"fill {seed}")) for seed in range(2000)}
    assert drawn == {f"{i} {j} {k} 7" for i in range(1, 7) for j in range(-4, 5, 2) for k in "abc"}


def test_the_first_prompts_are_of_all_kinds_and_each_kind_uses_a_topic_once_first():
    first = set(own_prompts(100))
    for kind in KINDS:
        assert len(first & set(_prompts(kind, 0))) >= 100 // len(KINDS), kind
    topics = [topic for _, topics in _groups("howto") for topic in topics]
    prompts = _prompts("howto", 3)
    assert all(any(topic in prompt for prompt in prompts[: len(topics)]) for topic in topics)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_clean(kind):
    """No slot is left, no line is empty at its ends, no sentence lacks its end."""
    for prompt in _prompts(kind, 5):
        assert not re.search(r"[{}|\\]|\.\.|  |\bNone\b", prompt), prompt
        assert prompt == prompt.strip() and prompt[0].isupper(), prompt
        assert prompt[-1] in '.?!"}' or "\n" in prompt or "means" in prompt, prompt


def test_every_file_is_a_kind():
    assert sorted(path.stem for path in _FOLDER.glob("*.txt")) == sorted(KINDS)


def test_refuses():
    with pytest.raises(ArgumentError, match=r"count must be at most \d{4}, the prompts that there are, got 1000000"):
        own_prompts(10**6)
    with pytest.raises(ArgumentError, match="count must be an integer, got 'ten'"):
        own_prompts("ten")
    with pytest.raises(ArgumentError, match="seed must lie in"):
        own_prompts(1, -1)
