"""train: what a model learns from files, in a run that goes on wherever it was interrupted; and its curves."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdistill.cli.options import flag
from fastdistill.cli.terminal import FORMATS, add_command, say
from fastdistill.errors import ArgumentError

if TYPE_CHECKING:
    from fastdistill.train.job import Job
    from fastdistill.train.loop import Record
    from fastdistill.train.runs import RunFolder

_TRAIN = """\
  fastdistill train smollm2-135m-instruct chats.jsonl --out runs/first
  fastdistill train ./model texts/ --out runs/second --epochs 3 --rows 1024 --accumulate 4 --eval held_out.jsonl
  fastdistill train ./model chats.jsonl --out runs/lora --lora 16 --format q8 --minutes 30
  fastdistill train ./student chats.jsonl --out runs/distilled --objective forward_kl --teacher ./teacher
  fastdistill train ./student chats.jsonl --out runs/judged --objective reverse_kl --teacher ./teacher --on-policy 0.5
  fastdistill train --resume runs/first
  fastdistill train plot runs/first runs/second --out loss.png
  fastdistill generate runs/first/model "Once upon a time"

DATA is a .jsonl file, of which each line is {"text": ...}, {"prompt": ..., "completion": ...} or {"messages": [...]}, a .txt
file, or a folder of such. Of prompts and conversations the answers alone are learnt.

RUN holds config.json (all that decides the run), metrics.jsonl (a line a step), checkpoints/ (the newest two) and at the end
model/, a folder to load; with --lora also adapter/, the pairs alone, as PEFT reads them. A step takes --accumulate batches of
at most --rows tokens, whose gradients add up to those of one.

