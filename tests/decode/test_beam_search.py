"""Beam search: that of the reference, over functions and models; the best text of all where beams suffice; alone in any batch."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.decode import BeamSearch, Request, generate
from fastdistill.decode.engine import Task, write
from fastdistill.decode.text import Text
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.forward.row_statistics import row_statistics
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.reference.sample.sample import repeating
from fastdistill.runtime import from_callable
from fastdistill.text.stream import TextStream
from fastdistill.text.tokenizer import Tokenizer
from tests.beams import beam_search, every_text
from tests.small_models import network
from tests.strategies import Setting, settings_of_models, token_lists
from tests.test_cli import write_model
from tests.text.tokenizers_made_here import byte_level, llama2

EARLY = (False, True, "never")
forms = st.sampled_from(EARLY)
penalties = st.sampled_from([-2.0, -0.5, 0.0, 0.3, 1.0, 1.7, 4.0])


def function_of(seed: int, vocab: int, spread: float, banned: float = 0.0):
    """Logits of a random model: of the last two tokens and the length, some of them -inf."""

    def logits(tokens: np.ndarray) -> np.ndarray:
        rows = []
        for n in range(1, len(tokens) + 1):
            chance = np.random.default_rng([seed, n, *tokens[max(n - 2, 0) : n].tolist()])
            row = (chance.standard_normal(vocab) * spread).astype(np.float32)
            row[(chance.random(vocab) < banned) & (np.arange(vocab) != row.argmax())] = -np.inf
            rows.append(row)
        return np.stack(rows)

    return logits


def log_probs_of(logits):
    """float64 (vocab,) after a text: what a row says, as the search reads it."""

    @functools.cache
    def known(tokens: tuple[int, ...]) -> np.ndarray:
        last = logits(np.array(tokens, np.int32))[-1:]
        return last[0].astype(np.float64) - np.float64(row_statistics(last).log_sum_exp[0])

    return lambda tokens: known(tuple(tokens))


def forwards_of(search, log_probs, prompt, *settings) -> tuple[list[tuple[list[int], float]], int]:
    """What the reference finds, and how many forwards behind the prompt's it takes to be over."""
    lengths = [len(prompt)]

    def counted(tokens: list[int]) -> np.ndarray:
        lengths.append(len(tokens))
        return log_probs(tokens)

    return search(counted, prompt, *settings), max(lengths) - len(prompt)


def found(result) -> list[tuple[list[int], float]]:
    return [(each.tokens, each.score) for each in (result, *result.runners_up)]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32), vocab=st.integers(2, 9), spread=st.sampled_from([0.0, 0.5, 2.0, 6.0]), prompt=token_lists(1, 3),
    num_beams=st.integers(2, 5), most=st.integers(1, 8), ends=st.frozensets(st.integers(0, 8), max_size=3),
    penalty=penalties, early=forms, banned=st.sampled_from([0.0, 0.0, 0.4]),
)  # fmt: skip
def test_over_any_function_it_is_the_reference(
    seed, vocab, spread, prompt, num_beams, most, ends, penalty, early, banned
):
    logits, prompt = function_of(seed, vocab, spread, banned), [token % vocab for token in prompt]
    expected = beam_search(log_probs_of(logits), prompt, num_beams, most, ends, penalty, early)
    decoder = BeamSearch(num_beams, penalty, early)
    result = generate(from_callable(logits, vocab), prompt, most, end_tokens=ends, decoder=decoder)
    assert found(result) == expected
    assert result.finish_reason == ("stop" if result.tokens[-1] in ends else "length")
    assert result.stats.new_tokens == len(result.tokens)


@pytest.mark.parametrize("early", EARLY)
@pytest.mark.parametrize("penalty", [-2.0, -0.3, 0.0, 0.5, 2.0])
def test_where_much_ends_it_is_the_reference_too(penalty, early):
    """Ends are about as likely as all else, so that searches are over at other times, and few candidates go on."""
    ends, lengths = frozenset({0, 3, 4}), set()
    for seed in range(60):
        made = function_of(seed, 8, 1.5)
        bias = np.isin(np.arange(8), list(ends)) * np.float32(seed % 5 / 2)

        def logits(tokens, made=made, bias=bias):
            return made(tokens) + bias

        expected = forwards_of(beam_search, log_probs_of(logits), [1], 2, 12, ends, penalty, early)
        result = generate(from_callable(logits, 8), [1], 12, end_tokens=ends, decoder=BeamSearch(2, penalty, early))
        assert (found(result), result.stats.forwards) == expected
        lengths.add(result.stats.forwards)
    assert len(lengths) > 3 or (penalty, early) == (2.0, "never")  # which always hopes for more


