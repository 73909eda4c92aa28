"""config.json: old and new spellings read alike, and every accessor gives what it says or refuses."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint.config import Config, Section, eos_token_ids, read_config
from fastdistill.errors import CheckpointError
from fastdistill.files import parse_json

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
values = st.recursive(
    scalars, lambda item: st.lists(item, max_size=3) | st.dictionaries(st.text(max_size=6), item, max_size=3)
)


@given(theta=st.floats(1, 1e7), factor=st.floats(1, 64), kind=st.sampled_from(["type", "rope_type"]))
def test_old_spellings_read_as_new_ones(theta, factor, kind):
    new = {"rope_parameters": {"rope_theta": theta, "rope_type": "linear", "factor": factor}, "dtype": "float16"}
    old = {"rope_theta": theta, "rope_scaling": {kind: "linear", "factor": factor}, "torch_dtype": "float16"}
    mixed = new | {"rope_theta": theta, "torch_dtype": None, "rope_scaling": None}
    for raw in (new, old, mixed):
        config = Config(raw)
        assert config.raw == raw
        assert config.section("rope_parameters").raw == new["rope_parameters"]
        assert config.string("dtype") == "float16"
        assert config.section("rope_scaling", default=None) is None


def test_rope_parameters_are_always_there():
    assert Config({}).section("rope_parameters").raw == {"rope_type": "default"}
    assert Config({"rope_scaling": None, "rope_theta": 1e4}).section("rope_parameters").number("rope_theta") == 1e4


def test_spellings_that_contradict_each_other_are_refused():
    with pytest.raises(CheckpointError, match=r"rope_theta is 10000.0, and 5.0 in rope_parameters"):
        Config({"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 5.0}})
    with pytest.raises(CheckpointError, match="rope_scaling must be an object, found 'linear'"):
        Config({"rope_scaling": "linear"})


@settings(max_examples=500)
@given(value=values, minimum=st.integers(-9, 9), span=st.integers(0, 2**40), default=st.none() | st.just(7))
def test_accessors_give_what_they_say_or_refuse(value, minimum, span, default):
    config, maximum = Section({"key": value}, "file.json"), minimum + span
    bounds = {"minimum": minimum, "maximum": maximum, "default": default}
    within = type(value) in (int, float) and minimum <= value <= maximum
    tokens = type(value) is list and all(type(item) is int and 0 <= item < 2**31 for item in value)
    cases = [
        (lambda: config.integer("key", **bounds), type(value) is int and within),
        (lambda: config.number("key", **bounds), within),
        (lambda: config.number("key", default=default), type(value) in (int, float) and math.isfinite(value)),
        (lambda: config.boolean("key", default=default), type(value) is bool),
        (lambda: config.string("key", default=default), type(value) is str),
        (lambda: config.choice("key", "a", "", default=default), value in ("a", "")),
        (lambda: config.section("key", default=default).raw, type(value) is dict),
        (lambda: config.integers("key", default=default), tokens),
    ]
    for read, valid in cases[: 6 if value is None else None]:
        if value is None:
            assert read() == default
        elif valid:
            assert read() == value and type(read()) in (type(value), float)
        else:
            with pytest.raises(CheckpointError, match=r"file\.json: key must be"):
                read()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "width is missing; expected an integer from 1 to 1048576"),
        (0, "width must be an integer from 1 to 1048576, found 0"),
        (2**40, "found 1099511627776"),
        (1e3, "found 1000.0"),
        (True, "found True"),
        ("576", "found '576'"),
        ([576], r"found \[576\]"),
    ],
)
def test_messages_name_the_file_the_key_and_what_was_found(value, text):
    with pytest.raises(CheckpointError, match=f"dir/config.json: .*{text}"):
        Config({"width": value}, "dir/config.json").integer("width", minimum=1, maximum=1 << 20)


def test_integers_beyond_float_are_no_numbers():
    with pytest.raises(CheckpointError, match="eps must be a finite number"):
        Config({"eps": 10**400}).number("eps")


@pytest.mark.parametrize(
    ("config", "generation", "ids"),
    [
        (None, None, set()),
        (2, None, {2}),
        (2, 2, {2}),
        (2, [3, 4], {2, 3, 4}),
        ([5, 5], 0, {0, 5}),
        ([], [], set()),
    ],
)
def test_end_tokens_are_those_of_both_files(config, generation, ids):
    assert eos_token_ids(Config({"eos_token_id": config}), {"eos_token_id": generation}) == ids
    assert eos_token_ids(Config({"eos_token_id": config}), {}) == eos_token_ids(
        Config({"eos_token_id": config}), {"eos_token_id": None}
    )


@pytest.mark.parametrize("value", [True, 2.0, -1, "2", [True], [[2]], {"a": 2}, 2**40])
def test_end_tokens_that_are_no_tokens_are_refused(value):
    with pytest.raises(CheckpointError, match=r"config\.json: eos_token_id"):
        eos_token_ids(Config({"eos_token_id": value}), {})
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id"):
        eos_token_ids(Config({}), {"eos_token_id": value})


finite = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda item: st.lists(item, max_size=3) | st.dictionaries(st.text(max_size=6), item, max_size=3),
)


@given(value=st.dictionaries(st.text(max_size=6), finite, max_size=4))
def test_any_finite_object_is_read_back(tmp_path, value):
    assert parse_json(json.dumps(value).encode(), "x") == value


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"1", b"null", b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": {"b": 1, "b": 1}}',
     b"\xef\xbb\xbf{}", b'{"a": "\xff"}', b"[" * 10**6, b'{"a": 1} x', b"{'a': 1}"],
)  # fmt: skip
def test_bad_json_is_refused(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path / "config.json")
