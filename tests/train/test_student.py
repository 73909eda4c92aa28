"""Shallow students: what each way of learning minimises, beside its formula; runs that go on to the same bytes; and their guesses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint import open_checkpoint
from fastdistill.errors import ArgumentError, CheckpointError, DataError, FastDistillError, UnsupportedError
from fastdistill.models import plan_of
from fastdistill.models.cut_folder import cut_folder
from fastdistill.runtime import Read
from fastdistill.runtime.network import Network
from fastdistill.train import rollouts
from fastdistill.train.own_texts import prompts, write_texts
from fastdistill.train.own_texts.target import Target
from fastdistill.train.own_texts.work import WorkTime
from fastdistill.train.student import (
    SelectiveDistillation,
    StudentSettings,
    StudentTraining,
    distill_student,
    student_acceptance,
)
from fastdistill.train.student.examples import examples_of, some_of
from tests.test_cli import write_model

ARMS = {
    "plain KL": {},
    "DistillSpec": {"on_policy": 0.7, "objective": "jsd"},
    "AdaSPEC": {"selection": 0.4},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "target", layers=3)


@pytest.fixture(scope="module")
def target(model):
    return Target.load(str(model), 1)


@pytest.fixture(scope="module")
def cut(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "cut"
    cut_folder(model, folder, [0])
    return folder


@pytest.fixture(scope="module")
def data(target):
    return examples_of(write_texts(target, [[5, 6, 7], [9, 8], [3, 1, 4, 1, 5], [2]], max_tokens=9))


def settings_of(target, **changes):
    settings = dict(
        model=str(target),
        layers=1,
        minutes=1e-3,
        max_tokens=24,
        rows=96,
        learning_rate=3e-3,
        format="f32",
        optimiser_steps=12,
    )
    return StudentSettings(**settings | changes)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def kl(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


def jsd(log_p, log_q):
    log_m = np.logaddexp(log_p, log_q) - np.log(2)
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


def of_whole_texts(network, batch):
    """log p of each row that counts: every sequence is read by a session of its own."""
    found = []
    for first, last in zip(batch.starts, batch.starts[1:], strict=False):
        found.append(network.session().forward(batch.tokens[first:last], read=Read(logits=True)).logits)
    return log_softmax(np.concatenate(found)[np.flatnonzero(batch.weights)])


def test_texts_are_the_targets_and_fit(model, target, data):
    plain = fd.load(model).generate([9, 8], max_tokens=9).tokens
    assert data.tokens[data.rows(1)].tolist() == [9, 8, *plain] and data.prompts.tolist() == [3, 2, 5, 1]
    assert data.counted[data.rows(1)].tolist() == [False] * 2 + [True] * len(plain)
    assert some_of(data, np.array([1, 3])).tokens.tolist() == [
        *data.tokens[data.rows(1)].tolist(), *data.tokens[data.rows(3)].tolist()
    ]  # fmt: skip


def test_plain_kl_is_the_mean_of_the_targets_texts(model, target, cut, data):
    learner = StudentTraining(settings_of(model), cut, target.network, data, target.end_tokens)
    (batch,) = learner.batches(0)
    assert sorted(batch.tokens.tolist()) == sorted(data.tokens.tolist())
    rows = kl(of_whole_texts(target.network, batch), of_whole_texts(learner.engine.network(), batch))
    assert learner.engine.accumulate(batch, learner.objective, batch.weight) == pytest.approx(rows.mean(), rel=1e-4)


def test_distillspec_judges_what_the_student_draws(model, target, cut, data):
    settings = settings_of(model, on_policy=1.0, objective="jsd", max_tokens=7)
    learner = StudentTraining(settings, cut, target.network, data, target.end_tokens)
    for step in range(2):  # the weights change in between, and so do the texts
        network = learner.engine.network()
        for batch in learner.batches(step):
            own = []
            for number in range(len(data)):
                prompt = data.tokens[data.rows(number)][: data.prompts[number]]
                places = range(4 * step, 4 * step + 4)  # of the run, which fix what is drawn
                texts = rollouts(network, [prompt] * 4, max_tokens=7, end_tokens=target.end_tokens, numbers=places)
                own += [texts.tokens[a:b].tolist() for a, b in zip(texts.starts, texts.starts[1:], strict=False)]
            for first, last in zip(batch.starts, batch.starts[1:], strict=False):
                assert batch.tokens[first:last].tolist() in own
            p, q = (of_whole_texts(each, batch) for each in (target.network, network))
            value = learner.engine.value(batch, learner.objective, batch.weight)
            assert value == pytest.approx(jsd(p, q).mean(), rel=1e-4)
        for parameter in learner.engine.parameters.values():
            parameter.assign(parameter.to_array() * 1.5)


def test_adaspec_learns_where_it_is_furthest_behind_its_reference(model, target, cut, data):
    reference = StudentTraining(settings_of(model), cut, target.network, data, target.end_tokens)
    reference.train(8)
    settings = settings_of(model, selection=0.4)
    learner = StudentTraining(settings, cut, target.network, data, target.end_tokens, reference.engine.network())
    (batch,) = learner.batches(0)
    p, q, r = (
        of_whole_texts(network, batch) for network in (target.network, *(each.engine.network() for each in (learner, reference)))
    )  # fmt: skip
    own, gap = kl(p, q), kl(p, q) - kl(p, r)
    kept = gap >= np.quantile(gap, 0.6)
    assert 0 < kept.sum() < len(kept)
    found = learner.engine.accumulate(batch, learner.objective, batch.weight)
    assert found == pytest.approx(own[kept].sum() / len(own), rel=1e-4)
    logits = learner.engine.logits(batch)
    loss = learner.objective(logits.copy(), batch, np.flatnonzero(batch.weights), batch.weight)
    expected = kept[:, None] * (np.exp(q) - np.exp(p)) / len(own)
    np.testing.assert_allclose(loss.gradient, expected, atol=1e-6)


def test_all_that_count_is_the_plain_divergence(model, target, cut, data):
    plain = StudentTraining(settings_of(model), cut, target.network, data, target.end_tokens)
    (batch,) = plain.batches(0)
    logits, rows = plain.engine.logits(batch), np.flatnonzero(batch.weights)
    expected = plain.objective(logits.copy(), batch, rows, 7.0)
    teacher = plain.objective.teacher
    for objective in (
        SelectiveDistillation("forward_kl", teacher, teacher, 1.0),
        SelectiveDistillation("forward_kl", teacher, _Says(logits), 0.4),  # ties: as good as its reference everywhere
    ):
        found = objective(logits.copy(), batch, rows, 7.0)
        assert found.gradient.tobytes() == expected.gradient.tobytes() and found.value == expected.value
    with pytest.raises(ArgumentError, match="fraction must"):
        SelectiveDistillation("forward_kl", teacher, teacher, 1.5)


class _Says:
    def __init__(self, logits):
        self._logits = logits

    def logits(self, batch, rows):
        return self._logits


def test_the_table_and_the_head_stay_where_only_layers_learn(model, target, cut, data):
    names = [set(StudentTraining(settings_of(model, whole=whole), cut, target.network, data, ()).engine.parameters) for whole in (False, True)]  # fmt: skip
    assert {name for name in names[1] - names[0]} <= {"model.embed_tokens.weight", "lm_head.weight"}
    assert "model.norm.weight" in names[0] and "model.embed_tokens.weight" in names[1]


def test_acceptance_is_that_of_greedy_speculation(model, target, cut, data):
    """Depth by depth, from every place of every text."""
    with open_checkpoint(cut) as checkpoint:
        student = Network(plan_of(checkpoint), checkpoint.tensors, None, 1)
    found = student_acceptance(student, target.network, data, rows=40)
    right, asked, overlaps = np.zeros((5, 4)), np.zeros(5), []
    for number in range(len(data)):
        tokens, prompt = data.tokens[data.rows(number)], int(data.prompts[number])
        q, p = (each.session().forward(tokens, read=Read(logits=True)).logits for each in (student, target.network))
        overlaps += [np.minimum(*map(np.exp, map(log_softmax, (q, p)))).sum(axis=1)[prompt - 1 : -1]]
        for place in range(prompt, len(tokens)):
            for depth in range(min(5, len(tokens) - place)):
                best = np.argsort(-q[place + depth - 1], kind="stable")[:4]
                asked[depth] += 1
                right[depth] += best == tokens[place + depth]
                if best[0] != tokens[place + depth]:
                    break
    np.testing.assert_allclose(found.ranks, right / np.maximum(asked, 1)[:, None])
    assert found.overlap == pytest.approx(np.concatenate(overlaps).mean(), rel=1e-5)
    assert found.tokens == pytest.approx(1 + np.cumprod(found.ranks[:, 0]).sum())
    assert student_acceptance(target.network, target.network, data).overlap == pytest.approx(1)


@pytest.mark.parametrize("arm", ARMS)
def test_a_model_distils_a_student_that_drafts_for_it(arm, model, tmp_path):
    """Interrupted while it learns, it goes on to the same bytes; and its drafts leave the text as it is."""
    settings = settings_of(model, **ARMS[arm])
    counts, done = list[int](), list[int]()

    def training(steps):
        counts.append(steps)
        return lambda record: done.append(record["step"])

    distill_student(settings, tmp_path / "whole", training=training)
    trainings = 2 if "selection" in ARMS[arm] else 1
    assert counts == [12] * trainings and len(done) == 12 * trainings
    for most in (5, 17)[:trainings]:  # while the reference learns, and while the student does
        done.clear()
        ends = most if most == 5 else most - 6
        assert distill_student(settings, tmp_path / "parts", training=training, stop=lambda: len(done) >= ends) is None  # noqa: B023
        assert ends <= len(done) <= ends + 1  # the step that was under way is finished
        with pytest.raises(CheckpointError, match="was begun with other settings"):
            distill_student(replace(settings, seed=2), tmp_path / "parts")
    distill_student(settings, tmp_path / "parts", training=training)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts and not (tmp_path / "parts.run").exists()
    with pytest.raises(CheckpointError, match="is there already"):
        distill_student(settings, tmp_path / "whole")
    target, student = fd.load(model), fd.load(tmp_path / "whole")
    assert student.plan.num_layers == 1
    drafter = fd.ModelDrafter(student)
    for options in ({}, {"temperature": 0.7, "seed": 3}):
        plain = target.generate("What is it?", max_tokens=40, **options)
        drafted = target.generate("What is it?", max_tokens=40, decoder=fd.Speculative(drafter, max_draft=4), **options)
        assert drafted.tokens == plain.tokens and drafted.stats.drafted > 0


def test_it_learns(model, tmp_path):
    """From a cut's law to nearly the target's."""
    before = distill_student(settings_of(model, optimiser_steps=1, learning_rate=0.0), tmp_path / "before")
    after = distill_student(settings_of(model, optimiser_steps=60, whole=True), tmp_path / "after")
    assert after.overlap > before.overlap and after.tokens >= before.tokens


def test_time_says_how_many_steps_there_are(model, tmp_path, monkeypatch):
    monkeypatch.setattr(StudentTraining, "seconds", lambda self: 0.005)
    steps: list[int] = []
    training = lambda count: steps.append(count) or (lambda record: None)  # noqa: E731
    monkeypatch.setattr(WorkTime, "seconds", 0.03)
    settings = settings_of(model, optimiser_steps=None, minutes=0.002, writing=0.25)  # 0.09 s for steps
    distill_student(settings, tmp_path / "plain", training=training)
    distill_student(replace(settings, selection=0.4, format="q8"), tmp_path / "reference", training=training)
    plain, reference, student = steps  # judging takes some of it
    assert 8 < plain <= 16 and reference == student and abs(reference - plain / 2) < 1
    with open_checkpoint(tmp_path / "reference") as checkpoint:
        assert checkpoint.tensors["model.embed_tokens.weight"].format == "q8"


def test_what_is_wrong_leaves_no_folder(model, tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "_OWN", 20)
    (tmp_path / "none.jsonl").write_text("")
    for changes, error, words in (
        ({"model": "nowhere"}, FastDistillError, "nowhere"),
        ({"layers": 3}, ArgumentError, "layers must be fewer than the target's 3, got 3"),
        ({"prompts": str(tmp_path / "none.jsonl")}, DataError, "holds no prompt"),
        ({"model": "listops-mdlm"}, UnsupportedError, "a draft is for a causal model with a head"),
    ):
        with pytest.raises(error, match=words):
            distill_student(settings_of(model, **changes), tmp_path / "student")
    assert not (tmp_path / "student.run").exists()
    with pytest.raises(DataError, match="0 texts have come"):
        distill_student(settings_of(model, rows=20), tmp_path / "short")
    with pytest.raises(ArgumentError, match="selection must"):
        settings_of(model, selection=2.0)


def test_the_command_makes_a_student(model, run, tmp_path):
    options = ("--recipe", "student", "--minutes", "0.001", "--max-tokens", "24", "--threads", "1", "--rows", "200")
    code, out, err = run(
        "distill", model, "--draft", tmp_path / "draft", "--layers", "1", "--on-policy", "0.5", *options
    )
    assert code == 0, err
    assert "a model of" in out and f"--drafter model --draft-model {tmp_path / 'draft'}" in out
    plain, drafted = (
        run("generate", model, "What?", "--max-tokens", "30", *more)[1]
        for more in ((), ("--decoder", "speculative", "--drafter", "model", "--draft-model", tmp_path / "draft"))
    )
    assert plain == drafted
    code, _, err = run("distill", model, "--draft", tmp_path / "other", "--layers", "1")
    assert code == 2 and "--layers does not go with --recipe eagle" in err
