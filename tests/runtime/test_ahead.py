"""Forwards that go on by themselves: the rows, the state and the text of forwards one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.decode import Autoregressive, Request, autoregressive, generate
from fastdistill.decode.text import Text
from fastdistill.errors import ArgumentError, NotFiniteError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import Forward, Read, from_callable, native_executor
from tests.small_models import network
from tests.strategies import LOGITS, Setting, bits, settings_of_models, token_lists
from tests.texts import events

tapped = st.sampled_from([(), ("layers.0",), ("layers.1", "embedding")])
samplers = st.builds(Sampler, temperature=st.sampled_from([0.0, 0.7, 2.0]), seed=st.integers(0, 99))


@given(
    setting=settings_of_models, text=token_lists(1, 12), ahead=st.integers(0, 9), sampler=samplers, taps=tapped, data=st.data()
)  # fmt: skip
def test_it_is_what_forwards_one_by_one_give(isa, setting, text, ahead, sampler, taps, data):
    whole, single = setting.session(30, taps=taps), setting.session(30, taps=taps)
    for session in (whole, single):
        session.prefill(text)
    until = frozenset(data.draw(st.sets(st.integers(0, setting.vocab - 1), max_size=setting.vocab // 3)))
    read = Read(sampler=sampler)
    rows = whole.run(Forward([1], rows="last", read=read, ahead=ahead, until=until))
    tokens, statistics, states = [1], [], []
    for _ in range(1 + min(ahead, 30 - len(text) - 1)):
        one = single.forward([tokens[-1]], rows="last", read=read)
        tokens.append(int(one.tokens[0]))
        statistics.append(one.statistics)
        states.append(one.taps)
        if tokens[-1] in until:
            break
    assert rows.tokens.tolist() == tokens[1:]
    for field, *wanted in zip(rows.statistics, *statistics, strict=True):
        np.testing.assert_array_equal(bits(field), bits(np.concatenate(wanted)))
    for name in taps:
        np.testing.assert_array_equal(*map(bits, (rows.taps[name], np.concatenate([each[name] for each in states]))))
    np.testing.assert_array_equal(whole.tokens, single.tokens)
    np.testing.assert_array_equal(whole.context.positions[: whole.length], single.context.positions[: single.length])
    if whole.length < 30:
        whole_logits, single_logits = (session.forward([2], read=LOGITS).logits for session in (whole, single))
        np.testing.assert_array_equal(bits(whole_logits), bits(single_logits))


@given(
    setting=settings_of_models, text=token_lists(1, 9), count=st.integers(0, 30), capacity=st.integers(9, 40), sampler=samplers,
    ends=st.frozensets(st.integers(0, 40), max_size=3), most=st.integers(0, 20),
)  # fmt: skip
def test_a_text_is_the_same_however_far_it_runs_ahead(setting, text, count, capacity, sampler, ends, most):
    with pytest.MonkeyPatch.context() as patch:
        results = []
        for here in (most, 0):
            patch.setattr(autoregressive, "MOST_AHEAD", here)
            patch.setattr(autoregressive, "SPELL", 1e9)
            session = setting.session(capacity)
            made = generate(session, text, count, sampler, ends, Autoregressive())
            results.append((made.tokens, made.finish_reason, session.tokens.tolist(), made.stats.new_tokens))
            if made.tokens:
                assert made.stats.forwards >= len(made.tokens) - 1
    assert results[0] == results[1]


class Failing:
    """C of which the third forward and all after it meet a NaN."""

    def __init__(self):
        self._truth, self._calls = native_executor.lib, 0

    def __getattr__(self, name):
        return getattr(self._truth, name)

    def fd_forward(self, *arguments):
        self._calls += 1
        if self._calls < 3:
            return self._truth.fd_forward(*arguments)
        arguments[5][0] = arguments[5][1] = 0
        return self._truth.FD_NOT_FINITE


def test_one_that_meets_no_number_ends_before_it_and_says_so_next():
    """The rows before are good; the row that is not fails when it is run by itself, as it would have."""
    made = network("plain", "f32")
    session = made.session(20)
    session.forward([1, 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_executor, "lib", Failing())
        rows = session.run(Forward([3], rows="last", read=Read(sampler=Sampler()), ahead=5))
        assert len(rows.tokens) == 2 and session.length == 4
        with pytest.raises(NotFiniteError):
            session.forward(rows.tokens[-1:])
    assert session.length == 4


def test_a_profile_counts_each_of_them():
    session = network("plain", "q8").session(40)
    session.forward([1, 2])
    with fd.Profile() as profile:
        session.run(Forward([3], rows="last", read=Read(sampler=Sampler()), ahead=4))
    other = network("plain", "q8").session(40)
    other.forward([1, 2])
    with fd.Profile() as single:
        token = [3]
        for _ in range(5):
            token = other.forward(token, rows="last", read=Read(sampler=Sampler())).tokens
    assert profile.decode.forwards == single.decode.forwards == 5
    assert profile.decode.total.bytes == single.decode.total.bytes


@pytest.mark.parametrize(
    "asked",
    [
        dict(tokens=[1, 2]), dict(tokens=[1], parents=[-1]), dict(tokens=[1], read=Read(sampler=Sampler(1.0, top_k=3))),
        dict(tokens=[1], rows=()), dict(tokens=[1], read=Read()), dict(tokens=[1], read=Read(logits=True, sampler=Sampler())), dict(tokens=[1], ahead=-1),
        dict(tokens=[1], ahead=1.5), dict(inputs={"embedding": np.zeros((1, 64), np.float32)}),
    ],
)  # fmt: skip
def test_refuses_what_cannot_go_on(asked):
    session = Setting("plain", "f32").session()
    with pytest.raises(ArgumentError, match="ahead"):
        session.run(Forward(**{"rows": "last", "read": Read(sampler=Sampler()), "ahead": 2} | asked))
    assert session.length == 0


def test_where_positions_fall_it_does_not_go_on():
    session = Setting("plain", "f32").session()
    session.forward([1, 2, 3], positions=[5, 4, 3])
    rows = session.run(Forward([1], rows="last", read=Read(sampler=Sampler()), ahead=4))
    assert len(rows.tokens) == 1 and session.length == 4


def test_others_do_not_know_it():
    session = from_callable(lambda tokens: np.zeros((len(tokens), 9)), 9)
    with pytest.raises(UnsupportedError, match="ahead"):
        session.run(Forward([1], rows="last", read=Read(sampler=Sampler()), ahead=1))
    assert not session.runs_ahead and not network("plain", "f32", "reference").session(9).runs_ahead


def test_forwards_beyond_the_end_are_none_of_the_texts():
    """A stop string ends it within the tokens that ran ahead: its statistics are those of forwards one by one."""

    class StopsAt:
        def __init__(self, count):
            self.left, self.stopped = count, False

        def push(self, token):
            self.left -= 1
            self.stopped = self.left == 0
            return ""

        def finish(self):
            return ""

    for count in range(1, 12):
        session = network("plain", "q8").session(60)
        request = Request(np.array([1, 2, 3], np.int32), 0, Sampler(), max_tokens=40)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(autoregressive, "SPELL", 1e9)
            text = Text(session, request, Autoregressive(), StopsAt(count))
            events([text])
        stats = text.result.stats
        assert (len(text.result.tokens), text.result.finish_reason) == (count, "stop")
        assert (stats.forwards, stats.new_tokens) == (count - 1, count) and session.length == 3 + count - 1


@given(
    setting=settings_of_models, text=token_lists(1, 12), first=token_lists(1, 4), sampler=samplers, seed=st.integers(0, 99),
    hidden=st.booleans(), taps=tapped, ahead=st.integers(1, 20),
)  # fmt: skip
def test_rounds_that_then_names_are_forwards_one_by_one(isa, setting, text, first, sampler, seed, hidden, taps, ahead):
    """Of each round some rows stay: what was drawn, hidden states, and the session are those of chains that are cut back."""
    whole, single = setting.session(40, taps=taps), setting.session(40, taps=taps)
    for session in (whole, single):
        session.prefill(text)
    read, random, told = Read(sampler=sampler, hidden=hidden), np.random.default_rng(seed), []

    def then(drawn, states):
        told.append((drawn.copy(), {name: array.copy() for name, array in states.items()}))
        if random.random() < 0.2:
            return None
        kept = int(random.integers(1, len(drawn) + 1))
        following = random.integers(0, setting.vocab, random.integers(0, 5)).astype(np.int32)
        plan.append((kept, following))
        return kept, following

    plan: list[tuple[int, np.ndarray]] = []
    rows = whole.run(Forward(first, read=read, ahead=ahead, then=then))
    asked = np.array(first, np.int32)
    room = len(first) + min(ahead, 40 - len(text) - len(first))
    for drawn, states in told:
        one = single.forward(asked, read=read)
        np.testing.assert_array_equal(one.tokens, drawn)
        wanted = one.taps | ({"hidden": one.hidden} if hidden else {})
        assert states.keys() == wanted.keys() and all(
            (bits(states[name]) == bits(wanted[name])).all() for name in wanted
        )
        if not plan:
            assert all((bits(rows.taps[name]) == bits(one.taps[name])).all() for name in taps)
            assert (rows.tokens == drawn).all() and (bits(rows.statistics.top) == bits(one.statistics.top)).all()
            break
        kept, asked = plan.pop(0)
        single.truncate(single.length - len(drawn) + kept)
        room -= kept
        if not 0 < len(asked) <= min(room, setting.session().max_rows, 256):
            assert len(rows.tokens) == 0
            break
    assert whole.length == single.length and (whole.tokens == single.tokens).all()
    if whole.length < 40:
        whole_logits, single_logits = (session.forward([2], read=LOGITS).logits for session in (whole, single))
        np.testing.assert_array_equal(bits(whole_logits), bits(single_logits))


@pytest.mark.parametrize("name", ["plain", "odd"])
def test_rounds_go_on_over_long_contexts(isa, name):
    """Where the keys of a row come to be split, between one round and the next, and beyond the rows that one forward takes."""
    made, random = network(name, "f32", threads=2), np.random.default_rng(4)
    text = random.integers(0, made.vocab_size, 60).astype(np.int32)
    whole, single = made.session(512), made.session(512)
    for session in (whole, single):
        session.prefill(text)
    told, asked = [], [random.integers(0, made.vocab_size, 3).astype(np.int32) for _ in range(145)]

    def then(drawn, states):
        told.append(drawn.copy())
        return (3, asked[len(told)]) if len(told) < len(asked) else None

    read = Read(sampler=Sampler())
    whole.run(Forward(asked[0], read=read, ahead=440, then=then))
    for rows, drawn in zip(asked, told, strict=True):
        assert (single.forward(rows, read=read).tokens == drawn).all()
    assert whole.length == single.length == 60 + 3 * 145
    logits = [session.forward([2], read=LOGITS).logits for session in (whole, single)]
    np.testing.assert_array_equal(*map(bits, logits))


def test_a_round_that_meets_no_number_is_left_out():
    session = network("plain", "f32").session(20)
    session.forward([1, 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_executor, "lib", Failing())
        read = Read(sampler=Sampler())
        rows = session.run(Forward([3, 4], read=read, ahead=9, then=lambda drawn, _: (1, np.array([5, 6], np.int32))))
    assert len(rows.tokens) == 0 and session.tokens.tolist() == [1, 2, 3, 5]


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (dict(tokens=[1, 2], ahead=0), "then needs ahead"), (dict(tokens=[1, 2], then=3), "then is a function"),
        (dict(tokens=[1, 2], rows="last"), "whose rows are all read"), (dict(tokens=[1, 2], read=Read()), "draws the next token"),
        (dict(tokens=[1], parents=[-1]), "goes on from a chain"),
    ],
)  # fmt: skip
def test_refuses_what_then_cannot_go_on_from(asked, complaint):
    session = Setting("plain", "f32").session()
    with pytest.raises(ArgumentError, match=complaint):
        session.run(
            Forward(**{"read": Read(sampler=Sampler()), "ahead": 2, "then": lambda drawn, states: None} | asked)
        )
    assert session.length == 0


def test_where_positions_leave_a_gap_then_is_not_asked():
    session = Setting("plain", "f32").session()
    rows = session.run(
        Forward([1, 2], positions=[0, 3], read=Read(sampler=Sampler()), ahead=4, then=lambda *_: (2, [5]))
    )
    assert len(rows.tokens) == 2 and session.context.positions[:2].tolist() == [0, 3]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [((3, [1]), "then's rows that stay must lie"), ((1, [-1]), "then's tokens"), ((1, [1 << 20]), "then's tokens")],
)
def test_refuses_what_then_says_of_no_row_or_token(answer, complaint):
    session = Setting("plain", "f32").session()
    with pytest.raises(ArgumentError, match=complaint):
        session.run(Forward([1, 2], read=Read(sampler=Sampler()), ahead=4, then=lambda *_: answer))
    assert session.length == 0
