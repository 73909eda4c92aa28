"""The oracle of unmasking: closed forms, the chain rule of the divergence, and the best plan against all plans."""

from __future__ import annotations

import math
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.lib.toy_joints import (
    UNKNOWN,
    ToyJoint,
    all_same,
    any_joint,
    best_plans,
    choose,
    divergence,
    fixed,
    independent,
    law_of,
    plan_loss,
    planned,
    plans,
    replace_one,
    shuffle,
    total_correlation,
    valid_share,
)

# Entropies are sums of at most 3^5 terms p log p, each below 1 and rounded three times: errors of 1e-13.
EXACT = dict(rel=1e-12, abs=1e-12)
joints = st.builds(
    any_joint, st.integers(1, 5), st.integers(2, 3), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.8])
)
small = st.builds(
    any_joint, st.integers(1, 4), st.integers(2, 3), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.8])
)


def at_once(joint):
    return law_of(joint, planned([range(joint.n)]))


def one_by_one(order):
    return [[position] for position in order]


@pytest.mark.parametrize("n", range(1, 6))
def test_a_shuffle_at_once_is_a_permutation_as_often_as_the_closed_form_says(n):
    joint = shuffle(n)
    assert valid_share(joint, at_once(joint)) == pytest.approx(math.factorial(n) / n**n, **EXACT)
    assert total_correlation(joint) == pytest.approx(n * math.log(n) - math.lgamma(n + 1), **EXACT)


@pytest.mark.parametrize("n", range(2, 12))
def test_one_slot_is_replaced_at_once_as_often_as_the_closed_form_says(n):
    joint = replace_one(n)
    assert valid_share(joint, at_once(joint)) == pytest.approx((1 - 1 / n) ** (n - 1), **EXACT)
    entropy = math.log(n) - (n - 1) / n * math.log(n - 1)  # of one slot
    assert total_correlation(joint) == pytest.approx(n * entropy - math.log(n), **EXACT)


@pytest.mark.parametrize(("n", "vocab"), [(1, 2), (2, 2), (3, 4), (5, 3)])
def test_one_token_of_a_latent_choice_tells_the_rest(n, vocab):
    joint = all_same(n, vocab)
    assert valid_share(joint, at_once(joint)) == pytest.approx(vocab ** (1 - n), **EXACT)
    assert total_correlation(joint) == pytest.approx((n - 1) * math.log(vocab), **EXACT)
    if n > 1:
        assert best_plans(joint)[1][0] == pytest.approx(0, abs=1e-12)  # one, then all the others


@pytest.mark.parametrize(
    "joint",
    [
        fixed([2, 0, 1, 1], 3),
        choose(4, 3),
        independent(np.array([[1, 2, 3], [0, 1, 1], [5, 1, 1.0]])),
        ToyJoint(np.ones((2, 2, 2))),
    ],
)
def test_without_total_correlation_all_at_once_is_the_joint(joint):
    assert total_correlation(joint) == pytest.approx(0, abs=1e-12)
    assert at_once(joint) == pytest.approx(joint.probabilities, **EXACT)
    assert [loss for loss, _ in best_plans(joint)] == pytest.approx([0] * joint.n, abs=1e-12)


@given(joint=joints)
def test_all_at_once_draws_the_product_of_the_marginals_and_loses_the_total_correlation(joint):
    law = at_once(joint)
    assert law == pytest.approx(independent(joint.marginals()).table, **EXACT)
    assert divergence(joint.probabilities, law) == pytest.approx(total_correlation(joint), **EXACT)
    assert total_correlation(joint) >= -1e-12


@given(joint=joints, data=st.data())
def test_total_correlation_has_a_chain_rule(joint, data):
    """TC(A and B) = TC(A) + TC(B) + the information that they share."""
    a = data.draw(st.sets(st.integers(0, joint.n - 1)))
    b = set(range(joint.n)) - a
    shared = joint.entropy(a) + joint.entropy(b) - joint.entropy(range(joint.n))
    together = total_correlation(joint, a) + total_correlation(joint, b) + shared
    assert total_correlation(joint) == pytest.approx(together, **EXACT)


@given(joint=joints, data=st.data())
def test_one_a_round_in_any_order_is_the_joint(joint, data):
    plan = one_by_one(data.draw(st.permutations(range(joint.n))))
    assert law_of(joint, planned(plan)) == pytest.approx(joint.probabilities, **EXACT)
    assert plan_loss(joint, plan) == pytest.approx(0, abs=1e-12)


