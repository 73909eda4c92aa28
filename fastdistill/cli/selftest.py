"""selftest: whether this machine computes what fastdistill promises, and how fast it can be."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastdistill.cli.info import memory_text, model_facts
from fastdistill.cli.terminal import MODEL_HELP, add_command
from fastdistill.cli.train import Bar
from fastdistill.errors import FastDistillError
from fastdistill.fetch import find_folder

_SELFTEST = """\
  fastdistill selftest
  fastdistill selftest smollm2-135m-instruct
  fastdistill selftest all-minilm-l6-v2
  fastdistill selftest --seconds 600
  fastdistill selftest --kernel linear --level avx2 --seed 17

Every kernel is run on every level of this machine, on cases that seeds make, and compared with its NumPy reference, within the
roundings that are derived for it, and with the lowest level to the bit. The logits of a small model must have the hash that they
have on every machine, whatever the level, the threads, and the rows that are computed together. Then come the machine's memory and
bandwidth, and how fast one row reads weights of each format, which tokens a second stay below; of MODEL its memory too, as
`fastdistill info` tells it, and its tokens a second as they were measured.

The status is 1 where anything differs: kernel, level, seed, the first difference and the command that repeats it are said. Ctrl-C
says what was checked until then.
"""


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "selftest", run_selftest, "check what this machine computes, and what it can do", _SELFTEST
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help=f"measure its speed too: {MODEL_HELP}")
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="N", help="how long cases of kernels are run (default: 10)"
    )
    parser.add_argument("--level", metavar="L", help="check this instruction set alone (default: all of this machine)")
    parser.add_argument(
        "--kernel", metavar="K", help="check this kernel alone, or `logits`, and measure nothing (default: all)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of --kernel: run this case alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_selftest(arguments: argparse.Namespace) -> None:
    from fastdistill.testing.run import Checks

    facts = None if arguments.model is None else model_facts(find_folder(arguments.model), None)
    with Bar() as bar:
        checks = Checks(
            arguments.seconds,
            level=arguments.level,
            kernel=arguments.kernel,
            seed=arguments.seed,
            model=arguments.model,
            progress=lambda share, words: bar.show(share, words, None),
        )
        try:
            checks.run()
        finally:  # an interrupt says what was checked
            bar.end()
            report = checks.report()
            if arguments.json:
                print(
                    json.dumps(report.facts() | {name: facts and facts[name] for name in ("session", "pass")}, indent=2)
                )
            else:
                print(report)
                if facts is not None:
                    print(memory_text(facts))
    if not report.ok:
        wrong = ", ".join(f"{each.kernel} at {each.level}" for each in report.differences)
        raise FastDistillError(f"not as it must be: {wrong}")
