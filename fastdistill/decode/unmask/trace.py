"""Who was filled when: the record of a text that was unmasked, and pictures of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fastdistill.arguments import check_callable
from fastdistill.decode.unmask.trace_picture import check_picture, save_picture
from fastdistill.errors import ArgumentError
from fastdistill.kernels.fixed_point.lookahead_layout import printable
from fastdistill.messages import short

SHADES = "░▒▓█"  # of a quarter of the probabilities each
FILLED, MASKED, AGAIN = "-", "·", "x"


@dataclass(frozen=True)
class TraceStep:
    """One forward.  Places count from the answer's first.

    places      int32 (k,): filled, or filled anew, ascending
    tokens      int32 (k,): what was put there
    confidence  float32 (k,): probabilities of these tokens
    remasked    int32 (r,): places masked again afterwards
    length      of the answer afterwards
    """

    places: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    remasked: np.ndarray
    length: int


@dataclass
class Trace:
    """Steps of a text, from which every state that it went through can be had again.

    length      of the answer at first
    mask_token  what stands where nothing is filled
    steps       one a forward
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

    def __str__(self) -> str:
        return self.heat_map()

    def heat_map(self, label: Callable[[int], str] | None = None) -> str:
        """A line a step, a column a place: how probable each token was when it was put there; then the step's tokens.

        label  the text of a token; by default its number
        """
        if label is not None:
            check_callable("label", label, "a function from a token to its text")
        shares = [
            f"{shade} {share}"
            for shade, share in zip(SHADES, ("< 25 %", "< 50 %", "< 75 %", "up to 100 %"), strict=True)
        ]
        lines = ["  ".join([*shares, f"{FILLED} filled", f"{MASKED} masked", f"{AGAIN} masked again"])]
        signs = {"filled": FILLED, "masked": MASKED, "again": AGAIN}
        for number, (step, (kinds, confidence)) in enumerate(zip(self.steps, self.cells(), strict=True)):
            shades = [SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)] for share in confidence.tolist()]
            row = [signs.get(kind, shade) for kind, shade in zip(kinds, shades, strict=True)]
            texts = [
                str(token) if label is None else printable(str(label(token))).strip() for token in step.tokens.tolist()
            ]
            lines.append(f"{number:>4}  {''.join(row[: step.length]):<{self.length}}  {' '.join(texts)}".rstrip())
        return "\n".join(lines)

    def save_png(
        self, path: str | os.PathLike[str], label: Callable[[int], str] | None = None, title: str = ""
    ) -> None:
        """The same as a picture: a line a place with its token, a column a forward, dark where a token was probable.

        path    of a .png file in a folder that is there
        label   the text of a token; by default its number
        title   what stands above
        raises  ArgumentError; UnsupportedError without Pillow (extra `demo`); OSError
        """
        path = check_picture(path)
        if label is not None:
            check_callable("label", label, "a function from a token to its text")
        if not isinstance(title, str):
            raise ArgumentError(f"title must be a str, got {short(title)}")
        if not self.steps:
            raise ArgumentError("the trace has no steps: there is nothing to draw")
        save_picture(self, path, label, title)
