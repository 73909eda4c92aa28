"""Guesses from a model: another one, or the target itself in a smaller format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fastdistill.arguments import check_number
from fastdistill.decode.drafters.draft import Draft, DraftRequest
from fastdistill.decode.drafters.growing import GrowingRun, Vocabulary
from fastdistill.errors import ArgumentError
from fastdistill.runtime.read import Read, Rows


@dataclass(frozen=True)
class ModelDrafter:
    """Draft with a model that is faster than the target.

    Parameters
    ----------
    model : Any
        anything with `session(capacity=, max_rows=)` and `vocab_size`: `fd.load(folder, format="q4")`, say
    least_probability : float, default 0.0
        stop a chain after a guess to which the model gives less than this
    token_map : np.ndarray (draft vocabulary,), optional
        the target's token for each of the model's, -1 where there is none; each at most once. None: the same
        vocabulary. Text that the model has no token for is left out of its context

    Raises
    ------
    ArgumentError
        when the vocabularies do not fit
    """

    model: Any
    least_probability: float = 0.0
    token_map: Sequence[int] | np.ndarray | None = field(default=None, compare=False)

    leaves_session: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not hasattr(self.model, "session") or not hasattr(self.model, "vocab_size"):
            raise ArgumentError(f"model must be a model such as fd.load gives, got {type(self.model).__name__}")
        check_number("least_probability", self.least_probability, 0, 1)

    def start(self, request: DraftRequest) -> ModelDraftRun:
        return ModelDraftRun(self, request)


class ModelDraftRun(GrowingRun):
    """Keeps the draft model's session where the text is."""

    def __init__(self, settings: ModelDrafter, request: DraftRequest) -> None:
        model, session = settings.model, request.session
        super().__init__(request, Vocabulary(model.vocab_size, session.vocab_size, settings.token_map))
        self._least = settings.least_probability
        width = 1 if request.tree is None else request.tree.width
        rows = max(256, request.max_draft, width)
        most = getattr(getattr(model, "plan", None), "max_positions", session.capacity)
        self._session = model.session(capacity=min(most, session.capacity + request.max_draft), max_rows=rows)
        self._ran: dict[int, int] = {}  # of the last tree: guess -> pending row of the session

    @property
    def _room(self) -> int:
        return self._session.capacity - len(self._text) if len(self._text) else -1

    def propose(self, budget: int) -> Draft:
        self._ran = {}
        return super().propose(budget)

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        if self._session.pending:
            self._session.keep([self._ran[guess] for guess in path.tolist() if guess in self._ran])
        super().accept(tokens, path, taps)
        self._session.truncate(min(self._session.common_prefix(self._text), max(len(self._text) - 1, 0)))

    def _root(self, read: Read) -> Rows:
        return self._session.prefill(self._text[self._session.length :], read)

    def _below(self, nodes: list[int], tokens: np.ndarray, parents: np.ndarray, read: Read) -> Rows:
        """In a tree they are pending below those of their parents."""
        if self._tree is None:
            return self._session.forward(tokens[nodes], rows="last", read=read)
        above = [self._ran.get(int(parents[node]), -1) for node in nodes]
        first = self._session.pending
        rows = self._session.forward(tokens[nodes], parents=above, read=read)
        self._ran |= {node: first + row for row, node in enumerate(nodes)}
        return rows

    def _renumber(self, kept: np.ndarray) -> None:
        self._ran = {number: self._ran[node] for number, node in enumerate(kept.tolist()) if node in self._ran}

    def _stops(self, share: float, reached: float) -> bool:
        return share < self._least
