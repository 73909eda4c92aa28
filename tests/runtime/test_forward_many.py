"""Several sequences in one pass: each as if alone."""

from __future__ import annotations

import contextlib
import gc
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, BusyError, CapacityError, NotFiniteError, PartialError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import forward_many, from_callable
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.runtime.read import Read
from tests.small_models import network
from tests.strategies import (
    LOGITS,
    Setting,
    assert_rows,
    assert_statistics,
    bits,
    settings_of_models,
    token_lists,
    trees,
)


def assert_same(got, want):
    assert_statistics(got.statistics, want.statistics)
    for name in ("tokens", "log_probs", "logits", "hidden"):
        a, b = getattr(got, name), getattr(want, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32), name)
    assert got.taps.keys() == want.taps.keys()
    for name, array in got.taps.items():
        np.testing.assert_array_equal(bits(array), bits(want.taps[name]), name)


@st.composite
def requests_of(draw, setting):
    """How to make a session and what to ask of it: chains, trees, blocks, inputs, exits, reads of all kinds."""
    options = dict(
        capacity=draw(st.integers(40, 300)), max_rows=draw(st.integers(8, 16)), cache=draw(st.sampled_from([None, "f16", "f32"])),
        taps=draw(st.sampled_from([(), ("layers.0",), ("embedding",)])),
    )  # fmt: skip
    context, tokens = draw(token_lists(0, 10)), draw(token_lists(1, 8))
    kind = draw(st.sampled_from(["chain", "tree", "block", "inputs", "exit", "resume"]))
    arguments: dict = dict(tokens=tokens)
    if kind == "tree":
        tree = draw(trees(8))
        arguments = dict(tokens=tree.tokens, parents=tree.parents)
    elif kind == "block":
        arguments["nodes"] = [0] * len(tokens)
    elif kind == "inputs":
        width = network(setting.name, setting.format).plan.hidden_size
        arguments = dict(
            inputs={
                "embedding": np.random.default_rng(len(tokens)).standard_normal((len(tokens), width)).astype(np.float32)
            }
        )
    elif kind == "exit":
        arguments["layers"] = (0, 1)
    elif kind == "resume":
        arguments = dict(layers=(1, 2))
    log_prob = np.array([3], np.int32) if draw(st.booleans()) else None
    read = Read(
        logits=draw(st.booleans()),
        hidden=draw(st.booleans()),
        sampler=draw(
            st.sampled_from(
                [
                    None,
                    Sampler(),
                    Sampler(temperature=1.0, repetition_penalty=2.0, frequency_penalty=1.0),
                    Sampler(temperature=0.7, seed=5),
                ]
            )
        ),
        log_prob_of=log_prob,
    )

    def make():
        session = setting.session(**options)
        if context:
            session.prefill(context)
        if kind == "resume":
            session.forward(tokens, layers=(0, 1), rows=())
        return session

    return make, Forward(**arguments, rows="last", read=read)


@settings(max_examples=40)
@given(setting=settings_of_models, data=st.data())
def test_equals_separate_forwards_bit_for_bit(isa, setting, data):
    made = data.draw(st.lists(requests_of(setting), min_size=1, max_size=5))
    together, apart = [make() for make, _ in made], [make() for make, _ in made]
    results = forward_many([(session, arguments) for session, (_, arguments) in zip(together, made, strict=True)])
    for session, twin, result, (_, arguments) in zip(together, apart, results, made, strict=True):
        assert_same(result, twin.run(arguments))
        assert (session.length, session.pending, session.tokens.tolist()) == (
            twin.length,
            twin.pending,
            twin.tokens.tolist(),
        )
        if session.pending and session.context.pending.layers == 1:
            assert_same(session.forward(layers=(1, 2), read=LOGITS), twin.forward(layers=(1, 2), read=LOGITS))
        session.keep([])
        twin.keep([])
        assert_same(session.forward([5], read=LOGITS), twin.forward([5], read=LOGITS))


def test_results_of_several_sequences_are_copies():
    setting = Setting("plain", "q8")
    a, b = setting.session(), setting.session()
    first, _ = forward_many([(a, Forward([1], read=LOGITS)), (b, Forward([2], read=LOGITS))])
    forward_many([(a, Forward([3], read=LOGITS)), (b, Forward([4], read=LOGITS))])
    assert_rows(first, setting.oracle.rows([1]))


def test_out_receives_each_sequences_logits():
    setting, outs = Setting("plain", "q8"), [np.empty((1, 300), np.float32) for _ in range(3)]
    forward_many([(setting.session(), Forward([i], read=LOGITS, out=out)) for i, out in enumerate(outs)])
    for i, out in enumerate(outs):
        np.testing.assert_array_equal(bits(out), setting.oracle.rows([i]))


