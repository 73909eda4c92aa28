"""Nested embeddings from a family of models: the small one's first, then what each larger one adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_choice, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.transport.points import check_finite
from fastdistill.messages import short

_REGRESSIONS = "pcr", "ols", "ridge"
_VARIANCE = 0.95  # of the inputs, in directions that are kept where none rises above the noise


class ReverseLevel(NamedTuple):
    """One step of the chain: a larger model's embedding as a smaller one's, and what is new in it.

    Attributes
    ----------
    input_mean : np.ndarray float64 (inputs,)
    target_mean : np.ndarray float64 (targets,)
    coefficients : np.ndarray float64 (inputs, targets)
        of the regression of the larger embedding on the smaller one
    components : np.ndarray float64 (targets - inputs, targets)
        orthonormal rows: the main directions of what the regression leaves, the entry of largest size positive
    kept : int
        how many principal components of the inputs it uses
    explained : float
        the share of the larger embedding's variance that it explains
    """

    input_mean: np.ndarray
    target_mean: np.ndarray
    coefficients: np.ndarray
    components: np.ndarray
    kept: int
    explained: float

    def apply(self, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The smaller embedding as it is, and behind it the new coordinates.

        Parameters
        ----------
        inputs : float32 or float64 (n, inputs)
            of the smaller model, or of the chain so far
        targets : float32 or float64 (n, targets)
            of the larger model, of the dtype of inputs

        Returns
        -------
        float32 or float64 (n, targets)
            in the dtype of the inputs

        Raises
        ------
        ArgumentError
        NotFiniteError
            which names the array and the row
        """
        input_mean = as_array("input_mean", self.input_mean, np.float64, ("inputs",))
        target_mean = as_array("target_mean", self.target_mean, np.float64, ("targets",))
        narrow, wide = len(input_mean), len(target_mean)
        coefficients = as_array("coefficients", self.coefficients, np.float64, (narrow, wide))
        components = as_array("components", self.components, np.float64, (wide - narrow, wide))
        _pair(inputs, targets, narrow, wide)
        left = targets - target_mean - (inputs - input_mean) @ coefficients
        return np.concatenate([inputs, (left @ components.T).astype(inputs.dtype)], axis=1)


