"""Files that somebody cuts short, and processes that somebody kills: an error by name, and no litter for ever."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from fastdistill.checkpoint import write_checkpoint
from fastdistill.checkpoint.gguf import convert_gguf
from fastdistill.models import plan_for, quantize_folder
from tests.small_models import config, tensors

# Each cuts the file of weights after its header has been believed: where it is mapped, that ends the process.
CUT = """
import json, os, shutil, sys
from pathlib import Path
import fastdistill as fd
from fastdistill import api
from fastdistill.checkpoint import open_checkpoint
from fastdistill.models import plan_of, quantize_folder
from fastdistill.errors import CheckpointError

source, root, outcomes = Path(sys.argv[1]), Path(sys.argv[2]), {}

def attempt(name, length, action):
    folder = root / name
    shutil.copytree(source, folder)
    try:
        action(folder, lambda: os.truncate(folder / "model.safetensors", length))
        outcomes[name] = "done"
    except CheckpointError as error:
        outcomes[name] = str(error)

def load(executor, format):
    def action(folder, cut):
        api.plan_of = lambda checkpoint: (plan_of(checkpoint), cut())[0]
        fd.load(folder, format, executor=executor)
    return action

def load_before(folder, cut):
    api.plan_of = plan_of
    for executor in ("native", "reference"):
        model = fd.load(folder, executor=executor)
        before = model.logits([1, 2, 3])
        if executor == "reference":
            cut()
        assert (model.logits([1, 2, 3]) == before).all()

def quantize(format):
    return lambda folder, cut: quantize_folder(folder, root / "q", format, progress=lambda *_: cut())

def use(how):
    def action(folder, cut):
        with open_checkpoint(folder) as checkpoint:
            cut()
            for tensor in checkpoint.tensors.values():
                how(tensor)
    return action

for length in (0, (source / "model.safetensors").stat().st_size // 2):
    for executor in ("native", "reference"):
        for format in (None, "q8"):
            attempt(f"load {executor} {format} {length}", length, load(executor, format))
    attempt(f"before {length}", length, load_before)
    attempt(f"quantize {length}", length, quantize("q8"))
    attempt(f"copy {length}", length, quantize("f32"))
    attempt(f"values {length}", length, use(lambda tensor: tensor.to_float32()))
    attempt(f"data {length}", length, use(lambda tensor: tensor.data.sum()))
    attempt(f"parts {length}", length, use(lambda tensor: [part.sum() for part in tensor.parts.values()]))
    attempt(f"rows {length}", length, use(lambda tensor: tensor.rows(slice(0, 2)).data.sum()))
print(json.dumps(outcomes))
"""

# Converts or quantises, and waits in the midst of it.
WAITING = """
import sys
from fastdistill.checkpoint.gguf import convert_gguf
from fastdistill.models import quantize_folder

def wait(done, total):
    print("writing", flush=True)
    sys.stdin.read()

kind, source, destination = sys.argv[1:]
if kind == "convert":
    convert_gguf(source, destination, progress=wait)
else:
    quantize_folder(source, destination, "q8", progress=wait)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = config()
    folder = tmp_path_factory.mktemp("whole") / "model"
    write_checkpoint(folder, made.raw, tensors(plan_for(made)).values())
    return folder


def test_a_file_cut_short_while_it_is_used_is_an_error_with_its_name(folder, tmp_path):
    done = subprocess.run([sys.executable, "-c", CUT, folder, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done  # a mapped file: -SIGBUS
    outcomes = json.loads(done.stdout)
    for name, outcome in outcomes.items():
        if name.startswith("before"):
            assert outcome == "done"
        else:
            assert "model.safetensors: ends inside" in outcome and "cut meanwhile" in outcome, name
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("kind", ["convert", "quantize"])
def test_what_a_killed_writer_leaves_goes_with_the_next(folder, tmp_path, kind):
    source = folder
    if kind == "convert":
        pytest.importorskip("gguf")
        from tests.checkpoint.gguf_files import write_gguf

        source = tmp_path / "model.gguf"
        write_gguf(source)
    command = [sys.executable, "-c", WAITING, kind, source, tmp_path / "out" / "made"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "out").iterdir()
    assert left.name.startswith(".made.") and left.name.endswith(".partial")
    if kind == "convert":
        convert_gguf(source, tmp_path / "out" / "made")
    else:
        quantize_folder(source, tmp_path / "out" / "made", "q8")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["made"]
