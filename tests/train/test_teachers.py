"""A teacher says of a row what it says of the row's sequence alone, beside the student or from a file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import teacher_top_k
from fastdistill.errors import ArgumentError, CheckpointError, UnsupportedError
from fastdistill.runtime.forward_many import forward_many
from fastdistill.runtime.read import Read
from fastdistill.train.batch import batch_of
from fastdistill.train.data import Batches, Teacher, open_teacher_file, write_teacher_file
from tests.small_models import network
from tests.strategies import bits
from tests.train.data_made_here import data_of, masked

LOGITS = Read(logits=True)


def alone(tokens):
    """The logits of a sequence by itself."""
    return network().session(len(tokens), len(tokens)).forward(tokens, read=LOGITS).logits


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), max_rows=st.sampled_from([1, 7, 256]), data=st.data()
)
def test_logits_are_those_of_each_sequence_alone(lengths, max_rows, data):
    examples = data_of(lengths)
    batch = examples.batch(range(len(lengths)))
    wanted = np.concatenate(
        [alone(batch.tokens[slice(*batch.starts[place : place + 2])]) for place in range(len(lengths))]
    )
    teacher = Teacher(network(), max_rows)
    asked = data.draw(st.lists(st.lists(st.integers(0, len(batch) - 1), unique=True, max_size=9), max_size=4))
    for rows in asked:  # in any order of calls
        rows = np.array(sorted(rows), np.int64)
        np.testing.assert_array_equal(bits(teacher.logits(batch, rows)), bits(wanted[rows]))


def test_another_batch_is_another_text():
    teacher, row = Teacher(network()), np.array([7])
    one, other = (batch_of([np.arange(9) + add]) for add in (0, 20))
    teacher.logits(one, np.array([2]))
    np.testing.assert_array_equal(bits(teacher.logits(other, row)), bits(alone(other.tokens)[row]))


def test_a_batch_that_is_asked_in_parts_is_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(
        "fastdistill.train.data.teachers.forward_many",
        lambda requests: read.extend(len(asked.tokens) for _, asked in requests) or forward_many(requests),
    )
    batch = data_of([40, 3, 50]).batch(range(3))
    teacher = Teacher(network(), 16)
    for rows in np.array_split(np.arange(len(batch)), 12):
        teacher.logits(batch, rows)
    assert sum(read) == len(batch) and max(read) <= 16
    read.clear()
    teacher.logits(batch, np.array([40, 41]))
    assert read == [2]  # only as far as it is asked


def test_a_file_that_keeps_all_says_what_the_teacher_says(tmp_path):
    examples, model = data_of([5, 9, 30, 2], vocab=77), network("odd")
    calls = []
    write_teacher_file(
        model, examples, tmp_path / "t", k=77, bits=8, max_rows=8, name="odd", progress=lambda *call: calls.append(call)
    )
    file = open_teacher_file(tmp_path / "t", examples)
    assert file.settings == (77, 77, 8, "odd", examples.digest) and calls[-1] == (46, 46)
    batches, teacher = Batches(examples, 32, teacher=file), Teacher(model)
    for number in range(batches.count(2)):
        batch = batches[number]
        online = teacher_top_k(teacher.logits(batch, np.arange(len(batch))), 77)
        np.testing.assert_array_equal(batch.teacher.ids, online.ids)
        # Half a step of a code of 254, and half a unit of a float16 scale, of each side of the normalisation.
        bound = np.ptp(online.log_probs, axis=1)[:, None] * (1 / 254 + 2**-10) + 1e-5
        assert (np.abs(batch.teacher.log_probs - online.log_probs) <= bound).all()
        np.testing.assert_array_equal(batch.teacher.tail, 0)


def test_a_file_of_a_few_tokens_has_the_rows_of_the_batch(tmp_path):
    examples = data_of([5, 9, 30, 2])
    write_teacher_file(network(), examples, tmp_path / "t", k=4)
    batches = Batches(examples, 32, seed=3, teacher=open_teacher_file(tmp_path / "t", examples))
    batch = batches[1]
    online = teacher_top_k(Teacher(network()).logits(batch, np.arange(len(batch))), 4)
    np.testing.assert_array_equal(batch.teacher.ids, online.ids)
    np.testing.assert_allclose(batch.teacher.tail, online.tail, rtol=1e-6)


def test_writing_goes_on_where_it_was_interrupted(tmp_path):
    examples = data_of([5, 9, 30, 2])
    write_teacher_file(network(), examples, tmp_path / "whole", k=4)

    def interrupt(done, total):
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_teacher_file(network(), examples, tmp_path / "t", k=4, max_rows=4, progress=interrupt)
    begun = []
    write_teacher_file(
        network(), examples, tmp_path / "t", k=4, resume=True, progress=lambda done, total: begun.append(done)
    )
    assert begun[0] > 20 and (tmp_path / "t").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_file_of_other_data_is_refused(tmp_path):
    write_teacher_file(network(), data_of([5, 9]), tmp_path / "t", k=4)
    for other in (data_of([5, 9], seed=1), data_of([9, 5]), data_of([5, 9], prompts=[0, 3])):
        with pytest.raises(
            CheckpointError, match=r"its rows are of the data '\w{16}', expected '\w{16}': the same files"
        ):
            open_teacher_file(tmp_path / "t", other)
    file = open_teacher_file(tmp_path / "t", data_of([5, 9]))
    with pytest.raises(ArgumentError, match="teacher must have the data's 15 rows, got 14"):
        Batches(data_of([5, 10]), 10, teacher=file)


def test_teachers_refuse():
    batch = data_of([5]).batch([0])
    with pytest.raises(ArgumentError, match="model must be a Model or a Network, got 3"):
        Teacher(3)
    with pytest.raises(ArgumentError, match="rows must be ascending"):
        Teacher(network()).logits(batch, np.array([2, 1]))
    with pytest.raises(UnsupportedError, match="must be a causal model"):
        Teacher(masked())
