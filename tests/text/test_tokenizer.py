"""Tokenizer: ids as tokenizer.json says, and typed errors for folders that say nonsense."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers_made_here import BYTE_LEVEL, KINDS, added, bpe, byte_spelling, spelt, tokenizer_json, write_folder

from fastdistill.embedded import embedded_folder
from fastdistill.errors import ArgumentError, FastDistillError, TextError
from fastdistill.text.stream import TextStream
from fastdistill.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return Tokenizer(write_folder(tmp_path_factory.mktemp("tokenizer"), KINDS["byte_level"]))


@pytest.fixture(scope="module", params=KINDS)
def every_kind(request, tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp(request.param), KINDS[request.param])
    return Tokenizer(folder), Tokenizer(folder)


@given(text=st.text(max_size=40))
def test_text_comes_back_from_its_ids(byte_level, text):
    ids = byte_level.encode(text)
    assert byte_level.decode(ids, skip_special=False) == text
    assert b"".join(byte_level.token_bytes(token) for token in ids).decode() == text


def test_special_tokens_are_ids_in_text_and_nothing_in_decoding(byte_level):
    ids = byte_level.encode("a<|special|>b<|user|>")
    assert 0 in ids and byte_level.special_ids == {0}
    assert byte_level.decode(ids) == "ab<|user|>"
    assert byte_level.decode(ids, skip_special=False) == "a<|special|>b<|user|>"


def test_the_post_processor_runs_when_asked(tmp_path):
    post = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|special|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|special|>": {"id": "<|special|>", "ids": [0], "tokens": ["<|special|>"]}},
    }
    tokenizer = Tokenizer(write_folder(tmp_path, KINDS["byte_level"] | {"post_processor": post}))
    assert tokenizer.encode("a") == [0, *tokenizer.encode("a", special=False)]


TRAINING = {
    "dropout": {"model": {"dropout": 0.5}},
    "every merge dropped": {"model": {"dropout": 1.0}},
    "sampling": {"model": {"alpha": 0.1, "nbest_size": -1}},
    "truncation": {"truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}},
    "padding": {"padding": {"strategy": {"Fixed": 90}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                            "pad_type_id": 0, "pad_token": "<|special|>"}},
    "a cache": {"model": {"cache_capacity": 1}},
}  # fmt: skip
UNTRAINED = {
    "bpe": KINDS["byte_level"] | {"model": bpe(["<|special|>", *byte_spelling(), "ab", "bc", "abc"], ["a b", "ab c", "b c"]),
                                  "added_tokens": [added(0, "<|special|>", True)]},
    "unigram": KINDS["metaspace_always"],
    "word_piece": KINDS["word_piece"],
}  # fmt: skip


@pytest.mark.parametrize("setting", TRAINING)
@pytest.mark.parametrize("kind", UNTRAINED)
def test_what_a_training_run_left_in_the_file_changes_no_ids(tmp_path, kind, setting):
    """What it drew by chance, cut and padded is no part of the text."""
    plain, trained = UNTRAINED[kind], dict(UNTRAINED[kind])
    for key, value in TRAINING[setting].items():
        trained[key] = plain[key] | value if key == "model" else value
    text = "abc the abcabc bcab END " * 3
    want = Tokenizer(write_folder(tmp_path / "plain", plain)).encode(text)
    tokenizer = Tokenizer(write_folder(tmp_path / "trained", trained))
    assert [tokenizer.encode(text) for _ in range(20)] == [want] * 20


@given(data=st.data())
def test_ids_depend_on_the_text_alone(every_kind, data):
    """Not on what was encoded before, by this tokenizer or another of the same file."""
    one, other = every_kind
    texts = data.draw(st.lists(st.text("abc theEND.,日é ", max_size=12), min_size=1, max_size=8))
    want = {text: one.encode(text) for text in texts}
    for text in data.draw(st.permutations(texts)):
        assert one.encode(text) == other.encode(text) == want[text]


def test_ids_without_a_token_are_no_text(byte_level):
    beyond = byte_level.vocab_size + 7
    assert byte_level.decode([beyond]) == ""
    assert byte_level.token(beyond) is None and byte_level.token_bytes(beyond) is None
    assert TextStream(byte_level).push(beyond) == ""


@pytest.mark.parametrize("ids", [[-1], [1 << 32], [10**5000], ["a"], [0.5], [None], [True], 3, None, "a"])
def test_refuses_what_is_no_token_id(byte_level, ids):
    with pytest.raises(ArgumentError, match=r"a token id must|ids must be token ids"):
        byte_level.decode(ids)


@pytest.mark.parametrize("token", [3, None, b"a", ["a"]])
def test_refuses_what_is_no_spelling(byte_level, token):
    with pytest.raises(ArgumentError, match="token must be a str"):
        byte_level.token_id(token)


@pytest.mark.parametrize("flag", [1, None, "yes", [True]])
def test_refuses_what_is_no_flag(byte_level, flag):
    with pytest.raises(ArgumentError, match="skip_special must be True or False"):
        byte_level.decode([], flag)
    with pytest.raises(ArgumentError, match="special must be True or False"):
        byte_level.encode("", flag)


@pytest.mark.parametrize("text", [b"a", None, 3, "\ud800"])
def test_refuses_what_is_no_text(byte_level, text):
    with pytest.raises(ArgumentError, match="text must be"):
        byte_level.encode(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "tokenizer.json is missing"),
        (b"\xff", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"[" * 100000, "is not valid JSON"),
        (b"{}", "is not a tokenizer"),
        (b'{"model": 3}', "is not a tokenizer"),
    ],
)
def test_a_missing_or_malformed_file_is_named(tmp_path, content, words):
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TextError, match=words):
        Tokenizer(tmp_path)


def hostile_cases():
    plain = ["<|special|>", *byte_spelling()]
    merges = [f"{plain[1 + ord('a')]} {plain[1 + ord('b')]}"]
    small = KINDS["byte_level"]
    special = {"SpecialToken": {"id": "x", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [special], "pair": [special], "special_tokens": {}}
    # Each of these ends in a panic of the Rust library, the first in the end of the process, if handed over unseen.
    yield "prefix", tokenizer_json(bpe([*plain, spelt("ab")], merges, continuing_subword_prefix="x"), BYTE_LEVEL)
    yield "long prefix", tokenizer_json(bpe([*plain, spelt("ab")], merges, continuing_subword_prefix="xxx"), BYTE_LEVEL)
    yield "template", small | {"post_processor": template}
    yield "length", small | {"pre_tokenizer": {"type": "FixedLength", "length": 0}}
    yield "charsmap", small | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}


@pytest.mark.parametrize(("name", "tokenizer"), list(hostile_cases()))
def test_what_makes_the_library_panic_is_a_text_error(tmp_path, name, tokenizer):
    with pytest.raises(TextError, match=r"tokenizer\.json"):
        Tokenizer(write_folder(tmp_path, tokenizer)).encode("ab cd")


def test_an_escaped_key_hides_nothing(tmp_path):
    folder = write_folder(tmp_path, dict(hostile_cases())["prefix"])
    text = (folder / "tokenizer.json").read_text("utf-8").replace("subword_prefix", r"subword_prefi\u0078")
    (folder / "tokenizer.json").write_text(text, "utf-8")
    with pytest.raises(TextError, match="does not continue with 'x'"):
        Tokenizer(folder)


def test_a_prefix_that_every_merge_has_is_kept(tmp_path):
    model = bpe(["a", "##b", "ab"], ["a ##b"], continuing_subword_prefix="##")
    assert Tokenizer(write_folder(tmp_path, tokenizer_json(model, None))).encode("ab") == [2]


def paths(value, path=()):
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(inner, (*path, key))


JUNK = [None, True, 0, -1, 1 << 70, 1.5, "", "x", [], {}, ["a"], {"type": "BPE"}, "WordPiece", "Unigram", 299, 10**9]


@given(data=st.data())
@settings(max_examples=400)
def test_a_mutated_tokenizer_works_or_is_a_typed_error(tmp_path_factory, data):
    tokenizer = copy.deepcopy(KINDS[data.draw(st.sampled_from(sorted(KINDS)))])
    for _ in range(data.draw(st.integers(1, 3))):
        places = [path for path in paths(tokenizer) if len(path) < 5 and path[:2] != ("model", "vocab")]
        path = data.draw(st.sampled_from(places))
        value = tokenizer
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = data.draw(st.sampled_from(JUNK))
    try:
        made = Tokenizer(write_folder(tmp_path_factory.getbasetemp() / "mutated", tokenizer))
        made.decode(made.encode("the END <|special|> é"))
        made.decode(range(0, 300, 7))
    except FastDistillError:
        pass


def test_importing_text_does_not_import_tokenizers_or_jinja2():
    program = (
        "import fastdistill.text.tokenizer, fastdistill.text.chat, fastdistill.text.stream, sys;"
        "print(sorted({'tokenizers', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_added_tokens_may_be_spelt_in_the_byte_alphabet(tmp_path):
    # `tokenizers` reads such a token's characters as bytes; so must the stream.
    tokens = ["<|special|>", *byte_spelling(), "é"]
    tokens = list(dict.fromkeys(tokens))
    made = tokenizer_json(bpe(tokens), BYTE_LEVEL, BYTE_LEVEL, [added(tokens.index("é"), "é", False)])
    tokenizer = Tokenizer(write_folder(tmp_path, made))
    stream = TextStream(tokenizer)
    assert stream.push(tokens.index("é")) + stream.finish() == tokenizer.decode([tokens.index("é")])


def test_words_that_would_become_padding_are_named():
    """The embedded model's tokenizer has a word for every token, and pads what it lacks."""
    tokenizer = Tokenizer(embedded_folder("listops-mdlm"))
    with pytest.raises(ArgumentError, match=r"no token for 'zebu', 'Ant', 'foo'$"):
        tokenizer.encode("<|bos|> copy : zebu ant Ant foo zebu _ _ _ | _ _ ->")
    assert tokenizer.encode("<|pad|> ant <|pad|>")[::2] == [0, 0]  # asked for
    many = " ".join(f"w{i}" for i in range(1000))
    with pytest.raises(ArgumentError, match=r"and 990 more$"):
        tokenizer.encode(many)


@pytest.mark.parametrize("named", [{}, {"unk_token": "<unk>"}, {"unk_token": "<unk>", "pad_token": "<unk>"}], ids=str)
def test_words_become_unknown_where_there_is_a_token_for_them(tmp_path, named):
    model = {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1}, "unk_token": "<unk>"}
    words = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": model}
    tokenizer = Tokenizer(write_folder(tmp_path, words, **named))
    assert tokenizer.encode("a zebu", special=False) == [1, 0]
