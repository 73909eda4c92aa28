"""The loop: where a text ends and why, what it cost, several texts at once, a session used again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.decode import Autoregressive, Jacobi, Request, Run, generate
from fastdistill.decode.text import Text, prepare_session
from fastdistill.errors import ArgumentError, CapacityError
from fastdistill.kernels import NgramPool
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import from_callable
from tests.strategies import Setting, settings_of_models, token_lists
from tests.texts import events

PLAIN = Setting("plain", "q8")
PROMPT = [1, 2, 3, 4]


def counting(vocab: int = 50, **options):
    """A function whose likeliest token is always the last one plus one: texts that can be foretold."""

    def function(tokens):
        logits = np.zeros((len(tokens), vocab), np.float32)
        logits[np.arange(len(tokens)), (tokens + 1) % vocab] = 3.0
        return logits

    return from_callable(function, vocab, **options)


# ---- ends ----


@pytest.mark.parametrize(
    "capacity, max_tokens, ends, tokens, reason",
    [
        (100, 0, (), [], "length"),
        (100, 1, (), [5], "length"),
        (100, 3, (), [5, 6, 7], "length"),
        (100, 9, {7}, [5, 6, 7], "stop"),
        (100, 3, {7}, [5, 6, 7], "stop"),  # both at once: the text has ended
        (100, 9, {1}, [5, 6, 7, 8, 9, 10, 11, 12, 13], "length"),  # a token of the prompt ends nothing
        (4, 9, (), [5], "capacity"),  # the prompt fills the session; its last row still gives a token
        (4, 1, (), [5], "length"),
        (6, 9, (), [5, 6, 7], "capacity"),
        (6, 3, (), [5, 6, 7], "length"),
        (6, 9, {7}, [5, 6, 7], "stop"),
    ],
)
def test_where_a_text_ends_and_why(capacity, max_tokens, ends, tokens, reason):
    session = counting(capacity=capacity)
    result = generate(session, PROMPT, max_tokens, end_tokens=frozenset(ends))
    assert (result.tokens, result.finish_reason) == (tokens, reason)
    assert session.length <= capacity


def test_a_models_text_ends_where_its_session_is_full(isa):
    """The last token needs no place: a session of 6 takes a prompt of 4 and gives 3."""
    whole = generate(PLAIN.session(), PROMPT, 9).tokens
    for capacity in (4, 5, 6):
        session = PLAIN.session(capacity=capacity)
        result = generate(session, PROMPT, 9)
        assert (result.tokens, result.finish_reason) == (whole[: capacity - 3], "capacity")
        assert session.length == capacity
    assert generate(PLAIN.session(capacity=6), PROMPT, 3).finish_reason == "length"
    stopped = generate(PLAIN.session(), PROMPT, 9, end_tokens=frozenset({whole[2]}))
    assert (stopped.tokens, stopped.finish_reason) == (whole[: whole.index(whole[2]) + 1], "stop")


@pytest.mark.parametrize(
    "prompt, error, text",
    [([], ArgumentError, "prompt"), ([1] * 9, CapacityError, "9 tokens, more than the session's capacity of 8")],
)
@pytest.mark.parametrize("make", [lambda: counting(capacity=8), lambda: PLAIN.session(capacity=8)])
def test_a_prompt_that_is_empty_or_too_long_is_refused(prompt, error, text, make):
    session = make()
    with pytest.raises(error, match=text):
        generate(session, prompt, 1)
    assert session.length == 0


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None, "8"])
def test_max_tokens_must_be_a_count(wrong):
    with pytest.raises(ArgumentError, match="max_tokens"):
        generate(counting(), PROMPT, wrong)


@pytest.mark.parametrize("wrong", [[-1], [50], [1.5], ["a"], [[1]], 7, "text", [2**40], [True]])
def test_a_prompt_must_be_tokens(wrong):
    """A float is not cut off, a number beyond int32 not wrapped."""
    with pytest.raises(ArgumentError):
        generate(counting(), wrong, 1)


# ---- a decoder that gives several tokens a forward: cut where plain decoding ends ----


class Greedy:
    """Emits `width` tokens at once, whatever the end: as a speculative decoder does."""

    def __init__(self, width):
        self.width = width

    def start(self, session, request):
        inner = Autoregressive().start(session, request)
        outer = self

        class Wide(Run):
            def forward(self):
                return inner.forward()

            def take(self, rows):
                emitted = []
                for _ in range(outer.width):
                    emitted += inner.take(rows)
                    if len(emitted) == outer.width:
                        break
                    if session.length == session.capacity:
                        break
                    rows = session.run(inner.forward())
                return emitted

        return Wide()


@settings(max_examples=40)
@given(width=st.integers(1, 5), max_tokens=st.integers(1, 12), capacity=st.integers(4, 20), end=st.integers(5, 20))
def test_every_decoder_is_cut_at_the_same_token(width, max_tokens, capacity, end):
    plain = generate(counting(capacity=capacity), PROMPT, max_tokens, end_tokens=frozenset({end}))
    wide = generate(counting(capacity=capacity), PROMPT, max_tokens, end_tokens=frozenset({end}), decoder=Greedy(width))
    assert (wide.tokens, wide.finish_reason) == (plain.tokens, plain.finish_reason)
    assert wide.stats.new_tokens == len(wide.tokens)


# ---- statistics ----


def test_statistics_count_tokens_and_forwards():
    session = PLAIN.session(max_rows=4)
    result = generate(session, list(range(10)), 7)
    stats = result.stats
    assert (stats.prompt_tokens, stats.reused_tokens, stats.new_tokens, stats.forwards) == (10, 0, 7, 6)
    assert stats.tokens_per_forward == 1.0 and stats.prefill_seconds > 0 and stats.decode_seconds > 0
    assert stats.tokens_per_second == pytest.approx(6 / stats.decode_seconds)
    empty = generate(PLAIN.session(), [1], 0).stats
    assert (empty.new_tokens, empty.forwards, empty.tokens_per_forward, empty.tokens_per_second) == (0, 0, 0.0, 0.0)


# ---- a session used again ----


@settings(max_examples=40)
@given(setting=settings_of_models, before=token_lists(0, 12), prompt=token_lists(1, 12), pending=st.booleans())
def test_a_session_used_again_writes_what_a_fresh_one_writes(setting, before, prompt, pending):
    session = setting.session()
    if before:
        session.prefill(before)
    if pending:
        session.forward([1, 2], parents=[-1, -1])
    common = next(
        (i for i, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), min(len(before), len(prompt))
    )
    result = generate(session, prompt, 6)
    assert result.stats.reused_tokens == min(common, len(prompt) - 1)  # the last row has to be run: it gives the token
    assert result.tokens == generate(setting.session(), prompt, 6).tokens
    again = generate(session, prompt + result.tokens, 3)
    assert again.tokens == generate(setting.session(), prompt + result.tokens, 3).tokens
    assert again.stats.reused_tokens == len(prompt) + len(result.tokens) - 1


def test_tokens_at_other_positions_are_not_reused():
    """The same tokens, read with gaps between them, are another context."""
    session = PLAIN.session()
    session.forward(PROMPT, positions=[0, 40, 80, 120])
    result = generate(session, [*PROMPT, 5], 8)
    assert result.tokens == generate(PLAIN.session(), [*PROMPT, 5], 8).tokens
    session = PLAIN.session()
    session.forward(PROMPT, positions=[0, 40, 80, 120])
    assert prepare_session(session, np.array([*PROMPT, 5], np.int32)) <= 1


@pytest.mark.parametrize("how", ["a block", "a replaced row", "an inserted row"])
def test_rows_that_have_read_something_else_are_not_reused(how):
    """The tokens and positions of a text, but some rows have seen later ones, or what stood there before."""
    session, text = PLAIN.session(), [1, 2, 3, 4, 5, 0]
    if how == "a block":
        session.forward(text, nodes=[0] * 6)
        session.keep(range(6))
    else:
        replace = (2, 3) if how == "a replaced row" else (2, 2)
        session.forward([1, 2, 0, 4, 5, 0] if how == "a replaced row" else [1, 2, 4, 5, 0])
        session.forward([3], replace=replace)
        session.keep([0])
    assert session.tokens.tolist() == text
    result = generate(session, [*text, 4], 8)
    assert result.tokens == generate(PLAIN.session(), [*text, 4], 8).tokens
    # And the rows before them are: three at most, the replaced one included, and none of a block.
    assert result.stats.reused_tokens in ((0,) if how == "a block" else (2, 3))


def test_rows_given_as_inputs_are_no_tokens_to_be_reused():
    session = PLAIN.session()
    session.forward(inputs={"embedding": np.ones((2, 64), np.float32)})
    assert prepare_session(session, np.array([1, 2, 3], np.int32)) == 0


# ---- several texts at once ----


@settings(max_examples=15)
@given(setting=settings_of_models, prompts=st.lists(token_lists(1, 20), min_size=1, max_size=5), data=st.data())
def test_texts_written_together_are_those_written_alone(isa, setting, prompts, data):
    """Different lengths, different ends, chunks of prompts beside single tokens; sessions that run full."""
    counts = [data.draw(st.integers(0, 8)) for _ in prompts]
    capacities = [data.draw(st.integers(len(prompt), 40)) for prompt in prompts]

    def texts(numbers):
        made = []
        for number in numbers:
            request = Request(np.array(prompts[number], np.int32), 0, Sampler(), max_tokens=counts[number])
            made.append(Text(setting.session(capacities[number]), request, Autoregressive(), None))
        events(made)
        return [(text.result.tokens, text.result.finish_reason, text.result.stats.forwards) for text in made]

    together = texts(range(len(prompts)))
    assert together == [texts([number])[0] for number in range(len(prompts))]


def test_texts_over_functions_run_in_the_same_loop():
    requests = [Request(np.array([n], np.int32), 0, Sampler(), max_tokens=3) for n in (1, 20)]
    texts = [Text(counting(), request, Autoregressive(), None) for request in requests]
    assert "".join(event.piece for event in events(texts)) == ""
    assert [text.result.tokens for text in texts] == [[2, 3, 4], [21, 22, 23]]


# ---- log probabilities ----


def test_log_probs_are_those_of_the_model_best_first():
    session = PLAIN.session()
    request = Request(np.array(PROMPT, np.int32), 0, Sampler(), max_tokens=4, logprobs=5)
    text = Text(session, request, Autoregressive(), None)
    events([text])
    whole = [*PROMPT, *text.result.tokens]
    for i, entry in enumerate(text.result.logprobs):
        logits = PLAIN.oracle.rows(whole)[len(PROMPT) + i - 1].view(np.float32).astype(np.float64)
        log_probs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        order = np.lexsort((np.arange(len(logits)), -logits))[:5]
        assert entry.token == text.result.tokens[i] == entry.top[0][0]
        assert [token for token, _ in entry.top] == order.tolist()
        np.testing.assert_allclose([p for _, p in entry.top], log_probs[order], atol=1e-5)
        assert entry.log_prob == entry.top[0][1]


def test_ties_among_log_probs_go_to_the_lowest_tokens():
    request = Request(np.array([1], np.int32), 0, Sampler(), max_tokens=1, logprobs=4)
    text = Text(counting(5000), request, Autoregressive(), None)
    events([text])
    assert [token for token, _ in text.result.logprobs[0].top] == [2, 0, 1, 3]


def test_what_a_pool_gave_beyond_the_end_is_not_counted():
    """The round finds 3 in its iterate and 4, 5, 6 below it in the pool; the text ends with 3."""
    pool = NgramPool(5)
    pool.insert(np.array([2, 3, 4, 5, 6], np.int32))
    session = from_callable(lambda tokens: np.eye(10, dtype=np.float32)[(np.arange(len(tokens)) + 1) % 10], 10)
    decoder = Jacobi(block=2, init="copy", pool=pool, adaptive=False)
    for ends, counted in ((), (4, 3)), ({5}, (3, 2)), ({3}, (1, 0)):
        last = generate(session, [0], 9, end_tokens=frozenset(ends), decoder=decoder).rounds[1]
        assert (last.accepted, last.recycled) == counted
