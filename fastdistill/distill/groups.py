"""Rows that belong together: those of a sequence, of a problem, of a response."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import as_array


def as_groups(name: str, groups: Any, rows: int) -> tuple[np.ndarray, int]:
    """The group of each row, int64 (rows,), numbered from 0 by ascending label, and how many there are.

    None makes one group of all rows.
    """
    if groups is None:
        return np.zeros(rows, np.int64), min(rows, 1)
    found = as_array(name, groups, np.int32, (rows,))
    labels, numbers = np.unique(found, return_inverse=True)
    return numbers.reshape(rows), len(labels)
