"""Rollouts are what the student writes, whoever is beside it; which examples are rollouts is a function of seed and place."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.distill.loss import IGNORED
from fastdistill.errors import ArgumentError, CapacityError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler, sample
from fastdistill.runtime.read import Read
from fastdistill.train.data import Batches, OnPolicy, Teacher, open_teacher_file, rollouts, write_teacher_file
from fastdistill.train.data.chance import MIXTURE, uniforms
from fastdistill.train.objectives import objective
from tests.small_models import network
from tests.train.data_made_here import data_of, masked

PROMPTS = [[1, 2, 3], [4], [1, 2, 5, 6], [7, 8]]


def texts(batch):
    return [batch.tokens[slice(*batch.starts[place : place + 2])].tolist() for place in range(batch.sequences)]


def test_labels_are_what_the_student_draws():
    batch = rollouts(network(), PROMPTS, seed=5, temperature=0.7, max_tokens=9)
    for number, (text, prompt) in enumerate(zip(texts(batch), PROMPTS, strict=True)):
        rows = slice(*batch.starts[number : number + 2])
        assert text[: len(prompt)] == prompt and len(text) == len(prompt) + 9
        own = np.arange(len(prompt) - 1, len(text) - 1)
        assert batch.labels[rows][own].tolist() == text[len(prompt) :]
        assert batch.weights[rows].tolist() == [float(row in own) for row in range(len(text))]
        assert (batch.labels[rows][: len(prompt) - 1] == IGNORED).all()
        logits = network().session().forward(text, read=Read(logits=True)).logits[own]
        sampler = Sampler(temperature=0.7, seed=5, sequence=number)
        assert sample(logits, sampler, own.astype(np.int32)).tolist() == text[len(prompt) :]


def test_a_text_is_the_same_whatever_is_written_beside_it():
    together = texts(rollouts(network(), PROMPTS, seed=5, max_tokens=9))
    assert texts(rollouts(network(), PROMPTS, seed=5, max_tokens=9, max_texts=2)) == together
    for number, prompt in enumerate(PROMPTS):
        assert texts(rollouts(network(), [prompt], seed=5, max_tokens=9, numbers=[number])) == [together[number]]
    assert texts(rollouts(network(), PROMPTS, seed=6, max_tokens=9)) != together
    same = texts(rollouts(network(), [[1]] * 3, max_tokens=9))
    assert len({tuple(text) for text in same}) == 3
    greedy = texts(rollouts(network(), [[1]] * 3, temperature=0, max_tokens=9))
    assert len({tuple(text) for text in greedy}) == 1


def test_a_text_ends_with_an_end_token_or_where_there_is_no_room():
    whole = texts(rollouts(network(), [[1]], max_tokens=20))[0]
    end = whole[5]
    ended = rollouts(network(), [[1]], max_tokens=20, end_tokens=[end])
    assert texts(ended) == [whole[: whole.index(end, 1) + 1]] and end in ended.labels
    assert len(rollouts(network(), [[1, 2, 3]], max_length=7)) == 7
    with pytest.raises(CapacityError, match="a prompt of 3 tokens leaves no room for a token within 3"):
        rollouts(network(), [[1, 2, 3]], max_length=3)


def made(lam, prompts=(2, 0, 3, 1, 5, 2), rows=24, seed=3, student=network, **options):
    batches = Batches(data_of([4, 5, 6, 7, 8, 9], list(prompts)), rows, seed=seed)
    return batches, OnPolicy(batches, student, lam, max_tokens=4, **options)


def test_no_rollouts_is_the_data_and_all_is_rollouts():
    def never():
        raise AssertionError("nobody asks for it")

    batches, mixed = made(0, student=never)
    _, own = made(1)
    for number in range(batches.count(2)):
        assert texts(mixed[number]) == texts(batches[number])
        drawn = batches.drawn(number)
        for place, (sequence, text) in enumerate(zip(drawn.sequences, texts(own[number]), strict=True)):
            tokens, prompt = batches.data.tokens[batches.data.rows(sequence)].tolist(), batches.data.prompts[sequence]
            if not prompt:  # a text asks nothing
                assert text == tokens
                continue
            place += drawn.epoch * 6 + drawn.first
            written = rollouts(network(), [tokens[:prompt]], seed=3, max_tokens=4, numbers=[place])
            assert text == texts(written)[0]


@pytest.mark.parametrize("lam", [0.25, 0.5, 0.9])
def test_the_share_of_rollouts_is_that_of_the_chances_below_lambda(lam):
    """Each sequence of an epoch has one chance of its own, 53 bits, all of them different here."""
    batches, mixed = made(lam)
    for number in range(batches.count(20)):
        sequences, epoch, _ = batches.drawn(number)
        chances = uniforms(3, MIXTURE, epoch, sequences)
        assert mixed.own(number).tolist() == ((chances < lam) & (batches.data.prompts[sequences] > 0)).tolist()
    chances = np.concatenate([uniforms(seed, MIXTURE, 0, np.arange(1000)) for seed in range(100)])
    assert abs((chances < lam).mean() - lam) < 5 * (lam * (1 - lam) / chances.size) ** 0.5
    assert len(np.unique(chances)) == chances.size and chances.min() >= 0 and chances.max() < 1


def test_a_batch_has_data_and_rollouts_in_its_order_and_comes_again():
    batches, mixed = made(0.5)
    seen = set()
    for number in range(batches.count(3)):
        batch, own, plain = mixed[number], mixed.own(number), texts(batches[number])
        seen.update(own.tolist())
        assert [text == theirs for text, theirs in zip(texts(batch), plain, strict=True)] == (~own).tolist()
        assert texts(made(0.5)[1][number]) == texts(batch)
        assert max(map(len, batch.split(24))) <= 24
    assert seen == {True, False}


def test_a_text_is_no_longer_than_a_batch():
    batches = Batches(data_of([9], [6]), 9)
    (text,) = texts(OnPolicy(batches, network, 1, max_tokens=100)[0])
    assert len(text) == 9


def test_prompts_alone_are_always_written_on():
    batches = Batches(data_of([4, 5], [4, 2]), 24, prompts=True)
    assert OnPolicy(batches, network, 0, max_tokens=3).own(0).tolist() == (batches.drawn(0).sequences == 0).tolist()


def test_the_student_is_asked_for_at_each_batch():
    networks = iter([network(seed=0), network(seed=1)])
    _, mixed = made(1, student=lambda: next(networks))
    _, first = made(1)
    _, second = made(1, student=lambda: network(seed=1))
    assert texts(mixed[0]) == texts(first[0]) and texts(mixed[0 + 1]) == texts(second[1]) != texts(first[1])


def test_a_teacher_beside_the_student_judges_what_it_wrote():
    _, mixed = made(1)
    batch = mixed[0]
    teacher = Teacher(network(seed=1))
    student = Teacher(network())
    rows = np.arange(len(batch))
    loss = objective("reverse_kl", teacher=teacher)(student.logits(batch, rows), batch, rows, batch.weight)
    same = objective("reverse_kl", teacher=Teacher(network()))(student.logits(batch, rows), batch, rows, batch.weight)
    assert loss.value > 0.1 and abs(same.value) < 1e-6 and not same.gradient.any()


def test_refuses(tmp_path):
    with pytest.raises(ArgumentError, match="lam must lie in"):
        made(1.5)
    with pytest.raises(ArgumentError, match="needs examples with prompts, the data has none"):
        made(0.5, prompts=[0] * 6)
    with pytest.raises(ArgumentError, match="student must be callable"):
        made(0.5, student=network())
    with pytest.raises(ArgumentError, match="numbers must name each of 1 prompts, got 2"):
        rollouts(network(), [[1]], numbers=[1, 2])
    with pytest.raises(ArgumentError, match="model must be"):
        rollouts(3, [[1]])
    with pytest.raises(UnsupportedError, match="need a causal model"):
        rollouts(masked(), [[1]])
    data = data_of([4, 5], [2, 2])
    write_teacher_file(network(), data, tmp_path / "t", k=2)
    batches = Batches(data, 9, teacher=open_teacher_file(tmp_path / "t", data))
    with pytest.raises(ArgumentError, match="a teacher file has rows of the data alone"):
        OnPolicy(batches, network, 0.5)
