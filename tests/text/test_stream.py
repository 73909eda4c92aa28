"""TextStream: its pieces are the tokenizer's own decoding, cut at the stop string that is complete first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stop_oracle import first_stop, oracle, spelt_out, stops_for
from tokenizers_made_here import KINDS, byte_spelling, spelt, write_folder

from fastdistill.errors import ArgumentError
from fastdistill.text.stream import TextStream
from fastdistill.text.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    return Tokenizer(write_folder(tmp_path_factory.mktemp(request.param), KINDS[request.param]))


@pytest.fixture(scope="module", params=["byte_level", "llama2"])
def cuttable(request, tmp_path_factory):
    """Those that can spell any text, byte by byte."""
    return Tokenizer(write_folder(tmp_path_factory.mktemp(request.param), KINDS[request.param]))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return Tokenizer(write_folder(tmp_path_factory.mktemp("byte_level"), KINDS["byte_level"]))


def ids_of(tokenizer):
    # Beyond the vocabulary too: a padded model may emit ids that have no token.
    return st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=40)


def ids_of_bytes(tokenizer):
    """The token of each byte; some token where the vocabulary has none."""
    spelling = byte_spelling() if tokenizer.byte_level else [f"<0x{byte:02X}>" for byte in range(256)]
    found = [tokenizer.token_id(byte) for byte in spelling]
    return [byte % tokenizer.vocab_size if id is None else id for byte, id in enumerate(found)]


def runs_of_bytes(tokenizer):
    """Text in several scripts and broken UTF-8, a token a byte where the tokenizer has such tokens."""
    ids = ids_of_bytes(tokenizer)
    data = st.one_of(st.text("aé日🙂\n", max_size=8).map(str.encode), st.binary(max_size=6))
    return st.lists(data, max_size=4).map(lambda parts: [ids[byte] for byte in b"".join(parts)])


@given(data=st.data())
@settings(max_examples=150)
def test_pieces_are_the_decoded_text_cut_at_the_first_stop(tokenizer, data):
    """And the stream stops at the very token that completes it."""
    ids = data.draw(st.one_of(ids_of(tokenizer), runs_of_bytes(tokenizer)))
    specials = st.tuples(st.integers(0, len(ids)), st.sampled_from(sorted(tokenizer.special_ids)))
    for at, token in data.draw(st.lists(specials, max_size=3)):
        ids.insert(at, token)
    stops = data.draw(stops_for("".join(char for char, _ in spelt_out(tokenizer, ids, ended=True))))
    text, stopped, needed = oracle(tokenizer, ids, stops)
    stream = TextStream(tokenizer, stops)
    pieces, pushed = [], 0
    while pushed < len(ids) and not stream.stopped:
        pieces.append(stream.push(ids[pushed]))
        pushed += 1
        assert stream.text == "".join(pieces)
    pieces.append(stream.finish())
    assert ("".join(pieces), stream.stopped, pushed) == (text, stopped, needed)
    assert stream.text == text


@given(data=st.data())
@settings(max_examples=100)
def test_a_fork_and_its_stream_go_on_each_by_itself(tokenizer, data):
    """Wherever it forks, half a character, half a stop string and special tokens before it, and whichever takes a token first."""
    tokens = st.one_of(ids_of(tokenizer), runs_of_bytes(tokenizer))
    before, *after = (
        data.draw(tokens) + data.draw(st.lists(st.sampled_from(sorted(tokenizer.special_ids)), max_size=1))
        for _ in range(3)
    )
    stops = data.draw(stops_for("".join(char for char, _ in spelt_out(tokenizer, before + after[0], ended=True))))
    both = [TextStream(tokenizer, stops)]
    for token in before:
        both[0].push(token)
    both.append(both[0].fork())
    for at in range(max(map(len, after))):
        for stream, rest in zip(both, after, strict=True):
            for token in rest[at : at + 1]:
                stream.push(token)
    for stream, rest in zip(both, after, strict=True):
        alone = TextStream(tokenizer, stops)
        for token in before + rest:
            alone.push(token)
        assert (stream.text, stream.stopped) == (alone.text, alone.stopped)
        assert stream.finish() == alone.finish()
        assert (stream.text, stream.stopped) == (alone.text, alone.stopped)


@given(data=st.data())
@settings(max_examples=100)
def test_where_a_text_is_cut_into_tokens_does_not_matter(cuttable, data):
    """The stop string that is complete first in the tokenizer's own spelling of all tokens ends the text."""
    tokenizer = cuttable
    in_vocabulary = spelt if tokenizer.byte_level else lambda text: text.replace(" ", "▁")
    byte_ids = ids_of_bytes(tokenizer)
    special = min(tokenizer.special_ids)
    name = tokenizer.token(special)
    ids, characters = [tokenizer.token_id("x")], [("x", "x")]
    words = st.sampled_from([" the", "the", "ab", "abc", "END", "é", "日本", "🙂", "x", "\n", name, name])
    for word in data.draw(st.lists(words, max_size=12)):
        characters += [(char, "" if word == name else char) for char in word]
        if word == name:
            ids.append(special)
            continue
        while word:
            pieces = [word[:n] for n in range(1, len(word) + 1)]
            piece = data.draw(st.sampled_from([p for p in pieces if tokenizer.token_id(in_vocabulary(p))] or [""]))
            if piece and data.draw(st.booleans()):
                ids.append(tokenizer.token_id(in_vocabulary(piece)))
            else:
                piece = word[0]
                ids += [byte_ids[byte] for byte in piece.encode()]
            word = word[len(piece) :]
    spelling = tokenizer.decode(ids, skip_special=False)
    assert spelling == "".join(char for char, _ in characters)
    stops = data.draw(stops_for(spelling))
    at = first_stop(spelling, stops)
    stream = TextStream(tokenizer, stops)
    text = "".join([stream.push(token) for token in ids]) + stream.finish()
    assert text == stream.text == "".join(shown for _, shown in characters[:at])
    assert stream.stopped == (at is not None)


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
        (["c", "abc"], ["a", "b", "c"], ["", "", ""], "", True),  # both at once: the one that begins first
        (["hello", "e"], ["hello"], ["", "h"], "", True),
        ("<|special|>", ["a", "<|special|>"], ["a", ""], "", True),
        ("b<|special|>user", ["a", "b<|special|>", "user"], ["a", "", "", "", "", "", ""], "", True),
        ("b<|special|>x", ["ab", "<|special|>", "a"], ["a", "", "", "ba"], "", False),
        ("ab", ["a", "<|special|>", "b"], ["", "a", "b"], "", False),  # there is something between them
        ("|", ["ab", "<|special|>"], ["a", "b", ""], "", True),
        (["日本"], ["x", "日", "本"], ["x", "", "", "", "", "", ""], "", True),
        (["é"], ["é"], ["", ""], "", True),
    ],
)  # fmt: skip
def test_holds_back_what_may_become_a_stop(byte_level, stop, words, pieces, last, stopped):
    stream, got = pushed(byte_level, stop, *words)
    assert got[: len(pieces)] == pieces
    assert stream.stopped == stopped and stream.finish() == last
    assert stream.text == "".join(pieces) + last