def TIE(tokens: np.ndarray) -> np.ndarray:
    """Token 0, the end, and token 1 are equally likely, but the third token is certain to be the end, and 2 comes nowhere."""
    rows = np.full((len(tokens), 3), -1e4, np.float32)
    rows[:, 0] = 0
    rows[:2, 1] = 0
    return rows


@pytest.mark.parametrize(("early", "forwards"), [(False, 1), (True, 1), ("never", 2)])
def test_a_tie_ends_the_search(early, forwards):
    """The text that goes on has, of two tokens of 1/2, the score of those that have ended: only a better one is worth a forward.

    "never" weighs it by the longest text's length. Its next token is certain, so that it gets a better score than both.
    """
    result = generate(from_callable(TIE, 3), [1], 6, end_tokens=frozenset({0}), decoder=BeamSearch(2, 1.0, early))
    half = -np.float64(np.log(np.float32(2)))
    short = [([0], half), ([1, 0], half)]
    longer = ([1, 1, 0], 2 * half / 3)
    assert found(result) == (short if forwards == 1 else [longer, short[0]])
    assert result.stats.forwards == forwards


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), vocab=st.integers(2, 3), most=st.integers(1, 4), ends=st.frozensets(st.integers(0, 2), max_size=2),
    penalty=penalties, banned=st.sampled_from([0.0, 0.4]),
)  # fmt: skip
def test_enough_beams_find_the_best_of_all_texts(seed, vocab, most, ends, penalty, banned):
    """With as many beams as there are texts none is left out and none ends the search early."""
    ends = frozenset(token for token in ends if token < vocab)
    logits = function_of(seed, vocab, 2.0, banned)
    expected = every_text(log_probs_of(logits), [0], most, ends, penalty)
    for early in EARLY:
        decoder = BeamSearch(max(2, 2 * vocab**most), penalty, early)
        result = generate(from_callable(logits, vocab), [0], most, end_tokens=ends, decoder=decoder)
        assert sorted(found(result)) == sorted(expected)
        assert [score for _, score in found(result)] == [score for _, score in expected]


def oracle_log_probs(setting: Setting):
    return log_probs_of(lambda tokens: setting.oracle.rows(tokens.tolist()).view(np.float32))


@settings(max_examples=25, deadline=None)
@given(
    setting=settings_of_models, prompt=token_lists(1, 30), num_beams=st.integers(2, 5), most=st.integers(1, 12),
    ends=st.frozensets(st.integers(0, 300), max_size=40), penalty=penalties, early=forms,
)  # fmt: skip
def test_over_models_it_is_the_reference_bit_for_bit(isa, setting, prompt, num_beams, most, ends, penalty, early):
    """On every level, for any threads and however a prompt is cut: the oracle computes one token a forward, on one."""
    ends = frozenset(token for token in ends if token < setting.vocab)
    expected = beam_search(oracle_log_probs(setting), prompt, num_beams, most, ends, penalty, early)
    decoder = BeamSearch(num_beams, penalty, early)
    result = generate(setting.session(), prompt, most, end_tokens=ends, decoder=decoder)
    assert found(result) == expected


def test_what_is_longer_than_a_page_is_the_reference_too():
    setting = Setting("odd", "f32")
    expected = beam_search(oracle_log_probs(setting), [1, 2, 3], 3, 80, (), 0.7, "never")
    assert found(generate(setting.session(), [1, 2, 3], 80, decoder=BeamSearch(3, 0.7, "never"))) == expected


def task(session, prompt, decoder, most=10, ends=frozenset(), **more) -> Task:
    ids = np.array(prompt, np.int32)
    request = Request(ids, 0, Sampler(), max_tokens=most, end_tokens=ends, **more)
    return Task(ids, lambda _: Text(session, request, decoder, None))


# ---- stop strings ----


