"""Who was filled when: the record of a text that was unmasked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class TraceStep:
    """One forward. Places count from the answer's first.

    Attributes
    ----------
    places : int32 (k,)
        filled, or filled anew, ascending
    tokens : int32 (k,)
        what was put there
    confidence : float32 (k,)
        probabilities of these tokens
    remasked : int32 (r,)
        places masked again afterwards
    length : int
        of the answer afterwards
    """

    places: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    remasked: np.ndarray
    length: int


@dataclass
class Trace:
    """Steps of a text, from which every state that it went through can be had again; `show.trace` draws it.

    Attributes
    ----------
    length : int
        of the answer at first
    mask_token : int
        what stands where nothing is filled
    steps : list[TraceStep]
        one a forward
    """

    length: int
    mask_token: int
    steps: list[TraceStep] = field(default_factory=list)

    def states(self) -> np.ndarray:
        """The answer before the first step and after each, int32 (steps + 1, length); what has been cut off stays masked."""
        state = np.full(self.length, self.mask_token, np.int32)
        states = [state.copy()]
        for step in self.steps:
            state[step.places] = step.tokens
            state[step.remasked] = self.mask_token
            state[step.length :] = self.mask_token
            states.append(state.copy())
        return np.stack(states)

    def filled_at(self) -> np.ndarray:
        """The step that each place got its token in, int32 (length,); -1: none."""
        number = np.full(self.length, -1, np.int32)
        for i, step in enumerate(self.steps):
            number[step.places] = i
            number[step.remasked] = -1
            number[step.length :] = -1
        return number

    def cells(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Each step: what every place is, and how probable new tokens were, float32 (length,).

        A place is "new", "filled" before, "masked" or masked "again".
        """
        filled = np.zeros(self.length, bool)
        for step in self.steps:
            kinds = np.where(filled, "filled", "masked")
            kinds[step.places], kinds[step.remasked] = "new", "again"
            confidence = np.zeros(self.length, np.float32)
            confidence[step.places] = step.confidence
            yield kinds.tolist(), confidence
            filled[step.places] = True
            filled[step.remasked] = False
            filled[step.length :] = False
