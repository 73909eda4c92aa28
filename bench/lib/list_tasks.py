"""Nine list tasks for the small masked model `listops-mdlm`: prompts in its fixed format, right answers to learn, and whether one is right.

A prompt is 15 words, an answer 10 positions, filled up with <|eos|>:

    <|bos|> TASK : s1 .. s8 | a1 a2 ->        what is not used is "_"

Seven answers follow from the prompt.  Two leave a choice: `choose` in one position, `shuffle` in all of them together, so that it
is wrong to choose for each alone (ParallelBench; bench/lib/toy_joints.py says what that costs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DETERMINISTIC = ("copy", "reverse", "sort", "insert", "remove", "replace", "add")
TASKS = (*DETERMINISTIC, "shuffle", "choose")
PROMPT, POSITIONS, SLOTS, ARGUMENTS = 15, 10, 8, 2
END = "<|eos|>"
DIGITS = tuple("0123456789")
_ANIMALS = """
    ant bat bee cat cow crab crow deer dog dove duck eel elk emu fish fox frog goat hare hawk hen ibex jay kiwi koala lamb lion lynx
    mole moth mule newt owl pig puma ram rat seal slug swan toad wasp wolf worm yak zebra
"""
ANIMALS = tuple(_ANIMALS.split())
WORDS = (
    *("<|pad|>", "<|mask|>", "<|bos|>", END),
    *("copy", "reverse", "sort", "shuffle", "insert", "remove", "replace", "choose", "add"),
    *(":", "->", "|", "_", "+"),
    *DIGITS,
    *ANIMALS,
)  # of the model, by token
_TOKENS = {word: token for token, word in enumerate(WORDS)}


@dataclass(frozen=True)
class ListPrompt:
    """A task and its list.

    answer  the words that are right; None where there is a choice
    """

    task: str
    slots: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    answer: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        slots = [*self.slots, *"_" * (SLOTS - len(self.slots))]
        arguments = [*self.arguments, *"_" * (ARGUMENTS - len(self.arguments))]
        return " ".join(["<|bos|>", self.task, ":", *slots, "|", *arguments, "->"])


def prompts(task: str, count: int, seed: int = 0) -> list[ListPrompt]:
    """So many prompts of a task, the same for the same seed; more of them begin with fewer of them."""
    random = np.random.default_rng([seed, TASKS.index(task)])
    return [_prompt(task, random) for _ in range(count)]


def _prompt(task: str, random: np.random.Generator) -> ListPrompt:
    if task == "add":
        a, b = random.integers(0, 1000, 2).tolist()
        return ListPrompt(task, (*f"{a:03}", "+", *f"{b:03}"), (), tuple(f"{a + b:04}"))
    length = int(random.integers(2, SLOTS + 1))
    *some, extra = (ANIMALS[i] for i in random.permutation(len(ANIMALS))[: length + 1])  # the last is not in the list
    at = int(random.integers(length))
    arguments: tuple[str, ...] = ()
    answer: Sequence[str] | None = None
    if task == "copy":
        answer = some
    elif task == "reverse":
        answer = some[::-1]
    elif task == "sort":
        answer = sorted(some)
    elif task == "insert":
        at = int(random.integers(length + 1))
        arguments, answer = (extra, str(at)), [*some[:at], extra, *some[at:]]
    elif task == "remove":
        arguments, answer = (some[at],), [*some[:at], *some[at + 1 :]]
    elif task == "replace":
        arguments, answer = (some[at], extra), [*some[:at], extra, *some[at + 1 :]]
    return ListPrompt(task, tuple(some), arguments, None if answer is None else tuple(answer))


def examples(count: int, random: np.random.Generator, choices: float = 1.0) -> np.ndarray:
    """int32 (count, PROMPT + POSITIONS): prompts and right answers of tasks by chance, as tokens of the model.

    choices  how often a task that leaves a choice comes, beside one that does not
    """
    often = np.array([1.0 if task in DETERMINISTIC else choices for task in TASKS])
    tasks = random.choice(len(TASKS), size=count, p=often / often.sum()).tolist()
    texts = [_example(_prompt(TASKS[task], random), random) for task in tasks]
    return np.array([[_TOKENS[word] for word in text] for text in texts], np.int32)


def _example(prompt: ListPrompt, random: np.random.Generator) -> list[str]:
    """Words of a prompt and an answer: where there is a choice, any one of those that are right."""
    answer = prompt.answer
    if answer is None:
        chosen = random.permutation(len(prompt.slots))[: 1 if prompt.task == "choose" else None]
        answer = tuple(prompt.slots[i] for i in chosen)
    return [*prompt.text.split(), *answer, *[END] * (POSITIONS - len(answer))]


def judge(prompt: ListPrompt, answer: str | Sequence[int]) -> bool:
    """Whether an answer is right: text, or tokens of the model.  It ends with the first <|eos|>; what follows does not count."""
    words = answer.split() if isinstance(answer, str) else [WORDS[token] for token in answer]
    if END in words:
        words = words[: words.index(END)]
    if prompt.task == "shuffle":
        return sorted(words) == sorted(prompt.slots)
    if prompt.task == "choose":
        return len(words) == 1 and words[0] in prompt.slots
    return tuple(words) == prompt.answer
