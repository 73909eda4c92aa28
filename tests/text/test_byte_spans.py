"""Tokenizer.byte_spans: each token over its own bytes of the text, whatever a tokenizer does to its offsets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers_made_here import BYTE_LEVEL, KINDS, added, bpe, byte_spelling, spelt, tokenizer_json, write_folder

from fastdistill.errors import ArgumentError
from fastdistill.text.tokenizer import Tokenizer

BEGIN = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|special|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|special|>": {"id": "<|special|>", "ids": [0], "tokens": ["<|special|>"]}},
}
# Tokens of whole words, of a part of a character, and of the end of one with the begin of the next.
day = spelt("日")
MERGES = [f"{day[2]} {day[0]}", f"{day[0]} {day[1]}", "t h", "th e", "Ġ the", "Ġ Ġ", "a b", "a Ì"]
MERGED = tokenizer_json(
    bpe(["<|special|>", *byte_spelling(), *(merge.replace(" ", "") for merge in MERGES)], MERGES),
    BYTE_LEVEL,
    BYTE_LEVEL,
    [added(0, "<|special|>", True)],
)
BYTE_LEVELS = {
    "plain": KINDS["byte_level"],
    "in sequence": KINDS["byte_level_in_sequence"] | {"decoder": BYTE_LEVEL},
    "merged": MERGED,
    "trimmed": MERGED | {"post_processor": BYTE_LEVEL},
    "with a begin": MERGED | {"post_processor": {"type": "Sequence", "processors": [BYTE_LEVEL, BEGIN]}},
    "with a blank before": MERGED | {"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True}, "post_processor": BYTE_LEVEL},
    "normalised": MERGED | {"normalizer": {"type": "NFC"}, "post_processor": BYTE_LEVEL},
}  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=30), st.lists(st.sampled_from([*"ab tx日本é\u0301\n🙂", "the", "  ", "<|special|>"]), max_size=20).map("".join)
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(tokenizer.json) -> Tokenizer"""
    return lambda kind: Tokenizer(write_folder(tmp_path_factory.mktemp("tokenizer"), kind))


@pytest.fixture(scope="module")
def byte_levels(made):
    return {name: made(kind) for name, kind in BYTE_LEVELS.items()}


@pytest.fixture(scope="module")
def every_kind(made):
    return {name: made(kind) for name, kind in (KINDS | BYTE_LEVELS).items()}


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """What each token stands for; bytes that are no UTF-8 as Latin-1."""
    data, (_, spans) = text.encode(), tokenizer.byte_spans(text)
    found = [data[begin:end] for begin, end in spans]
    try:
        return [piece.decode() for piece in found]
    except UnicodeDecodeError:
        return [piece.decode("latin-1") for piece in found]


@pytest.mark.parametrize("name", [name for name in BYTE_LEVELS if name != "normalised"])
@given(text=TEXTS)
def test_tokens_of_byte_level_bpe_fill_the_text_with_their_own_bytes(byte_levels, name, text):
    tokenizer, data = byte_levels[name], text.encode()
    ids, spans = tokenizer.byte_spans(text)
    assert ids == tokenizer.encode(text) and spans.dtype == np.int32 and spans.shape == (len(ids), 2)
    ends = [0, *spans[:, 1]]
    assert list(spans[:, 0]) == ends[:-1] and ends[-1] == len(data)
    for place, (token, (begin, end)) in enumerate(zip(ids, spans, strict=True)):
        if name == "with a begin" and place == 0:
            assert token == 0 and begin == end == 0
        elif data[begin:end] != tokenizer.token_bytes(token):
            # A blank that was put before is no byte of the text: before it, or after a special token within.
            assert name == "with a blank before" and b" " + data[begin:end] == tokenizer.token_bytes(token)


