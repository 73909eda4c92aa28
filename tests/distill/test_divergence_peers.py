"""Objectives beside torch's autograd of the same formulas: `pip install torch`; `pytest -m peers`."""

from __future__ import annotations

import numpy as np
import pytest

from bench.lib.peers import REASON
from fastdistill.distill import (
    cosine_similarity,
    cosine_similarity_gradient,
    cross_entropy,
    divergence,
    feature_loss,
    info_nce,
    plackett_luce,
    pld,
    sinkhorn_loss,
    topk_divergence,
)
from fastdistill.kernels.distill.kinds import KINDS

pytestmark = pytest.mark.peers

torch = pytest.importorskip("torch", reason=REASON.format("torch"))
functional = torch.nn.functional

ROWS, VOCAB = 6, 40
TEMPERATURES = [0.5, 1.0, 2.0]
# float64: sums of 40 terms of a few units each.  float32: logarithms up to 30 (at temperature 0.5) to 2^-24 of themselves, three times
# over, and the slope 1 / temperature of the gradient.
NEAR = {np.float64: {"rtol": 1e-11, "atol": 1e-12}, np.float32: {"rtol": 2e-5, "atol": 2e-5}}
PARAMETERS = {
    "mixed_kl": [0.3], "adaptive_kl": [0.5, 0.9], "jsd": [0.1, 0.5, 0.9], "skew_kl": [0.1, 0.7], "skew_reverse_kl": [0.1, 0.7],
    "alpha": [0.3, 0.5], "renyi": [0.3, 0.5], "acceptance_hybrid": [3.0, 0.5],
}  # fmt: skip
EACH = [(kind, parameter) for kind in KINDS for parameter in PARAMETERS.get(kind, [None])]


def logits(seed, dtype=np.float64, width=VOCAB):
    return (np.random.default_rng(seed).standard_normal((ROWS, width)) * 3).astype(dtype)


def autograd(objective, *inputs):
    """The value of objective and its gradient by each input, in float64."""
    leaves = [torch.from_numpy(each.astype(np.float64)).requires_grad_() for each in inputs]
    value = objective(*leaves)
    value.backward()
    return value.item(), *(leaf.grad.numpy() for leaf in leaves)


def fixed(array):
    return torch.from_numpy(array.astype(np.float64))


def agree(found, value, gradient, dtype=np.float64, by=1.0):
    near = {name: by * tolerance for name, tolerance in NEAR[dtype].items()}
    np.testing.assert_allclose(found.value, value, **near)
    np.testing.assert_allclose(found.gradient, gradient, **near)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize(("kind", "parameter"), EACH)
