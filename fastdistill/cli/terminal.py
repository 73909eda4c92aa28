"""What commands show of their work, and how they name sizes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fastdistill.embedded import EMBEDDED

MODEL_HELP = f"a model's folder, or the name of one: {', '.join(EMBEDDED)}, or a fetched one (`fastdistill fetch --help` lists them)"
FORMATS = ("f32", "f16", "bf16", "q8", "q4")


def add_command(commands: Any, name: str, run: Any, help: str, epilog: str) -> argparse.ArgumentParser:
    """One subcommand, whose help ends with examples."""
    parser = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog="examples:\n" + epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def show(piece: str) -> None:
    """Write a piece of text to stdout, at once."""
    sys.stdout.write(piece)
    sys.stdout.flush()


# U+2400 and on are pictures of the control characters; those of Latin-1 have none.
SIGNS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}
SIGNS |= dict.fromkeys(range(128, 160), 0xFFFD)


def visible(piece: str) -> str:
    """A model's text: where stdout is a terminal, a sign in place of each character that it would obey."""
    return piece.translate(SIGNS) if sys.stdout.isatty() else piece


def say(text: str) -> None:
    """A line beside the output: on stderr, after what has been written so far."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def folder_bytes(folder: Path) -> int:
    """Bytes of a model folder's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


class ProgressBar:
    """A bar a piece of work by tqdm, where that is installed and stderr is a terminal; a line a quarter elsewhere.

    Called with (what is being done, bytes done, bytes in all); 0 in all is just said.
    """

    def __init__(self) -> None:
        self._what, self._shown = "", -1
        self._tqdm: Any = None
        self._bar: Any = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm

                self._tqdm = tqdm
            except ImportError:
                pass

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._close()
            self._what, self._shown = what, -1
            if total and self._tqdm is not None:
                self._bar = self._tqdm(total=total, desc=what, unit="B", unit_scale=True, file=sys.stderr)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            return
        quarters = 4 * done // total if total else 0
        if quarters > self._shown:
            self._shown = quarters
            say(f"{what}: {25 * quarters} % of {megabytes(total)}" if total else what)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
