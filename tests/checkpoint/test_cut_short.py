"""Files that somebody cuts short, and folders that somebody replaces: an error by name, or one of the two."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import fastdistill as fd
from fastdistill.checkpoint import write_checkpoint
from fastdistill.errors import CheckpointError, TextError
from fastdistill.files import replace
from fastdistill.models import plan_for
from tests.process.moments import at_line, moments
from tests.small_models import config, tensors
from tests.text.tokenizers_made_here import byte_level

READING = "checkpoint", "files.py", "fetch.py"

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = config()
    folder = tmp_path_factory.mktemp("whole") / "model"
    settings = {"chat_template": "{% for turn in messages %}{{ turn.content }}{% endfor %}", "eos_token": None}
    files = {"tokenizer.json": byte_level(), "tokenizer_config.json": settings}
    data = {name: json.dumps(content).encode() for name, content in files.items()}
    write_checkpoint(folder, made.raw, tensors(plan_for(made)).values(), data)
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


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_has_been_cut_short_is_an_error_with_its_name(folder, tmp_path, name):
    whole = (folder / name).read_bytes()
    shutil.copytree(folder, tmp_path / "model")
    for length in sorted({0, 1, 7, 8, len(whole) // 3, len(whole) // 2, len(whole) - 1}):
        (tmp_path / "model" / name).write_bytes(whole[:length])
        with pytest.raises(TextError, match=f"{tmp_path}/model/{name}: "):
            fd.load(tmp_path / "model").chat([{"role": "user", "content": "a"}], max_tokens=1)


def test_a_folder_that_is_replaced_while_it_is_loaded_is_the_old_one_or_the_new_one(folder, tmp_path):
    """Never a config of the one and weights of the other."""
    logits = {}
    for name, changes in {"other numbers": dict(rope_theta=50.0), "other sizes": dict(intermediate_size=128)}.items():
        other = config(**changes)
        write_checkpoint(tmp_path / name, other.raw, tensors(plan_for(other), seed=9).values())
        logits[name] = fd.load(tmp_path / name).logits([1, 2, 3]).tobytes()
    old, found = fd.load(folder).logits([1, 2, 3]).tobytes(), set()
    for name in logits:
        for moment in moments(lambda: fd.load(folder), 12, READING):
            target, work = tmp_path / "model", tmp_path / "work"
            shutil.copytree(folder, target)
            shutil.copytree(tmp_path / name, work / "made")

            def replaced(target=target, work=work):
                replace(target, work / "made", work)

            got = []
            try:
                at_line(lambda target=target, got=got: got.append(fd.load(target)), moment, replaced, READING)
                outcome = got[0].logits([1, 2, 3]).tobytes()
                assert outcome in (old, logits[name])
                found.add("old" if outcome == old else "new")
            except CheckpointError as error:
                found.add("error")
                assert f"{target}: was replaced while it was read: load it again" in str(error)
            shutil.rmtree(target)
            shutil.rmtree(work)
    assert found >= {"old", "error"}  # new, if it comes before the first file is looked for
