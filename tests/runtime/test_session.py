"""The session protocol, part by part, as DESIGN has it; and what a session answers to wrong arguments."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fastdistill.errors import (
    ArgumentError,
    BusyError,
    CapacityError,
    FastDistillError,
    NotFiniteError,
    UnsupportedError,
)
from fastdistill.kernels import isa as selected_isa
from fastdistill.kernels import isa_levels, set_isa
from fastdistill.kernels.boundary import lib
from fastdistill.kernels.forward.row_statistics import row_statistics
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import from_callable
from fastdistill.runtime.read import Read
from fastdistill.runtime.session import Caller, Hold
from tests.small_models import network
from tests.strategies import (
    ALPHABET,
    CAPACITY,
    LOGITS,
    Setting,
    assert_rows,
    assert_statistics,
    bits,
    cut,
    settings_of_models,
    token_lists,
    trees,
)  # fmt: skip

FEWER = settings(max_examples=25)
PLAIN = Setting("plain", "q8")
TAPS = ("embedding", "layers.0", "layers.1")


def embedding_rows(setting: Setting, tokens: list[int]) -> np.ndarray:
    """The float rows that these tokens stand for."""
    made = network(setting.name, setting.format, "reference")
    return made.weights.tensors["model.embed_tokens.weight"].to_float32()[tokens]


def hides_nothing(session) -> bool:
    """Whether the session still writes the text that the oracle writes."""
    text = [*session.tokens.tolist(), 3]
    return bool((bits(session.forward([3], read=LOGITS).logits) == PLAIN.oracle.rows(text)[-1:]).all())


# ---- what a chain and a tree are ----


def test_a_plain_chain_commits_at_once_and_other_rows_wait_for_keep():
    session = PLAIN.session()
    session.forward([1, 2])
    assert (session.length, session.pending) == (2, 0)
    session.forward([3], parents=[-1])
    session.forward([4], parents=[0])
    assert (session.length, session.pending) == (2, 2)
    session.keep([0])
    assert (session.length, session.pending, session.tokens.tolist()) == (3, 0, [1, 2, 3])


@pytest.mark.parametrize(
    "arguments",
    [dict(nodes=[0, 1]), dict(parents=[-1, 0]), dict(replace=(2, 2)), dict(layers=(0, 1)), dict(layers=(0, 2))],
)
def test_rows_with_parents_nodes_replace_or_layers_are_pending(arguments):
    session = PLAIN.session()
    session.prefill([1, 2])
    session.forward([3, 4], **arguments)
    assert (session.length, session.pending) == (2, 2)


@given(setting=settings_of_models, context=token_lists(1, 8), tree=trees(8), data=st.data())
@FEWER
def test_only_the_rows_asked_for_are_read_in_the_order_asked(setting, context, tree, data):
    setting = Setting(setting.name, setting.format)
    session = setting.session()
    session.prefill(context)
    picked = data.draw(
        st.one_of(
            st.just("last"), st.just([]), st.lists(st.integers(0, len(tree.tokens) - 1), max_size=len(tree.tokens))
        )
    )
    indices = [len(tree.tokens) - 1] if picked == "last" else picked
    rows = session.forward(tree.tokens, parents=tree.parents, rows=picked, read=Read(logits=True, hidden=True))
    want = [setting.oracle.rows(context + tree.text(row))[-1] for row in indices]
    assert_rows(rows, np.array(want, np.int32).reshape(len(indices), setting.vocab))
    assert rows.hidden.shape == (len(indices), session.network.plan.hidden_size)


# ---- read ----


@FEWER
@given(setting=settings_of_models, text=token_lists(1, 16), data=st.data())
def test_log_prob_of_is_the_logit_less_log_sum_exp(isa, setting, text, data):
    text = text[: setting.max_rows]
    wanted = np.array(
        data.draw(st.lists(st.integers(0, setting.vocab - 1), min_size=len(text), max_size=len(text))), np.int32
    )
    rows = setting.session().forward(text, read=Read(logits=True, log_prob_of=wanted))
    np.testing.assert_array_equal(
        rows.log_probs, rows.logits[np.arange(len(text)), wanted] - rows.statistics.log_sum_exp
    )


@pytest.mark.parametrize("format", ["f32", "q4"])
def test_statistics_are_the_same_whether_logits_are_kept_or_not(isa, format):
    setting, text = Setting("biased", format), [0, 1, 2, 3, 4]  # 600 tokens: three chunks of the vocabulary
    kept, dropped = setting.session(), setting.session()
    logits = kept.forward(text, read=LOGITS).logits
    assert_statistics(dropped.forward(text).statistics, row_statistics(logits))


def test_more_rows_than_the_head_holds_at_once_are_read_alike(isa):
    setting, text = Setting("odd", "q8"), np.random.default_rng(0).integers(0, ALPHABET, 70).tolist()
    assert_rows(setting.session(max_rows=70).forward(text, read=LOGITS), setting.oracle.rows(text))


def test_a_greedy_sampler_draws_the_first_largest_logit_and_allowed_bans_the_rest(isa):
    session = PLAIN.session()
    rows = session.forward([1, 2, 3], read=Read(logits=True, sampler=Sampler()))
    assert rows.tokens.tolist() == rows.logits.argmax(axis=1).tolist() == rows.statistics.argmax.tolist()
    logits = session.fork().forward([4], read=LOGITS).logits[0].copy()
    allowed = np.zeros((1, -(-PLAIN.vocab // 32)), np.uint32)
    few = np.array([5, 31, 32, 299])
    np.bitwise_or.at(allowed[0], few // 32, np.uint32(1) << (few % 32).astype(np.uint32))
    drawn = session.forward([4], read=Read(sampler=Sampler(), allowed=allowed)).tokens
    assert drawn.tolist() == [few[logits[few].argmax()]]


@FEWER
@given(setting=settings_of_models, context=token_lists(1, 8), tree=trees(10), data=st.data())
def test_a_row_of_a_tree_draws_what_its_path_draws_as_a_text(isa, setting, context, tree, data):
    """Law 2, the penalties counting the prompt, what was written and the row's own ancestors, nobody else's branch."""
    options = st.sampled_from(
        [
            dict(temperature=1.0),
            dict(repetition_penalty=3.0),
            dict(temperature=0.7, top_k=30, repetition_penalty=1.5),
            dict(frequency_penalty=1.5, presence_penalty=0.5, prompt_length=4),
        ]
    )
    likely = {token: 8.0 for token in range(ALPHABET)}  # what was seen is what may be drawn: the penalty decides
    read = Read(sampler=Sampler(seed=7, logit_bias=likely, **data.draw(options)))
    session = setting.session(max_rows=16)
    session.prefill(context)
    drawn = session.forward(tree.tokens, parents=tree.parents, read=read).tokens.tolist()
    for row in range(len(tree.tokens)):
        alone = setting.session(max_rows=32, threads=1)
        assert alone.forward(context + tree.text(row), rows="last", read=read).tokens[0] == drawn[row]


def test_penalties_count_rows_in_the_order_of_the_text_where_some_are_replaced():
    """1 2 [7 8] 5: behind the prompt, of three tokens, stand 8 and 5, and 7 does not."""
    session = PLAIN.session()
    session.prefill([1, 2, 3, 4, 5])
    new = dict(tokens=[7, 8], parents=[-1, 0], replace=(2, 4), rows="last")
    logits = session.forward(**new, read=LOGITS).logits[0].astype(np.float64)
    for likely, want in ((5, 7), (8, 7), (7, 7), (9, 9)):
        bias = {token: 50.0 - logits[token] + (token == likely) for token in (5, 7, 8, 9)}
        session.truncate(5)
        read = Read(sampler=Sampler(frequency_penalty=2.0, logit_bias=bias, prompt_length=3))
        assert session.forward(**new, read=read).tokens == [want]


def test_a_row_that_may_draw_nothing_is_an_error_and_leaves_the_session_as_it_was():
    session = PLAIN.session()
    session.prefill([1])
    with pytest.raises(ArgumentError):
        session.forward([2], read=Read(sampler=Sampler(), allowed=np.zeros((1, 10), np.uint32)))
    assert session.length == 1 and hides_nothing(session)


def test_out_receives_the_logits_and_outlives_the_next_call():
    session, out = PLAIN.session(), np.zeros((2, PLAIN.vocab), np.float32)
    rows = session.forward([1, 2], read=LOGITS, out=out)
    assert rows.logits is out
    session.forward([3, 4], read=LOGITS)
    np.testing.assert_array_equal(bits(out), PLAIN.oracle.rows([1, 2]))


def test_rows_are_arrays_of_their_own():
    """Another session's forward, in the same executor, changes nothing of them."""
    session, other = PLAIN.session(taps=TAPS), PLAIN.session(taps=TAPS)
    assert session.pool is other.pool
    everything = Read(logits=True, hidden=True, sampler=Sampler(1.0), log_prob_of=np.zeros(2, np.int32))
    rows = session.forward([1, 2], read=everything)
    arrays = [*rows.statistics, rows.tokens, rows.log_probs, rows.logits, rows.hidden, *rows.taps.values()]
    before = [array.copy() for array in arrays]
    other.forward([3, 4], read=everything)
    session.forward([5, 0], read=everything)
    for array, then in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, then)