@pytest.fixture(scope="module", params=[byte_level, llama2])
def tokenizer(request, tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(json.dumps(request.param()), encoding="utf-8")
    return Tokenizer(folder)


def written_with(tokenizer, logits, search, most, stop, ends=frozenset()):
    stream = TextStream(tokenizer, stop)
    request = Request(np.array([5], np.int32), 0, Sampler(), max_tokens=most, end_tokens=ends, stops=stream)
    session = from_callable(logits, tokenizer.vocab_size)
    (result,) = write([Task(request.prompt, lambda _: Text(session, request, search, stream))])
    return result


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32), stop=st.lists(st.text("aeo t", min_size=1, max_size=2), min_size=1, max_size=3),
    num_beams=st.integers(2, 4), ends=st.frozensets(st.integers(0, 90), max_size=4), penalty=penalties, early=forms,
)  # fmt: skip
def test_a_stop_string_ends_a_beam_as_it_ends_a_text(tokenizer, seed, stop, num_beams, ends, penalty, early):
    """Each text is cut before the string, and counts the token that completes it; no string is looked for in the prompt."""

    def stream_of(text: list[int]) -> TextStream:
        stream = TextStream(tokenizer, stop)
        for token in text:
            stream.push(token)
        return stream

    logits = function_of(seed, tokenizer.vocab_size, 2.0)
    wanted = forwards_of(
        functools.partial(beam_search, stopped=lambda text: stream_of(text).stopped),
        log_probs_of(logits), [5], num_beams, 8, ends, penalty, early,
    )  # fmt: skip
    result = written_with(tokenizer, logits, BeamSearch(num_beams, penalty, early), 8, stop, ends)
    assert (found(result), result.stats.forwards) == wanted
    for each in (result, *result.runners_up):
        stream = stream_of(each.tokens)
        stopped = stream.stopped or each.tokens[-1] in ends
        stream.finish()
        assert each.text == stream.text and not any(string in each.text for string in stop)
        assert each.finish_reason == ("stop" if stopped or stream.stopped else "length")


