"""SinKD's loss: the paper's formulas, its gradients by finite differences, what it is blind to, and its limits."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import sinkhorn_loss
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import isa_levels, set_isa
from fastdistill.reference.transport.distance_gradient import distance_gradient
from fastdistill.reference.transport.pairwise_distance import pairwise_distance
from fastdistill.reference.transport.softmax import softmax, softmax_gradient
from fastdistill.reference.transport.unrolled_sinkhorn import unrolled_sinkhorn

MODES = ["unrolled", "entropic"]


@st.composite
def batches(draw):
    """Logits of student and teacher, float64, some of them banned in both or in one."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, 6)), draw(st.sampled_from([2, 5, 17, 70]))
    student, teacher = random.standard_normal((2, *shape)) * draw(st.sampled_from([0.5, 3.0]))
    student[:, 1:][random.random(student[:, 1:].shape) < draw(st.sampled_from([0, 0.3]))] = -np.inf
    teacher[:, 1:][random.random(teacher[:, 1:].shape) < draw(st.sampled_from([0, 0.3]))] = -np.inf
    return student, teacher


def costs(student, teacher, temperature=2.0):
    return pairwise_distance(softmax(student, temperature), softmax(teacher, temperature), "l1")


def reference_loss(student, teacher, temperature, epsilon, iterations):
    """The paper's, by the reference of each kernel."""
    x, y = softmax(student, temperature), softmax(teacher, temperature)
    value, _, by_cost = unrolled_sinkhorn(pairwise_distance(x, y, "l1"), epsilon, iterations)
    return value, softmax_gradient(x, distance_gradient(by_cost, x, y, "l1"), temperature)


def assignment_cost(cost):
    """The least sum of a permutation, by trying all."""
    return min(cost[np.arange(len(cost)), list(order)].sum() for order in permutations(range(len(cost))))


