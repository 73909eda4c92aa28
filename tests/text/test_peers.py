"""The rebuilt tokenizer beside llama.cpp's own, on the real file: set FASTDISTILL_GGUF to its path."""

from __future__ import annotations

import os
import random
import unicodedata

import pytest

from fastdistill.checkpoint.gguf import convert_gguf
from fastdistill.text.tokenizer import Tokenizer

pytestmark = pytest.mark.peers

PHRASES = [
    "The quick brown fox",
    " leading",
    "  two spaces",
    "trailing ",
    "don't",
    "I'll've",
    "WE'RE",
    "x'sy",
    "def f(x):\n    return x[0] + 1\n",
    'for (int i = 0; i < 10; ++i) {\n\t\tprintf("%d\\n", i);\n}',
    "3.14159",
    "2024-01-31",
    "１２３",
    "½ ² Ⅷ ௧ ٣",
    "日本語のテキスト",
    "中文，测试。",
    "한국어",
    "👩‍👩‍👧‍👦",
    "🙂🙃",
    "é",
    "e\u0301",
    "Ünïcödé",
    "<|im_start|>user\n",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start",
    "<repo_name>",
    "\u00a0",
    "\u3000",
    "\u200b",
    "\u2028",
    "\ufeff",
    "\r\n",
    "\n\n\n",
    "\t \t",
    " \n ",
    "a\x00b",
    "\x7f",
    "…—“”",
    "https://a.b/c?d=e&f#g",
    "$x^2$",
    "Ǆ",
    "ſ",
    "İ",
    "ß",
    "مرحبا",
    "שלום",
    "हिन्दी",
    "ไทย",
    "\U0001f1e9\U0001f1ea",
    "\U00020000",
    "\ufffd",
    "Ġ",
    "Ċ",
    "ĠĠ",
]


def texts(count: int) -> list[str]:
    """Phrases, phrases joined, and characters drawn from all of Unicode, category by category."""
    chance = random.Random(0)
    kinds: dict[str, list[str]] = {}
    for code in range(0x20000):
        char = chr(code)
        if (category := unicodedata.category(char)) not in ("Cs", "Cn"):
            kinds.setdefault(category, []).append(char)
    found = list(PHRASES)
    while len(found) < count:
        parts = []
        for _ in range(chance.randint(1, 8)):
            which = chance.random()
            if which < 0.5:
                parts.append(chance.choice(PHRASES))
            elif which < 0.8:
                parts.append(chance.choice(kinds[chance.choice(sorted(kinds))]))
            else:
                parts.append(chance.choice([" ", "  ", "\n", "1", "42", "a", "'", "."]))
        found.append("".join(parts))
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    path = os.environ.get("FASTDISTILL_GGUF")
    if not path:
        pytest.skip("FASTDISTILL_GGUF names no GGUF file")
    folder = convert_gguf(path, tmp_path_factory.mktemp("peers") / "model")
    return Tokenizer(folder), llama_cpp.Llama(path, vocab_only=True, verbose=False)


def test_ids_equal_llama_cpp_s(pair):
    ours, theirs = pair
    different = [
        (text, ours.encode(text), found)
        for text in texts(5000)
        if ours.encode(text) != (found := theirs.tokenize(text.encode(), add_bos=False, special=True))
    ]
    assert not different, f"{len(different)} differ, such as {different[:3]}"


def test_every_token_is_spelt_as_llama_cpp_spells_it(pair):
    ours, theirs = pair
    assert ours.vocab_size == theirs.n_vocab()
    for token in range(ours.vocab_size):
        spelt = ours.token_bytes(token)
        if len(spelt) <= 32:  # llama-cpp-python gives back nothing of a longer one
            assert spelt == theirs.detokenize([token], special=True), token
