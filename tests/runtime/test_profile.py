"""A profile changes no bit, its times fit within each other, and its bytes are those of the weights and of the cache."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.errors import NotFiniteError
from fastdistill.kernels import kernel_name
from fastdistill.runtime import bandwidth as measured
from fastdistill.runtime import profile as module
from fastdistill.runtime.bandwidth import bandwidth
from fastdistill.runtime.kv_cache import KVCache
from tests.small_models import CONFIGS, FORMATS, network
from tests.strategies import LOGITS, assert_rows, bits

TEXT = [1, 2, 3, 4, 5]
LINEARS = {"linear q,k,v", "linear o", "linear gate,up", "linear down"}


@pytest.fixture(autouse=True)
def _known_bandwidth(monkeypatch):
    """Measuring it is for the one test that looks at it."""
    monkeypatch.setattr(module, "bandwidth", lambda threads: threads * 1e9)


class Watched(fd.Profile):
    """Keeps the clocks."""

    def __init__(self):
        super().__init__()
        self.clocks = []

    def add(self, outline, request, clock, threads):
        assert len(clock) == len(outline.name_of_stage) + 1 == outline.calls.sum() + 1
        self.clocks.append(clock.copy())
        super().add(outline, request, clock, threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("format", FORMATS)
def test_a_profile_changes_no_bit_and_its_times_fit_within_each_other(isa, format, threads):
    model = network("plain", format, threads=threads)
    want = model.session(32).forward(TEXT, read=LOGITS).logits.copy()
    started = time.perf_counter()
    with Watched() as profile:
        session = model.session(32)
        session.forward(TEXT[:3], rows="last")
        assert_rows(session.forward(TEXT[3:], read=LOGITS), bits(want)[3:])
    wall = time.perf_counter() - started
    for clock in profile.clocks:
        assert clock[0] > 0 and (np.diff(clock) >= 0).all() and clock[-1] > clock[-2]
    for phase, clock, rows in zip((profile.prefill, profile.decode), profile.clocks, (3, 2), strict=True):
        assert (phase.forwards, phase.rows) == (1, rows)
        assert set(phase.stages) > LINEARS | {"attend", "head"}
        assert all(stages.calls > 0 and stages.seconds >= 0 for stages in phase.stages.values())
        assert phase.stages["linear down"].calls == 2 and phase.stages["linear down"].seconds > 0
        assert phase.total.seconds == pytest.approx((clock[-1] - clock[0]) * 1e-9)
        assert phase.total.seconds < phase.seconds and phase.rest_seconds > 0
    assert profile.seconds < wall and profile.threads == threads
    assert profile.kernels == {format: kernel_name(format)}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("format", FORMATS)
def test_bytes_are_those_of_the_packed_weights_and_of_the_keys_and_values_seen(name, format):
    model = network(name, format)
    session = model.session(32)
    with fd.Profile() as profile:
        session.forward(TEXT)
        session.forward([6])
    plan = model.plan
    matrices = {w for op in plan.ops if op.kind in ("linear", "head") for w in op.weights[:1]}
    weights = sum(model.weights.matrix(matrix).nbytes for matrix in matrices)  # a tied one is read by the head alone
    token = KVCache.slot_bytes(session.network.plan, session.cache.format) - 4  # its position
    stages = profile.decode.stages
    assert stages["attend"].bytes == token * (5 + 6)
    assert profile.decode.total.bytes == 2 * weights + token * (5 + 6)
    assert stages["head"].bytes == 2 * model.weights.matrix(plan.ops[-1].weights[0]).nbytes
    assert {name for name, found in stages.items() if found.bytes} == LINEARS | {"attend", "head"}


def test_a_sequence_counts_the_keys_of_its_row_that_sees_most():
    session = network().session(32)
    with fd.Profile() as profile:
        session.forward(TEXT, parents=[-1, 0, 1, 2, -1])  # the last row sees itself alone
    token = KVCache.slot_bytes(session.network.plan, session.cache.format) - 4  # its position
    assert profile.decode.stages["attend"].bytes == token * 4


def test_a_forward_that_reads_no_row_reads_no_head():
    with fd.Profile() as profile:
        network().session(32).forward(TEXT, rows=())
    assert profile.prefill.stages["head"].bytes == 0 and profile.decode.forwards == 0


def test_sequences_that_share_a_pass_count_their_keys_each_and_the_weights_once():
    model = network()
    with fd.Profile() as alone:
        model.session(32).forward(TEXT)
    pair = [(model.session(32), fd.Forward(TEXT)), (model.session(32), fd.Forward(TEXT[:2]))]
    with fd.Profile() as profile:
        fd.forward_many(pair)
    attended, seen = (p.decode.stages["attend"].bytes for p in (profile, alone))
    assert profile.decode.forwards == 1 and attended * 5 == seen * 7
    assert profile.decode.total.bytes - attended == alone.decode.total.bytes - seen


def test_layers_on_their_own_are_counted_as_they_run():
    session = network("plain", layers=3).session(32)
    with fd.Profile() as profile:
        session.forward(TEXT, layers=(0, 1))
        session.forward(layers=(1, 3))
    assert profile.decode.stages["linear down"].calls == 3 and profile.decode.stages["head"].calls == 2


def test_only_this_threads_forwards_within_the_block_are_recorded():
    session, other = network().session(32), network().session(32)
    session.forward([1])
    with fd.Profile() as profile:
        thread = threading.Thread(target=other.forward, args=([1],))
        thread.start()
        thread.join()
        session.forward([2])
        with fd.Profile() as inner:
            session.forward([3])
        session.forward([4])
    session.forward([5])
    assert (profile.decode.forwards, inner.decode.forwards) == (2, 1)
    with profile:
        session.forward([6])
    assert profile.decode.forwards == 3
    with profile:
        with profile:
            session.forward([7])
        session.forward([8])
    session.forward([9])
    assert profile.decode.forwards == 5


def test_a_pass_that_fails_is_not_counted():
    session = network().session(32)
    wrong = {"embedding": np.full((1, session.network.plan.hidden_size), np.nan, np.float32)}
    with fd.Profile() as profile, pytest.raises(NotFiniteError):
        session.forward(inputs=wrong)
    assert (profile.prefill.forwards, profile.decode.forwards) == (0, 0) and profile.seconds > 0
    assert "decode" not in str(profile)


def test_the_table_and_the_facts_say_the_same():
    session = network("plain", "q4").session(32)
    with fd.Profile() as profile:
        session.prefill(TEXT)
        session.forward([6])
    facts = json.loads(json.dumps(profile.facts()))
    assert facts["kernels"] == {"q4": kernel_name("q4")} and facts["bandwidth"] == 2e9
    text = str(profile)
    assert text.startswith(f"kernel   q4: {kernel_name('q4')}\nmemory   2.0 GB/s")
    for name in ("prefill", "decode"):
        phase = facts[name]
        assert phase["forwards"] == 1 and f"{name}  {phase['seconds']:.3f} s; forwards: 1" in text
        assert phase["rest_seconds"] == pytest.approx(
            phase["seconds"] - sum(stages["seconds"] for stages in phase["stages"].values())
        )
        line = next(line for line in text.split(f"{name}  ")[1].splitlines() if line.startswith("  linear down"))
        stages = phase["stages"]["linear down"]
        speed = stages["bytes"] / stages["seconds"]
        assert line.split()[-2:] == [f"{speed * 1e-9:.1f}", f"{speed / 2e9:.0%}"]
    shares = [
        float(line.split("%")[0].split()[-1]) for line in text.splitlines() if line.startswith(("  all", "  rest"))
    ]
    assert len(shares) == 4 and sum(shares) == pytest.approx(200, abs=0.2)


def test_bandwidth_is_that_of_some_memory():
    assert 1e8 < bandwidth(2, 1 << 20) < 1e13


def test_bandwidth_is_the_best_of_all_thread_counts(monkeypatch):
    def rate(work, parts):
        asked.append([part.nbytes for part in parts])
        return {1: 3.0, 2: 5.0, 3: 4.0}[len(parts)] - len(asked) / 64

    asked: list[list[int]] = []
    monkeypatch.setattr(measured, "rate", rate)
    first_of_two = 5.0 - (measured.REPETITIONS + 1) / 64
    assert measured.bandwidth(3, 1 << 10) == first_of_two * (1 << 10)
    assert {len(parts) for parts in asked} == {1, 2, 3} and {sum(parts) for parts in asked} == {1 << 10}


def test_a_clock_that_stands_still_gives_a_table_without_shares(monkeypatch):
    session = network("plain", "q8").session(8)
    monkeypatch.setattr("time.perf_counter", lambda: 3.0)
    with fd.Profile() as profile:
        session.forward([1, 2, 3], rows="last")
    assert "all stages" in str(profile) and profile.seconds == 0
    profile.bandwidth = bandwidth(2, 1 << 12)
    assert profile.bandwidth == 0 and "all stages" in str(profile)
