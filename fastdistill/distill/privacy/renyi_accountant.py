"""What many steps of DP-SGD give away of one record: Renyi differential privacy of the sampled Gaussian mechanism."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import check_integer, check_integers, check_number
from fastdistill.errors import ArgumentError

_MOST_ORDER = 1 << 16
_ORDERS = range(2, 257)  # at an epsilon of 0.02 and more for a delta of 1e-5 the best order lies among them


class Privacy(NamedTuple):
    """A guarantee of (epsilon, delta) differential privacy.

    Attributes
    ----------
    epsilon : float
        infinity where there is none
    order : int
        the Renyi order that gave it; 0 where nothing was given away
    """

    epsilon: float
    order: int


def renyi_divergences(sampling_rate: float, noise_multiplier: float, orders: np.ndarray | None = None) -> np.ndarray:
    """What a step of Gaussian noise gives away at each order a, in nats, of records drawn at rate q:

        1 / (a - 1) log sum_k C(a, k) (1 - q)^(a - k) q^k exp((k^2 - k) / (2 sigma^2))

    (Mironov et al. 2019, section 3.3), by Poisson sampling. Neighbours differ by one record, there or not. Steps add
    up.

    Parameters
    ----------
    sampling_rate : float
        q, 0..1
    noise_multiplier : float
        sigma, at least 0: the noise's deviation over the bound of the gradients; 0 gives infinity
    orders : int32 (orders,), optional
        2..65536; None: 2..256

    Returns
    -------
    float64 (orders,)

    Raises
    ------
    ArgumentError
    """
    rate = check_number("sampling_rate", sampling_rate, 0, 1)
    sigma = check_number("noise_multiplier", noise_multiplier, 0, 1e300)
    orders = _as_orders(orders)
    if rate == 0:
        return np.zeros(len(orders))
    precision = math.inf if sigma * sigma == 0 else 1 / (sigma * sigma)
    if math.isinf(precision):
        return np.full(len(orders), math.inf)
    if rate == 1:
        return orders * precision / 2
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, orders.max() + 1)))])
    found = np.empty(len(orders))
    for number, order in enumerate(orders):
        k = np.arange(order + 1)
        choose = log_factorials[order] - log_factorials[k] - log_factorials[order - k]
        terms = choose + (order - k) * math.log1p(-rate) + k * math.log(rate) + (k * k - k) * (precision / 2)
        top = terms.max()
        found[number] = max(0.0, top + math.log(np.exp(terms - top).sum())) / (order - 1)
    return found


def rdp_epsilon(
    sampling_rate: float,
    noise_multiplier: float,
    steps: int,
    delta: float,
    orders: np.ndarray | None = None,
) -> Privacy:
    """The least epsilon that the steps give at this delta, over the orders a:

        steps times the Renyi divergence + log(1 - 1/a) - (log delta + log a) / (a - 1)

    (Canonne, Kamath & Steinke 2020, proposition 12).

    Parameters
    ----------
    sampling_rate : float
        0..1, the probability that a record is in a step's batch
    noise_multiplier : float
        at least 0: the noise's deviation over the bound of the gradients
    steps : int
        empty batches count
    delta : float
        above 0, below 1
    orders : int32 (orders,), optional
        2..65536; None: 2..256

    Returns
    -------
    Privacy

    Raises
    ------
    ArgumentError

    Notes
    -----
    It holds for batches drawn by Poisson sampling, for gradients of one record each, and for nothing else of the data:
    a quantile over a batch, or a length of the batch as a divisor, mixes records.
    """
    divergences = renyi_divergences(sampling_rate, noise_multiplier, orders)
    orders = _as_orders(orders)
    steps = check_integer("steps", steps, 0, 2**63 - 1)
    delta = check_number("delta", delta, 0, 1)
    if delta in (0, 1):
        raise ArgumentError(f"delta must be above 0 and below 1, got {delta:g}")
    if steps == 0 or sampling_rate == 0:
        return Privacy(0.0, 0)
    epsilons = steps * divergences + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    best = int(np.argmin(epsilons))
    return Privacy(max(0.0, float(epsilons[best])), int(orders[best]))


def _as_orders(orders: Any) -> np.ndarray:
    return check_integers("orders", _ORDERS if orders is None else orders, 2, _MOST_ORDER).astype(np.int64)
