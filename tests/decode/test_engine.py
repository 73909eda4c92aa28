"""The engine: texts that join, leave, share beginnings and fail are each what they are alone."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.decode import Autoregressive, Engine, Jacobi, PromptLookup, Request, Speculative, Task, Tree
from fastdistill.decode.text import Text, prepare_session
from fastdistill.errors import ArgumentError, CapacityError, PartialError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import network as network_module
from fastdistill.runtime.kv_cache import PAGE, KVCache
from tests.small_models import network

DECODERS = {
    "plain": Autoregressive(),
    "lookup": Speculative(PromptLookup(min_match=1), max_draft=3),
    "tree": Speculative(PromptLookup(min_match=1, continuations=2), tree=Tree(2, 2)),
    "jacobi": Jacobi(3, adaptive=False),
}


def task(
    prompt, count, sampler=None, decoder="plain", *, nothing_allowed=False, capacity=None, shares=True, logprobs=0
):
    """A text over the small model; `task.sessions` holds its session, once it has begun."""
    made, ids = network("plain", "q8"), np.array(prompt, np.int32)
    allowed = np.zeros(-(-made.vocab_size // 32), np.uint32) if nothing_allowed else None

    def begin(beginning):
        session = made.session(len(ids) + count if capacity is None else capacity, 32)
        if beginning is not None:
            session.share(*beginning)
        made_task.sessions.append(session)
        request = Request(
            ids,
            prepare_session(session, ids),
            sampler or Sampler(),
            allowed=allowed,
            max_tokens=count,
            logprobs=logprobs,
        )
        return Text(session, request, DECODERS[decoder], None)

    made_task = Task(ids, begin, made if shares else None)
    made_task.sessions = []
    return made_task


def alone(*arguments, **options):
    engine, one = Engine(1), task(*arguments, **options)
    engine.submit(one)
    engine.run()
    return one.result


class Dropped:
    """A list that keeps no more than who was there."""

    def __init__(self, seen):
        self.append = lambda session: seen.append(weakref.ref(session))


def pages(tasks):
    """Pages that the sessions of texts hold, each once."""
    return {id(page.array) for one in tasks for page in one.sessions[0].cache._pages}


def test_of_32_texts_one_that_may_say_nothing_one_cancelled_and_one_too_long_end_and_29_are_what_they_are_alone():
    random = np.random.default_rng(0)
    prompts = [random.integers(0, 300, random.integers(1, 60)).tolist() for _ in range(32)]
    samplers = [Sampler(1.0, seed=number) for number in range(32)]
    tasks = [
        task(prompt, 12, sampler, nothing_allowed=number == 7, capacity=4 if number == 20 else None)
        for number, (prompt, sampler) in enumerate(zip(prompts, samplers, strict=True))
    ]
    prompts[20] = [1] * 5
    tasks[20] = task(prompts[20], 12, samplers[20], capacity=4)
    engine = Engine(32)
    for one in tasks:
        engine.submit(one)
    events = engine.step() + engine.step()
    engine.cancel(tasks[13])
    while engine.tasks:
        events += engine.step()
    reasons = [one.result.finish_reason for one in tasks]
    assert (reasons[7], reasons[13], reasons[20]) == ("error", "cancelled", "error")
    assert type(tasks[7].result.error) is ArgumentError and type(tasks[20].result.error) is CapacityError
    for number, (one, prompt, sampler) in enumerate(zip(tasks, prompts, samplers, strict=True)):
        if number not in (7, 13, 20):
            assert one.result.tokens == alone(prompt, 12, sampler).tokens and reasons[number] == "length"
        told = [event.piece for event in events if event.task is one]
        assert [token for piece in told for token in piece.tokens] == one.result.tokens
        assert told[-1].finish_reason == reasons[number] and {piece.finish_reason for piece in told[:-1]} <= {None}
    assert alone(prompts[13], 12, samplers[13]).tokens[: len(tasks[13].result.tokens)] == tasks[13].result.tokens


@st.composite
def arrivals(draw):
    """Texts, some with a beginning in common, with the step at which each arrives and may be cancelled."""
    base = draw(st.lists(st.integers(0, 299), min_size=2 * PAGE + 9, max_size=2 * PAGE + 9))
    made = []
    for number in range(draw(st.integers(1, 6))):
        common = draw(st.sampled_from([0, 5, 7, 8, 9, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 9]))
        prompt = base[:common] + draw(st.lists(st.integers(0, 299), min_size=common == 0, max_size=40))
        sampler = Sampler(draw(st.sampled_from([0.0, 1.0])), seed=number)
        options = dict(decoder=draw(st.sampled_from(list(DECODERS))), shares=draw(st.booleans()))
        made.append(
            (
                (prompt, draw(st.integers(0, 9)), sampler),
                options,
                draw(st.integers(0, 6)),
                draw(st.none() | st.integers(0, 9)),
            )
        )
    return made


@settings(max_examples=60)
@given(texts=arrivals(), most_texts=st.integers(1, 4), most_rows=st.sampled_from([1, 7, 32, 256]))
def test_texts_come_and_go_and_are_what_they_are_alone(texts, most_texts, most_rows):
    engine, tasks = Engine(most_texts, most_rows), [task(*asked, **options) for asked, options, *_ in texts]
    step = 0
    while step < 7 or engine.tasks:
        for one, (_, _, arrives, leaves) in zip(tasks, texts, strict=True):
            if step == arrives:
                engine.submit(one)
            if step == leaves:
                engine.cancel(one)
        engine.step()
        step += 1
    for one, (asked, options, *_) in zip(tasks, texts, strict=True):
        want = alone(*asked, **options | {"decoder": "plain"})
        got = one.result
        assert got.error is None and got.finish_reason in ("length", "cancelled")
        assert got.tokens == want.tokens[: len(got.tokens)]
        if got.finish_reason == "length":
            assert len(got.tokens) == asked[1]


def test_fifty_chats_over_one_beginning_hold_it_once():
    random = np.random.default_rng(1)
    system = random.integers(0, 300, 480).tolist()
    prompts = [system + random.integers(0, 300, random.integers(3, 20)).tolist() for _ in range(50)]
    tasks, engine, rows = [task(prompt, 5) for prompt in prompts], Engine(50), []
    run = network_module.Network.run

    def counted(self, requests):
        rows.append(sum(len(asked.tokens) for _, asked in requests))
        return run(self, requests)

    for one in tasks:
        engine.submit(one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_module.Network, "run", counted)
        engine.run()
    whole = len(system) // PAGE
    shared = [{id(page.array) for page in one.sessions[0].cache._pages[:whole]} for one in tasks]
    assert all(held == shared[0] for held in shared)
    # Of its own a chat has the page in which the beginning ends and what follows it: one or two.
    assert len(pages(tasks)) <= whole + 2 * 50
    read = sum(rows)
    assert read <= 480 + 50 * (20 + 5), "the beginning was read more than once"
    for one, prompt in zip(tasks[::7], prompts[::7], strict=True):
        assert one.result.tokens == alone(prompt, 5, shares=False).tokens
        assert one.result.stats.reused_tokens >= whole * PAGE or one is tasks[0]


def test_texts_that_are_being_written_come_before_prompts_and_chunks_keep_to_the_rows():
    rows = []
    run = network_module.Network.run

    def counted(self, requests):
        rows.append([len(asked.tokens) for _, asked in requests])
        return run(self, requests)

    engine = Engine(4, max_rows=20)
    first = engine.submit(task([1, 2], 30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_module.Network, "run", counted)
        engine.step()
        for number in range(3):
            engine.submit(task([3 + number] * 50, 2, shares=False))
        engine.run()
    assert rows[0] == [2] and all(sum(step) <= 20 for step in rows)
    assert rows[1] == [1, 19] and rows[2] == [1, 19]  # one token of the first text in every step, the rest for a prompt
    assert first.result.stats.forwards == 29


def test_a_text_that_waits_can_be_cancelled_and_one_of_no_tokens_ends_at_once():
    engine = Engine(1)
    first, second, third = (engine.submit(task([1, 2], count)) for count in (3, 3, 0))
    engine.step()
    engine.cancel(second)
    events = []
    while engine.tasks:
        events += engine.step()
    assert [one.result.finish_reason for one in (first, second, third)] == ["length", "cancelled", "length"]
    assert second.text is None and [event.piece.finish_reason for event in events if event.task is second] == [
        "cancelled"
    ]
    assert third.result.tokens == []
    with pytest.raises(ArgumentError, match="task must be a Task, got 3"):
        engine.submit(3)


def test_a_text_that_has_ended_holds_no_session():
    engine, dead = Engine(2), []
    tasks = [engine.submit(task([number], 3)) for number in range(4)]
    for one in tasks:
        one.sessions = Dropped(dead)
    gc.disable()  # pages are no objects that it counts: sessions go when they are let go
    try:
        engine.run()
        assert len(dead) == 4 and [session() for session in dead] == [None] * 4
    finally:
        gc.enable()
    assert [len(one.result.tokens) for one in tasks] == [3] * 4


def test_a_task_is_submitted_once():
    one = Engine().submit(task([1, 2], 3))
    for engine in (Engine(), Engine()):
        with pytest.raises(ArgumentError, match="submitted already"):
            engine.submit(one)


def test_one_that_waits_is_cancelled_at_the_next_step():
    engine = Engine(1)
    first, second = engine.submit(task([1, 2], 9)), engine.submit(task([3], 9))
    engine.step()
    engine.cancel(second)
    assert [event.task for event in engine.step() if event.piece.finish_reason] == [second] and not first.finished


def test_the_last_piece_of_a_cancelled_text_has_its_tokens():
    class Silent:
        stopped = False

        def push(self, token):
            return ""

        def finish(self):
            return ""

    engine, one = Engine(1), task([1, 2], 9, logprobs=1)
    engine.submit(one)
    engine.step()
    one.text._speller = Silent()
    events = engine.step()
    engine.cancel(one)
    events += engine.step()
    (last,) = (event.piece for event in events)
    told = [*one.result.tokens[:1], *last.tokens]
    assert told == one.result.tokens and len(one.result.tokens) > 1 and len(last.logprobs) == len(last.tokens)


def test_texts_of_two_models_share_steps_and_nothing_else():
    prompt = np.arange(2 * PAGE + 1).tolist()
    other = network("plain", "q8", seed=1)

    def of_other(shares):
        ids = np.array(prompt, np.int32)

        def begin(beginning):
            assert beginning is None
            session = other.session(200, 32)
            return Text(
                session, Request(ids, prepare_session(session, ids), Sampler(), max_tokens=6), Autoregressive(), None
            )

        return Task(ids, begin, other if shares else None)

    engine, lone = Engine(2), Engine(1)
    first, second, want = engine.submit(task(prompt, 6)), engine.submit(of_other(True)), lone.submit(of_other(False))
    engine.run()
    lone.run()
    assert second.result.tokens == want.result.tokens and second.result.stats.reused_tokens == 0
    assert first.result.tokens == alone(prompt, 6).tokens


@pytest.mark.parametrize("most_rows", [1, 2, 8, 16, 17])
def test_a_prompt_is_read_however_few_rows_a_step_has(most_rows):
    engine = Engine(3, most_rows)
    writing = [engine.submit(task([number], 200)) for number in range(2)]
    engine.step()
    late = engine.submit(task([7] * 40, 1))
    for _ in range(45):
        engine.step()
    assert late.finished and not any(one.finished for one in writing)


def test_a_step_that_was_interrupted_loses_nothing():
    prompt = np.random.default_rng(3).integers(0, 300, 70).tolist()
    run = network_module.Network.run
    for interrupted in range(4):
        engine, calls = Engine(1), []
        one = engine.submit(task(prompt, 5))

        def failing(self, requests, calls=calls, interrupted=interrupted):
            calls.append(1)
            if len(calls) == interrupted + 1:
                raise KeyboardInterrupt
            return run(self, requests)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network_module.Network, "run", failing)
            with pytest.raises(KeyboardInterrupt):
                engine.run()
            engine.run()
        assert one.result.tokens == alone(prompt, 5).tokens


def test_a_session_costs_its_pages_alone():
    made = network("plain", "q8")
    sessions = [made.session() for _ in range(1000)]
    assert sum(session.cache.nbytes for session in sessions) == 0
    assert len({id(session.pool) for session in sessions}) == 1
    for session in sessions[:3]:
        session.forward([1])
    assert sum(session.cache.nbytes for session in sessions) == 3 * PAGE * KVCache.slot_bytes(made.plan, "f16")


def test_generate_is_its_client(tmp_path):
    from tests.test_api import write

    model = fd.load(write(tmp_path / "m", files={}))
    texts = [[1, 2, 3], [300], [4]]
    with pytest.raises(PartialError) as raised:
        model.generate(texts, max_tokens=4)
    results = raised.value.results
    assert [one.tokens for one in results[::2]] == [model.generate(ids, max_tokens=4).tokens for ids in texts[::2]]
    assert results[1].finish_reason == "error" and results[1].tokens == []
