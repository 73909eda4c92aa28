"""How tokens are guessed: the options of decoders that guess, the decoder that they ask for, what became of its guesses."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastdistill.cli.options import given
from fastdistill.cli.terminal import FORMATS, say
from fastdistill.errors import ArgumentError
from fastdistill.fetch import find_folder
from fastdistill.messages import short

if TYPE_CHECKING:
    from fastdistill.api import Model
    from fastdistill.decode import Auto, Costs, FirstOf, Generation, Jacobi, Lookahead, Round
    from fastdistill.decode.request import Decoder
    from fastdistill.text.tokenizer import Tokenizer

DRAFTERS = ("lookup", "model", "layers")
RULES = ("coupled", "rejection", "block", "traversal", "typical")
INITS = ("prompt", "random", "copy")
SURE_MATCH = 8  # tokens that have stood before: what followed them is likelier than a head's guesses

_ABOUT = """\
A forward reads every weight, for one token or for several: so tokens are guessed, and one forward checks them all. A right
guess is a token more from the same forward; a wrong one costs a little time, and the text nothing.
"""

# Decoders that guess; those whose guesses are their own draws.
DECODERS, _ITERATING = ("speculative", "auto", "jacobi", "lookahead"), ("jacobi", "lookahead")
DEFAULTS = {"drafter": "lookup", "rule": "coupled"}

# What each option goes with: the values that other options must have.
GOES_WITH: dict[str, dict[str, tuple[str, ...]]] = {
    "drafter": {"decoder": ("speculative", "auto")},
    "draft_model": {"decoder": ("speculative",), "drafter": ("model",)},
    "draft_format": {"decoder": ("speculative",), "drafter": ("model",)},
    "skip_layers": {"decoder": ("speculative",), "drafter": ("layers",)},
    "rule": {"decoder": ("speculative",)},
    "max_draft": {"decoder": ("speculative", "auto")},
    "continuations": {"decoder": ("speculative", "auto"), "drafter": ("lookup",)},
    "tree": {"decoder": ("speculative",)},
    "block": {"decoder": ("jacobi",)},
    "max_blocks": {"decoder": ("jacobi",)},
    "no_recycle": {"decoder": ("jacobi",)},
    "window": {"decoder": ("lookahead",)},
    "ngram": {"decoder": ("lookahead",)},
    "max_guesses": {"decoder": ("lookahead",)},
    "init": {"decoder": _ITERATING},
    "no_adaptive": {"decoder": _ITERATING},
    "show_accepted": {"decoder": DECODERS},
}


def add_guessing_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how tokens are guessed", _ABOUT).add_argument
    add(
        "--drafter",
        metavar="{lookup,model,layers} or DRAFT",
        help="where guesses come from. lookup: the end of the text is looked for earlier in it, and what followed there is "
        "guessed again (default). model: another model, or this one in a smaller format. layers: this one without its last "
        "layers. DRAFT: the folder of a draft head of this model, which `fastdistill distill` makes; where the text repeats "
        "itself, what followed is guessed again all the same. auto knows lookup and DRAFT",
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
        help="of --drafter model or DRAFT: guess a tree that grows where the draft model is surest, WIDTH nodes on each of DEPTH levels, "
        "such as 4x3; for rules coupled and typical (default: a chain)",
    )
    add("--block", type=int, metavar="N", help="of jacobi: tokens that are drawn anew together (default: 16)")
    add(
        "--max-blocks",
        type=int,
        metavar="N",
        help="of jacobi: most blocks at once, all but the first behind text that is not certain yet (default: 1)",
    )
    add(
        "--no-recycle",
        action="store_true",
        default=None,
        help="of jacobi: forget wrong guesses, which else are guessed again where their first token comes",
    )
    add(
        "--window",
        type=int,
        metavar="N",
        help="of lookahead: columns of the window, each a row for every token of an n-gram but one; 0: n-grams of the text "
        "alone (default: 7)",
    )
    add(
        "--ngram",
        type=int,
        metavar="N",
        help="of lookahead: tokens of an n-gram, the text's last one and N - 1 guesses (default: 5)",
    )
    add("--max-guesses", type=int, metavar="N", help="of lookahead: most n-grams checked at once (default: 7)")
    add(
        "--init",
        choices=INITS,
        help="of jacobi and lookahead: a guess that nothing is known of. prompt: any token of the prompt (default). random: any "
        "token at all. copy: the token before it",
    )
    add(
        "--no-adaptive",
        action="store_true",
        default=None,
        help="of jacobi and lookahead: all guesses in every forward (default: as many as pay, as with auto)",
    )
    add(
        "--show-accepted",
        action="store_true",
        default=None,
        help="in a terminal, show right guesses in green, and wrong ones in red, struck out",
    )


def guessing(arguments: argparse.Namespace) -> Callable[[Model], Decoder]:
    """What makes the decoder of a model, plain or one that guesses; that options go with the decoder has been checked."""
    _check(arguments)
    from fastdistill.decode import Auto, Autoregressive, Jacobi, Lookahead, PromptLookup

    if arguments.decoder in (None, "plain"):
        return lambda model: Autoregressive()
    if arguments.decoder == "auto":
        weighed = PromptLookup(min_match=1, continuations=arguments.continuations)  # a short match is weighed as one
        drafter = weighed if arguments.drafter in (None, "lookup") else _head(arguments)
        return _with_costs(Auto(drafter=drafter, **given(max_draft=arguments.max_draft)))
    if arguments.decoder == "speculative":
        return _speculative(arguments)
    settings: Jacobi | Lookahead
    if arguments.decoder == "jacobi":
        chosen = given(block=arguments.block, init=arguments.init, max_blocks=arguments.max_blocks)
        settings = Jacobi(
            recycle=not arguments.no_recycle, adaptive=not arguments.no_adaptive, trace=bool(arguments.trace), **chosen
        )
    else:
        chosen = given(
            window=arguments.window, ngram=arguments.ngram, guesses=arguments.max_guesses, init=arguments.init
        )
        settings = Lookahead(adaptive=not arguments.no_adaptive, **chosen)
    return _with_costs(settings) if settings.adaptive else lambda model: settings


def _with_costs(settings: Auto | Jacobi | Lookahead) -> Callable[[Model], Decoder]:
    return lambda model: dataclasses.replace(settings, costs=_costs(model))


def _speculative(arguments: argparse.Namespace) -> Callable[[Model], Decoder]:
    from fastdistill.decode import LayerSkip, ModelDrafter, PromptLookup, Speculative, Tree

    settings = Speculative(
        PromptLookup(continuations=arguments.continuations),
        rule=arguments.rule or "coupled",
        tree=None if arguments.tree is None else Tree(*arguments.tree),
        **given(max_draft=arguments.max_draft),
    )
    if arguments.drafter not in (None, *DRAFTERS):
        settings = dataclasses.replace(settings, drafter=_head(arguments))
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


def _head(arguments: argparse.Namespace) -> FirstOf:
    """A draft head, and before it what repeats so much of the text that it is nearly certain, and costs nothing."""
    from fastdistill.decode import FirstOf, HeadDrafter, PromptLookup

    return FirstOf(PromptLookup(min_match=SURE_MATCH), HeadDrafter(arguments.drafter))


def guess_statistics(generation: Generation) -> str:
    """What became of the guesses, as further lines; none where the decoder makes no guesses."""
    stats, rounds = generation.stats, generation.rounds
    if not rounds:
        return ""
    guessed = sum(round.drafted > 0 for round in rounds)
    share = f" ({100 * stats.accepted / stats.drafted:.0f} %)" if stats.drafted else ""
    recycled = f", {stats.recycled} of them recycled" if stats.recycled else ""
    found = by_depth(rounds)
    asked, right = found["asked"], found["right"]
    lines = [
        f"guesses {stats.drafted} in {guessed} of {len(rounds)} forwards, {stats.accepted} right{share}{recycled}; "
        f"{stats.tokens_per_forward:.2f} tokens a forward",
        "tokens a forward: "
        + ", ".join(f"{forwards} x {tokens}" for tokens, forwards in generation.tokens_of_rounds.items()),
    ]
    if asked:
        lines += [
            "depth   " + " ".join(f"{depth:5d}" for depth in range(1, len(asked) + 1)),
            "asked   " + " ".join(f"{count:5d}" for count in asked),
            "right   " + " ".join(f"{100 * good / count:3.0f} %" for good, count in zip(right, asked, strict=True)),
        ]
    return "".join("\n" + line for line in lines)


def trajectory(generation: Generation, tokenizer: Tokenizer) -> str:
    """How the guesses of --trace became the text, as lines."""
    if not any(round.guesses for round in generation.rounds):
        return "no guesses, so no trajectory"
    from fastdistill import show

    return show.trajectory(generation, label=lambda token: tokenizer.decode([token]))


def by_depth(rounds: Sequence[Round]) -> dict[str, list[int]]:
    """Of the first, second, ... guesses of rounds: how many were asked, those before them being right, and were right."""
    deepest = max((round.accepted + bool(round.refused) for round in rounds), default=0)
    right = [sum(round.accepted > depth for round in rounds) for depth in range(deepest)]
    wrong = [sum(round.accepted == depth and bool(round.refused) for round in rounds) for depth in range(deepest)]
    return {"asked": [good + bad for good, bad in zip(right, wrong, strict=True)], "right": right}


def _check(arguments: argparse.Namespace) -> None:
    drafter, rule = arguments.drafter or DEFAULTS["drafter"], arguments.rule or DEFAULTS["rule"]
    if drafter not in DRAFTERS and not os.path.isdir(drafter):
        raise ArgumentError(
            f"--drafter must be one of {', '.join(DRAFTERS)}, or the folder of a draft head; there is no folder {short(drafter)}"
        )
    if arguments.decoder == "auto" and drafter in ("model", "layers"):
        raise ArgumentError(f"--decoder auto guesses by lookup or by a draft head, got --drafter {drafter}")
    if drafter == "layers" and arguments.skip_layers is None:
        raise ArgumentError("--drafter layers needs --skip-layers N")
    if drafter == "model" and arguments.draft_model is None and arguments.draft_format is None:
        raise ArgumentError(
            "--drafter model needs --draft-model, or --draft-format for the model itself in another format"
        )
    if arguments.tree is not None and drafter in ("lookup", "layers"):
        raise ArgumentError(f"--tree goes with --drafter model or a draft head, not with {drafter}")
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
        raise argparse.ArgumentTypeError(f"must be WIDTHxDEPTH such as 4x3, got {short(text)}") from None
