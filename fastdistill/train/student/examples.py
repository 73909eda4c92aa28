"""What a student learns from: prompts, and what the target wrote behind them."""

from __future__ import annotations

import numpy as np

from fastdistill.train.data.dataset import Dataset
from fastdistill.train.own_texts.texts import Texts


def examples_of(texts: Texts, max_length: int) -> Dataset:
    """Prompts with their texts, of which the text's tokens are to be predicted, cut to so many tokens in all.

    Parameters
    ----------
    texts : Texts
    max_length : int
        a prompt that leaves no room for a token is left out, and its text
    """
    prompts, lengths = np.diff(texts.prompt_starts), np.diff(texts.starts)
    roomy = np.flatnonzero(prompts < max_length)
    parts = [np.empty(0, np.int32)]
    for text in roomy.tolist():
        asked, begin = (int(starts[text]) for starts in (texts.prompt_starts, texts.starts))
        count = min(int(lengths[text]), max_length - int(prompts[text]))
        parts += [texts.prompts[asked : asked + int(prompts[text])], texts.tokens[begin : begin + count]]
    both = np.minimum(prompts + lengths, max_length)[roomy]
    return _dataset(np.concatenate(parts), np.cumsum([0, *both]), prompts[roomy])


def some_of(data: Dataset, sequences: np.ndarray) -> Dataset:
    """These sequences, int64 (n,), at least one."""
    rows = [data.rows(sequence) for sequence in sequences.tolist()]
    tokens = np.concatenate([data.tokens[each] for each in rows])
    return _dataset(tokens, np.cumsum([0, *(each.stop - each.start for each in rows)]), data.prompts[sequences])


def _dataset(tokens: np.ndarray, starts: np.ndarray, prompts: np.ndarray) -> Dataset:
    """What is behind a prompt is to be predicted."""
    lengths = np.diff(starts)
    counted = np.arange(len(tokens)) - np.repeat(starts[:-1], lengths) >= np.repeat(prompts, lengths)
    return Dataset(tokens.astype(np.int32), starts.astype(np.int64), counted, prompts.astype(np.int32))