def test_no_pass_is_larger_than_max_rows_and_neighbours_share_passes(monkeypatch):
    setting, sizes, passes = Setting("plain", "q8", max_rows=8), [5, 3, 6, 2, 1, 8], []
    run = NativeExecutor.run
    monkeypatch.setattr(NativeExecutor, "run", lambda self, request: passes.append(request.rows) or run(self, request))
    sessions = [setting.session() for _ in sizes]
    results = forward_many(
        [(s, Forward(list(range(size)), read=LOGITS)) for s, size in zip(sessions, sizes, strict=True)]
    )
    assert passes == [8, 8, 1, 8]
    for result, size in zip(results, sizes, strict=True):
        assert_rows(result, setting.oracle.rows(range(size)))


def test_a_wide_session_carries_the_others(isa):
    setting = Setting("odd", "f16", threads=2)
    sessions = [setting.session(max_rows=rows) for rows in (4, 32, 4)]
    for result in forward_many([(session, Forward([1, 2, 3], read=LOGITS)) for session in sessions]):
        assert_rows(result, setting.oracle.rows([1, 2, 3]))


# ---- one request fails alone ----

BARRED = np.zeros((1, 10), np.uint32)  # of 300 tokens: none may be drawn
DRAWN = Sampler(temperature=1.0)
NOT_FINITE = dict(inputs={"embedding": np.full((1, 64), np.nan, np.float32)})
WRONG = [
    (Forward(tokens=[300]), ArgumentError),
    (Forward(tokens=[1] * 17), CapacityError),
    (Forward(tokens=[1] * 97), CapacityError),
    (Forward(tokens=[1], read=Read(log_prob_of=np.zeros(2, np.int32))), ArgumentError),
    (Forward(tokens=[1], read=LOGITS, out=np.zeros(1)), ArgumentError),
    (Forward(layers=(1, 2)), ArgumentError),
    (Forward(tokens=[1], rows=7), ArgumentError),
    (Forward(tokens=[1], read=Read(sampler=Sampler(), allowed=BARRED)), ArgumentError),
    (Forward(tokens=[1], read=Read(sampler=DRAWN, allowed=BARRED, logits=True)), ArgumentError),
    (Forward(tokens=[1], read=Read(sampler=Sampler(logit_bias={999: 1.0}))), ArgumentError),
    (Forward(**NOT_FINITE), NotFiniteError),
    (Forward(**NOT_FINITE, parents=[-1]), NotFiniteError),
    (Forward(**NOT_FINITE, layers=(0, 1)), NotFiniteError),
]


@settings(max_examples=40)
@given(data=st.data(), format=st.sampled_from(["f32", "q8"]))
def test_each_request_fails_alone(data, format):
    """Whatever is wrong with some of them, and wherever they stand: the others give what they give without these."""
    setting = Setting("plain", format)
    made = data.draw(st.lists(requests_of(setting), min_size=1, max_size=4))
    wrong = data.draw(st.lists(st.sampled_from(WRONG), min_size=1, max_size=3))
    order = data.draw(st.permutations(range(len(made) + len(wrong))))
    good = [make() for make, _ in made]
    bad = [setting.session() for _ in wrong]
    for session in bad:
        session.prefill([1, 2])
    requests = [
        *((session, arguments) for session, (_, arguments) in zip(good, made, strict=True)),
        *((session, arguments) for session, (arguments, _) in zip(bad, wrong, strict=True)),
    ]
    results = dict(zip(order, forward_many([requests[n] for n in order], return_errors=True), strict=True))
    for number, (make, arguments) in enumerate(made):
        twin, session = make(), good[number]
        assert_same(results[number], twin.run(arguments))
        assert (session.length, session.pending, session.tokens.tolist()) == (
            twin.length,
            twin.pending,
            twin.tokens.tolist(),
        )
    for number, (session, (_, error)) in enumerate(zip(bad, wrong, strict=True), len(made)):
        assert type(results[number]) is error
        assert (session.length, session.pending) == (2, 0)
        assert_rows(session.forward([5], read=LOGITS), setting.oracle.rows([1, 2, 5])[2:])


@pytest.mark.parametrize("wrong, error", WRONG)
def test_what_failed_is_raised_when_the_others_have_run(wrong, error):
    setting = Setting("plain", "f32")
    sessions = [setting.session() for _ in range(3)]
    fine = Forward([1], read=LOGITS)
    with pytest.raises(PartialError) as raised:
        forward_many([(sessions[0], fine), (sessions[1], wrong), (sessions[2], fine)])
    first, failed, last = raised.value.results
    for rows in (first, last):
        assert_rows(rows, setting.oracle.rows([1]))
    assert type(failed) is error and raised.value.errors == {1: failed} and raised.value.__cause__ is failed
    assert str(raised.value).startswith("1 of 3 requests failed (") and str(failed) in str(raised.value)
    assert [session.length for session in sessions] == [1, 0, 1]
    with pytest.raises(error):  # where nobody gave anything
        forward_many([(session, wrong) for session in sessions])
    for session in sessions:  # none of them is left busy
        session.truncate(0)
        assert_rows(session.forward([2], read=LOGITS), setting.oracle.rows([2]))


