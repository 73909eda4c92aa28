"""What a target writes, with the state that gave each token: all that a draft head learns from.

The states are those that decoding has made anyway, so nothing is read twice; and what the target would say of any token
is its head over the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.arguments import as_array, check_has
from fastdistill.checkpoint.safetensors_file import Stored, open_safetensors, write_safetensors
from fastdistill.decode.autoregressive import AutoregressiveRun
from fastdistill.decode.engine import MOST_TEXTS
from fastdistill.decode.request import Request
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import replace_file, work_folder
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Rows
from fastdistill.train.data.rollouts import written
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

    @property
    def ends(self) -> np.ndarray:
        """int64 (n,): where the text of each token ends."""
        return np.repeat(self.starts[1:], np.diff(self.starts))

    @property
    def places(self) -> np.ndarray:
        """int64 (m,): of the tokens that another one follows."""
        return np.flatnonzero(np.arange(len(self.tokens)) + 1 < self.ends)

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
    def load(cls, path: Path) -> Texts:
        """What `save` has written.

        Raises
        ------
        CheckpointError
        ArgumentError
        """
        stored, _ = open_safetensors(path)
        wanted = ("tokens", "states", "starts")
        if stored.keys() != {*wanted}:
            raise CheckpointError(
                f"{path}: must hold {', '.join(wanted)}, found {', '.join(sorted(stored)) or 'nothing'}"
            )
        return cls(*(np.array(stored[name].array) for name in wanted))

    @classmethod
    def joined(cls, some: Sequence[Texts]) -> Texts:
        """All of several, in order."""
        lengths = np.concatenate([np.diff(each.starts) for each in some])
        tokens, states = (np.concatenate([getattr(each, name) for each in some]) for name in ("tokens", "states"))
        return cls(tokens, states, np.cumsum([0, *lengths], dtype=np.int64))


def write_texts(
    model: Any,
    prompts: Iterable[Sequence[int] | np.ndarray],
    *,
    temperature: float = 0.0,
    seed: int = 0,
    max_tokens: int = 256,
    numbers: Sequence[int] | None = None,
    max_texts: int = MOST_TEXTS,
) -> Texts:
    """What a model writes behind each prompt, and the states that gave it.

    Parameters
    ----------
    model : Model
    prompts : iterable of token ids
    temperature : float, default 0.0
    seed : int, default 0
    max_tokens : int, default 256
        most of each text
    numbers : sequence of int, optional
        of each prompt: seed and number fix what is drawn; None: 0, 1, 2, ...
    max_texts : int, default 32
        so many are written at once

    Raises
    ------
    ArgumentError
    CapacityError
        for a prompt that leaves no room for a token
    PartialError
        where some texts failed
    """
    check_has("model", model, ["network", "end_tokens"], "a Model")
    prompts = [*prompts]
    if not prompts:
        raise ArgumentError("prompts must have at least one, got none")
    watched = [_Watching() for _ in prompts]
    texts = written(model, prompts, seed, temperature, max_tokens, None, None, numbers, max_texts, watched)
    lengths = [len(text) for _, text in texts]
    states = [
        np.concatenate(each.states)[:length].astype(np.float16) for each, length in zip(watched, lengths, strict=True)
    ]
    return Texts(
        np.concatenate([text for _, text in texts]), np.concatenate(states), np.cumsum([0, *lengths], dtype=np.int64)
    )


class _Watching:
    """Plain decoding that keeps the state behind each token."""

    def __init__(self) -> None:
        self.states: list[np.ndarray] = []

    def start(self, session: SessionLike, request: Request) -> _WatchingRun:
        return _WatchingRun(session, request, self.states)


class _WatchingRun(AutoregressiveRun):
    def __init__(self, session: SessionLike, request: Request, states: list[np.ndarray]) -> None:
        super().__init__(session, request)
        self._states, self._goes_on = states, False  # what a session draws by itself has no states

    def forward(self) -> Forward:
        asked = super().forward()
        return replace(asked, read=replace(asked.read, hidden=True))

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        if rows.tokens is not None:
            assert rows.hidden is not None
            self._states.append(rows.hidden)
        return super().take(rows)
