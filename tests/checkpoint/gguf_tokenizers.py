"""Tokenizers of every kind as a GGUF file has them, trained here, and odd texts for them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, trainers

from fastdistill.checkpoint.gguf.reader import GgufFile
from fastdistill.checkpoint.gguf.tokenizer import tokenizer_files
from tests.checkpoint.gguf_files import SPELLING, T, write_gguf

# Case, marks, digits, spaces, ends of lines, contractions and scripts that pre-tokenizers tell apart.
PARTS = [
    "the", " the", "The", "THE", "  ", "   ", "    ", "1", "12", "123", "1234567", " 12", " 1234", "'s", "'S", "'", "'ll",
    "é", "É", "ß", "日本", "日", "한국", "語", "🙂", "\n", "\n\n", " \n", "\t", "!!", "...", "//", "²", "½", "a", "AbC", "aBC",
    "ab", "ÀB", "àb", "e\u0301", "\u0915\u093f", "ไทย", "。", "，", "$", "+", "<", ">", "`", "_", "x", "(", ")", "|", "\r\n",
    "\u00a0", "\u3000", "/\n", "foo_bar", "don't", "İ", "Ω", "ʰ", "\x00", "\x07", "\u200b", "▁", "<0x0A>", "ab cd", " cd",
]  # fmt: skip
TEXTS = st.one_of(st.lists(st.sampled_from(PARTS), max_size=12).map("".join), st.text(max_size=20))
SPECIAL = {"bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]}
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def corpus() -> list[str]:
    """To train on: without what would become the token of a byte, one that stands for itself, or in C an empty one."""
    rng, parts = random.Random(0), [part for part in PARTS if part not in ("<0x0A>", "ab cd", "\x00")]
    return ["".join(rng.choice(parts) for _ in range(rng.randrange(1, 14))) for _ in range(3000)]


def byte_pairs(in_bytes: bool = True) -> dict[str, Any]:
    """Trained without any splitting: tokens lie across whatever a pre-tokenizer cuts, so that each cut shows."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    if in_bytes:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=SPELLING if in_bytes else [], show_progress=False
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    special = ["<unk>", "<s>", "</s>", *([] if in_bytes else BYTES)]
    kinds = [2, 3, 3] + [6] * (0 if in_bytes else 256)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*special, *tokens],
        "tokenizer.ggml.token_type": kinds + [1] * len(tokens),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }


def sentence_pieces() -> dict[str, Any]:
    """The tokens of `byte_pairs(in_bytes=False)`, the earlier the better, and one that the user has defined."""
    pairs = byte_pairs(in_bytes=False)
    tokens, kinds = [*pairs["tokenizer.ggml.tokens"], "ab cd"], [*pairs["tokenizer.ggml.token_type"], 4]
    return pairs | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.add_bos_token": None,
        "tokenizer.ggml.scores": [-float(i) if kind == 1 else 0.0 for i, kind in enumerate(kinds)],
    }


def word_pieces(lowercase: bool) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """BERT's own, and the same as a file spells it."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL["bert"], show_progress=False)
    tokenizer.train_from_iterator([text.replace("▁", "") for text in corpus()], trainer)
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    spelt = [
        token if token in SPECIAL["bert"] else token[2:] if token.startswith("##") else "▁" + token for token in tokens
    ]
    ids = {"padding": "[PAD]", "unknown": "[UNK]", "bos": "[CLS]", "seperator": "[SEP]", "mask": "[MASK]"}
    return tokenizer, {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": spelt,
        "tokenizer.ggml.token_type": [3 if token in SPECIAL["bert"] else 1 for token in tokens],
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.eos_token_id": None,
        "tokenizer.ggml.normalizer.lowercase": lowercase,
        **{f"tokenizer.ggml.{key}_token_id": vocabulary[token] for key, token in ids.items()},
    }


def write_vocabulary(path: Path, metadata: dict[str, Any]) -> None:
    rows = len(metadata["tokenizer.ggml.tokens"])
    embedding = np.zeros((rows, 64), np.float32), T.F32
    write_gguf(path, kinds=T.F32, metadata=metadata, tensors={"token_embd.weight": embedding})


def read_back(path: Path) -> tokenizers.Tokenizer:
    """What becomes of a file's tokenizer."""
    with GgufFile(path) as file:
        return tokenizers.Tokenizer.from_str(tokenizer_files(file)["tokenizer.json"].decode())


def made(path: Path, metadata: dict[str, Any]) -> tokenizers.Tokenizer:
    write_vocabulary(path, metadata)
    return read_back(path)
