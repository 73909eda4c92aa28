"""Prompts that come with the package: many, different, of every kind, and fixed by the seed."""

from __future__ import annotations

import random
import re
from collections import Counter

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


def test_no_slot_is_left_and_no_topic_is_there_twice():
    for prompt in own_prompts(LEAST, 5):
        assert not re.search(r"[{}|\\]|\d\.\.", prompt), prompt
        assert prompt == prompt.strip() and "\n\n\n" not in prompt, prompt
    for kind in KINDS:
        groups = list(_groups(kind))
        assert all("{}" in form for forms, _ in groups for form in forms), kind
        times = Counter(topic for _, topics in groups for topic in topics)
        assert max(times.values(), default=1) == 1, times.most_common(1)


def test_passages_come_with_their_own_questions():
    passages = {passage: questions for (passage,), questions in _groups("passages")}
    for prompt in _prompts("reading", 2):
        found = [passage for passage in passages if passage.replace("\\n", "\n") in prompt]
        assert len(found) == 1 and sum(question in prompt for question in passages[found[0]]) == 1, prompt


def test_every_file_is_read():
    assert sorted(path.stem for path in _FOLDER.glob("*")) == sorted([*KINDS, "passages"])


def test_refuses():
    with pytest.raises(ArgumentError, match=r"count must be at most \d+, the prompts that there are, got 1000000"):
        own_prompts(10**6)
    with pytest.raises(ArgumentError, match="count must be an integer, got 'ten'"):
        own_prompts("ten")
    with pytest.raises(ArgumentError, match="seed must lie in"):
        own_prompts(1, -1)
