"""TextStream: its pieces are the tokenizer's own decoding, cut at the first stop string."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers_made_here import KINDS, write_folder

from fastdistill.errors import ArgumentError
from fastdistill.text.stream import TextStream
from fastdistill.text.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    return Tokenizer(write_folder(tmp_path_factory.mktemp(request.param), KINDS[request.param]))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return Tokenizer(write_folder(tmp_path_factory.mktemp("byte_level"), KINDS["byte_level"]))


def cut(text: str, stops: list[str]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


@st.composite
def stops_for(draw, text):
    """Stop strings likely to occur: pieces of the text, some with another end, and a few that never do."""
    found = []
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        found.append(text[start : start + draw(st.integers(1, 5))] + draw(st.sampled_from(["", "", "z", "日"])))
    return [stop for stop in found if stop]


def ids_of(tokenizer):
    # Beyond the vocabulary too: a padded model may emit ids that have no token.
    return st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=40)


def runs_of_bytes(tokenizer):
    """Text in several scripts and broken UTF-8, a token a byte where the tokenizer has such tokens."""
    spelling = "{}" if tokenizer.byte_level else "<0x{:02X}>"
    ids = [tokenizer.token_id(spelling.format(byte)) for byte in range(256)]
    if None in ids:
        ids = [byte % tokenizer.vocab_size for byte in range(256)]
    data = st.one_of(st.text("aé日🙂\n", max_size=8).map(str.encode), st.binary(max_size=6))
    return st.lists(data, max_size=4).map(lambda parts: [ids[byte] for byte in b"".join(parts)])


@given(data=st.data())
@settings(max_examples=150)
def test_pieces_are_the_decoded_text_cut_at_the_first_stop(tokenizer, data):
    ids = data.draw(st.one_of(ids_of(tokenizer), runs_of_bytes(tokenizer)))
    stops = data.draw(stops_for(tokenizer.decode(ids)))
    stream = TextStream(tokenizer, stops)
    pieces, pushed = [], 0
    for token in ids:
        pieces.append(stream.push(token))
        pushed += 1
        assert stream.text == "".join(pieces)
        if stream.stopped:
            break
    pieces.append(stream.finish())
    decoded = tokenizer.decode(ids[:pushed])
    assert "".join(pieces) == stream.text == cut(decoded, stops)
    assert stream.stopped == any(stop in decoded for stop in stops)


@given(data=st.data())
@settings(max_examples=100)
def test_stops_at_the_token_that_completes_a_stop_string(byte_level, data):
    ids = data.draw(ids_of(byte_level))
    stops = [stop for stop in data.draw(stops_for(byte_level.decode(ids))) if "\ufffd" not in stop]
    stream = TextStream(byte_level, stops)
    for n, token in enumerate(ids, 1):
        stream.push(token)
        assert stream.stopped == any(stop in byte_level.decode(ids[:n]) for stop in stops)
        if stream.stopped:
            break


@given(data=st.data())
@settings(max_examples=100)
def test_without_stop_strings_whole_characters_come_at_once(byte_level, data):
    ids = data.draw(ids_of(byte_level))
    stream = TextStream(byte_level)
    for n, token in enumerate(ids, 1):
        stream.push(token)
        decoded = byte_level.decode(ids[:n])
        assert decoded.startswith(stream.text) and set(decoded[len(stream.text) :]) <= {"\ufffd"}
        assert len(decoded) - len(stream.text) <= 3  # at most three bytes are a character's beginning


@given(text=st.text(max_size=30), data=st.data())
def test_any_text_in_single_bytes_comes_back(byte_level, text, data):
    ids = [next(i for i in range(1, 257) if byte_level.token_bytes(i) == bytes([byte])) for byte in text.encode()]
    stream = TextStream(byte_level)
    pieces = [stream.push(token) for token in ids] + [stream.finish()]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def pushed(tokenizer, stop, *words):
    stream = TextStream(tokenizer, stop)
    return stream, [stream.push(token) for word in words for token in tokenizer.encode(word)]


@pytest.mark.parametrize(
    ("stop", "words", "pieces", "last", "stopped"),
    [
        ("END", ["a", "E", "N", "D"], ["a", "", "", ""], "", True),
        ("END", ["a", "E", "N", "x"], ["a", "", "", "ENx"], "", False),
        ("END", ["a", "E", "N"], ["a", "", ""], "EN", False),
        ("aab", ["a", "a", "a", "b"], ["", "", "a", ""], "", True),
        (["b", "abc"], ["a", "b", "c"], ["", "a"], "", True),  # b completes first
        (["日本"], ["x", "日", "本"], ["x", "", "", "", "", "", ""], "", True),
        (["é"], ["é"], ["", ""], "", True),
    ],
)  # fmt: skip
def test_holds_back_what_may_become_a_stop(byte_level, stop, words, pieces, last, stopped):
    stream, got = pushed(byte_level, stop, *words)
    assert got[: len(pieces)] == pieces
    assert stream.stopped == stopped and stream.finish() == last
    assert stream.text == "".join(pieces) + last


def test_the_earliest_of_several_stops_wins(byte_level):
    token = byte_level.token_id("abc")
    for stops in (["c", "b"], ["b", "c"], ["bc", "abcd", "c"]):
        stream = TextStream(byte_level, stops)
        assert stream.push(token) == "a" and stream.stopped


def test_a_stopped_stream_takes_tokens_and_gives_nothing(byte_level):
    stream, _ = pushed(byte_level, "x", "abx")
    assert stream.stopped and stream.push(5) == "" and stream.finish() == "" and stream.text == "ab"


def test_a_long_run_of_bytes_costs_little_and_loses_nothing(tmp_path):
    tokenizer = Tokenizer(write_folder(tmp_path, KINDS["llama2"]))
    calls = []
    decode = tokenizer.decode
    tokenizer.decode = lambda ids, **kw: calls.append(len(ids)) or decode(ids, **kw)
    text = "日本" * 2000
    ids = [tokenizer.token_id(f"<0x{byte:02X}>") for byte in text.encode()]
    stream = TextStream(tokenizer, "\n")
    pieces = [stream.push(token) for token in ids] + [stream.push(tokenizer.token_id("x")), stream.finish()]
    assert "".join(pieces) == text + "x"
    assert sum(calls) < 6 * len(ids)  # doubling: less than 2 n, and at most 64^2 before


def test_the_window_stays_short(tmp_path):
    tokenizer = Tokenizer(write_folder(tmp_path, KINDS["llama2"]))
    longest = 0
    decode = tokenizer.decode

    def counted(ids, **settings):
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids, **settings)

    tokenizer.decode = counted
    ids = [tokenizer.token_id(piece) for piece in ("▁the", "▁", "a", "日本")] * 200
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids] + [stream.finish()]
    assert "".join(pieces) == decode(ids) and longest < 32


@pytest.mark.parametrize("stop", ["", ["a", ""], [b"a"], [3]])
def test_refuses_stop_strings_that_are_none(byte_level, stop):
    with pytest.raises(ArgumentError, match="stop must hold strings"):
        TextStream(byte_level, stop)


@pytest.mark.parametrize("token", [-1, 1 << 32, 1.0, "a", None])
def test_refuses_what_is_no_token_id(byte_level, token):
    with pytest.raises(ArgumentError, match="a token id must be"):
        TextStream(byte_level).push(token)


def test_refuses_tokens_after_finish(byte_level):
    stream = TextStream(byte_level)
    stream.finish()
    with pytest.raises(ArgumentError, match="push after finish"):
        stream.push(1)
