"""Guesses from any function of the text so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill.arguments import check_callable
from fastdistill.decode.drafters.draft import Draft, DraftRequest


@dataclass(frozen=True)
class CallableDrafter:
    """Ask a function: function(text, budget) -> the tokens of a chain, or a `Draft`.

    Parameters
    ----------
    function : Callable[[np.ndarray, int], Any]
        is told

        - text: int32 (n,): prompt and output, the seed last
        - budget: most guesses; more are cut off

    Raises
    ------
    ArgumentError
        also when the function returns anything else
    """

    function: Callable[[np.ndarray, int], Any]

    def __post_init__(self) -> None:
        check_callable("function", self.function)

    def start(self, request: DraftRequest) -> CallableDraftRun:
        return CallableDraftRun(self.function, request)


class CallableDraftRun:
    def __init__(self, function: Callable[[np.ndarray, int], Any], request: DraftRequest) -> None:
        self._function, self._text = function, request.prompt

    def propose(self, budget: int) -> Draft:
        given = self._function(self._text.copy(), budget)
        return (given if isinstance(given, Draft) else Draft(given)).first(budget)

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        self._text = np.concatenate([self._text, np.array(tokens, np.int32)])
