"""Ctrl-C at any moment: the same process goes on as if nothing had been, and files are whole or not there."""

from __future__ import annotations

import itertools
import os
import signal
import time

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.train.runs import RunFolder
from tests.process.children import children, tasks
from tests.process.conftest import DECODERS, MESSAGES, PROMPTS, TOKENS
from tests.process.moments import interrupted, moments
from tests.process.writers import WRITERS, tree
from tests.test_files import litter, remove
from tests.train.stand_in import go
from tests.train.test_runs import CONFIG, STEPS, same
from tests.train.test_training_engine import engine_of
from tests.train.test_training_engine import step as gradients
from tests.train.test_training_engine import texts as texts_of

MOMENTS = 12  # of each kind of work
FEW = 8  # tokens: each is some hundred lines


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", DECODERS)
def test_an_interrupted_text_leaves_its_session_and_the_model_to_the_next(model, texts, name):
    """One session for all moments: what stayed busy or half written would be seen by the next text."""
    session, options = model.session(256), dict(max_tokens=FEW, decoder=DECODERS[name])
    other = PROMPTS[0] + PROMPTS[1]
    want = model.generate(other, max_tokens=FEW).tokens
    came = 0

    def work():
        for _ in model.stream(PROMPTS[0], session=session, **options):
            pass
        model.generate(PROMPTS[:2], max_tokens=2, decoder=options["decoder"])

    for moment in moments(work, MOMENTS):
        came += interrupted(work, moment)
        assert model.generate(other, session=session, **options).tokens == want  # it begins as the other does
        assert model.generate(PROMPTS[0], session=session, **options).tokens == texts[PROMPTS[0]][:FEW]
    assert came > MOMENTS // 2
    assert [one.tokens for one in model.generate(PROMPTS, **options)] == [text[:FEW] for text in texts.values()]


def test_an_interrupted_start_leaves_nothing_open(folder, model, texts):
    """Loading, the first text with the tokenizer, a conversation with the process of its template."""
    want = model.chat(MESSAGES, max_tokens=4).tokens

    def work():
        made = fd.load(folder, threads=2)
        made.generate(PROMPTS[0], max_tokens=4)
        made.chat(MESSAGES, max_tokens=4)
        made.session(32).fork().forward([1])

    chosen = moments(work, 2 * MOMENTS)
    before = descriptors(), tasks(), len(children())
    for moment in chosen:
        interrupted(work, moment)
        assert model.chat(MESSAGES, max_tokens=4).tokens == want
    made = fd.load(folder, threads=2)
    assert made.generate(PROMPTS[0], max_tokens=TOKENS).tokens == texts[PROMPTS[0]]
    assert (descriptors(), tasks(), len(children())) == before


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # one that comes within a __del__ is lost
def test_a_signal_between_and_within_forwards(folder, texts):
    """The real thing, by a clock: it may come while C computes, and is seen when that returns."""
    model = fd.load(folder, threads=2)
    session, chance, came = model.session(256), np.random.default_rng(0), 0

    def work():
        fd.load(folder, threads=2).generate(PROMPTS[2], max_tokens=2)
        model.generate(PROMPTS[0], max_tokens=TOKENS, session=session, decoder=DECODERS["lookup"])
        model.chat(MESSAGES, max_tokens=4)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        started = time.perf_counter()
        work()
        longest = time.perf_counter() - started
        for delay in chance.uniform(1e-4, longest, 40):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, delay)
                    work()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                came += 1
            assert model.generate(PROMPTS[0], max_tokens=TOKENS, session=session).tokens == texts[PROMPTS[0]]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert came
    assert [one.tokens for one in model.generate(PROMPTS, max_tokens=TOKENS)] == list(texts.values())


@pytest.mark.parametrize("checkpoint", [False, True])
def test_an_interrupted_step_of_training_can_be_done_again(checkpoint):
    """Gradients that it has left are the next step's zeros, and passes half done are nobody's."""
    engine, batch = engine_of("plain", checkpoint=checkpoint), texts_of(300)
    want = gradients(engine, batch)
    for moment in moments(lambda: gradients(engine, batch), MOMENTS):
        interrupted(lambda: gradients(engine, batch), moment)
        value, found = gradients(engine, batch)
        assert value == want[0] and all((found[name] == want[1][name]).all() for name in want[1])


# ---- what is written ----


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_whole_or_as_it_was(sources, tmp_path, name):
    """With and without something of that name; the next call writes it, and nothing else stays."""
    called, write = WRITERS[name]
    target, other = tmp_path / "here" / called, tmp_path / "there" / called
    for each in (target, other):
        each.parent.mkdir()
    write(sources, other)
    want, came = tree(other), 0

    def work():
        write(sources, target)

    for moment in moments(work, MOMENTS):
        old = tree(target)
        came += interrupted(work, moment)
        assert tree(target) in (old, want)
        if moment % 2:
            work()
            assert tree(target) == want and litter(target.parent) == [called]
        elif old or tree(target):
            remove(target)
    assert came > MOMENTS // 2


def test_a_run_goes_on_in_the_same_process(tmp_path):
    """Its folder is not locked by what was interrupted; steps that were half done are done again, to the same bits."""

    def work(path):
        with RunFolder(path, None if path.exists() else CONFIG) as run:
            return go(run, STEPS)

    want, names = work(tmp_path / "whole")[1], itertools.count()
    for number, moment in enumerate(moments(lambda: work(tmp_path / str(next(names))), MOMENTS // 2)):
        path = tmp_path / "runs" / str(number)
        assert interrupted(lambda path=path: work(path), moment)
        assert same(work(path)[1], want)
        assert not [name for name in litter(path.parent) if name.endswith(".partial")]