# ---- inputs, taps, layers ----


@FEWER
@given(setting=settings_of_models, text=token_lists(1, 16), data=st.data())
def test_embedding_rows_given_as_floats_equal_their_tokens(isa, setting, text, data):
    session = setting.session()
    for piece in cut(data.draw, len(text), setting.max_rows):
        if data.draw(st.booleans()):
            rows = session.forward(inputs={"embedding": embedding_rows(setting, text[piece])}, read=LOGITS)
            assert (session.tokens[piece] == -1).all()
        else:
            rows = session.forward(text[piece], read=LOGITS)
        assert_rows(rows, setting.oracle.rows(text)[piece])


@FEWER
@given(setting=settings_of_models, text=token_lists(2, 16), data=st.data())
def test_taps_and_hidden_states_have_the_same_bits_for_any_split(isa, setting, text, data):
    whole = setting.session(max_rows=16, threads=1, taps=TAPS).forward(text, read=Read(hidden=True))
    session = setting.session(taps=TAPS)
    for piece in cut(data.draw, len(text), setting.max_rows):
        rows = session.forward(text[piece], read=Read(hidden=True))
        np.testing.assert_array_equal(bits(rows.hidden), bits(whole.hidden[piece]))
        for name in TAPS:
            np.testing.assert_array_equal(bits(rows.taps[name]), bits(whole.taps[name][piece]))
    assert_rows(setting.session(max_rows=16).forward(text, read=LOGITS), setting.oracle.rows(text))  # tapped or not


@pytest.mark.parametrize("name", ["plain", "odd", "biased"])
def test_taps_and_hidden_states_are_those_of_the_reference(isa, name):
    """f32, two layers, values near one: a few hundred roundings of 2^-24 an op, far below 1e-4."""
    tokens, read = [1, 2, 3, 4, 5], Read(hidden=True, logits=True)
    native = network(name).session(32, taps=TAPS).forward(tokens, read=read)
    reference = network(name, executor="reference").session(32, taps=TAPS).forward(tokens, read=read)
    for tap in TAPS:
        np.testing.assert_allclose(native.taps[tap], reference.taps[tap], atol=1e-4)
    np.testing.assert_allclose(native.hidden, reference.hidden, atol=1e-4)
    np.testing.assert_allclose(native.logits, reference.logits, atol=1e-4)
    np.testing.assert_array_equal(native.taps["embedding"], embedding_rows(Setting(name, "f32"), tokens))


DEEP = 3


def deep_session(format: str, threads: int, **options):
    return network("odd", format, threads=threads, layers=DEEP).session(**({"capacity": 64, "max_rows": 16} | options))


@FEWER
@given(
    format=st.sampled_from(["f32", "bf16", "q8", "q4"]), threads=st.integers(1, 4), context=token_lists(0, 6), tree=trees(10), data=st.data(),
)  # fmt: skip
def test_leaving_at_a_layer_and_going_on_gives_the_bits_of_the_whole(isa, format, threads, context, tree, data):
    exits = sorted(data.draw(st.sets(st.integers(1, DEEP - 1), min_size=1)))
    whole, parts = deep_session(format, 1), deep_session(format, threads)
    for session in (whole, parts):
        if context:
            session.prefill(context)
    want = bits(whole.forward(tree.tokens, parents=tree.parents, read=LOGITS).logits)
    early = [
        parts.forward(tree.tokens[p], parents=tree.parents[p], layers=(0, exits[0]), read=LOGITS)
        for p in cut(data.draw, len(tree.tokens), 16)
    ]
    together = deep_session(format, 1)
    if context:
        together.prefill(context)
    at_once = together.forward(tree.tokens, parents=tree.parents, layers=(0, exits[0]), read=LOGITS)
    np.testing.assert_array_equal(np.concatenate([bits(rows.logits) for rows in early]), bits(at_once.logits))
    for first, end in zip(exits, [*exits[1:], DEEP], strict=True):
        rows = parts.forward(layers=(first, end), read=LOGITS)
    assert_rows(rows, want)
    leaf = data.draw(st.integers(0, len(tree.tokens) - 1))
    for session in (whole, parts):
        session.keep(tree.path(leaf))
    assert_rows(parts.forward([1], read=LOGITS), bits(whole.forward([1], read=LOGITS).logits))


