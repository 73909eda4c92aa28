"""tokenizer.json from anywhere: what would take time or memory without bound is a TextError, at once."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers_made_here import BYTE_LEVEL, KINDS, added, bpe, tokenizer_json, write_folder

from fastdistill.errors import TextError
from fastdistill.text.bounds import MOST_GROWTH, check_tokenizer
from fastdistill.text.pattern import MANY, shortest_and_ways
from fastdistill.text.tokenizer import Tokenizer

PLAIN = KINDS["byte_level"]


def sequence(key, *steps):
    return {"type": "Sequence", key: list(steps)}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def template(*pieces, ids=(0,)):
    special = {"s": {"id": "s", "ids": list(ids), "tokens": ["<|special|>"] * len(ids)}}
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": list(pieces), "pair": pair, "special_tokens": special}


TEXT, SPECIAL = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "s", "type_id": 0}}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def charsmap(*strings):
    """A table of SentencePiece's: a trie, here without an entry, and the strings that it points at."""
    return base64.b64encode(
        (8).to_bytes(4, "little") + bytes(8) + b"\0".join(map(str.encode, strings)) + b"\0"
    ).decode()


def precompiled(*strings):
    return {"type": "Precompiled", "precompiled_charsmap": charsmap(*strings)}


# ---- the file itself ----


@pytest.mark.parametrize("kind", ["fifo", "folder", "endless", "huge"])
def test_what_is_no_file_of_a_size_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "tokenizer.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 34)
    with pytest.raises(TextError, match=r"tokenizer\.json: (is no regular file|cannot be read|has 17179869184 bytes)"):
        Tokenizer(tmp_path)


# ---- bombs ----

