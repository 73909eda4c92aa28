"""Training that hides each record: gradients of one example clipped, their sum made noisy (DP-SGD).

The norm of an example's gradient is found without forming it, the factors become weights of its rows, and a second
backward gives the sum of the clipped gradients (ghost clipping). An example is a record: rows of one belong to one norm
and one factor, over all arrays that are trained.
"""

from __future__ import annotations

import math

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_number
from fastdistill.errors import ArgumentError
from fastdistill.messages import short


def clip_factors(norms: np.ndarray, bound: float) -> np.ndarray:
    """min(1, bound / norm) of each example: what its gradient is multiplied by so that none is longer than the bound.

    Parameters
    ----------
    norms : float64 (examples,)
        of the gradients over all arrays: the root of the summed squares. Where one is a NaN or an infinity the example
        is left out, and the batch is not lost with it
    bound : float
        above 0; infinity clips nothing

    Returns
    -------
    float64 (examples,)
        1 where the norm is 0; 0 where it is not finite

    Raises
    ------
    ArgumentError
    """
    norms = as_array("norms", norms, np.float64, ("examples",))
    bound = _above_zero("bound", bound, math.inf)
    if (norms < 0).any():
        example = int(np.argmax(norms < 0))
        raise ArgumentError(f"norms must be at least 0, got {norms[example]} of example {example}")
    return np.divide(bound, norms, out=np.isfinite(norms).astype(np.float64), where=norms > bound)


def ghost_norm_squared(inputs: np.ndarray, gradients: np.ndarray) -> np.ndarray | np.float64:
    """The squared norm of a linear layer's gradient of each example, G^T A, which is not formed: sum (A A^T) * (G G^T).

    Squares of several layers add up. With T tokens it takes T^2 (d + V) operations and T^2 numbers.

    Parameters
    ----------
    inputs : float32 or float64 (..., T, d)
        A, what the layer was given
    gradients : float32 or float64 (..., T, V)
        G, the gradient by what it gave; zeros in rows of padding

    Returns
    -------
    float64 (...)

    Raises
    ------
    ArgumentError

    Notes
    -----
    What is not finite gives what is not finite: `clip_factors` leaves such an example out.
    """
    shape = check_array("inputs", inputs, REAL, (..., "tokens", "width"))
    check_array("gradients", gradients, REAL, (*shape[:-1], None))
    return np.maximum((_gram(inputs) * _gram(gradients)).sum(axis=(-2, -1)), 0)


def _gram(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows @ np.swapaxes(rows, -1, -2)


def embedding_norm_squared(tokens: np.ndarray, gradients: np.ndarray) -> np.float64:
    """The squared norm of an embedding's gradient of one example: rows of one token are added first, then squared.

    Parameters
    ----------
    tokens : int32 (T,)
    gradients : float32 or float64 (T, d)
        by the vectors that the embedding gave

    Returns
    -------
    float64

    Raises
    ------
    ArgumentError
    """
    tokens = as_array("tokens", tokens, np.int32, ("tokens",))
    check_array("gradients", gradients, REAL, (len(tokens), "width"))
    return (_by_token(tokens, gradients)[1] ** 2).sum()


def _by_token(tokens: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that occur, and the sum of the rows of each, float64."""
    found, numbers = np.unique(tokens, return_inverse=True)
    sums = np.zeros((len(found), gradients.shape[1]))
    np.add.at(sums, numbers.reshape(-1), gradients)
    return found, sums


def tied_norm_squared(
    tokens: np.ndarray, embedding_gradients: np.ndarray, hidden: np.ndarray, logit_gradients: np.ndarray
) -> np.float64:
    """The squared norm of one example's gradient by a matrix that is embedding and head: both parts, added first.

    The squares of the parts leave out twice their inner product, and a bound that is missed hides nobody.

    Parameters
    ----------
    tokens : int32 (T,)
        what the embedding was given, below V
    embedding_gradients : float32 or float64 (T, d)
        by the vectors that it gave
    hidden : float32 or float64 (S, d)
        what the head was given
    logit_gradients : float32 or float64 (S, V)
        by the logits

    Returns
    -------
    float64

    Raises
    ------
    ArgumentError
    """
    tokens = as_array("tokens", tokens, np.int32, ("tokens",))
    _, width = check_array("embedding_gradients", embedding_gradients, REAL, (len(tokens), "width"))
    rows, _ = check_array("hidden", hidden, REAL, ("rows", width))
    _, vocab = check_array("logit_gradients", logit_gradients, REAL, (rows, "vocab"))
    wrong = (tokens < 0) | (tokens >= vocab)
    if wrong.any():
        raise ArgumentError(f"tokens must lie in 0..{vocab - 1}, got {tokens[wrong][0]}")
    found, sums = _by_token(tokens, embedding_gradients)
    heads = logit_gradients[:, found].astype(np.float64).T @ hidden.astype(np.float64)  # rows of the head's part alone
    return np.maximum((sums * (sums + 2 * heads)).sum() + ghost_norm_squared(hidden, logit_gradients), 0)


def add_noise(
    gradient_sum: np.ndarray, bound: float, multiplier: float, expected_batch: float, generator: np.random.Generator
) -> np.ndarray:
    """(the sum of clipped gradients + Gaussian noise of deviation multiplier times bound) / expected batch.

    The batch is divided by its expected size, not by how many were drawn, which would tell something of a record; an
    empty draw is a step like any other, with a sum of zeros.

    Parameters
    ----------
    gradient_sum : float32 or float64 (...)
        of the examples' gradients times `clip_factors`; with several arrays, call it for each with one generator
    bound : float
        above 0, that of `clip_factors`
    multiplier : float
        at least 0; 0 adds no noise, and hides nothing
    expected_batch : float
        above 0: the sampling rate times the number of records
    generator : np.random.Generator
        no seed: noise that comes twice can be taken away

    Returns
    -------
    float32 or float64 (...)
        in the dtype of the sum

    Raises
    ------
    ArgumentError

    Notes
    -----
    NumPy's generators are for experiments: who knows their state knows the noise. A guarantee needs one that is seeded
    and built for secrets, and sums whose roundings tell nothing.
    """
    check_array("gradient_sum", gradient_sum, REAL, (...,))
    bound = _above_zero("bound", bound, math.inf)
    multiplier = check_number("multiplier", multiplier, 0, 1e300)
    expected_batch = _above_zero("expected_batch", expected_batch, 1e300)
    if not isinstance(generator, np.random.Generator):
        raise ArgumentError(f"generator must be a numpy.random.Generator, and no seed, got {short(generator)}")
    noisy = gradient_sum.astype(np.float64)
    if multiplier > 0:
        if bound == math.inf:
            raise ArgumentError("bound must be finite where there is noise, whose deviation it scales; got inf")
        noisy = noisy + multiplier * bound * generator.standard_normal(gradient_sum.shape)
    return np.asarray(noisy / expected_batch).astype(gradient_sum.dtype)


def _above_zero(name: str, value: float, maximum: float) -> float:
    found = check_number(name, value, 0, maximum)
    if found == 0:
        raise ArgumentError(f"{name} must be above 0, got 0")
    return found
