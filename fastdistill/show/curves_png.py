"""Losses over steps, as a picture: of each run what it learnt from, and what was held out."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from fastdistill.arguments import check_mapping, check_text
from fastdistill.errors import ArgumentError
from fastdistill.files import whole_file
from fastdistill.messages import short
from fastdistill.show.trace_png import INK, PAPER, check_png

COLOURS = (31, 119, 180), (214, 90, 30), (44, 140, 70), (150, 90, 190), (120, 100, 60)
GRID = (222, 226, 230)
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 960, 540, 72, 64, 52, 24  # pixels; of them the margins
_TEXT, _TITLE = 12, 16
_TICKS = 6
_SMOOTHED = 40  # a dark line has about so many means of neighbours; the pale one is all steps


def curves_png(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], path: str | os.PathLike[str], *, title: str = "loss"
) -> None:
    """The losses of runs over their steps: pale each step, dark the mean of neighbours, dots what was held out.

    Parameters
    ----------
    runs : Mapping[str, Sequence[Mapping[str, Any]]]
        by name, the lines of metrics.jsonl: `read_metrics` gives them
    path : str | os.PathLike[str]
        of a .png file in a folder that is there
    title : str, default "loss"
        what stands above

    Raises
    ------
    ArgumentError
    UnsupportedError
        without Pillow (extra `demo`)
    CheckpointError
        where it cannot be written
    """
    check_mapping("runs", runs, "names to lines of metrics")
    for name, lines in runs.items():
        if not (
            isinstance(name, str) and isinstance(lines, Sequence) and all(isinstance(line, Mapping) for line in lines)
        ):
            raise ArgumentError(f"runs must map names to lines of metrics, each by name, got {short({name: lines})}")
    path, title = check_png(path), check_text("title", title)
    curves = {name: (_points(lines, "loss"), _points(lines, "evaluation")) for name, lines in runs.items()}
    points = [point for pair in curves.values() for each in pair for point in each]
    if not points:
        raise ArgumentError(f"there is no loss to draw yet in {short(list(runs))}")
    from PIL import Image, ImageDraw, ImageFont

    text, large = ImageFont.load_default(_TEXT), ImageFont.load_default(_TITLE)
    image = Image.new("RGB", (_WIDTH, _HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    last = max(1, *(step for step, _ in points))
    # A first step or two may be far above all else, and would press it flat.
    ordered = sorted(loss for _, loss in points)
    low, high = ordered[0], ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)))]
    ticks = ticks_of(low, high if high > low else low + 1)
    low, high = ticks[0], ticks[-1]

    def at(step: float, loss: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / last
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (min(loss, high) - low) / (high - low)
        return x, y

    draw.text((_LEFT, 22), title, fill=INK, font=large, anchor="lm")
    for loss in ticks:
        draw.line((at(0, loss), at(last, loss)), fill=GRID)
        draw.text((_LEFT - 8, at(0, loss)[1]), f"{loss:g}", fill=INK, font=text, anchor="rm")
    for step in ticks_of(0, last):
        if step <= last:
            draw.text((at(step, low)[0], _HEIGHT - _BOTTOM + 16), f"{step:,.0f}", fill=INK, font=text, anchor="mm")
    draw.text((_WIDTH - _RIGHT, _HEIGHT - 14), "step", fill=INK, font=text, anchor="rm")
    x = float(_LEFT)
    for colour, (losses, _) in zip(cycle(COLOURS), curves.values(), strict=False):
        draw.line([at(*point) for point in losses], fill=tuple(255 - (255 - part) // 4 for part in colour))
    for colour, (name, (losses, held_out)) in zip(cycle(COLOURS), curves.items(), strict=False):
        draw.line([at(*point) for point in smoothed(losses)], fill=colour, width=2)
        for point in held_out:
            centre = at(*point)
            draw.ellipse([part + side for side in (-4, 4) for part in centre], fill=PAPER, outline=colour, width=2)
        for kind, there in (("", losses), (", held out", held_out)):
            if there:
                if kind:
                    draw.ellipse((x + 4, 42, x + 12, 50), outline=colour, width=2)
                else:
                    draw.line((x, 46, x + 16, 46), fill=colour, width=2)
                draw.text((x + 22, 46), name + kind, fill=INK, font=text, anchor="lm")
                x += 44 + text.getlength(name + kind)
    with whole_file(path) as made:
        image.save(made, "PNG")


def ticks_of(low: float, high: float) -> list[float]:
    """About _TICKS round numbers, the first at most `low`, the last at least `high`, which is greater."""
    power = 10.0 ** math.floor(math.log10((high - low) / _TICKS))
    step = next(power * times for times in (1, 2, 5, 10) if (high - low) / (power * times) <= _TICKS)
    first = math.floor(low / step + 1e-9)
    return [round(number * step, 12) for number in range(first, math.ceil(high / step - 1e-9) + 1)]


def smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Means of neighbours, as far as there are any."""
    reach = max(1, len(points) // _SMOOTHED)
    windows = (points[max(0, i - reach) : i + reach + 1] for i in range(len(points)))
    return [
        (step, sum(loss for _, loss in window) / len(window)) for (step, _), window in zip(points, windows, strict=True)
    ]


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [
        (line["step"], line[name])
        for line in lines
        if type(line.get("step")) is int and type(line.get(name)) in (int, float) and math.isfinite(line[name])
    ]
