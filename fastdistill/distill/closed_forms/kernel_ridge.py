"""Self-distillation in kernel ridge regression, where every student has a closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import as_array, check_array, check_integer, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.transport.points import check_finite

_MOST_STEPS = 2**63 - 1
_SYMMETRY = 1e-8  # of the largest entry: what a kernel's own roundings may leave


class KernelRidge:
    """Students, each fitted by kernel ridge regression to a mixture of the targets and the student before it.

    With A = K (K + ridge I)^-1 the first one is f_0 = A y, and f_t = A (alpha y + (1 - alpha) f_{t-1}) (Borup &
    Andersen 2021). In the eigenvectors of K each step is a number per direction, so K is decomposed once and no step
    costs more than another.

    Parameters
    ----------
    kernel : float64 (n, n)
        symmetric, positive semi-definite; eigenvalues that rounding puts below 0 count as 0
    targets : float64 (n,) or (n, outputs)
    ridge : float
        at least 0; with 0, directions in which the kernel is 0 are fitted by 0
    """

    def __init__(self, kernel: np.ndarray, targets: np.ndarray, ridge: float) -> None:
        size, _ = check_array("kernel", kernel, np.float64, ("n", "n"))
        if kernel.shape[1] != size or size == 0:
            raise ArgumentError(f"kernel must be square and not empty, got shape {kernel.shape}")
        check_finite(kernel=kernel)
        largest = np.abs(kernel).max()
        if np.abs(kernel - kernel.T).max() > _SYMMETRY * largest:
            raise ArgumentError("kernel must be symmetric, and is not")
        eigenvalues, vectors = np.linalg.eigh(kernel)
        if eigenvalues[0] < -_SYMMETRY * size * largest:
            raise ArgumentError(f"kernel must be positive semi-definite, and has an eigenvalue of {eigenvalues[0]:g}")
        # Below this a direction is rounding, and the kernel is 0 in it.
        least = size * np.finfo(np.float64).eps * eigenvalues[-1]
        self._eigenvalues, self._vectors = np.where(eigenvalues > least, eigenvalues, 0), vectors
        self._ridge = check_number("ridge", ridge, 0, 1e300)
        self._set(targets)

    def _set(self, targets: Any) -> None:
        found = as_array("targets", targets, np.float64, (...,))
        size = len(self._vectors)
        if found.ndim not in (1, 2) or len(found) != size:
            raise ArgumentError(f"targets must have shape ({size},) or ({size}, outputs), got {found.shape}")
        check_finite(targets=found)
        self._targets = self._vectors.T @ found

    def refit(self, targets: np.ndarray) -> KernelRidge:
        """The same regression with other targets: the kernel is not decomposed again.

        Parameters
        ----------
        targets : float64 (n,) or (n, outputs)

        Returns
        -------
        KernelRidge

        Raises
        ------
        ArgumentError
        NotFiniteError
        """
        other = object.__new__(KernelRidge)
        other._eigenvalues, other._vectors, other._ridge = self._eigenvalues, self._vectors, self._ridge
        other._set(targets)
        return other

    def self_distill(self, steps: int, alpha: float = 0.0) -> np.ndarray:
        """What the student after so many steps says of the points that it was fitted to, f_t.

        Parameters
        ----------
        steps : int
            0: the first fit
        alpha : float, default 0.0
            0..1, the share of the targets; 1 repeats the first fit

        Returns
        -------
        float64 (n,) or (n, outputs)

        Raises
        ------
        ArgumentError
        """
        return self._vectors @ self._scaled(self._eigenvalues * self._coefficients(steps, alpha))

    def limit(self, alpha: float) -> np.ndarray:
        """What students tend to: ridge regression with ridge / alpha; 0 for alpha = 0.

        Parameters
        ----------
        alpha : float
            0..1

        Returns
        -------
        float64 (n,) or (n, outputs)

        Raises
        ------
        ArgumentError
        """
        alpha = check_number("alpha", alpha, 0, 1)
        return self._vectors @ self._scaled(self._eigenvalues * self._final(alpha))

    def predict(self, cross_kernel: np.ndarray, steps: int = 0, alpha: float = 0.0) -> np.ndarray:
        """What the student after so many steps says of other points.

        Parameters
        ----------
        cross_kernel : float64 (m, n)
            between those points and the ones fitted to
        steps : int, default 0
            of self-distillation
        alpha : float, default 0.0
            0..1

        Returns
        -------
        float64 (m,) or (m, outputs)

        Raises
        ------
        ArgumentError
        NotFiniteError
        """
        check_array("cross_kernel", cross_kernel, np.float64, ("m", len(self._vectors)))
        check_finite(cross_kernel=cross_kernel)
        return cross_kernel @ (self._vectors @ self._scaled(self._coefficients(steps, alpha)))

    def _scaled(self, factors: np.ndarray) -> np.ndarray:
        return factors.reshape(-1, *[1] * (self._targets.ndim - 1)) * self._targets

    def _coefficients(self, steps: int, alpha: float) -> np.ndarray:
        """What the weights of f_t are in each direction, over the targets there.

        c_t = (alpha + (1 - alpha) d c_{t-1}) / (d + ridge) from c_0 = 1 / (d + ridge). A step leaves of the way to the
        fixed point c the share r = (1 - alpha) d / (d + ridge), so c_t = c + r^t (c_0 - c).
        """
        steps, alpha = check_integer("steps", steps, 0, _MOST_STEPS), check_number("alpha", alpha, 0, 1)
        first, final = _over(1.0, self._eigenvalues + self._ridge), self._final(alpha)
        return final + ((1 - alpha) * self._eigenvalues * first) ** steps * (first - final)

    def _final(self, alpha: float) -> np.ndarray:
        """The fixed point alpha / (ridge + alpha d); without ridge all students are the first."""
        if self._ridge == 0:
            return _over(1.0, self._eigenvalues)
        return alpha / (self._ridge + alpha * self._eigenvalues)


def _over(above: float, below: np.ndarray) -> np.ndarray:
    """A quotient, 0 where it has no denominator."""
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)


def best_alpha(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The mixture alpha first + (1 - alpha) second that is nearest to the targets, in squares.

    Predictions are linear in alpha, so two students give those of all: one fitted to the targets (alpha = 1), and one
    fitted to the student before it (alpha = 0). It holds of deep networks too, as an approximation (Borup & Andersen
    2021).

    Parameters
    ----------
    targets : float64 (m,) or (m, outputs)
        for validation; one alpha is found for all outputs
    first, second : float64 (m,) or (m, outputs)
        predictions at alpha = 1 and alpha = 0

    Returns
    -------
    float
        any number: outside of 0..1 the best mixture is beyond both; 1 where both are the same

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array
    """
    targets = as_array("targets", targets, np.float64, (...,))
    first = as_array("first", first, np.float64, targets.shape)
    second = as_array("second", second, np.float64, targets.shape)
    check_finite(targets=targets, first=first, second=second)
    apart = first - second
    length = float((apart * apart).sum())
    return float(((targets - second) * apart).sum()) / length if length > 0 else 1.0
