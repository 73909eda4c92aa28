"""verify_tree: the laws of its rules, by enumeration of the reference; the kernel against the reference, on every level."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import set_isa, verify_tree, verify_tree_workspace
from fastdistill.kernels.verify.verify_tree import RULES
from fastdistill.reference.verify.verify_tree import WALKS, Tree
from fastdistill.reference.verify.verify_tree import verify_tree as reference_verify_tree
from fastdistill.testing import strategies
from fastdistill.testing.cases.verify.verify_tree import ONE, check, followed, random_case, random_laws

# ---- the law of the text, enumerated: draft, verify, emit, go on after what was emitted ----


class Shape(NamedTuple):
    """A tree to draft: of each node its parent, and who drew its token (a drafter from 1 up, -1: it is chosen, not drawn)."""

    parents: list[int]
    drafters: list[int]
    vocab: int
    length: int  # of the text that is looked at: more than one round can emit


SHAPES = {
    "nothing": Shape([-1], [0], 3, 3),
    "chain of 1": Shape([-1, 0], [0, 1], 3, 4),
    "chain of 2": Shape([-1, 0, 1], [0, 1, 1], 3, 4),
    "chain of 3": Shape([-1, 0, 1, 2], [0, 1, 1, 1], 2, 5),
    "two leaves": Shape([-1, 0, 0], [0, 1, 1], 3, 4),
    "three leaves": Shape([-1, 0, 0, 0], [0, 1, 1, 1], 3, 3),
    "2, then 2 and 1": Shape([-1, 0, 0, 1, 1, 2], [0, 1, 1, 1, 1, 1], 2, 4),
    "chosen leaves": Shape([-1, 0, 0], [0, -1, -1], 3, 4),
    "chosen chain": Shape([-1, 0, 1], [0, -1, -1], 3, 4),
    "two drafters": Shape([-1, 0, 0, 0], [0, 1, 2, 1], 3, 3),
    "drawn and chosen": Shape([-1, 0, 0, 0, 1, 2, 2], [0, 1, -1, 2, 1, 1, -1], 2, 4),
}
CHAINS = [name for name, shape in SHAPES.items() if shape.parents == list(range(-1, len(shape.parents) - 1))]


def law_after(seed, vocab, context, who):
    """A law as random as the context: the target's (who 0) or a drafter's, with zeros."""
    random = np.random.default_rng([seed, who, *(token + 1 for token in context)])
    p = random.random(vocab) ** 2
    p[random.random(vocab) < 0.25] = 0
    if p.sum() == 0:
        p[random.integers(vocab)] = 1
    return p / p.sum()


def drafted(seed, shape, context, replacement):
    """Every tree that can be drafted after this context, with its probability.

    Without replacement a node whose drafter has nothing left is not drafted, nor is anything below it.
    """

    def grow(node, probability, parents, tokens, texts, rows, draft_rows, places):
        if node == len(shape.parents):
            target = np.array([law_after(seed, shape.vocab, text, 0) for text in texts])
            drafts = np.array(list(rows.values())).reshape(-1, shape.vocab)
            yield (
                probability,
                Tree(np.array(parents), np.array(tokens), target, drafts, np.array(draft_rows), replacement),
            )
            return
        parent, who = places.get(shape.parents[node]), shape.drafters[node]
        if parent is None:
            yield from grow(node + 1, probability, parents, tokens, texts, rows, draft_rows, places)
            return
        if who < 0:
            q, row = law_after(seed, shape.vocab, (*texts[parent], node), 9), -1
            q = np.eye(shape.vocab)[q.argmax()]
        else:
            q = law_after(seed, shape.vocab, texts[parent], who)
            rows = rows if (parent, who) in rows else {**rows, (parent, who): q}
            row = list(rows).index((parent, who))
            taken = [tokens[i] for i in range(1, len(parents)) if (parents[i], draft_rows[i]) == (parent, row)]
            if taken and not replacement:
                q = q.copy()
                q[taken] = 0
                q /= q.sum() or 1
        for token in np.flatnonzero(q):
            yield from grow(
                node + 1, probability * q[token], [*parents, parent], [*tokens, token],
                [*texts, (*texts[parent], int(token))], rows, [*draft_rows, row], places | {node: len(parents)},
            )  # fmt: skip
        if not q.any():
            yield from grow(node + 1, probability, parents, tokens, texts, rows, draft_rows, places)

    yield from grow(1, 1.0, [-1], [0], [context], {}, [-1], {0: 0})


def outcomes(tree, walk):
    """Everything the walk can end with: probability, last node, law of the final token.  Answers are tried in turn."""
    pending = [()]
    while pending:
        script, answers, chances = pending.pop(), [], []

        def decide(node, chance, script=script, answers=answers, chances=chances):
            if len(answers) < len(script):
                answer = script[len(answers)]
            else:
                answer = chance > 0
                if 0 < chance < 1:
                    pending.append((*answers, False))
            answers.append(answer)
            chances.append(chance if answer else 1 - chance)
            return answer

        last, law = walk(tree, decide)
        yield math.prod(chances), last, law.p


def one_round(seed, shape, context, rule, replacement):
    """What a round emits after this context -> its probability."""
    emitted = {}
    for drafting, tree in drafted(seed, shape, context, replacement):
        for deciding, last, law in outcomes(tree, WALKS[rule]):
            kept = tuple(int(token) for token in tree.tokens[tree.path(last)[1:]])
            for token in np.flatnonzero(law):
                text = (*kept, int(token))
                emitted[text] = emitted.get(text, 0) + drafting * deciding * law[token]
    return emitted


def text_law(after, vocab, length):
    """The law of the first `length` tokens, where `after(context)` is the law of what is emitted next."""
    law = np.zeros((vocab,) * length)
    pending = {(): 1.0}
    while pending:
        context, probability = pending.popitem()
        if len(context) >= length:
            law[context[:length]] += probability
            continue
        for text, chance in after(context).items():
            pending[context + text] = pending.get(context + text, 0) + probability * chance
    return law


def target_law(seed, shape):
    after = cache(lambda context: {(t,): p for t, p in enumerate(law_after(seed, shape.vocab, context, 0)) if p})
    return text_law(after, shape.vocab, shape.length)


EXACT = [(name, rule) for name in SHAPES for rule in ("rejection", "traversal")] + [(name, "block") for name in CHAINS]


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize(("name", "rule"), EXACT)
def test_the_text_has_the_target_s_law(name, rule, replacement):
    """Two rounds at least: what a round leaves behind decides about the next one's first token."""
    shape = SHAPES[name]
    for seed in range(4):
        after = cache(lambda context, seed=seed: one_round(seed, shape, context, rule, replacement))
        assert max(map(len, after(()))) < shape.length
        law = text_law(after, shape.vocab, shape.length)
        np.testing.assert_allclose(law, target_law(seed, shape), rtol=0, atol=1e-12)


