"""Jacobi decoding and lookahead: the text of plain decoding, in no more rounds than it has tokens, whatever was guessed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.decode import Jacobi, Lookahead, generate
from fastdistill.runtime import from_callable
from tests.decode.test_auto import FLAT, REAL, STEEP
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
