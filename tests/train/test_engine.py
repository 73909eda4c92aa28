"""The engine: native gradients against the reference in float64, and the laws of their bits."""

from __future__ import annotations

import numpy as np

from fastdistill.distill import cross_entropy
from fastdistill.train.batch import batch_of

LENGTHS = [5, 1, 17, 9]


def objective(logits, batch, rows, total_weight):
    return cross_entropy(logits, batch.labels[rows], weights=batch.weights[rows], total_weight=total_weight, out=logits)


def texts(vocab: int, seed: int = 0, lengths=LENGTHS):
    random = np.random.default_rng(seed)
    return batch_of([random.integers(0, vocab, n).astype(np.int32) for n in lengths])
