"""Which tokens a text may draw, as bits: bit t % 32 of word t // 32 is that of token t."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np

from fastdistill.arguments import check_integers
from fastdistill.errors import ArgumentError


def allowed_tokens(allowed: Any, vocab_size: int) -> np.ndarray | None:
    """The tokens of `allowed` as uint32 (ceil(vocab_size / 32),); None: all.

    Parameters
    ----------
    allowed : Any
        ids, or a bool array (vocab_size,) that is True at them; None: all
    vocab_size : int
        tokens that there are

    Raises
    ------
    ArgumentError
        for what is neither, and where it names none
    """
    if allowed is None:
        return None
    chosen = np.zeros(-(-vocab_size // 32) * 32, bool)
    if isinstance(allowed, np.ndarray) and allowed.dtype == bool:
        if allowed.shape != (vocab_size,):
            raise ArgumentError(
                f"allowed as a bool array must have shape ({vocab_size},), a token each, got {allowed.shape}"
            )
        chosen[:vocab_size] = allowed
    else:
        ids = check_integers("allowed", allowed, 0, vocab_size - 1)
        if len(ids) == vocab_size > 2 and ids.max() <= 1:
            raise ArgumentError("allowed holds a 0 or a 1 for each token, which are ids: a mask must be a bool array")
        chosen[ids] = True
    if not chosen.any():
        raise ArgumentError("allowed must name at least one token")
    return _bits(chosen)


def early_tokens(allowed: np.ndarray | None, ends: Set[int], vocab_size: int) -> np.ndarray:
    """The allowed tokens without those that end a text, uint32 (ceil(vocab_size / 32),).

    Raises
    ------
    ArgumentError
        where none is left
    """
    others = np.arange(-(-vocab_size // 32) * 32) < vocab_size
    others[[token for token in ends if token < vocab_size]] = False
    early = _bits(others) if allowed is None else _bits(others) & allowed
    if not early.any():
        raise ArgumentError("allowed names only tokens that end the text, so min_tokens cannot be met")
    return early


def chosen_tokens(bits: np.ndarray | None, vocab_size: int) -> np.ndarray | None:
    """Of bits as above, bool (vocab_size,): True at the tokens that are allowed; None: all."""
    if bits is None:
        return None
    return np.unpackbits(bits.astype("<u4").view(np.uint8), count=vocab_size, bitorder="little").astype(bool)


def _bits(chosen: np.ndarray) -> np.ndarray:
    return np.packbits(chosen, bitorder="little").view("<u4").astype(np.uint32)