def test_rows_drafted_by_the_first_layers_one_by_one_are_verified_together(isa):
    session, token = PLAIN.session(), 1
    session.prefill([2, 3])
    drafted = []
    for i in range(4):
        drafted.append(token)
        token = int(session.forward([token], parents=[i - 1], layers=(0, 1)).statistics.argmax[0])
    assert_rows(session.forward(layers=(1, 2), read=LOGITS), PLAIN.oracle.rows([2, 3, *drafted])[2:])
    session.keep([0, 1])
    assert_rows(session.forward([5], read=LOGITS), PLAIN.oracle.rows([2, 3, *drafted[:2], 5])[-1:])


@pytest.mark.parametrize("format", ["f32", "q4"])
def test_rows_given_as_floats_may_wait_at_an_exit_too(isa, format):
    setting = Setting("odd", format)
    session = setting.session()
    session.forward(inputs={"embedding": embedding_rows(setting, [1, 2])}, layers=(0, 1))
    session.forward([3], parents=[1], layers=(0, 1))
    assert_rows(session.forward(layers=(1, 2), read=LOGITS), setting.oracle.rows([1, 2, 3]))
    session.keep([0, 1, 2])
    assert session.tokens.tolist() == [-1, -1, 3]
    assert_rows(session.forward([4], read=LOGITS), setting.oracle.rows([1, 2, 3, 4])[-1:])


def test_layers_are_refused_where_the_rows_have_not_come_that_far():
    session = PLAIN.session()
    with pytest.raises(ArgumentError, match="layers start at 1, but no rows are pending"):
        session.forward(layers=(1, 2))
    session.forward([1], layers=(0, 1))
    with pytest.raises(ArgumentError, match="run through 1 of 2 layers"):
        session.keep([0])
    with pytest.raises(ArgumentError, match="give no rows"):
        session.forward([2], layers=(1, 2))
    with pytest.raises(ArgumentError, match="layers end at 2, but the pending rows have run through 1"):
        session.forward([2], parents=[0])
    with pytest.raises(ArgumentError, match="rows are pending"):
        session.forward([2])
    session.keep([])
    assert (session.length, session.pending) == (0, 0) and hides_nothing(session)


@pytest.mark.parametrize("executor", ["native", "reference"])
def test_taps_of_layers_that_did_not_run_are_not_given(executor):
    session = network("plain", "f32", executor).session(32, taps=TAPS)
    whole = session.forward([1, 2])
    session.truncate(0)
    early = session.forward([1, 2], layers=(0, 1))
    assert set(early.taps) == {"embedding", "layers.0"}
    late = session.forward(layers=(1, 2))
    assert set(late.taps) == {"layers.1"}
    for name, array in (early.taps | late.taps).items():
        np.testing.assert_array_equal(array, whole.taps[name], name)


# ---- keep, truncate, fork ----


def test_keep_refuses_what_is_no_path_and_leaves_the_rows_pending():
    session = PLAIN.session()
    session.forward([1, 2, 3, 4], parents=[-1, 0, 0, 1])
    for indices, text in (
        ([1], "without row 0"),
        ([1, 0], "without row 0"),
        ([0, 0], "twice"),
        ([0, 3], "without row 1"),
        ([4], "0..3"),
        ([-1], "0..3"),
        ([True], "integer"),
        ([0.0], "integer"),
    ):
        with pytest.raises(ArgumentError, match=text):
            session.keep(indices)
        assert (session.length, session.pending) == (0, 4)
    session.keep([0, 1, 3])
    assert session.tokens.tolist() == [1, 2, 4] and hides_nothing(session)


def test_keep_refuses_two_branches_at_once():
    """Neither row has seen the other: together they are no text that the model has read."""
    session = PLAIN.session()
    session.forward([1, 2, 3], parents=[-1, -1, 0])
    with pytest.raises(ArgumentError):
        session.keep([0, 1])
    with pytest.raises(ArgumentError):
        session.keep([0, 2, 1])
    session.keep([0, 2])
    assert hides_nothing(session)


def test_a_block_must_be_kept_whole_before_what_sees_it():
    session = PLAIN.session()
    session.forward([1, 2, 3], nodes=[0, 0, 1])
    with pytest.raises(ArgumentError, match="without row 1"):
        session.keep([0, 2])
    session.keep([0, 1, 2])
    assert session.tokens.tolist() == [1, 2, 3]


def test_keep_can_delete_insert_and_replace():
    for replace, new, want in (
        ((1, 3), [], [0, 3, 4]),
        ((1, 1), [5, 5], [0, 5, 5, 1, 2, 3, 4]),
        ((1, 3), [5], [0, 5, 3, 4]),
        ((0, 5), [5], [5]),
    ):
        session = PLAIN.session()
        session.prefill([0, 1, 2, 3, 4])
        session.forward(new or [5], replace=replace)
        session.keep(range(len(new)))
        assert session.tokens.tolist() == want


def test_replace_stays_the_same_while_rows_are_pending():
    session = PLAIN.session()
    session.prefill([0, 1, 2, 3])
    session.forward([5], replace=(1, 2))
    with pytest.raises(ArgumentError, match="replace must be"):
        session.forward([5], parents=[0], replace=(1, 3))
    session.forward([5], parents=[0])
    assert session.pending == 2


def test_a_fork_is_independent_and_takes_no_pending_rows(isa):
    session = PLAIN.session(taps=TAPS, cache="f32", max_rows=7)
    session.prefill([1, 2, 3])
    session.forward([4, 5], parents=[-1, -1])
    twin = session.fork()
    assert (twin.length, twin.pending, twin.taps, twin.capacity, twin.max_rows) == (3, 0, TAPS, CAPACITY, 7)
    oracle = Setting("plain", "q8", cache="f32").oracle
    assert_rows(twin.forward([0, 0, 0], read=LOGITS), oracle.rows([1, 2, 3, 0, 0, 0])[3:])
    assert session.pending == 2
    session.keep([1])
    assert_rows(session.forward([2], read=LOGITS), oracle.rows([1, 2, 3, 5, 2])[-1:])
    session.truncate(0)
    assert_rows(twin.forward([1], read=LOGITS), oracle.rows([1, 2, 3, 0, 0, 0, 1])[-1:])


