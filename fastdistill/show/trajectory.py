"""How a text became certain, round by round: what every guess at every token was worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastdistill.arguments import check_instance
from fastdistill.decode import Generation
from fastdistill.errors import ArgumentError
from fastdistill.messages import short
from fastdistill.show.labels import check_label, spelt

# What a round knew of a token, and the character that stands for it.
NO_GUESS, WRONG, RIGHT, FINAL, DRAWN, GUESSED, RECYCLED = range(7)
CHARACTERS = " x=.+#o"
MEANINGS = (
    "no guess",
    "wrong",
    "right, not certain",
    "final before",
    "final: drawn",
    "final: guessed",
    "final: from the pool",
)
LEGEND = (GUESSED, RECYCLED, DRAWN, FINAL, RIGHT, WRONG)  # in this order; no guess needs no word
RULER = 10  # columns between two numbers


def trajectory_cells(generation: Generation) -> np.ndarray:
    """What every round knew of every token of a text.

    Parameters
    ----------
    generation : Generation
        of a decoder that keeps a trace, such as Jacobi(trace=True)

    Returns
    -------
    int8 (1 + rounds, tokens)
        row 0 is the prompt's forward, which draws the first token; row 1 + r is generation.rounds[r]. A token becomes
        final in one row: GUESSED, right in the iterate; RECYCLED, guessed by a pool's n-gram; or DRAWN after the
        guesses that were right. Before that row it is NO_GUESS, WRONG or RIGHT, by the guess that the round began with,
        and after it FINAL

    Raises
    ------
    ArgumentError
        where there is no trace
    """
    check_instance("generation", generation, Generation)
    rounds, tokens = generation.rounds, np.array(generation.tokens, np.int64)
    if any(round.guesses is None for round in rounds) or (not rounds and len(tokens) > 1):
        raise ArgumentError(
            "generation must have the guesses of its rounds, as Jacobi(trace=True) keeps them; got none"
        )
    cells = np.full((1 + len(rounds), len(tokens)), NO_GUESS, np.int8)
    cells[0, :1] = DRAWN
    begin = 1
    for row, round in zip(cells[1:], rounds, strict=True):
        guesses = np.array(round.guesses, np.int64)[: max(len(tokens) - begin, 0)]
        row[:begin] = FINAL
        row[begin : begin + len(guesses)] = np.where(guesses == tokens[begin : begin + len(guesses)], RIGHT, WRONG)
        drawn = begin + round.accepted  # beyond the text where a right guess ended it
        row[begin:drawn] = GUESSED
        row[drawn - round.recycled : drawn] = RECYCLED  # the end of the path: below an n-gram's guess hang its own
        row[drawn : drawn + 1] = DRAWN
        begin = drawn + 1
    return cells


def trajectory(
    generation: Generation,
    *,
    rounds: slice | None = None,
    tokens: slice | None = None,
    label: Callable[[int], str] | None = None,
) -> str:
    """A text's trajectory in characters: a line a round, a column a token, and at its end the tokens that the round made final.

    Parameters
    ----------
    generation : Generation
        of a decoder that keeps a trace, such as Jacobi(trace=True)
    rounds : slice, optional
        which of generation.rounds; None: all. The prompt's line comes first where round 0 does
    tokens : slice, optional
        which of generation.tokens; None: those that became final in these rounds or that they guessed
    label : Callable[[int], str], optional
        the text of a token; by default its number

    Returns
    -------
    str
        lines without a last line break: a legend, a header with the numbers of tokens, the prompt, the rounds

    Raises
    ------
    ArgumentError
        also where there is no trace
    """
    cells = trajectory_cells(generation)
    check_label(label)
    lines = [number + 1 for number in _numbers("rounds", rounds, len(cells) - 1)]
    if lines[:1] in ([], [1]):
        lines.insert(0, 0)
    columns = _numbers("tokens", tokens, cells.shape[1])
    if tokens is None:
        told = np.flatnonzero(((cells[lines] != NO_GUESS) & (cells[lines] != FINAL)).any(axis=0))
        columns = range(told[0], told[-1] + 1) if len(told) else range(0)
    legend = "  ".join(f"{CHARACTERS[cell]} {MEANINGS[cell]}" for cell in LEGEND)
    shown = [legend, f"{'round':>6}  {_ruler(columns)}".rstrip()]
    for line in lines:
        name = "prompt" if line == 0 else str(line - 1)
        picture = "".join(CHARACTERS[cell] for cell in cells[line, list(columns)])
        gained = [generation.tokens[column] for column in np.flatnonzero(cells[line] > FINAL)]
        texts = (" " if label is None else "").join(spelt(token, label) for token in gained)
        shown.append(f"{name:>6}  {picture:<{len(columns)}}  {texts}".rstrip())
    return "\n".join(shown)


def _numbers(name: str, part: slice | None, count: int) -> range:
    """The numbers below count that a slice takes."""
    if part is None:
        return range(count)
    if not isinstance(part, slice):
        raise ArgumentError(f"{name} must be a slice, got {short(part)}")
    try:
        return range(count)[part]
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name} must be a slice of integers, got {short(part)}") from error


def _ruler(columns: range) -> str:
    """The numbers of some columns, each beginning above its column, where there is room for it."""
    line = ""
    for place, column in enumerate(columns):
        if column % RULER == 0 and place >= len(line) + bool(line):
            line = f"{line:<{place}}{column}"
    return line
