"""Pictures of trained masked models, to be read on white and on black: right answers against forwards, and while they are learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.lib.list_models import Score
from bench.lib.list_tasks import POSITIONS, TASKS
from bench.lib.plot import INK, LIMIT, OURS, THEIRS

COLORS = (LIMIT, OURS, *THEIRS, "#c8a415", "#d0508a", "#5b8c2a", "#9a6b43")
MARKERS = "osD^vPX*p"  # by colour and by shape: either is enough to tell them apart


def draw_rules(path: Path, found: Mapping[str, Sequence[Score]]) -> None:
    """Right answers against forwards, a line a model over its rules: tasks with one answer beside shuffles."""
    figure, panels = _figure(2)
    for (name, scores), color, marker in zip(found.items(), COLORS, MARKERS, strict=False):
        of_one = [(Score.one_answer(each.forwards), Score.one_answer(each.right)) for each in scores]
        shuffles = [(each.forwards["shuffle"], each.right["shuffle"]) for each in scores]
        for axes, points in zip(panels, (of_one, shuffles), strict=True):
            _line(axes, points, name, color, marker)
    for axes, title in zip(panels, ("tasks with one answer", "shuffle: any permutation"), strict=True):
        _finish(axes, f"{title}: right answers, %", f"forwards of {POSITIONS} positions")
        axes.set_xlim(0.7, POSITIONS + 0.3)
    _save(path, figure, panels[0])


def draw_looks(path: Path, looks: Mapping[int, Score]) -> None:
    """Right answers of each task while a model is trained."""
    figure, panels = _figure(1)
    for i, task in enumerate(TASKS):
        _line(
            panels[0],
            [(step, each.right[task]) for step, each in looks.items()],
            task,
            COLORS[i % len(COLORS)],
            MARKERS[i],
        )
    _finish(panels[0], "right answers, %", "step")
    _save(path, figure, panels[0])


def _figure(count: int) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, count, figsize=(4.6 * count + 2, 4.4), dpi=160, sharey=True, squeeze=False)
    return figure, list(panels[0])


def _line(axes: Any, points: Sequence[tuple[float, float]], name: str, color: str, marker: str) -> None:
    x, y = zip(*sorted(points), strict=True)
    axes.plot(x, [100 * share for share in y], color=color, marker=marker, markersize=5, linewidth=1.4, label=name)


def _finish(axes: Any, title: str, below: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel(below, color=INK)
    axes.set_ylim(-4, 104)
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="y", color=INK, alpha=0.22, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)


def _save(path: Path, figure: Any, labelled: Any) -> None:
    from matplotlib import pyplot

    handles, names = labelled.get_legend_handles_labels()
    figure.legend(handles, names, loc="center right", frameon=False, labelcolor=INK, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1 - 1.8 / figure.get_figwidth(), 1))
    figure.savefig(path, transparent=True)
    pyplot.close(figure)
