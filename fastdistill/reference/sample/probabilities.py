"""What `kernels.probabilities` means."""

from __future__ import annotations

import numpy as np

from fastdistill.reference.sample.sample import processed


def probabilities(logits, sampler, *, seen=None, allowed=None):
    """The law (rows, vocab) that `sample` draws from: the softmax of x over the survivors; a Dirac at temperature 0."""
    law = np.zeros(logits.shape)
    for row in range(len(logits)):
        x, survives, _ = processed(logits, sampler, seen, allowed, row)
        if np.float32(sampler.temperature):
            law[row, survives] = np.exp(x[survives].astype(np.float64))
            law[row] /= law[row].sum()
        else:
            law[row, x.argmax()] = 1
    return law
