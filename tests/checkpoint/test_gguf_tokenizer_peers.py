"""GGUF files' tokenizers beside llama.cpp, which reads the same files, and SentencePiece, which trained some."""

from __future__ import annotations

import ctypes
import io
import os
import random
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint.gguf.pre_tokenizers import PRE_TOKENIZERS
from tests.checkpoint.gguf_tokenizers import (
    PARTS,
    TEXTS,
    byte_pairs,
    made,
    read_back,
    sentence_pieces,
    word_pieces,
)  # fmt: skip

pytestmark = pytest.mark.peers

# What llama.cpp, which has no tables of case, approximates in letters behind others: it joins "aB", parts "ÀB".
CASED = {
    "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "granite-embed-multi-97m", "tekken", "tiny_aya", "cohere2moe", "youtu",
    "kimi-k2",
}  # fmt: skip
# These have ranges with spaces beyond ASCII in them, for which llama.cpp puts another character before it looks; and
# digits from the end, which it does not part from what stands before them.
SPACED = {"deepseek-llm", "deepseek-coder"}
PARTED = {"afmoe", "tiny_aya", "cohere2moe"}


KEPT: list[object] = []  # callbacks of llama.cpp's, which it may call as long as it lives


class LlamaCpp:
    """The vocabulary of a GGUF file in llama.cpp."""

    def __init__(self, path: Path) -> None:
        self.module = module = pytest.importorskip("llama_cpp")
        module.llama_backend_init()
        settings = module.llama_model_default_params()
        settings.vocab_only = True
        KEPT.append(module.llama_log_callback(lambda *_: None))
        module.llama_log_set(KEPT[-1], ctypes.c_void_p(0))
        self.model = module.llama_model_load_from_file(str(path).encode(), settings)
        assert self.model, f"llama.cpp does not load {path}"
        self.vocabulary = module.llama_model_get_vocab(self.model)

    def encode(self, text: str, special: bool = True) -> list[int]:
        data = text.encode()
        ids = (self.module.llama_token * (2 * len(data) + 16))()
        count = self.module.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), special, True)
        assert count >= 0
        return ids[:count]

    def decode(self, ids: list[int]) -> str:
        """All of them, special ones too; bytes that are no UTF-8 become U+FFFD."""
        text = ctypes.create_string_buffer(200 * len(ids) + 16)
        tokens = (self.module.llama_token * len(ids))(*ids)
        count = self.module.llama_detokenize(self.vocabulary, tokens, len(ids), text, len(text), False, True)
        return text.raw[:count].decode(errors="replace")