def test_a_fork_has_positions_of_its_own():
    session = PLAIN.session()
    session.prefill([1, 2])
    twin = session.fork()
    session.forward([3])
    twin.forward([3], positions=[50])
    assert_rows(session.forward([4], read=LOGITS), PLAIN.oracle.rows([1, 2, 3, 4])[-1:])


# ---- capacity ----


def test_a_session_can_be_filled_to_its_last_place(isa):
    session = PLAIN.session(capacity=9, max_rows=4)
    session.prefill([1, 2, 3, 4, 5, 0])
    with pytest.raises(CapacityError, match="do not fit a capacity of 9"):
        session.prefill([1, 2, 3, 4])
    with pytest.raises(CapacityError, match="more than max_rows = 4"):
        session.forward([1] * 5, parents=[-1] * 5)
    assert_rows(session.forward([1, 2, 3], read=LOGITS), PLAIN.oracle.rows([1, 2, 3, 4, 5, 0, 1, 2, 3])[-3:])
    with pytest.raises(CapacityError):
        session.forward([1])
    assert session.length == 9
    # Beyond the capacity there is room for max_rows pending rows, though not to keep them.
    session.forward([1, 2, 3, 4], parents=[-1, -1, -1, -1])
    with pytest.raises(CapacityError, match="places"):
        session.forward([1], parents=[-1])
    with pytest.raises(CapacityError, match="more than the capacity"):
        session.keep([0])
    assert session.pending == 4
    session.keep([])
    session.truncate(8)
    assert hides_nothing(session)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 9])
def test_prefill_takes_any_length_and_reads_the_last_row(length):
    session, text = PLAIN.session(max_rows=4), ([1, 2, 3, 4, 5] * 2)[:length]
    assert_rows(session.prefill(text, LOGITS), PLAIN.oracle.rows(text)[-1:])


def test_prefill_refuses_before_anything_has_run():
    session = PLAIN.session(max_rows=4)
    for tokens, read, error in (
        ([1] * (CAPACITY + 1), Read(), CapacityError),
        ([1] * 9 + [PLAIN.vocab], Read(), ArgumentError),
        ([1] * 9, Read(log_prob_of=np.zeros(9, np.int32)), ArgumentError),
    ):
        with pytest.raises(error):
            session.prefill(tokens, read)
        assert session.length == 0


# ---- errors ----


def test_a_second_caller_is_told_that_the_session_is_busy():
    session = PLAIN.session()
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with session.entered():
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(10)
    try:
        for call in (
            lambda: session.forward([1]),
            lambda: session.keep([]),
            lambda: session.truncate(0),
            session.fork,
            lambda: session.prefill([1]),
        ):
            with pytest.raises(BusyError):
                call()
    finally:
        leave.set()
        holder.join()
    assert session.length == 0 and hides_nothing(session)


@pytest.mark.parametrize("name", ["plain", "odd"])
@pytest.mark.parametrize("format", ["f32", "f16", "q8"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 3e38])
def test_rows_that_are_not_finite_leave_the_session_as_it_was(isa, name, format, wrong):
    setting = Setting(name, format)
    session = setting.session()
    session.prefill([1, 2, 3])
    rows = np.stack([*embedding_rows(setting, [4, 5])])
    rows[1, ::3] = wrong
    for arguments in (dict(), dict(parents=[-1, 0]), dict(rows=[0]), dict(rows=()), dict(layers=(0, 1))):
        with pytest.raises(NotFiniteError):
            session.forward(inputs={"embedding": rows}, **arguments)
        assert (session.length, session.pending) == (3, 0)
    assert_rows(session.forward([0], read=LOGITS), setting.oracle.rows([1, 2, 3, 0])[-1:])


