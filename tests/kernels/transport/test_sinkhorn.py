"""sinkhorn against its reference, on every level; what it promises of marginals, bits, batches, gradients; extremes; refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import set_isa
from fastdistill.kernels.boundary import aligned_bytes
from fastdistill.kernels.transport import transport_problems
from fastdistill.reference.transport.sinkhorn import sinkhorn as reference_sinkhorn
from fastdistill.testing import strategies
from fastdistill.testing.cases.transport.sinkhorn import METRICS, REALS, TAUS, any_epsilon, any_problem, check
from fastdistill.testing.strategies import drawn
from fastdistill.transport import sinkhorn

EXACT = {"tolerance": 1e-13, "max_iterations": 50000}


def problems(**fixed):
    return drawn(any_problem, **fixed)


def epsilons(problem, exponents):
    return drawn(any_epsilon, problem, exponents)


def marginals(transport, axis):
    return np.sum(transport.plan, axis=axis, dtype=np.float64)


def error_of(problem, transport):
    """The larger L1 error of the plan's marginals, in float64, against what is optimal for its potentials."""
    tau_a, tau_b = problem.unbalanced or (np.inf, np.inf)
    a, b = problem.a.astype(np.float64), problem.b.astype(np.float64)
    if problem.unbalanced is None:
        b *= a.sum() / b.sum()
    f, g = transport.potentials
    errors = []
    for masses, potentials, tau, axis in ((a, f, tau_a, -1), (b, g, tau_b, -2)):
        wanted = masses.copy()
        if np.isfinite(tau):
            wanted[masses > 0] *= np.exp(-potentials[masses > 0] / tau)
        errors.append(np.abs(marginals(transport, axis) - wanted).sum())
    return max(errors)


def bits(transport):
    """Everything that a transport holds, as bytes."""
    gradient = transport.gradient if isinstance(transport.gradient, tuple) else (transport.gradient,)
    arrays = [
        transport.value_linear, transport.value, *transport.potentials, transport.plan, *gradient, transport.iterations,
        transport.marginal_error, transport.converged, transport.errors,
    ]  # fmt: skip
    return [np.asarray(array).tobytes() for array in arrays] + [str(transport.status)]


@settings(max_examples=40)
@given(case=strategies.sinkhorn(grounds=["cost"]))
def test_matches_reference(isa, case):
    """As many iterations, wherever they lead."""
    check(case)


@given(case=strategies.sinkhorn(grounds=["points"]))
def test_points_are_their_distances(isa, case):
    check(case)


@settings(max_examples=25)
@given(problem=problems(), scaling=st.sampled_from([None, 0.5]))
def test_same_bits_on_every_level_and_thread_count(isa, problem, scaling):
    epsilon = 0.1 * float(problem.range)
    arguments = {
        "epsilon": epsilon, "unbalanced": problem.unbalanced, "max_iterations": 30, "epsilon_scaling": scaling, "history": True,
    }  # fmt: skip
    got = [bits(sinkhorn(problem.a, problem.b, problem.cost, **arguments, threads=threads)) for threads in (1, 2, 3)]
    set_isa("scalar")
    want = bits(sinkhorn(problem.a, problem.b, problem.cost, **arguments, threads=1))
    set_isa(isa)
    assert got == [want] * 3


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("metric", METRICS)
def test_points_same_bits_on_every_level_and_thread_count(isa, metric, dtype):
    random = np.random.default_rng(1)
    x, y = random.standard_normal((301, 3)).astype(dtype), random.standard_normal((270, 3)).astype(dtype)

    def solve(threads):
        return bits(
            sinkhorn(None, None, x=x, y=y, metric=metric, epsilon=0.05, max_iterations=4, history=True, threads=threads)
        )

    got = [solve(threads) for threads in (1, 2, 3)]
    set_isa("scalar")
    want = solve(1)
    set_isa(isa)
    assert got == [want] * 3


@pytest.mark.parametrize("dtype", REALS)
def test_large_costs_same_bits_on_every_level_and_thread_count(isa, dtype):
    """Enough rows for several tasks; and epsilon so small that scalings are absorbed."""
    cost = np.random.default_rng(2).random((520, 411)).astype(dtype)

    def solve(threads):
        return bits(sinkhorn(None, None, cost, epsilon=0.003, max_iterations=8, history=True, threads=threads))

    got = [solve(threads) for threads in (1, 2, 3)]
    set_isa("scalar")
    want = solve(1)
    set_isa(isa)
    assert got == [want] * 3


