"""A target writes what its draft learns from, in its share of the minutes; the texts lie in files, lot by lot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from fastdistill.errors import DataError
from fastdistill.train.own_texts.prompts import LEAST_ROOM, prompts_of
from fastdistill.train.own_texts.settings import DraftSettings
from fastdistill.train.own_texts.target import Target
from fastdistill.train.own_texts.texts import HELD_OUT, Texts, counted
from fastdistill.train.own_texts.work import WorkTime, writing_to
from fastdistill.train.own_texts.writer import TextWriter, Written, gathered

LOT = 64  # texts that are kept together; each third lot is drawn, the others are greedy


class Lots:
    """Texts in a folder, in the order of their prompts: each is a function of the settings and of its number.

    Parameters
    ----------
    settings : DraftSettings
    target : Target
    place : Path
        the folder
    time : WorkTime
        of the work so far
    max_length : int, optional
        most tokens of a prompt and its text; the model's positions are, in any case

    Raises
    ------
    CheckpointError
        where what lies there is damaged
    """

    def __init__(
        self, settings: DraftSettings, target: Target, place: Path, time: WorkTime, max_length: int | None = None
    ) -> None:
        self._settings, self._target, self._place, self._time = settings, target, place, time
        self._max_length, self._taps = max_length, settings.reads(target.plan)
        with writing_to(place):
            place.mkdir(exist_ok=True)
        self._files = sorted(place.glob("*.safetensors"))
        self._done = place / "done"
        counts = [counted(file) for file in self._files]
        self.texts, self.tokens = (sum(each) for each in zip((0, 0), *counts, strict=True))

    def write(self, writing: Callable[[float, int], None], stop: Callable[[], bool]) -> bool:
        """Write until the time is over; whether that is done: False where it was asked to stop, which keeps what is whole.

        Parameters
        ----------
        writing : Callable[[float, int], None]
            called with the share that is written, and how many tokens that is
        stop : Callable[[], bool]
            asked between two forwards whether to end

        Raises
        ------
        CheckpointError
        FastDistillError
            where no text of the first lot could be written: what failed first
        """
        if self._done.exists():
            return True
        settings, lot = self._settings, list[Written]()
        asked, most = self._asked(), settings.max_tokens
        writer = TextWriter(self._target, settings.seed, most, max_length=self._max_length, taps=self._taps)
        while (share := self._share(len(lot))) < 1:
            if stop():
                self._save(lot)
                return False
            if writer.waiting < LOT and (lines := next(asked, None)) is not None:
                writer.ask(*lines)
            if not writer.waiting:
                break  # there are no more prompts
            lot += (come := writer.step())
            if come:
                writing(share, self.tokens + sum(len(text.result.tokens) for text in lot))
            if len(lot) >= LOT:
                self._save(lot)
                lot = []
        self._save(lot + writer.cut())
        writing(1.0, self.tokens)
        with writing_to(self._place):
            self._done.touch()
        return True

    def read(self, states: bool = True) -> Texts:
        """All of them, or without the states, which are most of the memory.

        Raises
        ------
        CheckpointError
        DataError
            where there is nothing to learn from
        """
        texts = Texts.load(*self._files, states=states) if self._files else None
        if texts is None or not (np.diff(texts.starts) > 1).any():
            raise DataError(
                f"{self._settings.model}: {self.texts} texts have come, of which none has two tokens: a prompt must leave room for "
                f"{LEAST_ROOM} tokens of the model's {self._target.plan.max_positions}"
            )
        return texts

    def _asked(self) -> Iterator[tuple[list[list[int]], range, float]]:
        """What is still to be written, lot by lot: prompts, their numbers, the temperature."""
        settings, begin = self._settings, self.texts
        prompts = islice(prompts_of(self._target, settings.prompts, settings.seed, self._max_length), begin, None)
        while some := [*islice(prompts, LOT - begin % LOT)]:
            temperature = settings.temperature if begin // LOT % 3 == 2 else 0.0
            yield some, range(begin, begin := begin + len(some)), temperature

    def _share(self, more: int) -> float:
        """Of the work: of the time, and of the fewest texts."""
        seconds = 60 * self._settings.minutes * self._settings.writing
        return min(self._time.seconds / seconds, (self.texts + more) / HELD_OUT)

    def _save(self, lot: list[Written]) -> None:
        self._time.keep()
        if not lot:
            return
        errors = [text.result.error for text in lot if text.result.error is not None]
        if not self.texts and len(errors) == len(lot):
            raise errors[0]
        texts = gathered(lot, self._target.plan, self._taps)
        file = self._place / f"{len(self._files) + 1:06}.safetensors"
        with writing_to(self._place):
            texts.save(file)
        self._files.append(file)
        self.texts, self.tokens = self.texts + len(texts), self.tokens + len(texts.tokens)
