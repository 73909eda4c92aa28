"""The rows of a lookahead step: seed, window and guesses as one tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels import LookaheadLayout
from fastdistill.reference.fixed_point.lookahead_layout import lookahead_layout as reference_lookahead_layout
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import same

KINDS = "tokens", "tokens", "counts", "window", "guesses"


def cases(draw: Choices, kinds: Sequence[str] = KINDS) -> Case:
    """Tokens, counts, tokens beside a count of 0.

    Windows and guesses of few different tokens, so that much is merged; some of the guesses are paths of the window's tokens.
    """
    ngram = draw.choice([2, 3, 4, 6])
    levels = draw.integer(0, ngram - 1)
    columns, count = draw.choice([0, 1, 2, 5]), draw.choice([0, 1, 2, 7])
    vocabulary, random = draw.choice([1, 2, 3, 1000]), draw.generator()
    window: Any = random.integers(0, vocabulary, (levels, columns)).astype(np.int32)
    guesses: Any = random.integers(0, vocabulary, (count, ngram - 1)).astype(np.int32)
    if levels and columns >= ngram - 1:
        guesses[::2] = window[0, : ngram - 1]
    kind = draw.choice(kinds)
    if kind in ("counts", "guesses"):
        window = columns if kind == "counts" else 0
    if kind in ("counts", "window"):
        guesses = count if kind == "counts" else 0
    return {"window": window, "ngram": ngram, "guesses": guesses, "seed": draw.integer(-1, 9)}


def check(case: Case, function: Callable[..., Any] = kernels.lookahead_layout) -> Any:
    """All parts equal."""
    got = function(**case)
    for name, found, want in zip(LookaheadLayout._fields, got, reference_lookahead_layout(**case), strict=True):
        same(name, found, want, np.int32)
    return got
