"""Small tokenizers of every kind that decodes in its own way, as tokenizer.json folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


def byte_spelling() -> list[str]:
    """GPT-2's character for each byte, in the order of the bytes."""
    rest = iter(range(256, 512))
    return [chr(byte) if byte in PRINTABLE else chr(next(rest)) for byte in range(256)]


def spelt(text: str) -> str:
    return "".join(byte_spelling()[byte] for byte in text.encode())


def added(id: int, content: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": content, "special": special, **flags}


def tokenizer_json(model: dict[str, Any], decoder: Any, pre: Any = None, added_tokens: Any = ()) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added_tokens),
        "normalizer": None,
        "pre_tokenizer": pre,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def bpe(tokens: list[str], merges: Sequence[str] = (), **settings: Any) -> dict[str, Any]:
    vocab = {token: i for i, token in enumerate(tokens)}
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": list(merges), **settings}  # fmt: skip


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
WORDS = ["the", " the", "ab", "abc", "bc", "END", "é", "日本", "日", " 🙂", "\n\n", "a\u0301"]
BYTE_FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["▁", "▁▁", "▁the", "the", "a", "ab", "bc", "▁END", "END", "é", "日本", "x", "�", "!"]


def byte_level() -> dict[str, Any]:
    tokens = ["<|special|>", *byte_spelling(), *(spelt(word) for word in WORDS), "<|user|>", "<|é|>"]
    tokens = list(dict.fromkeys(tokens))
    extra = [added(0, "<|special|>", True)] + [
        added(tokens.index(token), token, False) for token in ("<|user|>", "<|é|>")
    ]
    return tokenizer_json(bpe(tokens), BYTE_LEVEL, BYTE_LEVEL, extra)


def byte_level_in_sequence() -> dict[str, Any]:
    return byte_level() | {"decoder": {"type": "Sequence", "decoders": [BYTE_LEVEL, {"type": "Fuse"}]}}


def llama2(strip: int = 1) -> dict[str, Any]:
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": strip, "stop": 0},
    ]
    tokens = ["<s>", "</s>", *BYTE_FALLBACK, *PIECES]
    extra = [added(0, "<s>", True), added(1, "</s>", True)]
    model = bpe(tokens, byte_fallback=True, fuse_unk=True)
    return tokenizer_json(model, {"type": "Sequence", "decoders": decoders}, None, extra)


def metaspace(scheme: str) -> dict[str, Any]:
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
    vocab = [["<unk>", 0.0], ["<s>", 0.0], *([piece, -1.0 - i] for i, piece in enumerate(PIECES))]
    model = {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False}
    return tokenizer_json(model, space, space, [added(1, "<s>", True)])


def word_piece() -> dict[str, Any]:
    tokens = ["[UNK]", "[CLS]", "the", "##re", "a", "##b", ".", ",", "do", "n't", "日"]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": {token: i for i, token in enumerate(tokens)}}  # fmt: skip
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    return tokenizer_json(model, decoder, {"type": "BertPreTokenizer"}, [added(1, "[CLS]", True)])


def suffix_bpe() -> dict[str, Any]:
    tokens = ["<s>", "a</w>", "ab</w>", "a", "b</w>", "日</w>", "END</w>"]
    return tokenizer_json(bpe(tokens), {"type": "BPEDecoder", "suffix": "</w>"}, None, [added(0, "<s>", True)])


def undecorated() -> dict[str, Any]:
    return tokenizer_json(bpe(["<s>", "a", "ab", "日", "END"]), None, None, [added(0, "<s>", True)])


KINDS = {
    "byte_level": byte_level(),
    "byte_level_in_sequence": byte_level_in_sequence(),
    "llama2": llama2(),
    "llama2_strip_3": llama2(strip=3),
    "metaspace_always": metaspace("always"),
    "metaspace_never": metaspace("never"),
    "word_piece": word_piece(),
    "suffix_bpe": suffix_bpe(),
    "undecorated": undecorated(),
}


def write_folder(folder: Path, tokenizer: dict[str, Any], **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder
