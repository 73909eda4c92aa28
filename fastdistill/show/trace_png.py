"""Who was filled when, as a picture: a line a position, a column a forward."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastdistill.arguments import check_instance, check_path
from fastdistill.decode.unmask.trace import Trace
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.files import whole_file
from fastdistill.messages import short
from fastdistill.show.labels import check_label, spelt

PALE, DARK = (198, 219, 239), (8, 48, 107)  # of the probabilities 0 and 1, and between them in proportion
FILLED, AGAIN, PAPER, INK, MASKED = (206, 212, 218), (214, 39, 40), (255, 255, 255), (33, 37, 41), (241, 243, 245)
_TEXT, _TITLE = 12, 16  # pixels of letters
_MOST_COLUMNS, _MOST_LINES = 1200, 6000  # pixels of all cells: with more forwards or positions, each has fewer
_LABEL = 24  # letters of a token


def check_png(path: str | os.PathLike[str]) -> Path:
    """The path of a picture that can be made.

    Raises
    ------
    ArgumentError
        for another suffix or a folder that is not there
    UnsupportedError
        without Pillow
    """
    path = check_path("path", path)
    if path.suffix.lower() != ".png":
        raise ArgumentError(f"a picture is a .png file, got {short(str(path))}")
    if not path.parent.is_dir():
        raise ArgumentError(f"there is no folder {short(str(path.parent))} for the picture {short(path.name)}")
    try:
        import PIL.ImageFont  # noqa: F401
    except ImportError:
        raise UnsupportedError('pictures need Pillow: pip install "fastdistill[demo]"') from None
    return path


def trace_png(
    trace: Trace, path: str | os.PathLike[str], *, label: Callable[[int], str] | None = None, title: str = ""
) -> None:
    """A trace as a picture: a line a place with its token, a column a forward, dark where a token was probable.

    Parameters
    ----------
    trace : Trace
        of an unmasked text, Unmask(trace=True)
    path : str | os.PathLike[str]
        of a .png file in a folder that is there
    label : Callable[[int], str], optional
        the text of a token; by default its number
    title : str, default ""
        what stands above

    Raises
    ------
    ArgumentError
    UnsupportedError
        without Pillow (extra `demo`)
    CheckpointError
        where it cannot be written
    """
    check_instance("trace", trace, Trace)
    path = check_png(path)
    check_label(label)
    if not isinstance(title, str):
        raise ArgumentError(f"title must be a str, got {short(title)}")
    if not trace.steps:
        raise ArgumentError("the trace has no steps: there is nothing to draw")
    from PIL import Image, ImageDraw, ImageFont

    text, large = ImageFont.load_default(_TEXT), ImageFont.load_default(_TITLE)
    final, filled_at = trace.states()[-1].tolist(), trace.filled_at().tolist()
    texts = [spelt(token, label).strip()[:_LABEL] for token in final]
    names = [name if at >= 0 else "" for name, at in zip(texts, filled_at, strict=True)]
    forwards, length = len(trace.steps), trace.length
    width = max(1, min(44, _MOST_COLUMNS // forwards))
    height = max(1, min(18, _MOST_LINES // length))
    left = 84 + max(int(text.getlength(name)) for name in [*names, "token"])
    top, scale = 76, 240
    right = max(left + width * forwards, left + scale + 330)
    image = Image.new("RGB", (right + 16, top + height * length + 76), PAPER)
    draw = ImageDraw.Draw(image)

    def write(x: float, y: float, words: str, anchor: str = "lm", font: Any = text, colour: Any = INK) -> None:
        draw.text((x, y), words, fill=colour, anchor=anchor, font=font)

    write(12, 20, title, font=large)
    write(left, 44, "forward")
    write(12, 60, "position")
    write(left - 8, 60, "token", "rm")
    every = -(-28 // width)
    for step in range(0, forwards, every):
        write(left + width * (step + 0.5), 62, str(step + 1), "mm")
    every = -(-14 // height)
    for place in range(0, length, every):
        y = top + height * (place + 0.5)
        write(56, y, str(place), "rm")
        write(left - 8, y, names[place], "rm")
    gap = 1 if min(width, height) > 4 else 0
    for step, (kinds, confidence) in enumerate(trace.cells()):
        for place in range(length):
            kind, share = kinds[place], float(confidence[place])
            colour = {"masked": MASKED, "filled": FILLED, "again": AGAIN}.get(kind) or _shade(share)
            x, y = left + width * step, top + height * place
            draw.rectangle((x, y, x + width - 1 - gap, y + height - 1 - gap), fill=colour)
            if kind == "new" and width >= 30 and height >= 14:
                dark = share > 0.5
                write(x + width / 2, y + height / 2, f"{100 * share:.0f}", "mm", colour=PAPER if dark else INK)
    y = top + height * length + 40
    write(left, y - 20, "filled now: the probability of its token, in %")
    for x in range(scale):
        draw.line((left + x, y - 6, left + x, y + 6), fill=_shade(x / (scale - 1)))
    write(left, y + 16, "0", "mm")
    write(left + scale, y + 16, "100", "mm")
    for number, (colour, words) in enumerate(((FILLED, "filled before"), (AGAIN, "masked again"), (MASKED, "masked"))):
        x = left + scale + 20 + 106 * number
        draw.rectangle((x, y - 6, x + 12, y + 6), fill=colour)
        write(x + 18, y, words)
    with whole_file(path) as made:
        image.save(made, "PNG")


def _shade(share: float) -> tuple[int, ...]:
    return tuple(round(pale + (dark - pale) * share) for pale, dark in zip(PALE, DARK, strict=True))
