"""The lines of docs/distill/conventions.md: each runs, and says what the library that it names says, or that library's formula.

`pip install torch trl liger-kernel speculators torchdistill`; `pytest -m peers`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bench.lib.peers import REASON

PAGE = (Path(__file__).parents[2] / "docs/distill/conventions.md").read_text()
LINES = re.findall(r"^\| ([\w. ]+?) \| (.+) \| `(.+)` \|$", PAGE, re.MULTILINE)
INSTALL = "{} is not installed (pip install torch trl liger-kernel speculators torchdistill)"


@pytest.fixture(scope="module")
def names():
    """What the page's first example defines, for lines to use."""
    found = {}
    exec(re.search(r"```python\n(.+?)```", PAGE, re.DOTALL).group(1), found)
    return found


def test_every_line_is_compared():
    assert len(LINES) > 25
    assert {(library.split(" ")[0], there) for library, there, _ in LINES} == set(THEIRS)


@pytest.mark.parametrize(("library", "there", "here"), LINES)
def test_every_line_runs(names, library, there, here):
    loss = eval(here, names)
    assert loss.value > 0 and loss.gradient.shape == (8, 40)


@pytest.mark.peers
@pytest.mark.parametrize(("library", "there", "here"), LINES)
def test_every_line_is_what_it_says(names, library, there, here):
    torch = pytest.importorskip("torch", reason=REASON.format("torch"))
    leaf = torch.tensor(names["student"], requires_grad=True)
    value = THEIRS[library.split(" ")[0], there](leaf, names)
    value.backward()
    loss = eval(here, names)
    # speculators computes in float32 and divides by 1e-5 rows more than 5, Liger has its cross entropy in float32.
    near = {"speculators": 1e-5, "Liger": 1e-6}.get(library.split(" ")[0], 1e-10)
    np.testing.assert_allclose(loss.value, value.item(), rtol=near)
    if "its value" not in there:
        np.testing.assert_allclose(loss.gradient, leaf.grad.numpy(), rtol=near, atol=near)


def tensor(array):
    import torch

    return torch.from_numpy(np.asarray(array))


def library(module, name):
    """The module, or the reason why it is not here."""
    return pytest.importorskip(module, reason=INSTALL.format(name))


# ---- libraries ----


def generalized_jsd(beta, temperature=True, whole=False):
    def theirs(leaf, names):
        trainer = library("trl.experimental.gkd.gkd_trainer", "trl").GKDTrainer
        return trainer.generalized_jsd_loss(
            leaf[None],
            tensor(names["teacher"])[None],
            labels=tensor(names["labels"])[None],
            beta=beta,
            temperature=names["T"] if temperature else 1.0,
            num_items_in_batch=names["N"] if whole else None,
        )

    return theirs


def self_distillation(tail):
    def theirs(leaf, names):
        loss = library("trl.experimental.sdft.loss_utils", "trl").compute_topk_self_distillation_loss
        options = {"distillation_topk": 5, "distillation_alpha": 0.3, "distillation_add_tail": tail}
        return loss(leaf[None], tensor(names["teacher"])[None], **options).sum()

    return theirs


def fused_jsd(leaf, names):
    """A head of the identity: its gradient by hidden states is that by logits."""
    import torch

    chunked = library("liger_kernel.chunked_loss", "liger-kernel")
    loss = chunked.LigerFusedLinearJSDLoss(0.3, 0.7, beta=0.2, temperature=names["T"], compiled=False)
    head = torch.eye(40, dtype=torch.float64)
    return loss(leaf, head, tensor(names["teacher"]), head.clone(), tensor(names["labels"]))


def speculators(name):
    def theirs(leaf, names):
        loss = getattr(library("speculators.losses.eager", "speculators"), name)
        reduce = library("speculators.losses", "speculators").loss_function
        kept = tensor(names["kept"])[None]
        return reduce(leaf[None], tensor(names["teacher"])[None], kept, kept, loss)

    return theirs


def torchdistill(alpha, targets):
    def theirs(leaf, names):
        losses = library("torchdistill.losses.mid_level", "torchdistill")
        loss = losses.KDLoss("head", "output", "head", "output", temperature=names["T"], alpha=alpha, beta=0.7)
        return loss(*({"head": {"output": z}} for z in (leaf, tensor(names["teacher"]))), targets)

    return theirs


