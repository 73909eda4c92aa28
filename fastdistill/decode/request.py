"""What every decoder is asked for, and what it has to offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastdistill.kernels.sample import Sampler
from fastdistill.runtime.read import Read, Rows


@dataclass(frozen=True)
class Request:
    """One text to write, in tokens; the same for every decoder."""

    prompt: np.ndarray  # int32 (n,), n >= 1
    cached: int  # how many of them the session has committed already, < n
    sampler: Sampler
    allowed: np.ndarray | None = None  # uint32 (words,): tokens that may be drawn
    allowed_early: np.ndarray | None = None  # the same for the first min_tokens tokens: without those that end the text
    min_tokens: int = 0
    want_logits: bool = False

    def read(self, emitted: Sequence[int] | np.ndarray) -> Read:
        """What to read for rows that draw the tokens number emitted[0], emitted[1], ... of the text."""
        masks = [self.allowed_early if number < self.min_tokens else self.allowed for number in emitted]
        if all(mask is None for mask in masks):
            return Read(sampler=self.sampler, logits=self.want_logits)
        words = next(mask for mask in masks if mask is not None).size
        every = np.full(words, 0xFFFFFFFF, np.uint32)
        allowed = np.stack([every if mask is None else mask for mask in masks])
        return Read(sampler=self.sampler, allowed=allowed, logits=self.want_logits)


class Run(Protocol):
    """One text being written.  The loop asks for a forward, runs it, and hands the rows back."""

    def forward(self) -> Mapping[str, Any]:
        """Arguments of the next Session.forward."""

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        """New tokens, in order, each with the row that it was drawn from; none while the prompt is being read."""


class Decoder(Protocol):
    """Frozen settings; `start` begins one text in a session whose cache holds request.prompt[: request.cached]."""

    def start(self, session: Any, request: Request) -> Run: ...
