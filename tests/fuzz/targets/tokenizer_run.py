"""tokenizer.json as a folder's tokenizer: what our bounds let through is built by the package `tokenizers`, and run."""

from __future__ import annotations

from fastdistill.text.tokenizer import Tokenizer
from tests.fuzz.law import folder, lawful
from tests.fuzz.targets.tokenizer import LONGEST, changed, seeds

__all__ = ["LONGEST", "changed", "run", "seeds"]
TEXT = "The cat's hat, 12345 é日本 🙂\n\n  ab<s> [SEP]▁x\u0301" * 3


def run(data: bytes) -> None:
    with lawful():
        tokenizer = Tokenizer(folder({"tokenizer.json": data}))
        for text in ("", "ab", TEXT):
            with lawful():
                ids = tokenizer.encode(text)
                tokenizer.decode(ids, skip_special=False)
                tokenizer.byte_spans(text)
        for id in range(min(tokenizer.vocab_size, 5)):
            tokenizer.token(id)
            tokenizer.token_bytes(id)
