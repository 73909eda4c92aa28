"""What `python -m bench speculative` has measured, as tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.lib.answers import AUTO, PLAIN, Answer, Guesses, by_cost, counted, figures, median_speed_up, targets
from bench.lib.report import Report
from bench.studies.answer_tables import about, cost_table, target_table
from bench.studies.lookup_peers import Comparison
from fastdistill.decode import Costs

DEPTHS = (1, 2, 3, 4, 6, 8, 11, 15)  # that are shown


@dataclass
class Found:
    """Everything that is finished, also where a bench was interrupted.

    decoders  that copy-heavy prompts compare
    drafted   (kind, answer) of other drafters, without times
    peers     by engine and number of guesses, 0 plain decoding; `beside` are the prompts that they were given
    """

    costs: Costs | None = None
    decoders: list[str] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=lambda: {"copy": [], "open": []})
    drafted: list[tuple[str, Answer]] = field(default_factory=list)
    peers: dict[str, dict[int, Comparison]] = field(default_factory=dict)
    beside: list[Answer] = field(default_factory=list)


def tables(found: Found, report: Report) -> None:
    """All of them; those of which nothing was measured are left out, targets are not."""
    if found.costs is None:
        return
    cost_table(report, found.costs)
    if found.answers["copy"]:
        _copy(found, report)
    if found.answers["open"]:
        _open(found.answers["open"], found.costs, report)
    if any(counted(answers) for answers in found.answers.values()):
        _summary(found, found.costs, report)
    if found.drafted:
        _drafters(found, report)
    if any(found.peers.values()):
        _peers(found, report)
    reached = figures(found.answers["copy"], found.answers["open"], found.costs, found.decoders)
    target_table(report, targets(found.decoders), reached)


def _guesses(answer: Answer, decoders: list[str]) -> dict[str, Any]:
    """Two cells a decoder."""
    cells: dict[str, Any] = {}
    for name in decoders:
        guesses = Guesses.of([answer], name)
        cells |= {name: guesses.tokens_per_forward, f"{name} stood": guesses.acceptance}
    return cells


def _copy(found: Found, report: Report) -> None:
    report.table("copy-heavy prompts: plain decoding, and speed-ups over it")
    for answer in found.answers["copy"]:
        report.row(**about(answer), **{name: answer.speed_up(name) for name in found.decoders})
    report.table("the same prompts: tokens a forward, and the part of the guesses that stood")
    for answer in found.answers["copy"]:
        report.row(prompt=answer.name, **_guesses(answer, found.decoders))


def _open(answers: list[Answer], costs: Costs, report: Report) -> None:
    report.table("open prompts under auto: cost of its rounds on the table, and speed, over plain decoding's")
    for answer in answers:
        guesses = Guesses.of([answer], AUTO)
        cells = {
            "cost": answer.relative_cost(costs, AUTO),
            "speed": answer.speed_up(AUTO),
            "tokens a forward": guesses.tokens_per_forward,
            "guesses": guesses.drafted,
            "stood": guesses.acceptance,
        }
        report.row(**about(answer), **cells)


def _summary(found: Found, costs: Costs, report: Report) -> None:
    report.table("answers that do not loop; by depth, the part of the guesses that stood where their parents did")
    for kind, answers in found.answers.items():
        some = counted(answers)
        for name in found.decoders if kind == "copy" else [AUTO]:
            if not some:
                continue
            guesses = Guesses.of(some, name)
            cells = {
                "prompts": f"{len(some)} {kind}",
                "decoder": name,
                "speed-up": median_speed_up(some, name),
                "by cost": by_cost(some, costs, name),
                "tokens a forward": guesses.tokens_per_forward,
                "stood": guesses.acceptance,
            }
            report.row(**cells, **{str(depth): guesses.at(depth) for depth in DEPTHS})


def _drafters(found: Found, report: Report) -> None:
    report.table("other drafters, not timed: tokens a forward of the model, and the part of the guesses that stood")
    for kind, answer in found.drafted:
        report.row(kind=kind, prompt=answer.name, new=len(answer.tokens), **_guesses(answer, list(answer.rounds)))


def _peers(found: Found, report: Report) -> None:
    report.table("prompt lookup of others on some of the copy-heavy prompts: medians over these")
    beside = found.beside
    ours = Comparison(
        [answer.rate(AUTO).median for answer in beside],
        [answer.speed_up(AUTO).median for answer in beside],
        [True] * len(beside),
    )
    report.row(engine="fastdistill", guesses=AUTO, **ours.cells())
    for engine, comparisons in found.peers.items():
        for guesses, comparison in comparisons.items():
            report.row(engine=engine, guesses=guesses or PLAIN, **comparison.cells())
