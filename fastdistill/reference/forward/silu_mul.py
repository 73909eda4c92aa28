"""What the silu_mul op means (the gate of Shazeer 2020)."""

from __future__ import annotations

import numpy as np


def silu_mul(gate, up):
    """gate / (1 + e^-gate) * up, in float64."""
    gate = gate.astype(np.float64)
    with np.errstate(over="ignore"):
        return gate / (1 + np.exp(-gate)) * up
