"""Instructions of the kernels on ARM, each level, beside llama.cpp's: counted under qemu, no ARM needed.  docs/arm.md

A unit is 512 multiply-adds: of a linear a block of 32 inputs by 16 outputs and a row, of attention so many of one query.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.lib.instruction_counts import Count, count, no_mca
from bench.lib.report import Report

THEIRS = "llama_"  # begins the name of a level of llama.cpp's
FORMATS = {"q4": "q4_0", "q8": "q8_0"}  # ours, theirs
ATTENTION = {"attention": "attention, 1 head", "attention_of_9_heads": "attention, 9 heads"}
BYTES = {"q4": (256 + 64) / 512, "q8": (512 + 32) / 512, "q4_0": 18 / 32, "q4_1": 20 / 32, "q8_0": 34 / 32}  # a weight
# SmolLM2-135M, tests/cross/count_main.c: multiply-adds of a token.  Attention sees 128 keys, of 9 heads, in 30 layers.
TOKEN = {
    "q4": 30 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576),
    "q8": 49152 * 576,
    "attention": 30 * 9 * 128 * 2 * 64,
}
UNIT = 512
KERNELS = {"q4": "q4", "q8": "q8", "attention": "attention_of_9_heads"}  # what counts for each


@dataclass(frozen=True)
class Board:
    name: str
    cpu: str  # as llvm calls it
    level: str
    cores: int
    clock: float  # of a core, a second
    bandwidth: float  # bytes a second that memcpy reads and writes: docs/arm.md has the sources


BOARDS = (
    Board("Raspberry Pi Zero 2 W", "cortex-a53", "neon", 4, 1.0e9, 2 * 1.300e9),
    Board("Raspberry Pi 4", "cortex-a72", "neon", 4, 1.8e9, 2 * 2.326e9),
    Board("Raspberry Pi 5", "cortex-a76", "dotprod", 4, 2.4e9, 2 * 5.273e9),
)
CPUS = {board.cpu: board.level for board in BOARDS} | {"neoverse-v1": "i8mm"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--llama", type=Path, metavar="PATH", help="an unpacked source tree of llama.cpp to compare with"
    )
    parser.add_argument("--mca", action="store_true", help="cycles too, as llvm-mca expects them, and tokens a second")


class Counts:
    """What was counted, found by level, kernel and rows."""

    def __init__(self, counts: Iterable[Count]) -> None:
        self.by_name = {(c.level, c.kernel, c.rows): c for c in counts}
        self.levels = [
            level for level in dict.fromkeys(level for level, _, _ in self.by_name) if not level.startswith(THEIRS)
        ]

    def ours(self, level: str, kernel: str, rows: int = 1) -> Count:
        return self.by_name[level, kernel, rows]

    def rows(self) -> list[int]:
        return sorted({rows for _, kernel, rows in self.by_name if kernel in FORMATS})

    def best(self, level: str, kernel: str, rows: int = 1) -> Count | None:
        """llama.cpp's with fewest instructions, of what CPUs of our level run; None where none was counted."""
        runs = self.levels[: self.levels.index(level) + 1]
        begins = FORMATS.get(kernel, "attention")
        found = [
            c
            for c in self.by_name.values()
            if c.level.removeprefix(THEIRS) in runs
            and c.level.startswith(THEIRS)
            and c.kernel.startswith(begins)
            and c.rows == rows
        ]
        return min(found, key=lambda c: c.per_unit, default=None)

    def parts(self, level: str) -> dict[str, float]:
        """Millions of instructions of our token, computed: of its products and of its attention."""
        return {name: TOKEN[name] / UNIT * self.ours(level, kernel).per_unit / 1e6 for name, kernel in KERNELS.items()}

    def token_of_theirs(self, level: str) -> float | None:
        """Millions of their products and attention at our token's shapes; nothing beside them."""
        found = {kernel: self.best(level, kernel) for kernel in TOKEN}
        return (
            sum(TOKEN[kernel] / UNIT * c.per_unit for kernel, c in found.items() if c) / 1e6
            if all(found.values())
            else None
        )


