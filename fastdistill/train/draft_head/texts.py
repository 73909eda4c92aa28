"""What a target has written, with the state that gave each token: all that a draft head learns from.

What the target would say of any token is its head over the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.checkpoint.safetensors_file import Stored, StoredArray, open_safetensors, write_safetensors
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import replace_file, work_folder
from fastdistill.train.draft_head.engine import HeadBatch


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts one after another, without their prompts.

    Parameters
    ----------
    tokens : int32 (n,)
    states : float16 (n, hidden_size)
        what the target's head read when it gave each
    starts : int64 (texts + 1,)
        tokens of text t: starts[t] to starts[t + 1], at least one

    Raises
    ------
    ArgumentError
    """

    tokens: np.ndarray
    states: np.ndarray
    starts: np.ndarray

    def __post_init__(self) -> None:
        (n,) = as_array("tokens", self.tokens, np.int32, ("n",)).shape
        as_array("states", self.states, np.float16, (n, "hidden_size"))
        starts = as_array("starts", self.starts, np.int64, ("texts + 1",))
        if starts[[0, -1]].tolist() != [0, n] or (np.diff(starts) < 1).any():
            raise ArgumentError(f"starts must go up from 0 to the {n} tokens, got {starts.tolist()[:8]}")

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def ends(self) -> np.ndarray:
        """int64 (n,): where the text of each token ends."""
        return np.repeat(self.starts[1:], np.diff(self.starts))

    @property
    def places(self) -> np.ndarray:
        """int64 (m,): of the tokens that another one follows."""
        return np.flatnonzero(np.arange(len(self.tokens)) + 1 < self.ends)

    def places_in(self, which: np.ndarray) -> np.ndarray:
        """Those of `places` that lie in some texts: bool (texts,)."""
        places = self.places
        return places[np.repeat(which, np.diff(self.starts))[places]]

    def part(self, first: int, last: int) -> Texts:
        """Texts first to last - 1."""
        rows = slice(*self.starts[[first, last]].tolist())
        return Texts(self.tokens[rows], self.states[rows], self.starts[first : last + 1] - rows.start)

    def batch(self, places: np.ndarray, steps: int, fading: float = 1.0) -> HeadBatch:
        """Of these places, each with the next tokens; what step t guesses counts fading^t."""
        at = places[None] + np.arange(steps + 1)[:, None]
        last = self.ends[places] - 1
        there = at <= last
        at = np.minimum(at, last)
        weights = there[1:] * np.float32(fading) ** np.arange(steps, dtype=np.float32)[:, None]
        states = self.states[at].astype(np.float32)
        return HeadBatch(states[0], self.tokens[at[:-1]], states[1:], weights.astype(np.float32))

    def save(self, path: Path) -> None:
        """Write them as a safetensors file, whole or not at all."""
        arrays = {
            "tokens": Stored("I32", self.tokens),
            "states": Stored("F16", self.states),
            "starts": Stored("I64", self.starts),
        }
        with work_folder(path) as work:
            write_safetensors(work / "texts", arrays)
            replace_file(path, work / "texts")

    @classmethod
    def load(cls, *paths: Path) -> Texts:
        """What `save` has written, in one file or in several, one after another.

        Raises
        ------
        CheckpointError
        ArgumentError
        """
        files = [_stored(path) for path in paths]
        counts = [file["tokens"].shape[0] for file in files]
        states = np.empty((sum(counts), files[0]["states"].shape[1]), np.float16)  # once: they are most of the memory
        for file, rows in zip(files, np.split(states, np.cumsum(counts)[:-1]), strict=True):
            rows[:] = file["states"]
        lengths = [np.diff(np.asarray(file["starts"])) for file in files]
        starts = np.cumsum([0, *np.concatenate(lengths)], dtype=np.int64)
        return cls(np.concatenate([np.asarray(file["tokens"]) for file in files]), states, starts)


def counted(path: Path) -> tuple[int, int]:
    """How many texts a file holds, and of how many tokens.

    Raises
    ------
    CheckpointError
    """
    stored = _stored(path)
    return stored["starts"].shape[0] - 1, stored["tokens"].shape[0]


def _stored(path: Path) -> dict[str, np.ndarray | StoredArray]:
    stored, _ = open_safetensors(path)
    wanted = ("tokens", "states", "starts")
    if stored.keys() != {*wanted}:
        raise CheckpointError(f"{path}: must hold {', '.join(wanted)}, found {', '.join(sorted(stored)) or 'nothing'}")
    arrays = {name: array for name, (_, array) in stored.items()}
    if (ranks := [len(arrays[name].shape) for name in wanted]) != [1, 2, 1]:
        raise CheckpointError(f"{path}: {', '.join(wanted)} must have 1, 2 and 1 axes, found {ranks}")
    return arrays
