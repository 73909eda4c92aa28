"""The picture of what decoders give up for speed: accuracy against tokens a forward, to be read on white and on black."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.lib.plot import INK, LIMIT, OURS, THEIRS
from bench.studies.parallelbench_tables import Measured

# By colour and by shape: either is enough to tell them apart.
FAMILIES = {
    "schedule": (LIMIT, "s"),
    "adaptive": (OURS, "o"),
    "remask": (THEIRS[2], "^"),
    "FreeDave": (THEIRS[0], "D"),
}  # blocks are a table's
TOKENS, SHARE = (0.85, 14), (-4, 108)  # the ends of both axes
NEAR = 0.045  # of an axis: points as near as this share a label
PLACES = (0, -1, 1, -2, 2, -3, -4)  # of a label, in lines above its points, or below them


def draw(path: Path, found: Sequence[Measured]) -> None:
    """Tasks with one answer beside shuffles: what one kind loses, and the other does not; every point by its number."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [one for one in found if one.setting.family in FAMILIES]
    shown.sort(key=lambda one: list(FAMILIES).index(one.setting.family))
    figure, panels = pyplot.subplots(1, 3, figsize=(12, 5.2), dpi=160, width_ratios=(4, 4, 2.6))
    panels[1].sharey(panels[0])
    _panel(panels[0], "tasks with one answer", shown, [one.one_answer for one in shown])
    _panel(panels[1], "shuffle: any permutation", shown, [one.right["shuffle"] for one in shown])
    panels[0].set_ylabel("right answers, %", color=INK)
    _key(panels[2], shown)
    figure.tight_layout()
    figure.savefig(path, transparent=True)
    pyplot.close(figure)


def _panel(axes: Any, title: str, shown: Sequence[Measured], shares: Sequence[float]) -> None:
    points = [(one.tokens_per_forward, 100 * share) for one, share in zip(shown, shares, strict=True)]
    for one, at in zip(shown, points, strict=True):
        color, marker = FAMILIES[one.setting.family]
        axes.scatter(*at, color=color, marker=marker, s=34, alpha=0.85, linewidth=0, zorder=2)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.set_xlim(*TOKENS)
    axes.set_ylim(*SHARE)
    axes.set_xlabel("tokens a forward", color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.tick_params(colors=INK, length=0)
    axes.minorticks_off()
    axes.grid(axis="y", color=INK, alpha=0.22, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)
    _number(axes, points)


def _number(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    """Numbers beside the points, a label for those that lie together: each where it covers no other, and no point."""
    renderer = axes.figure.canvas.get_renderer()
    dots = [axes.transData.transform(point) for point in points]
    taken: list[Any] = []
    for members in _clusters(points):
        x, y = points[members[0]]
        for lines in PLACES:
            label = axes.annotate(
                ranges([member + 1 for member in members]), (x, y), xytext=(0, 7 + 8 * lines if lines >= 0 else 8 * lines),
                textcoords="offset points", fontsize=7, color=INK, ha="center", va="bottom" if lines >= 0 else "top",
            )  # fmt: skip
            box = label.get_window_extent(renderer)
            if not (any(box.overlaps(other) for other in taken) or any(box.contains(*dot) for dot in dots)):
                break
            if lines != PLACES[-1]:
                label.remove()
        taken.append(box)


def _key(axes: Any, shown: Sequence[Measured]) -> None:
    """What the numbers stand for, family by family."""
    axes.set_axis_off()
    lines, height = len(shown) + 1.5 * len({one.setting.family for one in shown}), 1.0
    step, family = 1 / lines, ""
    for number, one in enumerate(shown, 1):
        color, marker = FAMILIES[one.setting.family]
        if one.setting.family != family:
            family, height = one.setting.family, height - 1.5 * step
            axes.plot(0.04, height + 0.3 * step, color=color, marker=marker, transform=axes.transAxes)
            axes.text(0.13, height, family, color=color, weight="bold", fontsize=9, transform=axes.transAxes)
        height -= step
        axes.text(0.09, height, str(number), color=INK, ha="right", fontsize=7.5, transform=axes.transAxes)
        axes.text(0.13, height, one.setting.name, color=color, fontsize=7.5, transform=axes.transAxes)


def _clusters(points: Sequence[tuple[float, float]]) -> list[list[int]]:
    """Points in groups that one label serves, from left to right."""
    clusters: list[list[int]] = []
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        x, y = points[index]
        for members in clusters:
            if all(
                abs(math.log(x / points[member][0], TOKENS[1] / TOKENS[0])) < NEAR
                and abs(y - points[member][1]) / (SHARE[1] - SHARE[0]) < NEAR
                for member in members
            ):
                members.append(index)
                break
        else:
            clusters.append([index])
    return [sorted(members) for members in clusters]


def ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 5 as "1-3, 5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
