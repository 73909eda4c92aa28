"""How tokens are guessed: the options of speculative decoding, the decoder that they ask for, what became of its guesses."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastdistill.cli.terminal import FORMATS, say
from fastdistill.errors import ArgumentError
from fastdistill.fetch import find_folder

if TYPE_CHECKING:
    from fastdistill.api import Model
    from fastdistill.decode import Costs, Generation, Round
    from fastdistill.decode.request import Decoder

DRAFTERS = ("lookup", "model", "layers")
RULES = ("coupled", "rejection", "block", "traversal", "typical")

_ABOUT = """\
A forward reads every weight, for one token or for several: so tokens are guessed, and one forward checks them all. A right
guess is a token more from the same forward; a wrong one costs a little time, and the text nothing.
"""

# What each option goes with: decoders, drafters.
_GUESSING = ("speculative", "auto")
_GOES_WITH: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "drafter": (("speculative",), DRAFTERS),
    "draft_model": (("speculative",), ("model",)),
    "draft_format": (("speculative",), ("model",)),
    "skip_layers": (("speculative",), ("layers",)),
    "rule": (("speculative",), DRAFTERS),
    "max_draft": (_GUESSING, DRAFTERS),
    "continuations": (_GUESSING, ("lookup",)),
    "tree": (("speculative",), ("model",)),
    "show_accepted": (_GUESSING, DRAFTERS),
}


def add_guessing_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how tokens are guessed", _ABOUT).add_argument
    add(
        "--decoder",
        choices=("plain", *_GUESSING),
        default="plain",
        help="plain: one token a forward (default). speculative: guess in every round. auto: copy from the text where that "
        "pays on this machine, as measured once (1 to 3 s); the text of plain decoding",
    )
    add(
        "--drafter",
        choices=DRAFTERS,
        help="where guesses come from. lookup: the end of the text is looked for earlier in it, and what followed there is "
        "guessed again (default). model: another model, or this one in a smaller format. layers: this one without its last "
        "layers",
    )
    add(
        "--draft-model",
        metavar="MODEL",
        help="of --drafter model, with the same vocabulary (default: the model itself)",
    )
    add("--draft-format", choices=FORMATS, help="of the draft model's weights (default: as stored)")
    add("--skip-layers", type=int, metavar="N", help="of --drafter layers: how many of the last layers it leaves out")
    add(
        "--rule",
        choices=RULES,
        help="which guesses stand. coupled: those that plain decoding would have drawn, so its very text, at any temperature "
        "(default). rejection, block, traversal: lossless as well, each text as likely as in plain decoding, but a seed gives "
        "another one. typical: lossy, whatever the model finds plausible",
    )
    add("--max-draft", type=int, metavar="N", help="most guesses a round (default: 8; of auto: 31)")
    add(
        "--continuations",
        type=int,
        metavar="N",
        help="of lookup: follow the N best earlier places at once (default: 1)",
    )
    add(
        "--tree",
        type=_tree,
        metavar="WIDTHxDEPTH",
        help="of --drafter model: guess a tree that grows where the draft model is surest, WIDTH nodes on each of DEPTH levels, "
        "such as 4x3; for rules coupled and typical (default: a chain)",
    )
    add(
        "--show-accepted",
        action="store_true",
        default=None,
        help="in a terminal, show right guesses in green, and wrong ones in red, struck out",
    )


def guessing(arguments: argparse.Namespace) -> Callable[[Model], Decoder]:
    """What makes the decoder of a model, from options that are checked as far as they can be without it.

    raises  ArgumentError for options that do not go together; what `find_folder` raises
    """
    _check(arguments)
    from fastdistill.decode import Auto, Autoregressive, LayerSkip, ModelDrafter, PromptLookup, Speculative, Tree

    if arguments.decoder == "plain":
        return lambda model: Autoregressive()
    most = {} if arguments.max_draft is None else {"max_draft": arguments.max_draft}
    lookup = PromptLookup(continuations=arguments.continuations)
    settings = Speculative(
        lookup,
        rule=arguments.rule or "coupled",
        tree=None if arguments.tree is None else Tree(*arguments.tree),
        **most,
    )
    if arguments.decoder == "auto":
        weighed = PromptLookup(min_match=1, continuations=arguments.continuations)  # a short match is weighed as one
        return lambda model: Auto(_costs(model), weighed, **most)
    if arguments.drafter == "model":
        folder = None if arguments.draft_model is None else find_folder(arguments.draft_model)

        def with_model(model: Model) -> Decoder:
            from fastdistill.api import load

            draft = load(folder or model.folder, arguments.draft_format, arguments.threads)
            if draft.vocab_size != model.vocab_size:
                raise ArgumentError(
                    f"--draft-model has {draft.vocab_size} tokens, the model {model.vocab_size}: they must have the same"
                )
            return dataclasses.replace(settings, drafter=ModelDrafter(draft))

        return with_model
    if arguments.drafter == "layers":

        def with_layers(model: Model) -> Decoder:
            count = model.plan.num_layers
            if not 1 <= arguments.skip_layers < count:
                raise ArgumentError(f"--skip-layers must lie in 1..{count - 1}, got {arguments.skip_layers}")
            return dataclasses.replace(settings, drafter=LayerSkip(count - arguments.skip_layers))

        return with_layers
    return lambda model: settings


def guess_statistics(generation: Generation) -> str:
    """What became of the guesses, as further lines; none where the decoder makes no guesses."""
    stats, rounds = generation.stats, generation.rounds
    if not rounds:
        return ""
    guessed = sum(round.drafted > 0 for round in rounds)
    share = f" ({100 * stats.accepted / stats.drafted:.0f} %)" if stats.drafted else ""
    found = by_depth(rounds)
    asked, right = found["asked"], found["right"]
    lines = [
        f"guesses {stats.drafted} in {guessed} of {len(rounds)} forwards, {stats.accepted} right{share}; "
        f"{stats.tokens_per_forward:.2f} tokens a forward"
    ]
    if asked:
        lines += [
            "depth   " + " ".join(f"{depth:5d}" for depth in range(1, len(asked) + 1)),
            "asked   " + " ".join(f"{count:5d}" for count in asked),
            "right   " + " ".join(f"{100 * good / count:3.0f} %" for good, count in zip(right, asked, strict=True)),
        ]
    return "".join("\n" + line for line in lines)


def by_depth(rounds: Sequence[Round]) -> dict[str, list[int]]:
    """Of the first, second, ... guesses of rounds: how many were asked, those before them being right, and were right."""
    deepest = max((round.accepted + bool(round.refused) for round in rounds), default=0)
    right = [sum(round.accepted > depth for round in rounds) for depth in range(deepest)]
    wrong = [sum(round.accepted == depth and bool(round.refused) for round in rounds) for depth in range(deepest)]
    return {"asked": [good + bad for good, bad in zip(right, wrong, strict=True)], "right": right}


def _check(arguments: argparse.Namespace) -> None:
    drafter, rule = arguments.drafter or "lookup", arguments.rule or "coupled"
    for name, (decoders, drafters) in _GOES_WITH.items():
        if getattr(arguments, name) is None:
            continue
        for option, chosen, wanted in (("decoder", arguments.decoder, decoders), ("drafter", drafter, drafters)):
            if chosen not in wanted:
                flag = "--" + name.replace("_", "-")
                raise ArgumentError(f"{flag} goes with --{option} {' or '.join(wanted)}, not with {chosen}")
    if drafter == "layers" and arguments.skip_layers is None:
        raise ArgumentError("--drafter layers needs --skip-layers N")
    if drafter == "model" and arguments.draft_model is None and arguments.draft_format is None:
        raise ArgumentError(
            "--drafter model needs --draft-model, or --draft-format for the model itself in another format"
        )
    if arguments.tree is not None and rule not in ("coupled", "typical"):
        raise ArgumentError(
            f"--tree goes with --rule coupled or typical, not with {rule}: its guesses are not drawn by a law"
        )
    if rule == "block" and (arguments.continuations or 1) > 1:
        raise ArgumentError("--rule block is for chains: several --continuations are a tree")


def _costs(model: Model) -> Costs:
    """The model's costs; where they have to be measured first, that is said, and what was found."""
    file = model.costs_file
    if file is not None and file.exists():
        return model.costs
    kept = "" if file is None else f", once: kept in {file.parent}"
    say(f"measuring what forwards of 1 to 32 rows cost here{kept}")
    costs = model.costs
    say(str(costs))
    return costs


def _tree(text: str) -> tuple[int, int]:
    width, _, depth = text.partition("x")
    try:
        return int(width), int(depth)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be WIDTHxDEPTH such as 4x3, got {text!r}") from None
