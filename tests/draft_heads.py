"""Draft heads of the tests' small models."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.models.draft_head import EAGLE, MEDUSA, SHARES, TABLE, DraftHead, SavedHead
from tests.small_models import network

_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)


TAPPED = "eagle, tapped"
FORMS = {
    EAGLE: {"intermediate_size": 24},
    TAPPED: {"intermediate_size": 24, "taps": ("layers.0",)},
    MEDUSA: {"heads": 4},
}


def head_for(plan, draft_vocab_size: int, form: str = EAGLE, seed: int = 0, spread: float = 0.3) -> SavedHead:
    """Random weights, of a model's sizes, in one of FORMS."""
    table = next(op.weights[0] for op in plan.ops if op.kind == "embedding")
    vocab, width = plan.weights[table].shape
    sizes = FORMS[form]
    shape = DraftHead(plan.hidden_size, width, vocab, min(draft_vocab_size, vocab), **sizes)
    chance = np.random.default_rng(seed)
    tensors = {
        name: Tensor(name, "f32", weight.shape, chance.normal(0, spread, weight.shape).astype(np.float32))
        for name, weight in shape.plan().weights.items()
        if name != TABLE
    }
    d2t = np.sort(chance.permutation(vocab)[: shape.draft_vocab_size]).astype(np.int32)
    return SavedHead(shape, d2t, tensors, ((2.0, 1.0),) * (len(SHARES) + 1), {})


def random_head(name: str, form: str = EAGLE) -> Path:
    """The folder of one for a small model, that guesses half of its tokens."""
    return _made(name, form)


@cache
def _made(name: str, form: str) -> Path:
    plan = network(name, "f32", threads=1).plan
    folder = Path(_FOLDER.name) / f"{name} {form}"
    head_for(plan, plan.vocab_size // 2, form).save(folder)
    return folder
