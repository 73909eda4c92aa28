"""Processes that come of others: by fork, at any moment, or anew; all write the same texts, and none waits for ever."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.errors import UnsupportedError
from fastdistill.kernels import NgramPool
from tests.process import library
from tests.process.children import children, in_child, tasks
from tests.process.conftest import COSTS, DECODERS, MESSAGES, PROMPTS, TOKENS


def written(model: fd.Model, **options) -> dict[str, list[int]]:
    """One after another, and all at once."""
    found = {prompt: model.generate(prompt, max_tokens=TOKENS, **options).tokens for prompt in PROMPTS}
    assert [one.tokens for one in model.generate(PROMPTS, max_tokens=TOKENS, **options)] == list(found.values())
    return found


def test_a_model_writes_on_in_children_and_in_children_of_children(model, texts):
    session, before = model.session(256), children()
    assert written(model) == texts  # the threads of its pool have been started
    first = model.generate(PROMPTS[1], max_tokens=TOKENS, session=session)

    def goes_on():
        again = model.generate(PROMPTS[1] + first.text, max_tokens=9, session=session)
        assert again.stats.reused_tokens > 0
        return written(model), again.tokens

    def grandchild():
        return goes_on(), in_child(goes_on), goes_on()

    want = texts, model.generate(PROMPTS[1] + first.text, max_tokens=9).tokens
    assert in_child(lambda: (goes_on(), tasks())) == (want, model.threads)  # the child's own, and no other
    assert goes_on() == want
    assert in_child(grandchild) == (want, want, want)
    assert goes_on() == want and children() == before


def test_forks_while_other_threads_decode(model, texts):
    """A fork waits for a forward and no longer; a child has none of the other threads, and needs none."""
    stop, wrong, before = threading.Event(), [], children()

    def work(prompt, names):
        for name in itertools.cycle(names):
            if stop.is_set():
                return
            if model.generate(prompt, max_tokens=TOKENS, decoder=DECODERS[name]).tokens != texts[prompt]:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(prompt, [*DECODERS][n::2])) for n, prompt in enumerate(PROMPTS[:2])]
    for thread in threads:
        thread.start()
    try:
        for name in DECODERS:
            assert in_child(lambda name=name: written(model, decoder=DECODERS[name])) == texts
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong and written(model) == texts and children() == before


def test_forks_while_another_thread_fills_a_pool_that_texts_share():
    """A fork waits for what is being inserted: a child has the pool whole, and nobody has it locked there."""
    pool, stop = NgramPool(4), threading.Event()
    tokens = np.random.default_rng(0).integers(0, 50, 30_000).astype(np.int32)
    windows = set(zip(*(tokens[n:].tolist() for n in range(4)), strict=False))

    def fill():
        while not stop.is_set():
            pool.insert(tokens)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        for _ in range(5):
            found = in_child(lambda: [pool.lookup(key) for key in range(50)], seconds=20)
            assert all((key, *after) in windows for key, each in enumerate(found) for after in each.tolist())
    finally:
        stop.set()
        thread.join()


def test_forks_while_another_thread_loads_and_chats(folder, texts):
    """Tokenizer, template process and weights are made while the forks come; each child makes its own."""

    def everything():
        model = fd.load(folder, threads=2)
        return model.generate(PROMPTS[0], max_tokens=TOKENS).tokens, model.chat(MESSAGES, max_tokens=4).tokens

    want, stop, found = everything(), threading.Event(), []

    def work():
        while not stop.is_set():
            found.append(everything())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(4):
            assert in_child(everything) == want
    finally:
        stop.set()
        thread.join()
    assert found and all(one == want for one in found) and want[0] == texts[PROMPTS[0]]


def test_what_another_thread_was_making_is_made_again_in_a_child(folder, monkeypatch, tmp_path):
    """`costs` take a second, a tokenizer may: a child that waited for the thread it has not got would wait for ever."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, entered, leave = fd.load(folder), threading.Event(), threading.Event()

    def slow():
        entered.set()
        leave.wait(60)
        return COSTS

    monkeypatch.setattr(model, "measure_costs", slow)
    thread = threading.Thread(target=lambda: model.costs)
    thread.start()
    try:
        assert entered.wait(60)
        monkeypatch.setattr(model, "measure_costs", lambda: COSTS)
        assert in_child(lambda: model.costs, seconds=20) == COSTS
    finally:
        leave.set()
        thread.join()


# ---- the library's own ways ----


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver"])
def test_processes_of_the_library_write_the_same_texts(folder, model, texts, way, monkeypatch):
    """Forked ones have the model of the process that they come of; all may load their own."""
    context, write = multiprocessing.get_context(way), functools.partial(library.write, tokens=TOKENS)
    want = list(texts.values())
    with ProcessPoolExecutor(1, context, library.load, (folder,)) as processes:
        assert list(processes.map(write, PROMPTS, timeout=120)) == want
    if way == "fork":
        monkeypatch.setattr(library, "models", [model])
        with context.Pool(2) as pool:
            assert pool.map_async(write, PROMPTS).get(120) == want
        with ProcessPoolExecutor(2, context) as processes:
            assert list(processes.map(write, PROMPTS, timeout=120)) == want
    assert written(model) == texts


def test_a_model_does_not_travel_and_says_what_to_do(model):
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as processes,
        pytest.raises(UnsupportedError, match=r"packed for this machine\.  In the other process, load "),
    ):
        processes.submit(len, model).result(60)


def test_no_process_or_thread_stays(folder):
    """Of what a model has started, once it has gone: the pool's threads are few and are used again."""

    def counts():
        made = fd.load(folder, threads=3)
        assert len(made.generate(PROMPTS, max_tokens=4)) == len(PROMPTS)
        made.chat(MESSAGES, max_tokens=2)
        return tasks(), len(children())

    first = counts()
    assert [counts() for _ in range(5)] == [first] * 5
