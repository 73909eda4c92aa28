"""train: what a model learns from files, in a run that goes on wherever it was interrupted; a teacher's answers; curves."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdistill.cli.options import flag, named_values
from fastdistill.cli.terminal import FORMATS, add_command, say
from fastdistill.errors import ArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self

    from fastdistill.train.job import Job
    from fastdistill.train.loop import Record
    from fastdistill.train.runs import RunFolder

_TRAIN = """\
  fastdistill train smollm2-135m-instruct chats.jsonl --out runs/first
  fastdistill train ./model texts/ --out runs/second --epochs 3 --rows 1024 --accumulate 4 --eval held_out.jsonl
  fastdistill train ./model chats.jsonl --out runs/third --freeze "*embed*,*lm_head*"
  fastdistill train ./model chats.jsonl --out runs/lora --lora 16 --format q8 --minutes 30
  fastdistill train ./student chats.jsonl --out runs/distilled --objective forward_kl --teacher ./teacher
  fastdistill train ./student chats.jsonl --out runs/judged --objective jsd --objective-option beta=0.1 \
      --teacher ./teacher --on-policy 0.5
  fastdistill train teach ./teacher chats.jsonl --out answers.safetensors
  fastdistill train ./student chats.jsonl --out runs/answered --objective forward_kl --teacher answers.safetensors
  fastdistill train --resume runs/first
  fastdistill train plot runs/first runs/second --out loss.png
  fastdistill generate runs/first/model "Once upon a time"

DATA is a .jsonl file, of which each line is {"text": ...}, {"prompt": ..., "completion": ...} or {"messages": [...]}, a .txt
file, or a folder of such. Of prompts and conversations the answers alone are learnt.

RUN holds config.json (all that decides the run), metrics.jsonl (a line a step), checkpoints/ (the newest two) and at the end
model/, a folder to load; with --lora also adapter/, the pairs alone, as PEFT reads them. A step takes --accumulate batches of
at most --rows tokens, whose gradients add up to those of one.

teach writes a file of what a model says of DATA, for students that read it in the same tokens, with the same --rows,
--max-length and --train-on; interrupted, the same command goes on.

Ctrl-C finishes the step, saves and ends, and --resume goes on; so it does after a crash, a power cut or a full disk, from
the newest checkpoint. The weights at the end are those of a run that nothing interrupted, bit for bit.
"""
_USAGE = """\
fastdistill train MODEL DATA --out RUN [options]
       fastdistill train --resume RUN
       fastdistill train teach MODEL DATA --out FILE [--top-k K]
       fastdistill train plot RUN ... [--out loss.png]"""
_OF_TEACH = "top_k", "rows", "max_length", "train_on", "format", "threads"
_CALLED = {"evaluation": "eval", "objective_options": "objective_option"}  # settings, on the command line
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
        commands,
        "train",
        run_train,
        "train a model on files, go on with a run, write a teacher's answers, or draw losses",
        _TRAIN,
    )
    parser.usage = _USAGE
    parser.add_argument(
        "words",
        metavar="MODEL DATA",
        nargs="*",
        help="a model's folder or name, and files to learn from; or: teach MODEL DATA; or: plot RUN ...",
    )
    parser.add_argument(
        "--out",
        metavar="RUN",
        help="the folder to make; of teach the file, of plot the picture (default: RUN/loss.png)",
    )
    parser.add_argument("--resume", metavar="RUN", help="go on with a run, as it was begun")
    parser.add_argument("--eval", dest="evaluation", metavar="FILE", help="held out: its loss is measured on the way")
    parser.add_argument(
        "--objective",
        metavar="NAME",
        help="cross_entropy (default), or a divergence from --teacher: forward_kl, reverse_kl, jsd, ...",
    )
    parser.add_argument(
        "--objective-option",
        dest="objective_options",
        action="append",
        metavar="NAME=VALUE",
        help="what a divergence is told: label_scale=0.5 (cross entropy of labels beside it), beta=0.1 of jsd, ...; may be repeated",
    )
    parser.add_argument("--teacher", metavar="MODEL|FILE", help="a model, or a file of its answers to DATA")
    parser.add_argument(
        "--train", metavar="PATTERN,...", help="weights to train, such as *.mlp.*,*norm* (default: all)"
    )
    parser.add_argument("--freeze", metavar="PATTERN,...", help="of these, weights to leave as they are")
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="of teach: tokens that are kept of each row (default: 50)"
    )
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
    verb = words[0] if words[:1] in (["teach"], ["plot"]) else "--resume" if resume is not None else "train"
    if verb != "train":
        taken = {"plot": (), "--resume": ("threads",), "teach": _OF_TEACH}[verb]  # threads decide nothing
        refused = [flag(_CALLED.get(name, name)) for name in given if name not in taken]
        refused += ["--resume"] if resume is not None and verb != "--resume" else []
        if refused:
            takes = ", ".join(map(flag, taken)) if verb == "teach" else "a run as it is"
            raise ArgumentError(f"{verb} takes {takes}, not {', '.join(refused)}")
    elif "top_k" in given:
        raise ArgumentError("--top-k goes with teach MODEL DATA")
    if verb == "plot":
        plot(words[1:], out)
    elif verb == "teach":
        if len(words) != 3 or out is None:
            raise ArgumentError(f"teach needs MODEL DATA --out FILE, got {' '.join(words[1:]) or 'neither'}")
        teach(dict(zip(("model", "data"), words[1:], strict=True)) | given, Path(out))
    elif verb == "--resume":
        if words or out is not None:
            raise ArgumentError("--resume RUN goes on with what the run was given: no MODEL, DATA or --out beside it")
        go_on(Path(resume), given)
    elif len(words) != 2 or out is None:
        raise ArgumentError(
            f"train needs MODEL DATA --out RUN, or --resume RUN, or teach, or plot RUN; got {' '.join(words) or 'none of these'}"
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
    for name in ("train", "freeze", "targets"):
        if name in given:
            given[name] = tuple(given[name].split(","))
    if "objective_options" in given:
        given["objective_options"] = named_values("objective_option", given["objective_options"])
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


def teach(given: dict[str, Any], out: Path) -> None:
    """A file of a teacher's answers; it goes on with what an interrupt has left of it."""
    from fastdistill.train.job import teach
    from fastdistill.train.runs import Settings

    k = given.pop("top_k", 50)
    with TeachingBar() as bar:
        try:
            tokens = teach(Settings(**given), out, k, say, bar)
        except KeyboardInterrupt:
            if bar.done:
                bar.end()
                say(f"stopped after {bar.done:,} tokens, which are kept: the same command goes on")
            raise
    print(
        f"{out}: what {given['model']} says of {tokens:,} tokens; "
        f"try `fastdistill train STUDENT {given['data']} --objective forward_kl --teacher {out} --out RUN`"
    )


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


