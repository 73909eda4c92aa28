"""The best continuations of a tree's frontier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.verify.expand_tree import expand_tree as reference_expand_tree
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import holds, near, within

WIDTHS = [1, 2, 15, 16, 17, 33, 255, 256, 257, 2000]  # around lanes and chunks, and one long row


def cases(draw: Choices) -> Case:
    """Rows apart and alike, rounded ones with many ties, some of it banned; more wanted than there is, too."""
    frontier, vocab, random = draw.integer(1, 5), draw.choice(WIDTHS), draw.generator()
    z = random.standard_normal((frontier, vocab)).astype(np.float32) * np.float32(draw.choice([0.0, 1e-3, 1.0, 30.0]))
    if draw.boolean():
        z = np.round(z)
    z[:, 1:][random.random((frontier, vocab - 1)) < draw.choice([0.0, 0.7, 1.0])] = -np.inf
    scores = -random.exponential(draw.choice([0.0, 2.0]), frontier).astype(np.float32)
    return {"logits": z, "scores": scores, "count": draw.choice([1, 2, 10, 64, 20_000])}


def check(case: Case, function: Callable[..., Any] = kernels.expand_tree) -> Any:
    """A score rounds twice; log sum exp rounds V / 16 + 12 times (row_statistics), and once more.

    So the scores fall as the reference's do, and each is that of its own token; which of two that round alike is first is not said.
    """
    z, scores = case["logits"], case["scores"]
    got, (_, _, want) = function(**case), reference_expand_tree(**case)
    tokens, rows, found = got
    within("rows", rows, z.shape[0])
    within("tokens", tokens, z.shape[1])
    most = np.abs(np.where(np.isfinite(z), z, 0)).max() + 10
    doubt = (z.shape[1] / 16 + 12 + 3 * (most + np.abs(scores).max())) * 2.0**-24
    near("scores", found, want, doubt, np.float32)
    everything = reference_expand_tree(z, scores, z.size)
    own = np.full(z.shape, -np.inf)
    own[everything[1], everything[0]] = everything[2]
    near("scores of the tokens", found, own[rows, tokens], doubt)
    chosen = np.asarray(rows, np.int64) * z.shape[1] + tokens
    holds(len(np.unique(chosen)) == len(chosen), "a token of a row is there twice")
    return got
