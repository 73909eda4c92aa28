"""distill: a model makes what guesses its own tokens, so that it writes the same text in fewer forwards."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdistill.cli.options import given
from fastdistill.cli.terminal import add_command, say
from fastdistill.cli.train import Bar, TrainingBar

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdistill.train.draft_head import Acceptance
    from fastdistill.train.loop import Record

_DISTILL = """\
  fastdistill distill smollm2-135m-instruct --draft draft --minutes 30
  fastdistill generate smollm2-135m-instruct --chat "Why do cats purr?" --decoder auto --drafter draft --stats
  fastdistill distill ./model --draft draft --prompts questions.jsonl

The model answers prompts, which come with the package, and keeps the state behind each token that it writes. From these a
draft head learns what comes after the next token: a small layer on the model's own last state, a few MB. With it
`--drafter draft` guesses some tokens ahead, and one forward of the model checks them: the text stays that of plain
decoding, token for token.

--prompts names files of your own: .jsonl lines of {"prompt": ...} or {"messages": [...]}, or .txt. The closer they are to
what the model will be asked, the more guesses are right.

Ctrl-C keeps what there is in DRAFT.run, and the same command goes on.
"""
_NUMBERS: dict[str, tuple[type, str, str]] = {
    "minutes": (float, "M", "how long it may work in all (default: 30)"),
    "writing": (float, "S", "the share of them in which the model writes what is learnt from (default: 0.5)"),
    "max_tokens": (int, "N", "most tokens of a text (default: 256)"),
    "temperature": (float, "T", "of a third of the texts; the others are greedy (default: 0.8)"),
    "draft_vocab_size": (int, "N", "how many of the most frequent tokens can be guessed (default: 8192)"),
    "intermediate_size": (int, "N", "width of eagle's feed-forward network (default: 1536)"),
    "steps": (int, "N", "guesses in a row that it learns, of medusa also its heads (default: 3)"),
    "learning_rate": (float, "R", "the highest (default: 0.001)"),
    "rows": (int, "N", "tokens of a batch (default: 256)"),
    "seed": (int, "N", "of what is drawn (default: 0)"),
    "threads": (int, "N", "change no bit (default: FASTDISTILL_THREADS, else what this process may use)"),
}


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "distill", run_distill, "make a draft head, which guesses a model's tokens ahead", _DISTILL
    )
    parser.add_argument("model", metavar="MODEL", help="a model's folder or name")
    parser.add_argument("--draft", metavar="DRAFT", required=True, help="the folder to make")
    parser.add_argument(
        "--recipe",
        choices=("eagle", "medusa"),
        help="of the head. eagle: one small layer, which guesses on and on from its own estimates of the model's state (default). "
        "medusa: for each guess a head of its own, of one matrix, on the model's state alone",
    )
    parser.add_argument("--prompts", metavar="FILE", help="prompts of your own, beside those of the package")
    parser.add_argument("--objective", metavar="NAME", help="a divergence, as of train (default: forward_kl)")
    parser.add_argument("--format", choices=("q4", "q8", "f16", "f32"), help="that the head is kept in (default: q4)")
    for name, (kind, placeholder, about) in _NUMBERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=placeholder, help=about)


def run_distill(arguments: argparse.Namespace) -> None:
    from fastdistill.train.draft_head import HeadSettings, distill_head
    from fastdistill.train.runs import Interruption

    names = ("recipe", "prompts", "objective", "format", *_NUMBERS)
    settings = HeadSettings(model=arguments.model, **given(**{name: getattr(arguments, name) for name in names}))
    with Interruption() as stop, WritingBar() as writing, _Training(settings.minutes) as training:
        found = distill_head(settings, arguments.draft, report=say, writing=writing, training=training, stop=stop)
    if found is None:
        say(f"stopped; what there is lies in {arguments.draft}.run, and the same command goes on")
        sys.exit(128 + signal.SIGINT)
    _tell(arguments.model, Path(arguments.draft), found)


def _tell(model: str, draft: Path, found: Acceptance) -> None:
    size = sum(path.stat().st_size for path in draft.iterdir()) / 1e6
    rates = ", ".join(f"{100 * rate:.0f} %" for rate in found.ranks[:, 0])
    print(
        f"{draft}: a draft head of {size:.1f} MB; on texts that it has not seen its guesses are right {rates} of the time, one after "
        f'another: {found.tokens:.2f} tokens a forward\ntry `fastdistill generate {model} --chat "..." --decoder auto --drafter {draft} --stats`'
    )


class WritingBar(Bar):
    """Called with the share that is written, and how many tokens that is."""

    def __call__(self, share: float, tokens: int) -> None:
        self.show(share, f"writing: {tokens:,} tokens", None)
        if share >= 1:
            self.end()


class _Training:
    """Makes the bar once it is known how many steps there will be."""

    def __init__(self, minutes: float) -> None:
        self._minutes, self._bar = minutes, None  # type: float, TrainingBar | None

    def __enter__(self) -> _Training:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.end()

    def __call__(self, steps: int) -> Callable[[Record], None]:
        self._bar = TrainingBar(steps, None)
        return self._bar
