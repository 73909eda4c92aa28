"""`fastdistill train`: what it says, how it ends, and what it refuses; with an engine that stands in."""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
from PIL import Image

from fastdistill.arguments import check_choice
from fastdistill.cli.train import TrainingBar
from fastdistill.errors import ArgumentError
from fastdistill.show.curves_png import curves_png, smoothed, ticks_of
from fastdistill.train.runs.settings import SCHEDULES, Settings
from tests.train import stand_in
from tests.train.test_runs import measured


class Job:
    """As `make_job` makes it, of a bigram table."""

    def __init__(self, settings: Settings, report) -> None:
        self.settings, self.steps = settings, settings.steps
        self.config = {"settings": settings.to_json(), "steps": self.steps}
        self.interrupted = os.environ.get("INTERRUPTED_IN")
        report(f"loading {settings.model}")

    def check(self, config) -> None:
        stored = json.loads(json.dumps(self.config))
        stored["settings"]["threads"] = config["settings"]["threads"]
        assert config == stored

    def train(self, run, report, stop):
        def batches(step):
            if str(step) == self.interrupted:
                os.kill(os.getpid(), signal.SIGINT)
            return stand_in.batches(step)

        trained, self.state, _ = stand_in.go(run, self.steps, batches=batches, stop=stop, report=report)
        return trained

    def save(self, folder) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "state").write_bytes(b"".join(self.state[name].tobytes() for name in sorted(self.state)))


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fastdistill.train.job", SimpleNamespace(make_job=Job))
    monkeypatch.chdir(tmp_path)


def test_a_run_ends_with_a_model(run, tmp_path):
    (tmp_path / "data.txt").touch()
    code, out, err = run(
        "train",
        "some-model",
        "data.txt",
        "--out",
        "runs/a",
        "--steps",
        "12",
        "--lora",
        "4",
        "--targets",
        "*q*,*v*",
        "--objective",
        "jsd",
        "--objective-option",
        "beta=0.1",
        "--objective-option",
        "tail=drop",
    )
    assert code == 0 and out.startswith(
        "runs/a/model: the model after 12 steps; try `fastdistill generate runs/a/model"
    )
    assert err.startswith("loading some-model\n") and "step 12/12  loss " in err and "held out" in err
    stored = json.loads((tmp_path / "runs/a/config.json").read_text())["settings"]
    assert stored["data"] == str(tmp_path / "data.txt") and stored["model"] == "some-model"  # from wherever it goes on
    assert stored["objective_options"] == {"beta": 0.1, "tail": "drop"}
    assert (stored["lora"], stored["targets"], stored["learning_rate"], stored["schedule"]) == (
        4,
        ["*q*", "*v*"],
        2e-4,
        "cosine",
    )


