"""python -m tests.fuzz [TARGET ...] [--seconds N]: give targets inputs that reach new places, for so long each."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz import law, native_targets

ROOT = law.HERE.parents[1]
KEPT = law.HERE / "corpus"
MOST_KEPT = 8_000, 50  # bytes and inputs a target in the tree: the smallest
LIMITS = ["-timeout=25", "-rss_limit_mb=3000", "-detect_leaks=0", "-print_final_stats=1"]
EXAMPLES = """examples:
  python -m tests.fuzz --list
  python -m tests.fuzz                                  # all targets, a minute each
  python -m tests.fuzz gguf calls --seconds 3600
  python -m tests.fuzz gguf --repeat build/fuzz/findings/gguf-crash-0a1b2c
  python -m tests.fuzz gguf --keep                      # the smallest of what was found, into tests/fuzz/corpus"""


def main(arguments: list[str]) -> int:
    python, native = law.names(), native_targets.names()
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all (--list)")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="for each target (default: %(default)s)")
    parser.add_argument(
        "--corpus",
        type=Path,
        default=ROOT / "build/fuzz/corpus",
        metavar="FOLDER",
        help="what earlier runs have found, to go on from (default: build/fuzz/corpus)",
    )
    parser.add_argument(
        "--findings",
        type=Path,
        default=ROOT / "build/fuzz/findings",
        metavar="FOLDER",
        help="inputs that break something (default: build/fuzz/findings)",
    )
    parser.add_argument(
        "--repeat", type=Path, metavar="FILE", help="give the target this input alone, without a fuzzer"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the smallest inputs of the corpus that reach all it reaches, in the tree",
    )
    options = parser.parse_args(arguments)
    wanted = options.targets or [*python, *native]
    for name in wanted:
        if name not in (*python, *native):
            parser.error(f"there is no target {name}; --list names them")
    if options.list:
        for name in wanted:
            print(f"{name:18} {about(name)}")
        return 0
    if options.repeat:
        if len(wanted) != 1:
            parser.error("--repeat takes one target")
        return repeat(wanted[0], options.repeat)
    with TemporaryDirectory() as work:
        status = 0
        try:
            with ready(wanted, Path(work)) as commands:
                for name, command in commands:
                    if options.keep:
                        keep(name, command, options.corpus / name)
                    else:
                        status |= fuzz(name, command, options)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
    return status


def about(name: str) -> str:
    if name in native_targets.names():
        return "a kernel in C, under the address and undefined-behaviour sanitizers"
    return (law.target(name).__doc__ or "").splitlines()[0]


@contextmanager
def ready(names: list[str], work: Path) -> Iterator[Iterator[tuple[str, list[str]]]]:
    """The command that fuzzes each target; those that cannot be are said, once."""
    program, said = work / "targets", set()

    def commands() -> Iterator[tuple[str, list[str]]]:
        problem = None
        for name in names:
            if name in native_targets.names():
                if problem is None:
                    problem = native_targets.build(program, True)
                reason, command = problem, [str(program)]
            else:
                reason = "" if importlib.util.find_spec("atheris") else "needs the package atheris: pip install atheris"
                command = [sys.executable, "-m", "tests.fuzz.python_target", name]
            if reason and reason not in said:
                print(f"skipped: {name} and those like it: {reason}", file=sys.stderr)
                said.add(reason)
            if not reason:
                seeds = work / "seeds" / name
                seeds.mkdir(parents=True)
                for number, data in enumerate(law.target(name).seeds() if name in law.names() else ()):
                    (seeds / str(number)).write_bytes(data)
                yield name, [*command, str(seeds)]

    yield commands()


