"""The small network of Learn2PD (Bao et al. 2025): from a block's confidences, which of its tokens are right already."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import check_array, check_integer, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.forward.linear import PackedWeight


class LearnedFilter:
    """Two layers with a ReLU between them: confidences of a block -> a logit for each of its tokens.

    Attributes
    ----------
    w1, b1 : float32 (hidden, width), (hidden,)
    w2, b2 : float32 (width, hidden), (width,)
    width
        positions of a block; shorter blocks are filled up with 1, as are positions that are filled already
    hidden
        units between the layers

    Raises
    ------
    ArgumentError

    Notes
    -----
    `fit` trains one.
    """

    def __init__(self, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray) -> None:
        hidden, width = check_array("w1", w1, np.float32, (None, None))
        if not hidden or not width:
            raise ArgumentError(f"w1 must have at least one row and one column, got shape {w1.shape}")
        check_array("b1", b1, np.float32, (hidden,))
        check_array("w2", w2, np.float32, (width, hidden))
        check_array("b2", b2, np.float32, (width,))
        for name, array in (("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2)):
            if np.isnan(array).any():
                raise ArgumentError(f"{name} holds NaN")
        self.w1, self.b1, self.w2, self.b2 = w1, b1, w2, b2
        self.width, self.hidden = width, hidden
        self._first, self._second = PackedWeight("f32", w1, bias=b1), PackedWeight("f32", w2, bias=b2)

    def __call__(self, confidence: np.ndarray) -> np.ndarray:
        """Logits float32 (..., width) of probabilities float32 (..., width): above 0, the token is more likely right than not."""
        *leading, _ = check_array(
            "confidence", confidence, np.float32, (None,) * (getattr(confidence, "ndim", 1) - 1) + (self.width,)
        )
        rows = np.ascontiguousarray(confidence).reshape(-1, self.width)
        hidden = np.maximum(self._first.multiply(rows), np.float32(0))
        return self._second.multiply(hidden).reshape(*leading, self.width)

    @classmethod
    def fit(
        cls,
        confidence: np.ndarray,
        right: np.ndarray,
        *,
        hidden: int = 64,
        epochs: int = 2000,
        rate: float = 3e-3,
        seed: int = 0,
    ) -> LearnedFilter:
        """Train one by binary cross-entropy and Adam (Kingma & Ba 2015), all examples in each epoch.

        Parameters
        ----------
        confidence : float32 (examples, width)
            what the blocks looked like
        right : bool (examples, width)
            whether the likeliest token was the final one (`Oracle` collects both)
        hidden : int, default 64
            units between the layers
        epochs : int, default 2000
            passes over all examples
        rate : float, default 3e-3
            of Adam
        seed : int, default 0
            of the weights that it begins with

        Raises
        ------
        ArgumentError
        """
        examples, width = check_array("confidence", confidence, np.float32, (None, None))
        check_array("right", right, np.bool_, (examples, width))
        if not examples or not width or not np.isfinite(confidence).all():
            raise ArgumentError("confidence must hold at least one example, and finite numbers alone")
        check_integer("hidden", hidden, 1, 1 << 16)
        check_integer("epochs", epochs, 0, 1 << 30)
        check_number("rate", rate, 0, 1)
        chance = np.random.default_rng(check_integer("seed", seed, 0, (1 << 63) - 1))
        w1 = chance.normal(0, np.sqrt(2 / width), (hidden, width))
        w2 = chance.normal(0, np.sqrt(1 / hidden), (width, hidden))
        parameters: list[Any] = [w1, np.zeros(hidden), w2, np.zeros(width)]
        means = [np.zeros_like(p) for p in parameters]
        squares = [np.zeros_like(p) for p in parameters]
        x, y = confidence.astype(np.float64), right.astype(np.float64)
        for epoch in range(1, epochs + 1):
            w1, b1, w2, b2 = parameters
            before = x @ w1.T + b1
            after = np.maximum(before, 0)
            z = after @ w2.T + b2
            error = (0.5 * (1 + np.tanh(z / 2)) - y) / y.size  # the sigmoid, without overflow
            back = (error @ w2) * (before > 0)
            gradients = [back.T @ x, back.sum(0), error.T @ after, error.sum(0)]
            for i, gradient in enumerate(gradients):
                means[i] += 0.1 * (gradient - means[i])
                squares[i] += 0.001 * (gradient**2 - squares[i])
                step = means[i] / (1 - 0.9**epoch)
                parameters[i] = parameters[i] - rate * step / (np.sqrt(squares[i] / (1 - 0.999**epoch)) + 1e-8)
        return cls(*(p.astype(np.float32) for p in parameters))
