"""The text that is being filled: its masks, behind a prompt or within it, in blocks from left to right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdistill.decode.unmask.remasking import Block, Remask
from fastdistill.decode.unmask.rules import Step
from fastdistill.decode.unmask.trace import Trace, TraceStep

if TYPE_CHECKING:
    from fastdistill.decode.unmask.decoder import Unmask


class Canvas:
    """Positions are those of the text; places are those that are to be filled, counted from the first.

    Attributes
    ----------
    positions : int64 (places,)
        where each place lies in the text, ascending
    answer : int32 (places,)
        what stands there: masks at first
    mask : int
        the mask token
    chances : float32 (places,)
        an order by chance, the same in every step; empty where the rule goes by another one
    confidence : float32 (places,)
        log probability of each token as it was filled
    revisions : int32 (places,)
        how often each token was replaced
    number : int
        of the current block
    quotas
        of each block, positions to fill in each step to come; None: that depends on the model alone
    forwards : int
        that have filled places
    trace
        what they filled; None: nobody asked
    """

    def __init__(
        self,
        text: np.ndarray,
        positions: np.ndarray,
        mask: int,
        settings: Unmask,
        chances: np.ndarray,
        aligned: bool = False,
    ) -> None:
        """`text` has masks at `positions`.  `aligned`: of masks that end it, blocks are counted from position 0, so that the first
        one may begin with the tokens before them."""
        length = len(positions)
        self._given, self.positions, self.mask, self.chances = text, positions, mask, chances
        self.answer = np.full(length, mask, np.int32)
        self.confidence = np.full(length, np.nan, np.float32)
        self.revisions = np.zeros(length, np.int32)
        self.number, self._size = 0, settings.block_length or max(length, 1)
        self._first = int(positions[0]) if length else len(text)
        self._before = self._first % self._size if aligned else 0  # tokens of the prompt in the first block
        self.quotas = settings.rule.quotas([len(self.block(number)) for number in range(self.blocks)])
        self.forwards = 0
        self.trace = Trace(length, mask) if settings.trace else None
        self._extra_steps = 0  # of the remasking, in this block
        self._truncated = False

    def text(self, answer: np.ndarray | None = None) -> np.ndarray:
        """All of it, int32 (n,), with the answer as it is or another one."""
        text = self._given.copy()
        text[self.positions] = self.answer if answer is None else answer
        return text

    @property
    def length(self) -> int:
        """Of the text."""
        return len(self._given)

    @property
    def filled(self) -> int:
        """Places that hold a token."""
        return int((self.answer != self.mask).sum())

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-(len(self.answer) + self._before) // self._size) if len(self.answer) else 0

    @property
    def finished(self) -> bool:
        return self.number == self.blocks

    def block(self, number: int) -> range:
        """The places of a block."""
        start = number * self._size - self._before
        return range(max(start, 0), min(start + self._size, len(self.answer)))

    def start(self, number: int) -> int:
        """Of masks that end the text: the position where a block begins, with the prompt's tokens that lie in it."""
        return self._first - self._before + number * self._size

    @property
    def places(self) -> range:
        """Those of the current block."""
        return self.block(self.number)

    @property
    def quotas_left(self) -> list[int] | None:
        """Of the current block: see `quotas`."""
        return None if self.quotas is None else self.quotas[self.number]

    def next_block(self) -> bool:
        """Go on to the next block, if all of the current one is filled; whether it was."""
        places = self.places
        if self.finished or (self.answer[places.start : places.stop] == self.mask).any():
            return False
        self.number, self._extra_steps = self.number + 1, 0
        return True

    def as_remasking_sees(self) -> Block:
        """The current block."""
        places = slice(self.places.start, self.places.stop)
        filled = self.answer[places] != self.mask
        if self._truncated and self.number == self.blocks - 1:
            filled[-1] = False  # what was cut off cannot come back, so the token that ended the answer stands
        return Block(filled, self.confidence[places], self.revisions[places], self.quotas_left, self._extra_steps)

    def fill(self, step: Step) -> None:
        self.answer[step.places], self.confidence[step.places] = step.tokens, step.confidence

    def mask_again(self, remask: Remask) -> np.ndarray:
        """Take tokens of the current block back, as the remasking says; their places, int32 (r,)."""
        block = self.as_remasking_sees()
        again = remask.again(block)
        self._extra_steps = block.extra_steps
        if again is None:
            return np.empty(0, np.int32)
        places = self.places.start + np.flatnonzero(again).astype(np.int32)
        self.answer[places] = self.mask
        return places

    def truncate(self, places: int) -> None:
        """Cut the text off behind so many places."""
        self._given = self._given[: self.positions[places - 1] + 1]
        self.positions, self.answer = self.positions[:places], self.answer[:places]
        self.confidence, self.revisions = self.confidence[:places], self.revisions[:places]
        self._truncated = True

    def record(self, places: np.ndarray, tokens: np.ndarray, again: np.ndarray) -> None:
        """Count a forward that has filled places with tokens, and then masked some again."""
        self.forwards += 1
        if self.trace is not None:
            places, confidence = places.astype(np.int32), np.exp(self.confidence[places])
            self.trace.steps.append(TraceStep(places, tokens, confidence, again, len(self.answer)))
