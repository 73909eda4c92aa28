"""A task of some 45 tokens an answer for small causal models: words, one token each, are to be spelt out, in their order or from the last on.

    <bos> TASK w1 .. wn ->  letters of a word, <space>, letters of the next, ..., <end>

An answer follows from its prompt alone.  But a model that learns it goes by what it has written so far: which word it is at, and which
letter of it.  So over guesses that are wrong it says what is wrong, as models of language do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.lib.list_tasks import ANIMALS

TASKS = ("copy", "reverse")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
BEGIN, END, SPACE, ARROW = range(4)
SIGNS = ("<bos>", "<end>", "_", "->", *TASKS, *LETTERS, *ANIMALS)  # by token
TOKEN = {sign: token for token, sign in enumerate(SIGNS)}
SHORTEST, LONGEST = 8, 10  # words of a list
LONGEST_PROMPT = LONGEST + 3
MOST = LONGEST * (1 + max(map(len, ANIMALS)))  # tokens of an answer


class Spelling(NamedTuple):
    """prompt, answer  int32 tokens; the answer's last one is END"""

    prompt: np.ndarray
    answer: np.ndarray


def spellings(count: int, generator: np.random.Generator) -> list[Spelling]:
    """So many of them, at random."""
    return [_spelling(generator) for _ in range(count)]


def _spelling(generator: np.random.Generator) -> Spelling:
    task = TASKS[generator.integers(len(TASKS))]
    words = [ANIMALS[i] for i in generator.permutation(len(ANIMALS))[: generator.integers(SHORTEST, LONGEST + 1)]]
    prompt = [BEGIN, TOKEN[task], *(TOKEN[word] for word in words), ARROW]
    letters = [[*(TOKEN[letter] for letter in word), SPACE] for word in (words if task == "copy" else words[::-1])]
    answer = [token for word in letters for token in word]
    return Spelling(np.array(prompt, np.int32), np.array([*answer[:-1], END], np.int32))