@given(
    batch=batches(),
    temperature=st.sampled_from([1.0, 2.0]),
    epsilon=st.sampled_from([0.05, 0.1, 1.0]),
    iterations=st.sampled_from([1, 20]),
)
def test_matches_the_papers_formulas(isa, batch, temperature, epsilon, iterations):
    settings = {"temperature": temperature, "epsilon": epsilon, "iterations": iterations}
    want, want_gradient = reference_loss(*batch, **settings)
    got = sinkhorn_loss(*batch, **settings)
    # Costs within [0, 2] are rounded to about 70 units; over epsilon, through 2 divisions an iteration.
    unit = 2.0**-53 * 70 * (1 + 2 / epsilon) * (4 * iterations + 8)
    np.testing.assert_allclose(got.value, want, rtol=unit, atol=unit)
    # Where an equal pair of probabilities is rounded to either side of its kink the two may differ: there are none but zeros here.
    np.testing.assert_allclose(got.gradient, want_gradient, rtol=0, atol=len(batch[0]) * unit * (1 + 2 / epsilon))
    single = sinkhorn_loss(*(logits.astype(np.float32) for logits in batch), **settings)
    assert single.gradient.dtype == np.float32
    np.testing.assert_allclose(single.value, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("epsilon", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradient_is_the_derivative_and_that_of_a_plan_held_fixed_is_not(isa, mode, epsilon, temperature):
    random = np.random.default_rng(3)
    student, teacher, along = random.standard_normal((3, 4, 9))
    settings = {"temperature": temperature, "epsilon": epsilon, "iterations": 6, "mode": mode, "scale": 0.7}
    # The law's distances have kinks where two probabilities are equal: no step here crosses one.
    step = 1e-6
    higher, lower = (sinkhorn_loss(student + sign * step * along, teacher, **settings).value for sign in (1, -1))
    slope = (higher - lower) / (2 * step)
    np.testing.assert_allclose((sinkhorn_loss(student, teacher, **settings).gradient * along).sum(), slope, atol=2e-8)
    if mode == "unrolled" and epsilon == 0.1:
        x, y = softmax(student, temperature), softmax(teacher, temperature)
        plan = unrolled_sinkhorn(pairwise_distance(x, y, "l1"), epsilon, 6)[1]
        fixed = softmax_gradient(x, distance_gradient(plan, x, y, "l1"), temperature, weight=0.7)
        assert abs((fixed * along).sum() - slope) > 1e-4


@given(batch=batches(), mode=st.sampled_from(MODES))
def test_blind_to_the_order_of_rows(isa, batch, mode):
    """Rows of either side in another order: the same value; the gradient follows the student's rows."""
    student, teacher = batch
    want = sinkhorn_loss(student, teacher, mode=mode)
    moved = sinkhorn_loss(student[::-1].copy(), np.roll(teacher, 1, axis=0), mode=mode)
    np.testing.assert_allclose(moved.value, want.value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moved.gradient[::-1], want.gradient, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_a_permuted_teacher_costs_nothing_as_epsilon_vanishes(isa, mode):
    teacher = np.random.default_rng(0).standard_normal((5, 12)) * 6
    student = np.roll(teacher, 2, axis=0)
    values = [
        sinkhorn_loss(student, teacher, epsilon=epsilon, iterations=50, mode=mode).value for epsilon in (0.3, 0.1, 0.01)
    ]
    assert abs(values[0]) > abs(values[1]) > abs(values[2])
    assert abs(values[2]) < 1e-6


@given(batch=batches())
def test_costs_at_least_the_best_assignment_and_tends_to_it(isa, batch):
    """Of plans with rows and columns of 1: rows of an unrolled plan are as near as its marginal error, at most 2 each."""
    least = assignment_cost(costs(*batch))
    found = sinkhorn_loss(*batch, iterations=20)
    assert found.value >= least - 2 * found.info["marginal_error"] - 1e-9
    # F lies below the least cost by epsilon H, 0 <= H <= B log B of a plan with rows of 1, and above it never.
    size = len(batch[0])
    for epsilon in (0.5, 0.05):
        entropic = sinkhorn_loss(*batch, epsilon=epsilon, mode="entropic")
        slack = 2 * entropic.info["marginal_error"] + 1e-9
        assert least - epsilon * size * np.log(size) - slack <= entropic.value <= least + slack


def test_tends_to_the_best_assignment(isa):
    student, teacher = np.random.default_rng(1).standard_normal((2, 5, 20)) * 3
    least = assignment_cost(costs(student, teacher))
    found = sinkhorn_loss(student, teacher, epsilon=2e-3, iterations=3000)
    np.testing.assert_allclose(found.value, least, atol=1e-3 + 2 * found.info["marginal_error"])


@pytest.mark.parametrize("mode", MODES)
def test_one_row_costs_twice_the_total_variation(isa, mode):
    student, teacher = np.random.default_rng(2).standard_normal((2, 1, 40))
    x, y = softmax(student, 2.0), softmax(teacher, 2.0)
    found = sinkhorn_loss(student, teacher, mode=mode)
    np.testing.assert_allclose(found.value, np.abs(x - y).sum(), rtol=1e-12)
    want = softmax_gradient(x, np.sign(x - y), 2.0)
    np.testing.assert_allclose(found.gradient, want, atol=1e-15)


def test_does_not_saturate_where_supports_are_apart(isa):
    """The student is sure of one token, the teacher of another: the reverse KL grows with the gap, this stays within 2 a row."""
    student, teacher = np.zeros((2, 3, 8))
    student[:, 0], teacher[:, 1] = 8.0, 8.0
    found = sinkhorn_loss(student, teacher, temperature=1.0)
    assert 5 < found.value < 6
    assert found.gradient[0, 0] > 0 > found.gradient[0, 1]


@given(batch=batches(), mode=st.sampled_from(MODES), dtype=st.sampled_from([np.float32, np.float64]))
def test_same_bits_on_every_level_and_thread_count(isa, batch, mode, dtype):
    student, teacher = (logits.astype(dtype) for logits in batch)
    want = sinkhorn_loss(student, teacher, mode=mode, threads=1)
    for level in isa_levels():
        set_isa(level)
        got = sinkhorn_loss(student, teacher, mode=mode, threads=3)
        assert (got.value, got.info["marginal_error"]) == (want.value, want.info["marginal_error"])
        assert got.gradient.tobytes() == want.gradient.tobytes()
    set_isa(isa)


@pytest.mark.parametrize("mode", MODES)
def test_scale_scales_value_and_gradient(isa, mode):
    student, teacher = np.random.default_rng(4).standard_normal((2, 3, 7))
    one, half = (sinkhorn_loss(student, teacher, scale=scale, mode=mode) for scale in (1.0, 0.5))
    assert half.value == 0.5 * one.value
    np.testing.assert_array_equal(half.gradient, 0.5 * one.gradient)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf, "bans"])
def test_names_the_array_and_the_row_that_is_not_finite(isa, which, bad):
    logits = [np.zeros((3, 20)), np.zeros((3, 20))]
    logits[which][2, 7 if bad != "bans" else slice(None)] = -np.inf if bad == "bans" else bad
    with pytest.raises(NotFiniteError, match=f"{('student', 'teacher')[which]}: row 2 holds"):
        sinkhorn_loss(*logits)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"student": [[0.0]]}, "student must be a NumPy array"),
        ({"student": np.zeros((2, 2), np.int64)}, "student must have dtype float32"),
        ({"student": np.zeros((2, 3, 4))}, r"student must have shape \(batch, vocab\)"),
        ({"student": np.zeros((0, 4)), "teacher": np.zeros((0, 4))}, "must have rows and columns"),
        ({"teacher": np.zeros((2, 4))}, r"teacher must have shape \(3, 4\)"),
        ({"teacher": np.zeros((3, 4), np.float32)}, "teacher must have dtype float64"),
        ({"mode": "sharp"}, "mode must be one of unrolled, entropic"),
        ({"temperature": 0.0}, "temperature must lie in"),
        ({"epsilon": 0.0}, "epsilon must lie in"),
        ({"iterations": 0}, "iterations must lie in"),
        ({"scale": np.nan}, "scale must lie in"),
    ],
)
def test_refuses(change, text):
    arguments = {"student": np.zeros((3, 4)), "teacher": np.zeros((3, 4)), **change}
    with pytest.raises(ArgumentError, match=text):
        sinkhorn_loss(arguments.pop("student"), arguments.pop("teacher"), **arguments)