def environment(name: str) -> dict[str, str]:
    return os.environ | {"TARGET": name, "PYTHONPATH": str(ROOT), "RUST_BACKTRACE": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def fuzz(name: str, command: list[str], options: argparse.Namespace) -> int:
    """Run a target for so long, and say what came of it; 1: it found something."""
    corpus, kept = options.corpus / name, KEPT / name
    for folder in (corpus, options.findings):
        folder.mkdir(parents=True, exist_ok=True)
    *command, seeds = command
    longest = getattr(law.target(name), "LONGEST", 4096) if name in law.names() else 512
    command += [
        f"-max_total_time={options.seconds}",
        f"-max_len={longest}",
        f"-artifact_prefix={options.findings}/{name}-",
        *LIMITS,
    ]
    command += [str(corpus), *([str(kept)] if kept.is_dir() else []), seeds]
    before, started, tail, executions, covered = set(options.findings.iterdir()), time.monotonic(), [], 0, 0
    with TemporaryDirectory() as place:  # what a target writes
        process = subprocess.Popen(
            command,
            cwd=place,
            env=environment(name),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
        interrupted = False
        try:
            executions, covered = watch(name, process, started, tail)
        except KeyboardInterrupt:
            interrupted = True
            process.send_signal(2)
            executions, covered = watch(name, process, started, tail)
        status = process.wait()
    found = sorted(path for path in set(options.findings.iterdir()) - before if f"{name}-slow-unit" not in path.name)
    inputs = sum(1 for _ in corpus.iterdir())
    print(
        f"{name:18} {executions:>13,} executions in {time.monotonic() - started:.0f} s, {covered} places covered, {inputs} inputs",
        flush=True,
    )
    if interrupted:
        raise KeyboardInterrupt
    if status == 0 and not found:
        return 0
    print("".join(tail[-40:]), file=sys.stderr)
    for path in found:
        print(f"found {path}: python -m tests.fuzz {name} --repeat {path}", flush=True)
    return 1


def watch(name: str, process: subprocess.Popen[str], started: float, tail: list[str]) -> tuple[int, int]:
    """Read what libFuzzer says until it ends: how many executions, and places covered."""
    executions = covered = 0
    shown = 0.0
    assert process.stderr is not None
    for line in process.stderr:
        tail[:] = [*tail[-60:], line]
        if found := re.match(r"#(\d+)\s.*?cov: (\d+)", line):
            executions, covered = max(executions, int(found[1])), int(found[2])
        elif found := re.match(r"stat::number_of_executed_units:\s*(\d+)", line):
            executions = int(found[1])
        if sys.stderr.isatty() and time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            print(
                f"\r{name}: {executions:,} executions, {shown - started:.0f} s \x1b[K",
                end="",
                file=sys.stderr,
                flush=True,
            )
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return executions, covered


def keep(name: str, command: list[str], corpus: Path) -> None:
    """Merge a corpus into the tree's, the smallest inputs first; what has a name there stays."""
    command = command[:-1]  # without the seeds, which are always there
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    named = {path for path in kept.iterdir() if not re.fullmatch(r"[0-9a-f]{40}", path.name)}
    for path in set(kept.iterdir()) - named:
        path.rename(corpus / path.name)
    with TemporaryDirectory() as place:
        merged = Path(place) / "merged"
        merged.mkdir()
        subprocess.run(
            [*command, "-merge=1", "-use_counters=0", "-timeout=25", "-detect_leaks=0", str(merged), str(corpus)],
            cwd=place,
            env=environment(name),
            check=True,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        left, most = MOST_KEPT
        for path in sorted(merged.iterdir(), key=lambda path: path.stat().st_size)[:most]:
            left -= path.stat().st_size
            if left >= 0:
                (kept / path.name).write_bytes(path.read_bytes())
    print(
        f"{name:18} {sum(1 for _ in kept.iterdir())} inputs of {sum(path.stat().st_size for path in kept.iterdir()):,} bytes"
    )


def repeat(name: str, file: Path) -> int:
    """One input, without a fuzzer: a traceback, or what the sanitizers say."""
    if name in law.names():
        law.target(name).run(file.read_bytes())
        print(f"{file}: nothing is wrong")
        return 0
    with TemporaryDirectory() as work:
        program = Path(work) / "targets"
        if problem := native_targets.build(program, False):
            print(problem, file=sys.stderr)
            return 77
        return subprocess.run([str(program), str(file)], env=environment(name)).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
