"""The tables of docs/transport.md for people who come from POT and GeomLoss, line by line."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bench.lib.peers import REASON
from fastdistill.transport import pairwise_distance, sinkhorn, sinkhorn_divergence, wasserstein_1d

pytestmark = pytest.mark.peers

ot = pytest.importorskip("ot", reason=REASON.format("POT"))

EPSILON = 0.1
EXACT = {"tolerance": 1e-13, "max_iterations": 100_000}
FINITE = [(0.5, 0.5), (0.2, 0.7)]
TAUS = [*FINITE, (0.5, np.inf), (np.inf, 0.3)]


def masses(total_a: float = 1.0, total_b: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    a, b = generator.uniform(0.1, 1, 6), generator.uniform(0.1, 1, 8)
    return a * (total_a / a.sum()), b * (total_b / b.sum())


X, Y = np.random.default_rng(1).random((6, 2)), np.random.default_rng(2).random((8, 2))
COST = pairwise_distance(X, Y)


def close(found, expected, atol=1e-9) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def close_up_to_a_constant(found, expected, atol=1e-9) -> None:
    assert np.ptp(np.asarray(found) - expected) < atol


def entropy(p: np.ndarray) -> float:
    return float(np.sum(p * np.log(p)))


@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_log", "sinkhorn_stabilized"])
def test_plans_values_and_potentials_of_pot(method):
    a, b = masses()
    found = sinkhorn(a, b, COST, epsilon=EPSILON, **EXACT)
    plan, log = ot.sinkhorn(a, b, COST, EPSILON, method=method, numItermax=100_000, stopThr=1e-14, log=True)
    close(found.plan, plan)
    close(found.value_linear, ot.sinkhorn2(a, b, COST, EPSILON, method=method, numItermax=100_000, stopThr=1e-14))
    f, g = found.potentials
    if method == "sinkhorn_stabilized":
        log_u, log_v = log["alpha"] / EPSILON, log["beta"] / EPSILON
    else:
        log_u, log_v = np.log(log["u"]), np.log(log["v"])
    close_up_to_a_constant(log_u, np.log(a) + f / EPSILON)
    close_up_to_a_constant(log_v, np.log(b) + g / EPSILON)
    start = EPSILON * (log_u - np.log(a)), EPSILON * (log_v - np.log(b))
    again = sinkhorn(a, b, COST, epsilon=EPSILON, tolerance=1e-9, warm_start=start)
    assert again.converged and again.iterations <= 2


def test_values_are_those_of_pots_results_and_of_entropy_but_for_a_constant():
    a, b = masses()
    found = sinkhorn(a, b, COST, epsilon=EPSILON, **EXACT)
    for kind, constant in (("KL", 0.0), ("entropy", EPSILON * (entropy(a) + entropy(b)))):
        theirs = ot.solve(COST, a, b, reg=EPSILON, reg_type=kind, tol=1e-14, max_iter=100_000)
        close(found.value + constant, theirs.value)
        close(found.value_linear, theirs.value_linear)
        close_up_to_a_constant(theirs.potentials[0], np.log(a) + found.potentials[0] / EPSILON)


def test_the_constant_holds_for_any_total():
    a, b = masses(3.0, 3.0)
    found = sinkhorn(a, b, COST, epsilon=EPSILON, **EXACT)
    plan = ot.sinkhorn(a, b, COST, EPSILON, method="sinkhorn_log", numItermax=100_000, stopThr=1e-14)
    close(found.plan, plan)
    theirs = np.sum(COST * plan) + EPSILON * entropy(plan)
    close(found.value, theirs - EPSILON * (entropy(a) + entropy(b)) + EPSILON * (9 - 3))


def test_batches_and_histograms_of_pot():
    a, b = masses()
    both = np.stack([b, b[::-1]])
    found = sinkhorn(a, both, COST, epsilon=EPSILON, **EXACT)
    close(found.value_linear, ot.sinkhorn2(a, both.T, COST, EPSILON, numItermax=100_000, stopThr=1e-14))
    theirs = ot.batch.solve_batch(
        np.stack([COST, COST]), EPSILON, np.stack([a, a]), both, tol=1e-14, max_iter=100_000, reg_type="kl"
    )
    close(found.plan, theirs.plan)
    close(found.value, theirs.value)


@pytest.mark.parametrize("taus", FINITE)
@pytest.mark.parametrize("solver", ["mm_unbalanced", "lbfgsb_unbalanced"])
def test_unbalanced_values_are_those_of_pots_solvers_that_report_what_they_minimise(solver, taus):
    a, b = masses(1.3, 1.0)
    found = sinkhorn(a, b, COST, epsilon=EPSILON, unbalanced=taus, **EXACT)
    div = {"div": "kl"} if solver == "mm_unbalanced" else {"reg_div": "kl", "regm_div": "kl"}
    settings = {"stopThr": 1e-15, "numItermax": 100_000, "log": True}
    _, log = getattr(ot.unbalanced, solver)(a, b, COST, reg=EPSILON, reg_m=taus, **div, **settings)
    close(found.value, log["total_cost"])
    close(found.value_linear, log["cost"], atol=1e-6)  # L-BFGS-B ends where the value, flat there, has no digits left


@pytest.mark.parametrize("taus", FINITE)
def test_unbalanced_values_of_pots_entropy(taus):
    a, b = masses(1.3, 1.0)
    cost = COST + EPSILON * np.log(np.outer(a, b))
    found = sinkhorn(a, b, cost, epsilon=EPSILON, unbalanced=taus, **EXACT)
    theirs = ot.solve(COST, a, b, reg=EPSILON, reg_type="entropy", unbalanced=taus, tol=1e-15, max_iter=100_000)
    close(found.value - EPSILON * a.sum() * b.sum(), theirs.value, atol=1e-8)
    close(np.sum(found.plan * COST), theirs.value_linear, atol=1e-6)


@pytest.mark.parametrize("taus", TAUS)
def test_unbalanced_plans_of_pots_sinkhorn_and_what_its_total_leaves_out(taus):
    a, b = masses(1.3, 1.0)
    found = sinkhorn(a, b, COST, epsilon=EPSILON, unbalanced=taus, **EXACT)
    settings = {"stopThr": 1e-15, "numItermax": 100_000, "log": True}
    plan, log = ot.unbalanced.sinkhorn_unbalanced(a, b, COST, EPSILON, taus, **settings)
    close(found.plan, plan)
    close(found.value_linear, log["cost"])
    close(log["logu"], found.potentials[0] / EPSILON)
    total = plan.sum()
    left_out = EPSILON * (a.sum() * b.sum() - total)
    left_out += sum(
        tau * (mass - total) for tau, mass in zip(taus, (a.sum(), b.sum()), strict=True) if np.isfinite(tau)
    )
    close(found.value, log["total_cost"] + left_out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = ot.unbalanced.sinkhorn_unbalanced(a, b, COST, EPSILON, taus, reg_type="entropy", **settings)[0]
    close(sinkhorn(a, b, COST + EPSILON * np.log(np.outer(a, b)), epsilon=EPSILON, unbalanced=taus, **EXACT).plan, plan)


def test_the_shift_is_that_of_pots_translation_invariant_solver():
    a, b = masses(1.3, 1.0)
    found = sinkhorn(a, b, COST, epsilon=EPSILON, unbalanced=50.0, tolerance=1e-12, max_iterations=2000)
    plan = ot.unbalanced.sinkhorn_unbalanced_translation_invariant(
        a, b, COST, EPSILON, 50.0, stopThr=1e-15, numItermax=100_000
    )
    assert found.converged
    close(found.plan, plan, atol=1e-8)


def test_lines_of_pot_have_their_samples_first():
    random = np.random.default_rng(3)
    x, y = random.random((7, 3)), random.random((5, 3))
    a, b = random.dirichlet(np.ones(7), 3).T, random.dirichlet(np.ones(5), 3).T
    for p in (1, 2):
        close(
            wasserstein_1d(*(np.ascontiguousarray(array.T) for array in (x, y, a, b)), p=p),
            ot.wasserstein_1d(x, y, a, b, p=p),
        )


def test_the_divergence_of_pot_is_one_of_values():
    a, b = masses()
    settings = {"numIterMax": 100_000, "stopThr": 1e-14}
    theirs = ot.bregman.empirical_sinkhorn_divergence(X, Y, EPSILON, a=a, b=b, **settings)
    ab, aa, bb = sinkhorn_divergence(a, b, X, Y, epsilon=EPSILON, **EXACT).transports
    close(ab.value_linear - (aa.value_linear + bb.value_linear) / 2, theirs)


@pytest.mark.parametrize("reach", [None, 0.7])
@pytest.mark.parametrize(("p", "metric"), [(1, "euclidean"), (2, "sqeuclidean")])
def test_losses_of_geomloss(p, metric, reach):
    geomloss, torch = pytest.importorskip("geomloss"), pytest.importorskip("torch")
    blur = 0.3
    (a, b), epsilon = masses(1.0 if reach is None else 1.3), p * blur**p
    tau = None if reach is None else p * reach**p
    settings = {"metric": metric, "epsilon": epsilon, "unbalanced": None if reach is None else (tau, tau), **EXACT}
    x = torch.from_numpy(X.copy()).requires_grad_()
    clouds = torch.from_numpy(a), x, torch.from_numpy(b), torch.from_numpy(Y)

    def loss(**options):
        # They make one iteration at each epsilon: the slower it falls, the nearer they come.
        return geomloss.SamplesLoss(
            p=p, blur=blur, reach=reach, diameter=2.0, scaling=0.999, backend="tensorized", **options
        )(*clouds)

    found = sinkhorn(a, b, x=X, y=Y, **settings)
    missing = 0.0 if reach is None else epsilon * (a.sum() * b.sum() - (a.sum() + b.sum()) / 2)
    close(found.value, p * loss(debias=False).item() + missing, atol=1e-5)
    close_up_to_a_constant(p * loss(debias=False, potentials=True)[0].detach().numpy(), found.potentials[0], atol=1e-3)

    divergence, theirs = sinkhorn_divergence(a, b, X, Y, **settings), loss(debias=True)
    # With p = 1 they take distances below 1e-4 to be 1e-4.
    close(divergence.value, p * theirs.item(), atol=1e-3)
    (gradient,) = torch.autograd.grad(theirs, x)
    scale = 1.0 if reach is None else (tau + epsilon / 2) / (tau + epsilon)
    close(divergence.gradient[0] * scale, p * gradient.numpy(), atol=1e-3)


def test_losses_of_geomloss_count_entropy_from_masses_of_total_1():
    geomloss, torch = pytest.importorskip("geomloss"), pytest.importorskip("torch")
    (a, b), epsilon = masses(1.3, 1.3), 0.3
    clouds = (torch.from_numpy(array) for array in (a, X, b, Y))
    theirs = geomloss.SamplesLoss(p=1, blur=epsilon, diameter=2.0, scaling=0.999, backend="tensorized", debias=False)(
        *clouds
    )
    found = sinkhorn(a, b, x=X, y=Y, metric="euclidean", epsilon=epsilon, **EXACT)
    close(found.value, theirs.item() + epsilon * (1.3**2 - 1.3), atol=1e-5)
