"""Packing: what loading takes at its peak."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastdistill.checkpoint import write_checkpoint
from fastdistill.models import plan_for
from tests.small_models import config, tensors

STATUS = Path("/proc/self/status")
MEASURE = """
import json, sys
from pathlib import Path
import fastdistill as fd
fd.load

def memory(what):
    return 1024 * int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])

before = memory("VmRSS")
model = fd.load(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
session = model.session(capacity=16, max_rows=16)
session.prefill(range(16))
seat = session.pool.take()
held = model.network.weights.nbytes + session.cache.nbytes + seat.executor.nbytes
session.pool.give_back(seat)
print(json.dumps([memory("VmHWM") - before, held, "tokenizers" in sys.modules]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """46 MB of weights, embedding and head two thirds of them."""
    made = config(hidden_size=256, intermediate_size=704, num_attention_heads=4, vocab_size=16000, layers=4)
    folder = tmp_path_factory.mktemp("packing") / "model"
    write_checkpoint(folder, made.raw, tensors(plan_for(made)).values())
    return folder


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("format", [[], ["bf16"], ["q8"]])
def test_loading_takes_little_more_than_what_stays(folder, format):
    done = subprocess.run([sys.executable, "-c", MEASURE, folder, *format], capture_output=True, text=True, check=True)
    peak, held, text = json.loads(done.stdout)
    assert not text
    # For Python, the allocator and a small tensor; what a large one takes while it is read and converted has gone before
    # the small ones are packed.  Half the file, or a second copy of the weights, is more.
    assert peak - held < 16 << 20
