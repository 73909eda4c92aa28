"""What loading takes; and sessions larger than the memory: an error that names the sizes and what to ask less of, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastdistill.checkpoint import write_checkpoint
from fastdistill.models import plan_for
from tests.small_models import config, tensors

CODE = """
import resource
import numpy as np
from fastdistill.errors import CapacityError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for
from fastdistill.runtime import Forward, forward_many
from fastdistill.runtime.network import Network
from fastdistill.runtime.read import Read
from tests.small_models import config, tensors

def made(**changes):
    plan = plan_for(config("plain", max_position_embeddings=1 << 20, **changes))
    return Network(plan, tensors(plan, format="q8"), threads=1)

small, wide = made(), made(vocab_size=1 << 16)
small.session(8).forward([1])
wide.session(8).forward([1])
# What there is already, which differs from process to process, and 300 MB: less than the caches and forwards asked for below.
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (300 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
refused = []
session = small.session(1 << 20, 256, "f32")
session.forward([1, 2])
try:
    session.cache.reserve(0, 1 << 20)  # what a forward does for its rows
except CapacityError as error:
    refused.append(str(error))
assert "no memory for a cache of 1048576 tokens" in refused[0], refused
for forward in (lambda s: s.forward(np.zeros(1 << 16, np.int32)), lambda s: s.forward([1] * 4096, read=Read(logits=True))):
    try:
        forward(wide.session(1 << 17, 1 << 16))
    except CapacityError as error:
        refused.append(str(error))
assert sum("give the session a smaller max_rows" in text for text in refused) == 2, refused
assert all("MB" in text for text in refused)
# What is there goes on: another session, in what the large one gives back, and its own rows.
want = small.session(8).forward([1, 2]).statistics.argmax.copy()
session.truncate(0)
assert session.forward([1, 2]).statistics.argmax.tolist() == want.tolist()
kept = [small.session(8) for _ in range(2)]
first, second = forward_many([(one, Forward([2], read=Read(sampler=Sampler(temperature=1.0, top_k=3)))) for one in kept])
assert first.tokens == second.tokens
print("all said")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_sessions_that_do_not_fit_are_refused_by_name():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "all said\n", done.stderr[-2000:]


LOADING = """
import sys
import fastdistill as fd
fd.load(sys.argv[1], format=sys.argv[2] or None)  # what a first one takes of the libraries
def peak(field):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(field))
open("/proc/self/clear_refs", "w").write("5")  # the peak is what there is now
before = peak("VmHWM")
model = fd.load(sys.argv[1], format=sys.argv[2] or None)
print(peak("VmHWM") - before, model.network.weights.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resets the peak as Linux does")
@pytest.mark.parametrize(("stored", "asked"), [("q4", ""), ("f32", "f16"), ("f32", "q8")])
def test_loading_never_takes_twice_the_weights(tmp_path, stored, asked):
    """One stored tensor at a time is there beside those that are packed, the largest when nothing else is."""
    made = config("plain", layers=4, hidden_size=256, intermediate_size=1024, vocab_size=20000)
    weights = tensors(plan_for(made), format=stored).values()
    write_checkpoint(tmp_path / "model", made.raw, weights, {})
    command = [sys.executable, "-c", LOADING, str(tmp_path / "model"), asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    taken, packed = map(int, done.stdout.split())
    assert taken < min(packed + max(tensor.nbytes for tensor in weights) + (2 << 20), 2 * packed), (taken, packed)
