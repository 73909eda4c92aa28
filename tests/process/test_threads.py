"""Threads that share a model: each writes what it would alone; what cannot be shared says so at once."""

from __future__ import annotations

import gc
import sys
import threading
import types
import weakref
from collections.abc import Callable

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.errors import BusyError
from tests.process.conftest import DECODERS, MESSAGES, PROMPTS, TOKENS

THREADS = 4


@pytest.fixture(autouse=True)
def _turns_come_often():
    """So that threads meet at more places than they would."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(work: Callable[[int], object], threads: int = THREADS) -> list:
    """What each thread returns, all of them started together; an error of one is raised here."""
    found, start = [None] * threads, threading.Barrier(threads)

    def one(number):
        start.wait(60)
        try:
            found[number] = work(number)
        except BaseException as error:
            found[number] = error

    started = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    for one_found in found:
        if isinstance(one_found, BaseException):
            raise one_found
    return found


def rotated(number: int) -> list[str]:
    """All prompts, each thread's in an order of its own."""
    return PROMPTS[number % len(PROMPTS) :] + PROMPTS[: number % len(PROMPTS)]


@pytest.mark.parametrize("name", DECODERS)
def test_each_text_is_the_one_that_is_written_alone(model, texts, name):
    """Threads share the model and the decoder; texts alone, texts together, streams."""

    def work(number):
        prompts = rotated(number)
        options = dict(max_tokens=TOKENS, decoder=DECODERS[name])
        found = {prompts[0]: model.generate(prompts[0], **options).tokens}
        found |= {prompts[1]: [token for piece in model.stream(prompts[1], **options) for token in piece.tokens]}
        together = model.generate(prompts[2:], **options)
        return found | {prompt: one.tokens for prompt, one in zip(prompts[2:], together, strict=True)}

    assert at_once(work) == [texts] * THREADS


def test_draws_and_conversations_too(model):
    def work(number):
        drawn = model.generate(PROMPTS[number], max_tokens=TOKENS, temperature=1.0, top_k=20, seed=number).tokens
        said = model.chat([*MESSAGES, {"role": "user", "content": str(number)}], max_tokens=8).tokens
        return drawn, said, model.score(PROMPTS[number]).total

    assert at_once(work) == [work(number) for number in range(THREADS)]


def test_one_session_serves_one_of_several_threads(model, texts):
    """The others are refused, at once or, as streams, by a text that was begun meanwhile; whoever is not has the text that it asked for."""
    session, done, refused = model.session(256), [], []

    def streamed(prompt):
        tokens = []
        for piece in model.stream(prompt, max_tokens=TOKENS, session=session):
            tokens += piece.tokens
        return tokens

    def generated(prompt):
        return model.generate(prompt, max_tokens=TOKENS, session=session).tokens

    def work(number):
        for prompt in rotated(number) * 6:
            try:
                tokens = (generated, streamed)[number % 2](prompt)
            except BusyError:
                refused.append(prompt)
            else:
                assert tokens == texts[prompt]
                done.append(prompt)

    at_once(work)
    assert done and len(done) + len(refused) == THREADS * 6 * len(PROMPTS)
    for prompt in PROMPTS:
        assert model.generate(prompt, max_tokens=TOKENS, session=session).tokens == texts[prompt]


def test_a_model_is_loaded_in_several_threads(folder, texts):
    """Each its own; and the tokenizer of one, which its first text reads, in all of them."""
    shared = fd.load(folder, threads=2)

    def work(number):
        one = fd.load(folder, ("f32", None)[number % 2], threads=1 + number % 3)
        return [made.generate(PROMPTS[0], max_tokens=TOKENS).tokens for made in (one, shared)]

    assert at_once(work) == [[texts[PROMPTS[0]]] * 2] * THREADS


def test_models_and_sessions_are_collected_meanwhile(folder, texts):
    """One thread makes and forgets models, sessions and streams that have begun; one collects; the others write."""
    gone, stop = [], threading.Event()

    def begun_and_forgotten(prompt):
        made = fd.load(folder, threads=2)
        session = made.session(64)
        next(made.stream(prompt, max_tokens=TOKENS, session=session))
        return weakref.ref(made), weakref.ref(session)

    def work(number):
        if number == 0:
            while not stop.wait(0.01):  # collecting a large process holds the others up
                gc.collect()
        elif number == 1:
            try:
                for prompt in PROMPTS:
                    gone.extend(begun_and_forgotten(prompt))
            finally:
                stop.set()
        else:
            shared = fd.load(folder, threads=2)
            while not stop.is_set():
                for prompt in PROMPTS:
                    assert shared.generate(prompt, max_tokens=TOKENS).tokens == texts[prompt]

    at_once(work)
    gc.collect()
    assert len(gone) == 2 * len(PROMPTS) and not [one for one in gone if one() is not None]


def test_a_module_that_another_thread_imports_just_now_is_not_there_yet(model, texts, monkeypatch):
    """NumPy imports its masked arrays on first use: for 20 ms there is a module without what it will hold."""
    monkeypatch.setitem(sys.modules, "numpy.ma", types.ModuleType("numpy.ma"))
    prompt = model.tokenizer.encode(PROMPTS[0])
    assert model.generate(prompt, max_tokens=TOKENS).tokens == texts[PROMPTS[0]]
    assert model.generate(tuple(map(np.int64, prompt)), max_tokens=TOKENS).tokens == texts[PROMPTS[0]]
