"""What becomes of a forward's predictions: the rule fills some, the remasking takes some back, an end of text cuts the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdistill.decode.unmask.canvas import Canvas
from fastdistill.decode.unmask.rules import Step
from fastdistill.errors import ArgumentError
from fastdistill.kernels.unmask.unmask_select import unmask_select

if TYPE_CHECKING:
    from fastdistill.decode.unmask.decoder import Unmask


class Filling:
    """One step a forward, which runs one text."""

    def __init__(self, settings: Unmask, canvas: Canvas, ends: frozenset[int]) -> None:
        self._rule, self._remask, self._end, self._max_steps = (
            settings.rule,
            settings.remask,
            settings.end,
            settings.max_steps,
        )
        self._canvas, self._ends = canvas, list(ends)

    @property
    def reach(self) -> int:
        """How many places, from the first, may be filled in the next forward; in the last one permitted, all may."""
        canvas, last = self._canvas, self._canvas.blocks - 1
        return canvas.block(last if self._is_last else min(canvas.number + self._rule.lookahead, last)).stop

    def texts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """What to run next, and of which places predictions are wanted: int32 (n,), int64 (k,)."""
        canvas = self._canvas
        start = canvas.places.start
        wanted = canvas.answer[start : self.reach] == canvas.mask
        if self._remask is not None:
            again = self._remask.rereads(canvas.as_remasking_sees())
            if again is not None:
                wanted[: len(again)] |= again
        return [(canvas.text(), start + np.flatnonzero(wanted))]

    def take(self, steps: list[Step]) -> None:
        """Fill what the rule chooses, mask again what the remasking does, cut off what is behind the end."""
        (step,), canvas, remask, is_last = steps, self._canvas, self._remask, self._is_last
        masked = canvas.answer[step.places] == canvas.mask
        fresh = step.part(masked)
        quota = canvas.quotas_left.pop(0) if canvas.quotas_left else None
        everything = is_last or (remask is not None and remask.fills_block)
        chosen = fresh.part(np.ones(len(fresh.places), bool) if everything else self._choose(fresh, quota))
        if (chosen.tokens == canvas.mask).any():  # banned from what is drawn: only a rule can have put it there
            raise ArgumentError(f"{type(self._rule).__name__} fills a position with the mask token, {canvas.mask}")
        canvas.fill(chosen)
        new, again = chosen.places, np.empty(0, np.int32)
        if remask is not None:
            filled = step.part(~masked)
            replaced = filled.part(remask.replaces(filled, canvas.answer[filled.places]))
            canvas.revisions[replaced.places] += 1
            canvas.fill(replaced)
            new = np.union1d(new, replaced.places)
        if self._end.truncate_at is not None:
            new = self._truncate(fresh, new)
        tokens = canvas.answer[new]
        if remask is not None and not is_last:
            again = canvas.mask_again(remask)
        canvas.record(new, tokens, again)

    def begin_block(self) -> None:
        """Nothing is known of it beforehand."""

    @property
    def _is_last(self) -> bool:
        """Whether the forward under way, or else the next one, is the last permitted one."""
        return self._max_steps is not None and self._canvas.forwards >= self._max_steps - 1

    def _choose(self, step: Step, quota: int | None) -> np.ndarray:
        """Which of the masked places to fill, bool (n,)."""
        rule, canvas, statistics = self._rule, self._canvas, step.statistics
        score = rule.selection.score
        if rule.lookahead:  # exploring begins within the block
            entropy = np.where(step.places < step.block.stop, statistics.entropy, -np.inf)
            statistics = statistics._replace(entropy=entropy.astype(np.float32))
        return unmask_select(
            statistics,
            np.ones(len(step.places), bool),
            rule.selection,
            quota=None if quota is None else np.array(quota, np.int32),
            log_probs=step.confidence if score == "confidence" else None,
            scores=canvas.chances[step.places] if score == "given" else None,
            bias=self._end.discounts(step, self._ends, canvas.filled, len(canvas.answer)),
            also=rule.also(step),
        ).chosen

    def _truncate(self, step: Step, new: np.ndarray) -> np.ndarray:
        """End the answer with the first end of text that is filled, or proposed with probability enough; the new places there are."""
        canvas, ends = self._canvas, [token for token in self._ends if token != self._canvas.mask]
        proposed = self._end.proposed(step, ends)
        places = [*np.flatnonzero(np.isin(canvas.answer, ends)).tolist(), *proposed.places.tolist()]
        if not places:
            return new
        place = min(places)
        if canvas.answer[place] == canvas.mask:
            canvas.fill(proposed.part(proposed.places == place))
            new = np.union1d(new, [place])
        canvas.truncate(place + 1)
        return new[new <= place]