def some_plan(draw, n):
    order = draw(st.permutations(range(n)))
    cuts = draw(st.sets(st.integers(1, n - 1))) if n > 1 else []
    return [order[start:end] for start, end in pairwise([0, *sorted(cuts), n])]


@given(joint=joints, data=st.data())
def test_what_a_plan_loses_is_the_divergence_of_what_it_draws(joint, data):
    """And it is the total correlation of each round, in expectation over what was committed before."""
    plan = some_plan(data.draw, joint.n)
    loss = plan_loss(joint, plan)
    assert divergence(joint.probabilities, law_of(joint, planned(plan))) == pytest.approx(loss, **EXACT)
    expected, known = 0.0, []
    for positions in plan:
        others = tuple(set(range(joint.n)) - set(known))
        for tokens, probability in np.ndenumerate(joint.probabilities.sum(axis=others)):
            if probability:
                context = np.full(joint.n, UNKNOWN)
                context[sorted(known)] = tokens
                expected += probability * total_correlation(joint.given(context), positions)
        known += positions
    assert expected == pytest.approx(loss, **EXACT)


@given(joint=joints, data=st.data())
def test_to_split_a_round_never_loses_more(joint, data):
    plan = some_plan(data.draw, joint.n)
    split = [
        part for positions in plan for part in (positions[: len(positions) // 2], positions[len(positions) // 2 :])
    ]
    assert plan_loss(joint, [part for part in split if part]) <= plan_loss(joint, plan) + 1e-12


@given(joint=small)
def test_the_best_plan_is_the_best_of_all_plans(joint):
    for rounds, (loss, plan) in enumerate(best_plans(joint), 1):
        assert len(plan) == rounds and sorted(chain(*plan)) == list(range(joint.n))
        assert plan_loss(joint, plan) == pytest.approx(loss, **EXACT)
        least = min(plan_loss(joint, other) for other in plans(range(joint.n), rounds))
        assert loss == pytest.approx(least, **EXACT)


def test_all_plans_are_all_of_them():
    """Ordered partitions of four: 1, 14, 36 and 24, by the number of rounds."""
    counts = [len({tuple(map(tuple, plan)) for plan in plans(range(4), rounds)}) for rounds in range(1, 5)]
    assert counts == [1, 14, 36, 24]


@given(joint=joints, data=st.data())
def test_conditionals_are_those_of_the_law_that_is_given(joint, data):
    known = np.array(data.draw(st.lists(st.integers(-1, joint.vocab - 1), min_size=joint.n, max_size=joint.n)))
    laws, rest = joint.conditionals(known), joint.given(known)
    assert (laws[known != UNKNOWN] == np.eye(joint.vocab)[known[known != UNKNOWN]]).all()
    if rest.table.any():
        assert laws == pytest.approx(rest.marginals(), **EXACT)
    else:
        assert (laws[known == UNKNOWN] == 1 / joint.vocab).all()  # what cannot be says nothing


@given(joint=small)
def test_a_law_adds_up_to_one_whatever_the_rule(joint):
    def likely(step, conditionals, drawn, masked):
        """Those that drew something likelier than not; else the last."""
        chosen = masked & (conditionals[np.arange(joint.n), drawn] > 0.5)
        chosen[np.flatnonzero(masked)[-1]] |= not chosen.any()
        return chosen

    assert law_of(joint, likely).sum() == pytest.approx(1, **EXACT)
    greedy = law_of(joint, likely, greedy=True)
    assert sorted(set(greedy.ravel())) in ([0, 1], [1])


def test_to_commit_what_drew_a_likely_token_shifts_the_law_of_tokens_that_are_independent():
    """Two coins that fall on 0 nine times in ten, the surer draw first: the first is 1 only where both drew it."""
    coins = independent(np.array([[0.9, 0.1]] * 2))

    def surest(step, conditionals, drawn, masked):
        confidence = np.where(masked, conditionals[np.arange(2), drawn], -1)
        return np.arange(2) == confidence.argmax()

    law = law_of(coins, surest)
    assert law[0, 0] == pytest.approx(0.99 * 0.9) and law[1, 1] == pytest.approx(0.01 * 0.1)
    assert law_of(coins, planned([[0], [1]])) == pytest.approx(coins.probabilities)
