"""What a draft head begins with.

eagle   the linear cell that tells the target's next state best, in closed form: one pass over the texts gives it, by ridge
        regression of the state after a token on the normed state before it and the token's normed row.  Gradients would
        take some minutes to come as far
medusa  heads that add nothing to the state: each begins with the guess that the target's own head makes of it (Cai et al.
        2024, Medusa, section 2.1.1)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.models.draft_head import DraftHead
from fastdistill.train.draft_head.texts import Texts

ROWS = 8192  # at a time


def first_weights(
    shape: DraftHead,
    texts: Texts,
    table: Tensor,
    *,
    places: np.ndarray | None = None,
    ridge: float = 1e-3,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The trained weights of a draft head before its first step: eagle's linear cell, with a feed-forward network that adds nothing yet.

    Parameters
    ----------
    shape : DraftHead
    texts : Texts
    table : Tensor of (vocab_size, embedding_size)
        the target's tokens
    places : int64 (n,), optional
        in the texts, to learn from; None: all
    ridge : float, default 1e-3
        times the mean square of what is regressed on, added to the normal equations
    seed : int, default 0
        of the network
    """
    sizes = {name: weight.shape for name, weight in shape.plan().weights.items() if name in shape.trained}
    if not shape.chained:
        return {name: Tensor(name, "f32", size, np.zeros(size, np.float32)) for name, size in sizes.items()}
    from_token, from_state = _ridge(shape, texts, table, texts.places if places is None else places, ridge)
    chance = np.random.Generator(np.random.Philox(seed))
    weights: Mapping[str, np.ndarray] = {"embedding_proj.weight": from_token, "hidden_proj.weight": from_state}
    made = {}
    for name, size in sizes.items():
        if name in weights:
            array = weights[name]
        elif len(size) == 1:
            array = np.ones(size)
        elif name == "mlp.down_proj.weight":
            array = np.zeros(size)
        else:
            array = chance.standard_normal(size) / np.sqrt(3 * size[1])
        made[name] = Tensor(name, "f32", size, np.ascontiguousarray(array, np.float32))
    return made


def _ridge(
    shape: DraftHead, texts: Texts, table: Tensor, places: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """(hidden_size, embedding_size), (hidden_size, hidden_size)."""
    width = shape.embedding_size + shape.hidden_size
    squares, products = np.zeros((width, width)), np.zeros((width, shape.hidden_size))
    for begin in range(0, len(places), ROWS):
        at = places[begin : begin + ROWS]
        tokens, numbers = np.unique(texts.tokens[at], return_inverse=True)
        states = texts.states[at].astype(np.float32)
        x = np.concatenate([_normed(table.rows(tokens).to_float32(), shape)[numbers], _normed(states, shape)], axis=1)
        squares += x.T @ x
        products += x.T @ texts.states[at + 1].astype(np.float32)
    squares[np.diag_indices(width)] += ridge * np.trace(squares) / width
    found = np.linalg.solve(squares, products).T
    return found[:, : shape.embedding_size], found[:, shape.embedding_size :]


def _normed(x: np.ndarray, shape: DraftHead) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(shape.epsilon))
