"""Prompts of the list tasks have the model's format, and answers are judged as its own are."""

from __future__ import annotations

import numpy as np
import pytest

from bench.lib.list_tasks import (
    ANIMALS,
    DETERMINISTIC,
    POSITIONS,
    PROMPT,
    TASKS,
    WORDS,
    ListPrompt,
    examples,
    judge,
    prompts,
)

TOKEN = {word: token for token, word in enumerate(WORDS)}
FREE = [task for task in TASKS if task not in DETERMINISTIC]
KNOWN = {
    "<|bos|> copy : frog hen elk fox worm deer hare mule | _ _ ->": ("frog hen elk fox worm deer hare mule", [2, 4, 13, 44, 48, 40, 43, 71, 35, 46, 58, 15, 16, 16, 14]),
    "<|bos|> sort : goat bat _ _ _ _ _ _ | _ _ ->": ("bat goat", [2, 6, 13, 45, 29, 16, 16, 16, 16, 16, 16, 15, 16, 16, 14]),
    "<|bos|> insert : cow crab elk _ _ _ _ _ | slug 3 ->": ("cow crab elk slug", [2, 8, 13, 32, 33, 40, 16, 16, 16, 16, 16, 15, 66, 21, 14]),
    "<|bos|> add : 3 5 9 + 9 5 9 _ | _ _ ->": ("1 3 1 8", [2, 12, 13, 21, 23, 27, 17, 27, 23, 27, 16, 15, 16, 16, 14]),
}  # fmt: skip


@pytest.mark.parametrize("text", KNOWN)
def test_prompts_of_the_model_have_this_format(text):
    answer, ids = KNOWN[text]
    words = text.split()
    assert [TOKEN[word] for word in words] == ids
    slots, arguments = ([word for word in some if word != "_"] for some in (words[3:11], words[12:14]))
    prompt = ListPrompt(words[1], tuple(slots), tuple(arguments), tuple(answer.split()))
    assert prompt.text == text and judge(prompt, answer)


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_the_same_for_a_seed_and_fit_the_model(task):
    some = prompts(task, 200)
    assert prompts(task, 50) == some[:50] and prompts(task, 50, seed=1) != some[:50]
    for prompt in some:
        ids = [TOKEN[word] for word in prompt.text.split()]
        assert len(ids) == 15 and ids[1] == TOKEN[task]
        assert prompt.answer is None or 1 <= len(prompt.answer) < POSITIONS  # there is an end behind it
    assert {len(prompt.slots) for prompt in some} == ({7} if task == "add" else set(range(2, 9)))


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_is_right_as_text_and_as_tokens_and_ends_with_the_first_end(task):
    for prompt in prompts(task, 50):
        right = list(prompt.answer or (prompt.slots[::-1] if task == "shuffle" else prompt.slots[-1:]))
        tokens = [TOKEN[word] for word in right]
        end = [TOKEN["<|eos|>"]]
        assert judge(prompt, " ".join(right)) and judge(prompt, tokens) and judge(prompt, tokens + end * 3)
        assert judge(prompt, tokens + end + tokens)
        assert not judge(prompt, [*tokens, TOKEN["<|mask|>"], *end])
        assert not judge(prompt, end) and not judge(prompt, tokens + tokens[:1])
        assert not judge(prompt, [TOKEN["_"], *tokens[1:]])


def test_answers_follow_from_the_prompt():
    def answers(task):
        return [(list(prompt.slots), prompt.arguments, list(prompt.answer)) for prompt in prompts(task, 100)]

    assert all(answer == slots for slots, _, answer in answers("copy"))
    assert all(answer == slots[::-1] for slots, _, answer in answers("reverse"))
    assert all(answer == sorted(slots) for slots, _, answer in answers("sort"))
    for slots, (new, at), answer in answers("insert"):
        assert answer[int(at)] == new and [word for word in answer if word != new] == slots
    for slots, (old,), answer in answers("remove"):
        assert old in slots and answer == [word for word in slots if word != old]
    for slots, (old, new), answer in answers("replace"):
        assert old in slots and new not in slots and answer == [new if word == old else word for word in slots]
    for slots, _, answer in answers("add"):
        assert int("".join(slots[:3])) + int("".join(slots[4:])) == int("".join(answer)) and len(answer) == 4


def test_a_shuffle_is_any_permutation_and_a_choice_any_of_them():
    shuffled, chosen = ListPrompt("shuffle", ("ant", "bat", "bee")), ListPrompt("choose", ("ant", "bat", "bee"))
    assert all(judge(shuffled, text) for text in ("ant bat bee", "bee ant bat"))
    assert not any(judge(shuffled, text) for text in ("ant ant bee", "ant bat", "ant bat bee cow", ""))
    assert all(judge(chosen, text) for text in ("ant", "bee <|eos|> ant"))
    assert not any(judge(chosen, text) for text in ("cow", "ant bat", "", "<|eos|> ant"))


def test_examples_are_prompts_with_right_answers_filled_up_with_ends():
    texts = examples(300, np.random.default_rng(0))
    assert texts.shape == (300, PROMPT + POSITIONS) and texts.dtype == np.int32
    seen = {task: set() for task in TASKS}
    for text in texts.tolist():
        words = [WORDS[token] for token in text]
        slots, arguments = ([word for word in some if word != "_"] for some in (words[3:11], words[12:14]))
        answer = " ".join(words[PROMPT:]).partition("<|eos|>")[0].split()
        prompt = ListPrompt(words[1], tuple(slots), tuple(arguments), None if words[1] in FREE else tuple(answer))
        assert prompt.text == " ".join(words[:PROMPT]) and judge(prompt, text[PROMPT:])
        assert set(words[PROMPT + len(answer) :]) == {"<|eos|>"}
        seen[words[1]].add(slots.index(answer[0]) if words[1] in FREE else 0)
    assert all(seen[task] >= set(range(4)) for task in FREE) and all(seen.values())  # any word may be the first


def test_the_words_are_the_models():
    assert len(WORDS) == len(set(WORDS)) == 74 and len(ANIMALS) == 46 and list(ANIMALS) == sorted(ANIMALS)
