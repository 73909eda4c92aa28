"""What a target has written, with the state that gave each token: all that a draft learns from.

What the target would say of any token is its head over the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.checkpoint.safetensors_file import Stored, StoredArray, open_safetensors, write_safetensors
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import replace_file, work_folder

HELD_OUT = 16  # of so many texts one is for judging alone
_ARRAYS = {
    "tokens": ("I32", 1),
    "states": ("F16", 2),
    "starts": ("I64", 1),
    "prompts": ("I32", 1),
    "prompt_starts": ("I64", 1),
}


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts one after another, and their prompts.

    Parameters
    ----------
    tokens : int32 (n,)
    states : float16 (n, width)
        what the target's head read when it gave each, then taps, each of root mean square 1; (n, 0): that is not known
    starts : int64 (texts + 1,)
        tokens of text t: starts[t] to starts[t + 1]
    prompts : int32 (m,)
    prompt_starts : int64 (texts + 1,)
        the same of what stood before each

    Raises
    ------
    ArgumentError
    """

    tokens: np.ndarray
    states: np.ndarray
    starts: np.ndarray
    prompts: np.ndarray
    prompt_starts: np.ndarray

    def __post_init__(self) -> None:
        (n,) = as_array("tokens", self.tokens, np.int32, ("n",)).shape
        as_array("states", self.states, np.float16, (n, "width"))
        (m,) = as_array("prompts", self.prompts, np.int32, ("m",)).shape
        ends = len(as_array("starts", self.starts, np.int64, ("texts + 1",)))
        as_array("prompt_starts", self.prompt_starts, np.int64, (ends,))
        for name, count in (("starts", n), ("prompt_starts", m)):
            starts = getattr(self, name)
            if starts[[0, -1]].tolist() != [0, count] or (np.diff(starts) < 0).any():
                raise ArgumentError(f"{name} must go up from 0 to the {count} tokens, got {starts.tolist()[:8]}")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def part(self, first: int, last: int) -> Texts:
        """Texts first to last - 1."""
        rows, asked = (slice(*starts[[first, last]].tolist()) for starts in (self.starts, self.prompt_starts))
        own = slice(first, last + 1)
        return Texts(
            self.tokens[rows], self.states[rows], self.starts[own] - rows.start,
            self.prompts[asked], self.prompt_starts[own] - asked.start,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write them as a safetensors file, whole or not at all."""
        arrays = {name: Stored(dtype, getattr(self, name)) for name, (dtype, _) in _ARRAYS.items()}
        with work_folder(path) as work:
            write_safetensors(work / "texts", arrays)
            replace_file(path, work / "texts")

    @classmethod
    def load(cls, *paths: Path, states: bool = True) -> Texts:
        """What `save` has written, in one file or in several, one after another; without the states, where they are not wanted.

        Raises
        ------
        CheckpointError
        ArgumentError
        """
        files = [_stored(path) for path in paths]
        counts = [file["tokens"].shape[0] for file in files]
        width = files[0]["states"].shape[1] if states else 0
        kept = np.empty((sum(counts), width), np.float16)  # once: they are most of the memory
        for file, rows in zip(files, np.split(kept, np.cumsum(counts)[:-1]), strict=True):
            if states:
                rows[:] = file["states"]
        tokens, prompts = (np.concatenate([np.asarray(file[name]) for file in files]) for name in ("tokens", "prompts"))
        starts, prompt_starts = (
            np.cumsum([0, *np.concatenate([np.diff(np.asarray(file[name])) for file in files])], dtype=np.int64)
            for name in ("starts", "prompt_starts")
        )
        return cls(tokens, kept, starts, prompts, prompt_starts)


def held_out(texts: int) -> tuple[np.ndarray, np.ndarray]:
    """bool (texts,), twice: those to learn from, and those to judge by; a text that is the only one is both."""
    held = np.arange(texts) % HELD_OUT == HELD_OUT - 1
    if not held.any():
        held[-1] = True
    return ~held if texts > 1 else held, held


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
    if stored.keys() != _ARRAYS.keys():
        raise CheckpointError(f"{path}: must hold {', '.join(_ARRAYS)}, found {', '.join(sorted(stored)) or 'nothing'}")
    arrays = {name: array for name, (_, array) in stored.items()}
    wanted = {name: axes for name, (_, axes) in _ARRAYS.items()}
    if (found := {name: len(array.shape) for name, array in arrays.items()}) != wanted:
        raise CheckpointError(f"{path}: must hold arrays of so many axes: {wanted}, found {found}")
    return arrays
