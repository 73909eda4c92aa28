"""One set of weights from two: averages over time, and ways between models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastdistill.arguments import REAL, check_array, check_mapping, check_number
from fastdistill.errors import ArgumentError
from fastdistill.messages import listed, short

_PARALLEL = 1e-8  # below this angle in radians both formulas agree to the last bits: sin x = x (1 - x^2 / 6)
_OPPOSITE = 1e-6  # within this of pi the plane of both directions is lost in roundings


def ema(target: Mapping[str, np.ndarray], source: Mapping[str, np.ndarray], decay: float) -> dict[str, np.ndarray]:
    """decay target + (1 - decay) source, of each array: a teacher that follows its student slowly.

    Parameters
    ----------
    target, source : mapping of str to float32 or float64 arrays
        of the same names, shapes and dtypes
    decay : float
        0..1; 1 keeps the target, 0 copies the source, bit by bit

    Returns
    -------
    dict of str to float32 or float64 arrays
        new ones, of the target's names and dtypes; computed in float64, rounded once

    Raises
    ------
    ArgumentError
        which names the array
    """
    check_mapping("target", target, "names to arrays")
    check_mapping("source", source, "names to arrays")
    decay = check_number("decay", decay, 0, 1)
    if target.keys() != source.keys():
        odd = sorted(short(name, 60) for name in target.keys() ^ source.keys())
        raise ArgumentError(f"target and source must have the same names; only one has {listed(odd, 3)}")
    found = {}
    for name, array in target.items():
        check_array(f"target[{short(name, 60)}]", array, REAL, (...,))
        other = source[name]
        check_array(f"source[{short(name, 60)}]", other, array.dtype.type, array.shape, like="target")
        if decay in (0, 1):
            found[name] = (array if decay == 1 else other).copy()
        else:
            mixed = decay * array.astype(np.float64) + (1 - decay) * other.astype(np.float64)
            found[name] = np.asarray(mixed).astype(array.dtype)
    return found


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """The way from one array to another on the arc between their directions: (sin((1 - t) w) a + sin(t w) b) / sin w.

    w is the angle between both, flattened. Of arrays of one length all on the way have it. Where the angle is 0, or
    one array is all zeros, the way is straight.

    Parameters
    ----------
    a, b : float32 or float64 (...)
        of one shape and dtype
    t : float
        0..1; 0 gives a, 1 gives b, bit by bit

    Returns
    -------
    float32 or float64 (...)
        in their dtype; computed in float64

    Raises
    ------
    ArgumentError
        where a and b point in opposite directions, too: there is no one arc between them
    """
    check_array("a", a, REAL, (...,))
    check_array("b", b, a.dtype.type, a.shape, like="a")
    t = check_number("t", t, 0, 1)
    if t in (0, 1):
        return (b if t else a).copy()
    one, other = a.astype(np.float64), b.astype(np.float64)
    lengths = np.sqrt((one * one).sum()), np.sqrt((other * other).sum())
    shares = 1 - t, t
    if min(lengths) > 0:
        first, second = one / lengths[0], other / lengths[1]
        # By both half chords: near 0 and pi an arccos of the inner product loses half of its digits.
        angle = 2 * np.arctan2(np.sqrt(((first - second) ** 2).sum()), np.sqrt(((first + second) ** 2).sum()))
        if angle > np.pi - _OPPOSITE:
            raise ArgumentError("a and b must not point in opposite directions: no one arc lies between them")
        if angle > _PARALLEL:
            shares = np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle)
    return np.asarray(shares[0] * one + shares[1] * other).astype(a.dtype)