@pytest.mark.parametrize("words", [["abc"], ["a", "b", "c"], ["a", "bc"]])
@pytest.mark.parametrize(
    ("stops", "text"), [(["c", "b"], "a"), (["bc", "abcd", "c"], "a"), (["abc", "b"], "a"), (["c", "bc", "abc"], "")]
)
def test_the_stop_that_is_complete_first_wins(byte_level, stops, text, words):
    for order in (stops, stops[::-1]):
        stream = TextStream(byte_level, order)
        for word in words:
            stream.push(byte_level.token_id(word))
        assert stream.stopped and stream.text == text


def test_half_a_character_before_a_special_token_is_shown_as_where_a_text_ends(cuttable):
    tokenizer = cuttable
    special = min(tokenizer.special_ids)
    half, rest = ids_of_bytes(tokenizer)[0xC3], ids_of_bytes(tokenizer)[0xA9]
    stream = TextStream(tokenizer, tokenizer.token(special))
    assert [stream.push(token) for token in (half, special)] == ["", "\ufffd"] and stream.stopped
    stream = TextStream(tokenizer, "é" + tokenizer.token(special) + "z")  # which may be half the way to a stop string
    stream.push(half), stream.push(special), stream.push(rest)
    assert stream.text + stream.finish() == "é" and not stream.stopped


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
    with pytest.raises(ArgumentError, match="a token id must"):
        TextStream(byte_level).push(token)


def test_refuses_tokens_after_finish(byte_level):
    stream = TextStream(byte_level)
    stream.finish()
    with pytest.raises(ArgumentError, match="push after finish"):
        stream.push(1)
