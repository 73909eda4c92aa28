"""Threads share kernels, weights and the selected level, with an interpreter lock or without one: every result is what one thread gets."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from fastdistill import kernels
from fastdistill.errors import BusyError
from fastdistill.kernels.boundary import written
from fastdistill.runtime import Read
from tests.small_models import network

THREADS, TURNS = 6, 12


def at_once(function):
    """What a function of a thread's number returns in each of some threads, which begin together."""
    barrier = Barrier(THREADS)

    def run(number):
        barrier.wait()
        return function(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


@pytest.fixture
def switching():
    """A function that selects another level of this machine each time, and the level as it was, at the end."""
    before, levels = kernels.isa(), kernels.isa_levels()
    yield lambda turn: kernels.set_isa(levels[turn % len(levels)])
    kernels.set_isa(before)


def test_kernels_give_each_thread_its_own_results_whatever_level_another_one_selects(switching):
    chance = np.random.default_rng(5)
    logits = [chance.standard_normal((3, 2000 + 16 * number), np.float32) for number in range(THREADS)]
    points = [chance.standard_normal((30 + number, 5)) for number in range(THREADS)]

    def results(number, threads):
        statistics = kernels.row_statistics(logits[number], threads=threads)
        distances = kernels.pairwise_distance(points[number], points[-1])
        return [np.asarray(values).tobytes() for values in (*statistics, distances)]

    wanted = [results(number, 1) for number in range(THREADS)]

    def work(number):
        wrong = 0
        for turn in range(TURNS):
            switching(number + turn)
            wrong += results(number, 1 + turn % 3) != wanted[number]
        return wrong

    assert at_once(work) == [0] * THREADS


@pytest.mark.parametrize("threads", [1, 2])
def test_sessions_of_one_model_are_each_as_if_alone(switching, threads):
    model, read = network(threads=threads), Read(logits=True)
    texts = [[1 + number, 5, 3 + number, 2, 7] for number in range(THREADS)]

    def logits(number):
        session = model.session(32)
        return (
            session.forward(texts[number], read=read).logits.tobytes()
            + session.forward([4], read=read).logits.tobytes()
        )

    wanted = [logits(number) for number in range(THREADS)]

    def work(number):
        wrong = 0
        for turn in range(TURNS):
            switching(number + turn)
            wrong += logits(number) != wanted[number]
        return wrong

    assert at_once(work) == [0] * THREADS


def test_one_session_serves_one_thread_at_a_time():
    session = network().session(8)

    def work(number):
        served = 0
        for _ in range(20 * TURNS):
            try:
                with session.entered():
                    inside.append(number)
                    served += inside == [number]
                    inside.clear()
            except BusyError:
                served += 1
        return served

    inside: list[int] = []
    assert at_once(work) == [20 * TURNS] * THREADS


def test_of_threads_that_write_one_array_all_but_one_are_told():
    array, inside = np.zeros(100, np.float32), []

    def work(number):
        alone = 0
        for _ in range(20 * TURNS):
            try:
                with written({"out": array}, {}):
                    inside.append(number)
                    alone += inside == [number]
                    inside.clear()
            except BusyError:
                alone += 1
        return alone

    assert at_once(work) == [20 * TURNS] * THREADS


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has an interpreter lock")
def test_a_python_without_an_interpreter_lock_does_not_get_one():
    code = "import sys, fastdistill.kernels; print(sys._is_gil_enabled())"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
