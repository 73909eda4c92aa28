"""A picture of students, to be read on white and on black: how often a guess stands, by depth, and how much of a law is the target's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib.plot import INK
from bench.studies.list_diffusion_plot import COLORS, MARKERS
from fastdistill.train.student import StudentAcceptance


def draw(path: Path, found: Mapping[str, Sequence[StudentAcceptance]]) -> None:
    """By depth the mean over seeds, with the least and the greatest; beside it 1 - TV, a dot a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.4), dpi=160, width_ratios=(3, 2))
    for place, ((name, seeds), color, marker) in enumerate(zip(found.items(), COLORS, MARKERS, strict=False)):
        rates = 100 * np.stack([each.ranks[:, 0] for each in seeds])
        depths = np.arange(1, rates.shape[1] + 1) + 0.05 * (place - len(found) / 2)
        middle = rates.mean(axis=0)
        ends = np.stack([middle - rates.min(axis=0), rates.max(axis=0) - middle])
        left.errorbar(depths, middle, ends, color=color, marker=marker, markersize=5, linewidth=1.4, label=name)
        overlaps = [100 * each.overlap for each in seeds]
        right.plot(overlaps, [-place] * len(overlaps), marker, color=color, markersize=6)
        right.annotate(
            name, (max(overlaps), -place), xytext=(9, 0), textcoords="offset points", va="center", color=color, fontsize=9
        )  # fmt: skip
    _finish(left, "guesses that stand where their parents did, %", "depth of the guess")
    left.set_xticks(range(1, rates.shape[1] + 1))
    left.legend(frameon=False, labelcolor=INK, fontsize=8)
    _finish(right, "accepted of what a student draws: 1 - TV, %", "a mark a seed")
    right.set_yticks([])
    right.margins(x=0.45, y=0.15)
    figure.tight_layout()
    figure.savefig(path, transparent=True)
    pyplot.close(figure)


def _finish(axes: Any, title: str, below: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel(below, color=INK)
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="both", color=INK, alpha=0.22, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)
