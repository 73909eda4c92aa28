"""How often a draft head's guesses are right: measured on texts that it has not seen, and what its drafter expects from then on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdistill.kernels.distill.top_k import top_k
from fastdistill.kernels.forward.row_statistics import row_statistics
from fastdistill.models.draft_head import SHARES, kind_of
from fastdistill.train.draft_head.engine import HeadBatch, HeadEngine
from fastdistill.train.draft_head.head_texts import HeadTexts
from fastdistill.train.own_texts.guessed import RANKS, Guessed


@dataclass(frozen=True)
class Acceptance(Guessed):
    """Of guesses along texts, where all guesses before them were right.

    Attributes
    ----------
    ranks : float64 (steps, RANKS)
        how often the token was the guess of each rank
    counts : int64 (kinds, 2)
        right and wrong guesses of each share that the head gave them: kinds of `HeadDrafter`
    """

    counts: np.ndarray


def acceptance(
    engine: HeadEngine, texts: HeadTexts, d2t: np.ndarray, *, places: np.ndarray | None = None
) -> Acceptance:
    """Measure it at places of texts.

    Parameters
    ----------
    engine : HeadEngine
    texts : HeadTexts
    d2t : int32 (draft_vocab_size,)
        ascending, the target's token for each that the head can guess
    places : int64 (n,), optional
        None: all
    """
    found, asked = np.zeros((engine.steps, RANKS)), np.zeros(engine.steps)
    counts = np.zeros((len(SHARES) + 1, 2), np.int64)
    places = texts.places if places is None else places
    for begin in range(0, len(places), engine.rows):
        at = places[begin : begin + engine.rows]
        batch = HeadBatch.of(engine.shape, texts, at, engine.steps)
        reached = np.ones(len(at), bool)
        for step, logits in enumerate(engine.logits(batch)):
            reached &= batch.weights[step] > 0
            token = texts.tokens[np.minimum(at + step + 1, len(texts.tokens) - 1)]
            guesses, values = top_k(logits, RANKS)
            right = d2t[guesses] == token[:, None]
            shares = np.exp(values - row_statistics(logits).log_sum_exp[:, None])
            asked[step] += reached.sum()
            found[step] += right[reached].sum(axis=0)
            kinds = kind_of(shares[reached])
            np.add.at(counts, (kinds, (~right[reached]).astype(int)), 1)
            reached &= right[:, 0]
    return Acceptance(found / np.maximum(asked, 1)[:, None], counts)