def mean_emitted(seed, shape, rule, replacement=True):
    return sum(len(text) * p for text, p in one_round(seed, shape, (), rule, replacement).items())


@pytest.mark.parametrize("replacement", [True, False])
def test_traversal_emits_at_least_as_much_as_rejection(replacement):
    gains = {name: [] for name in SHAPES}
    for name, shape in SHAPES.items():
        for seed in range(8):
            less, more = (mean_emitted(seed, shape, rule, replacement) for rule in ("rejection", "traversal"))
            assert more >= less - 1e-12
            gains[name].append(more - less)
            if name in ("chain of 1", "two leaves", "three leaves", "chosen leaves", "two drafters"):  # one level
                assert more == pytest.approx(less, abs=1e-12)
    assert max(gains["chain of 2"]) > 0.01 and max(gains["chain of 3"]) > 0.01


def test_a_drafter_that_is_the_target_is_always_accepted():
    shape = SHAPES["2, then 2 and 1"]
    for rule in WALKS:
        for _, tree in drafted(0, shape, (), True):
            same = tree._replace(drafts=tree.target, draft_rows=tree.parents)
            if all(same.target[same.parents[1:], same.tokens[1:]] > 0):
                assert [outcome[:2] for outcome in outcomes(same, WALKS[rule])] == [
                    (1.0, 3)
                ]  # the first of the deepest


