"""The picture of what decoders give up for speed: accuracy against tokens a forward, to be read on white and on black."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.parallelbench_tables import Measured
from bench.plot import INK, LIMIT, OURS, THEIRS

# By colour and by shape: either is enough to tell them apart.
FAMILIES = {
    "schedule": (LIMIT, "s"),
    "adaptive": (OURS, "o"),
    "remask": (THEIRS[2], "^"),
    "FreeDave": (THEIRS[0], "D"),
}  # blocks are a table's
# Settings with a label of their own, and where it stands, in points.
OF_ONE_ANSWER = {"5 steps, revised": (8, -3)}
OF_SHUFFLES = {
    "1 a step, confidence": (-6, 8),
    "2 a step, confidence": (-6, 8),
    "4 a step, confidence": (-6, 8),
    "all at once, confidence": (-30, 8),
    "2 a step, random": (8, -3),
    "threshold 0.5": (8, -3),
    "threshold 0.9": (-22, -15),
    "entropy budget 0.1": (-28, 8),
    "learned filter, 0.96": (8, -3),
    "5 steps, ReMDM": (-36, 8),
    "FreeDave, 4 drafts": (-34, -15),
}


def draw(path: Path, found: Sequence[Measured]) -> None:
    """Tasks with one answer beside shuffles: what one kind loses, and the other does not."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(9, 4.4), dpi=160, sharey=True)
    _panel(both[0], "tasks with one answer", found, [one.one_answer for one in found], OF_ONE_ANSWER)
    _panel(both[1], "shuffle: any permutation", found, [one.right["shuffle"] for one in found], OF_SHUFFLES)
    for height, (family, (color, marker)) in enumerate(FAMILIES.items()):  # where there is room
        both[0].text(0.06, 0.5 - 0.08 * height, family, color=color, transform=both[0].transAxes, weight="bold")
        both[0].plot(0.03, 0.515 - 0.08 * height, color=color, marker=marker, transform=both[0].transAxes)
    both[0].set_ylabel("right answers, %", color=INK)
    figure.tight_layout()
    figure.savefig(path, transparent=True)
    pyplot.close(figure)


def _panel(
    axes: Any, title: str, found: Sequence[Measured], shares: Sequence[float], labels: Mapping[str, tuple[int, int]]
) -> None:
    for one, share in zip(found, shares, strict=True):
        if one.setting.family not in FAMILIES:
            continue
        color, marker = FAMILIES[one.setting.family]
        at = (one.tokens_per_forward, share * 100)
        axes.scatter(*at, color=color, marker=marker, s=34, alpha=0.85, linewidth=0, zorder=2)
        if one.setting.name in labels:
            name, offset = one.setting.name.removesuffix(", confidence"), labels[one.setting.name]
            axes.annotate(name, at, xytext=offset, textcoords="offset points", color=color, fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.set_xlim(0.85, 14)
    axes.set_ylim(-4, 108)
    axes.set_xlabel("tokens a forward", color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.tick_params(colors=INK, length=0)
    axes.minorticks_off()
    axes.grid(axis="y", color=INK, alpha=0.22, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)
