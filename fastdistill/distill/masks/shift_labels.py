"""Labels of models that predict the next token: row i learns token i + 1."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.distill.loss import IGNORED


def shift_labels(tokens: np.ndarray, sequences: np.ndarray | None = None) -> np.ndarray:
    """The label of each row, the token of the row behind it; the last row of a sequence has none.

    Autoregressive models need it, and Dream, whose masked tokens are predicted in the row before; LLaDA predicts a
    token in its own row, and takes the tokens as they are.

    Parameters
    ----------
    tokens : int32 (..., length)
        tokens, or labels that -100 stands among: such a row behind gives -100
    sequences : int32 (..., length), optional
        which sequence a row belongs to, where several lie one after the other; None: each row of the last axis is one

    Returns
    -------
    int32 (..., length)
        -100 in the last row of each sequence

    Raises
    ------
    ArgumentError
    """
    tokens = as_array("tokens", tokens, np.int32, (..., "length"))
    labels = np.full(tokens.shape, IGNORED, np.int32)
    following = tokens[..., 1:]
    if sequences is not None:
        sequences = as_array("sequences", sequences, np.int32, tokens.shape)
        following = np.where(sequences[..., 1:] == sequences[..., :-1], following, IGNORED)
    labels[..., :-1] = following
    return labels
