"""How a text is searched for: the options of beam search, the decoder that they ask for, what it found."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from fastdistill.cli.options import given

if TYPE_CHECKING:
    from fastdistill.decode import BeamSearch, Generation

_ABOUT = """\
Plain decoding takes the likeliest token each time, which need not make the likeliest text. A search writes several texts side by
side, a row each in every forward, and ends with the best.
"""
_STOPPING: dict[str, bool | str] = {"true": True, "false": False, "never": "never"}
_BEAM: dict[str, tuple[str, ...]] = {"decoder": ("beam",)}
GOES_WITH: dict[str, dict[str, tuple[str, ...]]] = {
    "num_beams": _BEAM,
    "length_penalty": _BEAM,
    "early_stopping": _BEAM,
}


def add_searching_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how a text is searched for", _ABOUT).add_argument
    add("--num-beams", type=int, metavar="N", help="texts side by side; at least 2 (default: 4)")
    add(
        "--length-penalty",
        type=float,
        metavar="P",
        help="a text's score is the sum of its log probabilities over its tokens to the power of P: above 0 favours long texts, "
        "below 0 short ones (default: 1.0)",
    )
    add(
        "--early-stopping",
        choices=_STOPPING,
        help="when to end, with N ended texts at hand. true: at once. false: when no other would be better, had it ended now "
        "(default). never: when none can become better, however long it gets",
    )


def searching(arguments: argparse.Namespace) -> BeamSearch:
    """The decoder that was asked for."""
    from fastdistill.decode import BeamSearch

    stopping = None if arguments.early_stopping is None else _STOPPING[arguments.early_stopping]
    return BeamSearch(
        **given(num_beams=arguments.num_beams, length_penalty=arguments.length_penalty, early_stopping=stopping)
    )


def search_statistics(generation: Generation) -> str:
    """What a search has found, as a further line; none where there was no search."""
    if generation.score is None:
        return ""
    others = ", ".join(f"{each.score:.4f}" for each in generation.runners_up)
    return f"\nscore   {generation.score:.4f}" + (f"; of the others {others}" if others else "")


def search_facts(generation: Generation) -> dict[str, Any]:
    """The same for --json, with the other texts."""
    if generation.score is None:
        return {}
    others = [{"text": each.text, "tokens": each.tokens, "score": each.score} for each in generation.runners_up]
    return {"score": generation.score, "runners_up": others}