DOUBLED = [replace("a", "aa")] * 40
BOMBS = {
    "doublings": ("normalizer may make", {"normalizer": sequence("normalizers", *DOUBLED)}),
    "in sequences": ("normalizer may", {"normalizer": sequence("normalizers", *[sequence("normalizers", *DOUBLED[:4])] * 9)}),
    "of no type": ("normalizer may", {"normalizer": {"normalizers": [{k: v for k, v in DOUBLED[0].items() if k != "type"}] * 40}}),
    "of another type": ("normalizer may", {"normalizer": sequence("normalizers", *[DOUBLED[0] | {"type": "Nonsense"}] * 40)}),
    "a long content": ("normalizer may", {"normalizer": replace("a", "b" * 1000)}),
    "at each place": ("normalizer may", {"normalizer": sequence("normalizers", *[replace("", "ab")] * 8)}),
    "at words": ("normalizer may", {"normalizer": sequence("normalizers", *[replace(r"(?<=\w)", "a", "Regex")] * 9)}),
    "bytes of bytes": ("normalizer may", {"normalizer": sequence("normalizers", *[{"type": "ByteLevel"}] * 20)}),
    "a long beginning": ("normalizer may", {"normalizer": {"type": "Prepend", "prepend": "a" * 1000}}),
    "a long table": ("normalizer may", {"normalizer": precompiled("a" * 1000)}),
    "tables": ("normalizer may", {"normalizer": sequence("normalizers", *[precompiled("a" * 9)] * 9)}),
    "steps": ("normalizer has 301 steps", {"normalizer": sequence("normalizers", *[{"type": "Lowercase"}] * 300)}),
    "both": ("normalizer and pre_tokenizer may", {
        "normalizer": sequence("normalizers", *DOUBLED[:7]), "pre_tokenizer": sequence("pretokenizers", BYTE_LEVEL)}),
    "words": ("pre_tokenizer may", {"pre_tokenizer": sequence("pretokenizers", *[BYTE_LEVEL] * 20)}),
    "marks": ("pre_tokenizer may", {"pre_tokenizer": sequence("pretokenizers", *[METASPACE, split("a")] * 9)}),
    "texts": ("post_processor may", {"post_processor": template(*[TEXT] * 5000)}),
    "specials": ("post_processor may", {"post_processor": template(*[SPECIAL] * 5000, TEXT)}),
    "many in one": ("post_processor may", {"post_processor": template(SPECIAL, TEXT, ids=[0] * 5000)}),
    "processors": ("post_processor may", {"post_processor": sequence("processors", *[template(TEXT, TEXT)] * 20)}),
    "decoders": ("decoder may", {"decoder": sequence("decoders", *DOUBLED)}),
    "suffixes": ("decoder may", {"decoder": sequence("decoders", *[{"type": "BPEDecoder", "suffix": ""}] * 30)}),
    "added": ("100001 added tokens", {"added_tokens": [added(i, f"t{i}", False) for i in range(100001)]}),
    "a long one": ("an added token of 2000 characters", {"added_tokens": [added(0, "a" * 2000, False)]}),
    "long ones": ("added tokens of 2000000", {"added_tokens": [added(i, "a" * 1000, False) for i in range(2000)], "normalizer": replace("a", "b" * 20)}),
    "a long pattern": ("a pattern of 30000 characters", {"pre_tokenizer": split("a" * 30000)}),
    "ways": ("too many ways", {"pre_tokenizer": split("(a+)+$")}),
    "ways of many alternatives": ("too many ways", {"pre_tokenizer": split("|".join([r"\w*\d"] * 3000))}),
    "ways of a normalizer": ("too many ways", {"normalizer": replace(".*.*.*[xy]z", "", "Regex")}),
    "ways of a decoder": ("too many ways", {"decoder": replace("(a|a)*$", "", "Regex")}),
    "no pattern": ("a group without its end", {"pre_tokenizer": split("(a")}),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_bomb_is_refused_before_it_is_built(tmp_path, name, hidden):
    """Wherever in the file it lies: before the model, behind it, or behind it with its name spelt in escapes."""
    words, parts = BOMBS[name]
    tokenizer = PLAIN | {"added_tokens": []} | parts
    if hidden:
        tokenizer = {key: value for key, value in tokenizer.items() if key not in parts} | parts
        assert list(tokenizer).index("model") < list(tokenizer).index(next(iter(parts)))
    folder = write_folder(tmp_path, tokenizer)
    with pytest.raises(TextError, match=words):
        Tokenizer(folder)
    if hidden:
        text = (folder / "tokenizer.json").read_text("utf-8")
        for key in parts:
            text = text.replace(f'"{key}"', f'"\\u{ord(key[0]):04x}{key[1:]}"')
        (folder / "tokenizer.json").write_text(text, "utf-8")
        with pytest.raises(TextError, match=words):
            Tokenizer(folder)


def test_what_comes_twice_is_refused():
    """One of the two would be checked and the other built."""
    text = json.dumps(PLAIN).replace('"normalizer": null', '"normalizer": null, "normalizer": {"type": "Lowercase"}')
    with pytest.raises(TextError, match="'normalizer' comes twice"):
        check_tokenizer(text.encode(), "x")


def models():
    vocab = [["<unk>", 0.0], *(["a" * n, -float(n)] for n in range(1, 300))]
    yield "a piece of 299 characters", {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False}
    yield "max_input_chars_per_word is 1000000", KINDS["word_piece"]["model"] | {"max_input_chars_per_word": 10**6}
    yield "end_of_word_suffix has more than 256", bpe(["a"], end_of_word_suffix="a" * 2000)
    yield "continuing_subword_prefix has more than 256", bpe(["a"], continuing_subword_prefix="a" * 2000)
    yield "a piece of 1500 characters", bpe(["a" * 1500])
    yield "unk_token has more than 256", bpe(["a" * 2000], unk_token="a" * 2000)


@pytest.mark.parametrize(("words", "model"), list(models()))
def test_a_model_that_takes_too_long_for_a_word_is_refused(tmp_path, words, model):
    with pytest.raises(TextError, match=rf"tokenizer\.json: {words}"):
        Tokenizer(write_folder(tmp_path, tokenizer_json(model, None)))


@pytest.mark.parametrize("table", ["/////w==", "AAAA", "CAAAAAAAAA==", "not base64"])
def test_a_table_that_is_none_is_refused(tmp_path, table):
    """Memory for a trie of four gigabytes would be taken before any of it is looked for."""
    normalizer = {"type": "Precompiled", "precompiled_charsmap": table}
    with pytest.raises(TextError, match="precompiled_charsmap is no table"):
        Tokenizer(write_folder(tmp_path, PLAIN | {"normalizer": normalizer}))


# ---- what public tokenizers have ----

PUBLIC = {
    "llama2": {"normalizer": sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, replace(" ", "▁"))},
    "bert": {"normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                            "lowercase": True}, "pre_tokenizer": {"type": "BertPreTokenizer"}},
    "clip": {"normalizer": sequence("normalizers", {"type": "NFC"}, replace(r"\s+", " ", "Regex"), {"type": "Lowercase"}),
             "pre_tokenizer": sequence("pretokenizers", split(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), BYTE_LEVEL)},
    "xlnet": {"normalizer": sequence("normalizers", replace("``", '"'), replace("''", '"'), {"type": "NFKD"}, {"type": "StripAccents"},
                                     {"type": "Lowercase"}, replace(" {2,}", " ", "Regex")), "pre_tokenizer": METASPACE},
    "t5": {"pre_tokenizer": sequence("pretokenizers", {"type": "WhitespaceSplit"}, METASPACE)},
    "roberta": {"post_processor": {"type": "RobertaProcessing", "sep": ["ab", 1], "cls": ["<|special|>", 0], "trim_offsets": True,
                                   "add_prefix_space": False}},
    "llama3": {"post_processor": sequence("processors", BYTE_LEVEL, template(SPECIAL, TEXT))},
    "gemma": {"normalizer": replace(" ", "▁"), "decoder": sequence("decoders", replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"})},
}  # fmt: skip

LETTERS, OTHERS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERNS = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{LETTERS}|{OTHERS}",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+(?i:'s|'t)?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*(?i:'s|'t)?|\p{{N}}{{1,3}}|{OTHERS}",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+",
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    rf"[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|{OTHERS}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
    r"(?=(\d{3})+(?!\d))",
    r"<\|startoftext\|>|<\|endoftext\|>|(?<!\n)\n(?!\n)",
]  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_parts_of_public_tokenizers_are_taken(tmp_path, name):
    Tokenizer(write_folder(tmp_path, PLAIN | PUBLIC[name])).encode("ab\n 日 É")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_of_public_tokenizers_are_taken(tmp_path, pattern):
    split_first = sequence("pretokenizers", split(pattern), BYTE_LEVEL | {"use_regex": False})
    text = "It's 1234 ÉCOLE\r\n\n  日本語 (…) " * 20
    tokenizer = Tokenizer(write_folder(tmp_path, PLAIN | {"pre_tokenizer": split_first}))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_table_of_unicode_is_taken_whatever_stands_beside_it():
    """NFKC makes 18 characters of one at most, and such tables have one of those."""
    steps = sequence("normalizers", {"type": "NFKD"}, precompiled("a", "b" * 18), replace(" {2,}", " ", "Regex"))
    check_tokenizer(json.dumps(PLAIN | {"normalizer": steps, "pre_tokenizer": METASPACE}).encode(), "x")


@pytest.mark.parametrize(
    ("pattern", "shortest", "ways"),
    [
        ("", 0, 1), ("ab", 2, 1), ("a?b", 1, 2), ("a{3}b", 4, 1), ("a{5,2}b", 3, 4), ("a{,3}b", 1, 4), ("a{2,}b", 3, MANY), ("a*", 0, 1),
        ("a*b", 1, MANY), ("a+b|c", 1, MANY + 1), ("a*b|c*d", 1, 2 * MANY), ("a*b*c", 1, MANY**2), ("a*b*c*", 0, 1), ("(a*b*c)?d*", 0, MANY**2), ("(?=a*)b", 1, 1), ("(?=a*b)c", 1, MANY), ("(?!a*)b*c", 1, MANY), (r"\b\p{Lu}\A", 1, 1),
        ("[]a]b", 2, 1), ("[^[a-z]&&[^b]]", 1, 1), ("(?i)a(?#no (group)b", 2, 1), ("(?<name>ab)", 2, 1), ("(?>a|bc)", 1, 2),
        ("(a|b){2}c", 3, 4), ("a{x}", 4, 1), ("a{", 2, 1),
    ],
)  # fmt: skip
def test_how_patterns_are_counted(pattern, shortest, ways):
    assert shortest_and_ways(pattern) == (shortest, ways)


@pytest.mark.parametrize(
    "pattern", ["(", ")", "[a", "*a", "a|*", "\\", "(?x)a # (", r"(?<a>x\g<a>?)", r"(a)\k<1>", "(?", "(?<a", "(" * 5000]
)
def test_patterns_that_are_not_understood(pattern):
    with pytest.raises(ValueError, match=r"\w"):
        shortest_and_ways(pattern)


@given(st.text("ab|()[]{}?*+\\,1^$.:=<>!&-p#xi", max_size=30))
def test_any_pattern_is_counted_or_not_understood(pattern):
    try:
        shortest, ways = shortest_and_ways(pattern)
    except ValueError:
        return
    assert shortest >= 0 and ways >= 1


# ---- everything together, where memory and time are limited ----

FUZZ = """
import json, random, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
sys.path[:0] = [{tests!r}]
from test_bounds import *

def pattern(depth=2):
    kind = chance.randrange(5 if depth else 3)
    if kind == 3:
        return "".join(pattern(depth - 1) for _ in range(chance.randint(2, 3)))
    if kind == 4:
        return chance.choice(["(?:%s)", "(%s|%s)", "(?=%s)", "(?!%s)"]).replace("%s", pattern(depth - 1))
    return chance.choice(["a", "[ab]", r"\\\\s", ".", r"\\\\w", "x", "[xy]", "$"]) + chance.choice(["", "", "*", "+", "?", "{{2,9}}", "{{0,500}}"])

def step(key):
    kind = chance.randrange(-1, 9)
    if kind < 1:
        return sequence(key, *[step(key)] * chance.choice([1, 30]))
    if kind < 3:
        return replace(chance.choice(["a", ""]), chance.choice(["", "aa", "aaa", "ab" * 50]))
    if kind < 5:
        return replace(pattern(), chance.choice(["", "a", "aa"]), "Regex")
    if kind == 5:
        return split(pattern())
    return chance.choice([{{"type": "ByteLevel"}}, BYTE_LEVEL, METASPACE, {{"type": "Prepend", "prepend": "a" * chance.choice([1, 300])}},
        {{"type": "NFKD"}}, {{"type": "Fuse"}}, {{"type": "BPEDecoder", "suffix": ""}}, {{"type": "FixedLength", "length": 1}},
        {{"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": True, "lowercase": True}}])

text, made = "a" * 700 + " ab x日ﷺ\\\\n" * 20 + "b" * 300, 0
for seed in range({count}):
    chance = random.Random(seed)
    tokenizer = dict(KINDS[chance.choice(sorted(KINDS))])
    for key, name in [("normalizers", "normalizer"), ("pretokenizers", "pre_tokenizer"), ("decoders", "decoder")]:
        if chance.random() < 0.5:
            tokenizer[name] = step(key) if chance.random() < 0.3 else sequence(key, *[step(key) for _ in range(chance.randint(1, 4))])
    if chance.random() < 0.3:
        tokenizer["post_processor"] = template(*[chance.choice([TEXT, SPECIAL])] * chance.choice([1, 3, 3000]))
    try:
        loaded = Tokenizer(write_folder(Path({folder!r}), tokenizer))
        loaded.decode(loaded.encode(text)[:5000])
        made += 1
    except TextError:
        pass
for seed in range({count}):
    chance = random.Random(seed)
    found = pattern(3) + chance.choice(["", "[bc]d", "[xy]$"])
    try:
        Tokenizer(write_folder(Path({folder!r}), PLAIN | {{"pre_tokenizer": split(found)}})).encode("a" * 3000 + "b")
        made += 1
    except TextError:
        pass
print(made)
"""


def test_random_parts_are_refused_or_take_little(tmp_path):
    """In a process of its own with a gigabyte and a minute: an end by either is not a typed error."""
    program = FUZZ.format(tests=str(Path(__file__).parent), folder=str(tmp_path), count=120).replace("\\\\", "\\")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"RUST_BACKTRACE": "0"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 20


def test_growth_is_bounded_by_what_is_said(tmp_path):
    """The longest that is still taken is as long as it says and no longer."""
    steps = [replace("a", "aa")] * (MOST_GROWTH.bit_length() - 1)
    tokenizer = Tokenizer(
        write_folder(tmp_path, PLAIN | {"normalizer": sequence("normalizers", *steps), "pre_tokenizer": None})
    )
    assert len(tokenizer.encode("a" * 50)) == 50 * MOST_GROWTH