def test_interrupted_it_says_how_to_go_on_and_does(run, tmp_path, monkeypatch):
    assert run("train", "m", "d", "--out", "whole", "--steps", "12")[0] == 0
    monkeypatch.setenv("INTERRUPTED_IN", "6")
    code, out, err = run("train", "m", "d", "--out", "a", "--steps", "12")
    assert (
        code == 130
        and out == ""
        and err.endswith("stopped after step 7, which is saved: `fastdistill train --resume a` goes on\n")
    )
    monkeypatch.delenv("INTERRUPTED_IN")
    code, out, err = run("train", "--resume", "a", "--threads", "1")
    assert code == 0 and "going on from step 7\n" in err and "after 12 steps" in out
    assert (tmp_path / "a/model/state").read_bytes() == (tmp_path / "whole/model/state").read_bytes()
    assert measured(tmp_path / "a") == measured(tmp_path / "whole")
    code, out, _ = run("train", "--resume", "a")  # there is nothing left to do
    assert code == 0 and "after 12 steps" in out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("train", 2, "train needs MODEL DATA --out RUN, or --resume RUN, or teach, or plot RUN; got none of these"),
        ("train m d", 2, "train needs MODEL DATA --out RUN"),
        ("train m --out r", 2, "got m"),
        ("train --resume r m d", 2, "no MODEL, DATA or --out beside it"),
        ("train --resume r --steps 5 --eval x", 2, "--resume takes a run as it is, not --eval, --steps"),
        ("train plot r --seed 5", 2, "plot takes a run as it is, not --seed"),
        ("train teach m", 2, "teach needs MODEL DATA --out FILE, got m"),
        ("train teach m d --out r --steps 5 --resume x", 2, "teach takes --top-k, --rows, --max-length, --train-on, --format, --threads, not --steps, --resume"),
        ("train m d --out r --top-k 5", 2, "--top-k goes with teach MODEL DATA"),
        ("train plot", 2, "plot needs a run"),
        ("train --resume nowhere", 1, "nowhere: there is no such run"),
        ("train plot nowhere", 1, "nowhere: there is no such run"),
        ("train m d --out full", 1, "full: is there already and is no run"),
        ("train m d --out r --steps 0", 2, "steps must lie in 1..2147483647, got 0"),
        ("train m d --out r --steps 5 --epochs 5", 2, "steps or epochs must say how long the run is, got both"),
        ("train m d --out r --minutes 5 --schedule linear", 2, "schedule linear needs steps or epochs, got minutes alone"),
        ("train m d --out r --alpha 5", 2, "alpha go with lora, got no rank"),
        ("train m d --out r --lora 4 --freeze *", 2, "train and freeze are of a run without lora"),
        ("train m d --out r --objective-option beta", 2, "--objective-option must be NAME=VALUE, a name, got 'beta'"),
        ("train m d --out r --objective-option temperature=2", 2, "objective_options must not have temperature"),
        ("train m d --out r --on-policy 0.5", 2, "on_policy needs a teacher, who judges"),
        ("train m d --out r --format q2", 2, "invalid choice: 'q2'"),
    ],
)  # fmt: skip
def test_wrong_use_is_said_and_makes_nothing(run, tmp_path, arguments, code, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    found, out, err = run(*arguments.split())
    assert (found, out) == (code, "") and words in err and not (tmp_path / "r").exists()


def test_settings_are_what_is_stored_of_them():
    for given in (
        {},
        {"minutes": 3},
        {"lora": 2, "targets": ["a"]},
        {"objective_options": {"beta": 0.5, "tail": "drop"}},
        {"steps": 3, "warmup": 0, "checkpoint": True},
    ):
        settings = Settings("m", "d", **given)
        assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert Settings("m", "d").epochs == 1 and Settings("m", "d", minutes=3).schedule == "constant"
    assert Settings("m", "d").warmup_of(100) == 4 and Settings("m", "d", warmup=7).warmup_of(100) == 7
    with pytest.raises(ArgumentError, match="settings of a run that this version does not know: colour"):
        Settings.from_json({"model": "m", "data": "d", "colour": 3})
    for schedule in SCHEDULES:
        assert check_choice("schedule", Settings("m", "d", schedule=schedule).schedule, SCHEDULES)


def test_time_left_is_by_steps_or_by_the_clock(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    bar = TrainingBar(1000, None)
    for step in (11, 12, 1000):  # it went on from step 10
        bar({"step": step, "loss": 2.0, "tokens_per_second": 1234.5, "seconds": 1.0})
        now += 4.0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 11/1,000  loss 2.0000  1,234 tokens/s",
        "step 1,000/1,000  loss 2.0000  1,234 tokens/s  0:00 left",
    ]
    TrainingBar(None, 90)({"step": 1, "loss": 2.0, "tokens_per_second": 10, "seconds": 60.0})
    assert capsys.readouterr().err == "step 1  loss 2.0000  10 tokens/s  1:29:00 left\n"


# ---- pictures ----


def test_plot_draws_the_losses_of_runs(run, tmp_path):
    for name in "ab":
        assert run("train", "m", "d", "--out", name, "--steps", "12")[0] == 0
    code, out, err = run("train", "plot", "a")
    assert (code, out, err) == (0, "a/loss.png: the losses of a\n", "")
    code, out, err = run("train", "plot", "a", "b", "--out", "both.png")
    assert code == 0 and out == "both.png: the losses of a, b\n"
    with Image.open(tmp_path / "a/loss.png") as one, Image.open(tmp_path / "both.png") as both:
        assert one.size == both.size
        colours = [{colour for _, colour in image.getcolors(1 << 16)} for image in (one, both)]
    assert (31, 119, 180) in colours[0] and (214, 90, 30) not in colours[0] and (214, 90, 30) in colours[1]


def test_a_picture_needs_a_loss(tmp_path):
    with pytest.raises(ArgumentError, match=r"there is no loss to draw yet in \['a'\]"):
        curves_png({"a": [{"step": 1, "loss": float("nan")}]}, tmp_path / "a.png")
    curves_png({"a": [{"step": 0, "evaluation": 1.0}]}, tmp_path / "a.png")  # one point, and a range of nothing


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 12), (1.8, 4.2), (0.001, 0.0011), (2, 2e9), (-3, 0.5)])
def test_ticks_are_round_and_reach_around(low, high):
    ticks = ticks_of(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 3 <= len(ticks) <= 9
    steps = {f"{b - a:.3e}" for a, b in pairwise(ticks)}
    assert len(steps) == 1 and next(iter(steps))[0] in "125"


def test_means_of_neighbours_keep_lines_and_places():
    points = [(step, 3.0) for step in range(200)]
    assert smoothed(points) == points and smoothed([]) == []
    assert smoothed([(step, float(step)) for step in range(200)])[100] == (100, 100.0)
