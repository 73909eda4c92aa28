"""Guesses copied from where the text has been before: no model, no training (Saxena 2023)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastdistill.arguments import check_integer
from fastdistill.decode.drafters.draft import NO_GUESSES, Draft, DraftRequest, merged
from fastdistill.kernels.verify.find_matches import MOST_MATCHES, find_matches

MOST_MATCH = 1023

# How often copied tokens are right depends on how much alike stands before them.  The kind of a guess is that of its match's length;
# guesses from any but the best match are of none.  Of each kind: the shortest length, and how many guesses are taken to have been
# right and wrong.  From a search over texts of a small model on prompts that make it copy and on others.
EDGES = (1, 2, 4, 8, 16, 32)
PRIORS = ((1.0, 3.0), (4.0, 3.0), (2.0, 1.0), (8.0, 1.0), (8.0, 0.5), (8.0, 0.2))


@dataclass(frozen=True)
class PromptLookup:
    """The end of the text is looked for earlier in prompt and output; what followed there is guessed to follow again.

    Parameters
    ----------
    max_match : int, default 32
        tokens of the end that are compared at most: the longest match wins, then the latest
    min_match : int, optional
        a match of fewer is none; None: 3, or max_match where that is less
    continuations : int, optional
        how many matches to follow at once, as a tree; None: one, or as many as `Speculative.tree` is wide

    Raises
    ------
    ArgumentError

    Notes
    -----
    A match that lies near the end is continued periodically.
    What a model with an encoder has read stands before its text.
    """

    max_match: int = 32
    min_match: int | None = None
    continuations: int | None = None

    priors: ClassVar[tuple[tuple[float, float], ...]] = PRIORS
    leaves_session: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("max_match", self.max_match, 1, MOST_MATCH)
        if self.min_match is not None:
            check_integer("min_match", self.min_match, 1, self.max_match)
        if self.continuations is not None:
            check_integer("continuations", self.continuations, 1, MOST_MATCHES)

    @property
    def least(self) -> int:
        """The shortest match that is one."""
        return min(3, self.max_match) if self.min_match is None else self.min_match

    def start(self, request: DraftRequest) -> PromptLookupRun:
        return PromptLookupRun(self, request)


class PromptLookupRun:
    def __init__(self, settings: PromptLookup, request: DraftRequest) -> None:
        self._settings = settings
        self._count = settings.continuations or (
            1 if request.tree is None else min(max(request.tree.width, 1), MOST_MATCHES)
        )
        self._text, self._length = np.empty(0, np.int32), 0
        self._append(request.source)
        self._append(request.prompt)

    def propose(self, budget: int) -> Draft:
        settings, text = self._settings, self._text[: self._length]
        starts, lengths = find_matches(text, settings.max_match, settings.least, self._count)
        count = min(len(starts), budget)
        if count == 0:
            return NO_GUESSES
        share = budget // count
        reach = [budget - share * (count - 1), *[share] * (count - 1)]
        paths = [text[start + np.arange(n) % (len(text) - start)] for start, n in zip(starts, reach, strict=False)]
        kinds = [bisect_right(EDGES, int(lengths[0])) - 1, *[-1] * (count - 1)]
        return merged(paths, [np.full(n, kind, np.int32) for n, kind in zip(reach, kinds, strict=True)])

    def propose_after(self, tokens: Sequence[int], budget: int) -> list[list[int]]:
        """Guesses at what follows the text and these tokens, which have been guessed: `DraftRun`."""
        length = self._length
        self._append(np.array(tokens, np.int32))
        text, self._length = self._text[: self._length], length
        starts, _ = find_matches(text, self._settings.max_match, 1, MOST_MATCHES)
        return [text[start : start + budget].tolist() for start in starts]

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        self._append(np.array(tokens, np.int32))

    def _append(self, tokens: np.ndarray) -> None:
        end = self._length + len(tokens)
        if end > len(self._text):
            longer = np.empty(2 * end, np.int32)
            longer[: self._length] = self._text[: self._length]
            self._text = longer
        self._text[self._length : end] = tokens
        self._length = end
