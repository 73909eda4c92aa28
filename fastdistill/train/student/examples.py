"""What a student learns from: prompts, and what the target wrote behind them."""

from __future__ import annotations

import numpy as np

from fastdistill.train.data.dataset import Dataset
from fastdistill.train.own_texts.texts import Texts


def examples_of(texts: Texts) -> Dataset:
    """Prompts with their texts, of which the text's tokens are to be predicted; none of a text without tokens."""
    parts, prompts, lengths = [np.empty(0, np.int32)], list[int](), list[int]()
    for text in np.flatnonzero(np.diff(texts.starts) > 0).tolist():
        asked, written = (slice(*starts[text : text + 2].tolist()) for starts in (texts.prompt_starts, texts.starts))
        parts += [texts.prompts[asked], texts.tokens[written]]
        prompts.append(len(parts[-2]))
        lengths.append(len(parts[-2]) + len(parts[-1]))
    return _dataset(np.concatenate(parts), np.cumsum([0, *lengths]), np.array(prompts, np.int64))


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