class Bar:
    """How far a piece of work is: a line that is written over where stderr is a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said, self._open = -_SECONDS, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def show(self, share: float, words: str, seconds_left: float | None) -> None:
        """Say it, now or with what comes later; `share` is 1 at the end."""
        if seconds_left is not None:
            minutes, seconds = divmod(round(seconds_left), 60)
            hours, minutes = divmod(minutes, 60)
            words += f"  {hours}:{minutes:02}:{seconds:02} left" if hours else f"  {minutes}:{seconds:02} left"
        now = time.monotonic()
        if self._terminal:
            width = shutil.get_terminal_size().columns - len(words) - 4
            full = round(share * min(width, 30))
            bar = f"{'#' * full}{'.' * (min(width, 30) - full)}  " if width >= 10 else ""
            sys.stderr.write(f"\r{bar}{words}\x1b[K")
            sys.stderr.flush()
            self._open = True
        elif now - self._said >= _SECONDS or share >= 1:
            self._said = now
            say(words)

    def end(self) -> None:
        """Let what comes begin a line."""
        if self._open:
            print(file=sys.stderr)
        self._open = False


class TeachingBar(Bar):
    """Called with (tokens so far, tokens in all).

    Attributes
    ----------
    done : int
        tokens so far
    """

    def __init__(self) -> None:
        super().__init__()
        self.done, self._begun = 0, None  # type: int, tuple[int, float] | None

    def __call__(self, done: int, total: int) -> None:
        now, self.done = time.monotonic(), done
        first, begun = self._begun = self._begun or (done, now)
        words, left = f"token {done:,}/{total:,}", None
        if done > first and now > begun:
            rate = (done - first) / (now - begun)
            words, left = f"{words}  {rate:,.0f} tokens/s", (total - done) / rate
        self.show(done / total, words, left)


class TrainingBar(Bar):
    """Called with the metrics of each step."""

    def __init__(self, steps: int | None, minutes: float | None) -> None:
        super().__init__()
        self._steps, self._seconds = steps, None if minutes is None else 60 * minutes
        self._begun, self._held_out = None, ""  # type: tuple[int, float] | None, str

    def __call__(self, record: Record) -> None:
        if "evaluation" in record:
            self._held_out = f"  held out {record['evaluation']:.4f}"
        if "loss" not in record:
            return
        step, now = record["step"], time.monotonic()
        first, begun = self._begun = self._begun or (step, now)
        share, left = 0.0, list[float]()
        if self._steps:
            share = step / self._steps
            if step > first:
                left.append((now - begun) / (step - first) * (self._steps - step))
        if self._seconds:
            share = max(share, min(1.0, record["seconds"] / self._seconds))
            left.append(max(0.0, self._seconds - record["seconds"]))
        of = f"/{self._steps:,}" if self._steps else ""
        words = f"step {step:,}{of}  loss {record['loss']:.4f}{self._held_out}"
        self.show(share, f"{words}  {record['tokens_per_second']:,.0f} tokens/s", min(left, default=None))
