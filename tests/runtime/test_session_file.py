"""A session in a file: it goes on with the bits that it would have had, and no file makes anything else of it."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint.safetensors_file import Stored, read_safetensors, write_safetensors
from fastdistill.errors import ArgumentError, BusyError, CapacityError, CheckpointError
from fastdistill.kernels import isa_levels
from fastdistill.models import plan_for
from fastdistill.runtime.network import Network
from fastdistill.runtime.session_file import _digest, read_session
from tests.small_models import config, network, tensors
from tests.strategies import LOGITS, Setting, bits, level, settings_of_models, token_lists, trees

PLAIN = Setting("plain", "q8")


def loaded(setting: Setting, path, **options):
    return network(setting.name, setting.format, threads=setting.threads).load_session(path, **options)


@st.composite
def histories(draw):
    """Things that happen to a session; each is safe whatever happened before."""
    return draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("chain"), token_lists(1, 6)),
                st.tuples(st.just("tree"), trees(4), st.integers(0, 3)),
                st.tuples(st.just("block"), token_lists(1, 4)),
                st.tuples(st.just("replace"), token_lists(1, 3), st.floats(0, 1), st.floats(0, 1)),
                st.tuples(st.just("inputs"), st.integers(1, 2)),
                st.tuples(st.just("gap"), token_lists(1, 2), st.integers(1, 9)),
                st.tuples(st.just("truncate"), st.floats(0, 1)),
            ),
            max_size=6,
        )
    )


def happen(session, event) -> None:
    kind, *details = event
    if kind == "chain":
        session.forward(details[0], rows=())
    elif kind == "tree":
        tree, row = details
        session.forward(tree.tokens, parents=tree.parents, rows=())
        session.keep(tree.path(min(row, len(tree.tokens) - 1)))
    elif kind == "block":
        session.forward(details[0], nodes=[0] * len(details[0]), rows=())
        session.keep(range(len(details[0])))
    elif kind == "replace":
        tokens, a, b = details
        start, end = sorted((int(a * session.length), int(b * session.length)))
        session.forward(tokens, replace=(start, end), rows=())
        session.keep(range(len(tokens)))
    elif kind == "inputs":
        width = session.network.plan.hidden_size
        rows = np.random.default_rng(width).standard_normal((details[0], width)).astype(np.float32)
        session.forward(inputs={"embedding": rows}, rows=())
    elif kind == "gap":
        tokens, gap = details
        base = session.length + 20
        session.forward(tokens, positions=[base + gap * i for i in range(len(tokens))], rows=())
    else:
        session.truncate(int(details[0] * session.length))


@settings(max_examples=25)
@given(
    setting=settings_of_models, before=histories(), after=histories(), pending=st.booleans(), capacity=st.integers(80, 200),
    saved_by=st.sampled_from(isa_levels()), read_by=st.sampled_from(isa_levels()),
)  # fmt: skip
def test_it_goes_on_as_if_it_had_never_stopped(
    tmp_path_factory, setting, before, after, pending, capacity, saved_by, read_by
):
    path = tmp_path_factory.getbasetemp() / "kept.session"
    with level(saved_by):
        session = setting.session(max_rows=16)
        for event in before:
            happen(session, event)
        session.save(path)
    with level(read_by):
        again = loaded(setting, path, capacity=capacity, max_rows=16)
        assert (again.capacity, again.cache.format) == (capacity, session.cache.format)
        if pending:
            session.forward([1, 2], parents=[-1, -1])
            session.save(path)  # which stay behind
            again = setting.session(capacity, max_rows=16, cache=session.cache.format)  # full of NaN
            again.restore(loaded_rows(setting, path))
            session.keep([])
        assert again.tokens.tolist() == session.tokens.tolist()
        text = session.tokens
        assert again.common_prefix(text) == session.common_prefix(text)
        for event in after:
            for one in (session, again):
                happen(one, event)
        got, want = again.forward([3, 1], read=LOGITS), session.forward([3, 1], read=LOGITS)
        np.testing.assert_array_equal(bits(got.logits), bits(want.logits))
        np.testing.assert_array_equal(
            again.context.positions[: again.length], session.context.positions[: session.length]
        )


def loaded_rows(setting, path):
    made = network(setting.name, setting.format, threads=setting.threads)
    return read_session(path, made.plan, made.fingerprint)


def test_a_session_that_was_read_takes_options_of_its_own(tmp_path):
    session = PLAIN.session()
    session.prefill([1, 2, 3])
    session.save(str(tmp_path / "s"))
    again = loaded(PLAIN, tmp_path / "s", capacity=3, max_rows=2, taps=("layers.0",))
    assert (again.capacity, again.max_rows, again.taps, again.length) == (3, 2, ("layers.0",), 3)
    assert loaded(PLAIN, tmp_path / "s").capacity == 512
    with pytest.raises(CapacityError, match="holds 3 tokens, more than a capacity of 2"):
        loaded(PLAIN, tmp_path / "s", capacity=2)
    empty = PLAIN.session()
    empty.save(tmp_path / "s")  # in place of the other
    assert loaded(PLAIN, tmp_path / "s").length == 0
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_the_file_holds_nothing_that_was_forgotten(tmp_path):
    session, twin = (PLAIN.session() for _ in range(2))
    session.prefill([1, 2, 3, 4, 5])
    session.truncate(2)
    twin.prefill([1, 2])
    for one, name in ((session, "a"), (twin, "b")):
        one.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "other",
    [
        lambda: network("plain", "q4"),
        lambda: network("plain", "f32"),
        lambda: network("plain", "q8", seed=1),
        lambda: network("plain", "q8", layers=3),
        lambda: network("biased", "q8"),
        lambda: network("plain", "q8", executor="reference"),
        lambda: changed(rope_theta=20000.0),
        lambda: changed(rms_norm_eps=1e-6),
        lambda: changed(touch=True),
        lambda: changed(far=True),
    ],
)
def test_another_model_is_refused(tmp_path, other):
    session = PLAIN.session()
    session.prefill([1, 2, 3])
    session.save(tmp_path / "s")
    with pytest.raises(CheckpointError, match="session of another model"):
        other().load_session(tmp_path / "s")


def changed(touch=False, far=False, **changes) -> Network:
    """The plain model with another setting, or one weight of its last layer one step away, or a frequency that no near position shows."""
    plan = plan_for(config("plain", **changes))
    if far:
        ops = []
        for op in plan.ops:
            constants = dict(op.constants)
            if op.kind == "rotary":
                constants["inverse_frequencies"] = constants["inverse_frequencies"].copy()
                constants["inverse_frequencies"][-1] *= 1 + 2**-20
            ops.append(replace(op, constants=constants))
        plan = replace(plan, ops=tuple(ops))
    made = tensors(plan, format="q8")
    if touch:
        made["model.layers.1.mlp.down_proj.weight"].data[-1, 3] ^= 1
    return Network(plan, made, threads=2)


def test_the_same_weights_in_another_object_on_other_threads_are_the_same_model(tmp_path):
    assert {network("plain", "q8", threads=n).fingerprint for n in (1, 2, 3)} == {changed().fingerprint}
    for isa in isa_levels():
        with level(isa):
            assert changed().fingerprint == network("plain", "q8").fingerprint


# ---- files that are none ----


def saved_arrays(tmp_path):
    session = PLAIN.session()
    session.prefill([1, 2, 3])
    session.save(tmp_path / "s")
    return {
        name: Stored(dtype, np.asarray(array).copy())
        for name, (dtype, array) in read_safetensors(tmp_path / "s").items()
    }


def put(name, value=None, dtype=None, **to):
    def change(arrays):
        kind, array = arrays[name]
        made = array if value is None else np.array(value, array.dtype)
        arrays[name] = Stored(dtype or kind, made)

    return change


def at(name, index, value):
    def change(arrays):
        arrays[name].array[index] = value

    return change


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda arrays: arrays.pop("digest"), "is no session"),
        (lambda arrays: arrays.update(more=arrays["tokens"]), "is no session"),
        (at("session", 0, 1), "version 1; expected 3"),
        (at("session", 0, -(2**63)), "version"),
        (put("session", [1]), "session must be"),
        (put("model", [1] * 31), "model must be"),
        (at("model", 0, 255), "another model"),
        (put("digest", [1] * 31), "digest must be"),
        (put("tokens", [1, 2]), "positions must be"),
        (put("tokens", [[1, 2, 3]]), "tokens must be"),
        (put("tokens", 1), "must be"),
        (put("tokens", []), "must be"),
        (put("tokens", np.arange(600)), "tokens must be"),
        (put("positions", [0, 1, 2, 3]), "positions must be"),
        (put("keys", np.zeros((3, 63))), "keys must be"),
        (put("keys", np.zeros((3, 64), np.uint16), "BF16"), "keys must be"),
        (lambda arrays: arrays.update(keys=Stored("F32", arrays["keys"].array.astype(np.float32))), "values must be"),
    ],
)
def test_an_array_that_does_not_belong_there_is_refused(tmp_path, change, text):
    arrays = saved_arrays(tmp_path)
    change(arrays)
    write_safetensors(tmp_path / "s", arrays)
    with pytest.raises(CheckpointError, match=text):
        loaded(PLAIN, tmp_path / "s")


@pytest.mark.parametrize(
    "change, text",
    [
        (at("tokens", 1, 300), r"tokens must lie in -1..299, found 1..300"),
        (at("tokens", 1, -2), "tokens must lie in"),
        (at("positions", 2, -1), "positions must lie in"),
        (at("positions", 2, 1 << 20), "positions must lie in"),
        (at("session", 1, 4), "the text's length must lie in 0..3, found 4..4"),
        (at("session", 1, -1), "the text's length"),
        (at("keys", (2, 5), np.nan), "keys and values hold a NaN"),
        (at("values", (0, 0), np.inf), "keys and values hold a NaN"),
    ],
)
def test_contents_are_checked_though_the_digest_is_right(tmp_path, change, text):
    arrays = saved_arrays(tmp_path)
    change(arrays)
    write_safetensors(tmp_path / "s", arrays)
    with pytest.raises(CheckpointError, match="is damaged"):
        loaded(PLAIN, tmp_path / "s")
    arrays["digest"] = Stored("U8", np.frombuffer(_digest(arrays), np.uint8))
    write_safetensors(tmp_path / "s", arrays)
    with pytest.raises(CheckpointError, match=text):
        loaded(PLAIN, tmp_path / "s")


def test_every_byte_of_a_file_counts(tmp_path):
    """Cut anywhere, or with any byte changed: an error of ours, or (in the header's spaces) the same session."""
    session = PLAIN.session()
    session.prefill([1, 2])
    session.save(tmp_path / "s")
    whole, random = (tmp_path / "s").read_bytes(), np.random.default_rng(0)
    damaged = [whole[:cut] for cut in (0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1)] + [whole + b"\0", b"\xff" * 99]
    for place in random.integers(0, len(whole), 200):
        damaged.append(whole[:place] + bytes([whole[place] ^ (1 << random.integers(8))]) + whole[place + 1 :])
    refused = 0
    for data in damaged:
        (tmp_path / "s").write_bytes(data)
        try:
            again = loaded(PLAIN, tmp_path / "s", capacity=8, max_rows=1)
        except (CheckpointError, CapacityError):
            refused += 1
        else:
            assert again.tokens.tolist() == [1, 2]
    assert refused > 0.9 * len(damaged)


@pytest.mark.parametrize("what", ["a folder", "a pipe", "nothing"])
def test_what_is_no_file_is_refused(tmp_path, what):
    path = tmp_path / "s"
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    with pytest.raises(CheckpointError):
        loaded(PLAIN, path)


@pytest.mark.parametrize("what", ["a pipe", "a link to a pipe", "a circle"])
def test_only_a_file_is_replaced(tmp_path, what):
    path, pipe = tmp_path / "s", tmp_path / "pipe"
    os.mkfifo(pipe)
    if what == "a pipe":
        pipe.rename(path)
    else:
        path.symlink_to(path if what == "a circle" else pipe)
    before = {file.name: os.lstat(file).st_ino for file in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="cannot be written: what has that name is no regular file"):
        PLAIN.session().save(path)
    assert {file.name: os.lstat(file).st_ino for file in tmp_path.iterdir()} == before


def test_a_link_to_a_file_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/s").write_bytes(b"")
    (tmp_path / "link").symlink_to("there/s")
    PLAIN.session().save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and loaded(PLAIN, tmp_path / "there/s").length == 0


@pytest.mark.parametrize("wrong", [3, None, b"s", [], "", ".", "/", "a\0b", "a" * 5000])
def test_a_path_must_name_a_file(wrong):
    with pytest.raises(ArgumentError, match="path must"):
        PLAIN.session().save(wrong)
    with pytest.raises(ArgumentError, match="path must"):
        loaded(PLAIN, wrong)


@pytest.mark.parametrize("place", ["missing/s", "x" * 300, "folder"])
def test_a_session_that_cannot_be_written_leaves_nothing(tmp_path, place):
    (tmp_path / "folder").mkdir()
    session = PLAIN.session()
    with pytest.raises(CheckpointError, match="cannot be written"):
        session.save(tmp_path / place)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    session = PLAIN.session()
    session.save(tmp_path / "s")
    session.prefill([1, 2])

    def full(path, arrays):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastdistill.runtime.session_file.write_safetensors", full)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        session.save(tmp_path / "s")
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
    assert loaded(PLAIN, tmp_path / "s").length == 0


def test_a_session_in_use_is_not_saved(tmp_path):
    session = PLAIN.session()
    with session.entered(), pytest.raises(BusyError):
        session.save(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []
