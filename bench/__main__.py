"""python -m bench [NAME] [--json FILE] ...: run one benchmark, or list them."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # else NumPy's threads spin on while others are timed

import argparse
import ast
import importlib
import json
import sys
from pathlib import Path

from bench.lib import machine
from fastdistill.errors import FastDistillError
from fastdistill.kernels import default_threads, isa_levels


def benches() -> dict[str, tuple[str, str]]:
    """Of every bench of a kernel and every study, files that define `run`, by name: its module and its first line."""
    found = {}
    for part in ("studies", "kernels"):
        for path in sorted((Path(__file__).parent / part).glob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
                found[path.stem] = f"bench.{part}.{path.stem}", ast.get_docstring(tree).splitlines()[0]
    return found


def words(text: str) -> list[str]:
    return text.split(",")


def numbers(text: str) -> list[int]:
    return [int(word) for word in words(text)]


def main(arguments: list[str]) -> int:
    known = benches()
    if not arguments or arguments[0] not in known:
        print("python -m bench NAME [--json FILE] [options]\n")
        width = max(map(len, known))
        print("\n".join(f"  {name:{width}} {about}" for name, (_, about) in known.items()))
        return 0 if not arguments or arguments[0] in ("-h", "--help") else 2
    name, about = known[arguments[0]]
    module = importlib.import_module(name)
    parser = argparse.ArgumentParser(prog=f"python -m bench {arguments[0]}", description=about)
    parser.add_argument("--json", metavar="FILE", help="write everything there too; -: to stdout, in place of the text")
    parser.add_argument("--repetitions", type=int, default=15, help="turns of each contestant (default: %(default)s)")
    threads = sorted({1, default_threads()})
    parser.add_argument(
        "--threads", type=numbers, default=threads, metavar="N,...", help=f"thread counts (default: {threads})"
    )
    parser.add_argument(
        "--levels", type=words, default=list(isa_levels()), metavar="L,...", help="instruction sets (default: all)"
    )
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    options = parser.parse_args(arguments[1:])
    try:
        with machine.Watch(max(options.threads)) as watch:
            report = module.run(options)
    except FastDistillError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    facts = machine.facts()
    found = {"bench": arguments[0], "machine": facts, "meanwhile": watch.found, "warnings": watch.warnings}
    as_json = json.dumps(found | report.as_dict(), indent=2)
    if options.json == "-":
        print(as_json)
        return 0
    print(report.text())
    print(
        "\n"
        + ", ".join(f"{name} {' '.join(value) if isinstance(value, list) else value}" for name, value in facts.items())
    )
    for warning in watch.warnings:
        print(f"noisy    {warning}")
    if options.json:
        Path(options.json).write_text(as_json + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
