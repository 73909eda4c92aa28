"""Tables that benches of decoders have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.lib.answers import PLAIN, Answer, perfect
from bench.lib.report import Report
from bench.lib.targets import Target
from fastdistill.decode import Costs


def cost_table(report: Report, costs: Costs) -> None:
    """Milliseconds of forwards by rows, and what guesses that are all right would gain."""
    seconds = {context: costs.by_rows(context) for context in costs.contexts}
    gains = {context: perfect(costs, context) for context in costs.contexts}
    for row in range(costs.rows[-1]):
        cells: dict[str, Any] = {"rows": row + 1}
        for context, column in seconds.items():
            cells[f"ms at {context}"] = float(column[row] * 1e3)
            cells[f"/ of 1 at {context}"] = float(column[row] / column[0])
            cells[f"all right at {context}"] = float(gains[context][row])
        report.row(**cells)
    for context, gain in gains.items():
        best = f"{gain.max():.2f}x, with {gain.argmax() + 1} rows"
        report.note(f"the ceiling over {context} cached tokens, where all guesses are right: {best}")
    measured = ", ".join(map(str, costs.rows))
    report.note(f"forwards of {measured} rows were timed, the least of a few turns each; the others lie between them")


def about(answer: Answer) -> dict[str, Any]:
    """The first cells of a prompt's row."""
    loops = "loops" if answer.loops else ""
    rate = answer.rate(PLAIN)
    return {
        "prompt": answer.name,
        "tokens": len(answer.prompt),
        "new": len(answer.tokens),
        "": loops,
        "plain tokens/s": rate,
    }


def target_table(report: Report, targets: Iterable[Target], reached: Mapping[str, float]) -> None:
    """Every target beside the figure of its name, if there is one."""
    report.table("targets")
    for target in targets:
        figure = reached.get(target.work)
        met = "-" if figure is None else "yes" if target.met(figure) else "NO"
        report.row(work=target.work, target=str(target), reached="not measured" if figure is None else figure, met=met)
