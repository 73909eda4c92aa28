"""Beam search over any function from tokens to log probabilities: what it means, and the best text of all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence

import numpy as np

LogProbs = Callable[[list[int]], np.ndarray]


def beam_search(
    log_probs: LogProbs, prompt: Sequence[int], num_beams: int, most: int, ends: Collection[int] = (),
    length_penalty: float = 1.0, early_stopping: bool | str = False,
    stopped: Callable[[list[int]], bool] = lambda text: False,
) -> list[tuple[list[int], float]]:  # fmt: skip
    """The texts that transformers' `_beam_search` ends with, best first, and their scores; step for step as it is there.

    `log_probs(tokens)` is float64 (vocab,); `stopped(text)`, without the prompt, is what `stop_strings` are there. Places that nothing fills hold -inf, where transformers has -1e9 and, in a
    vocabulary of fewer tokens than are looked at, fills them with a text twice. Of equal scores the first counts.
    """
    width = max(2, 1 + len(ends)) * num_beams
    running_scores, running = np.full(num_beams, -np.inf), [list(prompt)] * num_beams
    running_scores[0] = 0  # else all beams would be one text
    scores, texts, finished = np.full(num_beams, -np.inf), [list[int]()] * num_beams, np.zeros(num_beams, bool)
    for written in range(1, most + 1):
        possible = [
            score + log_probs(text) if score > -np.inf else np.full_like(log_probs(list(prompt)), -np.inf)
            for score, text in zip(running_scores, running, strict=True)
        ]
        flat = np.concatenate(possible)
        best = np.argsort(-flat, kind="stable")[:width]
        vocab = len(flat) // num_beams
        top, candidates = flat[best], [[*running[at // vocab], int(at % vocab)] for at in best]
        hits = [text[-1] in ends or written == most or stopped(text[len(prompt) :]) for text in candidates]
        hits = np.array(hits)

        on = np.where(hits, -np.inf, top)
        order = np.argsort(-on, kind="stable")[:num_beams]
        running_scores = np.pad(on[order], (0, num_beams - len(order)), constant_values=-np.inf)
        running = [candidates[at] for at in order] + [[]] * (num_beams - len(order))

        just = hits & (np.arange(len(top)) < num_beams) & (top > -np.inf)
        full = finished.all() and early_stopping is True
        ended = np.where(just & ~np.array(full), top / written**length_penalty, -np.inf)
        merged, merged_texts = np.concatenate([scores, ended]), [*texts, *(text[len(prompt) :] for text in candidates)]
        order = np.argsort(-merged, kind="stable")[:num_beams]
        scores, texts = merged[order], [merged_texts[at] for at in order]
        finished = np.concatenate([finished, just])[order]

        length = most if early_stopping == "never" and length_penalty > 0 else written
        worst = np.where(finished, scores.min(), -np.inf)
        improvement = (running_scores[0] / length**length_penalty > worst).any()
        if not improvement or (finished.all() and early_stopping is True) or (running_scores == -np.inf).all():
            break
    return [(text, float(score)) for text, score, is_there in zip(texts, scores, finished, strict=True) if is_there]


def every_text(
    log_probs: LogProbs, prompt: Sequence[int], most: int, ends: Collection[int], length_penalty: float
) -> list[tuple[list[int], float]]:
    """All texts of at most so many tokens that end, or are cut there, with their scores, the best first."""
    vocab, found = len(log_probs(list(prompt))), []
    for written in range(1, most + 1):
        for text in itertools.product(range(vocab), repeat=written):
            if not ends.isdisjoint(text[:-1]) or (written < most and text[-1] not in ends):
                continue
            total = 0.0
            for at, token in enumerate(text):
                total += log_probs([*prompt, *text[:at]])[token]
            if total > -np.inf:
                found.append((list(text), total / written**length_penalty))
    return sorted(found, key=lambda each: -each[1])