def test_as_many_draws_without_replacement_as_tokens_are_always_accepted():
    shape = Shape([-1, 0, 0, 0], [0, 1, 1, 1], 3, 2)
    for seed in range(20):
        if (law_after(seed, 3, (), 1) > 0).all():
            for rule in WALKS:
                assert min(map(len, one_round(seed, shape, (), rule, False))) == 2


def test_block_is_traversal_of_a_chain_and_not_the_shortcut():
    """The copied shortcut keeps max {i: prod min(1, p / q) >= prod u} and then draws from the token's own residual.  Of two tokens,
    the second with p = q, it keeps the first with probability r + integral over u > r of r / u = r - r log r."""
    p, q = np.array([0.1, 0.3, 0.6]), np.array([0.6, 0.3, 0.1])
    r = np.minimum(1, p / q)
    kept = q * (r - r * np.log(r))
    left = np.maximum(p - q, 0)
    shortcut = kept + (1 - kept.sum()) * left / left.sum()
    assert np.abs(shortcut - p).max() > 0.1
    first = np.zeros(3)
    second = np.full(3, 1 / 3)
    for x in range(3):
        for y in range(3):
            rows = np.array([0, 0, 1])
            tree = Tree(
                np.array([-1, 0, 1]), np.array([0, x, y]), np.array([p, second, second]), np.array([q, second]), rows
            )
            for deciding, last, law in outcomes(tree, WALKS["block"]):
                first += q[x] / 3 * deciding * (np.eye(3)[x] if last else law)
    np.testing.assert_allclose(first, p, atol=1e-15)


@pytest.mark.parametrize("name", ["linear", "square", "exponential"])
@pytest.mark.parametrize("e", [1.0, 0.7, 0.2])
def test_the_law_of_a_lenient_step(name, e):
    """o = min(q, f) + (1 - sum min(q, f)) norm(max(f - q, 0)), and no token is likelier than f allows."""
    for seed in range(30):
        p, q = law_after(seed, 4, (), 0), law_after(seed, 4, (), 1)
        f = p**e if name == "exponential" else p / e ** (1 + (name == "square"))
        kept, left = np.minimum(q, f), np.maximum(f - q, 0)
        want = kept + (1 - kept.sum()) * left / (left.sum() or 1)
        law = np.zeros(4)
        for token in np.flatnonzero(q):
            tree = Tree(
                np.array([-1, 0]), np.array([0, token]), np.array([p, p]), q[None], np.array([0, 0]), True, (name, e)
            )
            for deciding, last, after in outcomes(tree, WALKS["rejection"]):
                law += q[token] * deciding * (np.eye(4)[token] if last else after)
                assert not last or (after == p).all(), "the bonus token is the target's"
        np.testing.assert_allclose(law, want, atol=1e-14)
        assert (law <= f + 1e-14).all()


# ---- the kernel against the reference ----

seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
def test_matches_reference(isa, rule, data):
    check(data.draw(strategies.verify_tree(rules=[rule], leniences=[None])))


@pytest.mark.parametrize("name", ["linear", "square", "exponential"])
@given(data=st.data())
def test_matches_reference_under_lenience(isa, name, data):
    check(data.draw(strategies.verify_tree(rules=["rejection"], leniences=[name])))


@pytest.mark.parametrize("rule", ["rejection", "block", "traversal"])
def test_rounding_rarely_decides(rule):
    """Where no uniform is 0 or next to 1, every result is the reference's, but for one in a thousand trees at most."""
    random = np.random.default_rng(5)
    close = different = 0
    for _ in range(500):
        case = random_case(random, rule)
        case["uniforms"] = random.random(len(case["uniforms"]))
        found, want = verify_tree(**case), reference_verify_tree(**case)
        close += followed(case, found)
        different += any((getattr(found, field) != getattr(want, field)).any() for field in found._fields)
    assert different <= close <= 1