@pytest.mark.parametrize("format", ["f32", "f16", "q8"])
def test_rows_waiting_at_an_exit_survive_a_failed_pass(isa, format):
    """hidden_size = 42: the padding up to 64 must not keep what the failed pass left in it."""
    setting = Setting("odd", format)
    session = setting.session()
    session.forward([1, 2], layers=(0, 1))
    with pytest.raises(NotFiniteError):
        session.forward(inputs={"embedding": np.full((1, 42), np.nan, np.float32)}, parents=[1], layers=(0, 1))
    assert_rows(session.forward(layers=(1, 2), read=LOGITS), setting.oracle.rows([1, 2]))


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        (dict(), ArgumentError, "either tokens or inputs"),
        (dict(tokens=[1], inputs={"embedding": np.zeros((1, 64), np.float32)}), ArgumentError, "either tokens or inputs"),
        (dict(tokens=[]), ArgumentError, "tokens must be a non-empty sequence"),
        (dict(tokens=[300]), ArgumentError, r"tokens\[0\] must lie in 0..299, got 300"),
        (dict(tokens=[-1]), ArgumentError, r"tokens\[0\] must lie in 0..299, got -1"),
        (dict(tokens=[1.0]), ArgumentError, "tokens must be a non-empty sequence of integers"),
        (dict(tokens=[[1]]), ArgumentError, "tokens"),
        (dict(tokens=[True]), ArgumentError, "tokens"),
        (dict(tokens=[2**70]), ArgumentError, "tokens"),
        (dict(tokens="text"), ArgumentError, "tokens"),
        (dict(tokens=7), ArgumentError, "tokens"),
        (dict(inputs={"other": np.zeros((1, 64), np.float32)}), ArgumentError, "inputs must be"),
        (dict(inputs=np.zeros((1, 64), np.float32)), ArgumentError, "inputs must be"),
        (dict(inputs={"embedding": np.full((1, 64), 0.1)}), ArgumentError, r"inputs\['embedding'\]\[0, 0\] = 0.1 would be rounded to float32: pass np.asarray\("),
        (dict(inputs={"embedding": np.full((1, 64), 1e300)}), ArgumentError, "1e\\+300 is beyond float32"),
        (dict(inputs={"embedding": np.zeros((1, 64), complex)}), ArgumentError, "must have dtype float32, got complex128"),
        (dict(inputs={"embedding": "text"}), ArgumentError, "must be a NumPy array or list of float32, got 'text'"),
        (dict(inputs={"embedding": np.zeros((1, 63), np.float32)}), ArgumentError, r"shape \(rows, 64\)"),
        (dict(inputs={"embedding": np.zeros((0, 64), np.float32)}), ArgumentError, "at least one row"),
        (dict(tokens=[1], parents=[0]), ArgumentError, "parents"),
        (dict(tokens=[1], parents=[]), ArgumentError, "parents"),
        (dict(tokens=[1], parents=[-1, -1]), ArgumentError, "parents must have one entry a new node, 1, got 2"),
        (dict(tokens=[1, 2], parents=[0, -1]), ArgumentError, "parents"),
        (dict(tokens=[1, 2], parents=[-1, 1]), ArgumentError, "parents"),
        (dict(tokens=[1], parents=5), ArgumentError, "parents"),
        (dict(tokens=[1], nodes=5), ArgumentError, "nodes"),
        (dict(tokens=[1, 2], nodes=[0]), ArgumentError, "nodes must have one entry a row"),
        (dict(tokens=[1, 2], nodes=[0, 2]), ArgumentError, "nodes"),
        (dict(tokens=[1, 2], nodes=[1, 1]), ArgumentError, "every number"),
        (dict(tokens=[1], positions=[-1]), ArgumentError, r"positions\[0\] must lie in"),
        (dict(tokens=[1], positions=[1 << 20]), ArgumentError, r"positions\[0\] must lie in"),
        (dict(tokens=[1], positions=[1, 2]), ArgumentError, "positions must have one entry a row"),
        (dict(tokens=[1], replace=5), ArgumentError, "replace must be"),
        (dict(tokens=[1], replace=(1, 0)), ArgumentError, "replace's"),
        (dict(tokens=[1], replace=(0, 9)), ArgumentError, "replace's end"),
        (dict(tokens=[1], rows="first"), ArgumentError, "rows must be"),
        (dict(tokens=[1], rows=[1]), ArgumentError, r"rows\[0\] must lie in 0..0, got 1"),
        (dict(tokens=[1], rows=0), ArgumentError, "rows"),
        (dict(tokens=[1], rows=None), ArgumentError, "rows"),
        (dict(tokens=[1], layers=(0, 3)), ArgumentError, "layers' end"),
        (dict(tokens=[1], layers=(1, 1)), ArgumentError, "layers"),
        (dict(tokens=[1], layers=1), ArgumentError, "layers must be"),
        (dict(tokens=[1], read="logits"), ArgumentError, "read must be a Read"),
        (dict(tokens=[1], read=Read(sampler=3)), ArgumentError, "sampler"),
        (dict(tokens=[1], read=Read(log_prob_of=np.zeros(2, np.int32))), ArgumentError, "log_prob_of must name one token a row read, 1, got 2"),
        (dict(tokens=[1], read=Read(log_prob_of=np.full(1, 300, np.int32))), ArgumentError, "0..299"),
        (dict(tokens=[1], read=Read(allowed=np.zeros(10, np.uint32))), ArgumentError, "allowed must have shape"),
        (dict(tokens=[1], read=Read(allowed=np.ones(300, bool))), ArgumentError, r"allowed must have shape \(1, 300\)"),
        (dict(tokens=[1], read=Read(allowed=[1, 2])), ArgumentError, r"bool \(rows, 300\), or bits in uint32 \(rows, 10\); got \[1, 2\]"),
        (dict(tokens=[1], read=Read(logits=1)), ArgumentError, "read.logits must be True or False, got 1"),
        (dict(tokens=[1], out=np.zeros((1, 300), np.float32)), ArgumentError, "out receives logits"),
        (dict(tokens=[1], read=LOGITS, out=np.zeros((1, 299), np.float32)), ArgumentError, "out must have shape"),
        (dict(tokens=[1], read=LOGITS, out=read_only(np.zeros((1, 300), np.float32))), ArgumentError, "out"),
        (dict(tokens=[1] * 17), CapacityError, "max_rows = 16"),
        *((dict(inputs={"embedding": rows}), ArgumentError, text) for rows, text in (
            (np.ma.array(np.zeros((1, 64)), mask=True), "must not be a masked array: its mask would be lost"),
            ([np.ma.array(np.zeros(64), mask=True)], "must not be a masked array: its mask would be lost"),
            ([[10**5000] * 64], "must hold numbers"), (np.zeros((2, 63)), r"must have shape \(rows, 64\)"), (np.zeros((0, 64)), "at least one row"),
        )),
    ],
)  # fmt: skip
def test_refuses(arguments, error, text):
    session = PLAIN.session()
    session.prefill([1])
    with pytest.raises(error, match=text):
        session.forward(**arguments)
    assert (session.length, session.pending) == (1, 0) and hides_nothing(session)


@pytest.mark.parametrize(
    "options, text",
    [
        (dict(capacity=0), "capacity must lie in 1..512"),
        (dict(capacity=513), "capacity must lie in 1..512"),
        (dict(capacity=1.5), "capacity must be an integer"),
        (dict(max_rows=0), "max_rows must lie in"),
        (dict(cache="bf16"), "cache must be"),
        (dict(taps=["layers.2"]), "this model has: embedding, layers.0, layers.1"),
        (dict(taps=5), "taps"),
        (dict(taps=[[1]]), r"tap \[1\] is unknown"),
        (dict(taps=["x" * 10**6]), "tap 'xxx.* is unknown"),
        (dict(cache=np.zeros(3)), "cache must be one of f16, f32, got array"),
        (dict(cache=10**5000), "got an integer of 16610 bits"),
        (dict(max_rows=10**5000), "got an integer of 16610 bits"),
        (dict(capacity=-(10**5000)), "got an integer of 16610 bits"),
    ],
)
def test_a_session_refuses(options, text):
    with pytest.raises(ArgumentError, match=text) as raised:
        network().session(**options)
    assert len(str(raised.value)) < 300


# ---- what people have is taken where it converts exactly ----


def forms(values, *others):
    """The same integers as lists, tuples, and arrays of every kind."""
    kinds = (np.int8, np.int16, np.int32, np.int64, np.dtype(">i8"), *others)
    return [values, tuple(values), *(np.array(values, kind) for kind in kinds), np.repeat(np.array(values), 2)[::2]]


def test_integers_of_any_type_are_taken():
    def ran(**arguments):
        session = PLAIN.session()
        session.prefill([1, 2, 3])
        rows = session.forward(**({"tokens": [4, 5]} | arguments), read=Read(logits=True, log_prob_of=[7, 8]))
        return bits(rows.logits).tolist(), rows.log_probs.tolist(), session.pending

    for name, values in (
        ("tokens", [4, 5]), ("positions", [6, 9]), ("parents", [-1, 0]), ("nodes", [0, 1]), ("rows", [1, 0]),
        ("replace", [1, 2]), ("layers", [0, 2]),
    ):  # fmt: skip
        want = ran(**{name: values})
        for form in forms(values):
            assert ran(**{name: form}) == want, (name, form)
    for form in forms([0, 1]):
        session = PLAIN.session()
        session.forward(forms([1, 2])[3], parents=[-1, 0])
        session.keep(form)
        assert session.tokens.tolist() == [1, 2]
    for form in forms([4, 5], np.uint64):
        session = PLAIN.session()
        session.prefill(form)
        assert session.tokens.tolist() == [4, 5] and session.common_prefix(form) == 2


