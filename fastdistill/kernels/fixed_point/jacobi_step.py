"""One step of Jacobi decoding: every guess is replaced by what the model says in its place."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_array
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import const, lib, pointer
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.kernels.sample.sample import Sampler, sample
from fastdistill.messages import short


class JacobiStep(NamedTuple):
    """What became of an iterate (..., n); of a single one (n,) the fields (...) are NumPy scalars.

    Attributes
    ----------
    next : int32 (..., n)
        the seed, then what was drawn after each position but the last
    prefix : int32 (...)
        how many leading positions of `next` are final, in 1..n
    stationary : bool (..., n)
        where `next` is the iterate
    bonus : int32 (...)
        what was drawn after the last position
    converged : bool (...)
        all stationary: `next` is the fixed point, and `bonus` is final too
    """

    next: np.ndarray
    prefix: np.ndarray | np.int32
    stationary: np.ndarray
    bonus: np.ndarray | np.int32
    converged: np.ndarray | np.bool_


def jacobi_step(
    iterate: np.ndarray,
    target: np.ndarray | RowStatistics,
    *,
    sampler: Sampler | None = None,
    positions: np.ndarray | None = None,
) -> JacobiStep:
    """The next iterate, and how much of it is final.

    Sequential decoding solves a triangular system: each token is a function of those before it, also where it is drawn,
    since noise belongs to a position. So at most n steps lead from any guesses to the sequential text, and each makes
    at least one position more final.

    Parameters
    ----------
    iterate : int32 (..., n)
        n >= 1: the seed, which is final, then n - 1 guesses
    target : np.ndarray | RowStatistics
        what the model says after each position: int32 (..., n), drawn tokens; or RowStatistics of (..., n) rows, for
        their argmax; or float32 (..., n, vocab), logits to draw from
    sampler : Sampler, optional
        of logits alone; None: greedy. It must have no penalties: they would need what each row has seen
    positions : int32 (..., n), optional
        as in `sample`: of the token that each row draws; needed where the temperature is above 0

    Returns
    -------
    JacobiStep

    Raises
    ------
    ArgumentError
        also when every token of a row is banned
    NotFiniteError
        when a row of logits holds NaN or +inf. Rows are counted over all dimensions before vocab

    References
    ----------
    Song et al. 2021; Santilli et al. 2023, parallel decoding; Kou et al. 2024, CLLM
    """
    iterate = as_array("iterate", iterate, np.int32, (..., "n"))
    *leading, n = iterate.shape
    if n == 0:
        raise ArgumentError(f"iterate must have at least one position, the seed; got shape {iterate.shape}")
    drawn = _drawn(iterate.shape, target, sampler, positions)
    following, stationary = np.empty(iterate.shape, np.int32), np.empty(iterate.shape, np.int8)
    prefix, bonus = np.empty(tuple(leading), np.int32), np.empty(tuple(leading), np.int32)
    converged = np.empty(tuple(leading), np.int8)
    lib.fd_jacobi_step(
        prefix.size, n, const(iterate), const(drawn), pointer(following), pointer(prefix), pointer(stationary), pointer(bonus),
        pointer(converged),
    )  # fmt: skip
    return JacobiStep(following, prefix[()], stationary.view(np.bool_), bonus[()], converged.view(np.bool_)[()])


def _drawn(
    shape: tuple[int, ...], target: np.ndarray | RowStatistics, sampler: Sampler | None, positions: np.ndarray | None
) -> np.ndarray:
    """What the model says after each position, int32 of this shape."""
    if isinstance(target, np.ndarray) and target.dtype.kind == "f":
        return _drawn_from_logits(shape, target, sampler, positions)
    tokens: Any
    if isinstance(target, RowStatistics):
        name, tokens = "target.argmax", target.argmax
    elif isinstance(target, (np.ndarray, list, tuple)):
        name, tokens = "target", target
    else:
        raise ArgumentError(f"target must be int32 tokens, RowStatistics or float32 logits, got {short(target)}")
    tokens = as_array(name, tokens, np.int32, shape)
    for setting, value in (("sampler", sampler), ("positions", positions)):
        if value is not None:
            raise ArgumentError(f"{setting} must be None where {name} holds drawn tokens, got {type(value).__name__}")
    return tokens


def _drawn_from_logits(
    shape: tuple[int, ...], logits: np.ndarray, sampler: Sampler | None, positions: np.ndarray | None
) -> np.ndarray:
    *_, vocab = check_array("target", logits, np.float32, (*shape, "vocab"))
    if vocab == 0:
        raise ArgumentError(f"target must have at least one column, got shape {logits.shape}")
    sampler = Sampler() if sampler is None else sampler
    if not isinstance(sampler, Sampler):
        raise ArgumentError(f"sampler must be a Sampler or None, got {type(sampler).__name__}")
    if sampler.penalises:
        raise ArgumentError(
            "sampler must have no repetition, frequency or presence penalty: draw with `sample`, which is given what each row "
            "has seen, and pass the tokens"
        )
    if positions is not None:
        positions = as_array("positions", positions, np.int32, shape)
    elif sampler.temperature > 0:
        raise ArgumentError(f"positions must be int32 {shape} at temperature {sampler.temperature}, got None")
    else:
        positions = np.zeros(shape, np.int32)
    return sample(logits.reshape(positions.size, vocab), sampler, positions.reshape(-1)).reshape(shape)
