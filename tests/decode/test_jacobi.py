"""Jacobi decoding and lookahead: the text of plain decoding, in no more rounds than it has tokens, whatever was guessed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.decode import Auto, Costs, Draft, Jacobi, Lookahead, Request, generate
from fastdistill.decode.drafters import DraftRequest
from fastdistill.decode.jacobi import PRIORS as JACOBI_PRIORS
from fastdistill.decode.jacobi import Iterate, JacobiPace
from fastdistill.decode.lookahead import CELL, EARLIER, LATEST, LookaheadPace, Window
from fastdistill.errors import ArgumentError
from fastdistill.kernels import NgramPool
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import from_callable
from tests.decode.test_auto import FLAT, REAL, STEEP, some_costs, spent
from tests.decode.test_speculative import outcome, samplers
from tests.strategies import ALPHABET, settings_of_models, token_lists

jacobis = st.builds(
    Jacobi,
    block=st.integers(1, 9),
    init=st.sampled_from(["prompt", "random", "copy"]),
    max_blocks=st.integers(1, 3),
    spawn=st.sampled_from([0.0, 0.5, 0.85, 1.0]),
    recycle=st.booleans(),
    candidates=st.integers(1, 3),
    adaptive=st.booleans(),
    costs=st.sampled_from([FLAT, REAL, STEEP, None]),
    trace=st.booleans(),
)
lookaheads = st.builds(
    Lookahead,
    window=st.integers(0, 4),
    ngram=st.integers(2, 5),
    guesses=st.integers(0, 4),
    init=st.sampled_from(["prompt", "random", "copy"]),
    from_text=st.booleans(),
    adaptive=st.booleans(),
    costs=st.sampled_from([FLAT, REAL, STEEP, None]),
)
decoders = st.one_of(jacobis, lookaheads)


@settings(max_examples=40)
@given(
    setting=settings_of_models, prompt=token_lists(1, 30), count=st.integers(1, 24), sampler=samplers, decoder=decoders,
    capacity=st.integers(30, 60), ends=st.frozensets(st.integers(0, ALPHABET - 1), max_size=1),
)  # fmt: skip
def test_the_text_is_that_of_plain_decoding(isa, setting, prompt, count, sampler, decoder, capacity, ends):
    """To the last token: at the end of text, at max_tokens, where the session is full; and it leaves the same session."""
    plain = outcome(setting, prompt, count, sampler, None, capacity, ends)
    assert outcome(setting, prompt, count, sampler, decoder, capacity, ends) == plain


# ---- an oracle without a model: strictly lower-triangular systems over the integers modulo V ----


class System:
    """x[i] = b[i] + sum over j < i of a[i, j] x[j], modulo V; solved from above, one unknown after another."""

    def __init__(self, n: int, modulus: int, density: float, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.n, self.modulus = n, modulus
        self.a = np.tril(random.integers(0, modulus, (n + 1, n + 1)) * (random.random((n + 1, n + 1)) < density), -1)
        self.b = random.integers(0, modulus, n + 1)
        self.forwards = 0
        x = np.zeros(n + 1, np.int64)
        for i in range(n + 1):
            x[i] = (self.b[i] + self.a[i, :i] @ x[:i]) % modulus
        self.solution = x

    def logits(self, tokens):
        self.forwards += 1
        n = len(tokens)
        after = (self.b[1 : n + 1] + np.tril(self.a[1 : n + 1, :n]) @ tokens) % self.modulus
        return np.eye(self.modulus, dtype=np.float32)[after]


@settings(max_examples=80)
@given(
    n=st.integers(1, 30), modulus=st.integers(1, 9), density=st.sampled_from([0.0, 0.1, 0.5, 1.0]), decoder=decoders,
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_triangular_systems_are_solved(n, modulus, density, decoder, seed):
    system = System(n, modulus, density, seed)
    result = generate(from_callable(system.logits, modulus), [int(system.solution[0])], n, decoder=decoder)
    assert result.tokens == system.solution[1:].tolist()
    assert result.stats.forwards <= max(n - 1, 0)  # beside the prompt's, which gives the first
    if isinstance(decoder, Jacobi) and not decoder.recycle:  # chains: a function is called once a forward
        assert system.forwards == result.stats.forwards + 1
    assert sum(tokens * rounds for tokens, rounds in result.tokens_of_rounds.items()) >= len(result.tokens) - 1


@settings(max_examples=60)
@given(
    n=st.integers(2, 30), modulus=st.integers(2, 9), density=st.sampled_from([0.0, 0.1, 0.5, 1.0]), jacobi=jacobis,
    seed=st.integers(0, 2**32), temperature=st.sampled_from([0.0, 1.0]),
)  # fmt: skip
def test_what_is_agreed_stays_and_what_is_drawn_is_kept(n, modulus, density, jacobi, seed, temperature):
    """The trace of every round: what of it was accepted is the text from there on, and a window is no longer than its blocks."""
    system, traced = System(n, modulus, density, seed), replace(jacobi, trace=True)
    sampler = Sampler(temperature=temperature, seed=seed)
    result = generate(from_callable(system.logits, modulus), [int(system.solution[0])], n, sampler, decoder=traced)
    at = 1  # tokens of the text before the round
    for round in result.rounds:
        if not round.recycled:
            assert list(round.guesses[: round.accepted]) == result.tokens[at : at + round.accepted]
        assert len(round.guesses) <= jacobi.block * jacobi.max_blocks
        at += round.accepted + 1
    assert at >= len(result.tokens)


def map_of(vocab, seed=0):
    return np.random.default_rng(seed).permutation(vocab)


def markov(successors):
    """A law that knows the last token alone."""
    return from_callable(lambda tokens: np.eye(len(successors), dtype=np.float32)[successors[tokens]], len(successors))


@pytest.mark.parametrize("block, most", [(8, 1), (4, 3), (1, 8)])
def test_an_iteration_is_that_of_jacobi(block, most):
    """Against the iteration over a whole text at once: y <- draws(y), the seed in front; all guesses of a window."""
    successors, n = map_of(11), 40
    decoder = Jacobi(block, "copy", most, 0.0, recycle=False, adaptive=False, trace=True)
    result = generate(markov(successors), [3], n, decoder=decoder)
    assert [round.accepted for round in result.rounds] == [0] * (
        n - 1
    )  # a permutation forgets nothing: one token a round
    text, guesses = [3, *result.tokens], None
    for number, round in enumerate(result.rounds):
        seed = text[number + 1]
        if guesses is not None:  # those that the last round drew; beyond them a made-up one repeats the last
            drawn = successors[[text[number], *guesses]].tolist()[1:]
            assert list(round.guesses[: len(drawn)]) == drawn[: len(round.guesses)]
        else:
            assert set(round.guesses) == {seed}
        guesses = list(round.guesses)[: round.drafted]


def test_a_law_that_forgets_converges_at_once():
    """Tokens by position alone: the second iteration knows the whole block."""
    step = from_callable(lambda t: np.eye(50, dtype=np.float32)[(7 * np.arange(len(t)) + 3) % 50], 50)
    result = generate(step, [0], 100, decoder=Jacobi(16, recycle=False, adaptive=False))
    assert result.stats.tokens_per_forward > 7
    assert result.tokens_of_rounds[1] == max(result.tokens_of_rounds.values())
    assert sum(result.tokens_of_rounds.values()) == result.stats.forwards == len(result.rounds)
    sliding = generate(step, [0], 100, decoder=Jacobi(1, max_blocks=16, spawn=0, recycle=False, adaptive=False))
    assert sliding.stats.forwards <= result.stats.forwards
    two = generate(step, [0], 100, decoder=Jacobi(16, max_blocks=2, recycle=False, adaptive=False))
    assert two.stats.forwards <= result.stats.forwards and two.tokens == sliding.tokens == result.tokens


def test_refused_guesses_come_back_where_they_fit():
    """A text that has come to know a phrase too early: recycled, it is a whole n-gram in one round."""
    pool = NgramPool(5)
    pool.insert(np.array([4, 5, 6, 7, 8], np.int32))
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    knows = from_callable(lambda t: np.eye(10, dtype=np.float32)[[text[(i + 1) % 10] for i in range(len(t))]], 10)
    ours = generate(knows, [1, 2, 3], 7, decoder=Jacobi(2, "copy", pool=pool, adaptive=False))
    assert ours.tokens == text[3:]
    assert (
        ours.stats.recycled == sum(round.recycled for round in ours.rounds) == 4 - 1
    )  # the room for a fourth is the window's
    assert generate(knows, [1, 2, 3], 7, decoder=Jacobi(2, "copy", adaptive=False)).stats.recycled == 0


# ---- lookahead ----


@given(
    vocab=st.integers(2, 40), seed=st.integers(0, 99), window=st.integers(1, 6), ngram=st.integers(2, 5), guesses=st.integers(0, 3),
    temperature=st.sampled_from([0.0, 1.0]),
)  # fmt: skip
def test_what_a_window_makes_are_trajectories(vocab, seed, window, ngram, guesses, temperature):
    """Under a law that knows the last token alone, each token of an n-gram is drawn after the one before it, from the second one on."""
    successors, pool = map_of(vocab, seed), NgramPool(ngram)
    decoder = Lookahead(window, ngram, guesses, from_text=False, pool=pool, adaptive=False)
    law = from_callable(lambda tokens: 1e3 * np.eye(vocab, dtype=np.float32)[successors[tokens]], vocab)
    generate(law, [0], 30, Sampler(temperature=temperature, seed=seed), decoder=decoder)
    found = 0
    for token in range(vocab):
        for rest in pool.lookup(token):
            found += 1
            assert (successors[[token, *rest[:-1]]] == rest).all()
    assert found > 0 or vocab < 9 or window < 3  # a column that the text has passed is dropped


def test_a_window_finds_what_the_text_then_says():
    """Under a permutation of few tokens, a window soon holds every n-gram: each round gives a whole one."""
    for decoder in (Lookahead(4, 4, 2, from_text=False, adaptive=False), Lookahead(0, 4, 2, adaptive=False)):
        ours = generate(markov(map_of(7)), [3], 80, decoder=decoder)
        assert ours.tokens == generate(markov(map_of(7)), [3], 80).tokens
        assert ours.stats.tokens_per_forward > 2


def test_pools_are_shared_where_one_is_given():
    pool = NgramPool(4)
    decoder = Lookahead(0, 4, 2, pool=pool, adaptive=False)
    first = generate(markov(map_of(30)), [3], 30, decoder=decoder)
    again = generate(markov(map_of(30)), [3], 30, decoder=decoder)
    assert again.tokens == first.tokens and again.stats.forwards < first.stats.forwards and len(pool) > 0


# ---- what they may cost ----


@settings(max_examples=40)
@given(
    costs=some_costs, density=st.sampled_from([0.0, 0.05, 0.3, 1.0]), n=st.integers(2, 120), seed=st.integers(0, 2**32),
    make=st.sampled_from([lambda c: Jacobi(costs=c), lambda c: Jacobi(4, max_blocks=3, costs=c), lambda c: Lookahead(costs=c)]),
)  # fmt: skip
def test_a_text_never_costs_more_than_the_credit_and_the_share(costs, density, n, seed, make):
    system = System(n, 7, density, seed)
    result = generate(from_callable(system.logits, 7), [int(system.solution[0])], n, decoder=make(costs))
    ours, plain = spent(result, costs, 1)
    pace = JacobiPace if isinstance(make(costs), Jacobi) else LookaheadPace
    assert ours <= (1 + pace.share) * plain + pace.credit * costs(1, 0) + 1e-9


def coupled(share, vocab=97, seed=0):
    """Tokens by position, and, in this share of the positions, by the token before too: what a model trained for Jacobi comes near."""

    def function(tokens):
        places = np.arange(len(tokens), dtype=np.uint64) + np.uint64(1000 * seed)
        noise = (places * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
        knows = noise % np.uint64(1000) < 1000 * share
        after = (noise.astype(np.int64) + 31 * np.where(knows, tokens, 0)) % vocab
        return np.eye(vocab, dtype=np.float32)[after]

    return from_callable(function, vocab)


def gain(decoder, share, n=200):
    spending = [spent(generate(coupled(share, seed=seed), [1], n, decoder=decoder), REAL, 1) for seed in range(3)]
    return sum(plain for _, plain in spending) / sum(ours for ours, _ in spending)


def test_windows_grow_where_iterates_converge_and_rest_where_they_do_not():
    adaptive, full = Jacobi(recycle=False, costs=REAL), Jacobi(recycle=False, adaptive=False)
    assert gain(adaptive, 0.1) > 1.4 and gain(adaptive, 0.5) > 1.15
    assert gain(adaptive, 1.0) > 0.97 > 0.5 > gain(full, 1.0)
    resting = generate(coupled(1.0), [1], 300, decoder=adaptive)
    assert sum(round.drafted for round in resting.rounds) < 45  # of 300 rounds
    free = generate(coupled(0.5), [1], 200, decoder=Jacobi(recycle=False, costs=FLAT))
    assert np.mean([round.drafted for round in free.rounds]) > 8  # every row is free: the whole block
    steep = generate(coupled(0.0), [1], 200, decoder=Jacobi(costs=STEEP))
    assert steep.stats.drafted <= 4


def test_a_lookahead_window_is_kept_where_rows_are_free_and_left_out_where_they_are_dear():
    free = generate(coupled(0.2), [1], 200, decoder=Lookahead(from_text=False, costs=FLAT))
    dear = generate(coupled(0.2), [1], 200, decoder=Lookahead(from_text=False, costs=STEEP))
    assert free.stats.drafted / free.stats.forwards > 10 and free.stats.tokens_per_forward > 1.5
    assert dear.stats.drafted < 5


def test_where_nobody_has_timed_a_session_rows_are_taken_to_cost_an_eighth():
    request = Request(np.array([1], np.int32), 0, Sampler())
    assert request.costs(np.array([1, 2, 9]), 50).tolist() == [1.0, 1.125, 2.0]
    known = Request(np.array([1], np.int32), 0, Sampler(), measured_costs=lambda: STEEP)
    assert (
        known.costs == STEEP and replace(known, max_tokens=1).costs != STEEP
    )  # nothing is measured for a text of one token


# ---- sessions and settings ----


def test_an_interrupt_leaves_a_session_that_goes_on():
    for decoder in (Jacobi(adaptive=False), Lookahead(adaptive=False)):
        law, calls = from_callable(lambda t: np.eye(9, dtype=np.float32)[(t + 1) % 9], 9), []

        def interrupted(asked, run=law.run, calls=calls):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return run(asked)

        law.run = interrupted
        with pytest.raises(KeyboardInterrupt):
            generate(law, [1, 2, 3], 20, decoder=decoder)
        del law.run
        assert generate(law, [1, 2, 3], 20, decoder=decoder).tokens == [(4 + i) % 9 for i in range(20)]


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Jacobi(0), "block must lie in 1"),
        (lambda: Jacobi(64, max_blocks=64), r"block \* max_blocks must be at most 512, got 4096"),
        (lambda: Jacobi(init="zeros"), "init must be one of prompt, random, copy, got 'zeros'"),
        (lambda: Jacobi(init=["prompt"]), "init must be one of"),
        (lambda: Jacobi(spawn=2), "spawn must lie in 0..1"),
        (lambda: Jacobi(candidates=0), "candidates must lie in 1"),
        (lambda: Jacobi(pool=7), "pool must be an NgramPool, got int"),
        (lambda: Jacobi(pool=NgramPool(5, key=2)), "pool must have key=1, got key=2"),
        (lambda: Jacobi(costs=3), "costs must be Costs, got int"),
        (lambda: Lookahead(-1), "window must lie in 0"),
        (lambda: Lookahead(256), r"\(window \+ guesses\) \* \(ngram - 1\) must be at most 1024, got 1052"),
        (lambda: Lookahead(from_text=1), "from_text must be True or False, got 1"),
        (lambda: Jacobi(recycle="no"), "recycle must be True or False, got 'no'"),
        (lambda: Jacobi(np.int8(100), max_blocks=np.int8(100)), "must be at most 512, got 10000"),
        (lambda: Jacobi(init=np.array(["a", "b"])), "init must be one of"),
        (lambda: Lookahead(ngram=1), "ngram must lie in 2"),
        (lambda: Lookahead(guesses=65), "guesses must lie in 0..64"),
        (lambda: Lookahead(pool=NgramPool(4)), "pool must have key=1 and ngram=5, got key=1 and ngram=4"),
        (lambda: Lookahead(costs="auto"), "costs must be Costs, got str"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, text):
    with pytest.raises(ArgumentError, match=text):
        make()


# ---- the parts, by themselves ----


def iterate_of(jacobi, prompt=(1, 2, 3)):
    session = markov(map_of(50))
    return Iterate(jacobi, None, DraftRequest(np.array(prompt, np.int32), session, Sampler()))


def round_of(iterate, seed, draws, budget=40):
    """One round of a run: what was guessed, by kind; then it is told the draws, of which the leading right ones count."""
    draft = iterate.propose(budget)
    drawn = np.array(draws(seed, draft.tokens), np.int32)
    iterate.observe(np.arange(len(draft)), drawn)
    right = 0
    while right < len(draft) and drawn[right] == draft.tokens[right]:
        right += 1
    iterate.accept(drawn[: right + 1].tolist(), np.arange(right), {})
    return draft, int(drawn[right])


def test_guesses_are_told_apart_by_how_often_they_were_drawn():
    iterate = iterate_of(Jacobi(4, "copy", recycle=False))
    iterate.accept([7], (), {})
    kinds, seed = [], 7
    for number in range(6):
        draft, seed = round_of(iterate, seed, lambda s, tokens, n=number: np.arange(len(tokens) + 1) + 10 * n + 10)
        kinds.append(draft.kinds.tolist())
    # The block of four loses one a round; the next one begins with what was drawn after the last.
    assert kinds == [[0, 0, 0, 0], [1, 1, 1], [2, 2], [3], [1, 0, 0, 0], [1, 1, 1]]


def test_what_is_refused_and_what_is_drawn_goes_to_the_pool():
    pool = NgramPool(5)
    iterate = iterate_of(Jacobi(8, "copy", pool=pool))
    iterate.accept([7], (), {})
    round_of(iterate, 7, lambda s, tokens: np.arange(len(tokens) + 1) + 20)
    assert [7, 7, 7, 7] in pool.lookup(7).tolist()  # the refused guesses
    assert pool.lookup(20).tolist() == [[21, 22, 23, 24]]  # the new seed and the next iterate
    draft = iterate.propose(40)
    assert (
        draft.tokens[:7].tolist() == list(range(21, 28)) and len(draft) == 7
    )  # the pool says the same: it stands once


def test_a_pseudo_block_that_settles_makes_place_for_the_next():
    """The real block stays wrong; the one behind it does not change any more: so a third one begins."""
    iterate = iterate_of(Jacobi(8, "copy", max_blocks=3, spawn=0.5, recycle=False))
    iterate.accept([7], (), {})
    seed, sizes = 7, []
    for number in range(7):  # the next token is never the guess, those after it depend on their place in the text alone
        draft, seed = round_of(iterate, seed, lambda s, tokens, n=number: [30 + n, *range(n + 1, n + 1 + len(tokens))])
        sizes.append(len(draft))
    # After four rounds half of the real block is text: a pseudo block.  One round draws it, one more finds it settled.
    assert sizes == [8, 7, 6, 5, 4 + 8, 3 + 8, 2 + 8 + 8]
    assert len(iterate.guesses) == 1 + 8 + 8


def test_pool_and_window_are_told_apart():
    pool = NgramPool(3)
    pool.insert(np.array([[7, 8, 9], [7, 8, 5], [7, 1, 2]], np.int32))
    window = Window(
        Lookahead(2, 3, 2, "copy", from_text=False, pool=pool),
        None,
        DraftRequest(np.array([1], np.int32), markov(map_of(50)), Sampler()),
    )
    window.accept([7], (), {})
    draft = window.propose(40)
    kinds = {(draft.tokens[i], draft.parents[i]): kind for i, kind in enumerate(draft.kinds.tolist())}
    assert kinds == {
        (7, -1): CELL,
        (7, 0): CELL,
        (7, 1): CELL,
        (1, -1): LATEST,
        (2, 3): LATEST,
        (8, -1): EARLIER,
        (5, 5): EARLIER,
    }


def test_what_a_lookahead_pool_gave_is_counted():
    ours = generate(markov(map_of(7)), [3], 40, decoder=Lookahead(0, 4, 2, adaptive=False))
    assert ours.stats.recycled == ours.stats.accepted > 10


def test_a_round_that_ends_the_text_with_a_guess_gives_no_token_more():
    step = from_callable(lambda t: np.eye(9, dtype=np.float32)[(np.arange(len(t)) + 1) % 9], 9)
    for end in range(2, 9):
        ours = generate(step, [0], 30, end_tokens=frozenset({end}), decoder=Jacobi(4, "copy", adaptive=False))
        assert ours.tokens[-1] == end
        assert sum(tokens * rounds for tokens, rounds in ours.tokens_of_rounds.items()) == len(ours.tokens) - 1


def test_a_pool_that_knows_other_tokens_changes_no_text():
    pool = NgramPool(5)
    pool.insert(np.array([[s, wrong, 1, 1, 1] for s in range(50) for wrong in (70, -3)], np.int32))
    law = map_of(50)
    for decoder in (Jacobi(pool=pool, adaptive=False), Lookahead(pool=pool, adaptive=False)):
        assert (
            generate(markov(law), [1, 2, 3], 20, decoder=decoder).tokens == generate(markov(law), [1, 2, 3], 20).tokens
        )


@pytest.mark.parametrize(
    "decoder", [Lookahead(adaptive=False), Jacobi(adaptive=False), Jacobi(pool=NgramPool(9), adaptive=False)]
)
@pytest.mark.parametrize("count", [12, 28, 30])
def test_where_room_is_short_guesses_of_the_pool_come_first(decoder, count):
    law = map_of(7)
    text = generate(markov(law), [3], 80).tokens
    pool = NgramPool(decoder.pool.ngram if decoder.pool else 5)
    pool.insert(np.array(text, np.int32))
    ours = generate(markov(law), text[-40:], count, decoder=replace(decoder, pool=pool))
    assert ours.stats.recycled > 0 and ours.stats.forwards < count - 2


def test_a_width_is_judged_by_rounds_that_had_it():
    pace = LookaheadPace(Lookahead(costs=FLAT), Request(np.array([1], np.int32), 0, Sampler()))
    before = list(pace._tokens)
    for _ in range(12):  # no room for a window
        assert pace.window(10, 0) == 0
        pace.choose(Draft(()), 10)
        pace.learn(np.empty(0, np.int8))
    assert pace._tokens[1:] == before[1:]
    steep = LookaheadPace(Lookahead(costs=STEEP), Request(np.array([1], np.int32), 0, Sampler()))
    steep.window(10, 7)
    steep._ran, cost = 3, steep._spent[0]
    steep._kinds, steep._seconds = [-1] * 5, [9.0] * 9
    for _ in range(40):
        steep.learn(np.zeros(5, np.int8))
    assert steep._spent[3] == pytest.approx(9.0, rel=0.01) and steep._spent[0] == pytest.approx(cost)


def test_a_window_that_was_given_up_is_tried_again_and_long_enough():
    """Nothing to learn for 150 tokens, then a permutation of seven: rows cost next to nothing."""

    def late(tokens):
        places = np.arange(len(tokens))
        return np.eye(97, dtype=np.float32)[
            np.where(places < 150, (tokens * 31 + places * 2654435761 % 1000003) % 97, (tokens * 3 + 1) % 7)
        ]

    cheap = Costs((1, 2), (0, 1), ((1.0, 1.005), (1.0, 1.005)))
    ours = generate(from_callable(late, 97), [1], 900, decoder=Lookahead(from_text=False, costs=cheap))
    assert ours.stats.forwards < 600


def test_lengths_are_weighed_ever_more_rarely_where_none_pays():
    pace, weighed = JacobiPace(STEEP, JACOBI_PRIORS), []
    best = pace._best
    pace._best = lambda context: weighed.append(number) or best(context)
    for number in range(300):  # noqa: B007
        if not pace.rests(10):
            pace.window(10, 16)
    assert np.diff(weighed).tolist() == [17, 33, 65, 129]


def test_what_a_first_window_may_cost_leaves_enough_for_a_second_round():
    pace = JacobiPace(REAL, JACOBI_PRIORS)
    plain = pace.seconds(np.zeros(1, int), 10)[0]
    length = pace.window(10, 64)
    assert length > 0 and 2 * (pace.seconds(np.array([length]), 10)[0] - plain) <= pace.room(plain)


def test_texts_that_share_forwards_guess_less():
    alone, among = JacobiPace(FEW, JACOBI_PRIORS), JacobiPace(FEW, JACOBI_PRIORS)
    among.shared_by(16)
    length = alone.window(10, 64)
    assert length > among.window(10, 64)
    among.shared_by(1)  # the others have ended
    assert among.window(10, 64) == length


def test_what_does_not_pay_among_others_is_weighed_anew_when_they_have_ended():
    """Rests have become long by then; none of them is sat out, and they begin short again."""
    pace, weighed = JacobiPace(STEEP, JACOBI_PRIORS), []
    pace.shared_by(8)
    best = pace._best
    pace._best = lambda context: weighed.append(number) or best(context)
    for number in range(150):
        pace.shared_by(8 if number < 120 else 1)
        if not pace.rests(10):
            pace.window(10, 16)
    assert weighed == [0, 17, 50, 115, 123, 140]


def test_a_window_is_priced_for_those_who_share_its_forward():
    request = Request(np.array([1], np.int32), 0, Sampler())
    among, alone = (LookaheadPace(Lookahead(costs=REAL), request) for _ in range(2))
    among.shared_by(16)
    for pace in (among, alone):
        pace.window(10, 7)
    assert among._spent != pytest.approx(alone._spent)
    among.shared_by(1)
    among.window(10, 7)
    assert among._spent == pytest.approx(alone._spent) and among._first == alone._first


FEW = Costs((1, 8, 16), (0, 100), 2 * ((1.0, 1.1, 8.0),))  # rows are free up to eight


def test_what_is_made_up_behind_guesses_repeats_the_last_of_them():
    iterate = iterate_of(Jacobi(4, "copy", recycle=False))
    iterate.accept([7], (), {})
    round_of(
        iterate, 7, lambda s, tokens: [*tokens, 33]
    )  # all right: one more than the block, and the next one is empty
    assert iterate.propose(40).tokens.tolist() == [33, 33, 33]
    other = iterate_of(Jacobi(2, "copy", recycle=False))
    other.accept([7], (), {})
    round_of(other, 7, lambda s, tokens: [20, 21, 22])
    round_of(other, 20, lambda s, tokens: [30, 31])
    assert other.propose(40).tokens.tolist() == [31, 31]  # drawn beyond the block, and made up after it


def test_the_first_wrong_guess_is_kept_too():
    pool = NgramPool(5)
    iterate = iterate_of(Jacobi(8, "copy", pool=pool))
    iterate.accept([7], (), {})
    round_of(iterate, 7, lambda s, tokens: np.arange(len(tokens) + 1) + 20)
    round_of(iterate, 20, lambda s, tokens: np.arange(len(tokens) + 1) + 30)
    assert [22, 23, 24, 25] in pool.lookup(21).tolist()


def test_a_drafter_that_observes_hears_of_those_that_were_checked():
    heard = []

    class Watching:
        priors = ((8.0, 0.2), (0.01, 9.0))

        def start(self, request):
            self.text = request.prompt.tolist()
            return self

        def propose(self, budget):
            right = [(self.text[-1] + 1 + i) % 9 for i in range(3)]
            return Draft([0, *right, 0][:budget], [-1, -1, 1, 2, -1][:budget], kinds=np.array([1, 0, 0, 0, 1][:budget]))

        def observe(self, chosen, drawn):
            heard.append((chosen.tolist(), drawn.tolist()))

        def accept(self, tokens, path, taps):
            self.text += tokens

    law = from_callable(lambda t: np.eye(9, dtype=np.float32)[(t + 1) % 9], 9)
    generate(law, [0], 20, decoder=Auto(FEW, Watching()))
    assert ([1, 2, 3], [2, 3, 4, 5]) in heard  # seed 1: it draws 2, the guesses 2, 3, 4 draw 3, 4, 5
