"""Batches have whole sequences, each once an epoch, and are functions of data, seed and number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, DataError
from fastdistill.train.batch import batch_of
from fastdistill.train.data import Batches, Dataset
from tests.train.data_made_here import data_of

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=30).filter(lambda lengths: max(lengths) > 1)


@given(lengths=LENGTHS, room=st.integers(9, 25), seed=st.integers(0, 2**64 - 1))
def test_each_epoch_has_each_sequence_once_and_batches_take_what_fits(lengths, room, seed):
    data = data_of(lengths)
    batches = Batches(data, room, seed=seed)
    for epoch in range(3):
        numbers = range(batches.count(epoch), batches.count(epoch + 1))
        drawn = [batches.drawn(number) for number in numbers]
        order = np.concatenate([each.sequences for each in drawn])
        assert sorted(order) == np.flatnonzero(data.lengths > 1).tolist()  # one token predicts nothing
        assert [each.first for each in drawn] == [0, *np.cumsum([len(each.sequences) for each in drawn])[:-1]]
        for each, after in zip(drawn, [*drawn[1:], None], strict=True):
            rows = data.lengths[each.sequences].sum()
            assert each.epoch == epoch and rows <= room
            assert after is None or rows + data.lengths[after.sequences[0]] > room


@given(lengths=LENGTHS, seed=st.integers(0, 2**64 - 1), number=st.integers(0, 40))
def test_a_batch_is_a_function_of_its_number(lengths, seed, number):
    data = data_of(lengths)
    batches, later = Batches(data, 10, seed=seed), Batches(data, 10, seed=seed)
    for before in range(number):
        batches[before]
    for name in ("tokens", "starts", "labels", "weights"):
        assert getattr(batches[number], name).tolist() == getattr(later[number], name).tolist()


def test_sequences_stay_whole_and_apart():
    data = data_of([3, 5, 2, 4], prompts=[0, 2, 0, 3])
    batches = Batches(data, 7, seed=1)
    for number in range(batches.count(2)):
        batch, sequences = batches[number], batches.drawn(number).sequences
        assert len(batch) == data.lengths[sequences].sum()  # no padding
        for place, sequence in enumerate(sequences):
            rows, tokens = slice(*batch.starts[place : place + 2]), data.tokens[data.rows(sequence)]
            alone = batch_of([tokens], [data.counted[data.rows(sequence)]])
            for name in ("tokens", "labels", "weights", "positions"):
                assert getattr(batch, name)[rows].tolist() == getattr(alone, name).tolist()


def test_orders_differ_by_seed_and_epoch_and_are_even():
    data = data_of([2] * 6)

    def order(seed, epoch):
        batches = Batches(data, 12, seed=seed)
        return tuple(batches.drawn(batches.count(epoch)).sequences)

    orders = {order(seed, epoch) for seed in range(10) for epoch in range(10)}
    assert len(orders) > 85  # of 720, 100 draws: 93 on average
    first = np.bincount([order(seed, 0)[0] for seed in range(600)], minlength=6)
    assert (np.abs(first - 100) < 46).all()  # five standard deviations


def test_known_orders():
    """What an old run has seen, a new version resumes with."""
    batches = Batches(data_of([2] * 8), 16, seed=7)
    assert [batches.drawn(epoch).sequences.tolist() for epoch in (0, 1)] == [
        [4, 6, 2, 5, 1, 7, 3, 0],
        [5, 7, 3, 0, 6, 2, 1, 4],
    ]


def test_prompts_alone_are_drawn_where_they_are_asked_for():
    data = data_of([3, 4, 5], prompts=[3, 2, 5])
    assert Batches(data, 9).per_epoch == 1 and Batches(data, 9, prompts=True).per_epoch == 3
    with pytest.raises(DataError, match="none of 1 sequences has anything to predict"):
        Batches(data_of([3], prompts=[3]), 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(rows=8), "rows must be at least the 9 tokens of the longest sequence, got 8"),
        (dict(rows=0), "rows must lie in"),
        (dict(seed=-1), "seed must lie in"),
        (dict(data=[1]), "data must be a Dataset"),
    ],
)
def test_batches_refuse(change, message):
    with pytest.raises(ArgumentError, match=message):
        Batches(**dict(data=data_of([9, 2]), rows=9) | change)
    with pytest.raises(ArgumentError, match="number must lie in"):
        Batches(data_of([9, 2]), 9)[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(starts=[0, 2]), "starts must go up from 0 to the 3 tokens"),
        (dict(starts=[0, 3, 3]), "prompts must have shape"),
        (dict(prompts=[4]), "prompts must lie within"),
        (dict(counted=[True]), r"counted must have shape \(3,\)"),
    ],
)
def test_a_dataset_refuses(change, message):
    with pytest.raises(ArgumentError, match=message):
        Dataset(**dict(tokens=[1, 2, 3], starts=[0, 3], counted=[True] * 3, prompts=[0]) | change)