def reverse_fit(
    inputs: np.ndarray, targets: np.ndarray, *, regression: str = "pcr", ridge: float = 1.0
) -> ReverseLevel:
    """Fit one step: regress the larger embedding on the smaller one, and find the main directions of what is left.

    - pcr: least squares on the principal components of the inputs that rise above noise: those whose eigenvalue is
      above s (1 + sqrt(d / n))^2, the edge of Marchenko and Pastur, with s the median of the eigenvalues that are less
      than so many times their mean. Where none is, as many as have 95% of the variance
    - ols: least squares, of least norm where it is not unique
    - ridge: least squares, and `ridge` times the squared coefficients

    All are centred (Catrina et al. 2026).

    Parameters
    ----------
    inputs : float32 or float64 (n, inputs)
        of the smaller model, or of the chain so far: a row a token, at least 2
    targets : float32 or float64 (n, targets)
        of the larger model, at least as wide; of the dtype of inputs, and of the same tokens
    regression : str, default "pcr"
        "pcr", "ols" or "ridge"
    ridge : float, default 1.0
        above 0, of "ridge" alone

    Returns
    -------
    ReverseLevel

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    rows, narrow = check_array("inputs", inputs, REAL, ("rows", "inputs"))
    _, wide = check_array("targets", targets, inputs.dtype.type, (rows, "targets"), like="inputs")
    _pair(inputs, targets, narrow, wide)
    check_choice("regression", regression, _REGRESSIONS)
    ridge = check_number("ridge", ridge, 0, 1e300)
    if rows < 2 or narrow == 0 or wide < narrow:
        raise ArgumentError(
            "inputs and targets must have 2 rows at least, and targets be as wide as inputs or wider, "
            f"got shapes {inputs.shape} and {targets.shape}"
        )
    if regression == "ridge" and ridge == 0:
        raise ArgumentError('ridge must be above 0 for "ridge", got 0; without it there is "ols"')
    input_mean, target_mean = (array.mean(axis=0, dtype=np.float64) for array in (inputs, targets))
    x, y = inputs - input_mean, targets - target_mean
    left, scales, right = np.linalg.svd(x, full_matrices=False)
    # What centring leaves of rounding is in units of the inputs themselves, not of how they vary.
    rank = int((scales > max(x.shape) * np.finfo(np.float64).eps * np.linalg.norm(inputs.astype(np.float64))).sum())
    kept = min(_above_noise(scales**2 / (rows - 1), rows, narrow), rank) if regression == "pcr" else rank
    inverse = np.zeros(len(scales))
    inverse[:kept] = scales[:kept] / (scales[:kept] ** 2 + ridge) if regression == "ridge" else 1 / scales[:kept]
    coefficients = right.T @ (inverse[:, None] * (left.T @ y))
    residual = y - x @ coefficients
    total = (y * y).sum()
    explained = 1 - (residual * residual).sum() / total if total > 0 else 0.0
    # With fewer rows than directions the last ones are of no variance, and any will do.
    components = np.linalg.svd(residual, full_matrices=rows < wide)[2][: wide - narrow]
    largest = components[np.arange(len(components)), np.abs(components).argmax(axis=1)]
    return ReverseLevel(
        input_mean, target_mean, coefficients, components * np.sign(largest)[:, None], kept, float(explained)
    )


def _above_noise(eigenvalues: np.ndarray, rows: int, width: int) -> int:
    """How many principal components, largest first, are more than noise."""
    mean, total = eigenvalues.mean(), eigenvalues.sum()
    if total == 0:
        return 0
    edge = (1 + np.sqrt(width / rows)) ** 2
    noise = np.median(eigenvalues[eigenvalues < edge * mean])  # of some: the least is at most the mean
    above = int((eigenvalues > noise * edge).sum())
    return above or int(np.searchsorted(np.cumsum(eigenvalues), _VARIANCE * total)) + 1


def reverse_chain(
    embeddings: Sequence[np.ndarray], *, regression: str = "pcr", ridge: float = 1.0
) -> list[ReverseLevel]:
    """Fit all steps of a family, from its smallest model to its largest.

    Parameters
    ----------
    embeddings : sequence of float32 or float64 (n, width)
        of each model, the widths not falling; of one dtype, and of the same tokens
    regression : str, default "pcr"
        of `reverse_fit`
    ridge : float, default 1.0
        of `reverse_fit`

    Returns
    -------
    list of ReverseLevel
        one less than embeddings

    Raises
    ------
    ArgumentError
    NotFiniteError
    """
    found = _family(embeddings)
    levels: list[ReverseLevel] = []
    nested = found[0]
    for larger in found[1:]:
        levels.append(reverse_fit(nested, larger, regression=regression, ridge=ridge))
        nested = levels[-1].apply(nested, larger)
    return levels


def apply_chain(levels: Sequence[ReverseLevel], embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """The nested embedding of a family: a beginning as wide as a model is that of the family up to there.

    Parameters
    ----------
    levels : sequence of ReverseLevel
        of `reverse_chain`
    embeddings : sequence of float32 or float64 (n, width)
        of each model, one more than levels

    Returns
    -------
    float32 or float64 (n, width)
        as wide as the last model's

    Raises
    ------
    ArgumentError
    NotFiniteError
    """
    found = _family(embeddings)
    if not isinstance(levels, (list, tuple)) or not all(isinstance(level, ReverseLevel) for level in levels):
        raise ArgumentError(f"levels must be a list of ReverseLevel, got {short(levels)}")
    if len(levels) != len(found) - 1:
        raise ArgumentError(f"embeddings must be one more than levels, got {len(found)} and {len(levels)}")
    nested = found[0]
    for level, larger in zip(levels, found[1:], strict=True):
        nested = level.apply(nested, larger)
    return nested


def _family(embeddings: Any) -> list[np.ndarray]:
    if not isinstance(embeddings, (list, tuple)) or not embeddings:
        raise ArgumentError(f"embeddings must be a list of arrays, at least one, got {short(embeddings)}")
    rows, _ = check_array("embeddings[0]", embeddings[0], REAL, ("rows", "width"))
    for number, array in enumerate(embeddings[1:], 1):
        check_array(f"embeddings[{number}]", array, embeddings[0].dtype.type, (rows, "width"), like="embeddings[0]")
    return list(embeddings)


def _pair(inputs: Any, targets: Any, narrow: int, wide: int) -> None:
    """Check both, and that they are finite."""
    rows, _ = check_array("inputs", inputs, REAL, ("rows", narrow))
    check_array("targets", targets, inputs.dtype.type, (rows, wide), like="inputs")
    check_finite(inputs=inputs, targets=targets)
