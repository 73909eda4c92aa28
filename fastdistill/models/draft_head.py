"""A draft head: what guesses the tokens after the next from the hidden state that gave the next one.

A cell reads the state h of a row and the token drawn from it, and gives an estimate of the state after that token: what
the target's head would read there.  From that the token after it is guessed, over the most frequent tokens alone, and
the cell goes on from its own estimate (Li et al. 2024, EAGLE, without attention; Cheng et al. 2024, ReDrafter).

    x = E rms(embedding) + H rms(h)
    h' = x + D (silu(G rms(x)) * U rms(x))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan

EMBEDDING, HEAD = "embedding", "head.weight"  # the target's table; its head's rows of the tokens that are guessed
# How often a guess is right where its parent is, is learnt by the share that the head gives it: between these edges.
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)


def kind_of(shares: np.ndarray) -> np.ndarray:
    """int64, of the shape of `shares`: between which edges each lies."""
    return np.searchsorted(SHARES, shares, side="right")


@dataclass(frozen=True)
class DraftHead:
    """Sizes of one.

    Attributes
    ----------
    hidden_size : int
        of what the target's head reads
    embedding_size : int
        of a row of the target's table of tokens
    vocab_size : int
        of the target
    draft_vocab_size : int
        tokens that it can guess
    intermediate_size : int
        of the feed-forward network
    epsilon : float
        of norms
    """

    hidden_size: int
    embedding_size: int
    vocab_size: int
    draft_vocab_size: int
    intermediate_size: int
    epsilon: float = 1e-5

    def plan(self) -> Plan:
        """One step of it, over rows that have a state, as `inputs`, and a token: "hidden", h', and "logits" of the tokens that it can guess."""
        b, width = Builder(), self.hidden_size
        h = b.op("given", width=width)
        token = b.embedding(f"{EMBEDDING}.weight", self.vocab_size, self.embedding_size)
        token = b.linear(b.rms_norm(token, "embedding_norm.weight", self.epsilon), "embedding_proj", width)
        x = b.add(b.linear(b.rms_norm(h, "hidden_norm.weight", self.epsilon), "hidden_proj", width), token)
        y = b.rms_norm(x, "mlp_norm.weight", self.epsilon)
        gate, up = (b.linear(y, f"mlp.{name}_proj", self.intermediate_size) for name in ("gate", "up"))
        x = b.add(x, b.linear(b.gated(gate, up, "silu"), "mlp.down_proj", width))
        facts: dict[str, Any] = {"hidden_size": width, "max_positions": 1 << 20, "architecture": "draft_head"}
        outputs = {"hidden": x, "logits": b.head(x, HEAD.removesuffix(".weight"), self.draft_vocab_size)}
        return b.plan(x, outputs, {}, vocab_size=self.draft_vocab_size, **facts)

    @property
    def trained(self) -> tuple[str, ...]:
        """The weights that are its own."""
        return tuple(name for name in self.plan().weights if name not in (f"{EMBEDDING}.weight", HEAD))
