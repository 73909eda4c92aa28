"""Sessions larger than the memory: an error of ours that names the sizes and what to ask less of, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
from fastdistill.errors import CapacityError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for
from fastdistill.runtime import forward_many
from fastdistill.runtime.network import Network
from fastdistill.runtime.read import Read
from tests.small_models import config, tensors

def made(**changes):
    plan = plan_for(config("plain", max_position_embeddings=1 << 20, **changes))
    return Network(plan, tensors(plan, format="q8"), threads=1)

small, wide = made(), made(vocab_size=1 << 16)
small.session(8).forward([1])
# What there is already, which differs from process to process, and half of the largest cache that is asked for below.
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + small.session(1 << 20, 1, "f32").cache.array.nbytes // 2
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
kept, refused = [], []
for network in (small, wide):
    for capacity in (1, 1 << 10, 1 << 20):
        for max_rows in (1, 256, 1 << 16):
            try:
                network.session(capacity, max_rows, "f32").forward([1])
            except CapacityError as error:
                refused.append(str(error))
assert sum("give the session a smaller capacity" in text for text in refused) >= 4, refused
assert sum("give the session a smaller max_rows" in text for text in refused) >= 2, refused
assert all("MB" in text for text in refused)
# Many sessions, until there is no place for another: those there are go on.
try:
    while True:
        kept.append(small.session(1 << 16))
        kept[-1].forward([1])
except CapacityError:
    pass
assert len(kept) > 2
del kept[2:]
first, second = forward_many([(session, dict(tokens=[2], read=Read(sampler=Sampler(temperature=1.0, top_k=3)))) for session in kept])
assert first.tokens == second.tokens
print("all said")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_sessions_that_do_not_fit_are_refused_by_name():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "all said\n", done.stderr[-2000:]
