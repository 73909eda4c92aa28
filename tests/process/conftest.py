"""A small model that the tests of this folder share, and what it writes when nothing happens to it."""

from __future__ import annotations

from pathlib import Path

import pytest

import fastdistill as fd
from fastdistill.decode import Costs
from tests.checkpoint.gguf_files import write_gguf
from tests.process.writers import Sources
from tests.test_cli import write_model

COSTS = Costs((1, 16), (0, 100), ((1.0, 1.5), (1.0, 1.5)))
DECODERS = {
    "plain": fd.Autoregressive(),
    "lookup": fd.Speculative(fd.PromptLookup(min_match=1)),
    "tree": fd.Speculative(fd.PromptLookup(min_match=1, continuations=2), tree=fd.Tree(2, 3)),
    "skip": fd.Speculative(fd.LayerSkip(1), max_draft=3),
    "auto": fd.Auto(COSTS),
    "jacobi": fd.Jacobi(4, costs=COSTS),
    "lookahead": fd.Lookahead(3, 3, 3, costs=COSTS),
}
PROMPTS = ["the ", "one and two and ", "a", "of of of of", "0123456789"]
MESSAGES = [{"role": "user", "content": "is it so?"}]
TOKENS = 24


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("process") / "model", max_position_embeddings=4096)


@pytest.fixture(scope="session")
def model(folder) -> fd.Model:
    return fd.load(folder, threads=2)


@pytest.fixture(scope="session")
def texts(folder) -> dict[str, list[int]]:
    """Of each prompt the tokens behind it, written alone on one thread."""
    alone = fd.load(folder, threads=1)
    return {prompt: alone.generate(prompt, max_tokens=TOKENS).tokens for prompt in PROMPTS}


@pytest.fixture(scope="session")
def sources(tmp_path_factory, folder, model) -> Sources:
    gguf = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(gguf)
    return Sources(folder, gguf, model)
