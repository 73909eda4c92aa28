"""Trajectories: the picture of a small text, and that any decoder's makes every token final once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.decode import Autoregressive, Generation, Jacobi, Lookahead, Round, generate
from fastdistill.errors import ArgumentError
from fastdistill.runtime import from_callable
from fastdistill.show import trajectory
from fastdistill.show.trajectory import DRAWN, FINAL, GUESSED, NO_GUESS, RECYCLED, RIGHT, WRONG, trajectory_cells
from tests.decode.test_jacobi import jacobis
from tests.decode.test_speculative import samplers
from tests.strategies import ALPHABET, settings_of_models, token_lists

# Of a text of nine tokens: two right guesses; none; one of the iterate and one of the pool; a right guess that ends the text.
WRITTEN = Generation(
    tokens=[10, 11, 12, 13, 14, 15, 16, 17, 18],
    rounds=[
        Round(4, 2, (99,), guesses=(11, 12, 99, 14)),
        Round(0, 0, guesses=()),
        Round(4, 2, recycled=1, guesses=(15, 99, 17)),
        Round(3, 1, guesses=(18, 19, 20)),
    ],
)
LEGEND = "# final: guessed  o final: from the pool  + final: drawn  . final before  = right, not certain  x wrong"


def test_the_picture_of_a_small_text():
    assert trajectory(WRITTEN) == "\n".join(
        [
            LEGEND,
            " round  0",
            "prompt  +          10",
            "     0  .##+=      11 12 13",
            "     1  ....+      14",
            "     2  .....#o+   15 16 17",
            "     3  ........#  18",
        ]
    )


def test_a_part_of_it_and_the_texts_of_its_tokens():
    label = "abcdefgh\n".__getitem__
    assert trajectory(WRITTEN, rounds=slice(2, None), label=lambda token: label(token - 10)).splitlines()[1:] == [
        " round",
        "     2  #o+   fgh",
        "     3  ...#  \\n",
    ]
    # Tokens that are shown do not change what the line says that the round gave.
    assert trajectory(WRITTEN, rounds=slice(1), tokens=slice(2, 6)).splitlines()[2:] == [
        "prompt        10",
        "     0  #+=   11 12 13",
    ]
    assert trajectory(WRITTEN, rounds=slice(0)).splitlines()[1:] == [" round  0", "prompt  +  10"]


def test_columns_have_numbers():
    long = Generation(tokens=list(range(25)), rounds=[Round(0, 0, guesses=())] * 24)
    assert trajectory(long).splitlines()[1] == " round  0         10        20"
    assert trajectory(long, tokens=slice(9, None)).splitlines()[1] == " round   10        20"
    assert trajectory(long, rounds=slice(12, 13), tokens=slice(10, None)).splitlines()[1:] == [
        " round  10        20",
        "    12  ...+             13",
    ]
    assert trajectory(long, tokens=slice(0, None, 10)).splitlines()[1] == " round  0 20"  # 10 has no room


@settings(max_examples=60)
@given(
    setting=settings_of_models, prompt=token_lists(1, 30), count=st.integers(0, 24), sampler=samplers, decoder=jacobis,
    capacity=st.integers(30, 60), ends=st.frozensets(st.integers(0, ALPHABET - 1), max_size=1),
)  # fmt: skip
def test_every_token_becomes_final_once(setting, prompt, count, sampler, decoder, capacity, ends):
    decoder = Jacobi(**(vars(decoder) | {"trace": True}))
    result = generate(setting.session(capacity), prompt, count, sampler, ends, decoder)
    cells = trajectory_cells(result)
    assert cells.shape == (1 + len(result.rounds), len(result.tokens))
    now = np.isin(cells, [DRAWN, GUESSED, RECYCLED])
    assert (now.sum(axis=0) == 1).all()
    # In order: final from the left, and what no guess is known of on the right.
    before = np.cumsum(now.sum(axis=1)) - now.sum(axis=1)
    assert ((cells == FINAL) == (np.arange(cells.shape[1]) < before[:, None])).all()
    assert (np.diff((cells == NO_GUESS).astype(int), axis=1) >= 0).all()
    stats = result.stats
    assert ((cells == GUESSED).sum(), (cells == RECYCLED).sum()) == (stats.accepted - stats.recycled, stats.recycled)
    # What the iterate had right or wrong is what its guesses say.
    begins = before[1:]
    for row, begin, round in zip(cells[1:], begins, result.rounds, strict=True):
        for place, guess in enumerate(round.guesses[: len(row) - begin]):
            cell, right = row[begin + place], guess == result.tokens[begin + place]
            assert cell in (DRAWN, RECYCLED) or (cell in (GUESSED, RIGHT) if right else cell == WRONG)
    lines = trajectory(result, label=lambda token: f"<{token}>").splitlines()
    assert len(lines) == 2 + len(cells)
    assert "".join(line[line.find("<") :] for line in lines[2:] if "<" in line) == "".join(
        f"<{t}>" for t in result.tokens
    )


def count_up(**options):
    return from_callable(lambda tokens: np.eye(10, dtype=np.float32)[(tokens + 1) % 10], 10, **options)


@pytest.mark.parametrize("decoder", [Autoregressive(), Jacobi(adaptive=False), Lookahead(adaptive=False)])
def test_without_a_trace_there_is_no_picture(decoder):
    with pytest.raises(ArgumentError, match=r"generation must have the guesses of its rounds, as Jacobi\(trace=True\)"):
        trajectory(generate(count_up(), [1, 2], 5, decoder=decoder))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"generation": [1, 2]}, r"generation must be a Generation, got \[1, 2\]"),
        ({"rounds": 3}, "rounds must be a slice, got 3"),
        ({"tokens": slice("a")}, "tokens must be a slice of integers"),
        ({"tokens": slice(0, 3, 0)}, "tokens must be a slice of integers"),
        ({"label": "x"}, "label must be a function"),
    ],
)
def test_refuses(arguments, text):
    with pytest.raises(ArgumentError, match=text):
        trajectory(**({"generation": WRITTEN} | arguments))
