"""Guesses of a small head on the target's own last hidden state, trained for this target: `fastdistill distill` makes it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from fastdistill.arguments import check_number
from fastdistill.decode.drafters.copies import Copies
from fastdistill.decode.drafters.draft import Draft, DraftRequest, chain
from fastdistill.decode.drafters.growing import GrowingRun, Vocabulary
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.messages import listed
from fastdistill.runtime.draft_head import RunnableHead
from fastdistill.runtime.read import Read, Rows


@dataclass(frozen=True)
class HeadDrafter:
    """Draft with a head that was distilled from the target: chains, and trees, of guesses from the target's own state.

    Parameters
    ----------
    folder : str or PathLike
        what `fastdistill distill MODEL --draft FOLDER` has made
    least_probability : float, default 0.25
        stop a chain after a guess that the head gives, with all before it, less than this

    Attributes
    ----------
    priors : tuple[tuple[float, float], ...]
        of its kinds of guesses: see `Drafter`
    taps : tuple[str, ...]
        names of the target's hidden states that the head reads beside its last one: as of `Drafter`
    reads_hidden, leaves_session : bool
        likewise

    Raises
    ------
    ArgumentError
    CheckpointError
        where the folder holds no draft head

    References
    ----------
    Li et al. 2024, EAGLE; Cheng et al. 2024, ReDrafter; Cai et al. 2024, Medusa
    """

    folder: str | os.PathLike[str]
    least_probability: float = 0.25
    _head: RunnableHead = field(init=False, repr=False, compare=False)

    reads_hidden: ClassVar[bool] = True
    leaves_session: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("least_probability", self.least_probability, 0, 1)
        object.__setattr__(self, "_head", RunnableHead(self.folder))

    @property
    def priors(self) -> tuple[tuple[float, float], ...]:
        return self._head.priors

    @property
    def taps(self) -> tuple[str, ...]:
        return self._head.taps

    def start(self, request: DraftRequest) -> HeadDraftRun:
        return HeadDraftRun(self._head, self.least_probability, request)


class HeadDraftRun(GrowingRun):
    """Goes on from the state that gave the text's last token."""

    def __init__(self, head: RunnableHead, least_probability: float, request: DraftRequest) -> None:
        network = getattr(request.session, "network", None)
        if network is None:
            raise UnsupportedError(
                "HeadDrafter needs a session of a model: a session over a function has no hidden states"
            )
        self._cell, self._head, self._least = head.beside(network), head, least_probability
        if missing := [name for name in head.taps if name not in request.session.taps]:
            raise ArgumentError(
                f"the draft head reads {listed(missing)}, which this session does not give: make it with taps=drafter.taps"
            )
        super().__init__(request, Vocabulary(len(head.d2t), request.session.vocab_size, head.d2t))
        self._state: np.ndarray | None = None  # float32 (1, width): gave the seed; its taps stand behind it
        self._seed = -1
        self._copies = Copies(head.copies)
        self._copies.append([*request.source.tolist(), *request.prompt.tolist()])
        # What the text has more than GrowingRun knows of: chains of the likeliest tokens ask it nothing.
        self._untold = list[int]()
        # States that the next step reads, by the guess that was drawn before; -1: by the seed.
        self._states: dict[int, np.ndarray] = {}
        self._step = 0

    @property
    def _room(self) -> int:
        return -1 if self._state is None else self._cell.steps - 1

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        self._untold += tokens
        self._copies.append(tokens)
        if len(tokens) and "hidden" in taps:
            read = [taps[name][-1:] for name in ("hidden", *self._head.taps)]
            self._state, self._seed = np.concatenate(read, axis=1), int(tokens[-1])

    def propose(self, budget: int) -> Draft:
        if self._tree is None and self._drawing.takes_likeliest and min(budget, self._room + 1) > 0:
            return self._likeliest(min(budget, self._room + 1))
        super().accept(self._untold, np.empty(0, np.int32), {})
        self._untold = []
        return super().propose(budget)

    def _likeliest(self, budget: int) -> Draft:
        """A chain of the likeliest tokens, without what else a draw may need."""
        state, reached = self._state, 1.0
        tokens, shares = list[int](), list[float]()
        while len(tokens) < budget and reached >= self._least:
            guess, share = self._cell.likeliest(self._read_after(tokens), state)
            state, reached = None, reached * share
            tokens.append(int(self._head.d2t[guess]))
            shares.append(share)
        return chain(np.array(tokens, np.int32), self._kinds(np.array(shares)))

    def _root(self, read: Read) -> Rows:
        assert self._state is not None  # there is room
        self._step = 0
        return self._run(self._state, [[]], [-1], read)

    def _below(self, nodes: list[int], tokens: np.ndarray, parents: np.ndarray, read: Read) -> Rows:
        self._step += 1
        states = np.stack([self._states[int(parents[node])] for node in nodes])
        return self._run(states, [self._path(node, tokens, parents) for node in nodes], nodes, read)

    def _run(self, states: np.ndarray, paths: list[list[int]], nodes: list[int], read: Read) -> Rows:
        tokens = np.array([self._read_after(path) for path in paths], np.int32).T
        rows, following = self._cell.run(states, np.ascontiguousarray(tokens), self._step, read.logits)
        self._states |= dict(zip(nodes, following, strict=True))
        return rows

    def _path(self, node: int, tokens: np.ndarray, parents: np.ndarray) -> list[int]:
        """The target's tokens from the seed's child to a guess."""
        path = list[int]()
        while node >= 0:
            path.append(int(self._head.d2t[tokens[node]]))
            node = int(parents[node])
        return path[::-1]

    def _read_after(self, path: list[int]) -> list[int]:
        """What a step reads behind the text and these guesses: the last token, and its copies."""
        return [path[-1] if path else self._seed, *self._copies.after(path)]

    def _stops(self, share: float, reached: float) -> bool:
        return reached < self._least

    def _kinds(self, shares: np.ndarray) -> np.ndarray:
        return self._head.kinds(shares)
