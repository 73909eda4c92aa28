"""How masks are filled: the options of masked diffusion models, the decoder that they ask for, and what it did."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from fastdistill.cli.options import given
from fastdistill.errors import ArgumentError
from fastdistill.messages import short

if TYPE_CHECKING:
    from fastdistill.decode import Generation, Unmask

_ABOUT = """\
A masked diffusion model is given an answer that is all masks, --max-tokens of them, and predicts every one in each forward.
A rule says which predictions stand: few a forward are safe, many are fast.
"""
_WITHIN = """\
A model predicts every mask in each forward, and a rule says which predictions stand: few a forward are safe, many are fast.
"""

CACHES, REMASKS = ("none", "prefix", "dual"), ("running", "remdm", "revise")
_KINDS = {"schedule": "linear", "cosine": "cosine", "time": "time", "ascending": "ascending"}  # of a schedule
_CLASSES = {
    "threshold": "Threshold",
    "adaptive": "Adaptive",
    "factor": "Factor",
    "entropy": "EntropyThreshold",
    "budget": "EntropyBudget",
    "explore": "Explore",
}
COMMITS = (*_CLASSES, *_KINDS)
DEFAULTS = {"commit": "threshold", "cache": "none"}

_UNMASK: dict[str, tuple[str, ...]] = {"decoder": ("unmask",)}
GOES_WITH: dict[str, dict[str, tuple[str, ...]]] = {
    "commit": _UNMASK,
    "block_length": _UNMASK,
    "max_steps": _UNMASK,
    "cache": _UNMASK,
    "block_causal": _UNMASK | {"cache": ("none",), "commit": tuple(name for name in COMMITS if name != "explore")},
    "remask": _UNMASK,
    "drafts": _UNMASK | {"commit": tuple(_KINDS)},
    "trace_png": _UNMASK,
    "show_filling": _UNMASK,
}


class Commit(NamedTuple):
    """A rule by name, and the number that was given beside it."""

    name: str
    value: float | None = None


def rule_name(arguments: argparse.Namespace) -> str:
    return DEFAULTS["commit"] if arguments.commit is None else str(arguments.commit.name)


def add_unmasking_options(parser: argparse.ArgumentParser, within: bool = False) -> None:
    """Add the options of how masks are filled; `within`: those of masks within a text alone."""
    add = parser.add_argument_group("how masks are filled", _WITHIN if within else _ABOUT).add_argument
    add(
        "--commit",
        type=_commit,
        metavar="RULE[:VALUE]",
        help="which masks a forward fills. threshold:P: all whose token has at least the probability P (default: "
        "threshold:0.9). adaptive:P: at most 4 of these. factor:F: the n surest, while (n + 1)(1 - p) < F. entropy:H: all with "
        "an entropy of at most H nats. budget:H: in order of entropy, while what is lost by filling them at once stays within H "
        "nats. explore:F: as factor, and where that fills few, an uncertain one as well. schedule:N, cosine:N, time:N, "
        "ascending:N: fixed numbers that take N forwards, the surest first. Without a value: the rule's own",
    )
    add(
        "--block-length",
        type=int,
        metavar="N",
        help="fill N masks before those behind them (default: the model's blocks, or all at once)",
    )
    add("--max-steps", type=int, metavar="N", help="most forwards; the last one fills whatever is left")
    add(
        "--cache",
        choices=CACHES,
        help="what is not run again within a block. none: everything is (default). prefix: what is before it. dual: what is "
        "around it. Faster, not exact",
    )
    add(
        "--remask",
        choices=REMASKS,
        help="fill masks more than once. running: each step of a schedule fills everything, then masks the least sure again. "
        "remdm: late in a block, the least sure once more. revise: replace a token where another one has become likely",
    )
    if within:
        return
    add(
        "--block-causal",
        action="store_true",
        default=None,
        help="a block sees what is before it and itself, for models that were trained so (the default of those whose config.json "
        "says so); its cache is exact",
    )
    add(
        "--drafts",
        type=int,
        metavar="N",
        help="of schedules: check N steps in each forward, for the same text in fewer forwards of more rows",
    )
    add(
        "--show-filling",
        action=argparse.BooleanOptionalAction,
        help="show the answer as it is filled, where it fits into the terminal (default: yes; never elsewhere)",
    )


def unmasking(arguments: argparse.Namespace) -> Unmask:
    """The decoder that these options ask for.

    Raises
    ------
    ArgumentError
    """
    from fastdistill.decode import Unmask
    from fastdistill.unmask import Remdm, Revise, RunningConfidence

    remask = None
    if arguments.remask is not None:
        remask = {"running": RunningConfidence, "remdm": Remdm, "revise": Revise}[arguments.remask]()
        if arguments.remask == "running" and rule_name(arguments) not in _KINDS:
            raise ArgumentError(
                f"--remask running goes with --commit {' or '.join(_KINDS)}, not with {rule_name(arguments)}"
            )
    return Unmask(
        **({} if arguments.commit is None else {"rule": _rule(arguments.commit)}),
        **given(
            block_length=arguments.block_length,
            max_steps=arguments.max_steps,
            cache=arguments.cache,
            drafts=getattr(arguments, "drafts", None),
            attention="block_causal" if getattr(arguments, "block_causal", None) else None,
        ),
        remask=remask,
        trace=bool(getattr(arguments, "trace", None) or getattr(arguments, "trace_png", None)),
    )


def fill_statistics(generation: Generation) -> str:
    """How many masks were filled, as a further line; none where there were none."""
    stats = generation.stats
    if not stats.committed:
        return ""
    return f"\nfilled  {filled(generation)}; {stats.tokens_per_forward:.2f} positions a forward"


def filled(generation: Generation) -> str:
    stats = generation.stats
    forwards = f"{stats.forwards} forward{'s' * (stats.forwards != 1)}"
    return f"{stats.committed} positions in {forwards}, {1e3 * stats.decode_seconds:.1f} ms"


def _rule(commit: Commit) -> Any:
    from fastdistill import unmask

    name, value = commit
    try:
        if name in _KINDS:
            return unmask.Schedule(None if value is None else int(value), kind=_KINDS[name])
        rule = getattr(unmask, _CLASSES[name])
        return rule() if value is None else rule(value)
    except ArgumentError as error:
        raise ArgumentError(f"--commit {name}:{value}: {error}") from None


def _commit(text: str) -> Commit:
    name, colon, value = text.partition(":")
    if name not in COMMITS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(COMMITS)}, or with :VALUE, got {short(text)}")
    if not colon:
        return Commit(name)
    number, wanted = (int, "a whole number of forwards") if name in _KINDS else (float, "a number")
    try:
        return Commit(name, number(value))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name} takes {wanted} behind the colon, got {short(value)}") from None