def torchdistill_with_targets(leaf, names):
    """Its KL is over all rows: of those that count."""
    rows = np.flatnonzero(names["kept"])
    kept = {**names, "teacher": names["teacher"][rows]}
    return torchdistill(0.3, tensor(names["labels"][rows]))(leaf[rows], kept)


# ---- formulas ----


def kl(log_p, log_q):
    """KL(p, q) of each row."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def logs(leaf, names, temperature=True):
    """log p and log q."""
    by = names["T"] if temperature else 1.0
    return (tensor(names["teacher"]) / by).log_softmax(-1), (leaf / by).log_softmax(-1)


def hinton(leaf, names):
    import torch

    rows = np.flatnonzero(names["kept"])
    log_p, log_q = logs(leaf, names)
    hard = torch.nn.functional.cross_entropy(leaf, tensor(names["labels"]))
    return 0.3 * hard + 0.7 * names["T"] ** 2 * kl(log_p, log_q)[rows].mean()


def whole_logits(leaf, names):
    kept = tensor(names["kept"])
    return (kl(*logs(leaf, names)) * kept).sum() * names["T"] ** 2 / kept.sum()


def few_tokens(leaf, names, log_p):
    """Terms of the listed tokens, (n,): the student is normalised over the whole vocabulary."""
    log_q = logs(leaf, names)[1].gather(-1, tensor(names["tokens"].astype(np.int64)))
    return (log_p.exp() * (log_p - log_q)).sum(-1), log_q


def zero(leaf, names):
    kept = tensor(names["kept"])
    return (few_tokens(leaf, names, tensor(names["alone"]))[0] * kept).sum() * names["T"] ** 2 / kept.sum()


def symmetric_uniform(leaf, names):
    kept, log_p = tensor(names["kept"]), tensor(names["log_probs"])
    terms, log_q = few_tokens(leaf, names, log_p)
    p_left, q_left = 1 - log_p.exp().sum(-1), 1 - log_q.exp().sum(-1)
    terms = terms + p_left * (p_left / q_left).log()
    return (terms * kept).sum() * names["T"] ** 2 / kept.sum()


def axolotl(leaf, names):
    return (few_tokens(leaf, names, tensor(names["alone"]))[0] * tensor(names["kept"])).sum() / names["N"]


def axolotl_fused(leaf, names):
    """The student, too, is normalised over the list."""
    log_q = few_tokens(leaf, names, tensor(names["alone"]))[1].log_softmax(-1)
    return (kl(tensor(names["alone"]), log_q) * tensor(names["kept"])).sum() * names["T"] ** 2


def specforge(leaf, names):
    """-sum p log q, 0 where masked, over all positions."""
    terms = -(tensor(names["law"]) * leaf.log_softmax(-1)).sum(-1)
    return (terms * tensor(names["kept"])).mean()


def kdflow_jsd(leaf, names):
    import torch

    log_p, log_q = logs(leaf, names)
    log_m = torch.logaddexp(log_q + np.log(0.3), log_p + np.log(0.7))
    return (0.3 * kl(log_q, log_m) + 0.7 * kl(log_p, log_m)).mean()


def kdflow_skewed(of_student):
    def theirs(leaf, names):
        import torch

        log_p, log_q = logs(leaf, names)
        one, other = (log_q, log_p) if of_student else (log_p, log_q)
        return kl(one, torch.logaddexp(one + np.log(0.1), other + np.log(0.9))).mean()

    return theirs


def kdflow_tvd(leaf, names):
    log_p, log_q = logs(leaf, names)
    return 0.5 * (log_q.exp() - log_p.exp()).abs().sum(-1).mean()


THEIRS = {
    ("Hinton", "soft targets with T^2, and CE at temperature 1"): hinton,
    ("TRL", "`GKDTrainer.generalized_jsd_loss(labels=, beta=0.3, temperature=T)`"): generalized_jsd(0.3),
    ("TRL", "the same with `beta=0`"): generalized_jsd(0, temperature=False),
    ("TRL", "the same with `beta=1`"): generalized_jsd(1, temperature=False),
    ("TRL", "the same with `num_items_in_batch=N`"): generalized_jsd(0.5, temperature=False, whole=True),
    (
        "TRL",
        "`compute_topk_self_distillation_loss(distillation_alpha=0.3, distillation_add_tail=True)`, a value a token",
    ): self_distillation(True),
    ("TRL", "the same with `distillation_add_tail=False`"): self_distillation(False),
    (
        "Liger",
        "`LigerFusedLinearJSDLoss(weight_hard_loss=0.3, weight_soft_loss=0.7, beta=0.2, temperature=T)`",
    ): fused_jsd,
    ("speculators", "`kl_div_loss`"): speculators("kl_div_loss"),
    ("speculators", "`reverse_kl_div_loss`"): speculators("reverse_kl_div_loss"),
    ("speculators", "`js_div_loss`"): speculators("js_div_loss"),
    ("speculators", "`tv_loss`"): speculators("tv_loss"),
    ("speculators", "`neg_log_acceptance_loss`"): speculators("neg_log_acceptance_loss"),
    ("speculators", "`lk_hybrid_loss(eta=3.0)`"): speculators("lk_hybrid_loss"),
    ("speculators", "`ce_loss`"): speculators("ce_loss"),
    ("torchdistill", "`KDLoss(temperature=T, alpha=0.3)`"): torchdistill_with_targets,
    ("torchdistill", "the same without targets"): torchdistill(0.3, None),
    ("DistillKit", "`KLDLoss(temperature=T)`, whole logits"): whole_logits,
    ("DistillKit", "the same from k tokens, `MissingProbabilityHandling.ZERO`"): zero,
    ("DistillKit", "the same, `MissingProbabilityHandling.SYMMETRIC_UNIFORM`"): symmetric_uniform,
    ("axolotl", "`topk_logprob.forward_kl.loss(num_items_in_batch=N, kd_temperature=T)`"): axolotl,
    ("axolotl", "`LigerFusedLinearKLTopKLogprobLoss(beta=0.0, temperature=T)`, its value"): axolotl_fused,
    ("SpecForge", "`LogSoftmaxLoss`"): specforge,
    ("KDFlow", "`kl`"): lambda leaf, names: kl(*logs(leaf, names)).mean(),
    ("KDFlow", "`jsd`, `jsd_beta=0.3`"): kdflow_jsd,
    ("KDFlow", "`skl`, `skew_lambda=0.1`"): kdflow_skewed(False),
    ("KDFlow", "`srkl`, `skew_lambda=0.1`"): kdflow_skewed(True),
    ("KDFlow", "`tvd`"): kdflow_tvd,
}


# ---- faults that the page names ----


@pytest.mark.peers
def test_a_clamped_acceptance_rate_has_no_gradient():
    from fastdistill.distill import log_acceptance

    torch = pytest.importorskip("torch", reason=REASON.format("torch"))
    loss = library("speculators.losses.eager", "speculators").neg_log_acceptance_loss
    student, teacher = np.zeros((2, 1, 4), np.float32)
    student[0, 0], teacher[0, 1] = 16, 16
    leaf = torch.tensor(student, requires_grad=True)
    loss(leaf[None], tensor(teacher)[None]).sum().backward()
    assert not leaf.grad.any()
    assert np.abs(log_acceptance(student, teacher).gradient).max() > 0.1


@pytest.mark.peers
def test_means_of_trl():
    """Without labels "batchmean" is over sequences; "mean" is over tokens and the vocabulary."""
    trainer = library("trl.experimental.gkd.gkd_trainer", "trl").GKDTrainer
    from fastdistill.distill import jsd

    sides = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    rows = jsd(*sides.reshape(2, 15, 7)).rows
    theirs = trainer.generalized_jsd_loss
    assert theirs(*map(tensor, sides)).item() == pytest.approx(rows.sum() / 3)
    assert theirs(*map(tensor, sides), reduction="mean").item() == pytest.approx(rows.mean() / 7)


@pytest.mark.peers
def test_padding_of_liger_is_tokens_of_logit_0():
    torch = pytest.importorskip("torch", reason=REASON.format("torch"))
    from fastdistill.distill import jsd

    chunked = library("liger_kernel.chunked_loss", "liger-kernel")
    loss = chunked.LigerFusedLinearJSDLoss(0.0, 1.0, compiled=False)
    student, teacher = np.random.default_rng(0).standard_normal((2, 3, 6))
    student = student[:, :4].copy()
    heads = torch.eye(4, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    theirs = loss(tensor(student), heads[0], tensor(teacher), heads[1], torch.zeros(3, dtype=torch.int64))
    zeros, bans = (np.pad(student, [(0, 0), (0, 2)], constant_values=fill) for fill in (0, -np.inf))
    assert theirs.item() == pytest.approx(jsd(zeros, teacher).value)
    assert abs(jsd(bans, teacher).value - theirs.item()) > 0.01
