"""What settings make, trained: a small Llama that is killed and goes on, on any number of threads."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint.safetensors_file import read_safetensors
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.train.job import make_job
from fastdistill.train.runs import RunFolder, Settings
from tests.command_line import Terminal
from tests.test_cli import write_model
from tests.train.test_runs import measured

LONG = dict(rows=48, accumulate=2, epochs=2, learning_rate=3e-3, average=0.9, save_every=2, seed=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model of one layer, what it learns, and what is held out."""
    path = tmp_path_factory.mktemp("job")
    lines = [f'{{"prompt": "{number} and {number}", "completion": " are {2 * number}"}}\n' for number in range(30)]
    (path / "data.jsonl").write_text("".join(lines))
    (path / "held_out.txt").write_text("3 and 3 are 6\n")
    write_model(path / "model", layers=1)
    write_model(path / "teacher", layers=1, rms_norm_eps=1.0)
    return path


def settings(files: Path, **changes) -> Settings:
    held_out = str(files / "held_out.txt")
    return Settings(str(files / "model"), str(files / "data.jsonl"), **dict(evaluation=held_out) | LONG | changes)


def begin(files: Path, path: Path, **changes):
    job = make_job(settings(files, **changes))
    with RunFolder(path, job.config) as run:
        return job, job.train(run)


def go_on(path: Path, **changes):
    with RunFolder(path) as run:
        job = make_job(Settings.from_json(run.config["settings"], **changes))
        job.check(run.config)
        return job, job.train(run)


def state(path: Path) -> dict[str, bytes]:
    """Of the newest checkpoint."""
    newest = max((path / "checkpoints").iterdir())
    return {name: np.asarray(stored.array).tobytes() for name, stored in read_safetensors(newest).items()}


