"""What `python -m bench jacobi` has measured, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.lib.answers import (
    PLAIN,
    Answer,
    Guesses,
    by_cost,
    counted,
    median_speed_up,
    median_time,
    slowest,
    summed_cost,
)
from bench.lib.report import Report
from bench.lib.targets import Target, Value
from bench.studies.answer_tables import about, cost_table, target_table
from fastdistill.decode import Costs

TRAINED = 4.0  # tokens a forward of published models that were trained for it (Jacobi Forcing, Hu et al. 2025)
HELD = ("Jacobi", "Lookahead")  # decoders with targets
SPEED = "adaptive {}, open and copy: paired speed, slowest prompt"
COST = "adaptive {}, open and copy: cost on the table, all prompts"


def _of_each_kind() -> dict[str, list[Answer]]:
    return {"copy": [], "open": []}


@dataclass
class Found:
    """Everything that is finished, also where a bench was interrupted.

    synthetic  by q
    """

    costs: Costs | None = None
    adaptive: dict[str, list[Answer]] = field(default_factory=_of_each_kind)
    fixed: dict[str, list[Answer]] = field(default_factory=_of_each_kind)
    synthetic: dict[float, list[Answer]] = field(default_factory=dict)


def tables(found: Found, report: Report) -> None:
    """All of them; those of which nothing was measured are left out, targets are not."""
    if found.costs is None:
        return
    cost_table(report, found.costs)
    report.note(f"what forwards of more than {found.costs.rows[-1]} rows cost lies on the line through the last two")
    if any(map(counted, found.fixed.values())):
        _fixed(found, found.costs, report)
    if any(found.adaptive.values()):
        _adaptive(found, found.costs, report)
    if any(found.synthetic.values()):
        _synthetic(found.synthetic, found.costs, report)
    target_table(report, targets(), figures(found.adaptive, found.costs))


def _by_decoder(answers: list[Answer]) -> Iterable[tuple[str, Guesses]]:
    return ((name, Guesses.of(answers, name)) for name in (answers[0].rounds if answers else ()))


def _a_forward(guesses: Guesses) -> dict[str, Any]:
    return {"tokens a forward": guesses.tokens_per_forward, "rows a forward": guesses.rows_per_forward}


def _fixed(found: Found, costs: Costs, report: Report) -> None:
    report.table(
        "all guesses in every forward, answers that do not loop: time, and cost on the table, of plain decoding's"
    )
    for kind, answers in found.fixed.items():
        some = counted(answers)
        for name, guesses in _by_decoder(some):
            cells = {"time": median_time(some, name), "cost": summed_cost(some, costs, name)}
            recycled = {"recycled": guesses.recycled, "of accepted": guesses.accepted}
            report.row(prompts=f"{len(some)} {kind}", decoder=name, **_a_forward(guesses), **recycled, **cells)
    report.note('"recycled": of the guesses that were accepted, those of the pool')


def _adaptive(found: Found, costs: Costs, report: Report) -> None:
    report.table("adaptive decoders: plain decoding, and speed-ups over it")
    for kind, answers in found.adaptive.items():
        for answer in answers:
            report.row(kind=kind, **about(answer), **{name: answer.speed_up(name) for name in answer.rounds})
    report.table("the same: medians of answers that do not loop, and the slowest of all")
    for kind, answers in found.adaptive.items():
        some = counted(answers)
        for name, guesses in _by_decoder(some):
            cells = {
                "speed-up": median_speed_up(some, name),
                "slowest": slowest(answers, name),
                "cost": summed_cost(some, costs, name),
                "stood": guesses.acceptance,
            }
            report.row(prompts=f"{len(some)} {kind}", decoder=name, **_a_forward(guesses), **cells)


def _synthetic(synthetic: dict[float, list[Answer]], costs: Costs, report: Report) -> None:
    report.table("a synthetic model at the real one's cost, of whose positions a part q depends on the token before")
    guesses = {q: dict(_by_decoder(answers)) for q, answers in synthetic.items() if answers}

    def distance(q: float, name: str) -> float:
        return abs(guesses[q][name].tokens_per_forward - TRAINED)

    for q, by_name in guesses.items():
        for name, one in by_name.items():
            cells = {
                "speed-up": median_speed_up(synthetic[q], name),
                "by cost": by_cost(synthetic[q], costs, name),
                "": "as published" if q == min(guesses, key=partial(distance, name=name)) else "",
            }
            report.row(q=q, decoder=name, **_a_forward(one), **cells)
    report.note(
        f'"as published": of each decoder the q nearest to the {TRAINED:g} tokens a forward of models trained to converge; '
        "the synthetic model shows what such a model would gain here, not what this one does"
    )


def targets() -> list[Target]:
    """Guessing costs next to nothing where it does not help."""
    speed = [Target(work, Value(work), ">=", 0.95, "x", PLAIN) for work in map(SPEED.format, HELD)]
    return speed + [Target(work, Value(work), "<=", 1.05, "x", PLAIN) for work in map(COST.format, HELD)]


def figures(adaptive: dict[str, list[Answer]], costs: Costs) -> dict[str, float]:
    """What was reached of the targets' works, by name, once there are prompts of both kinds; looping answers count."""
    if not all(adaptive.values()):
        return {}
    answers = [answer for some in adaptive.values() for answer in some]
    speed = {SPEED.format(name): slowest(answers, name) for name in HELD}
    return speed | {COST.format(name): summed_cost(answers, costs, name) for name in HELD}
