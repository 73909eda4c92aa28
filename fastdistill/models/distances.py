"""Numbers by distance, which T5 and MPNet learn a bucket at a time: as `Builder.attention` wants them, one a distance.

A bucket holds distances: each of the near ones has its own, those farther away share buckets that grow with their logarithm
up to a largest distance, and all beyond are in the last one (Raffel et al. 2020).
"""

from __future__ import annotations

import math

import numpy as np

from fastdistill.models.source import Source, computed


def relative_position_bucket(
    distance: np.ndarray, bidirectional: bool, num_buckets: int, max_distance: int
) -> np.ndarray:
    """The bucket of each distance, as transformers' T5 and, with `bidirectional`, MPNet have it.

    Parameters
    ----------
    distance : int (n,)
        key position - query position
    bidirectional : bool
        half of the buckets are for keys behind the query; False: these all share the query's own
    num_buckets : int
        at least 2, or, bidirectional, 4 and even
    max_distance : int
        beyond which all share a bucket: more than half of a direction's buckets

    Returns
    -------
    int64 (n,)
        in 0 .. num_buckets - 1
    """
    distance = np.asarray(distance, np.int64)
    buckets = num_buckets // 2 if bidirectional else num_buckets
    exact = buckets // 2
    behind = (distance > 0) * buckets if bidirectional else np.zeros_like(distance)
    far = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    # In float32, as theirs: which bucket a distance at the border of two is in depends on how this rounds.
    logs = np.log((np.maximum(far, exact) / exact).astype(np.float32).astype(np.float64)).astype(np.float32)
    steps = logs / np.float32(math.log(max_distance / exact)) * np.float32(buckets - exact)
    return behind + np.where(far < exact, far, np.minimum(exact + steps.astype(np.int64), buckets - 1))


def bucket_reach(bidirectional: bool, num_buckets: int, max_distance: int) -> int:
    """The least distance from which on, on either side, all are in one bucket; arguments as of `relative_position_bucket`."""
    sides = np.arange(max_distance + 1)
    found = (relative_position_bucket(side, bidirectional, num_buckets, max_distance) for side in (sides, -sides))
    return max(int(np.argmax(buckets == buckets[-1])) for buckets in found)


def by_distance(table: Source, bidirectional: bool, max_distance: int) -> tuple[Source, int]:
    """What `Builder.attention` takes as `distances`, made of a stored table (num_buckets, heads), and its `reach`."""
    num_buckets, heads = table.shape
    reach = bucket_reach(bidirectional, num_buckets, max_distance)
    distances = np.arange(-reach, reach + 1)
    buckets = relative_position_bucket(distances, bidirectional, num_buckets, max_distance)
    shape = (heads * len(distances),)
    return computed("by distance", lambda numbers: numbers[buckets].T.ravel(), table, shape=shape), reach