@pytest.mark.parametrize("where", range(3))
@pytest.mark.parametrize("arguments", [dict(), dict(parents=[-1]), dict(layers=(0, 1))])
def test_who_is_not_finite_in_a_shared_pass_fails_alone(isa, monkeypatch, where, arguments):
    setting, passes, run = Setting("plain", "f32"), [], NativeExecutor.run
    rows = [np.full((1, 64), number + 1, np.float32) for number in range(3)]
    alone = [setting.session().forward(inputs={"embedding": one}, **arguments, read=LOGITS) for one in rows]
    rows[where] = rows[where] * np.nan
    sessions = [setting.session() for _ in rows]
    monkeypatch.setattr(NativeExecutor, "run", lambda self, request: passes.append(request.rows) or run(self, request))
    results = forward_many(
        [
            (s, Forward(**arguments, inputs={"embedding": one}, read=LOGITS))
            for s, one in zip(sessions, rows, strict=True)
        ],
        return_errors=True,
    )
    assert passes == [3, 1, 1, 1]
    for number, (result, session) in enumerate(zip(results, sessions, strict=True)):
        if number == where:
            assert (
                type(result) is NotFiniteError
                and "row 0" in str(result)
                and (session.length, session.pending) == (0, 0)
            )
        else:
            assert_same(result, alone[number])
            assert session.length + session.pending == 1


def test_a_session_that_is_busy_fails_alone():
    setting, busy = Setting("plain", "q8"), Setting("plain", "q8").session()
    with busy.entered():
        rows, error = forward_many(
            [(setting.session(), Forward([1], read=LOGITS)), (busy, Forward([2]))], return_errors=True
        )
    assert_rows(rows, setting.oracle.rows([1]))
    assert type(error) is BusyError and busy.length == 0


@pytest.mark.parametrize("wrong", [case for case, _ in WRONG])
def test_errors_keep_no_session_alive(wrong):
    """Those that are given, while they are kept; those that are raised, once they have been handled."""
    setting, kept = Setting("plain", "f32"), []
    gc.disable()
    try:
        for others, give in ((1, True), (0, False), (1, False)):
            sessions = [setting.session() for _ in range(1 + others)]
            dead = [weakref.ref(session) for session in sessions]
            with contextlib.suppress(ArgumentError, CapacityError, NotFiniteError, PartialError):
                kept += forward_many(
                    [(sessions[0], wrong), *((session, Forward([1])) for session in sessions[1:])], give
                )
            del sessions
            assert [session() for session in dead] == [None] * (1 + others)
    finally:
        gc.enable()
    assert len(kept) == 2


def test_errors_of_several_requests_can_be_pickled():
    error = pickle.loads(pickle.dumps(PartialError([1, ArgumentError("no")], {1: ArgumentError("no")})))
    assert error.results[0] == 1 and "number 1: ArgumentError: no" in str(error)


def test_refuses_what_does_not_belong_together():
    setting = Setting("plain", "q8")
    session = setting.session()
    with pytest.raises(ArgumentError, match="once"):
        forward_many([(session, Forward([1])), (session, Forward([2]))])
    with pytest.raises(ArgumentError, match="one model"):
        forward_many([(session, Forward([1])), (Setting("plain", "q4").session(), Forward([2]))])
    for wrong in (
        3,
        None,
        "ab",
        [3],
        [(1, 2, 3)],
        [(session,)],
        [(session, {"tokens": [1]})],
        {session: {}},
        np.zeros(3),
    ):
        with pytest.raises(ArgumentError, match="forward_many takes"):
            forward_many(wrong)
    with pytest.raises(ArgumentError, match="return_errors"):
        forward_many([], return_errors=1)
    with pytest.raises(ArgumentError):
        forward_many([(from_callable(lambda tokens: np.zeros((len(tokens), 9)), 9), Forward([1]))])
    assert forward_many([]) == []
    assert session.length == 0


def test_memory_that_two_requests_share():
    """One array for the logits of two is refused for the second; rows that another's logits take the place of are read before."""
    sessions = [network("plain").session(16, 4) for _ in range(3)]
    wanted = network("plain").session(16, 4).forward([1], read=Read(logits=True)).logits.copy()
    out = np.zeros((1, 300), np.float32)
    first, second = forward_many(
        [
            (session, Forward([token], read=Read(logits=True), out=out))
            for session, token in zip(sessions, (1, 2), strict=False)
        ],
        return_errors=True,
    )
    assert isinstance(second, BusyError) and "out is being written" in str(second) and sessions[1].length == 0
    np.testing.assert_array_equal(first.logits, wanted)
    rows = out[:, :64]
    rows[:] = np.linspace(-1, 1, 64)
    fresh = network("plain").session(16, 4).forward(inputs={"embedding": rows}, read=Read(logits=True)).logits.copy()
    first, second = forward_many(
        [
            (sessions[1], Forward([1], read=Read(logits=True), out=out)),
            (sessions[2], Forward(inputs={"embedding": rows}, read=Read(logits=True))),
        ]
    )
    np.testing.assert_array_equal(first.logits, wanted)
    np.testing.assert_array_equal(second.logits, fresh)