def test_where_all_candidates_stop_the_search_is_over_and_where_one_does_not_it_goes_on_alone(tokenizer):
    """So many are looked at as without stop strings, as in transformers: twice as many as there are beams."""
    letters = [tokenizer.encode(letter, special=False)[-1] for letter in "abcde"]

    def logits(tokens: np.ndarray) -> np.ndarray:
        rows = np.full((len(tokens), tokenizer.vocab_size), -20, np.float32)
        rows[:, letters] = np.arange(5, 0, -1)
        return rows

    all_stop = written_with(tokenizer, logits, BeamSearch(2), 8, list("abcd"))
    assert [tokens for tokens, _ in found(all_stop)] == [[letters[0]], [letters[1]]] and all_stop.stats.forwards == 0
    assert {each.text for each in (all_stop, *all_stop.runners_up)} == {""}
    hopes = BeamSearch(2, 4.0, "never")
    alone = written_with(tokenizer, logits, hopes, 3, list("abc"))
    assert alone.stats.forwards == 2
    assert [tokens for tokens, _ in found(alone)] == [[letters[3]] * 2 + [letters[i]] for i in (0, 1)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_s_best_text_is_cut_before_the_string(model, stream):
    free = model.generate("one two", max_tokens=12, decoder=BeamSearch(3))
    stop = free.text[len(free.text) // 2 :][:2]
    asked = dict(max_tokens=12, stop=stop, decoder=BeamSearch(3, -2.0))
    best = model.generate("one two", **asked)
    assert best.finish_reason == "stop" and stop not in best.text
    assert best.text + stop in model.tokenizer.decode(best.tokens)
    if stream:
        assert [str(piece) for piece in model.stream("one two", **asked)] == [best.text]
    texts = model.generate("one two", n=3, **asked)
    assert [(each.text, each.tokens, each.score) for each in texts] == [
        (each.text, each.tokens, each.score) for each in (best, *best.runners_up)
    ]


def test_each_of_several_is_as_alone():
    made = network("plain", "q8")
    prompts = [[1, 2, 3], [4] * 70, [5], [1, 2, 3, 9]]
    decoders = [BeamSearch(3), BeamSearch(2, 0.0, "never"), fd.Autoregressive(), BeamSearch(5, 2.0, True)]
    ends = frozenset(range(0, 300, 11))
    tasks = [task(made.session(100), *each, 12, ends) for each in zip(prompts, decoders, strict=True)]
    for prompt, decoder, result in zip(prompts, decoders, write(tasks), strict=True):
        alone = generate(made.session(100), prompt, 12, end_tokens=ends, decoder=decoder)
        assert (result.tokens, result.finish_reason) == (alone.tokens, alone.finish_reason) and result.error is None
        assert found(result) == found(alone)


def test_a_beam_costs_a_row_a_token_and_holds_the_prompt_once():
    made = network("plain", "f32")
    session = made.session(400)
    run = BeamSearch(4).start(session, Request(np.arange(130, dtype=np.int32), 0, Sampler(), max_tokens=8))
    assert run.unread and not run.decoding
    while run.unread:
        assert run.take(session.run(run.forward())) == []
    for _ in range(7):
        asked = run.forward()
        assert [len(forward.tokens) for _, forward in asked] == [1] * 4
        pages = {id(page) for beam, _ in asked for page in beam.cache._pages}
        assert len({id(page) for beam, _ in asked for page in beam.cache._pages[:2]}) == 2  # 128 tokens of the prompt
        assert len(pages) <= 2 + 4 + 1
        taken = run.take(*made.run(asked))
    assert taken and session.length == 130 and run.decoding


def test_what_an_interrupt_leaves_behind_is_run_again():
    made, prompt = network("plain", "f32"), np.arange(5, dtype=np.int32)
    texts = []
    for interrupted in (False, True):
        session = made.session(64)
        run = BeamSearch(3).start(session, Request(prompt, 0, Sampler(), max_tokens=6))
        taken = run.take(session.run(run.forward()))
        while not taken:
            if interrupted:
                made.run(run.forward())  # whose rows nobody takes
            taken = run.take(*made.run(run.forward()))
        texts.append((taken, run.hypotheses))
    assert texts[0] == texts[1]


def test_the_session_holds_the_prompt_afterwards_and_a_second_search_reads_it_no_more():
    session = network("plain", "f32").session(64)
    first = generate(session, [1, 2, 3, 4], 6, decoder=BeamSearch())
    assert session.tokens.tolist() == [1, 2, 3, 4]
    again = generate(session, [1, 2, 3, 4], 6, decoder=BeamSearch())
    assert found(again) == found(first) and again.stats.reused_tokens == 3


def test_a_full_session_ends_all_beams():
    result = generate(network("plain", "f32").session(8), [1, 2, 3, 4], 50, decoder=BeamSearch(3))
    assert [len(tokens) for tokens, _ in found(result)] == [5] * 3  # the last one needs no place
    assert {each.finish_reason for each in (result, *result.runners_up)} == {"capacity"}
    cut = generate(network("plain", "f32").session(8), [1, 2, 3, 4], 5, decoder=BeamSearch(3))
    assert found(cut) == found(result) and cut.finish_reason == "length"


def test_no_tokens_are_none():
    result = generate(network("plain", "f32").session(8), [1, 2], 0, decoder=BeamSearch())
    assert (result.tokens, result.finish_reason, result.score, result.runners_up) == ([], "length", None, [])


# ---- what changes probabilities ----


def processed(log_probs, prompt, change):
    return lambda tokens: change(log_probs(tokens).astype(np.float32), tokens[len(prompt) :]).astype(np.float64)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_processors_change_log_probabilities_as_transformers_does(size):
    """In this order: bans, bias, penalties; over float32, and not normalised again."""
    vocab, prompt, ends = 12, [3, 4], {2}
    logits = function_of(5, vocab, 2.0)
    allowed = np.ones(vocab, bool)
    allowed[[1, 7]] = False
    sampler = Sampler(
        no_repeat_ngram_size=size,
        repetition_penalty=1.4,
        frequency_penalty=0.3,
        presence_penalty=-0.2,
        logit_bias={5: 1.5, 6: -2.0, 0: -np.inf},
    )

    def change(row, answer):
        row = row.copy()
        row[~allowed] = -np.inf
        row[list(ends)] = -np.inf if len(answer) < 3 else row[list(ends)]
        row[5], row[6], row[0] = row[5] + np.float32(1.5), row[6] - np.float32(2), -np.inf
        for token in {*prompt, *answer}:
            row[token] = row[token] * np.float32(1.4) if row[token] < 0 else row[token] / np.float32(1.4)
        row[list(repeating([*prompt, *answer], size))] = -np.inf
        for token in set(answer):
            row[token] -= np.float32(0.3) * np.float32(answer.count(token))
            row[token] -= np.float32(-0.2)
        return row

    expected = beam_search(processed(log_probs_of(logits), prompt, change), prompt, 3, 7, ends, 0.8)
    bits = np.packbits(np.pad(allowed, (0, 20)), bitorder="little").view(np.uint32)
    early = allowed.copy()
    early[list(ends)] = False
    early_bits = np.packbits(np.pad(early, (0, 20)), bitorder="little").view(np.uint32)
    ids = np.array(prompt, np.int32)
    request = Request(ids, 0, sampler, bits, early_bits, 3, 7, frozenset(ends))
    session = from_callable(logits, vocab)
    (result,) = write([Task(ids, lambda _: Text(session, request, BeamSearch(3, 0.8), None))])
    assert [tokens for tokens, _ in found(result)] == [tokens for tokens, _ in expected]
    np.testing.assert_allclose([score for _, score in found(result)], [score for _, score in expected], rtol=1e-6)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> fd.Model:
    return fd.load(write_model(tmp_path_factory.mktemp("beams") / "model"), threads=2)


def test_log_probabilities_of_tokens_make_the_score(model):
    texts = model.generate("one two", n=3, max_tokens=6, logprobs=2, decoder=BeamSearch(3, 0.5))
    for text in texts:
        assert [each.token for each in text.logprobs] == text.tokens
        assert all(len(each.top) == 2 for each in text.logprobs)
        total = sum(each.log_prob for each in text.logprobs)
        assert text.score == pytest.approx(total / len(text.tokens) ** 0.5, rel=1e-5)
    assert all(text.logprobs is None for text in model.generate("one", n=2, max_tokens=2, decoder=BeamSearch(2)))


def test_n_gives_the_best_ones_each_with_its_text(model):
    search = BeamSearch(num_beams=4, length_penalty=0.0)
    best = model.generate("one two", max_tokens=6, decoder=search)
    for n in (1, 3, 4):
        texts = model.generate("one two", n=n, max_tokens=6, decoder=search)
        assert [each.tokens for each in texts] == [each.tokens for each in (best, *best.runners_up)][:n]
    assert [each.text for each in texts] == [model.tokenizer.decode(each.tokens) for each in texts]
    assert all(each.stats.forwards == best.stats.forwards for each in texts)
    assert sorted((each.score for each in texts), reverse=True) == [each.score for each in texts]
    with pytest.raises(ArgumentError, match="n=5 texts are more than the num_beams=4"):
        model.generate("one two", n=5, decoder=search)


def test_a_list_of_prompts_a_stream_and_a_chat_know_it(model):
    search, prompts = BeamSearch(3), ["one", "two and three", "one two"]
    texts = model.generate(prompts, max_tokens=6, decoder=search)
    assert [found(each) for each in texts] == [
        found(model.generate(each, max_tokens=6, decoder=search)) for each in prompts
    ]
    pieces = list(model.stream("one", max_tokens=6, decoder=search))
    assert [(piece, piece.tokens, piece.finish_reason) for piece in pieces] == [
        (texts[0].text, texts[0].tokens, texts[0].finish_reason)
    ]
    session = model.session()
    assert found(model.generate("one", n=1, max_tokens=6, decoder=search, session=session)[0]) == found(texts[0])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(temperature=0.5), "beam search draws nothing: leave temperature at 0.0"),
        (dict(top_k=3), "leave top_k at 0"),
        (dict(top_p=0.5), "leave top_p at 1.0"),
        (dict(min_p=0.5), "leave min_p at 0.0"),
        (dict(num_beams=4), r"did you mean decoder=BeamSearch\(num_beams=4\)"),
        (dict(length_penalty=1.0), r"did you mean decoder=BeamSearch\(length_penalty=1.0\)"),
        (dict(allowed=[5], logit_bias={5: -np.inf}), "no text can be written: every token is banned"),
    ],
)
def test_refuses(model, options, text):
    with pytest.raises(ArgumentError, match=text):
        model.generate("one", max_tokens=3, **dict(decoder=BeamSearch()) | options)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (dict(num_beams=1), "num_beams must lie in 2..1024, got 1"),
        (dict(length_penalty=float("nan")), "length_penalty must lie in -30..30"),
        (dict(early_stopping="always"), "early_stopping must be True, False or \"never\", got 'always'"),
        (dict(early_stopping=1), 'must be True, False or "never", got 1'),
    ],
)
def test_refuses_settings(settings, text):
    with pytest.raises(ArgumentError, match=text):
        BeamSearch(**settings)


def test_one_beam_that_fails_ends_its_text_alone():
    def poisoned(tokens):
        table = function_of(1, 20, 1.0)(tokens)
        table[-1, 0] = np.nan if len(tokens) == 4 and tokens[-1] % 2 else table[-1, 0]
        return table

    session = from_callable(poisoned, 20)
    failed, good = write(
        [task(session, [1, 2], BeamSearch(6)), task(from_callable(function_of(1, 20, 1.0), 20), [1, 2], BeamSearch(6))]
    )
    assert isinstance(failed.error, NotFiniteError) and failed.tokens == [] and session.tokens.tolist() == [1, 2]
    assert good.error is None and len(good.tokens) == 10
