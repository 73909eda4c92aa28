"""The command line: `fastdistill COMMAND ...`.

One file a group of commands. Each adds its parsers, and imports what costs time only inside the command that needs it.

Exit codes: 0 done; 1 failed; 2 wrong use (arguments); 130 interrupted (Ctrl-C), 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence

from fastdistill import __version__
from fastdistill.cli import chat, distill, encode, fill, folders, generate, info, selftest, train
from fastdistill.errors import ArgumentError, FastDistillError
from fastdistill.platform import PIPE_CLOSED

_EPILOG = """\
first steps:
  fastdistill demo                                        let small models answer, the first one at once
  fastdistill chat smollm2-135m-instruct                  talk with it
  fastdistill generate smollm2-135m-instruct "Once upon"  let it write on
  fastdistill generate listops-mdlm "<|bos|> sort : dog ant cat _ _ _ _ _ | _ _ ->" --stats
                                                          let a masked diffusion model fill in the answer
  fastdistill fill ./bert "Paris is the [MASK] of France." --top-k 5
                                                          fill masks within a text
  fastdistill embed all-minilm-l6-v2 sentences.txt --out vectors.npy
                                                          make vectors of sentences
  fastdistill train smollm2-135m-instruct chats.jsonl --out run
                                                          train it on conversations of yours
  fastdistill distill smollm2-135m-instruct --draft draft
                                                          let it make what guesses its own tokens ahead
  fastdistill info                                        what this machine runs
  fastdistill selftest                                    whether it computes what it must, and how fast it can be

`fastdistill COMMAND --help` says more about each.

environment:
  FASTDISTILL_THREADS  threads (default: the CPUs that this process may use)
  FASTDISTILL_ISA      instruction set: scalar, avx2, ... (default: the best one; see `fastdistill info`)
  XDG_CACHE_HOME       where fetched models are kept (default: ~/.cache)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code.

    Parameters
    ----------
    argv : Sequence[str], optional
        without the program's name; default: sys.argv[1:]
    """
    _open_streams()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
        before = signal.getsignal(signal.SIGINT)
        if before is signal.SIG_DFL:  # of __main__: from here on, an interrupt ends by way of every `finally`
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return _main(argv)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                print(file=sys.stderr)  # the shell's prompt begins a line
            return 128 + signal.SIGINT
        finally:
            signal.signal(signal.SIGINT, before)
    return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    # NumPy's own threads have nothing to do here, and spin while it is imported: a third of its time on two cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may write what a terminal's encoding lacks
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        if arguments.run is None:
            parser.print_help(sys.stderr)
            return 2
        arguments.run(arguments)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        _lost_output()
        return PIPE_CLOSED
    except (FastDistillError, OSError, MemoryError) as error:
        said = _lost_output() or str(error) or "out of memory"
        print(f"fastdistill: error: {said}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1


def _lost_output() -> str:
    """What keeps stdout from being written, if anything does; then it leads nowhere: Python flushes it once more as it ends."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"the output cannot be written: {error.strerror}"
    return ""


def _open_streams() -> None:
    """Let streams that the caller has closed lead nowhere: the next file that is opened would take their number, and what is printed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, open(nowhere, mode, closefd=False))  # noqa: SIM115


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastdistill",
        description="Small language models on a CPU: fetch, run, convert, train.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastdistill {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for group in (generate, chat, fill, encode, folders, train, distill, info, selftest):
        group.add_commands(commands)
    return parser


def _terminate(number: int, frame: object) -> None:
    """End by way of every `finally`: no partial file, no child process stays behind."""
    sys.exit(128 + number)
