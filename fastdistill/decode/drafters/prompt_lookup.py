"""Guesses copied from where the text has been before: no model, no training (Saxena 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastdistill.decode.drafters.draft import NO_GUESSES, Draft, DraftRequest
from fastdistill.kernels.boundary import check_integer
from fastdistill.kernels.find_matches import MOST_MATCHES, find_matches

KINDS = 1 << 10  # a guess's kind is the length of its match, KINDS more for each better match beside it


@dataclass(frozen=True)
class PromptLookup:
    """The end of the text is looked for earlier in prompt and output; what followed there is guessed to follow again.

    max_match      tokens of the end that are compared at most: the longest match wins, then the latest
    min_match      a match of fewer is none
    continuations  how many matches to follow at once, as a tree; None: one, or as many as `Speculative.tree` is wide

    A match that lies near the end is continued periodically.

    raises  ArgumentError
    """

    max_match: int = 32
    min_match: int = 3
    continuations: int | None = None

    def __post_init__(self) -> None:
        check_integer("max_match", self.max_match, 1, KINDS - 1)
        check_integer("min_match", self.min_match, 1, self.max_match)
        if self.continuations is not None:
            check_integer("continuations", self.continuations, 1, MOST_MATCHES)

    def start(self, request: DraftRequest) -> PromptLookupRun:
        return PromptLookupRun(self, request)


class PromptLookupRun:
    def __init__(self, settings: PromptLookup, request: DraftRequest) -> None:
        self._settings = settings
        self._count = settings.continuations or (
            1 if request.tree is None else min(max(request.tree.width, 1), MOST_MATCHES)
        )
        self._text, self._length = np.empty(0, np.int32), 0
        self._append(request.prompt)

    def propose(self, budget: int) -> Draft:
        settings, text = self._settings, self._text[: self._length]
        starts, lengths = find_matches(text, settings.max_match, settings.min_match, self._count)
        count = min(len(starts), budget)
        if count == 0:
            return NO_GUESSES
        share = budget // count
        reach = [budget - share * (count - 1), *[share] * (count - 1)]
        paths = [text[start + np.arange(n) % (len(text) - start)] for start, n in zip(starts, reach, strict=False)]
        return merged(paths, [KINDS * rank + int(length) for rank, length in enumerate(lengths[:count])])

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


def merged(paths: Sequence[np.ndarray], kinds: Sequence[int]) -> Draft:
    """Paths of tokens as one tree in which what they share stands once, with the kind of the first path that has it."""
    if len(paths) == 1:
        return Draft(paths[0], kinds=np.full(len(paths[0]), kinds[0], np.int32))
    nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node
    rows: list[tuple[int, int, int]] = []
    for path, kind in zip(paths, kinds, strict=True):
        node = -1
        for token in path.tolist():
            parent, node = node, nodes.setdefault((node, token), len(nodes))
            if node == len(rows):
                rows.append((token, parent, kind))
    tokens, parents, each = np.array(rows, np.int32).T.copy()
    return Draft(tokens, parents, kinds=each)
