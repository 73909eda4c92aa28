"""Decoders that guess on the real SmolLM2-135M-Instruct: the text of plain decoding, thousands of tokens of it."""

from __future__ import annotations

import pytest

import fastdistill as fd
from bench.lib.prompts import load
from fastdistill.decode import Costs

pytestmark = pytest.mark.model

# Few and short where every row costs what a forward costs, those of the prompt too.
SLOW = fd.isa() == "scalar"
TOKENS = 12 if SLOW else 128
SAMPLED = dict(temperature=0.8, top_p=0.9, top_k=50, repetition_penalty=1.15, seed=11)
FLAT = Costs((1, 16), (32, 512), ((1.0, 1.2), (1.0, 1.2)))  # of a machine on which guesses cost nothing


@pytest.fixture(scope="module")
def model(smollm2):
    return fd.load(smollm2)


@pytest.fixture(scope="module")
def prompts(model):
    chosen = [*([] if SLOW else load("copy")[::7]), *load("open")[::10]]
    return [model.chat_prompt([{"role": "user", "content": p.text}]) if p.chat else p.text for p in chosen]


@pytest.fixture(scope="module")
def plain(model, prompts):
    return {name: model.generate(prompts, max_tokens=TOKENS, **options) for name, options in OPTIONS.items()}


OPTIONS = {"greedy": {}, "sampled": SAMPLED}


NAMES = ("lookup", "lookup tree", "itself", "itself, a tree", "layers", "auto")
NAMES += ("jacobi", "jacobi, all", "lookahead", "lookahead, all")


def drafting(model):
    tree = fd.static_tree([0.6, 0.2, 0.1], 7, 4)
    return {
        "lookup": fd.Speculative(fd.PromptLookup(), max_draft=7),
        "lookup tree": fd.Speculative(fd.PromptLookup(min_match=1), tree=fd.Tree(3, 8), max_draft=15),
        "itself": fd.Speculative(fd.ModelDrafter(model), max_draft=5),
        "itself, a tree": fd.Speculative(fd.ModelDrafter(model), tree=tree, max_draft=7),
        "layers": fd.Speculative(fd.LayerSkip(28), max_draft=3),
        "auto": fd.Auto(FLAT),
        "jacobi": fd.Jacobi(costs=FLAT),
        "jacobi, all": fd.Jacobi(block=5, max_blocks=2, spawn=0.4, adaptive=False),
        "lookahead": fd.Lookahead(costs=FLAT),
        "lookahead, all": fd.Lookahead(window=3, ngram=4, guesses=3, adaptive=False),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", list(OPTIONS))
def test_text_is_that_of_plain_decoding(model, prompts, plain, name, options):
    decoder = drafting(model)[name]
    some = slice(None) if "lookup" in name or name == "auto" else slice(0, None, 2)
    ours = model.generate(prompts[some], max_tokens=TOKENS, decoder=decoder, **OPTIONS[options])
    for found, wanted in zip(ours, plain[options][some], strict=True):
        assert (found.tokens, found.text, found.finish_reason) == (wanted.tokens, wanted.text, wanted.finish_reason)
    if name == "itself":  # it draws as the target does
        assert all(found.stats.accepted == found.stats.drafted for found in ours)
    if name == "auto" and options == "greedy" and not SLOW:
        assert sum(found.stats.forwards for found in ours) < 0.7 * sum(found.stats.forwards for found in plain[options])


def test_q4_drafts_for_f16(smollm2, model):
    target = fd.load(smollm2, format="f16")
    prompt = "The capital of France is Paris. The capital of Italy is"
    wanted = target.generate(prompt, max_tokens=TOKENS)
    ours = target.generate(prompt, max_tokens=TOKENS, decoder=fd.Speculative(fd.ModelDrafter(model), max_draft=4))
    assert ours.tokens == wanted.tokens and ours.stats.tokens_per_forward > 2
