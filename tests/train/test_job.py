"""What settings make, trained: a small Llama that is killed and goes on, on any number of threads."""

from __future__ import annotations

import os
import random
import re
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint.safetensors_file import read_safetensors
from fastdistill.distill import TeacherFile
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.text.tokenizer import Tokenizer
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
    paths = {
        name: str(files / file)
        for name, file in (("model", "model"), ("data", "data.jsonl"), ("evaluation", "held_out.txt"))
    }
    return Settings(**paths | LONG | changes)


def begin(files: Path, path: Path, **changes):
    job = make_job(settings(files, **changes))
    with RunFolder(path, job.config) as run:
        return job, job.train(run)


def go_on(path: Path, **changes):
    with RunFolder(path) as run:
        job = make_job(Settings.from_json(run.config["settings"] | changes))
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


def test_a_student_nears_its_teacher(files, tmp_path):
    teacher = str(files / "teacher")
    job, _ = begin(files, tmp_path / "run", objective="forward_kl", teacher=teacher, steps=6, epochs=None, average=0.0)
    lines = measured(tmp_path / "run")
    options = {"parameter": 0.2, "label_scale": 0.5, "temperature": 2.0}
    jsd = {"beta": 0.2, "label_scale": 0.5}
    told = make_job(settings(files, objective="jsd", objective_options=jsd, temperature=2.0, teacher=teacher)).objective
    assert {name: getattr(told, name) for name in options} == options
    assert lines[-1]["evaluation"] < lines[0]["evaluation"] and set(job.digests) == {
        "model",
        "data",
        "evaluation",
        "teacher",
    }


def test_a_student_learns_from_the_file_that_its_teacher_wrote(files, tmp_path, run, monkeypatch):
    losses = {}
    for name in ("model", "teacher"):
        answers, data = tmp_path / name, files / "data.jsonl"
        code, out, err = run("train", "teach", files / name, data, "--out", answers, "--top-k", 60, "--rows", 48)
        assert code == 0 and out.startswith(f"{answers}: what {files / name} says of 4") and "token 4" in err
        assert TeacherFile(answers).settings[:4] == (Tokenizer(files / name).vocab_size, 60, 5, name)
        begin(files, tmp_path / "run" / name, objective="forward_kl", teacher=str(answers), evaluation=None)
        losses[name] = measured(tmp_path / "run" / name)[0]["loss"]
    assert abs(losses["model"]) < 2e-3 < 0.02 < losses["teacher"]  # the student is its own teacher at first
    with pytest.raises(CheckpointError, match="its rows are of the data"):
        make_job(settings(files, rows=10, objective="forward_kl", teacher=str(answers), evaluation=None))

    def interrupt(bar, done, total):
        bar.done = done
        raise KeyboardInterrupt

    command = ("train", "teach", files / "teacher", data, "--out", tmp_path / "again", "--top-k", 60, "--rows", 48)
    with monkeypatch.context() as patch:
        patch.setattr("fastdistill.cli.train.TeachingBar.__call__", interrupt)
        code, _, err = run(*command)
    assert code == 130 and re.search(r"stopped after 2\d\d tokens, which are kept: the same command goes on", err)
    assert not (tmp_path / "again").exists()
    assert run(*command)[0] == 0 and (tmp_path / "again").read_bytes() == answers.read_bytes()
    code, _, err = run(*command)
    assert code == 1 and "again: is there already: choose another name" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "model", "run", "teacher"]


def test_the_last_step_of_epochs_takes_what_is_left(files):
    job = make_job(settings(files, accumulate=4, epochs=1))
    batches = [batch for step in range(job.steps) for batch in job.step_batches(step)]
    assert len(batches) == job.batches.count() and 0 < len(job.step_batches(job.steps - 1)) <= 4
    assert sum(batch.sequences for batch in batches) == job.batches.per_epoch


def test_what_does_not_go_together_is_said_before_anything_is_trained(files):
    with pytest.raises(ArgumentError, match="cross_entropy takes no teacher"):
        make_job(settings(files, teacher=str(files / "teacher")))
    for words, given in (
        ("jsd takes temperature, .*, beta, got 'skew'", dict(objective="jsd", objective_options={"skew": 0.5})),
        ("beta of jsd", dict(objective="jsd", objective_options={"beta": 2})),
        ("label_scale must be a number", dict(objective="jsd", objective_options={"label_scale": "much"})),
        ("cross_entropy takes no settings, got 'temperature'", dict(temperature=2.0)),
        ("objective jsd needs a teacher", dict(objective="jsd")),
    ):
        with pytest.raises(ArgumentError, match=words):
            make_job(settings(files, **given))
    with pytest.raises(ArgumentError, match="steps must lie in 50"):
        make_job(settings(files, warmup=50, epochs=None, steps=10))


@pytest.mark.parametrize(
    ("patterns", "moving"),
    [
        (dict(train=["*.mlp.*", "*norm*"], freeze=["*.down_proj.*"]), {"gate_proj", "up_proj", "norm", "input_layernorm", "post_attention_layernorm"}),
        (dict(train=["lm_head*"]), {"lm_head"}),
        (dict(freeze=["*layers*", "*lm_head*", "model.norm.*"]), {"embed_tokens"}),
    ],
)  # fmt: skip
def test_what_patterns_name_is_trained_and_all_else_stays(files, tmp_path, patterns, moving):
    path = write_model(tmp_path / "untied", layers=1, tie_word_embeddings=False)
    job, _ = begin(files, tmp_path / "run", model=str(path), average=0.0, epochs=None, steps=2, **patterns)
    assert {name.split(".")[-2] for name in job.engine.parameters} == moving
    job.save(tmp_path / "model")
    before, after = (read_safetensors(folder / "model.safetensors") for folder in (path, tmp_path / "model"))
    moved = {name for name in before if not np.array_equal(before[name].array, after[name].array)}
    assert moved == set(job.engine.parameters)


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (dict(train=["*.w_proj.*"]), r"train must name weights, such as model\.\S+; none is called '\*\.w_proj\.\*'"),
        (dict(freeze=["*", "nothing"]), r"freeze must name weights, such as model\.\S+; none is called 'nothing'"),
        (dict(train=[]), "train must name weights, .* got no pattern"),
        (dict(train="*norm*", freeze="*"), "train and freeze must leave weights to train"),
        (dict(train="*", lora=2), "train and freeze are of a run without lora"),
    ],
)
def test_patterns_that_name_nothing_are_refused(files, patterns, words):
    with pytest.raises(ArgumentError, match=words):
        make_job(settings(files, **patterns))


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
def test_peft_reads_the_adapter(files, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft", reason="peft is not installed")
    path, targets = write_model(tmp_path / "base"), ["*.q_proj.*", "*.1.mlp.*"]  # of both layers, and of one
    job, _ = begin(files, tmp_path / "run", model=str(path), lora=3, alpha=5.0, targets=targets, average=0.0)
    job.save(tmp_path / "model")
    tokens = torch.tensor(job.evaluation[0].tokens[None].astype(np.int64))
    base = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        before = base(tokens).logits[0].numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # it warns of pairs that it does not find
            model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
        pairs = {name for name, _ in model.named_parameters() if ".lora_A." in name}
        theirs = model(tokens).logits[0].numpy()
    assert len(pairs) == len(job.lora.pairs) == 5
    ours = job.engine.logits(job.evaluation[0], np.arange(tokens.shape[1]))
    most = 1e-4 * np.abs(theirs).max()
    assert np.abs(ours - theirs).max() < most < 10 * most < np.abs(before - theirs).max()


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