@given(seed=seeds)
def test_coupled_follows_the_target_s_draws(isa, seed):
    case = random_case(np.random.default_rng(seed), "coupled")
    found = verify_tree(**case)
    parents, tokens, drawn = case["parents"], case["tokens"], case["target"]
    at, emitted = 0, []
    while True:
        emitted.append(drawn[at])
        same = [i for i in range(1, len(parents)) if parents[i] == at and tokens[i] == drawn[at]]
        if not same:
            break
        at = same[0]  # of equal siblings the first
    np.testing.assert_array_equal(found.tokens[: len(emitted)], emitted)
    assert found.accepted[0] == len(emitted) - 1 and (found.tokens[len(emitted) :] == -1).all()


@given(seed=seeds)
def test_typical_accepts_less_where_thresholds_are_higher(isa, seed):
    case = random_case(np.random.default_rng(seed), "typical", nodes=12)
    for name, values in {"epsilon": [0.0, 0.01, 0.1, 0.5, 1.0], "delta": [0.0, 0.1, 0.5, 1.0]}.items():
        accepted = [
            int(verify_tree(**case | {"epsilon": 1.0, "delta": 1.0} | {name: value}).accepted[0]) for value in values
        ]
        assert accepted == sorted(accepted, reverse=True)


@pytest.mark.parametrize("rule", ["coupled", "rejection", "traversal", "typical"])
@given(seed=seeds)
def test_same_on_every_level_and_beside_any_trees(isa, rule, seed):
    random = np.random.default_rng(seed)
    cases = [random_case(random, rule, vocab=300) for _ in range(4)]
    for case in cases:
        case.pop("replacement", None)
    joined = {name: np.concatenate([case[name] for case in cases]) for name in cases[0] if name != "rule"}
    sizes = [len(case["parents"]) for case in cases]
    if "draft_rows" in joined:
        starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
        joined["draft_rows"] = np.where(joined["draft_rows"] < 0, -1, joined["draft_rows"] + starts).astype(np.int32)
    found = verify_tree(**joined, rule=rule, offsets=np.cumsum([0, *sizes]))
    set_isa("scalar")
    alone = [verify_tree(**case) for case in cases]
    set_isa(isa)
    for field in found._fields:
        np.testing.assert_array_equal(
            getattr(found, field), np.concatenate([getattr(one, field) for one in alone]), field
        )


@pytest.mark.parametrize("rule", ["rejection", "traversal"])
def test_law_of_the_first_token(isa, rule):
    """3000 trees over 32000 tokens: chi-square over 20 bins of equal mass, within five standard deviations."""
    draws, vocab, random = 3000, 32000, np.random.default_rng(17)
    target = random_laws(random, 3, vocab, 2.0, 0.3)
    q = (0.5 * target[:1] + 0.5 * random_laws(random, 1, vocab, 2.0, 0.3)).astype(np.float32)
    mass = target[0].astype(np.float64).cumsum() / target[0].sum(dtype=np.float64)
    drafted = random.choice(vocab, size=(draws, 3), p=q[0].astype(np.float64) / q[0].sum(dtype=np.float64)).astype(
        np.int32
    )
    uniforms, workspace = random.random((draws, 3)), verify_tree_workspace(rule, 3, vocab)
    parents, rows = np.array([-1, 0, 0], np.int32), np.zeros(3, np.int32)
    first = [
        verify_tree(
            parents, tokens, target, rule=rule, drafts=q, draft_rows=rows, uniforms=u, workspace=workspace
        ).tokens[0]
        for tokens, u in zip(drafted, uniforms, strict=True)
    ]
    assert (target[0, first] > 0).all()
    bins = 20
    edges = np.searchsorted(mass, np.arange(1, bins) / bins)
    expected = np.diff([0.0, *mass[edges], 1.0]) * draws
    counts = np.bincount(np.searchsorted(edges, first), minlength=bins)
    assert abs(((counts - expected) ** 2 / expected).sum() - (bins - 1)) < 5 * (2 * (bins - 1)) ** 0.5


