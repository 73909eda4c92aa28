"""Files of measured costs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from fastdistill.decode.costs import UNKNOWN, Costs
from fastdistill.files import parse_json
from tests.fuzz.law import lawful
from tests.fuzz.mutators import json_changed

changed = json_changed
MEASURED = Costs((1, 2, 4, 8), (32, 512), ((0.01, 0.011, 0.012, 0.02), (0.02, 0.021, 0.022, 0.03)))


def run(data: bytes) -> None:
    with lawful():
        costs = Costs.from_dict(parse_json(data, "costs"))
        for context in (0, 100, 1 << 30):
            seconds = costs.by_rows(context)
            assert np.isfinite(seconds).all() and (seconds > 0).all() and (np.diff(seconds) >= 0).all()
        assert Costs.from_dict(json.loads(json.dumps(costs.as_dict()))) == costs and str(costs)


def seeds() -> Iterator[bytes]:
    for costs in (UNKNOWN, MEASURED):
        yield json.dumps(costs.as_dict()).encode()
