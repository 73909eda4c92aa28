"""What is a decoder, and what is only a part of one: an error says which decoder takes the part."""

from __future__ import annotations

import inspect
from typing import Any

from fastdistill.decode.drafters import DRAFTERS
from fastdistill.decode.trees import StaticTree, Tree
from fastdistill.decode.unmask.end_of_text import EndOfText
from fastdistill.decode.unmask.remasking import Remask
from fastdistill.decode.unmask.rules import Rule
from fastdistill.errors import ArgumentError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.messages import short

_PARTS: tuple[tuple[type | tuple[type, ...], str, str], ...] = (
    (Rule, "a rule for unmasking", "Unmask({})"),
    (Remask, "remasking", "Unmask(remask={})"),
    (EndOfText, "what is done about the end of a text", "Unmask(end={})"),
    (DRAFTERS, "a drafter", "Speculative({})"),
    ((Tree, StaticTree), "the shape of drafts", "Speculative(drafter, tree={})"),
    (Sampler, "a sampler", "its settings by name, such as temperature and top_p"),
)


def check_decoder(decoder: Any) -> None:
    """Refuse what is no decoder.

    Raises
    ------
    ArgumentError
    """
    for part, what, whole in _PARTS:
        if isinstance(decoder, part):
            raise ArgumentError(f"{what} is not a decoder: pass {whole.format(short(decoder))}")
    if isinstance(decoder, type) and hasattr(decoder, "start"):
        raise ArgumentError(f"decoder must be an object, not a class: pass {short(decoder.__name__[:40])[1:-1]}(...)")
    start = getattr(decoder, "start", None)
    if isinstance(decoder, (type, str)) or not callable(start):
        raise ArgumentError(f'decoder must be "auto" or a decoder such as Autoregressive(), got {short(decoder)}')
    try:
        inspect.signature(start).bind(None, None)
    except ValueError:  # of a function that does not say
        pass
    except TypeError:
        raise ArgumentError(
            f"a decoder's start takes (session, request), that of {short(decoder)} does not; a drafter goes into Speculative(...)"
        ) from None
