"""Constraints: every decoder writes constrained plain decoding's text, every text is what the constraint asks for, laws are the constrained ones."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.decode import (
    BeamSearch,
    CallableDrafter,
    Jacobi,
    Lookahead,
    Speculative,
    Tree,
    Unmask,
    generate,
)
from fastdistill.decode.auto import Auto
from fastdistill.decode.constraint import Guided
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import from_callable
from tests.decode.test_speculative import NAMES, drafters, guessing, samplers
from tests.strategies import ALPHABET, settings_of_models, token_lists

END = ALPHABET  # ends texts; others are 0 .. ALPHABET - 1, and what a model has beside


class Automaton:
    """Of few states, drawn by a seed: each has tokens that lead on, or lets the text end, or both. It counts what it is asked."""

    def __init__(self, seed: int, states: int = 5, bits: str = "ids") -> None:
        random = np.random.default_rng(seed)
        self._bits = bits
        self._arrows = [
            {int(token): int(random.integers(states)) for token in np.flatnonzero(random.random(ALPHABET) < random.choice([0.15, 0.5]))}
            for _ in range(states)
        ]  # fmt: skip
        self._ends = [not arrows or random.random() < 0.2 for arrows in self._arrows]

    def start(self):
        return 0

    def advance(self, state, token):
        return self._arrows[state].get(token)

    def mask(self, state):
        ids = sorted(self._arrows[state])
        if self._bits == "ids":
            return ids
        chosen = np.zeros(-(-self.vocab // 32) * 32, bool)
        chosen[ids] = True
        return chosen[: self.vocab] if self._bits == "bool" else np.packbits(chosen, bitorder="little").view(np.uint32)

    def may_end(self, state):
        return self._ends[state]

    def reads(self, tokens):
        """The state behind tokens, None where it refuses them."""
        state = 0
        for token in tokens:
            if state is not None:
                state = self._arrows[state].get(token)
        return state


class Guessing(Automaton):
    """One that guesses too, rightly and wrongly."""

    def guess(self, state, most):
        found = []
        while len(found) < most and self._arrows[state]:
            found.append(next(iter(self._arrows[state])))
            state = self._arrows[state][found[-1]]
        return found


def outcome(setting, prompt, count, sampler, constraint, decoder=None, capacity=96):
    session = setting.session(capacity, taps=getattr(decoder, "taps", ()))
    result = generate(session, prompt, count, sampler, frozenset([END]), decoder, constraint=constraint)
    return result.tokens, result.finish_reason, session.length, session.pending, session.tokens.tolist()


DECODERS = {
    **{name: lambda setting, tree, name=name: Speculative(drafters(name, setting, tree is not None), tree=tree, max_draft=6) for name in NAMES},
    "auto": lambda setting, tree: Auto(drafter=guessing(3, setting.vocab)),
    "jacobi": lambda setting, tree: Jacobi(adaptive=False, block=5),
    "jacobi, adaptive": lambda setting, tree: Jacobi(),
    "lookahead": lambda setting, tree: Lookahead(),
}  # fmt: skip


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=10)
@given(
    setting=settings_of_models, prompt=token_lists(1, 20), count=st.integers(1, 24), sampler=samplers, seed=st.integers(0, 10**6),
    kind=st.sampled_from([Automaton, Guessing]), tree=st.sampled_from([None, Tree(3, 3)]), capacity=st.integers(24, 60),
)  # fmt: skip
def test_the_text_is_that_of_constrained_plain_decoding(
    isa, name, setting, prompt, count, sampler, seed, kind, tree, capacity
):
    tree = None if name == "layers" else tree
    constraint = kind(seed)
    plain = outcome(setting, prompt, count, sampler, constraint, capacity=capacity)
    assert outcome(setting, prompt, count, sampler, constraint, DECODERS[name](setting, tree), capacity) == plain
    tokens, reason = plain[:2]
    written = tokens[:-1] if tokens and tokens[-1] == END else tokens
    state = constraint.reads(written)
    assert state is not None and END not in written
    assert (reason == "stop") == (written != tokens) and reason in ("stop", "length", "capacity")
    if reason == "stop":
        assert constraint.may_end(state)


@settings(max_examples=30)
@given(
    setting=settings_of_models,
    prompt=token_lists(1, 20),
    count=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    num_beams=st.integers(2, 4),
)
def test_beams_are_held_too(setting, prompt, count, seed, num_beams):
    constraint = Automaton(seed)
    session = setting.session(96)
    result = generate(session, prompt, count, None, frozenset([END]), BeamSearch(num_beams), constraint=constraint)
    for each in [result, *result.runners_up]:
        written = each.tokens[:-1] if each.tokens[-1:] == [END] else each.tokens
        state = constraint.reads(written)
        assert state is not None and (written == each.tokens or constraint.may_end(state))


def test_enough_beams_find_the_likeliest_text_of_all():
    log_probs = TABLE - np.log(np.exp(TABLE).sum(axis=1, keepdims=True))
    totals = {
        text: sum(log_probs[last, token] for last, token in zip((1, *text), text, strict=False)) for text in law(3)
    }
    best = max(totals, key=totals.get)
    session = from_callable(lambda ids: TABLE[ids], vocab_size=5)
    result = generate(session, [1], 3, None, frozenset([4]), BeamSearch(64, length_penalty=0.0), constraint=Even())
    assert tuple(result.tokens) == best and result.score == pytest.approx(totals[best], abs=1e-5)
    assert {tuple(each.tokens) for each in (result, *result.runners_up)} == set(totals)


@settings(max_examples=20)
@given(setting=settings_of_models, prompt=token_lists(1, 20), seed=st.integers(0, 10**6), sampler=samplers)
def test_a_mask_may_be_ids_bools_or_bits(setting, prompt, seed, sampler):
    texts = []
    for bits in ("ids", "bool", "bits"):
        constraint = Automaton(seed, bits=bits)
        constraint.vocab = setting.session(8).vocab_size
        texts.append(outcome(setting, prompt, 12, sampler, constraint))
    assert texts[1:] == texts[:1] * 2


class Free:
    """All may follow, and the text may end anywhere."""

    def start(self):
        return ()

    def advance(self, state, token):
        return (*state, token)

    def mask(self, state):
        return None

    def may_end(self, state):
        return True


@settings(max_examples=20)
@given(setting=settings_of_models, prompt=token_lists(1, 20), sampler=samplers)
def test_a_constraint_that_allows_all_changes_nothing(setting, prompt, sampler):
    free = outcome(setting, prompt, 12, sampler, Free())
    session = setting.session(96)
    result = generate(session, prompt, 12, sampler, frozenset([END]))
    assert free == (result.tokens, result.finish_reason, session.length, session.pending, session.tokens.tolist())


TABLE = np.random.default_rng(5).normal(0, 1, (5, 5)).astype(np.float32)  # logits after each token; 4 ends


class Even:
    """Token 0 twice, or not at all; no 3; it ends when it is even."""

    def start(self):
        return 0

    def advance(self, state, token):
        return None if token == 3 else state ^ (token == 0)

    def mask(self, state):
        return [0, 1, 2]

    def may_end(self, state):
        return state == 0


def law(length: int) -> dict[tuple[int, ...], float]:
    """Of the texts of at most so many tokens after token 1, by enumeration."""
    found = {}
    for text in product(range(5), repeat=length):
        chance, last, state, written = 1.0, 1, 0, []
        for token in text:
            allowed = [0, 1, 2] + [4] * (state == 0)
            if token not in allowed:
                chance = 0.0
                break
            weights = np.exp(TABLE[last].astype(np.float64))
            chance *= weights[token] / weights[allowed].sum()
            written.append(token)
            if token == 4:
                break
            last, state = token, state ^ (token == 0)
        if chance:
            found[tuple(written)] = chance
    return found


@pytest.mark.parametrize("rule", ["coupled", "rejection", "block", "traversal"])
def test_rules_that_keep_the_law_keep_the_constrained_law(rule):
    expected, count = law(3), 3000
    assert abs(sum(expected.values()) - 1) < 1e-9

    def function(text, budget):
        random = np.random.default_rng([len(text), int(text[-1])])
        return random.integers(0, 5, min(budget, 3))

    decoder, seen = Speculative(CallableDrafter(function), rule=rule), Counter()
    for seed in range(count):
        session = from_callable(lambda ids: TABLE[ids], vocab_size=5)
        result = generate(
            session, [1], 3, Sampler(temperature=1.0, seed=seed), frozenset([4]), decoder, constraint=Even()
        )
        seen[tuple(result.tokens)] += 1
    assert set(seen) <= set(expected)
    for text, chance in expected.items():
        assert abs(seen[text] / count - chance) < 5 * np.sqrt(chance * (1 - chance) / count) + 1e-9, text


def test_what_a_constraint_leaves_no_choice_in_is_guessed():
    class Fixed(Even):
        def advance(self, state, token):
            return state + 1

        def mask(self, state):
            return [[2, 0, 1][state % 3]] if state < 12 else []

        def may_end(self, state):
            return state == 12

    session = from_callable(lambda ids: TABLE[ids], vocab_size=5)
    decoder = Speculative(CallableDrafter(lambda text, budget: []), max_draft=6)
    result = generate(session, [1], 30, None, frozenset([4]), decoder, constraint=Fixed())
    assert result.tokens == [2, 0, 1] * 4 + [4] and result.finish_reason == "stop"
    assert result.stats.forwards == 2  # behind that of the prompt, which gives a token: 7 and 5 of them
    plain = generate(
        from_callable(lambda ids: TABLE[ids], vocab_size=5), [1], 30, None, frozenset([4]), constraint=Fixed()
    )
    assert plain.tokens == result.tokens and plain.stats.forwards == 12


def test_states_of_guesses():
    guided = Guided(Even(), frozenset([4]), 5)
    places = guided.after([0, 0, 3, 4, 1], [-1, 0, -1, -1, 2])
    assert [place and place.state for place in places] == [0, 1, 0, None, None, None]
    assert guided.keeps([0, 0, 3, 4, 1, 4], [-1, 0, -1, -1, 2, 0]).tolist() == [
        0,
        1,
        3,
    ]  # it may end at once, not behind one 0
    assert guided.masks([places[0], places[1], None]).tolist() == [[0b10111], [0b00111], [0xFFFFFFFF]]
    guided.write([0, 1, 0, 4, 3])  # what is behind the end is no part of it
    assert guided.here.state == 0


class DeadEnd(Even):
    """Nothing may follow a 1."""

    def advance(self, state, token):
        return 1 if token == 1 else state

    def mask(self, state):
        return [1, 2] if state == 0 else []

    def may_end(self, state):
        return False


@pytest.mark.parametrize(("likeliest", "written"), [(2, [2, 2, 2, 2]), (1, None)])
@pytest.mark.parametrize("rule", ["plain", "coupled", "rejection"])
def test_a_guess_that_nothing_may_follow_is_an_error_only_where_the_text_comes_there(likeliest, written, rule):
    table = TABLE.copy()
    table[:, likeliest] = 9
    decoder = None if rule == "plain" else Speculative(CallableDrafter(lambda text, budget: [1]), rule=rule)

    def text():
        session = from_callable(lambda ids: table[ids], vocab_size=5)
        return generate(session, [0], 4, None, frozenset([4]), decoder, constraint=DeadEnd()).tokens

    if written is None:
        with pytest.raises(ArgumentError, match="lets nothing follow what has been written"):
            text()
    else:
        assert text() == written


class Broken(Even):
    def mask(self, state):
        return []

    def may_end(self, state):
        return False


def test_errors_say_what_is_wrong():
    def text(constraint, decoder=None, ends=frozenset([4]), **options):
        return generate(
            from_callable(lambda ids: TABLE[ids], vocab_size=5),
            [1],
            5,
            None,
            ends,
            decoder,
            constraint=constraint,
            **options,
        )

    with pytest.raises(ArgumentError, match="lets nothing follow what has been written, nor the text end there"):
        text(Broken())
    with pytest.raises(ArgumentError, match="needs a token that ends the text"):
        text(Even(), ends=frozenset())
    with pytest.raises(UnsupportedError, match="Unmask does not write under a grammar"):
        text(Even(), Unmask(mask_token=3))
    for wrong in (3, "start", Even, [1, 2], {"type": "object"}):
        with pytest.raises(ArgumentError, match="has the methods start, advance, mask and may_end, got"):
            text(wrong)

    class Short(Even):
        def mask(self, state):
            return np.zeros(7, np.uint32)

    with pytest.raises(ArgumentError, match=r"mask of bits must be uint32 \(1,\), got \(7,\)"):
        text(Short())

    class Lies(Even):
        def mask(self, state):
            return [3]

        def may_end(self, state):
            return False

    with pytest.raises(ArgumentError, match="allowed token 3, and its advance refused it"):
        text(Lies())
