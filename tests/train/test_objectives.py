"""Objectives by name: their values and gradients are those of fastdistill.distill, written over the logits."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.distill import cross_entropy, divergence, teacher_top_k, topk_divergence
from fastdistill.distill.teachers.teacher_top_k import TopK
from fastdistill.errors import ArgumentError
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.train.batch import Batch
from fastdistill.train.objectives import OBJECTIVES, objective
from tests.strategies import bits
from tests.train.data_made_here import data_of

VOCAB = 23
LAWS = [kind for kind in KINDS if kind not in ("entropy", "logit_mse", "probability_mse")]


class Says:
    """A teacher with an answer for each row of the batch; none is asked for a row that does not count."""

    def __init__(self, batch):
        self.table = random(len(batch), seed=9)
        self.table[batch.weights == 0] = np.nan

    def logits(self, batch, rows):
        return self.table[rows]


def random(rows, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (rows, VOCAB)).astype(np.float32)


def made(teacher=None):
    batch = data_of([5, 4, 3], prompts=[2, 0, 3], vocab=VOCAB).batch(range(3))
    return Batch(batch.tokens, batch.starts, batch.labels, batch.weights * np.float32(0.75), teacher)


def written(wanted, batch, logits, total=None):
    """What an objective says of all rows: the gradient stands where the logits were, and is 0 where nothing counts."""
    given = logits.copy()
    given[batch.weights == 0] = np.nan  # nobody looks there
    loss = wanted(given, batch, np.arange(len(batch)), batch.weight if total is None else total)
    assert loss.gradient is given and (given[batch.weights == 0] == 0).all() and (given[batch.weights > 0] != 0).any()
    return loss


@pytest.mark.parametrize("name", OBJECTIVES)
def test_is_the_objective_of_that_name(name):
    batch, logits = made(), random(12)
    teacher = Says(batch)
    loss = written(
        objective(name, **({} if name in ("cross_entropy", "entropy") else {"teacher": teacher})), batch, logits
    )
    theirs = np.nan_to_num(teacher.table)
    if name == "cross_entropy":
        wanted = cross_entropy(logits, batch.labels, weights=batch.weights)
    else:
        wanted = divergence(logits, None if name == "entropy" else theirs, name, weights=batch.weights)
    assert loss.value == wanted.value
    np.testing.assert_array_equal(bits(loss.gradient), bits(wanted.gradient))


@pytest.mark.parametrize("name", LAWS)
def test_rows_of_a_file_serve_as_the_teacher_does(name):
    logits, theirs = random(12), random(12, seed=9)
    for k, temperature in ((VOCAB, 1.0), (VOCAB, 2.0), (5, 1.0), (5, 2.0)):
        top = teacher_top_k(theirs, k)
        loss = written(objective(name, temperature=temperature), made(top), logits)
        tail = top.tail if temperature == 1 else "drop"
        few = topk_divergence(logits, *top[:2], name, tail=tail, temperature=temperature, weights=made().weights)
        assert loss.value == few.value
        if k == VOCAB:
            whole = divergence(logits, theirs, name, temperature=temperature, weights=made().weights)
            np.testing.assert_allclose(loss.value, whole.value, rtol=1e-5)
            np.testing.assert_allclose(loss.gradient, whole.gradient, atol=1e-6)


def test_settings_reach_the_divergence_and_labels_may_be_added():
    batch, logits = made(), random(12)
    teacher = Says(batch)
    settings = dict(temperature=2.0, temperature_squared=True, scale=0.5, label_scale=0.25)
    loss = written(objective("jsd", teacher=teacher, beta=0.1, **settings), batch, logits)
    wanted = divergence(
        logits, np.nan_to_num(teacher.table), "jsd", 0.1, labels=batch.labels, weights=batch.weights, **settings
    )
    assert loss.value == wanted.value
    np.testing.assert_array_equal(bits(loss.gradient), bits(wanted.gradient))


@pytest.mark.parametrize("name", ["cross_entropy", "reverse_kl"])
def test_parts_of_a_batch_add_up_to_it(name):
    batch, logits = made(teacher_top_k(random(12, 9), VOCAB)), random(12)
    wanted, whole = objective(name), logits.copy()
    value = wanted(whole, batch, np.arange(12), batch.weight).value
    shares, gradients = [], []
    for part, rows in zip(batch.split(1), np.split(logits.copy(), batch.starts[1:-1]), strict=True):
        for some in np.array_split(np.arange(len(part)), 2):
            loss = wanted(rows[some], part, some, batch.weight)
            shares.append(loss.value)
            gradients.append(loss.gradient)
    np.testing.assert_allclose(sum(shares), value, rtol=1e-12)
    np.testing.assert_array_equal(bits(np.concatenate(gradients)), bits(whole))


def test_nothing_to_learn_is_nothing():
    batch = data_of([3], prompts=[3]).batch([0])
    loss = objective("cross_entropy")(logits := random(3), batch, np.arange(3), 0.0)
    assert loss.value == 0 and not logits.any()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("forward", {}, "name must be one of cross_entropy, forward_kl, .* got 'forward'"),
        ("jsd", {"alpha": 0.1}, "jsd takes temperature, .*, tail, beta, got 'alpha'"),
        ("forward_kl", {"temperatur": 2.0}, "did you mean 'temperature'"),
        ("forward_kl", {"beta": 0.5}, "forward_kl takes temperature"),
        ("cross_entropy", {"temperature": 2.0}, "cross_entropy takes no settings, got 'temperature'"),
        ("cross_entropy", {"teacher": 3}, "cross_entropy takes no teacher"),
        ("entropy", {"teacher": 3}, "entropy is of the student alone"),
        ("jsd", {"beta": 2.0}, "beta of jsd"),
        ("jsd", {"temperature": 0}, "temperature must lie in"),
        ("jsd", {"tail": "uniform"}, "tail must be one of bucket, drop"),
        ("jsd", {"tail": "bucket", "temperature": 2.0}, 'tail must be "drop" at temperature 2'),
    ],
)
def test_refuses(name, settings, message):
    with pytest.raises(ArgumentError, match=message):
        objective(name, **settings)


def test_a_divergence_without_a_teacher_says_what_it_needs():
    with pytest.raises(ArgumentError, match=r"forward_kl needs a teacher: objective\(teacher=\.\.\.\), or batches of"):
        objective("forward_kl")(random(12), made(), np.arange(12), 1.0)
    assert isinstance(made(teacher_top_k(random(12), 2)).teacher, TopK)
