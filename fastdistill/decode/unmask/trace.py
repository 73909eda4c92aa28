"""Who was filled when: the record of a text that was unmasked, and pictures of it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fastdistill.arguments import check_callable, check_integer, check_path
from fastdistill.errors import ArgumentError
from fastdistill.kernels.lookahead_layout import printable

SHADES = "░▒▓█"  # of a quarter of the probabilities each
FILLED, MASKED, AGAIN = "-", "·", "x"


@dataclass(frozen=True)
class TraceStep:
    """One forward.  Places count from the answer's first."""

    places: np.ndarray  # int32 (k,): filled, or filled anew, ascending
    tokens: np.ndarray  # int32 (k,)
    confidence: np.ndarray  # float32 (k,): probabilities
    remasked: np.ndarray  # int32: masked again afterwards
    length: int  # of the answer afterwards


@dataclass
class Trace:
    """Steps of a text, from which every state that it went through can be had again."""

    length: int  # of the answer at first
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

    def __str__(self) -> str:
        return self.heat_map()

    def heat_map(self, label: Callable[[int], str] | None = None) -> str:
        """A line a step, a column a place: how probable each token was when it was put there; then the step's tokens.

        label  the text of a token; by default its number
        """
        if label is not None:
            check_callable("label", label, "a function from a token to its text")
        lines = [
            f"{SHADES[0]} < 25 %  {SHADES[1]} < 50 %  {SHADES[2]} < 75 %  {SHADES[3]} up to 100 %  {FILLED} filled  {MASKED} masked  {AGAIN} masked again"
        ]
        filled = np.zeros(self.length, bool)
        for number, step in enumerate(self.steps):
            row = [FILLED if here else MASKED for here in filled]
            for place, confidence in zip(step.places.tolist(), step.confidence.tolist(), strict=True):
                row[place] = SHADES[min(int(confidence * len(SHADES)), len(SHADES) - 1)]
            for place in step.remasked.tolist():
                row[place] = AGAIN
            filled[step.places] = True
            filled[step.remasked] = False
            filled[step.length :] = False
            texts = [
                str(token) if label is None else printable(str(label(token))).strip() for token in step.tokens.tolist()
            ]
            lines.append(f"{number:>4}  {''.join(row[: step.length]):<{self.length}}  {' '.join(texts)}".rstrip())
        return "\n".join(lines)

    def save_png(self, path: str | os.PathLike[str], cell: int = 16) -> None:
        """The same as a picture: dark where a token was certain, red where it was masked again, white where nothing is yet.

        cell  pixels of a square
        raises  ArgumentError, OSError
        """
        path = check_path("path", path)
        check_integer("cell", cell, 1, 256)
        if not self.steps:
            raise ArgumentError("the trace has no steps: there is nothing to draw")
        colours = np.full((len(self.steps), self.length, 3), 255, np.uint8)
        filled = np.zeros(self.length, bool)
        for number, step in enumerate(self.steps):
            colours[number, filled] = (222, 226, 230)
            pale, dark = np.array([198, 219, 239]), np.array([8, 48, 107])
            share = step.confidence.astype(np.float64)[:, None]
            colours[number, step.places] = np.rint(pale + (dark - pale) * share).astype(np.uint8)
            colours[number, step.remasked] = (214, 39, 40)
            filled[step.places] = True
            filled[step.remasked] = False
            filled[step.length :] = False
        pixels = colours.repeat(cell, axis=0).repeat(cell, axis=1)
        if cell > 2:  # lines between the squares
            pixels[::cell] = pixels[:, ::cell] = 255
        with open(path, "wb") as file:
            file.write(_png(pixels))


def _png(pixels: np.ndarray) -> bytes:
    """uint8 (height, width, 3) as a PNG file (ISO/IEC 15948): one IDAT chunk, no filters."""
    height, width, _ = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes()))
        + chunk(b"IEND", b"")
    )
