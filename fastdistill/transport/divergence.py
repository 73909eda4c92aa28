"""The Sinkhorn divergence: entropic transport without its bias, zero between equal measures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastdistill.errors import ArgumentError
from fastdistill.kernels.sinkhorn import Transport, sinkhorn


@dataclass(frozen=True)
class Divergence:
    """What `sinkhorn_divergence` found; of a batch (...), arrays with these leading dimensions.

    value       float64 (...)  OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2; what rounding takes below 0 is 0
    transports  of a to b, of a to itself and of b to itself; their statuses say what did not converge
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

    OT(a, b) alone is not least at b = a: its plan is blurred.  Less half of each side's transport to itself it is, for every metric
    here, as e^(-cost / epsilon) is a positive kernel.  It goes from the transport cost, epsilon -> 0, to a kernel distance,
    epsilon -> inf.  Where unbalanced, epsilon (total of a - total of b)^2 / 2 comes on top.

    a, b        as in `kernels.sinkhorn`; (..., n) and (..., m), or None
    x, y        (..., n, d) and (..., m, d)
    unbalanced  (tau, tau), or tau: a divergence holds both sides alike
    returns     Divergence; the other parameters, and what is raised, as in `kernels.sinkhorn`
    source      Feydy et al. 2019; Séjourné et al. 2019, unbalanced
    """
    if isinstance(unbalanced, (tuple, list)) and len(set(unbalanced)) > 1:
        raise ArgumentError(f"unbalanced must have one tau for both sides of a divergence, got {unbalanced}")

    def transport(p: np.ndarray | None, q: np.ndarray | None, here: np.ndarray, there: np.ndarray) -> Transport:
        return sinkhorn(
            p, q, x=here, y=there, metric=metric, epsilon=epsilon, max_iterations=max_iterations, tolerance=tolerance,
            unbalanced=unbalanced, epsilon_scaling=epsilon_scaling, dtype=dtype, threads=threads,
        )  # fmt: skip

    ab, aa, bb = transport(a, b, x, y), transport(a, a, x, x), transport(b, b, y, y)
    value = ab.entropic_value - aa.entropic_value / 2 - bb.entropic_value / 2
    if unbalanced is not None:
        value = value + epsilon / 2 * (_total(a) - _total(b)) ** 2
    return Divergence(np.maximum(value, 0), (ab, aa, bb))


def _total(masses: np.ndarray | None) -> np.ndarray | float:
    """Of masses (..., n): (...); without any, 1."""
    return 1.0 if masses is None else masses.sum(axis=-1, dtype=np.float64)
