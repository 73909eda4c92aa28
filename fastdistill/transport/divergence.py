"""The Sinkhorn divergence: entropic transport without its bias, zero between equal measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill.arguments import check_integer
from fastdistill.cached import cached_property
from fastdistill.errors import ArgumentError
from fastdistill.messages import short
from fastdistill.transport.sinkhorn import Transport, sinkhorn


@dataclass(frozen=True)
class Divergence:
    """What `sinkhorn_divergence` found; of a batch (...), arrays with these leading dimensions.

    Attributes
    ----------
    value : float64 (...)
        OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2; what rounding takes below 0 is 0
    transports : tuple[Transport, Transport, Transport]
        of a to b, of a to itself and of b to itself; their statuses say what did not converge
    """

    value: np.ndarray | np.float64
    transports: tuple[Transport, Transport, Transport]

    @property
    def converged(self) -> np.ndarray | np.bool_:
        """bool (...): all three are."""
        ab, aa, bb = (transport.converged for transport in self.transports)
        return np.logical_and(np.logical_and(ab, aa), bb)

    @cached_property
    def gradient(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the value by x (..., n, d) and by y (..., m, d); computed when asked.

        Points enter the transport to themselves on both sides, so half of it has the mean of the two sides' gradients.
        """
        ab, aa, bb = (transport.gradient for transport in self.transports)
        return ab[0] - (aa[0] + aa[1]) / 2, ab[1] - (bb[0] + bb[1]) / 2


def sinkhorn_divergence(
    a: np.ndarray | None,
    b: np.ndarray | None,
    x: np.ndarray,
    y: np.ndarray,
    *,
    metric: str = "sqeuclidean",
    epsilon: float,
    max_iterations: int = 1000,
    tolerance: float = 1e-6,
    unbalanced: tuple[float, float] | float | None = None,
    epsilon_scaling: float | None = None,
    dtype: type | None = None,
    threads: int | None = None,
) -> Divergence:
    """How far masses a at points x are from masses b at points y.

    OT(a, b) alone is not least at b = a: its plan is blurred. Less half of each side's transport to itself it is, for
    every metric here, as e^(-cost / epsilon) is a positive kernel. It goes from the transport cost, epsilon -> 0, to a
    kernel distance, epsilon -> inf. Where unbalanced, epsilon (total of a - total of b)^2 / 2 comes on top.

    Parameters
    ----------
    a, b : np.ndarray (..., n) and (..., m) or None
        as in `sinkhorn`
    x, y : np.ndarray (..., n, d) and (..., m, d)
        as in `sinkhorn`
    metric : str, default "sqeuclidean"
        as in `sinkhorn`
    epsilon : float
        as in `sinkhorn`
    max_iterations : int, default 1000
        as in `sinkhorn`
    tolerance : float, default 1e-6
        as in `sinkhorn`
    unbalanced : tuple[float, float] | float, optional
        (tau, tau), or tau: a divergence holds both sides alike
    epsilon_scaling : float, optional
        as in `sinkhorn`
    dtype : type, optional
        as in `sinkhorn`
    threads : int, optional
        at most so many; None: as many as this process may use

    Returns
    -------
    Divergence

    References
    ----------
    Feydy et al. 2019; Séjourné et al. 2019, unbalanced

    Examples
    --------
    >>> x, y = np.array([[0.0], [1.0]]), np.array([[3.0], [4.0]])
    >>> found = fd.transport.sinkhorn_divergence(None, None, x, y, epsilon=1.0)
    >>> round(float(found.value), 3)  # each point goes 3 far
    9.0
    """
    max_iterations = check_integer("max_iterations", max_iterations, 1, 2**31 - 1)
    settings: dict[str, Any] = {
        "metric": metric, "epsilon": epsilon, "tolerance": tolerance, "unbalanced": unbalanced, "dtype": dtype, "threads": threads,
    }  # fmt: skip
    sinkhorn(a, b, x=x, y=y, max_iterations=1, **settings)  # refuses what is wrong by its name here
    if isinstance(unbalanced, (tuple, list)) and unbalanced[0] != unbalanced[1]:
        raise ArgumentError(f"unbalanced must have one tau for both sides of a divergence, got {short(unbalanced)}")
    aa, f = _to_itself(a, x, max_iterations, settings)
    bb, g = _to_itself(b, y, max_iterations, settings)
    ab = sinkhorn(
        a, b, x=x, y=y, max_iterations=max_iterations, epsilon_scaling=epsilon_scaling, warm_start=(f, g), **settings
    )  # where b at y is a at x, this is the last step of aa: the difference is 0
    value = ab.value - aa.value / 2 - bb.value / 2
    if unbalanced is not None:
        value = value + epsilon / 2 * (_total(a) - _total(b)) ** 2
    return Divergence(np.maximum(value, 0), (ab, aa, bb))


def _to_itself(
    masses: np.ndarray | None, points: np.ndarray, max_iterations: int, settings: dict[str, Any]
) -> tuple[Transport, np.ndarray]:
    """Masses to themselves, and the potentials (..., n) before the last step.

    Both sides have the same potentials. Half a step of both at once gets there in some twenty; in turns it may take
    thousands.
    """
    potentials: Any = None
    start, iterations, running = None, np.array(0), np.array(True)
    for step in range(1, max_iterations + 1):
        found = sinkhorn(masses, masses, x=points, y=points, max_iterations=1, warm_start=start, **settings)
        f, g = found.potentials
        potentials = np.zeros_like(f) if potentials is None else potentials
        iterations = np.where(running, step, iterations)
        running = ~np.asarray(found.converged)
        if not running.any() or step == max_iterations:
            break
        potentials = np.where(running[..., None], (f + g) / 2, potentials)  # in a batch each ends as it would alone
        start = (potentials, potentials)
    found.iterations = iterations[()]
    return found, potentials


def _total(masses: np.ndarray | None) -> np.ndarray | float:
    """Of masses (..., n): (...); without any, 1."""
    return 1.0 if masses is None else masses.sum(axis=-1, dtype=np.float64)
