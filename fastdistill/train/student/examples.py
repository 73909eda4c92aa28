"""What a student learns from: prompts with what the target wrote behind them, in files, lot by lot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.checkpoint.safetensors_file import Stored, open_safetensors, write_safetensors
from fastdistill.errors import CheckpointError
from fastdistill.files import replace_file, work_folder
from fastdistill.train.data.dataset import Dataset
from fastdistill.train.data.rollouts import written

_STORED = {"tokens": "I32", "starts": "I64", "prompts": "I32"}


def write_examples(
    model: Any,
    prompts: Sequence[Sequence[int] | np.ndarray],
    *,
    temperature: float = 0.0,
    seed: int = 0,
    max_tokens: int = 256,
    max_length: int | None = None,
    numbers: Sequence[int] | None = None,
) -> Dataset:
    """A Dataset of prompts and what a model writes behind each, its own tokens being what is to be predicted.

    Parameters
    ----------
    model : Model
        or what has its `network` and its `end_tokens`
    prompts : sequence of token ids
    temperature, seed, max_tokens, max_length, numbers
        as of `rollouts`

    Raises
    ------
    ArgumentError, CapacityError, PartialError
    """
    texts = written(model, prompts, seed, temperature, max_tokens, max_length, None, numbers, len(prompts))
    lengths = [len(prompt) + len(text) for prompt, text in texts]
    tokens = np.concatenate([part for both in texts for part in both])
    return _dataset(tokens, np.cumsum([0, *lengths]), np.array([len(prompt) for prompt, _ in texts]))


def save_examples(data: Dataset, path: Path) -> None:
    """Write them as a safetensors file, whole or not at all."""
    arrays = {name: Stored(dtype, getattr(data, name)) for name, dtype in _STORED.items()}
    with work_folder(path) as work:
        write_safetensors(work / "examples", arrays)
        replace_file(path, work / "examples")


def load_examples(path: Path) -> Dataset:
    """What `save_examples` has written.

    Raises
    ------
    CheckpointError
    ArgumentError
    """
    stored, _ = open_safetensors(path)
    if stored.keys() != _STORED.keys():
        raise CheckpointError(f"{path}: must hold {', '.join(_STORED)}, found {', '.join(sorted(stored)) or 'nothing'}")
    return _dataset(*(np.array(stored[name].array) for name in _STORED))


def joined(some: Sequence[Dataset]) -> Dataset:
    """All of several, in order."""
    lengths = np.concatenate([each.lengths for each in some])
    tokens, prompts = (np.concatenate([getattr(each, name) for each in some]) for name in ("tokens", "prompts"))
    return _dataset(tokens, np.cumsum([0, *lengths]), prompts)


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
