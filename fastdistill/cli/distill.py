"""distill: a model makes what guesses its own tokens, so that it writes the same text in fewer forwards."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdistill.cli.options import flag, given
from fastdistill.cli.terminal import add_command, say
from fastdistill.cli.train import Bar, TrainingBar
from fastdistill.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdistill.train.draft_head import Acceptance
    from fastdistill.train.loop import Record
    from fastdistill.train.student import StudentAcceptance

_DISTILL = """\
  fastdistill distill smollm2-135m-instruct --draft draft --minutes 30
  fastdistill generate smollm2-135m-instruct --chat "Why do cats purr?" --decoder auto --drafter draft --stats
  fastdistill distill ./model --draft draft --prompts questions.jsonl
  fastdistill distill ./model --draft student --recipe student --layers 4

The model answers prompts, which come with the package, and keeps the state behind each token that it writes. From these a
draft head learns what comes after the next token: a small layer on the model's own last state, a few MB. With it
`--drafter draft` guesses some tokens ahead, and one forward of the model checks them: the text stays that of plain
decoding, token for token. A student, which is a small model by itself, drafts with `--drafter model --draft-model student`.

--prompts names files of your own: .jsonl lines of {"prompt": ...} or {"messages": [...]}, or .txt. The closer they are to
what the model will be asked, the more guesses are right.

Ctrl-C keeps what there is in DRAFT.run, and the same command goes on.
"""
STUDENT = "student"
RECIPES = ("eagle", "medusa", STUDENT)
_NUMBERS: dict[str, tuple[type, str, str]] = {
    "minutes": (float, "M", "how long it may work in all (default: 30)"),
    "writing": (
        float,
        "S",
        "the share of them in which the model writes what is learnt from (default: 0.75; of student: 0.5)",
    ),
    "max_tokens": (int, "N", "most tokens of a text (default: 256)"),
    "temperature": (float, "T", "of a third of the texts; the others are greedy (default: 0.8)"),
    "draft_vocab_size": (int, "N", "how many of the most frequent tokens can be guessed (default: 8192)"),
    "intermediate_size": (int, "N", "width of eagle's feed-forward network (default: 1536)"),
    "steps": (int, "N", "guesses in a row that it learns, of medusa also its heads (default: 3)"),
    "layers": (int, "N", "of student: the model's first layers that it has (default: 4)"),
    "on_policy": (
        float,
        "P",
        "of student: how probable it is that it answers a prompt itself, and the model judges that (default: 0)",
    ),
    "selection": (
        float,
        "F",
        "of student: learn this part of the tokens alone, where it is furthest behind a reference (default: all)",
    ),
    "learning_rate": (float, "R", "the highest (default: 0.001)"),
    "rows": (int, "N", "tokens of a batch (default: 256; of student: 512)"),
    "seed": (int, "N", "of what is drawn (default: 0)"),
    "threads": (int, "N", "change no bit (default: FASTDISTILL_THREADS, else what this process may use)"),
}


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "distill", run_distill, "make what guesses a model's tokens ahead, by the model itself", _DISTILL
    )
    parser.add_argument("model", metavar="MODEL", help="a model's folder or name")
    parser.add_argument("--draft", metavar="DRAFT", required=True, help="the folder to make")
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="what is made. eagle: a head of one small layer, which guesses on and on from its own estimates of the model's state "
        "(default). medusa: for each guess a head of its own, of one matrix, on the model's state alone. student: a model of the first "
        "layers, whose guesses take more time than a head's",
    )
    parser.add_argument("--prompts", metavar="FILE", help="prompts of your own, beside those of the package")
    parser.add_argument("--objective", metavar="NAME", help="a divergence, as of train (default: forward_kl)")
    parser.add_argument(
        "--format", choices=("q4", "q8", "f16", "f32"), help="that the draft is kept in (default: q4; of student: q8)"
    )
    for name, (kind, placeholder, about) in _NUMBERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=placeholder, help=about)


def run_distill(arguments: argparse.Namespace) -> None:
    from fastdistill.train.runs import Interruption

    settings, distill, tell = _job(arguments)
    with Interruption() as stop, WritingBar() as writing, _Training() as training:
        found = distill(settings, arguments.draft, report=say, writing=writing, training=training, stop=stop)
    if found is None:
        say(f"stopped; what there is lies in {arguments.draft}.run, and the same command goes on")
        sys.exit(128 + signal.SIGINT)
    tell(arguments.model, Path(arguments.draft), found)


def _job(arguments: argparse.Namespace) -> tuple[Any, Callable[..., Any], Callable[[str, Path, Any], None]]:
    """The recipe's settings, what makes its draft, and what tells of it."""
    names = ("recipe", "prompts", "objective", "format", *_NUMBERS)
    options = given(**{name: getattr(arguments, name) for name in names})
    kind: type[Any]
    distill: Callable[..., Any]
    tell: Callable[[str, Path, Any], None]
    if options.get("recipe") == STUDENT:
        from fastdistill.train.student import StudentSettings, distill_student

        del options["recipe"]
        kind, distill, tell = StudentSettings, distill_student, _tell_of_student
    else:
        from fastdistill.train.draft_head import HeadSettings, distill_head

        kind, distill, tell = HeadSettings, distill_head, _tell_of_head
    for name in options.keys() - {field.name for field in fields(kind)}:
        raise ArgumentError(f"{flag(name)} does not go with --recipe {arguments.recipe or RECIPES[0]}")
    return kind(model=arguments.model, **options), distill, tell


def _tell_of_head(model: str, draft: Path, found: Acceptance) -> None:
    print(
        f"{draft}: a draft head of {_megabytes(draft):.1f} MB; {_rates(found)}\n"
        f'try `fastdistill generate {model} --chat "..." --decoder auto --drafter {draft} --stats`'
    )


def _tell_of_student(model: str, draft: Path, found: StudentAcceptance) -> None:
    print(
        f"{draft}: a model of {_megabytes(draft):.1f} MB; {_rates(found)}, and {found.overlap:.0%} of its law is the model's\n"
        f'try `fastdistill generate {model} --chat "..." --decoder speculative --drafter model --draft-model {draft} --stats`'
    )


def _rates(found: Acceptance | StudentAcceptance) -> str:
    rates = ", ".join(f"{rate:.0%}" for rate in found.ranks[:, 0])
    return f"on texts that it has not seen its guesses are right {rates} of the time, one after another: {found.tokens:.2f} tokens a forward"


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


class WritingBar(Bar):
    """Called with the share that is written, and how many tokens that is."""

    def __call__(self, share: float, tokens: int) -> None:
        self.show(share, f"writing: {tokens:,} tokens", None)
        if share >= 1:
            self.end()


class _Training:
    """Makes the bar once it is known how many steps there will be."""

    def __init__(self) -> None:
        self._bar: TrainingBar | None = None

    def __enter__(self) -> _Training:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.end()

    def __call__(self, steps: int) -> Callable[[Record], None]:
        self.__exit__()
        self._bar = TrainingBar(steps, None)
        return self._bar