# ---- edges ----


@pytest.mark.parametrize("rule", ["rejection", "block", "traversal", "typical"])
def test_an_empty_draft_gives_one_token_of_the_target(isa, rule):
    target = np.array([[0.25, 0.0, 0.5, 0.25]], np.float32)
    for u, token in [(0.0, 0), (0.2499, 0), (0.25, 2), (0.7499, 2), (0.75, 3), (ONE, 3)]:
        found = verify_tree(
            np.array([-1], np.int32), np.array([-5], np.int32), target, rule=rule, uniforms=np.array([u])
        )
        assert [field.tolist() for field in found] == [[0], [token], [0], [token], [1]]


def test_no_trees_and_one_token(isa):
    none = np.empty(0, np.int32)
    assert verify_tree(none, none, none, offsets=np.zeros(1, np.int64)).accepted.shape == (0,)
    one = np.ones((2, 1), np.float32)
    found = verify_tree(
        np.array([-1, 0], np.int32), np.zeros(2, np.int32), one, rule="traversal", uniforms=np.full(2, ONE)
    )
    assert found.tokens.tolist() == [0, 0]


def test_the_last_token_with_mass_is_the_last_that_is_drawn(isa):
    """u close to 1 rounds to all of the mass: zeros at the end of the row are not drawn."""
    for vocab in (3, 256, 300, 700):
        target = np.zeros((1, vocab), np.float32)
        target[0, : vocab // 3 + 1] = 1 / (vocab // 3 + 1)
        found = verify_tree(
            np.array([-1], np.int32), np.zeros(1, np.int32), target, rule="rejection", uniforms=np.array([ONE])
        )
        assert found.bonus[0] == vocab // 3


def test_what_is_left_may_be_as_small_as_floats_are(isa):
    """p and q differ by entries of 1e-40 alone."""
    target = np.array([[1.0, 1e-40, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], np.float32)
    drafts = np.array([[1.0, 0.0, 1e-40]], np.float32)
    parents, rows, uniforms = np.array([-1, 0, 0], np.int32), np.zeros(3, np.int32), np.array([0.5, 0.5, 0.5])
    for rule in ("rejection", "traversal"):
        found = verify_tree(
            parents, np.array([0, 2, 2], np.int32), target, rule=rule, drafts=drafts, draft_rows=rows, uniforms=uniforms
        )
        assert found.tokens.tolist() == [1, -1, -1] and found.verdicts.tolist() == [1, -1, -1]


def test_what_is_left_of_a_peaked_row_is_summed_and_not_subtracted(isa):
    """1 - 1 + 1e-15 + 3e-15 is 3.997e-15 in doubles; the second token has a quarter of what is left, and a chance of 1/2."""
    target, drafts = np.tile(np.array([0, 0.125, 0.875], np.float32), (3, 1)), np.array([[1, 1e-15, 3e-15]], np.float32)
    tree = {"parents": np.array([-1, 0, 0], np.int32), "tokens": np.array([0, 0, 1], np.int32), "target": target}
    rows = {"drafts": drafts, "draft_rows": np.zeros(3, np.int32), "replacement": False}
    for rule in ("rejection", "traversal"):
        for u, verdict in ((0.49999, 1), (0.50001, -1)):
            found = verify_tree(**tree, **rows, rule=rule, uniforms=np.array([0.5, 0.0, u]))
            assert found.verdicts.tolist() == [1, -1, verdict]


@given(seed=seeds, rule=st.sampled_from(["rejection", "traversal"]))
def test_any_finite_rows_give_an_answer_or_a_typed_error(isa, seed, rule):
    """Entries of any magnitude, subnormal too; and rows that are no laws at all."""
    random = np.random.default_rng(seed)
    case = random_case(random, rule)
    normalised = random.random() < 0.8
    for name in ("target", "drafts"):
        rows = np.exp2(random.uniform(-149, 127, case[name].shape)) * (random.random(case[name].shape) < 0.7)
        case[name] = (rows / np.maximum(rows.sum(axis=1, keepdims=True), 2**-149) if normalised else rows).astype(
            np.float32
        )
    try:
        found = verify_tree(**case)
    except (ArgumentError, NotFiniteError):
        return
    assert (
        0 <= found.bonus[0] < case["target"].shape[1]
        and case["target"][found.path[found.accepted[0]], found.bonus[0]] > 0
    )


@pytest.mark.parametrize("rule", ["rejection", "block", "traversal", "typical"])
@given(seed=seeds, bad=st.sampled_from([np.nan, np.inf, -1.0]))
def test_only_rows_that_the_walk_comes_to_matter(isa, rule, seed, bad):
    random = np.random.default_rng(seed)
    case = random_case(random, rule)
    found = verify_tree(**case)
    parents, seen = case["parents"], np.flatnonzero(found.verdicts)
    last = found.path[found.accepted[0]]
    poisoned = dict(case)
    touched = {"target": {int(last), *parents[seen[seen > 0]].tolist()}}
    if "drafts" in case:
        touched["drafts"] = set(case["draft_rows"][seen[seen > 0]].tolist())
    for name, rows in touched.items():
        poisoned[name] = case[name].copy()
        poisoned[name][[row for row in range(len(case[name])) if row not in rows]] = bad
    for field, want in zip(verify_tree(**poisoned), found, strict=True):
        np.testing.assert_array_equal(field, want)
    whole = {("target", int(last))}  # rows that are read to their end
    for node in seen[found.verdicts[seen] < 0] if rule != "typical" else []:
        whole |= {("target", int(parents[node]))}
        whole |= {("drafts", int(case["draft_rows"][node]))} if case["draft_rows"][node] >= 0 else set()
    error = NotFiniteError if bad != -1 else ArgumentError
    for name, row in whole:
        spoilt = case[name].copy()
        spoilt[row, random.integers(spoilt.shape[1])] = bad
        with pytest.raises(error, match=rf"verify_tree: {name}\[{row}\]\[\d+\] must be finite and not negative"):
            verify_tree(**case | {name: spoilt})


@pytest.mark.parametrize("rule", ["rejection", "block", "traversal", "typical"])
@pytest.mark.parametrize("vocab", [2, 17, 1000])
@pytest.mark.parametrize("total", [0.5, 0.99, 1.01, 2.0])
def test_a_law_that_does_not_sum_to_1_is_refused_by_row_and_sum(isa, rule, vocab, total):
    """Wherever it decides: [1, 1] would have every child accepted."""
    law, wrong = np.full(vocab, 1 / vocab, np.float32), np.full(vocab, total / vocab, np.float32)
    tree = {"parents": np.array([-1, 0, 1], np.int32), "tokens": np.array([0, 1, 0], np.int32), "rule": rule}
    tree |= {"uniforms": np.zeros(3), "target": np.stack([law] * 3), "epsilon": 0.0}
    if rule != "typical":
        tree |= {"drafts": np.stack([law] * 2), "draft_rows": np.array([-1, 0, 1], np.int32)}
    verify_tree(**tree), reference_verify_tree(**tree)
    for name, row in [("target", 0), ("target", 1), ("target", 2), ("drafts", 0), ("drafts", 1)]:
        if name in tree:
            spoilt = tree[name].copy()
            spoilt[row] = wrong
            found = f"{wrong.sum(dtype=np.float64):.6g}".replace(".", r"\.")
            with pytest.raises(ArgumentError, match=rf"{name}\[{row}\] must sum to 1, .*it sums to {found}"):
                verify_tree(**tree | {name: spoilt})
            with pytest.raises(ArgumentError, match=rf"{name}\[{row}\] must sum to 1"):
                reference_verify_tree(**tree | {name: spoilt})


@pytest.mark.parametrize("vocab", [2, 50, 50257])
@pytest.mark.parametrize("places", [7, 10, 23])
def test_laws_as_16_bits_and_float_sums_leave_them_are_laws(isa, vocab, places):
    """Entries rounded to so many places after the first, as bfloat16, float16 and float32 have."""
    z = np.random.default_rng(vocab).standard_normal((2, vocab)) * 3
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    mantissa, exponent = np.frexp(p)
    p = np.ldexp(np.round(mantissa * 2 ** (places + 1)), exponent - places - 1).astype(np.float32)
    tree = {"parents": np.array([-1, 0], np.int32), "tokens": np.array([0, 1], np.int32), "target": p, "drafts": p[:1]}
    verify_tree(**tree, draft_rows=np.array([-1, 0], np.int32), rule="rejection", uniforms=np.array([0.5, 0.5]))


@given(seed=seeds, rule=st.sampled_from(["rejection", "traversal", "typical"]))
def test_writes_nothing_outside_its_workspace_and_changes_no_input(isa, seed, rule):
    case = random_case(np.random.default_rng(seed), rule)
    before = {name: value.copy() for name, value in case.items() if isinstance(value, np.ndarray)}
    needed = verify_tree_workspace(rule, len(case["parents"]), case["target"].shape[1]).size
    memory = np.full(needed + 128, 0xA5, np.uint8)
    found = verify_tree(**case, workspace=memory[64:-64])
    assert (memory[:64] == 0xA5).all() and (memory[-64:] == 0xA5).all()
    for field, want in zip(found, verify_tree(**case), strict=True):
        np.testing.assert_array_equal(field, want)
    for name, value in before.items():
        np.testing.assert_array_equal(case[name], value)


@given(seed=seeds, rule=st.sampled_from(["coupled", "rejection", "traversal", "typical"]), data=st.data())
def test_refuses_what_is_no_tree(isa, seed, rule, data):
    case = random_case(np.random.default_rng(seed), rule, nodes=9)
    node = data.draw(st.integers(0, 8))
    value = data.draw(
        st.one_of(st.integers(node, 8), st.integers(-(2**31), -2), st.just(2**31 - 1), st.just(-1 if node else 0))
    )
    case["parents"][node] = value
    with pytest.raises(ArgumentError, match=rf"verify_tree: parents\[{node}\] must .*got {value}"):
        verify_tree(**case)


def small(**change):
    """A chain of three over four tokens, with one argument changed."""
    return {
        "parents": np.array([-1, 0, 1], np.int32), "tokens": np.array([0, 1, 2], np.int32),
        "target": np.full((3, 4), 0.25, np.float32), "rule": "rejection", "uniforms": np.full(3, 0.5),
        "drafts": np.full((2, 4), 0.25, np.float32), "draft_rows": np.array([-1, 0, 1], np.int32),
    } | change  # fmt: skip


TREE = np.array([-1, 0, 0], np.int32)
DRAWN = np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rule": "best"}, "rule must be one of coupled, rejection, block, traversal, typical, got 'best'"),
        ({"rule": ["block"]}, "rule must be one of"),
        ({"parents": [-1]}, r"tokens must have shape \(1,\), got \(3,\)"),
        ({"tokens": np.zeros(2, np.int32)}, r"tokens must have shape \(3,\), got \(2,\)"),
        ({"tokens": np.array([0, 4, 0], np.int32)}, r"tokens\[1\] must lie in 0\.\.3, got 4"),
        ({"tokens": np.array([0, 0, -1], np.int32)}, r"tokens\[2\] must lie in 0\.\.3, got -1"),
        ({"target": np.zeros((3, 4))}, "target must have dtype float32, got float64"),
        ({"target": np.zeros((2, 4), np.float32)}, r"target must have shape \(3, vocab\), got \(2, 4\)"),
        ({"target": np.zeros((3, 0), np.float32)}, "target must have at least one column"),
        ({"target": np.zeros((3, 4), np.float32), "drafts": None, "draft_rows": None}, r"target\[0\] holds no mass"),
        ({"uniforms": None}, 'rule "rejection" needs uniforms'),
        ({"uniforms": np.zeros(3, complex)}, "uniforms must have dtype float64, got complex128"),
        ({"uniforms": np.array([0, 0, 1.0])}, r"uniforms\[2\] must lie in \[0, 1\), got 1\.0"),
        ({"uniforms": np.array([0, np.nan, 0])}, r"uniforms\[1\] must lie in \[0, 1\), got nan"),
        ({"uniforms": np.array([-1e-300, 0, 0])}, r"uniforms\[0\] must lie in"),
        ({"drafts": np.zeros((2, 3), np.float32)}, r"drafts must have shape \(rows, 4\), got \(2, 3\)"),
        ({"draft_rows": None}, "drafts needs draft_rows"),
        ({"draft_rows": np.array([-1, 2, 0], np.int32)}, r"draft_rows\[1\] must be -1 or a row of drafts, which has 2; got 2"),
        ({"draft_rows": np.array([-1, 0, -2], np.int32)}, r"draft_rows\[2\] must be -1 or a row"),
        ({"drafts": None}, r"draft_rows\[1\] must be -1 or a row of drafts, which has 0; got 0"),
        ({"drafts": np.array([[0.5, 0, 0.5, 0]] * 2, np.float32)}, r"tokens\[1\] = 1 cannot have been drawn from drafts\[0\]"),
        ({"parents": TREE, "tokens": np.array([0, 1, 1], np.int32), "draft_rows": DRAWN, "replacement": False,
          "target": np.array([[0.5, 0, 0.5, 0]] * 3, np.float32)}, r"tokens\[2\] = 1 cannot have been drawn from drafts\[0\]"),
        ({"parents": TREE, "rule": "block"}, r"parents\[2\] must be 1: this rule, or lenience, needs a chain; got 0"),
        ({"parents": TREE, "lenience": ("linear", 0.5)}, r"parents\[2\] must be 1: .* got 0"),
        ({"lenience": ("linear", 0.5), "rule": "traversal"}, 'lenience belongs to rule "rejection" of chains alone'),
        ({"lenience": ("linear", 0.5), "rule": "block"}, 'lenience belongs to rule "rejection" of chains alone'),
        ({"lenience": 0.5}, r"lenience must be \(name, e\), got 0\.5"),
        ({"lenience": ("cubic", 0.5)}, r"lenience\[0\] must be one of linear, square, exponential, got 'cubic'"),
        ({"lenience": ("linear", 0.0)}, r"lenience\[1\] must lie in 1e-06\.\.1, got 0"),
        ({"epsilon": np.nan}, "epsilon must lie in"),
        ({"delta": -1}, "delta must lie in"),
        ({"rule": "typical"}, 'drafts and draft_rows do not belong to rule "typical"'),
        ({"rule": "coupled", "target": DRAWN, "uniforms": None}, 'drafts and draft_rows do not belong to rule "coupled"'),
        ({"rule": "coupled", "target": DRAWN, "drafts": None, "draft_rows": None}, 'uniforms do not belong to rule "coupled"'),
        ({"offsets": np.array([0.0, 3.0])}, "offsets must have dtype int64, got float64"),
        ({"offsets": np.array([0, 0, 3])}, r"offsets must ascend from 0 to 3, at least one node a tree, got \[0, 0, 3\]"),
        ({"offsets": np.array([0, 9 * 10**18, -9 * 10**18, 3])}, "offsets must ascend from 0 to 3"),
        ({"offsets": np.array([0, 2])}, "offsets must ascend from 0 to 3"),
        ({"offsets": np.array([], np.int64)}, "offsets must ascend from 0 to 3"),
        ({"offsets": np.array([0, 1, 3])}, r"parents\[1\] \(node 0 of its tree\) must be -1: a tree has one root"),
        ({"workspace": np.zeros(100, np.uint8)}, r"workspace must have at least \d+ bytes, got 100"),
    ],
)  # fmt: skip
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        verify_tree(**small(**change))


def test_a_tree_has_a_root():
    none = np.empty(0, np.int32)
    with pytest.raises(ArgumentError, match="offsets must ascend from 0 to 0, at least one node a tree"):
        verify_tree(none, none, none)
