"""Several steps of a schedule from one forward: the next ones are guessed, and checked (FreeDave, Wu & Zhang 2025)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fastdistill.decode.unmask.canvas import Canvas
from fastdistill.decode.unmask.rules import Step
from fastdistill.kernels.unmask.draft_and_verify import draft_and_verify
from fastdistill.kernels.unmask.unmask_select import unmask_select

if TYPE_CHECKING:
    from fastdistill.decode.unmask.decoder import Unmask


class Drafts:
    """In place of `Filling`, where the rule is a schedule: a forward runs the text and guesses at what the next steps make of it.

    Parameters
    ----------
    most : int
        versions of the text in one forward
    """

    def __init__(self, settings: Unmask, canvas: Canvas, most: int) -> None:
        self._rule, self._canvas, self._most = settings.rule.selection, canvas, most
        self._crosses = settings.attention == "full" and settings.cache == "none"  # into blocks after the current one
        self._schedule: list[tuple[int, int, int]] = []  # steps to come: places [start, end), how many of them to fill
        self._answers = [canvas.answer]  # to run next: the certain one, and guesses at those after it
        for number in range(canvas.blocks if self._crosses else min(canvas.blocks, 1)):
            self._schedule += self._steps_of(number)

    @property
    def reach(self) -> int:
        """As of `Filling`."""
        return self._canvas.places.stop

    def texts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """As of `Filling`."""
        texts = []
        for number, answer in enumerate(self._answers):
            steps = self._schedule[number : number + self._most]
            start, end = (steps[0][0], steps[-1][1]) if steps else (0, 0)
            wanted = start + np.flatnonzero(answer[start:end] == self._canvas.mask)
            texts.append((self._canvas.text(answer), wanted))
        return texts

    def take(self, steps: list[Step]) -> None:
        """As many steps of the schedule as the drafts have got right, and one more."""
        canvas, rule, states = self._canvas, self._rule, np.stack(self._answers)
        tokens = np.full(states.shape, canvas.mask, np.int32)
        scores, confidence = (np.full(states.shape, np.nan, np.float32) for _ in range(2))
        for number, step in enumerate(steps):
            tokens[number, step.places], confidence[number, step.places] = step.tokens, step.confidence
            if rule.score == "given":
                scores[number, step.places] = canvas.chances[step.places]
            else:
                masked = np.ones(len(step.places), bool)
                scores[number, step.places] = unmask_select(step.statistics, masked, rule).confidence
        schedule = np.array(self._schedule[: len(steps) - 1 + self._most], np.int32).reshape(-1, 3)
        result = draft_and_verify(states, tokens, scores, schedule, canvas.mask, self._most)
        path = [*states[: result.accepted + 1], *result.drafts[:1]]
        for number, (before, after) in enumerate(pairwise(path)):
            new = np.flatnonzero((before == canvas.mask) & (after != canvas.mask))
            canvas.confidence[new] = confidence[number, new]
        new = np.flatnonzero((canvas.answer == canvas.mask) & (path[-1] != canvas.mask))
        canvas.answer[:] = path[-1]
        self._schedule = self._schedule[len(path) - 1 :]
        self._answers = list(result.drafts) if len(result.drafts) else path[-1:]
        canvas.record(new, canvas.answer[new], np.empty(0, np.int32))

    def begin_block(self) -> None:
        if not self._crosses and not self._canvas.finished:
            self._schedule = self._steps_of(self._canvas.number)

    def _steps_of(self, number: int) -> list[tuple[int, int, int]]:
        assert self._canvas.quotas is not None  # drafts go with a schedule
        block = self._canvas.block(number)
        return [(block.start, block.stop, quota) for quota in self._canvas.quotas[number]]
