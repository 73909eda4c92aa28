"""A user's own loop: a linear student that plain NumPy trains on a real model's logits, through `head_loss` alone."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastdistill as fd
from fastdistill import distill

PASSAGE = Path(__file__).parents[2] / "bench/lib/passage.txt"


@pytest.mark.model
@pytest.mark.parametrize("kind", ["forward_kl", "acceptance_hybrid"])
def test_a_linear_student_comes_to_agree_with_the_real_model(smollm2, kind):
    """Its hidden state is a row of a table, by the last token alone: as much as can be learned from that is."""
    model = fd.load(smollm2)
    tokens = np.array(model.tokenizer.encode(PASSAGE.read_text())[:200])
    teacher = model.logits(tokens)
    table = np.random.default_rng(0).standard_normal((model.vocab_size, 32), dtype=np.float32)
    head = np.zeros((model.vocab_size, 32), np.float32)
    agreements, values = [], []
    for _ in range(12):
        agreements.append(distill.acceptance(table[tokens] @ head.T, teacher).mean())
        loss = distill.head_loss(table[tokens], head, kind, teacher=teacher)
        values.append(loss.value)
        head -= 10 * loss.gradient.head
        np.subtract.at(table, tokens, 10 * loss.gradient.hidden)
    assert all(later < earlier for earlier, later in itertools.pairwise(values))
    assert agreements[-1] > 3 * agreements[0], agreements
    best = (table[tokens] @ head.T).argmax(axis=1) == teacher.argmax(axis=1)
    assert best.mean() > 0.3


def test_no_framework_comes_with_it():
    """Nothing of torch, JAX or TensorFlow is imported, nor are the runtime and models."""
    program = (
        "import sys, numpy as np; from fastdistill import distill; s = np.zeros((2, 8), np.float32); distill.jsd(s, s + 1); "
        "distill.head_loss(s, np.zeros((9, 8), np.float32), teacher=np.zeros((2, 9), np.float32)); "
        "wrong = [m for m in sys.modules if m.split('.')[0] in ('torch', 'jax', 'tensorflow') or m in ('fastdistill.runtime', 'fastdistill.models')]; "
        "sys.exit(f'imported: {wrong}' if wrong else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
