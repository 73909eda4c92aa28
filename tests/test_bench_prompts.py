"""The prompts of the speculative bench, and what counts as a loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.lib.prompts import KINDS, load, loops


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_prompts_of_each_kind(kind):
    prompts = load(kind)
    assert len(prompts) == len({prompt.name for prompt in prompts}) == len({prompt.text for prompt in prompts}) == 20
    assert all(prompt.text.strip() and "\r" not in prompt.text for prompt in prompts)
    assert [prompt.name for prompt in prompts] == sorted(prompt.name for prompt in prompts)
    assert not any(prompt.name.endswith((".chat", ".txt")) for prompt in prompts)
    assert any(prompt.chat for prompt in prompts)


def test_each_kind_of_copying_has_four_prompts():
    kinds = [prompt.name.split("-")[0] for prompt in load("copy")]
    assert {kind for kind in kinds if kinds.count(kind) >= 4} == set(kinds) == {"quote", "code", "table", "text"}


def test_a_prompt_is_its_file_to_the_last_byte():
    by_name = {prompt.name: prompt for prompt in load("copy")}
    assert by_name["table-watering"].text.endswith("\nTuesday,") and not by_name["table-watering"].chat
    assert by_name["code-rename-function"].text.endswith("import mean\n\n")
    assert by_name["code-change-title"].chat


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="copy, open"):
        load("closed")


@given(
    head=st.lists(st.integers(0, 3), max_size=50),
    cycle=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    period=st.integers(1, 12),
    window=st.integers(1, 40),
)
def test_a_loop_has_a_short_period_throughout_the_window(head, cycle, period, window):
    tokens = head + (cycle * 41)[: window + 3]
    last = tokens[-window:]
    want = any(all(last[i] == last[i - p] for i in range(p, window)) for p in range(1, min(period, window - 1) + 1))
    assert loops(tokens, period, window) == want
    if len(cycle) <= period < window:
        assert loops(tokens, period, window)


def test_a_loop_ends_where_the_window_begins_or_the_period_is_longer():
    assert loops(list(range(32)) * 4)
    assert not loops(list(range(33)) * 4)
    assert not loops(list(range(32)) * 4 + [99])
    assert loops([99] + list(range(32)) * 4)
    assert not loops([99] + [1] * 127)
    assert not loops([1] * 127)
