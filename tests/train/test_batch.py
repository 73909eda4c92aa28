"""A Batch is sequences and what their rows are to predict, and takes nothing that is not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill.loss import IGNORED
from fastdistill.distill.teachers.teacher_top_k import TopK
from fastdistill.errors import ArgumentError
from fastdistill.train.batch import Batch, Seen, batch_of

SEQUENCES = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=6), max_size=6)


@given(sequences=SEQUENCES, data=st.data())
def test_rows_predict_the_next_token_of_their_own_sequence(sequences, data):
    counted = [data.draw(st.lists(st.booleans(), min_size=len(each), max_size=len(each))) for each in sequences]
    batch = batch_of(sequences, counted)
    row = 0
    for sequence, counts in zip(sequences, counted, strict=True):
        for position, token in enumerate(sequence):
            assert (batch.tokens[row], batch.positions[row]) == (token, position)
            last = position == len(sequence) - 1
            label = IGNORED if last or not counts[position + 1] else sequence[position + 1]
            assert (batch.labels[row], batch.weights[row]) == (label, label != IGNORED)
            row += 1
    assert (row, batch.sequences) == (len(batch), len(sequences))
    assert batch.weight == sum(sum(counts[1:]) for counts in counted)


@given(sequences=SEQUENCES, rows=st.integers(1, 12))
def test_parts_are_the_whole(sequences, rows):
    lengths = sum(map(len, sequences))
    ids = np.arange(lengths, dtype=np.int32)[:, None]
    teacher = TopK(ids, -ids.astype(np.float32), np.zeros(lengths, np.float32))
    batch = batch_of(sequences, teacher=teacher)
    parts = list(batch.split(rows))
    assert all(len(part) <= rows or part.sequences == 1 for part in parts)
    assert all(len(one) + other.lengths[0] > rows for one, other in pairwise(parts))
    for name in ("tokens", "labels", "weights", "positions", "lengths"):
        joined = np.concatenate([[], *(getattr(part, name) for part in parts)])
        assert joined.tolist() == getattr(batch, name).tolist()
    assert [row for part in parts for row in part.teacher.ids[:, 0]] == ids[:, 0].tolist()
    assert sum(part.weight for part in parts) == batch.weight


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (dict(starts=[0, 2]), "starts must go up from 0 to the 3 rows"),
        (dict(starts=[0, 2, 2, 3]), "starts must go up"),
        (dict(starts=[]), "starts must go up"),
        (dict(labels=[1, 2]), r"labels must have shape \(3,\)"),
        (dict(weights=[1, 1, 1]), "got 1.0 with label -100 in row 2"),
        (dict(weights=[np.nan, 1, 0]), "in row 0"),
        (dict(tokens=[1.5, 2, 3]), "tokens must"),
    ],
)
def test_refuses(change, text):
    right = dict(tokens=[1, 2, 3], starts=[0, 3], labels=[2, 3, IGNORED], weights=[1, 1, 0])
    with pytest.raises(ArgumentError, match=text):
        Batch(**right | change)


@pytest.mark.parametrize("wrong", [[2**33 + 1], [1.5], [[1, 2]], "ab"])
def test_sequences_are_tokens(wrong):
    with pytest.raises(ArgumentError, match="sequence 1"):
        batch_of([np.array([1, 2], np.int32), wrong])


def forked(sequences: int) -> Batch:
    """Sequences of rows 0, 1, 2, of which 1 and 2 stand at the same place behind 0 and do not see each other."""
    sees = np.kron(np.eye(sequences, dtype=bool), np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]], bool))
    seen = Seen.of(np.tile([0, 1, 1], sequences), sees)
    tokens = np.arange(3 * sequences)
    return Batch(tokens, 3 * np.arange(sequences + 1), tokens, np.ones(len(tokens)), seen=seen)


def test_parts_see_what_they_saw():
    whole = forked(3)
    assert whole.positions.tolist() == [0, 1, 1] * 3
    assert whole.seen.runs[:4].tolist() == [[0, 1], [0, 2], [0, 1], [2, 1]]
    for part in whole.split(3):
        for found, want in zip(part.seen, forked(1).seen, strict=True):
            assert found.tolist() == want.tolist()
    for found, want in zip(whole.part(1, 3).seen, forked(2).seen, strict=True):
        assert found.tolist() == want.tolist()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (dict(positions=[0, 1]), r"seen.positions must have shape \(6,\)"),
        (dict(positions=[0, -1, 1, 0, 1, 1]), "must be at least 0, got -1 in row 1"),
        (dict(run_offsets=[0, 1, 2, 4, 5, 6, 7]), "seen.run_offsets must go up from 0 to the 8 runs"),
        (dict(run_offsets=[0, 1, 1, 4, 5, 6, 8]), "seen.run_offsets must go up"),
        (dict(at=4, run=[0, 1]), r"seen.runs\[4\], which row 3 sees, must be rows of its sequence, .* got \[0, 1\]"),
        (dict(at=1, run=[0, 4]), "which row 1 sees, must be rows of its sequence"),
        (dict(at=0, run=[0, 0]), "must be rows of its sequence, one at least"),
        (dict(at=1, run=[0, 3]), "which row 1 sees, must have positions that ascend"),
        (dict(at=2, run=[1, 1]), r"seen.runs\[3\], which row 2 sees, must have positions that ascend"),
        (dict(at=1, run=[0, 1]), "row 1 does not see itself"),
    ],
)
def test_what_rows_cannot_see_is_refused(change, text):
    batch = forked(2)
    arrays = {name: array.copy() for name, array in batch.seen._asdict().items()}
    if "at" in change:
        arrays["runs"][change["at"]] = change["run"]
    else:
        arrays |= change
    with pytest.raises(ArgumentError, match=text):
        Batch(batch.tokens, batch.starts, batch.labels, batch.weights, seen=Seen(**arrays))
