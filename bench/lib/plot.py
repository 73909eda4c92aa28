"""The picture of what forwards of a few rows cost, to be read on white and on black."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.lib.peers import missing
from bench.lib.timing import Samples

INK = "#7a8490"  # text and axes: on white and on black alike
OURS, THEIRS, LIMIT = "#e8743b", ("#3f8fd6", "#2aa198", "#a06fd0"), "#8a8a8a"


def picture(path: str) -> Path:
    """What an option that names a picture holds: a path that can be drawn at, whose folder is there or is made now."""
    if reason := missing("matplotlib"):
        raise ArgumentTypeError(f"{path} cannot be drawn: {reason}")
    if Path(path).suffix.lower() != ".png":
        raise ArgumentTypeError(f"a picture is a .png file, got {path}")
    pictures(Path(path).parent)
    return Path(path)


def pictures(folder: str | Path) -> Path:
    """The same for a folder of pictures."""
    if reason := missing("matplotlib"):
        raise ArgumentTypeError(f"nothing can be drawn in {folder}: {reason}")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentTypeError(f"{folder} cannot be made: {error.strerror}") from None
    return Path(folder)


def draw(
    path: Path, ours: str, curves: Mapping[str, Mapping[int, Samples]], limits: Mapping[str, Mapping[int, float]]
) -> None:
    """Milliseconds of forwards of so many rows, both axes by powers of two.

    curves  by name, Samples of seconds; the one called `ours` stands out
    limits  by name, seconds
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure, axes = pyplot.subplots(figsize=(8, 4.6), dpi=160)
    labels: list[tuple[float, str, str]] = []
    for name, limit in limits.items():
        milliseconds = [seconds * 1e3 for seconds in limit.values()]
        axes.plot(list(limit), milliseconds, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        labels.append((milliseconds[-1], name, LIMIT))
    colors = iter(THEIRS)
    for name, curve in curves.items():
        color = OURS if name == ours else next(colors)
        milliseconds = [samples.median * 1e3 for samples in curve.values()]
        quartiles = [[quartile * 1e3 for quartile in samples.quartiles] for samples in curve.values()]
        axes.fill_between(list(curve), *zip(*quartiles, strict=True), color=color, alpha=0.18, linewidth=0)
        axes.plot(
            list(curve), milliseconds, color=color, linewidth=2.6 if name == ours else 1.8, marker="o", markersize=4
        )
        labels.append((milliseconds[-1], name, color))

    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    last = max(max(curve) for curve in curves.values())
    powers = [2**power for power in range(20)]
    axes.set_xlim(0.92, last * 1.06)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(powers))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("rows of one forward", color=INK)
    axes.set_title(
        "milliseconds of a forward: medians; in the bands, half of all turns", loc="left", color=INK, fontsize=11
    )
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="y", color=INK, alpha=0.22, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)
    _label(axes, last, labels)
    figure.tight_layout()
    figure.savefig(path, transparent=True)
    pyplot.close(figure)


def _label(axes: Any, last: float, labels: Sequence[tuple[float, str, str]]) -> None:
    """Name each line at its end, pushed up where two would overlap."""
    low, high = axes.get_ylim()
    least, floor = (high / low) ** 0.055, 0.0  # what a line of text takes, as a factor
    for height, name, color in sorted(labels):
        floor = max(height, floor * least)
        axes.annotate(
            name, (last, floor), xytext=(10, 0), textcoords="offset points", va="center", color=color, annotation_clip=False
        )  # fmt: skip
