"""unrolled_sinkhorn against its reference and against finite differences, on every level."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from hypothesis import given

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import isa_levels, set_isa, unrolled_sinkhorn
from fastdistill.testing import strategies
from fastdistill.testing.cases.transport.unrolled_sinkhorn import check

MODULE = import_module("fastdistill.kernels.transport.unrolled_sinkhorn")


@given(case=strategies.unrolled_sinkhorn())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.unrolled_sinkhorn())
def test_columns_sum_to_one_after_every_iteration(isa, case):
    cost, epsilon, iterations = case.values()
    for count in range(1, iterations + 1):
        plan = unrolled_sinkhorn(cost.astype(np.float64), epsilon, count).plan
        np.testing.assert_allclose(plan.sum(axis=-2), 1, rtol=2.0**-53 * (2 / epsilon + 64) * 8)


@given(case=strategies.unrolled_sinkhorn())
def test_same_bits_on_every_level_thread_count_and_cut(isa, case):
    want = unrolled_sinkhorn(**case)
    for level in isa_levels():
        set_isa(level)
        for found, expected in zip(unrolled_sinkhorn(**case, threads=3), want, strict=True):
            assert found.tobytes() == expected.tobytes()
    set_isa(isa)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "terms_of_a_call", lambda: 1)
        patch.setattr(MODULE, "_DOUBLES_AT_ONCE", 1)
        for found, expected in zip(unrolled_sinkhorn(**case), want, strict=True):
            assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("epsilon", [1e-3, 0.05, 0.3, 10.0])
@pytest.mark.parametrize("iterations", [1, 2, 20])
def test_gradient_is_the_derivative_through_all_iterations(isa, epsilon, iterations):
    """That of a plan held fixed, the plan itself, is not: the test could fail."""
    random = np.random.default_rng(iterations)
    cost, along = random.uniform(0, 2, (4, 6)), random.standard_normal((4, 6))
    step = 1e-5 * epsilon
    higher, lower = (unrolled_sinkhorn(cost + sign * step * along, epsilon, iterations).value for sign in (1, -1))
    slope = (higher - lower) / (2 * step)
    found = unrolled_sinkhorn(cost, epsilon, iterations)
    # The third derivative is of the order of 1 / epsilon^2, times 2 |C| / epsilon; rounding of the values divided by the step.
    tolerance = 1e-9 * (1 + 2 / epsilon) + 2.0**-50 * (1 + 2 / epsilon) / step
    np.testing.assert_allclose((found.gradient * along).sum(), slope, rtol=1e-7, atol=tolerance)
    if epsilon in (0.05, 0.3):
        assert abs((found.plan * along).sum() - slope) > 1e-4 > 10 * tolerance


@pytest.mark.parametrize("epsilon", [1e-300, 1e-12, 1e-4])
def test_small_epsilons_choose_an_assignment(isa, epsilon):
    cost = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    found = unrolled_sinkhorn(cost, epsilon, 20)
    np.testing.assert_array_equal(found.plan, np.eye(3))
    np.testing.assert_array_equal([found.value, *found.gradient.ravel()], [0.0, *np.eye(3).ravel()])


def test_large_epsilons_do_not_choose(isa):
    cost = np.random.default_rng(0).uniform(0, 2, (3, 5))
    found = unrolled_sinkhorn(cost, 1e9, 3)
    np.testing.assert_allclose(found.plan, 1 / 3, rtol=1e-8)


def test_one_pair_costs_what_it_costs(isa):
    found = unrolled_sinkhorn(np.array([[-1.75]]), 0.1, 20)
    assert (found.value, found.plan, found.gradient) == (-1.75, 1.0, 1.0)


def test_a_cost_added_to_all_changes_nothing_else(isa):
    cost = np.random.default_rng(1).integers(0, 8, (5, 6)) / 4.0
    here, there = unrolled_sinkhorn(cost, 0.25, 9), unrolled_sinkhorn(cost + 64, 0.25, 9)
    np.testing.assert_allclose(there.plan, here.plan, rtol=1e-12)
    np.testing.assert_allclose(there.value, here.value + 64 * 6, rtol=1e-12)
    np.testing.assert_allclose(there.gradient, here.gradient, atol=1e-10)


def test_no_problems_give_nothing(isa):
    assert [field.shape for field in unrolled_sinkhorn(np.zeros((0, 2, 3)), 1.0, 1)] == [(0,), (0, 2, 3), (0, 2, 3)]


@pytest.mark.parametrize(
    ("cost", "epsilon", "iterations", "error", "text"),
    [
        (np.zeros((2, 2), np.int32), 1.0, 1, ArgumentError, "cost must have dtype float32"),
        (np.zeros(2), 1.0, 1, ArgumentError, "cost must have shape"),
        (np.zeros((2, 0)), 1.0, 1, ArgumentError, "must have rows and columns"),
        (np.zeros((2, 2)), 0.0, 1, ArgumentError, "epsilon must lie in"),
        (np.zeros((2, 2)), np.nan, 1, ArgumentError, "epsilon must lie in"),
        (np.ones((2, 2)), 1e-310, 1, ArgumentError, "too small for these costs"),
        (np.zeros((2, 2)), 1.0, 0, ArgumentError, "iterations must lie in 1.."),
        (np.full((2, 2), np.nan), 1.0, 1, NotFiniteError, "cost holds"),
        (np.full((2, 2), np.inf), 1.0, 1, NotFiniteError, "cost holds"),
    ],
)
def test_refuses(cost, epsilon, iterations, error, text):
    with pytest.raises(error, match=text):
        unrolled_sinkhorn(cost, epsilon, iterations)