def test_divergences(kind, parameter, dtype, temperature):
    from bench.lib.torch_objectives import divergence as in_torch

    student, teacher = logits(0, dtype), None if kind == "entropy" else logits(1, dtype)
    target = None if teacher is None else fixed(teacher)
    want = autograd(lambda leaf: in_torch(kind, leaf, target, parameter, temperature), student)
    found = divergence(student, teacher, kind, parameter, temperature=temperature)
    # -log of an acceptance rate has its slope, 1 over the rate.
    agree(found, *want, dtype, by=np.exp(found.rows.max()) if kind == "log_acceptance" else 1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("tail", ["bucket", "drop"])
@pytest.mark.parametrize(
    ("kind", "parameter"),
    [
        ("forward_kl", None),
        ("reverse_kl", None),
        ("jsd", 0.5),
        ("jsd", 0.1),
        ("jeffreys", None),
        ("log_acceptance", None),
    ],
)
def test_divergences_over_few_tokens(kind, parameter, tail, dtype, temperature):
    from bench.lib.torch_objectives import topk_divergence as in_torch

    student, teacher = logits(0, dtype), logits(1)
    tokens = np.argsort(-teacher, axis=1)[:, :7].astype(np.int32)
    log_probs = np.take_along_axis(teacher, tokens, axis=1)
    log_probs = (log_probs - np.log(np.exp(teacher).sum(axis=1, keepdims=True))).astype(dtype)
    ids, known = torch.from_numpy(tokens.astype(np.int64)), fixed(log_probs)
    want = autograd(
        lambda leaf: in_torch(kind, leaf, ids, known, parameter, tail=tail, temperature=temperature), student
    )
    agree(
        topk_divergence(student, tokens, log_probs, kind, parameter, tail=tail, temperature=temperature), *want, dtype
    )


@pytest.mark.parametrize("dtype", NEAR)
def test_a_label_beside_a_divergence(dtype):
    """CE at temperature 1, KL at 2 times its square; a row that is ignored counts for neither."""
    student, teacher, labels = logits(0, dtype), logits(1, dtype), np.array([3, -100, 0, 39, 7, -100], np.int32)
    counts, p = torch.from_numpy(labels >= 0), (fixed(teacher) / 2).softmax(-1)

    def objective(leaf):
        hard = functional.cross_entropy(leaf, torch.from_numpy(labels.astype(np.int64)))
        soft = functional.kl_div((leaf / 2).log_softmax(-1)[counts], p[counts], reduction="batchmean")
        return 0.3 * hard + 0.7 * 4 * soft

    want = autograd(objective, student)
    options = {"temperature": 2.0, "temperature_squared": True, "labels": labels, "scale": 0.7, "label_scale": 0.3}
    agree(divergence(student, teacher, **options), *want, dtype)
    want = autograd(lambda leaf: functional.cross_entropy(leaf, torch.from_numpy(labels.astype(np.int64))), student)
    agree(cross_entropy(student, labels), *want, dtype)


def list_likelihood(scores, ranks):
    """Plackett-Luce by a running log-sum-exp from the list's end."""
    suffix = torch.logcumsumexp(scores.flip(-1), -1).flip(-1)
    return (ranks * (suffix - scores)).sum(-1)


def test_plackett_luce():
    scores, ranks = logits(0), np.random.default_rng(2).random((ROWS, VOCAB))
    value, slope = autograd(lambda leaf: list_likelihood(leaf, fixed(ranks)).mean(), scores)
    found = plackett_luce(scores, ranks)
    np.testing.assert_allclose(found.value, value, **NEAR[np.float64])
    np.testing.assert_allclose(found.gradient.scores, slope, **NEAR[np.float64])


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_pld(temperature, top_k):
    """The label, then the teacher's order; a list that is cut is the whole one without the terms behind it."""
    student, teacher, labels = logits(0), logits(1), np.arange(ROWS, dtype=np.int32)
    liked = teacher.copy()
    np.put_along_axis(liked, labels[:, None], np.inf, axis=1)
    order = np.argsort(-liked, axis=1, kind="stable")
    law = (fixed(teacher) / temperature).softmax(-1).gather(-1, torch.from_numpy(order))
    if top_k is not None:
        law[:, top_k + 1 :] = 0
    want = autograd(lambda leaf: list_likelihood(leaf.gather(-1, torch.from_numpy(order)), law).mean(), student)
    agree(pld(student, teacher, labels, teacher_temperature=temperature, top_k=top_k), *want)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_info_nce(temperature):
    """Cross entropy over cosine similarities, and the way on to both sides' embeddings."""
    x, y = logits(3, width=8), logits(4, width=8)
    labels = np.array([2, 0, 5, -100, 1, 4], np.int32)

    def objective(x, y):
        similarities = functional.normalize(x) @ functional.normalize(y).T
        return functional.cross_entropy(similarities / temperature, torch.from_numpy(labels.astype(np.int64)))

    value, by_x, by_y = autograd(objective, x, y)
    found = info_nce(cosine_similarity(x, y), labels, temperature=temperature)
    np.testing.assert_allclose(found.value, value, **NEAR[np.float64])
    gradient = cosine_similarity_gradient(found.gradient.similarities, x, y)
    np.testing.assert_allclose(gradient.x, by_x, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(gradient.y, by_y, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize(
    ("kind", "options", "in_torch"),
    [
        ("mse", {}, functional.mse_loss),
        ("smooth_l1", {"beta": 0.7}, lambda z, t: functional.smooth_l1_loss(z, t, beta=0.7)),
        ("smooth_l1", {"beta": 0.0}, functional.l1_loss),
        ("cosine", {}, lambda z, t: (1 - functional.cosine_similarity(z, t)).mean()),
        ("normalised_mse", {}, lambda z, t: functional.mse_loss(functional.normalize(z), functional.normalize(t))),
        ("unit_l1", {}, lambda z, t: functional.l1_loss(functional.normalize(z), functional.normalize(t))),
    ],
)
def test_features(kind, options, in_torch, projected):
    student, teacher, projector = (
        logits(5, width=9),
        logits(6, width=9),
        np.random.default_rng(7).standard_normal((9, 9)),
    )
    target = fixed(teacher)
    if projected:
        value, by_student, by_projector = autograd(lambda z, m: in_torch(z @ m.T, target), student, projector)
        found = feature_loss(student, teacher, kind, projector=projector, **options)
        np.testing.assert_allclose(found.gradient.projector, by_projector, **NEAR[np.float64])
    else:
        value, by_student = autograd(lambda z: in_torch(z, target), student)
        found = feature_loss(student, teacher, kind, **options)
    np.testing.assert_allclose(found.value, value, **NEAR[np.float64])
    np.testing.assert_allclose(found.gradient.student, by_student, **NEAR[np.float64])


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_sinkhorn(temperature):
    """Autograd through every division."""
    student, teacher = logits(0), logits(1)

    def objective(leaf):
        x, y = (leaf / temperature).softmax(-1), (fixed(teacher) / temperature).softmax(-1)
        cost = (x[:, None] - y).abs().sum(-1)
        plan = torch.exp(-cost / 0.1)
        for _ in range(20):
            plan = plan / plan.sum(1, keepdim=True)
            plan = plan / plan.sum(0, keepdim=True)
        return (plan * cost).sum()

    want = autograd(objective, student)
    found = sinkhorn_loss(student, teacher, temperature=temperature)
    np.testing.assert_allclose(found.value, want[0], rtol=1e-10)
    np.testing.assert_allclose(found.gradient, want[1], rtol=1e-8, atol=1e-10)
