"""Optimal transport between weighted points: entropic, debiased, and exact on a line."""

from fastdistill.kernels.transport.pairwise_distance import pairwise_distance
from fastdistill.transport.divergence import Divergence, sinkhorn_divergence
from fastdistill.transport.sinkhorn import Transport, sinkhorn
from fastdistill.transport.wasserstein_1d import wasserstein_1d

__all__ = ["Divergence", "Transport", "pairwise_distance", "sinkhorn", "sinkhorn_divergence", "wasserstein_1d"]