def killed(files: Path, path: Path, **changes) -> dict[str, bytes]:
    """The state of a run that was killed once."""
    process = os.fork()
    if process == 0:
        try:
            begin(files, path, **changes | dict(save_every=1))
        finally:
            os._exit(0)
    deadline = time.monotonic() + 30
    while not any(path.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    go_on(path)
    return state(path)


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    _, trained = begin(files, path)
    assert trained.finished
    return path


def test_it_learns(whole, files):
    lines = measured(whole)
    assert lines[-1]["loss"] < 0.8 * lines[1]["loss"] and lines[-1]["evaluation"] < lines[0]["evaluation"]
    kinds = {name.split("/")[0] for name in state(whole)}
    assert kinds == {"value", "first", "second", "average"}


@pytest.mark.parametrize("seed", range(3))
def test_killed_it_goes_on_to_the_same_bits_with_other_threads(files, whole, tmp_path, seed):
    path, delays = tmp_path / "run", random.Random(seed)
    for start in (lambda: begin(files, path, threads=2), lambda: go_on(path, threads=1)):
        process = os.fork()
        if process == 0:
            try:
                start()
            finally:
                os._exit(0)
        deadline = time.monotonic() + 30
        while not any(path.glob("checkpoints/step-*")) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(delays.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    _, trained = go_on(path, threads=2)
    assert trained.finished and state(path) == state(whole) and measured(path) == measured(whole)


def test_a_run_whose_data_or_model_has_changed_is_refused(files, whole, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "other"}\n')
    with pytest.raises(CheckpointError, match=f"changed since then: data {tmp_path / 'data.jsonl'}"):
        go_on(whole, data=str(tmp_path / "data.jsonl"))
    with pytest.raises(CheckpointError, match=f"changed since then: model {files / 'teacher'}"):
        go_on(whole, model=str(files / "teacher"))


@pytest.mark.parametrize("stored", [None, [1], {}, {"model": "m"}, {"model": "m", "data": "d", "other": 1}])
def test_settings_that_are_none_are_refused(stored):
    with pytest.raises(ArgumentError, match="settings of a run"):
        Settings.from_json(stored)


@pytest.mark.parametrize("damaged", [{}, {"sha256": [1]}, {"sha256": "x", "versions": [1]}])
def test_a_run_that_does_not_say_what_it_read_is_refused(files, damaged):
    with pytest.raises(CheckpointError, match="changed since then: model"):
        make_job(settings(files)).check(damaged)


def test_a_student_nears_its_teacher(files, tmp_path):
    teacher = str(files / "teacher")
    job, _ = begin(files, tmp_path / "run", objective="forward_kl", teacher=teacher, steps=6, epochs=None, average=0.0)
    lines = measured(tmp_path / "run")
    assert lines[-1]["evaluation"] < lines[0]["evaluation"] and set(job.digests) == {
        "model",
        "data",
        "evaluation",
        "teacher",
    }


def test_the_last_step_of_epochs_takes_what_is_left(files):
    job = make_job(settings(files, accumulate=4, epochs=1))
    batches = [batch for step in range(job.steps) for batch in job.step_batches(step)]
    assert len(batches) == job.batches.count() and 0 < len(job.step_batches(job.steps - 1)) <= 4
    assert sum(batch.sequences for batch in batches) == job.batches.per_epoch


def test_what_does_not_go_together_is_said_before_anything_is_trained(files):
    with pytest.raises(ArgumentError, match="cross_entropy takes no teacher"):
        make_job(settings(files, teacher=str(files / "teacher")))
    with pytest.raises(ArgumentError, match="steps must lie in 50"):
        make_job(settings(files, warmup=50, epochs=None, steps=10))


def test_what_was_trained_is_a_model_to_load(files, tmp_path):
    job, _ = begin(files, tmp_path / "run")
    job.save(tmp_path / "model")
    job.save(tmp_path / "model")  # a run that goes on at its end writes it again
    loaded = fd.load(tmp_path / "model")
    batch = job.evaluation[0]
    with job.average.swapped():  # which is what is written
        assert loaded.logits(batch.tokens)[:-1].tobytes() == job.engine.logits(batch).tobytes()
    assert loaded.generate("3 and 3", max_tokens=2).text
    assert not np.array_equal(loaded.logits(batch.tokens)[:-1], job.engine.logits(batch))


def test_pairs_of_low_rank_are_trained_alone_and_become_a_model_and_an_adapter(files, tmp_path):
    pairs = dict(lora=2, targets=("*q_proj*", "*up_proj*"), learning_rate=None, average=0.0)
    job, trained = begin(files, tmp_path / "run", **pairs)
    assert trained.finished and job.settings.learning_rate == 2e-4 and len(job.engine.parameters) == 4
    job.save(tmp_path / "model")
    loaded, batch = fd.load(tmp_path / "model"), job.evaluation[0]
    assert np.allclose(loaded.logits(batch.tokens)[:-1], job.engine.logits(batch), atol=2e-5)
    before, after = (read_safetensors(folder / "model.safetensors") for folder in (files / "model", tmp_path / "model"))
    moved = {name for name in before if not np.array_equal(before[name].array, after[name].array)}
    assert moved == {f"model.layers.0.{name}_proj.weight" for name in ("self_attn.q", "mlp.up")}
    adapter = read_safetensors(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-2] for name in adapter} == {"lora_A", "lora_B"} and len(adapter) == 4
    assert killed(files, tmp_path / "killed", **pairs) == state(tmp_path / "run")


def test_what_the_student_writes_is_the_same_after_a_kill(files, tmp_path):
    judged = dict(objective="reverse_kl", teacher=str(files / "teacher"), on_policy=0.7, average=0.0, epochs=1)
    job, trained = begin(files, tmp_path / "run", **judged)
    assert trained.finished and any(job.batches.own(number).any() for number in range(job.batches.count()))
    assert killed(files, tmp_path / "killed", **judged) == state(tmp_path / "run")


@pytest.mark.peers
def test_transformers_reads_what_was_trained(files, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    job, _ = begin(files, tmp_path / "run", average=0.0)
    job.save(tmp_path / "model")
    tokens = job.evaluation[0].tokens
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.float32
    with torch.no_grad():
        theirs = model(torch.tensor(tokens[None].astype(np.int64))).logits[0].numpy()
    ours = fd.load(tmp_path / "model").logits(tokens)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_in_a_terminal_it_shows_how_far_it_is_and_ctrl_c_saves(files, tmp_path):
    path = tmp_path / "run"
    options = ["--steps", "1000000", "--schedule", "constant", "--rows", "48", "--threads", "1"]
    terminal = Terminal("train", files / "model", files / "data.jsonl", "--out", path, *options)
    terminal.expect("loss ")
    terminal.expect("tokens/s  ")
    assert re.match(r"(\d+:)?\d+:\d\d left", terminal.expect(" left") + " left")
    terminal.interrupt()
    terminal.expect("this step is finished and saved first; Ctrl-C once more ends at once")
    step = int(
        terminal.expect(f", which is saved: `fastdistill train --resume {path}` goes on").split()[-1].replace(",", "")
    )
    assert terminal.end() == 130
    assert [file.name for file in (path / "checkpoints").iterdir()] == [f"step-{step:08}.safetensors"]
    assert [line["step"] for line in measured(path)] == list(range(1, step + 1))