@pytest.fixture(scope="module")
def pairs():
    return {in_bytes: byte_pairs(in_bytes) for in_bytes in (True, False)}


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_byte_pairs_are_llama_cpps(tmp_path, pairs, name):
    metadata = pairs[PRE_TOKENIZERS[name].bytes] | {"tokenizer.ggml.pre": name, "tokenizer.ggml.add_bos_token": None}
    if name == "qwen2":  # whose own NFC llama.cpp leaves out
        pytest.skip("deepseek-r1-qwen is the same without NFC")
    if not PRE_TOKENIZERS[name].bytes:
        metadata["tokenizer.ggml.add_bos_token"] = True  # as llama.cpp has it whatever the file says
    ours, llama = made(tmp_path / "model.gguf", metadata), LlamaCpp(tmp_path / "model.gguf")

    @given(text=st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
    @settings(max_examples=200, deadline=None)
    def check(text):
        if name in CASED:
            text = "".join(char for char in text if char.isascii()).lower()
        if name in SPACED:
            assume(not {"\u3000", "\u00a0"} & set(text))
        if name in PARTED:
            assume(not any(char.isnumeric() for char in text))
        assert ours.encode(text).ids == llama.encode(text)

    check()


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_pieces_are_llama_cpps(tmp_path, prefix):
    metadata = sentence_pieces() | {
        "tokenizer.ggml.add_space_prefix": prefix,
        "tokenizer.ggml.add_eos_token": not prefix,
    }
    ours, llama = made(tmp_path / "model.gguf", metadata), LlamaCpp(tmp_path / "model.gguf")

    @given(text=TEXTS)
    @settings(max_examples=500, deadline=None)
    def check(text):
        assert ours.encode(text).ids == llama.encode(text)

    check()


def test_word_pieces_are_llama_cpps(tmp_path):
    """Without accents: it takes more marks for them, and parts Korean."""
    _, metadata = word_pieces(lowercase=False)
    ours, llama = made(tmp_path / "model.gguf", metadata), LlamaCpp(tmp_path / "model.gguf")

    @given(text=st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
    @settings(max_examples=500, deadline=None)
    def check(text):
        assume("▁" not in text)  # the start of a word to llama.cpp
        assert ours.encode(text).ids == llama.encode(text)

    check()


def trained(kind: str, **settings: bool) -> tuple[object, dict]:
    """A SentencePiece model, and what a GGUF file has of it."""
    sentencepiece = pytest.importorskip("sentencepiece")
    proto = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    rng = random.Random(5)
    parts = ["ba", "ne", "ri", "to", "lu", "sh", "ing", "er", "un", "re", "st", "ou", "a", "e", "o"]
    words = ["".join(rng.choice(parts) for _ in range(rng.randrange(1, 5))) for _ in range(600)]
    lines = [
        " ".join(rng.choice(words) for _ in range(12)) + rng.choice([".", " 12", " é日", "ﬁ½Ａ"]) for _ in range(3000)
    ]
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=file, model_type=kind, minloglevel=2,
        vocab_size=330 + 256 * settings.get("byte_fallback", False),
        normalization_rule_name="identity" if kind == "bpe" else "nmt_nfkc", **settings,
    )  # fmt: skip
    own = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    ids = range(own.vocab_size())
    kinds = [2 if own.is_unknown(i) else 3 if own.is_control(i) else 6 if own.is_byte(i) else 1 for i in ids]
    table = proto.ModelProto.FromString(file.getvalue()).normalizer_spec.precompiled_charsmap
    return own, {
        "tokenizer.ggml.model": {"bpe": "llama", "unigram": "t5"}[kind],
        "tokenizer.ggml.tokens": [own.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [float(own.get_score(i)) for i in ids],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.unknown_token_id": own.unk_id(),
        "tokenizer.ggml.bos_token_id": own.bos_id(),
        "tokenizer.ggml.eos_token_id": own.eos_id(),
        "tokenizer.ggml.add_space_prefix": settings.get("add_dummy_prefix", True),
        "tokenizer.ggml.remove_extra_whitespaces": settings.get("remove_extra_whitespaces", True),
        "tokenizer.ggml.precompiled_charsmap": table or None,
    }


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("bpe", {"byte_fallback": True, "remove_extra_whitespaces": False}),
        ("bpe", {"byte_fallback": True, "remove_extra_whitespaces": False, "add_dummy_prefix": False}),
        ("unigram", {}),
        ("unigram", {"remove_extra_whitespaces": False}),
        ("unigram", {"byte_fallback": True}),
        ("unigram", {"byte_fallback": True, "add_dummy_prefix": False}),
    ],
)
def test_pieces_are_those_of_the_model_that_was_trained(tmp_path, kind, choices):
    own, metadata = trained(kind, **choices)
    ours = made(tmp_path / "model.gguf", metadata)
    words = [token.replace("▁", " ") for token in metadata["tokenizer.ggml.tokens"][300:]]

    @given(text=st.lists(st.sampled_from(PARTS + words), max_size=12).map("".join))
    @settings(max_examples=300, deadline=None)
    def check(text):
        assume("\r\n" not in text)  # one character to the table of `tokenizers`
        assume("<0x0A>" not in text or kind == "bpe")  # of which its unigram makes the byte
        assert ours.encode(text, add_special_tokens=False).ids == own.encode(text)

    check()


def test_a_unigram_with_a_table_is_llama_cpps(tmp_path):
    _, metadata = trained("unigram")
    ours, llama = made(tmp_path / "model.gguf", metadata), LlamaCpp(tmp_path / "model.gguf")

    @given(text=st.lists(st.sampled_from([*PARTS, " bane", "ri", "ing", "ﬁ", "Ａ"]), max_size=12).map("".join))
    @settings(max_examples=300, deadline=None)
    def check(text):
        assert ours.encode(text).ids == llama.encode(text)

    check()


MORE = [
    " hello world", " isn't it?", "<b>", "<table>", "\t\t", "\n\n\n", "𝔹", "籙", "<bos>", "<eos>", "def f(x):\n    return x",
    "ᐛ", "żółć", "مرحبا", "नमस्ते", "Привет", "\U0001f469\u200d\U0001f4bb", "<unused5>", "<|im_start|>", "<start_of_turn>",
]  # fmt: skip


def test_a_real_vocabulary_is_llama_cpps():
    """Of the file FASTDISTILL_GGUF, there and back."""
    path = os.environ.get("FASTDISTILL_GGUF")
    if not path:
        pytest.skip("FASTDISTILL_GGUF names no GGUF file")
    ours, llama = read_back(Path(path)), LlamaCpp(Path(path))

    @given(text=st.one_of(st.lists(st.sampled_from(PARTS + MORE), max_size=14).map("".join), st.text(max_size=30)))
    @settings(max_examples=2000, deadline=None)
    def check(text):
        for special in (True, False):
            ids = ours.encode(text, add_special_tokens=special).ids
            assert ids == llama.encode(text, special)
        assert ours.decode(ids, skip_special_tokens=False) == llama.decode(ids)

    check()
