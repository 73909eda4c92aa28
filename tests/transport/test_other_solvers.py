"""The same transports by POT and GeomLoss, where these converge: `pip install POT geomloss torch`; `pytest -m peers`."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.transport import pairwise_distance, sinkhorn, sinkhorn_divergence

pytestmark = pytest.mark.peers

EXACT = {"tolerance": 1e-12, "max_iterations": 20_000}
POT = {"stopThr": 1e-13, "numItermax": 20_000}


@pytest.fixture(scope="module")
def ot():
    return pytest.importorskip("ot")


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("geomloss")
    return pytest.importorskip("torch")


def problem(seed, n=30, m=20):
    random = np.random.default_rng(seed)
    x, y = random.random((n, 2)), random.random((m, 2)) + 0.2
    return random.dirichlet(np.ones(n)), random.dirichlet(np.ones(m)), x, y


# Both end within 1e-12 of the marginals.  How far that is from the one plan depends on how fast the iteration contracts: here less
# than some thousand times the last step.
NEAR = {"rtol": 0, "atol": 1e-8}


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 50.0])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock"])
def test_pot_balanced(ot, epsilon, metric):
    a, b, x, y = problem(0)
    cost = ot.dist(x, y, metric=metric)
    found = sinkhorn(a, b, x=x, y=y, metric={"cityblock": "l1"}.get(metric, metric), epsilon=epsilon, **EXACT)
    plan, log = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", log=True, **POT)
    np.testing.assert_allclose(found.plan, plan, **NEAR)
    np.testing.assert_allclose(sinkhorn(a, b, cost, epsilon=epsilon, **EXACT).plan, plan, **NEAR)
    # Its u and v have the masses in them and no gauge.
    f, g = (epsilon * (log[name] - np.log(masses)) for name, masses in (("log_u", a), ("log_v", b)))
    np.testing.assert_allclose(found.potentials[0][:, None] + found.potentials[1], f[:, None] + g, rtol=0, atol=1e-7)
    value = ot.sinkhorn2(a, b, cost, epsilon, method="sinkhorn_log", **POT)
    np.testing.assert_allclose(found.value_linear, value, **NEAR)  # <cost, plan>, without the entropy
    np.testing.assert_allclose(found.value, ot.solve(cost, a, b, reg=epsilon).value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.05, 1.0])
@pytest.mark.parametrize("taus", [(1.0, 1.0), (1.0, 0.5), (0.1, 3.0), (np.inf, 0.5), (0.5, np.inf)])
def test_pot_unbalanced(ot, taus, epsilon):
    a, b, x, y = problem(1)
    cost = pairwise_distance(x, y)
    found = sinkhorn(2 * a, b, cost, epsilon=epsilon, unbalanced=taus, **EXACT)
    plan = ot.unbalanced.sinkhorn_unbalanced(2 * a, b, cost, epsilon, taus, reg_type="kl", **POT)
    np.testing.assert_allclose(found.plan, plan, **NEAR)


def test_pot_divergence(ot):
    """POT's is of the costs <cost, plan> alone, "sharp"; ours of the entropic values, which is what is never negative."""
    a, b, x, y = problem(2)
    found = sinkhorn_divergence(a, b, x, y, epsilon=0.2, **EXACT)
    ab, aa, bb = (transport.value_linear for transport in found.transports)
    sharp = ot.bregman.empirical_sinkhorn_divergence(x, y, 0.2, a=a, b=b, stopThr=1e-13, numIterMax=20_000)
    np.testing.assert_allclose(ab - aa / 2 - bb / 2, sharp, **NEAR)
    assert found.value < sharp


@pytest.mark.parametrize("blur", [0.3, 1.0])
@pytest.mark.parametrize("debias", [True, False])
def test_geomloss_balanced(torch, blur, debias):
    """Its cost is half of sqeuclidean: all is ours at twice its epsilon = blur^2, halved.  It ends by a schedule, not by an error."""
    from geomloss import SamplesLoss

    a, b, x, y = problem(3)
    points = torch.tensor(x, requires_grad=True)
    loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=0.999, debias=debias, backend="tensorized")
    value = loss(torch.tensor(a), points, torch.tensor(b), torch.tensor(y))
    (gradient,) = torch.autograd.grad(value, points)
    if debias:
        found = sinkhorn_divergence(a, b, x, y, epsilon=2 * blur**2, **EXACT)
        ours = found.value
    else:
        found = sinkhorn(a, b, x=x, y=y, epsilon=2 * blur**2, **EXACT)
        ours = found.value
    np.testing.assert_allclose(ours / 2, value.item(), rtol=1e-4)
    largest = np.abs(gradient.numpy()).max()
    np.testing.assert_allclose(found.gradient[0] / 2, gradient.numpy(), rtol=0, atol=2e-3 * largest)


def test_geomloss_unbalanced(torch):
    """Without the debiasing terms its value leaves out epsilon (ab - (a + b) / 2) of the totals, which cancels with them."""
    from geomloss import SamplesLoss

    a, b, x, y = problem(4)
    a, reach, epsilon = 2 * a, 0.7, 0.05
    arrays = [torch.tensor(array) for array in (a, x, b, y)]
    settings = {"epsilon": 2 * epsilon, "unbalanced": (2 * reach**2, 2 * reach**2), **EXACT}
    for debias in (True, False):
        loss = SamplesLoss(
            "sinkhorn", p=2, blur=epsilon**0.5, reach=reach, scaling=0.999, debias=debias, backend="tensorized"
        )
        if debias:
            ours = sinkhorn_divergence(a, b, x, y, **settings).value / 2
        else:
            ours = sinkhorn(a, b, x=x, y=y, **settings).value / 2 - epsilon * (2 * 1 - (2 + 1) / 2)
        np.testing.assert_allclose(ours, loss(*arrays).item(), rtol=1e-3)