@settings(max_examples=20)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=5), dtype=st.sampled_from(REALS),
    unbalanced=st.sampled_from(TAUS[:2]), from_points=st.booleans(), threads=st.sampled_from([1, 3]),
    scaling=st.sampled_from([None, 0.5]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_a_ragged_batch_is_its_items(isa, sizes, dtype, unbalanced, from_points, threads, scaling, seed):
    """To the bit, also with garbage beyond the lengths; there, nothing is moved."""
    random = np.random.default_rng(seed)
    rows, columns = (np.array(counts, np.int32) for counts in zip(*sizes, strict=True))
    batch, n, m = len(sizes), rows.max(), columns.max()
    a, b = random.random((batch, n)).astype(dtype), random.random((batch, m)).astype(dtype)
    for item in range(batch):
        a[item, : rows[item]] /= a[item, : rows[item]].sum()
        b[item, : columns[item]] /= b[item, : columns[item]].sum()
    x, y = random.standard_normal((batch, n, 2)).astype(dtype), random.standard_normal((batch, m, 2)).astype(dtype)
    cost = random.random((batch, n, m)).astype(dtype)
    for item in range(batch):
        a[item, rows[item] :], b[item, columns[item] :] = np.nan, np.nan
        x[item, rows[item] :], y[item, columns[item] :] = np.nan, np.nan
        cost[item, rows[item] :], cost[item, :, columns[item] :] = np.nan, np.nan
    settings = {"epsilon": 0.2, "unbalanced": unbalanced, "max_iterations": 40, "epsilon_scaling": scaling}

    def arguments(item):
        if from_points:
            return {"x": x[item][: rows[item]].copy(), "y": y[item][: columns[item]].copy()}
        return {"cost": cost[item][: rows[item], : columns[item]].copy()}

    everything = {"x": x, "y": y} if from_points else {"cost": cost}
    got = sinkhorn(a, b, **everything, lengths=(rows, columns), threads=threads, **settings)
    assert got.value_linear.shape == got.converged.shape == got.status.shape == got.iterations.shape == (batch,)
    for item in range(batch):
        i, j = rows[item], columns[item]
        alone = sinkhorn(a[item, :i].copy(), b[item, :j].copy(), **arguments(item), threads=1, **settings)
        for name in ("value", "value_linear", "iterations", "marginal_error", "converged", "status"):
            assert getattr(got, name)[item] == getattr(alone, name), name
        np.testing.assert_array_equal(got.potentials[0][item, :i], alone.potentials[0])
        np.testing.assert_array_equal(got.potentials[1][item, :j], alone.potentials[1])
        np.testing.assert_array_equal(got.plan[item, :i, :j], alone.plan)
        assert np.count_nonzero(got.plan[item]) == np.count_nonzero(got.plan[item, :i, :j])
        if from_points:
            np.testing.assert_array_equal(got.gradient[0][item, :i], alone.gradient[0])
            np.testing.assert_array_equal(got.gradient[1][item, :j], alone.gradient[1])
            assert not got.gradient[0][item, i:].any() and not got.gradient[1][item, j:].any()
        else:
            np.testing.assert_array_equal(got.gradient[item, :i, :j], alone.gradient)


@pytest.mark.parametrize(
    ("masses", "costs", "leading"),
    [((), (3,), (3,)), ((2, 3), (3,), (2, 3)), ((3,), (2, 3), (2, 3)), ((4,), (), (4,)), ((2, 1), (1, 3), (2, 3)), ((0,), (), (0,))],
)  # fmt: skip
def test_masses_and_costs_broadcast(isa, masses, costs, leading):
    random = np.random.default_rng(4)
    a, cost = random.dirichlet(np.ones(4), masses), random.random((*costs, 4, 5))
    got = sinkhorn(a, None, cost, epsilon=0.3)
    assert got.value_linear.shape == leading and got.plan.shape == (*leading, 4, 5)
    assert got.potentials[0].shape == (*leading, 4) and got.potentials[1].shape == (*leading, 5)
    each = np.broadcast_to(a, (*leading, 4)), np.broadcast_to(cost, (*leading, 4, 5))
    for item in np.ndindex(*leading):
        alone = sinkhorn(each[0][item].copy(), None, each[1][item].copy(), epsilon=0.3)
        assert got.value_linear[item] == alone.value_linear and got.iterations[item] == alone.iterations
        np.testing.assert_array_equal(got.plan[item], alone.plan)


@pytest.mark.parametrize("metric", METRICS)
def test_a_batch_of_nothing(isa, metric):
    x, y = np.empty((0, 5, 4)), np.empty((0, 3, 4))
    got = sinkhorn(None, None, x=x, y=y, metric=metric, epsilon=0.1, history=True)
    assert [part.shape for part in got.gradient] == [x.shape, y.shape] and got.plan.shape == (0, 5, 3)
    assert got.apply(np.empty((0, 3, 2))).shape == (0, 5, 2)
    one = sinkhorn(None, None, np.eye(3), epsilon=0.1)
    assert one.apply(np.empty((3, 0))).shape == one.apply_transpose(np.empty((3, 0))).shape == (3, 0)


def test_history_of_a_batch(isa):
    """As long as the slowest problem's; NaN after the end of each."""
    cost = np.random.default_rng(1).random((3, 5, 4)) * [[[0.1]], [[1]], [[3]]]
    got = sinkhorn(None, None, cost, epsilon=0.1, history=True)
    assert got.converged.all() and len(set(got.iterations)) == 3 and got.errors.shape == (3, got.iterations.max())
    for errors, iterations in zip(got.errors, got.iterations, strict=True):
        assert np.isnan(errors[iterations:]).all() and errors[iterations - 1] <= 1e-6 < errors[: iterations - 1].min()


def test_dtype_says_what_is_computed_in(isa):
    random = np.random.default_rng(3)
    cost, x, y = random.random((6, 5)), random.random((6, 2)), random.random((5, 2))
    a = random.dirichlet(np.ones(6))
    for ground in ({"cost": cost}, {"x": x, "y": y}):
        for dtype in REALS:
            got = sinkhorn(a, None, **ground, epsilon=0.2, dtype=dtype, history=True)
            assert got.plan.dtype == dtype and got.potentials[0].dtype == np.float64
            cast = {name: array.astype(dtype) for name, array in ground.items()}
            assert bits(got) == bits(sinkhorn(a, None, **cast, epsilon=0.2, history=True))


def test_one_problem_gives_scalars(isa):
    got = sinkhorn(None, None, np.eye(3), epsilon=1.0)
    assert (
        isinstance(got.value_linear, float) and isinstance(got.value, float) and isinstance(got.marginal_error, float)
    )
    assert got.status == "converged" and got.converged and got.iterations >= 1 and got.errors is None
    assert got.epsilon == 1.0


@settings(max_examples=60)
@given(
    problem=problems(sizes=[1, 2, 5, 16, 17]), scaling=st.sampled_from([None, 0.3]), data=st.data()
)  # fmt: skip
def test_converged_means_that_the_marginals_are_met(isa, problem, scaling, data):
    """And also elsewhere the error told is the error of the plan."""
    epsilon = data.draw(epsilons(problem, range(-3, 4)))
    tolerance = data.draw(st.sampled_from([1e-3, 1e-6, 1e-9]))
    got = sinkhorn(
        problem.a, problem.b, problem.cost, epsilon=epsilon, unbalanced=problem.unbalanced, max_iterations=300, tolerance=tolerance,
        epsilon_scaling=scaling, history=True,
    )  # fmt: skip
    assert got.converged == (got.status == "converged") and got.iterations <= 300 == len(range(300))
    assert len(got.errors) == got.iterations
    if got.converged:
        assert got.marginal_error <= tolerance
    # One evaluation of the plan, in its own dtype: its exponents have 4 roundings of costs and potentials.
    relative = problem.relative(problem.potential_slack(got.potentials, epsilon, 1), epsilon)
    moved = float(np.sum(got.plan, dtype=np.float64)) + float(np.sum(problem.b, dtype=np.float64))
    near = {"rtol": 0, "atol": relative * moved + 1e-37 * got.plan.size}
    np.testing.assert_allclose(error_of(problem, got), got.marginal_error, **near)
    np.testing.assert_allclose(got.errors[-1], got.marginal_error, **near)


@settings(max_examples=40)
@given(problem=problems(sizes=[1, 2, 5, 16, 17], reals=[np.float64], taus=[None]), data=st.data())
def test_errors_never_rise(isa, problem, data):
    """Scaling columns to their masses moves the rows by no more than the columns were off: the L1 error of balanced transport."""
    epsilon = data.draw(epsilons(problem, range(-2, 3)))
    errors = sinkhorn(problem.a, problem.b, problem.cost, epsilon=epsilon, max_iterations=50, history=True).errors
    total = float(problem.a.sum())
    assert (
        np.diff(errors) <= 50 * 16 * sum(problem.cost.shape) * problem.unit * total * max(1, problem.range / epsilon)
    ).all()


@settings(max_examples=60)
@given(
    problem=problems(sizes=[1, 2, 3, 17], forbidden=(0, 0, 0.4)), exponent=st.integers(-6, 6),
    denormal=st.booleans(), data=st.data(),
)  # fmt: skip
def test_extremes_give_no_nan(isa, problem, exponent, denormal, data):
    epsilon = data.draw(epsilons(problem, [exponent]))
    if denormal:
        for masses in (problem.a, problem.b):
            masses[np.argmin(masses)] = np.finfo(problem.cost.dtype).smallest_subnormal
        if problem.a.max() < 1e-30 or problem.b.max() < 1e-30:
            return
        problem.b *= problem.a.sum(dtype=np.float64) / problem.b.sum(dtype=np.float64)
    got = sinkhorn(
        problem.a,
        problem.b,
        problem.cost,
        epsilon=epsilon,
        unbalanced=problem.unbalanced,
        max_iterations=40,
        history=True,
    )
    for array in (got.value_linear, got.value, got.marginal_error, got.errors, got.plan, *got.potentials):
        assert not np.isnan(array).any()
    assert got.status in ("converged", "max_iterations", "infeasible")
    assert (got.plan >= 0).all() and np.isfinite(got.plan).all() and not got.plan[~np.isfinite(problem.cost)].any()
    assert not got.plan[problem.a == 0].any() and not got.plan[:, problem.b == 0].any()
    f, g = got.potentials
    if got.status != "infeasible":
        assert np.isfinite(got.value_linear) and np.isfinite(got.value) and np.isfinite(got.marginal_error)
    if problem.unbalanced is None and got.status != "infeasible":
        a, b = (
            problem.a / problem.a.sum() > 0,
            problem.b / problem.b.sum() > 0,
        )  # of a total of 1, some have no mass any more
        reach = np.isfinite(problem.cost) & a[:, None] & b
        assert np.isfinite(f[reach.any(axis=1)]).all() and np.isfinite(g[reach.any(axis=0)]).all()


@given(problem=problems(sizes=[2, 5, 17], reals=[np.float64], taus=[None], forbidden=(0,)))
def test_a_huge_epsilon_gives_the_product(isa, problem):
    """Potentials range over no more than the costs do, so the exponents over no more than twice that."""
    epsilon = 1e6 * problem.range
    got = sinkhorn(problem.a, problem.b, problem.cost, epsilon=epsilon)
    total = problem.a.sum()
    assert got.converged
    # a x b has the mass total^2, and the exponents make up for it.
    np.testing.assert_allclose(got.plan, np.outer(problem.a, problem.b) / total, rtol=1e-5, atol=1e-300)
    np.testing.assert_allclose(got.value_linear, problem.a @ problem.cost @ problem.b / total, rtol=1e-5, atol=1e-12)


def test_a_point_of_no_mass_takes_no_part(isa):
    """Potentials and plan of the others are as without it; its own potential is the softmin of theirs."""
    random = np.random.default_rng(0)
    cost, a, b = random.random((5, 4)), random.dirichlet(np.ones(4)), random.dirichlet(np.ones(3))
    with_nothing = sinkhorn(np.insert(a, 2, 0), np.insert(b, 1, 0), cost, epsilon=0.2, **EXACT)
    without = sinkhorn(a, b, np.delete(np.delete(cost, 2, 0), 1, 1), epsilon=0.2, **EXACT)
    f, g = with_nothing.potentials
    np.testing.assert_allclose(np.delete(f, 2), without.potentials[0], atol=1e-12)
    np.testing.assert_allclose(np.delete(g, 1), without.potentials[1], atol=1e-12)
    np.testing.assert_allclose(
        f[2], -0.2 * np.log(np.sum(b * np.exp((np.delete(g, 1) - np.delete(cost[2], 1)) / 0.2))), atol=1e-12
    )
    np.testing.assert_allclose(
        g[1], -0.2 * np.log(np.sum(a * np.exp((np.delete(f, 2) - np.delete(cost[:, 1], 2)) / 0.2))), atol=1e-12
    )
    cost[2] = np.inf  # forbidden from everywhere as well
    cut = sinkhorn(np.insert(a, 2, 0), np.insert(b, 1, 0), cost, epsilon=0.2, **EXACT)
    assert cut.status == "converged" and cut.potentials[0][2] == np.inf
    np.testing.assert_allclose(cut.plan, with_nothing.plan, atol=1e-12)


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_says_what_is_infeasible(isa, dtype, scaling):
    """In a batch, beside what is not."""
    cost = np.random.default_rng(3).random((4, 4, 5)).astype(dtype)
    cost[1, 2] = np.inf  # a row goes nowhere
    cost[2, :, 3] = np.inf  # a column is reached from nowhere
    cost[3, :3, :3] = np.inf  # three rows of 3/4 reach two columns of 2/5
    got = sinkhorn(None, None, cost, epsilon=0.1, epsilon_scaling=scaling)
    assert got.status.tolist() == ["converged", "infeasible", "infeasible", "infeasible"]
    assert got.converged.tolist() == [True, False, False, False]
    assert (got.value_linear == np.inf).tolist() == (got.value == np.inf).tolist() == [False, True, True, True]
    for array in (got.value_linear, got.value, got.marginal_error, got.plan, *got.potentials):
        assert not np.isnan(array).any()
    alone = sinkhorn(None, None, cost[0].copy(), epsilon=0.1, epsilon_scaling=scaling)
    assert got.value_linear[0] == alone.value_linear
    # With mass on the columns that they reach, or where the rows may lose what they cannot move, it is feasible.
    b = np.array([0.05, 0.05, 0.05, 0.4, 0.45], dtype)
    assert sinkhorn(None, b, cost[3], epsilon=0.1, max_iterations=20000).status == "converged"
    loose = sinkhorn(None, None, cost, epsilon=0.1, unbalanced=(1.0, 1.0))
    assert loose.status.tolist() == ["converged"] * 4
    # One side held: what it holds must have somewhere to go, and needs no room there.
    held = sinkhorn(None, None, cost, epsilon=0.1, unbalanced=(np.inf, 1.0))
    assert held.status.tolist() == ["converged", "infeasible", "converged", "converged"]


@pytest.mark.parametrize("side", [0, 1])
def test_mass_within_the_tolerance_may_go_nowhere(isa, side):
    """It counts as error, and its potential is +inf; all else is as without it."""
    random = np.random.default_rng(6)
    cost = random.random((4, 4))
    cost[1] = np.inf
    a, b = np.array([0.3, 1e-7, 0.3, 0.4]), random.dirichlet(np.ones(4))
    given = (a, b, cost) if side == 0 else (b, a, cost.T.copy())
    a[3] -= 1e-7
    got, want = (solve(*given, epsilon=0.2, history=True) for solve in (sinkhorn, reference_sinkhorn))
    assert got.status == want.status == "converged" and 1e-7 <= got.marginal_error <= 1e-6
    assert got.iterations == want.iterations and got.potentials[side][1] == np.inf
    for ours, meant in zip(got.potentials, want.potentials, strict=True):
        np.testing.assert_allclose(ours, meant, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        [got.value_linear, got.value, got.marginal_error],
        [want.value_linear, want.value, want.marginal_error],
        atol=1e-12,
    )
    stuck, meant = (solve(*given, epsilon=0.2, tolerance=1e-8) for solve in (sinkhorn, reference_sinkhorn))
    assert stuck.status == meant.status == "infeasible" and stuck.value_linear == meant.value_linear == np.inf
    assert stuck.iterations == meant.iterations == side  # columns are looked at after rows


def test_one_price_for_both_sides(isa):
    cost = np.random.default_rng(0).random((4, 3))
    number, pair = (sinkhorn(None, None, cost, epsilon=0.1, unbalanced=tau, history=True) for tau in (0.4, (0.4, 0.4)))
    assert bits(number) == bits(pair) and number.plan.sum() < 1


def test_nothing_allowed_and_nothing_held_destroys_everything(isa):
    a, b = np.array([0.5, 1.0]), np.array([0.25, 0.25, 0.5])
    got = sinkhorn(a, b, np.full((2, 3), np.inf), epsilon=0.1, unbalanced=(2.0, 3.0))
    assert not got.plan.any() and got.value_linear == 0 and got.status == "converged"
    np.testing.assert_allclose(got.value, 2 * 1.5 + 3 * 1.0 + 0.1 * 1.5, rtol=1e-12)


@pytest.mark.parametrize("dtype", REALS)
def test_only_a_permutation_is_allowed(isa, dtype):
    random = np.random.default_rng(1)
    order = random.permutation(20)
    cost = np.full((20, 20), np.inf, dtype)
    cost[range(20), order] = random.random(20)
    got = sinkhorn(None, None, cost, epsilon=0.01)
    assert got.status == "converged"
    want = np.zeros((20, 20))
    want[range(20), order] = 1 / 20
    np.testing.assert_allclose(got.plan, want, rtol=64 * np.finfo(dtype).eps * 100)


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("unbalanced", [None, (1.0, 1.0), (np.inf, 1.0), (1.0, np.inf)])
@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_light_masses_that_only_meet_light_masses(isa, dtype, unbalanced, iterations):
    """Their kernel is beyond any scale; they do not count in an error, and have potentials all the same."""
    for light in (1e-30,) if dtype == np.float32 else (1e-30, 1e-160, 1e-250, 1e-310):
        masses = np.array([1, light], dtype)
        cost = np.array([[0.1, np.inf], [np.inf, 0.3]], dtype)
        settings = {"epsilon": 0.01, "unbalanced": unbalanced, "max_iterations": iterations, "tolerance": 0.0}
        got, want = (solve(masses, masses, cost, **settings) for solve in (sinkhorn, reference_sinkhorn))
        unit = np.finfo(dtype).eps
        for ours, meant in zip(got.potentials, want.potentials, strict=True):
            np.testing.assert_allclose(ours, meant, rtol=2.0**-46, atol=0.01 * 64 * unit)
        # Of an exponent near 700, what is left of these.
        np.testing.assert_allclose(
            got.plan, want.plan, rtol=128 * unit + 700 * 2.0**-46, atol=float(np.finfo(dtype).tiny)
        )


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("unbalanced", [None, (1e-3, 1e-3), (1e-3, 1.0), (1.0, 1e-3), (np.inf, 1e-3)])
@pytest.mark.parametrize("iterations", [2, 3, 10])
def test_scales_beyond_the_range_of_the_kernel(isa, dtype, sign, unbalanced, iterations):
    """Costs of a thousand epsilon, and marginals that follow: e^500 from what is given in one iteration."""
    cost = (sign * (0.3 + 0.4 * np.random.default_rng(0).random((33, 40)))).astype(dtype)
    settings = {"epsilon": 1e-3, "unbalanced": unbalanced, "max_iterations": iterations, "tolerance": 0.0}
    got, want = (solve(None, None, cost, **settings) for solve in (sinkhorn, reference_sinkhorn))
    # Exponents are of doubles below 1 over epsilon; their exponentials and sums of the dtype (see potential_slack).
    near = 2 * (2 * iterations + 2) * (8 * 2.0**-53 + 1e-3 * (sum(cost.shape) + 16) * np.finfo(dtype).eps / 2)
    for ours, meant in zip(got.potentials, want.potentials, strict=True):
        np.testing.assert_allclose(ours, meant, rtol=0, atol=near)


def test_plans_down_to_the_smallest_numbers(isa):
    """e^-650 is a normal number: it is in the plan."""
    cost = np.array([[0.0, 650], [650, 0]])
    got = sinkhorn(None, None, cost, epsilon=1.0)
    np.testing.assert_allclose(got.plan, np.exp(-cost) / 2, rtol=1e-12)


@pytest.mark.parametrize("tau", [1e3, 1e6, 1e10])
def test_dual_of_a_dear_marginal(isa, tau):
    """tau (1 - e^(-f / tau)) without its cancellation."""
    random = np.random.default_rng(1)
    a, b, cost = random.dirichlet(np.ones(7)), random.dirichlet(np.ones(6)), random.random((7, 6))
    got = sinkhorn(a, b, cost, epsilon=0.5, unbalanced=tau, tolerance=1e-13)
    f, g = got.potentials
    want = -tau * (a @ np.expm1(-f / tau) + b @ np.expm1(-g / tau)) + 0.5 * (1 - got.plan.sum())
    np.testing.assert_allclose(got.value, want, rtol=1e-13)


def test_workspace_is_not_read_before_it_is_written(isa, monkeypatch):
    """The same bits from memory full of NaN."""
    random = np.random.default_rng(6)
    x, y, cost = random.random((2, 33, 3)), random.random((2, 21, 3)), random.random((2, 33, 21))
    lengths = np.array([33, 18]), np.array([5, 21])

    def solve():
        return [
            bits(sinkhorn(None, None, **given, lengths=lengths, epsilon=0.05, unbalanced=tau, max_iterations=30, history=True))
            for given in ({"cost": cost}, {"x": x, "y": y})
            for tau in (None, 0.7)
        ]  # fmt: skip

    want = solve()

    def poisoned(size):
        memory = aligned_bytes(size)
        memory[:] = 255
        return memory

    monkeypatch.setattr(transport_problems, "aligned_bytes", poisoned)
    assert solve() == want


def test_one_problem_at_a_time_or_all(isa, monkeypatch):
    """A batch of more workspace than is given at once is solved in parts, and a call of C in slices: the same bits."""
    cost = np.random.default_rng(6).random((5, 33, 21))
    want = bits(sinkhorn(None, None, cost, epsilon=0.05, history=True, threads=2))
    monkeypatch.setattr(transport_problems, "_TOGETHER", 1)
    for threads in (1, 2):
        assert bits(sinkhorn(None, None, cost, epsilon=0.05, history=True, threads=threads)) == want
    monkeypatch.setattr(transport_problems, "_SLICE", 200_000)
    assert bits(sinkhorn(None, None, cost, epsilon=0.05, history=True, threads=1)) == want


@pytest.mark.parametrize("masses", [None, 64.0])
def test_a_schedule_does_not_see_the_unit_of_mass_or_what_is_beyond(isa, masses):
    cost = np.random.default_rng(2).random((7, 9))
    settings = {"epsilon": 0.05, "epsilon_scaling": 0.5, "max_iterations": 400}
    want = sinkhorn(None, None, cost, tolerance=1e-4, **settings)
    if masses is None:
        wide = np.full((7, 12), 1e200)
        wide[:, :9] = cost
        got = sinkhorn(None, None, wide, lengths=(7, 9), tolerance=1e-4, **settings)
    else:
        got = sinkhorn(np.full(7, masses / 7), np.full(9, masses / 9), cost, tolerance=64e-4, **settings)
    assert got.iterations == want.iterations < 400


def test_a_column_out_of_reach_counts_twice(isa):
    """Mass that cannot arrive is missing there and too much elsewhere: half the tolerance of it is tolerated."""
    cost = np.array([[1.0, np.inf], [0.5, np.inf]])
    for lost, status in ((0.4, "converged"), (0.7, "infeasible")):
        b = np.array([1 - lost * 1e-6, lost * 1e-6])
        assert sinkhorn(None, b, cost, epsilon=0.1, tolerance=1e-6).status == status


def test_known_transports(isa):
    """One point; a Dirac to many: the only plan there is."""
    one = sinkhorn(np.array([3.0]), np.array([3.0]), np.array([[2.0]]), epsilon=0.5)
    np.testing.assert_allclose([one.plan[0, 0], one.value_linear], [3, 6], rtol=1e-14)
    assert one.converged and one.iterations == 1
    # <f, a> + <g, b> + eps (9 - 3) with f + g = C - eps log 3: KL(3 | 9) = 3 log(1/3) - 3 + 9.
    np.testing.assert_allclose(one.value, 6 + 0.5 * (3 * np.log(1 / 3) + 6), rtol=1e-14)
    b, cost = np.array([0.2, 0.3, 0.5]), np.array([[1.0, 2, 3]])
    dirac = sinkhorn(np.ones(1), b, cost, epsilon=1e-3)
    np.testing.assert_allclose(dirac.plan, b[None], rtol=1e-12)
    np.testing.assert_allclose([dirac.value_linear, dirac.value], [2.3, 2.3], rtol=1e-12)  # KL(a x b | a x b) = 0
    np.testing.assert_allclose(dirac.potentials[0] + dirac.potentials[1], cost[0], rtol=1e-12)
    np.testing.assert_allclose(dirac.potentials[0], dirac.potentials[1] @ b, rtol=1e-12)
    # Two points each, symmetric: P = [[p, q], [q, p]], p / q = e^(1 / eps).
    two = sinkhorn(None, None, 1 - np.eye(2), epsilon=0.5)
    p = 0.5 / (1 + np.exp(-2))
    np.testing.assert_allclose(two.plan, [[p, 0.5 - p], [0.5 - p, p]], rtol=1e-13)


@settings(max_examples=40)
@given(
    problem=problems(sizes=[1, 4, 9, 17], reals=[np.float64]),
    seed=st.integers(0, 2**32),
)
def test_symmetries(isa, problem, seed):
    """Permuting points permutes the transport; a constant on all costs is one on the potentials; a scale is a scale."""
    random = np.random.default_rng(seed)
    epsilon = 0.2 * problem.range
    arguments = {"epsilon": epsilon, "unbalanced": problem.unbalanced, "max_iterations": 20}
    base = sinkhorn(problem.a, problem.b, problem.cost, **arguments)
    slack = 2 * problem.potential_slack(base.potentials, epsilon, 20)
    near = {"rtol": 0, "atol": slack}
    plan_near = {"rtol": problem.relative(slack, epsilon), "atol": 1e-300}

    rows, columns = random.permutation(len(problem.a)), random.permutation(len(problem.b))
    moved = sinkhorn(problem.a[rows], problem.b[columns], problem.cost[np.ix_(rows, columns)], **arguments)
    np.testing.assert_allclose(moved.potentials[0], base.potentials[0][rows], **near)
    np.testing.assert_allclose(moved.potentials[1], base.potentials[1][columns], **near)
    np.testing.assert_allclose(moved.plan, base.plan[np.ix_(rows, columns)], **plan_near)

    scaled = sinkhorn(
        problem.a, problem.b, problem.cost * 8, epsilon=epsilon * 8, max_iterations=20,
        unbalanced=problem.unbalanced and tuple(8 * tau for tau in problem.unbalanced),
    )  # fmt: skip
    np.testing.assert_allclose(scaled.potentials[0], base.potentials[0] * 8, rtol=0, atol=8 * slack)
    np.testing.assert_allclose(scaled.plan, base.plan, **plan_near)

    if problem.unbalanced is None:
        shift = 2.0 * problem.range
        up = sinkhorn(problem.a, problem.b, problem.cost + shift, **arguments)
        for ours, before in zip(up.potentials, base.potentials, strict=True):  # the gauge shares it out
            np.testing.assert_allclose(ours, before + shift / 2, rtol=0, atol=4 * slack)
        np.testing.assert_allclose(up.plan, base.plan, rtol=problem.relative(4 * slack, epsilon), atol=1e-300)
        total = problem.a.sum()
        f, g = base.potentials
        if base.status != "infeasible":
            f, g = np.where(problem.a > 0, f, 0), np.where(problem.b > 0, g, 0)
            np.testing.assert_allclose(f @ problem.a, g @ problem.b, rtol=0, atol=total * slack)


@settings(max_examples=25)
@given(problem=problems(sizes=[1, 4, 9], reals=[np.float64], forbidden=(0,)))
def test_the_other_way_round_is_the_transpose(isa, problem):
    """Rows go first: the two meet where they converge.

    A dual value is below the best by less than the marginal error times the range of potentials, which costs and masses bound.
    """
    epsilon = float(problem.range)
    settings = {"epsilon": epsilon, **EXACT}
    unbalanced = problem.unbalanced and tuple(tau * epsilon for tau in problem.unbalanced)
    there = sinkhorn(problem.a, problem.b, problem.cost, unbalanced=unbalanced, **settings)
    back = sinkhorn(problem.b, problem.a, problem.cost.T.copy(), unbalanced=unbalanced and unbalanced[::-1], **settings)
    assert there.marginal_error < 1e-11 and back.marginal_error < 1e-11
    total = problem.a.sum() + problem.b.sum()
    near = (1e-11 + 64 * problem.unit * total) * 20 * epsilon
    np.testing.assert_allclose(there.value, back.value, rtol=0, atol=near)
    # KL between the plans is that gap over epsilon, and the L1 distance the root of twice that times the mass (Pinsker).
    assert np.abs(there.plan - back.plan.T).sum() <= 2 * np.sqrt(2 * near / epsilon * total)


@pytest.mark.parametrize("unbalanced", TAUS)
def test_gradient_of_the_cost_is_the_plan(isa, unbalanced):
    """Central differences: off by h^2 times the third derivative, below the plan over epsilon^2; and by rounding over h."""
    random = np.random.default_rng(2)
    a, b, cost = (
        (1.5 if unbalanced else 1) * random.dirichlet(np.ones(4)),
        random.dirichlet(np.ones(3)),
        random.random((4, 3)),
    )
    h, settings = 1e-3, {"epsilon": 0.5, "unbalanced": unbalanced, **EXACT}
    found = sinkhorn(a, b, cost, **settings)
    np.testing.assert_array_equal(found.gradient, found.plan)
    for place in np.ndindex(4, 3):
        step = np.zeros((4, 3))
        step[place] = h
        slope = (sinkhorn(a, b, cost + step, **settings).value - sinkhorn(a, b, cost - step, **settings).value) / (
            2 * h
        )
        np.testing.assert_allclose(slope, found.gradient[place], rtol=(h / 0.5) ** 2, atol=1e-11)


@pytest.mark.parametrize("unbalanced", TAUS)
@pytest.mark.parametrize("metric", METRICS)
def test_gradient_of_the_points_is_the_slope(isa, metric, unbalanced):
    random = np.random.default_rng(7)
    x, y = random.standard_normal((4, 3)), random.standard_normal((5, 3))
    a, b = (1.5 if unbalanced else 1) * random.dirichlet(np.ones(4)), random.dirichlet(np.ones(5))
    h, settings = 1e-4, {"metric": metric, "epsilon": 1.0, "unbalanced": unbalanced, **EXACT}
    dx, dy = sinkhorn(a, b, x=x, y=y, **settings).gradient
    for _ in range(3):
        u, v = random.standard_normal(x.shape), random.standard_normal(y.shape)
        ahead, behind = (sinkhorn(a, b, x=x + s * u, y=y + s * v, **settings).value for s in (h, -h))
        # Third derivatives of the cost along u, v: below |u|^3 / |x - y|^2 or so, some hundreds.
        np.testing.assert_allclose(
            (ahead - behind) / (2 * h), np.sum(u * dx) + np.sum(v * dy), rtol=0, atol=300 * h**2 + 1e-10
        )


def test_gradients_at_kinks_are_0(isa):
    x = np.array([[1.0, 2.0]])
    for metric in ("euclidean", "l1"):
        for part in sinkhorn(None, None, x=x, y=x, metric=metric, epsilon=1.0).gradient:
            assert (part == 0).all()


@pytest.mark.parametrize("from_points", [False, True])
@pytest.mark.parametrize("dtype", REALS)
def test_applies_the_plan_without_it(isa, dtype, from_points):
    random = np.random.default_rng(9)
    x, y = random.standard_normal((2, 33, 3)).astype(dtype), random.standard_normal((2, 17, 3)).astype(dtype)
    given = {"x": x, "y": y} if from_points else {"cost": random.random((2, 33, 17)).astype(dtype)}
    found = sinkhorn(None, None, **given, epsilon=0.7)
    values, back = random.standard_normal((2, 17, 4)).astype(dtype), random.standard_normal((2, 33, 5)).astype(dtype)
    # The plan moves mass 1, in rounded products and sums of up to 33.
    near = {"rtol": 0, "atol": 2 * 50 * np.finfo(dtype).eps * 5}
    np.testing.assert_allclose(found.apply(values), found.plan @ values, **near)
    np.testing.assert_allclose(found.apply_transpose(back), np.swapaxes(found.plan, -1, -2) @ back, **near)
    with pytest.raises(ArgumentError, match="values"):
        found.apply(back)
    with pytest.raises(ArgumentError, match="values"):
        found.apply_transpose(values)


def test_warm_starts_go_on(isa):
    random = np.random.default_rng(5)
    a, b, cost = random.dirichlet(np.ones(30)), random.dirichlet(np.ones(20)), random.random((30, 20))
    cold = sinkhorn(a, b, cost, epsilon=0.02, tolerance=1e-9, max_iterations=20000)
    assert cold.converged and cold.iterations > 20
    assert sinkhorn(a, b, cost, epsilon=0.02, tolerance=1.1e-9, warm_start=cold).iterations == 1
    assert sinkhorn(a, b, cost, epsilon=0.02, tolerance=1.1e-9, warm_start=cold.potentials).iterations == 1
    half = sinkhorn(a, b, cost, epsilon=0.02, tolerance=1e-9, max_iterations=int(cold.iterations) // 2)
    rest = sinkhorn(a, b, cost, epsilon=0.02, tolerance=1e-9, max_iterations=20000, warm_start=half)
    assert rest.converged and abs(half.iterations + rest.iterations - cold.iterations) <= 1
    np.testing.assert_allclose(rest.plan, cold.plan, rtol=1e-6)


def test_a_warm_start_where_nothing_was(isa):
    """A point without mass or way has an infinite potential; once it has both, that is no start."""
    cost = np.array([[1.0, 2], [np.inf, np.inf]])
    before = sinkhorn(np.array([1.0, 0]), None, cost, epsilon=1.0)
    assert before.potentials[0][1] == np.inf
    cost[1] = 1
    after = sinkhorn(None, np.array([1.0, 0.0]), cost, epsilon=1.0, warm_start=before)
    assert after.converged and after.value_linear == 1


@settings(max_examples=20)
@given(problem=problems(sizes=[2, 9, 17], reals=[np.float64]), scaling=st.sampled_from([None, 0.5]))
def test_warm_starts_and_schedules_match_the_reference(isa, problem, scaling):
    random = np.random.default_rng(0)
    start = tuple(problem.range * random.standard_normal(masses.shape) for masses in (problem.a, problem.b))
    epsilon = 0.1 * problem.range
    arguments = {
        "epsilon": epsilon, "unbalanced": problem.unbalanced, "warm_start": start, "epsilon_scaling": scaling, "history": True,
        "max_iterations": 30, "tolerance": 1e-30,
    }  # fmt: skip
    got, want = (solve(problem.a, problem.b, problem.cost, **arguments) for solve in (sinkhorn, reference_sinkhorn))
    slack = problem.potential_slack((*want.potentials, *start), epsilon if scaling is None else problem.range, 30)
    for ours, meant in zip(got.potentials, want.potentials, strict=True):
        np.testing.assert_allclose(ours, meant, rtol=0, atol=slack)
    if got.iterations == want.iterations:  # else an error of 0 is met a step apart
        near = problem.relative(slack, epsilon)  # of what is moved, which an error may be far below
        moved = max(want.errors.max(), problem.a.sum() + problem.b.sum())
        np.testing.assert_allclose(got.errors, want.errors, rtol=100 * near, atol=near * moved)


def test_epsilon_scaling_reaches_the_same(isa):
    random = np.random.default_rng(8)
    x, y = random.random((40, 2)), random.random((40, 2))
    settings = {"epsilon": 0.01, "tolerance": 1e-8, "max_iterations": 50000}
    plain = sinkhorn(None, None, x=x, y=y, **settings)
    scaled = sinkhorn(None, None, x=x, y=y, epsilon_scaling=0.5, **settings)
    assert plain.converged and scaled.converged
    np.testing.assert_allclose(scaled.value, plain.value, rtol=0, atol=2 * 1e-8 * 4)


@pytest.mark.parametrize("limit", [1, 2, 3, 17])
def test_stops_at_the_limit(isa, limit):
    cost = np.random.default_rng(0).random((9, 7))
    for scaling in (None, 0.5):
        got = sinkhorn(
            None, None, cost, epsilon=1e-3, max_iterations=limit, tolerance=1e-12, epsilon_scaling=scaling, history=True
        )
        assert got.iterations == limit == len(got.errors) and got.status == "max_iterations" and not got.converged


def test_progress_is_told(isa):
    """Between calls of C, which last some milliseconds: how often depends on the machine, what is told does not."""
    cost = np.random.default_rng(0).random((1500, 1200))
    told = []
    got = sinkhorn(
        None, None, cost, epsilon=0.01, max_iterations=100, tolerance=0.0, history=True,
        progress=lambda iterations, error: told.append((iterations, error)),
    )  # fmt: skip
    assert told and told == sorted(told, key=lambda each: each[0])
    assert all(error == got.errors[iterations - 1] for iterations, error in told[:-1] if iterations)
    assert told[-1] == (got.iterations, got.marginal_error)


@pytest.mark.parametrize("name", ["a", "b", "cost", "x", "y"])
@pytest.mark.parametrize("dtype", REALS)
def test_names_what_is_not_finite(isa, name, dtype):
    for bad in (np.nan, -np.inf, np.inf):
        if bad == np.inf and name == "cost":
            continue
        arrays = {
            "a": np.full((2, 20), 0.05, dtype), "b": np.full((2, 17), 1 / 17, dtype),
            "x": np.ones((2, 20, 3), dtype), "y": np.ones((2, 17, 3), dtype), "cost": np.ones((2, 20, 17), dtype),
        }  # fmt: skip
        arrays[name].reshape(-1)[-1] = bad
        a, b = arrays.pop("a"), arrays.pop("b")
        given = {"cost": arrays["cost"]} if name == "cost" else {"x": arrays["x"], "y": arrays["y"]}
        with pytest.raises(NotFiniteError, match=rf"\b{name}\b"):
            sinkhorn(a, b, **given, epsilon=1.0)


COST = np.ones((3, 2))
POINTS = {"cost": None, "x": np.ones((3, 4)), "y": np.ones((2, 4))}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cost": None}, "cost"),
        ({"cost": COST.tolist()}, "cost must be a NumPy array"),
        ({"cost": COST.astype(np.int64)}, "cost must have dtype .*int64"),
        ({"cost": COST.astype(np.float16)}, "cost must have dtype .*float16"),
        ({"cost": np.ones(3)}, "cost must have"),
        ({"cost": np.ones((2, 3)).T}, "cost must be C-contiguous"),
        ({"x": np.ones((3, 4)), "y": np.ones((2, 4))}, "cost"),
        (POINTS | {"y": None}, r"\by\b"),
        (POINTS | {"x": None}, r"\bx\b"),
        (POINTS | {"y": np.ones((2, 5))}, r"\by\b.*5"),
        (POINTS | {"y": np.ones((2, 4), np.float32)}, r"\by\b.*float32"),
        (POINTS | {"x": np.ones((3, 0)), "y": np.ones((2, 0))}, "coordinates, 1 or more, got 0 and 0"),
        (POINTS | {"metric": "hamming"}, "metric must be one of .*hamming"),
        (POINTS | {"metric": "cosine", "x": np.eye(3, 4) * [[1], [0], [1]]}, r"\bx\b"),
        (POINTS | {"metric": "cosine", "y": np.zeros((2, 4))}, r"\by\b"),
        ({"a": np.ones(4)}, r"a must have .*4"),
        ({"a": [0.5, 0.5, 0]}, "a must be a NumPy array"),
        ({"b": np.ones(2, np.int32)}, "b must have dtype .*int32"),
        ({"a": np.array([1, -1e-9, 0])}, "a must be 0 or more, got -1e-09"),
        ({"b": np.array([2, -1.0])}, "b must be 0 or more, got -1"),
        ({"a": np.array([1.0, 1, 1])}, r"3\b.*\b1\b.*unbalanced"),
        ({"b": np.array([0.5, 0.5 + 1e-7])}, "unbalanced"),
        ({"a": np.zeros(3), "b": np.zeros(2)}, r"\b0\b"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": np.nan}, "epsilon"),
        ({"epsilon": np.inf}, "epsilon"),
        ({"epsilon": 1e-16}, r"epsilon must be at least 2\^-50 of the largest cost, 1, got 1e-16"),
        (POINTS | {"epsilon": 1e-20, "x": np.zeros((3, 4))}, r"epsilon must be at least 2\^-50 of the largest cost"),
        ({"epsilon": "small"}, "epsilon must be a number"),
        ({"max_iterations": 0}, "max_iterations must lie in"),
        ({"max_iterations": 1.5}, "max_iterations must be an integer"),
        ({"tolerance": -1e-9}, "tolerance must lie in"),
        ({"tolerance": np.nan}, "tolerance must lie in"),
        ({"unbalanced": (0.0, 1.0)}, "unbalanced"),
        ({"unbalanced": (1.0, np.nan)}, "unbalanced"),
        ({"unbalanced": (1.0,)}, "unbalanced"),
        ({"epsilon_scaling": 1.0}, "epsilon_scaling"),
        ({"epsilon_scaling": 0.0}, "epsilon_scaling"),
        ({"warm_start": np.zeros(3)}, "warm_start"),
        ({"warm_start": (np.zeros(3), np.zeros(3))}, "warm_start"),
        ({"warm_start": (np.zeros(3), np.full(2, np.nan))}, "warm_start"),
        ({"dtype": np.int32}, "dtype"),
        ({"dtype": np.float16}, "dtype"),
        ({"lengths": 3}, "lengths"),
        ({"lengths": (np.array(4), np.array(2))}, "lengths"),
        ({"lengths": (np.array(0), np.array(2))}, "lengths"),
        ({"lengths": (np.array([1, 2]), np.array(2))}, "lengths"),
        ({"history": 1}, "history must be True or False"),
        ({"progress": 1}, "progress"),
        ({"threads": 0}, "threads must lie in"),
        ({"cost": np.ones((0, 2))}, "one point or more on each side"),
        ({"cost": np.ones((2, 0))}, "one point or more on each side"),
    ],
)  # fmt: skip
def test_refuses(change, text):
    with pytest.raises((ArgumentError, NotFiniteError), match=text):
        sinkhorn(**({"a": None, "b": None, "cost": COST, "epsilon": 1.0} | change))


# Places that random problems seldom reach, each against the reference.
def test_a_row_that_reaches_only_the_smallest_masses(isa):
    """Its largest exponent belongs to a mass that the sum hardly sees: another column's mass weighs in from far below."""
    a, b = np.array([0.5, 0.5]), np.array([1 - 2e-311, 1e-311, 1e-311])
    cost = np.array([[1.0, 0.0, 0.1], [0.3, 0.6, 0.0]])
    for iterations in (1, 2, 20):
        found = sinkhorn(a, b, cost, epsilon=1.0 / 713, max_iterations=iterations, tolerance=0)
        want = reference_sinkhorn(a, b, cost, epsilon=1.0 / 713, max_iterations=iterations, tolerance=0)
        np.testing.assert_allclose(found.potentials[0], want.potentials[0], rtol=0, atol=1e-12)


def test_large_kappa_does_not_magnify_rounding(isa):
    """Where epsilon is 1e5 tau, a potential's last digit is 1e-11 of the marginal that it asks for."""
    generator = np.random.default_rng(5)
    a, b, cost = generator.random(20), generator.random(30), generator.random((20, 30))
    found = sinkhorn(
        a, b, cost, epsilon=1e5, unbalanced=(1.0, 1.0), max_iterations=50, tolerance=1e-12 * a.sum() * b.sum()
    )
    assert found.converged


def test_a_sum_out_of_range_costs_no_progress(isa):
    """Scales that jump by more than the kernel holds: potentials reached before the jump are where the log domain goes on."""
    generator = np.random.default_rng(6)
    a, b = generator.random(12) ** 30, generator.random(9) ** 30
    a, b = a / a.sum(), b / b.sum()
    cost = 40 * generator.random((12, 9)) ** 3
    for epsilon in (0.05, 0.02):
        for dtype, close in ((np.float64, 1e-11), (np.float32, 1e-4)):
            settings = {"epsilon": epsilon, "max_iterations": 60, "tolerance": 0, "history": True}
            found = sinkhorn(a, b, cost.astype(dtype), **settings)
            want = reference_sinkhorn(a, b, cost.astype(dtype), **settings)
            np.testing.assert_allclose(found.errors, want.errors, rtol=0, atol=close)


def test_an_infinite_warm_start_begins_anew(isa):
    cost = np.random.default_rng(7).random((4, 5))
    found = sinkhorn(None, None, cost, epsilon=0.1, warm_start=(np.zeros(4), np.full(5, np.inf)))
    assert found.converged
    np.testing.assert_allclose(found.plan, sinkhorn(None, None, cost, epsilon=0.1).plan, rtol=0, atol=1e-12)
    with pytest.raises(ArgumentError, match="warm_start"):
        sinkhorn(None, None, cost, epsilon=0.1, warm_start=(np.zeros(4), np.full(5, 1e308)))


def test_totals_and_numbers_beyond_the_dtype_are_refused(isa):
    cost = np.ones((2, 2), np.float32)
    with pytest.raises(ArgumentError, match="a must have a total of"):
        sinkhorn(np.full(2, 1e100), np.full(2, 1e100), cost, epsilon=1.0)
    with pytest.raises(ArgumentError, match="a must have a total of"):
        sinkhorn(np.full(2, 1e308), np.full(2, 1e308), cost.astype(np.float64), epsilon=1.0)
    with pytest.raises(ArgumentError, match="within 1e150"):
        sinkhorn(np.full(2, 1e-290), np.full(2, 1.0), cost, epsilon=1.0, unbalanced=1.0)
    with pytest.raises(ArgumentError, match="beyond float32"):
        sinkhorn(None, None, np.full((2, 2), 1e100), epsilon=1.0, dtype=np.float32)
    with pytest.raises(ArgumentError, match="unbalanced must be at least"):
        sinkhorn(None, None, cost, epsilon=1.0, unbalanced=1e-200)


@given(
    n=st.integers(2, 300), m=st.integers(2, 300), seed=st.integers(0, 2**32), which=st.sampled_from(["a", "b", "both"])
)
def test_totals_agree_as_far_as_the_coarsest_masses_were_rounded(n, m, seed, which):
    """Histograms normalised in float32, beside costs in float64."""
    random = np.random.default_rng(seed)
    a, b = random.random(n), random.random(m)
    a, b = (
        masses.astype(dtype) / masses.astype(dtype).sum()
        for masses, dtype in (
            (a, np.float32 if which != "b" else np.float64),
            (b, np.float32 if which != "a" else np.float64),
        )
    )
    cost = random.random((n, m))
    assert np.isfinite(sinkhorn(a, b, cost, epsilon=1.0, max_iterations=2).value_linear)
    with pytest.raises(ArgumentError, match="same total, within 1e-05 of it"):
        sinkhorn(a, b * b.dtype.type(1.0001), cost, epsilon=1.0)
    with pytest.raises(ArgumentError, match="same total, within 1e-08 of it"):
        sinkhorn(a.astype(np.float64), b.astype(np.float64) * (1 + 1e-4), cost, epsilon=1.0)


@pytest.mark.parametrize("from_points", [False, True])
def test_a_refused_epsilon_is_the_one_that_was_given(from_points):
    given = (
        {"x": np.array([[0.0], [1e9]]), "y": np.array([[0.0], [1e9]])}
        if from_points
        else {"cost": np.array([[0.0, 1e18]])}
    )
    for scaling in (None, 0.5):
        with pytest.raises(
            ArgumentError, match=r"epsilon must be at least 2\^-50 of the largest cost, 1e\+18, got 3e-07$"
        ):
            sinkhorn(None, None, **given, epsilon=3e-7, epsilon_scaling=scaling)


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("unbalanced", [(1.0, 1.0), (1e2, 1e2), (1e4, 1e4), (1e4, np.inf), (np.inf, 1e4)])
def test_a_dear_marginal_takes_no_more_iterations_than_a_fixed_one(isa, dtype, unbalanced):
    """Totals that differ: agreeing on one takes scaling alone tau / epsilon iterations, here up to a million."""
    random = np.random.default_rng(0)
    cost = random.random((20, 30)).astype(dtype)
    a, b = random.dirichlet(np.ones(20)).astype(dtype), random.dirichlet(np.ones(30)).astype(dtype)
    settings = {"epsilon": 0.02, "tolerance": 1e-5, "max_iterations": 20_000}
    fixed = sinkhorn(a, b, cost, **settings)
    dear = sinkhorn(a, 2 * b, cost, unbalanced=unbalanced, **settings)
    assert fixed.converged and dear.converged and dear.iterations <= 2 * fixed.iterations
    f, g = dear.potentials
    asked = [
        np.sum(masses * np.exp(-potential / tau))
        for masses, potential, tau in zip((a, 2 * b), (f, g), unbalanced, strict=True)
    ]
    np.testing.assert_allclose(asked, dear.plan.sum(dtype=np.float64), rtol=0, atol=2e-5)
