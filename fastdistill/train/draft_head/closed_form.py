"""What a draft head begins with.

Eagle begins with the linear cell that tells the target's next state best, in closed form: one pass over the texts gives
it, by ridge regression of the state after a token on the normed state before it and the normed rows of the token and its
copies.  Gradients would take some minutes to come as far.  Medusa's heads begin by adding nothing to the state: each
guesses what the target's own head makes of it (Cai et al. 2024, Medusa, section 2.1.1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.models.draft_head import TOKENS, DraftHead
from fastdistill.train.draft_head.head_texts import HeadTexts

ROWS = 8192  # at a time


def first_weights(
    shape: DraftHead,
    texts: HeadTexts,
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
    texts : HeadTexts
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
    weights = _ridge(shape, texts, table, texts.places if places is None else places, ridge)
    chance = np.random.Generator(np.random.Philox(seed))
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
    shape: DraftHead, texts: HeadTexts, table: Tensor, places: np.ndarray, ridge: float
) -> dict[str, np.ndarray]:
    """The linear cells' matrices, by name: (hidden_size, embedding_size) of tokens, as the first step has them, (hidden_size, width) of states."""
    tokens, width, hidden = shape.embedding_size * len(TOKENS), shape.width(0), shape.hidden_size
    squares, products = np.zeros((tokens + width, tokens + width)), np.zeros((tokens + width, hidden))
    for begin in range(0, len(places), ROWS):
        at = places[begin : begin + ROWS]
        states = np.split(texts.states[at, :width].astype(np.float32), width // hidden, axis=1)
        read = [*_embedded(shape, table, texts.read(at)), *(_normed(each, shape) for each in states)]
        x = np.concatenate(read, axis=1)
        squares += x.T @ x
        products += x.T @ texts.states[at + 1, :hidden].astype(np.float32)
    squares[np.diag_indices(len(squares))] += ridge * np.trace(squares) / len(squares)
    found: dict[str, np.ndarray] = {}
    for step in reversed(range(shape.cells)):  # later ones are without the taps, which stand last
        known, names = tokens + shape.width(step), (*TOKENS, shape.state_name(step))
        matrices = np.linalg.solve(squares[:known, :known], products[:known]).T
        parts = np.split(matrices, np.arange(1, len(names)) * shape.embedding_size, axis=1)
        found |= {f"{name}_proj.weight": part for name, part in zip(names, parts, strict=True)}
    return found


def _embedded(shape: DraftHead, table: Tensor, tokens: np.ndarray) -> Iterator[np.ndarray]:
    """The normed rows of each column of tokens; zeros for -1."""
    for column in tokens:
        some, numbers = np.unique(column, return_inverse=True)
        rows = _normed(table.rows(np.maximum(some, 0)).to_float32(), shape) * (some >= 0)[:, None]
        yield rows[numbers]


def _normed(x: np.ndarray, shape: DraftHead) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(shape.epsilon))
