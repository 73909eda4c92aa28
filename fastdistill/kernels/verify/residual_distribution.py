"""What is left of one law when another is taken away."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from fastdistill.arguments import check_array, check_number
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import const, ffi, lib, pointer, written

_FLOAT = np.finfo(np.float32)


def refuse_entries(where: str, **rows: np.ndarray) -> NoReturn:
    """Raise the error of the first entry that is no probability; of an overflow, if there is none."""
    for name, row in rows.items():
        bad = ~((row >= 0) & (row < np.inf))
        if bad.any():
            at = int(bad.argmax())
            error = ArgumentError if np.isfinite(row[at]) else NotFiniteError
            raise error(f"{where}: {name}[{at}] must be finite and not negative, got {row[at]}")
    raise NotFiniteError(f"{where}: {' and '.join(rows)} overflow")


def residual_distribution(
    p: np.ndarray, q: np.ndarray, a: float = 1.0, out: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """max(a p - q, 0) and its sum: what a rejected draft drawn from q leaves of the target's law (distribution) p; not normalised.

    Parameters
    ----------
    p, q : float32 (vocab,)
        vocab >= 1, finite and not negative
    a : float, default 1.0
        above 0, rounded to float32
    out : float32 (vocab,), optional
        filled and returned, apart from p and q; None: made here

    Returns
    -------
    r : float32 (vocab,)
        each element rounded once
    mass : float
        the sum of r in float64, in an order fixed by vocab

    Raises
    ------
    ArgumentError
        also for a negative entry
    NotFiniteError
        for NaN and infinity, and where a p overflows

    References
    ----------
    Leviathan et al. 2023 (a = 1); with a weight, Sun et al. 2024, "Block verification".
    """
    (vocab,) = check_array("p", p, np.float32, ("vocab",))
    if vocab == 0:
        raise ArgumentError("p must have at least one entry, got shape (0,)")
    check_array("q", q, np.float32, (vocab,))
    a = check_number("a", a, float(_FLOAT.tiny), float(_FLOAT.max))
    r = np.empty(vocab, np.float32) if out is None else out
    check_array("out", r, np.float32, (vocab,), written=True)
    mass = ffi.new("double[1]")
    with written({"out": out}, {"p": p, "q": q}):
        status = lib.fd_residual_distribution(vocab, a, const(p), const(q), pointer(r), mass)
    if status != lib.FD_OK:
        refuse_entries("residual_distribution", p=p, q=q)
    return r, mass[0]