@pytest.mark.parametrize(
    "make", [lambda: PLAIN.session(), lambda: from_callable(lambda t: np.zeros((len(t), 300)), 300)]
)
def test_what_is_read_may_be_named_in_any_type(make):
    mask = np.zeros((1, 300), bool)
    mask[0, [31, 32, 299]] = True
    words = np.zeros((1, 10), np.uint32)
    words[0, [0, 1, 9]] = 1 << 31, 1, 1 << 299 % 32
    for banned in forms([31, 32]):
        for allowed in (mask, words, np.asfortranarray(mask)):
            read = Read(sampler=Sampler(), allowed=allowed, banned=banned, log_prob_of=np.array([299]))
            assert make().forward([1], read=read).tokens.tolist() == [299]
    assert make().forward([1], rows=(), read=Read(banned=[], log_prob_of=[])).log_probs.tolist() == []


def test_float_rows_of_any_type_are_taken_where_float32_holds_them():
    rows = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float16)
    want = PLAIN.session().forward(inputs={"embedding": rows.astype(np.float32)}, read=LOGITS).logits
    for form in (rows, rows.astype(np.float64), rows.tolist(), rows.astype(">f4"), np.repeat(rows, 2, axis=1)[:, ::2]):
        got = PLAIN.session().forward(inputs={"embedding": form}, read=LOGITS).logits
        np.testing.assert_array_equal(bits(got), bits(want))


# ---- what a session is not ----


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps, lambda session: copy.copy([session][0])])
def test_a_session_is_not_copied_or_pickled(how):
    """A copy would write in the same cache."""
    session = PLAIN.session()
    session.prefill([1, 2])
    with pytest.raises(UnsupportedError, match="save" if how is pickle.dumps else r"session.fork\(\)"):
        how(session)
    assert hides_nothing(session)


def test_a_session_tells_what_it_is():
    session = PLAIN.session()
    session.prefill([1, 2])
    session.forward([3], parents=[-1])
    assert repr(session) == "<session of llama: 2 of 96 tokens, 1 rows pending, f16 cache, forwards of at most 16 rows>"
    assert repr(from_callable(lambda tokens: None, 9)) == "<session over a function: 0 of 1048576 tokens>"


@pytest.mark.parametrize("wrong", [-1, 2, 1.0, True, "1", None])
def test_truncate_refuses(wrong):
    session = PLAIN.session()
    session.prefill([1])
    with pytest.raises(ArgumentError, match="length must"):
        session.truncate(wrong)


@pytest.mark.parametrize("wrong", [5, None, "0", [None], [[0]]])
def test_keep_refuses(wrong):
    session = PLAIN.session()
    session.forward([1], parents=[-1])
    with pytest.raises(ArgumentError):
        session.keep(wrong)
    assert session.pending == 1


_garbage = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 5), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3),
        st.sampled_from([np.int32(1), np.float32(np.nan), np.zeros((1, 64), np.float32), np.zeros(0), np.array(1), np.zeros((2, 2), int)]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=6,
)  # fmt: skip
_NAMES = ["tokens", "inputs", "parents", "nodes", "positions", "replace", "rows", "layers", "read", "out"]


@settings(max_examples=400)
@given(
    arguments=st.dictionaries(st.sampled_from(_NAMES), _garbage, min_size=1, max_size=2),
    tokens=token_lists(1, 3),
    pending=st.booleans(),
)
def test_garbage_is_an_error_of_ours_and_changes_nothing(arguments, tokens, pending):
    session = PLAIN.session(capacity=32)
    session.prefill([1, 2])
    if pending:
        session.forward([3], parents=[-1])
    before = session.length, session.pending
    if "inputs" not in arguments:
        arguments.setdefault("tokens", tokens)
    try:
        session.forward(**arguments)
    except FastDistillError as error:
        assert str(error)
        assert (session.length, session.pending) == before
    session.truncate(2)
    assert hides_nothing(session)


# ---- hot loop ----


def test_c_allocates_nothing_after_the_first_forward(isa):
    setting = Setting("plain", "q4", threads=2)
    session = setting.session(capacity=400, taps=TAPS, max_rows=64)
    session.forward([1])  # the pool's counters
    session.truncate(0)
    before = lib.fd_allocations()
    session.prefill([1] * 300, Read(logits=True, hidden=True))
    for rows in (1, 4, 5, 64):
        session.forward([2] * rows, parents=[-1] * rows, read=LOGITS)
        session.keep([0])
    session.forward([1, 2], layers=(0, 1))
    session.forward(layers=(1, 2), read=Read(sampler=Sampler(temperature=1.0)))
    assert lib.fd_allocations() == before


# ---- a session over a function: the same protocol ----


def test_a_function_makes_a_session_with_the_same_protocol():
    """The function is the model itself, a fresh session a call: logits as from the native session, bit for bit."""

    def function(tokens):
        return PLAIN.oracle.rows(tokens).view(np.float32)

    session = from_callable(function, PLAIN.vocab, capacity=32, max_rows=16)
    assert_rows(session.prefill([1, 2, 3], LOGITS), PLAIN.oracle.rows([1, 2, 3])[-1:])
    rows = session.forward(
        [4, 5, 0], parents=[-1, -1, 1], read=Read(logits=True, log_prob_of=np.array([1, 2, 3], np.int32))
    )
    want = [PLAIN.oracle.rows([1, 2, 3, *path])[-1] for path in ([4], [5], [5, 0])]
    assert_rows(rows, np.stack(want))
    np.testing.assert_array_equal(rows.log_probs, rows.logits[[0, 1, 2], [1, 2, 3]] - rows.statistics.log_sum_exp)
    with pytest.raises(ArgumentError, match="without row 1"):
        session.keep([2])
    session.keep([1, 2])
    twin = session.fork()
    session.truncate(4)
    assert (session.tokens.tolist(), twin.tokens.tolist()) == ([1, 2, 3, 5], [1, 2, 3, 5, 0])
    assert_rows(twin.forward([1, 1], rows=[1], read=LOGITS), PLAIN.oracle.rows([1, 2, 3, 5, 0, 1, 1])[-1:])