def run(options: Namespace) -> Report:
    report = Report(__doc__, markdown=True)
    if not options.llama:
        report.skip("llama.cpp", "no --llama names its source tree")
    reason = no_mca() if options.mca else "no --mca asks for them"
    if reason:
        report.skip("cycles", reason)
    with tempfile.TemporaryDirectory() as folder:
        counts = Counts(count(Path(folder), options.llama))
        for level in counts.levels:
            cpus = [] if reason else [cpu for cpu, runs in CPUS.items() if runs == level]
            report.table(f"{level}: instructions a unit{', and cycles' if cpus else ''}")
            kernels(report, counts, level, cpus)
        token(report, counts)
        if options.llama:
            all_of_theirs(report, counts)
        sizes(report)
        if not reason:
            expected(report, counts)
    return report


def kernels(report: Report, counts: Counts, level: str, cpus: list[str]) -> None:
    """Each of ours, beside llama.cpp's with fewest instructions."""
    shapes = [(kernel, rows) for kernel in FORMATS for rows in counts.rows()] + [(kernel, 1) for kernel in ATTENTION]
    for kernel, rows in shapes:
        ours, theirs = counts.ours(level, kernel, rows), counts.best(level, kernel, rows)
        cells: dict[str, object] = {"kernel": ATTENTION.get(kernel, kernel), "rows": rows, "ours": ours.per_unit}
        if theirs:
            cells |= {
                "llama.cpp": theirs.per_unit,
                "its kernel": theirs.kernel,
                "ratio": ours.per_unit / theirs.per_unit,
            }
        for cpu in cpus:
            cells[f"{cpu}: ours"] = ours.cycles(cpu)
            if theirs:
                cells[f"{cpu}: llama.cpp"] = theirs.cycles(cpu)
        report.row(**cells)


def token(report: Report, counts: Counts) -> None:
    report.table("Millions of instructions a token: all, counted, and its parts, computed from the tables above")
    for level in counts.levels:
        whole, parts = counts.ours(level, "token").per_unit, counts.parts(level)
        theirs = counts.token_of_theirs(level)
        beside = {"llama.cpp's q4, q8 and attention": theirs} if theirs else {}
        report.row(level=level, all=whole, **parts, the_rest=whole - sum(parts.values()), **beside)


def all_of_theirs(report: Report, counts: Counts) -> None:
    report.table("Each kernel of llama.cpp, instructions a unit")
    for level, kernel, _ in (name for name in counts.by_name if name[0].startswith(THEIRS) and name[2] == 1):
        found = {rows: counts.by_name.get((level, kernel, rows)) for rows in counts.rows()}
        cells = {f"{rows} row{'s' * (rows > 1)}": c.per_unit if c else "" for rows, c in found.items()}
        report.row(level=level.removeprefix(THEIRS), kernel=kernel, **cells)


def sizes(report: Report) -> None:
    report.table("Bytes a weight")
    report.row(**{format if format in FORMATS else f"llama.cpp's {format}": size for format, size in BYTES.items()})


def expected(report: Report, counts: Counts) -> None:
    size = (
        sum(TOKEN[format] * BYTES[format] for format in FORMATS) + TOKEN["attention"] / 9 * 3 * 2
    )  # keys and values: f16, 3 heads
    report.table(f"Expected tokens a second, not measured: {size / 1e6:.1f} MB a token")
    for board in BOARDS:
        if board.level not in counts.levels:
            report.skip(board.name, f"level {board.level} was not counted")
            continue
        millions = counts.ours(board.level, "token").cycles(board.cpu)
        memory, one = board.bandwidth / size, board.clock / (millions * 1e6)
        report.row(
            board=board.name,
            level=board.level,
            GB_a_second=board.bandwidth / 1e9,
            by_memory=memory,
            million_cycles=millions,
            by_one_core=one,
            by_all_cores=one * board.cores,
            expected=min(memory, one * board.cores),
        )
