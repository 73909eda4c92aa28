"""The blocks that a Jacobi decoder iterates on: where they lie follows from the text alone, and they only grow as they may."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from fastdistill.decode.blocks import Blocks

steps = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), max_size=30)


@given(size=st.integers(1, 12), most=st.integers(1, 5), spawn=st.sampled_from([0.0, 0.3, 0.85, 1.0]), steps=steps)
def test_blocks_are_stretches_of_the_text(size, most, spawn, steps):
    """A simulator that knows nothing but how many tokens there are: block number b is tokens b size .. (b + 1) size."""
    wanted, text = math.ceil(spawn * size), 0
    blocks = Blocks.begin(size, most, spawn)
    last = most if wanted == 0 else 1  # blocks that have begun
    for tokens, settled in [(0, 0), *steps]:
        if tokens:
            blocks, text = blocks.advance(tokens, settled), text + tokens
            real = text // size
            last = max(last, real + 1)
            done = text - real * size if last == real + 1 else settled  # of the newest
            while last - real < most and done >= wanted:
                last, done = last + 1, 0
        real = text // size
        assert blocks.left == (size - text % size, *[size] * (last - real - 1))
        assert blocks.guesses == last * size - text and 1 <= len(blocks.left) <= most


def test_promotion_and_spawning_step_by_step():
    blocks = Blocks.begin(4, 2, 0.5)
    assert blocks.left == (4,)
    assert (blocks := blocks.advance(1)).left == (3,)  # one of four: not half
    assert (blocks := blocks.advance(1)).left == (2, 4)  # half: a pseudo block begins behind it
    assert (blocks := blocks.advance(1, settled=4)).left == (1, 4)  # as many as may be
    assert (blocks := blocks.advance(3, settled=0)).left == (
        2,
        4,
    )  # promoted with two of its tokens; half of it: another one
    assert (blocks := blocks.advance(6)).left == (4,)  # both at once


def test_blocks_of_one_token_are_a_window_that_slides():
    blocks = Blocks.begin(1, 7, 0.0)
    for tokens in (1, 3, 8, 2):
        assert blocks.guesses == 7
        blocks = blocks.advance(tokens)
