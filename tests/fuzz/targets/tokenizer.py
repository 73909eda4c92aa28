"""tokenizer.json: what is asked of it before the package `tokenizers` sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from fastdistill.text.bounds import check_tokenizer
from tests.fuzz.law import lawful
from tests.fuzz.mutators import ODD, json_changed
from tests.text import tokenizers_made_here

LONGEST = 16384
REGEX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
STEPS = [
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    {"type": "Prepend", "prepend": "▁"},
    {"type": "NFKC"},
    {"type": "Lowercase"},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
    {"type": "Precompiled", "precompiled_charsmap": "CAAAAAAAAAAAAAAAYWEAYgA="},
    {"type": "Split", "pattern": {"Regex": REGEX}, "behavior": "Isolated", "invert": False},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Digits", "individual_digits": True},
    {"type": "Punctuation", "behavior": "Contiguous"},
    {"type": "BertProcessing", "sep": ["[SEP]", 0], "cls": ["[CLS]", 1]},
    {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "s", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"s": {"id": "s", "ids": [0], "tokens": ["<s>"]}},
    },
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    {"type": "WordPiece", "prefix": "##", "cleanup": True},
    {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
    {"type": "Fuse"},
    {"type": "ByteFallback"},
]  # fmt: skip
DONORS = [*ODD, *STEPS]


def run(data: bytes) -> None:
    with lawful():
        check_tokenizer(data, "tokenizer.json")


def changed(data: bytes, random: Random) -> bytes:
    return json_changed(data, random, DONORS)


def seeds() -> Iterator[bytes]:
    """Tokenizers of every kind, those with large vocabularies cut down."""
    for kind in tokenizers_made_here.KINDS.values():
        model = dict(kind["model"])
        if isinstance(model.get("vocab"), dict):
            model["vocab"] = dict(list(model["vocab"].items())[:8] + list(model["vocab"].items())[-4:])
        yield json.dumps(kind | {"model": model, "added_tokens": kind["added_tokens"][:2]}).encode()
    plain = tokenizers_made_here.tokenizer_json(tokenizers_made_here.bpe(["a", "b", "ab"], ["a b"]), None)
    for name, key in (
        ("normalizer", "normalizers"),
        ("pre_tokenizer", "pretokenizers"),
        ("post_processor", "processors"),
        ("decoder", "decoders"),
    ):
        yield json.dumps(plain | {name: {"type": "Sequence", key: STEPS[:20]}}).encode()
        for step in STEPS:
            yield json.dumps(plain | {name: step}).encode()