Ctrl-C finishes the step, saves and ends, and --resume goes on; so it does after a crash, a power cut or a full disk, from
the newest checkpoint. The weights at the end are those of a run that nothing interrupted, bit for bit.
"""
_USAGE = """\
fastdistill train MODEL DATA --out RUN [options]
       fastdistill train --resume RUN
       fastdistill train plot RUN ... [--out loss.png]"""
_SECONDS = 30.0  # between lines where stderr is no terminal

# Options as Settings calls them: type, placeholder, help.
_NUMBERS: dict[str, tuple[type, str, str]] = {
    "steps": (int, "N", "steps of the run"),
    "epochs": (int, "N", "or how often it sees the data (default: 1)"),
    "minutes": (float, "M", "or how long it works"),
    "rows": (int, "N", "most tokens of a batch (default: 512)"),
    "accumulate": (int, "N", "batches a step (default: 1)"),
    "max_length": (int, "N", "cut longer texts in pieces of so many tokens (default: --rows)"),
    "learning_rate": (float, "R", "the highest (default: 5e-5; with --lora 2e-4)"),
    "warmup": (int, "N", "steps in which the rate rises (default: a thirtieth of all)"),
    "weight_decay": (float, "W", "decoupled, of matrices (default: 0.01)"),
    "clip": (float, "C", "most of the gradient's norm; 0: any (default: 1)"),
    "average": (float, "D", "write a mean of the weights over the steps, of which each step keeps D, such as 0.999"),
    "temperature": (float, "T", "that a divergence divides logits by (default: 1)"),
    "on_policy": (
        float,
        "P",
        "how probable it is that the student completes a prompt itself, for --teacher to judge (default: 0)",
    ),
    "seed": (int, "N", "of the order of examples (default: 0)"),
    "threads": (int, "N", "change no bit (default: FASTDISTILL_THREADS, else what this process may use)"),
    "evaluate_every": (int, "N", "steps between measures of --eval (default: a tenth of all)"),
    "save_every": (int, "N", "steps between checkpoints (default: by minutes alone)"),
    "save_minutes": (float, "M", "minutes between checkpoints (default: 10)"),
}


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "train", run_train, "train a model on files, go on with a run, or draw its losses", _TRAIN
    )
    parser.usage = _USAGE
    parser.add_argument(
        "words",
        metavar="MODEL DATA",
        nargs="*",
        help="a model's folder or name, and files to learn from; or: plot RUN ...",
    )
    parser.add_argument("--out", metavar="RUN", help="the folder to make; of plot the picture (default: RUN/loss.png)")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run, as it was begun")
    parser.add_argument("--eval", dest="evaluation", metavar="FILE", help="held out: its loss is measured on the way")
    parser.add_argument(
        "--objective",
        metavar="NAME",
        help="cross_entropy (default), or a divergence from --teacher: forward_kl, reverse_kl, jsd, ...",
    )
    parser.add_argument("--teacher", metavar="MODEL|FILE", help="a model, or a file of its answers to DATA")
    parser.add_argument(
        "--lora", type=int, metavar="RANK", help="train pairs of low rank beside frozen weights (default: all weights)"
    )
    parser.add_argument(
        "--alpha", type=float, metavar="A", help="of --lora: pairs count A / RANK times (default: 2 RANK)"
    )
    parser.add_argument(
        "--targets",
        metavar="PATTERN,...",
        help="of --lora: matrices, such as *q_proj*,*v_proj* (default: all of layers)",
    )
    parser.add_argument(
        "--schedule", choices=("cosine", "linear", "constant"), help="how the rate falls (default: cosine)"
    )
    parser.add_argument(
        "--train-on",
        choices=("completions", "all"),
        help="what is learnt of prompts and conversations (default: completions)",
    )
    parser.add_argument("--format", choices=FORMATS, help="of weights that are not trained (default: as stored)")
    parser.add_argument(
        "--checkpoint", action="store_true", default=None, help="compute activations twice: less memory, more time"
    )
    for name, (kind, placeholder, words) in _NUMBERS.items():
        parser.add_argument(flag(name), type=kind, metavar=placeholder, help=words)


def run_train(arguments: argparse.Namespace) -> None:
    words, out, resume = arguments.words, arguments.out, arguments.resume
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    given = {name: value for name, value in given.items() if name not in ("words", "out", "resume", "run")}
    plotting = words[:1] == ["plot"]
    fixed = [name for name in given if plotting or (resume is not None and name != "threads")]  # threads decide nothing
    if fixed:
        options = ", ".join(flag("eval" if name == "evaluation" else name) for name in fixed)
        raise ArgumentError(f"{'plot' if plotting else '--resume'} takes a run as it is, not with {options}")
    if plotting:
        plot(words[1:], out)
    elif resume is not None:
        if words or out is not None:
            raise ArgumentError("--resume RUN goes on with what the run was given: no MODEL, DATA or --out beside it")
        go_on(Path(resume), given)
    elif len(words) != 2 or out is None:
        raise ArgumentError(
            f"train needs MODEL DATA --out RUN, or --resume RUN, or plot RUN; got {' '.join(words) or 'none of these'}"
        )
    else:
        begin(dict(zip(("model", "data"), words, strict=True)) | given, Path(out))


def begin(given: dict[str, Any], out: Path) -> None:
    """A new run."""
    from fastdistill.train.job import make_job
    from fastdistill.train.runs import RunFolder, Settings
    from fastdistill.train.runs.folder import check_free

    for name in ("model", "data", "evaluation", "teacher"):
        if os.path.exists(given.get(name, "")):  # the run may go on from another place
            given[name] = os.path.abspath(given[name])
    if "targets" in given:
        given["targets"] = tuple(given["targets"].split(","))
    settings = Settings(**given)
    check_free(out)
    job = make_job(settings, say)
    with RunFolder(out, job.config) as run:
        _work(job, run)


def go_on(path: Path, given: dict[str, Any]) -> None:
    """A run that is there, with other threads perhaps."""
    from fastdistill.train.job import make_job
    from fastdistill.train.runs import RunFolder, Settings

    with RunFolder(path) as run:
        job = make_job(Settings.from_json(run.config.get("settings"), **given), say)
        job.check(run.config)
        say(f"going on from step {run.saved:,}")
        _work(job, run)


def plot(paths: list[str], out: str | None) -> None:
    from fastdistill.show import curves_png
    from fastdistill.train.runs import read_config, read_metrics

    if not paths:
        raise ArgumentError("plot needs a run: fastdistill train plot RUN")
    for path in paths:
        read_config(Path(path))
    picture = Path(out) if out is not None else Path(paths[0]) / "loss.png"
    runs = {path: read_metrics(Path(path) / "metrics.jsonl") for path in paths}
    curves_png(runs, picture)
    print(f"{picture}: the losses of {', '.join(paths)}")


def _work(job: Job, run: RunFolder) -> None:
    from fastdistill.train.runs import Interruption

    with Interruption() as stop, TrainingBar(job.steps, job.settings.minutes) as bar:
        trained = job.train(run, bar, stop)
    if not trained.finished:
        say(f"stopped after step {trained.step:,}, which is saved: `fastdistill train --resume {run.path}` goes on")
        sys.exit(128 + signal.SIGINT)
    job.save(run.model)
    print(f'{run.model}: the model after {trained.step:,} steps; try `fastdistill generate {run.model} "..."`')


class TrainingBar:
    """How far a run is: a line that is written over where stderr is a terminal, a line now and then elsewhere.

    Called with the metrics of each step.
    """

    def __init__(self, steps: int | None, minutes: float | None) -> None:
        self._steps, self._seconds = steps, None if minutes is None else 60 * minutes
        self._terminal = sys.stderr.isatty()
        self._said, self._begun, self._held_out = -_SECONDS, None, ""  # type: float, tuple[int, float] | None, str

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._begun is not None:
            print(file=sys.stderr)

    def __call__(self, record: Record) -> None:
        if "evaluation" in record:
            self._held_out = f"  held out {record['evaluation']:.4f}"
        if "loss" not in record:
            return
        step, now = record["step"], time.monotonic()
        self._begun = self._begun or (step, now)
        share = step / self._steps if self._steps else 0.0
        if self._seconds:
            share = max(share, min(1.0, record["seconds"] / self._seconds))
        of = f"/{self._steps:,}" if self._steps else ""
        words = (
            f"step {step:,}{of}  loss {record['loss']:.4f}{self._held_out}  {record['tokens_per_second']:,.0f} tokens/s"
        )
        if left := self._left(share, record, now):
            words += f"  {left} left"
        if self._terminal:
            width = shutil.get_terminal_size().columns - len(words) - 4
            full = round(share * min(width, 30))
            bar = f"{'#' * full}{'.' * (min(width, 30) - full)}  " if width >= 10 else ""
            sys.stderr.write(f"\r{bar}{words}\x1b[K")
            sys.stderr.flush()
        elif now - self._said >= _SECONDS or share >= 1:
            self._said = now
            say(words)

    def _left(self, share: float, record: Record, now: float) -> str:
        """Until the end, as steps have gone since this process began."""
        assert self._begun is not None
        first, begun = self._begun
        times = []
        if self._steps and record["step"] > first:
            times.append((now - begun) / (record["step"] - first) * (self._steps - record["step"]))
        if self._seconds:
            times.append(max(0.0, self._seconds - record["seconds"]))
        if not times:
            return ""
        minutes, seconds = divmod(round(min(times)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