def test_a_function_session_refuses_what_the_native_one_refuses():
    session = from_callable(lambda tokens: np.zeros((len(tokens), 9), np.float32), 9, capacity=4, max_rows=3)
    for call, error in (
        (lambda: session.forward([9]), ArgumentError),
        (lambda: session.forward(None), ArgumentError),
        (lambda: session.forward([1], rows=[1]), ArgumentError),
        (lambda: session.forward([1], rows=3), ArgumentError),
        (lambda: session.forward([1], parents=5), ArgumentError),
        (lambda: session.forward([1], read="logits"), ArgumentError),
        (lambda: session.forward([1], nodes=[1]), ArgumentError),
        (lambda: session.forward([1, 2], nodes=[0]), ArgumentError),
        (lambda: session.forward([1], replace=(0, 1)), ArgumentError),
        (lambda: session.forward([1], positions=[0]), UnsupportedError),
        (lambda: session.forward([1], layers=(0, 1)), UnsupportedError),
        (lambda: session.forward([1], read=Read(hidden=True)), UnsupportedError),
        (lambda: session.prefill([1] * 5), CapacityError),
        (lambda: session.forward([1] * 4), CapacityError),
        (lambda: session.forward([1] * 4, parents=[-1] * 4), CapacityError),
        (lambda: session.truncate(1), ArgumentError),
        (lambda: session.keep([0]), ArgumentError),
    ):
        with pytest.raises(error):
            call()
        assert (session.length, session.tokens.tolist()) == (0, [])
    session.prefill([1] * 4)  # any length, whatever max_rows is
    assert session.length == 4
    session.forward([1, 2], replace=(3, 4))
    with pytest.raises(ArgumentError, match="replace must be"):
        session.forward([1], parents=[0], replace=(2, 4))
    with pytest.raises(CapacityError):
        session.keep([0, 1])


@pytest.mark.parametrize(
    "result, error",
    [
        (np.zeros((1, 8), np.float32), ArgumentError),
        (np.zeros(9, np.float32), ArgumentError),
        (np.zeros((1, 9), complex), ArgumentError),
        ([["0"] * 9], ArgumentError),
        (np.ma.array(np.zeros((1, 9)), mask=True), ArgumentError),
        ([np.ma.array(np.zeros(9), mask=True)], ArgumentError),
        (np.full((1, 9), 1e300), NotFiniteError),
        (None, ArgumentError),
        ("text", ArgumentError),
        ([[1.0], [1.0, 2.0]], ArgumentError),
        (object(), ArgumentError),
        (np.full((1, 9), np.nan), NotFiniteError),
    ],
)
def test_a_function_that_returns_something_else_is_named(result, error):
    session = from_callable(lambda tokens: result, 9)
    with pytest.raises(error):
        session.forward([1])
    assert session.length == 0


def test_a_function_cannot_change_the_session_through_its_argument():
    def function(tokens):
        tokens[:] = 0
        return np.zeros((len(tokens), 9), np.float32)

    session = from_callable(function, 9)
    try:
        session.forward([1, 2])
    except ValueError:
        return  # the argument was read-only
    assert session.tokens.tolist() == [1, 2]


def masked_function(tokens):
    """Logits that depend on all tokens and on where they stand: what a row sees, and where, shows in every number."""
    places = np.arange(len(tokens))
    return np.sin(np.outer(places + 1, np.arange(9)) + np.sum((tokens + 1) * (places + 2) ** 2)).astype(np.float32)


def masked_session(**options):
    return from_callable(masked_function, 9, **({"mask_token": 8} | options))


def test_a_function_session_says_how_the_function_predicts():
    plain, masked = from_callable(masked_function, 9), masked_session(logit_shift=1).fork()
    assert (plain.causal, plain.mask_token, plain.logit_shift) == (True, None, 0)
    assert (masked.causal, masked.mask_token, masked.logit_shift) == (False, 8, 1)
    for wrong in (dict(mask_token=9), dict(mask_token=-1), dict(logit_shift=2)):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            from_callable(masked_function, 9, **wrong)


@given(
    context=token_lists(0, 6), blocks=st.lists(token_lists(1, 4), min_size=1, max_size=3), branches=st.booleans(), data=st.data()
)  # fmt: skip
def test_the_function_is_called_once_a_node_with_all_that_it_sees(context, blocks, branches, data):
    """A chain of blocks or branches; with `replace`, in place of committed rows.  Branches that are alike are one call."""
    calls = []

    def function(tokens):
        calls.append(tokens.tolist())
        return masked_function(tokens)

    session = from_callable(function, 9, mask_token=8)
    if context:
        session.forward(context, nodes=[0] * len(context), parents=[-1], rows=())
        session.keep(range(len(context)))
    start = data.draw(st.integers(0, len(context)))
    end = data.draw(st.integers(start, len(context)))
    flat = [token for block in blocks for token in block]
    nodes = [number for number, block in enumerate(blocks) for _ in block]
    parents = [-1] * len(blocks) if branches else list(range(-1, len(blocks) - 1))
    reads = data.draw(st.lists(st.integers(0, len(flat) - 1), max_size=6, unique=True))
    rows = session.forward(flat, nodes=nodes, parents=parents, replace=(start, end), rows=reads, read=LOGITS)
    texts, first = {}, {}
    for number, block in enumerate(blocks):
        before = [] if branches else [token for other in blocks[:number] for token in other]
        texts[number] = context[:start] + before + block + context[end:]
        first[number] = start + len(before) - nodes.index(number)
    assert sorted(calls) == sorted(map(list, {tuple(texts[nodes[row]]) for row in reads}))
    for row, got in zip(reads, rows.logits, strict=True):
        number = nodes[row]
        want = masked_function(np.array(texts[number], np.int32))[first[number] + row]
        np.testing.assert_array_equal(got, want)
    last = [row for row, number in enumerate(nodes) if number == len(blocks) - 1 or not branches]
    session.keep(last)
    assert session.tokens.tolist() == context[:start] + [flat[row] for row in last] + context[end:]
    session.truncate(0)
    assert (session.length, session.pending) == (0, 0)


def test_forgetting_pending_rows_keeps_the_rows_that_they_would_have_replaced():
    session = masked_session()
    session.prefill([1, 2, 3])
    session.forward([4, 4], nodes=[0, 0], parents=[-1], replace=(1, 3), rows=())
    session.truncate(3)
    assert (session.tokens.tolist(), session.pending) == ([1, 2, 3], 0)


def test_rows_of_a_chain_do_not_see_those_after_them_whatever_the_function_looks_at():
    got = masked_session().forward([1, 2, 3], read=LOGITS)
    want = [masked_function(np.array([1, 2, 3][:n]))[-1] for n in (1, 2, 3)]
    np.testing.assert_array_equal(got.logits, want)


