"""What a forward pass is meant to reach, as a table; and how far it got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.lib.engines import PREFILL, Work
from bench.lib.timing import Samples

Q4_0, SAME = "llama.cpp Q4_0", "llama.cpp, the same file"
PLAIN = "llama.cpp Q4_0 without AVX-512"
TORCH = "torch bf16"
CONTEXTS = (128, 2048)
FORWARDS = (1, 4, 8, 16, 32)

Run = tuple[str, Work]  # an engine, and what it runs


@dataclass(frozen=True)
class Ratio:
    """The time of `of` over that of `over`, turn by turn."""

    of: Run
    over: Run


@dataclass(frozen=True)
class Share:
    """The time that reading memory takes as a percentage of a run's."""

    run: Run


@dataclass(frozen=True)
class Value:
    """A figure measured by itself."""

    name: str


@dataclass(frozen=True)
class Target:
    work: str
    figure: Ratio | Share | Value
    sign: str  # ">=" or "<="
    bound: float
    unit: str
    beside: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}{self.unit}{self.beside and ' ' + self.beside}"

    @property
    def runs(self) -> tuple[Run | None, Run | None]:
        """Ours, and the one that it is held against."""
        match self.figure:
            case Ratio(of, over):
                return (over, of) if self.sign == ">=" else (of, over)
            case Share(run):
                return run, None
        return None, None

    def met(self, reached: float) -> bool:
        return reached >= self.bound if self.sign == ">=" else reached <= self.bound


START_UP, TWO_TO_ONE = "start to first token", "prefill 512, all threads"
ONE_THREAD, ALL_THREADS = (("1 thread", Work(0, PREFILL)), ("all threads", Work(0, PREFILL)))
MEMORY_IDS, MEMORY_TEXT = "peak memory, token ids", "peak memory, text"


def targets(level: str) -> list[Target]:
    """The table, for the weights as stored on one level and, where they differ, on avx2."""

    def name(format: str, level: str = level) -> str:
        return f"{format} {level}"

    ours = name("stored")
    table = []

    def faster(work: str, engine: str, run: Work, than: str, bound: float) -> None:
        table.append(Target(work, Ratio((than, run), (engine, run)), ">=", bound, "x", than))

    def dearer(work: str, engine: str, cached: int, rows: int, bound: float) -> None:
        runs = (engine, Work(cached, rows)), (engine, Work(cached, 1))
        table.append(Target(work, Ratio(*runs), "<=", bound, "x", "a forward of 1"))

    for cached in CONTEXTS:
        after = f", {cached} cached"
        decode, eight = Work(cached, 1), Work(cached, 8)
        prefill = Work(0 if cached == CONTEXTS[0] else cached, PREFILL)
        filled = f"prefill {PREFILL}, {prefill.cached} cached"
        faster("decode" + after, ours, decode, Q4_0, 1.9)
        faster("decode" + after, ours, decode, SAME, 2.5)
        table.append(Target("decode" + after, Share((ours, decode)), ">=", 75, "%", "of bandwidth"))
        for rows, bound in ((4, 1.15), (8, 1.6), (16, 3.0), (32, 6.0)):
            dearer(f"forward of {rows}{after}", ours, cached, rows, bound)
        for rows, bound in ((4, 1.1), (8, 1.4), (16, 2.2)):
            dearer(f"q8 forward of {rows}{after}", name("q8"), cached, rows, bound)
        faster(f"forward of 8{after}", ours, eight, Q4_0, 3.3)
        faster(f"forward of 8{after}", ours, eight, SAME, 6.0)
        faster(filled, ours, prefill, Q4_0, 2.7)
        faster(filled, ours, prefill, SAME, 6.0)
        faster(filled, ours, prefill, TORCH, 2.0)
        for format in ("q8", "bf16", "f32"):
            table.append(
                Target(f"{format} decode{after}", Share((name(format), decode)), ">=", 70, "%", "of bandwidth")
            )
        for work, run in (("decode" + after, decode), (f"forward of 8{after}", eight), (filled, prefill)):
            faster(f"avx2, {work}", name("stored", "avx2"), run, PLAIN, 1.2)
    table += [
        Target(f"{START_UP}, 16-token prompt", Value(START_UP), "<=", 0.5, " s"),
        Target(MEMORY_IDS, Value(MEMORY_IDS), "<=", 60, " MB", "beyond weights and cache"),
        Target(MEMORY_TEXT, Value(MEMORY_TEXT), "<=", 110, " MB", "beyond weights and cache"),
        Target(TWO_TO_ONE, Ratio(ONE_THREAD, ALL_THREADS), ">=", 1.7, "x", "1 thread, while the host grants all cores"),
    ]
    return table


def reached(
    target: Target, seconds: Mapping[Run, Samples], reading: Mapping[Run, float], values: Mapping[str, Samples | float]
) -> Samples | float | None:
    """The figure of a target; None where a part of it was not measured.

    seconds  of every run
    reading  seconds that memory alone takes
    """
    match target.figure:
        case Ratio(of, over) if of in seconds and over in seconds:
            return seconds[of] / seconds[over]
        case Share(run) if run in seconds and run in reading:
            return 100 * reading[run] / seconds[run]
        case Value(name):
            return values.get(name)
    return None


def median(figure: Samples | float) -> float:
    return figure.median if isinstance(figure, Samples) else figure
