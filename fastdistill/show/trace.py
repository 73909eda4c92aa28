"""Who was filled when, in characters."""

from __future__ import annotations

from collections.abc import Callable

from fastdistill.arguments import check_instance
from fastdistill.decode.unmask.trace import Trace
from fastdistill.show.labels import check_label, spelt

SHADES = "░▒▓█"  # of a quarter of the probabilities each
FILLED, MASKED, AGAIN = "-", "·", "x"


def trace(trace: Trace, *, label: Callable[[int], str] | None = None) -> str:
    """A trace in characters, a line a step, a column a place: how probable each token was when it was put there; then the step's tokens.

    Parameters
    ----------
    trace : Trace
        of an unmasked text, Unmask(trace=True)
    label : Callable[[int], str], optional
        the text of a token; by default its number

    Returns
    -------
    str
        lines without a last line break, a legend first

    Raises
    ------
    ArgumentError
    """
    check_instance("trace", trace, Trace)
    check_label(label)
    shares = [
        f"{shade} {share}" for shade, share in zip(SHADES, ("< 25 %", "< 50 %", "< 75 %", "up to 100 %"), strict=True)
    ]
    lines = ["  ".join([*shares, f"{FILLED} filled", f"{MASKED} masked", f"{AGAIN} masked again"])]
    signs = {"filled": FILLED, "masked": MASKED, "again": AGAIN}
    for number, (step, (kinds, confidence)) in enumerate(zip(trace.steps, trace.cells(), strict=True)):
        shades = [SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)] for share in confidence.tolist()]
        row = [signs.get(kind, shade) for kind, shade in zip(kinds, shades, strict=True)]
        texts = " ".join(spelt(token, label).strip() for token in step.tokens.tolist())
        lines.append(f"{number:>4}  {''.join(row[: step.length]):<{trace.length}}  {texts}".rstrip())
    return "\n".join(lines)
