"""Guesses from the target's own first layers and its head; verification takes the same rows through the other layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill.arguments import check_integer
from fastdistill.decode.drafters.draft import NO_GUESSES, Draft, DraftRequest
from fastdistill.decode.drafters.drawing import Drawing
from fastdistill.errors import ArgumentError, UnsupportedError


@dataclass(frozen=True)
class LayerSkip:
    """Draft a chain with the first `layers` layers of the target: no second model, one cache (Elhoushi et al. 2024).

    Parameters
    ----------
    layers : int
        1 or more, fewer than the target has

    Raises
    ------
    ArgumentError
    UnsupportedError
        for a session without layers, or a tree
    """

    layers: int

    def __post_init__(self) -> None:
        check_integer("layers", self.layers, 1, 1 << 16)

    def start(self, request: DraftRequest) -> LayerSkipRun:
        return LayerSkipRun(self.layers, request)


class LayerSkipRun:
    def __init__(self, layers: int, request: DraftRequest) -> None:
        network = getattr(request.session, "network", None)
        if network is None:
            raise UnsupportedError("LayerSkip needs a session of a model: a session over a function has no layers")
        if request.tree is not None:
            raise UnsupportedError("LayerSkip drafts chains, not trees")
        count = network.plan.num_layers
        if layers >= count:
            raise ArgumentError(f"LayerSkip's layers must be fewer than the model's {count}, got {layers}")
        self._session, self._early, self._late = request.session, (0, layers), (layers, count)
        self._drawing = Drawing(request)
        self._text = request.prompt

    def propose(self, budget: int) -> Draft:
        session: Any = self._session
        if budget == 0:
            return NO_GUESSES
        self._drawing.begin_round()
        text, laws = self._text, []
        before = len(text)
        for guess in range(budget):
            rows = session.forward(
                text[-1:], parents=[guess - 1], layers=self._early, rows="last", read=self._drawing.read(1)
            )
            token, _, law = self._drawing.first(rows, len(text) - 1, guess, text)
            text = np.append(text, np.int32(token))
            laws += [] if law is None else [law]
        session.forward(text[-1:], parents=[budget - 1], layers=self._early, rows=())
        guesses = text[before:]
        if not laws:
            return Draft(guesses, layers=self._late)
        return Draft(guesses, laws=np.concatenate(laws), law_rows=np.arange(budget, dtype=np.int32), layers=self._late)

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        self._text = np.append(self._text, np.array(tokens, np.int32))