@pytest.mark.parametrize("name", ["metaspace_always", "metaspace_never", "llama2"])
@given(text=TEXTS)
def test_tokens_of_pieces_and_bytes_fill_the_text(every_kind, name, text):
    spans = every_kind[name].byte_spans(text)[1]
    ends = [0, *spans[:, 1]]
    assert list(spans[:, 0]) == ends[:-1] and ends[-1] == len(text.encode())


@pytest.mark.parametrize("name", KINDS | BYTE_LEVELS)
@given(text=TEXTS)
def test_spans_are_in_order_and_apart(every_kind, name, text):
    try:
        ids, spans = every_kind[name].byte_spans(text)
    except ArgumentError as error:
        assert "no token for" in str(error)
        return
    assert ids == every_kind[name].encode(text)
    assert (spans[:, 0] <= spans[:, 1]).all() and (spans[1:, 0] >= spans[:-1, 1]).all()
    assert (spans >= 0).all() and (spans <= len(text.encode())).all()


def test_a_token_within_a_character_is_a_part_of_its_bytes(byte_levels):
    data = "日日".encode()
    _, spans = byte_levels["merged"].byte_spans("日日")
    assert [data[begin:end] for begin, end in spans] == [data[:2], data[2:4], data[4:5], data[5:]]


def test_a_blank_that_offsets_leave_out_is_the_tokens(byte_levels):
    assert pieces(byte_levels["trimmed"], "the the  a") == ["the", " the", " ", " ", "a"]


def test_known_texts_of_other_kinds(every_kind):
    assert pieces(every_kind["metaspace_always"], "the ab!") == ["the", " ", "ab", "!"]
    assert pieces(every_kind["metaspace_always"], "ab") == ["", "ab"]  # a blank was put before, and is a token
    assert pieces(every_kind["word_piece"], "the  ab, xyz[CLS]") == ["the", "a", "b", ",", "xyz", "[CLS]"]
    assert pieces(every_kind["llama2"], "é日") == ["é".encode().decode("latin-1"), *"日".encode().decode("latin-1")]


def test_what_a_normaliser_changed_has_its_characters_or_no_bytes(byte_levels):
    """a and an accent become one character: in a token of its own it has the bytes of both, over several tokens none."""
    spans = byte_levels["normalised"].byte_spans("xa\u0301 a")[1]
    assert spans.tolist() == [[0, 1], [1, 1], [1, 1], [4, 5], [5, 6]]
    # The last token is not the first letter, which has its bytes.
    assert byte_levels["normalised"].byte_spans("a\u0301a")[1].tolist() == [[0, 0], [0, 0], [3, 4]]


def test_characters_that_a_tokenizer_drops_are_in_no_token(every_kind):
    """Whose offsets are then wrong: they say that the token lies at the begin."""
    assert every_kind["undecorated"].byte_spans("xxxxx日")[1].tolist() == [[0, 0]]


def test_refuses_what_encode_refuses(byte_levels):
    with pytest.raises(ArgumentError, match="text must be a str"):
        byte_levels["plain"].byte_spans(3)
    with pytest.raises(ArgumentError, match="special must be True or False"):
        byte_levels["plain"].byte_spans("a", 1)


@pytest.mark.model
def test_the_real_tokenizer_fills_the_text(smollm2):
    tokenizer = Tokenizer(smollm2)
    text = "It's 日本語: 🙂🙂, cafe\u0301!\n\n  <|im_start|>user\n\tx  = 3.14<|im_end|> "
    ids, spans = tokenizer.byte_spans(text)
    assert [text.encode()[begin:end] for begin, end in spans] == [tokenizer.token_bytes(token) for token in ids]
    assert spans[-1, 1] == len(text.encode())


def test_a_token_that_was_added_is_not_that_of_the_text(byte_levels):
    spans = byte_levels["with a begin"].byte_spans("<|special|>a")[1]
    assert spans.tolist() == [[0, 0], [0, 11], [11, 12]]


def test_the_post_processor_runs_when_asked(byte_levels):
    assert len(byte_levels["with a begin"].byte_spans("a", special=False)[0]) == 1
