"""Which decoder writes a text: the option that names it, those of each kind of decoder, and what is shown meanwhile."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastdistill.cli import guessing, searching, unmasking
from fastdistill.cli.accepted import ShowAccepted, colours
from fastdistill.cli.filling import ShowFilling
from fastdistill.cli.options import check_goes_with, flag, given
from fastdistill.errors import ArgumentError
from fastdistill.options import resolved

if TYPE_CHECKING:
    from fastdistill.api import Model
    from fastdistill.decode import Generation
    from fastdistill.decode.request import Decoder
    from fastdistill.text.tokenizer import Tokenizer

_SHARED = {"trace": {"decoder": ("jacobi", "unmask")}}
_GOES_WITH = guessing.GOES_WITH | searching.GOES_WITH | unmasking.GOES_WITH | _SHARED


def add_decoder_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("which decoder writes").add_argument
    add(
        "--decoder",
        choices=("plain", *guessing.DECODERS, "beam", "unmask"),
        help="plain: one token a forward. speculative: guess in every round. auto: copy from the text where that "
        "pays on this machine, as measured once (1 to 3 s). jacobi: guess the next tokens somehow, let each forward draw all of "
        "them anew, each after the guesses before it, and keep those that stay. lookahead: draw such guesses in a window ahead "
        "of the text, collect the n-grams that they form, and guess those that begin with the text's last token. These three "
        "need no draft model, and write the text of plain decoding. beam: write several texts side by side and end with the likeliest, "
        "which is shown when it is there. unmask: fill masks in any order, several a forward, for "
        "masked diffusion models (default: unmask for these; beam for a model with an encoder whose generation_config.json asks "
        "for beams, if nothing has tokens drawn, such as a temperature; plain for all others)",
    )
    add(
        "--trace",
        action="store_true",
        default=None,
        help="of jacobi and unmask: say on stderr, forward by forward, how guesses or masks became the text",
    )
    guessing.add_guessing_options(parser)
    searching.add_searching_options(parser)
    unmasking.add_unmasking_options(parser)


def decoding(arguments: argparse.Namespace) -> Callable[[Model, Mapping[str, Any]], Decoder]:
    """What makes the decoder of a model and the options of its text, from arguments that are checked as far as they can be without them.

    Raises
    ------
    ArgumentError
        for options that do not go together; what `find_folder` raises
    """
    implying = (*unmasking.GOES_WITH, *_SHARED)
    implied = next((name for name in implying if getattr(arguments, name, None) is not None), None)
    searched = any(getattr(arguments, name) is not None for name in searching.GOES_WITH)
    name = arguments.decoder or ("beam" if searched else "plain" if implied is None else "unmask")
    defaults = guessing.DEFAULTS | unmasking.DEFAULTS
    chosen = defaults | given(**vars(arguments)) | {"decoder": name, "commit": unmasking.rule_name(arguments)}
    check_goes_with(arguments, _GOES_WITH, chosen)
    if name == "unmask":
        settings = unmasking.unmasking(arguments)

        def with_masks(model: Model, options: Mapping[str, Any]) -> Decoder:
            if model.plan.mask_token is None:
                none = (
                    f"masked diffusion models, and {model.folder.name} (architecture {model.plan.architecture}) is none"
                )
                if arguments.decoder or implied is None:
                    raise ArgumentError(f"--decoder unmask is for {none}")
                wanted = " or ".join(_GOES_WITH[implied]["decoder"])
                raise ArgumentError(f"{flag(implied)} goes with --decoder {wanted}; unmask is for {none}")
            return settings

        return with_masks
    decoder_of = _searching(arguments) if name == "beam" else guessing.guessing(arguments)

    def without_masks(model: Model, options: Mapping[str, Any]) -> Decoder:
        if model.plan.causal and name == "plain" and arguments.decoder is None:
            from fastdistill.tasks import asked_decoder

            return asked_decoder(model, resolved("generate", options))
        if model.plan.causal:
            return decoder_of(model)
        if arguments.decoder is not None or searched:
            raise ArgumentError(
                f"--decoder {name} writes one token after another, but {model.folder.name} (architecture "
                f"{model.plan.architecture}) is a masked diffusion model: it needs --decoder unmask, its default"
            )
        return unmasking.unmasking(arguments)

    return without_masks


def _searching(arguments: argparse.Namespace) -> Callable[[Model], Decoder]:
    settings = searching.searching(arguments)
    return lambda model: settings


def watching(
    arguments: argparse.Namespace, decoder: Decoder, tokenizer: Tokenizer
) -> ShowAccepted | ShowFilling | None:
    """A decoder that shows what another one does, where that is wanted and stdout is a terminal."""
    if not colours() or getattr(arguments, "json", False):
        return None
    if arguments.show_accepted:
        return ShowAccepted(decoder, tokenizer)
    if getattr(decoder, "fills_masks", False) and arguments.show_filling is not False:
        return ShowFilling(decoder, tokenizer)
    return None


def trace(generation: Generation, tokenizer: Tokenizer) -> str:
    """What --trace says of a text."""
    if generation.trace is None:
        return guessing.trajectory(generation, tokenizer)
    from fastdistill import show

    return show.trace(generation.trace, label=spelling(tokenizer))


def spelling(tokenizer: Tokenizer) -> Callable[[int], str]:
    """How a trace calls tokens, special ones too."""
    return lambda token: tokenizer.decode([token], skip_special=False)