@given(context=token_lists(1, 6), block=token_lists(1, 5), data=st.data())
def test_nodes_over_a_function_are_nodes_over_the_model_that_it_is(context, block, data):
    """The function is a session of the native model, all its rows in one node: full attention."""
    inner = PLAIN.session()

    def function(tokens):
        inner.truncate(0)
        return inner.forward(tokens, nodes=[0] * len(tokens), parents=[-1], read=LOGITS).logits

    session = from_callable(function, PLAIN.vocab, mask_token=7)
    session.forward(context, nodes=[0] * len(context), parents=[-1], rows=())
    session.keep(range(len(context)))
    start = data.draw(st.integers(0, len(context) - 1))
    two = [*block, *block]  # as two branches: the function's buffer is the same in both calls
    nodes = [0] * len(block) + [1] * len(block)
    rows = session.forward(two, nodes=nodes, parents=[-1, -1], replace=(start, len(context)), read=LOGITS)
    text = context[:start] + block
    want = PLAIN.session().forward(text, nodes=[0] * len(text), parents=[-1], read=LOGITS).logits[start:]
    np.testing.assert_array_equal(bits(rows.logits), bits(np.concatenate([want, want])))


# ---- any sequence of calls ----


class SessionMachine(RuleBasedStateMachine):
    """Random calls against the simplest model of a session: the list of its committed tokens, and the pending tree."""

    @initialize(
        format=st.sampled_from(["f32", "f16", "q8", "q4"]), threads=st.integers(1, 3), capacity=st.integers(8, 40), level=st.sampled_from(isa_levels())
    )  # fmt: skip
    def start(self, format, threads, capacity, level):
        set_isa(level)
        self.setting = Setting("odd", format, threads)
        self.session = self.setting.session(capacity=capacity, max_rows=8)
        self.text, self.tree, self.parents = [], [], []

    def path(self, row):
        rows = []
        while row >= 0:
            rows.append(row)
            row = self.parents[row]
        return rows[::-1]

    @precondition(lambda self: not self.parents)
    @rule(tokens=token_lists(1, 8))
    def chain(self, tokens):
        if len(self.text) + len(tokens) > self.session.capacity:
            with pytest.raises(CapacityError):
                self.session.forward(tokens)
            return
        rows = self.session.forward(tokens, read=LOGITS)
        self.text += tokens
        assert_rows(rows, self.setting.oracle.rows(self.text)[-len(tokens) :])

    @rule(tokens=token_lists(1, 8), data=st.data())
    def grow(self, tokens, data):
        parents = [data.draw(st.integers(-1, len(self.tree) + i - 1)) for i in range(len(tokens))]
        if len(self.text) + len(self.tree) + len(tokens) > self.session.capacity + 8:
            with pytest.raises(CapacityError):
                self.session.forward(tokens, parents=parents)
            return
        rows = self.session.forward(tokens, parents=parents, read=LOGITS)
        first = len(self.tree)
        self.tree, self.parents = self.tree + tokens, self.parents + parents
        texts = [self.text + [self.tree[i] for i in self.path(row)] for row in range(first, len(self.tree))]
        assert_rows(rows, np.stack([self.setting.oracle.rows(text)[-1] for text in texts]))

    @rule(data=st.data())
    def keep(self, data):
        path = self.path(data.draw(st.integers(-1, len(self.tree) - 1)))
        if len(self.text) + len(path) > self.session.capacity:
            with pytest.raises(CapacityError):
                self.session.keep(path)
            return
        self.session.keep(path)
        self.text += [self.tree[row] for row in path]
        self.tree, self.parents = [], []

    @rule(data=st.data())
    def truncate(self, data):
        n = data.draw(st.integers(0, len(self.text)))
        self.session.truncate(n)
        self.text, self.tree, self.parents = self.text[:n], [], []

    @rule(go_on_with_the_fork=st.booleans())
    def fork(self, go_on_with_the_fork):
        twin = self.session.fork()
        if go_on_with_the_fork:
            self.session, self.tree, self.parents = twin, [], []
        elif len(self.text) < twin.capacity:
            assert_rows(twin.forward([0], read=LOGITS), self.setting.oracle.rows([*self.text, 0])[-1:])

    @rule(
        wrong=st.sampled_from(
            [
                dict(tokens=[-1]),
                dict(tokens=[0], parents=[10**6]),
                dict(inputs={"embedding": np.full((3, 42), np.nan, np.float32)}, parents=[-1] * 3),
            ]
        )
    )
    def fail(self, wrong):
        with pytest.raises(FastDistillError):
            self.session.forward(**wrong)

    @invariant()
    def the_session_says_what_it_holds(self):
        if hasattr(self, "session"):
            assert self.session.tokens.tolist() == self.text
            assert (self.session.length, self.session.pending) == (len(self.text), len(self.tree))


def test_any_sequence_of_calls_leaves_the_bits_of_the_committed_text():
    before = selected_isa()
    try:
        run_state_machine_as_test(SessionMachine, settings=settings(max_examples=60, stateful_step_count=25))
    finally:
        set_isa(before)


# ---- beginnings that sessions share ----


def test_a_beginning_is_shared_or_refused_as_a_whole():
    donor, taker = PLAIN.session(40), PLAIN.session(40)
    donor.forward([1, 2, 3, 4])
    taker.share(donor, 3)
    assert_rows(taker.forward([5], read=LOGITS), PLAIN.oracle.rows([1, 2, 3, 5])[-1:])
    others = [network("plain", "q8").session(40), PLAIN.session(40, cache="f16"), 3, None]
    for other, length in ((donor, 5), (donor, -1), (donor, 1.5), *((other, 2) for other in others)):
        with pytest.raises(ArgumentError):
            taker.share(other, length)
        assert taker.tokens.tolist() == [1, 2, 3, 5]
    small = PLAIN.session(3)
    with pytest.raises(ArgumentError, match=r"length must lie in 0..3"):
        small.share(donor, 4)


def test_a_caller_that_is_gone_holds_no_session():
    """As an interrupt leaves it, on the way to `leave`."""
    session, caller = PLAIN.session(), Caller()
    session.enter(caller)
    with pytest.raises(BusyError):
        session.forward([1])
    del caller
    session.forward([1])
    assert session.length == 1


def test_of_two_callers_who_find_a_turn_over_one_comes_next():
    """The second one enters while the first has seen that nobody is there, and not yet said that it comes next."""
    session, first, second = PLAIN.session(), Caller(), Caller()

    def over():
        held.caller = lambda: None
        session.enter(second)

    held = session._holds["call"] = Hold(over)
    with pytest.raises(BusyError):
        session.enter(first)
    session.leave(first)  # it has nothing to leave
    with pytest.raises(BusyError):
        session.enter(first)
    session.leave(second)
    session.enter(first)
