"""Every family: what transformers computed of it, law 1, and every decoder; `tests/test_peers_families.py` runs transformers itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.decode import (
    Autoregressive,
    Jacobi,
    LayerSkip,
    Lookahead,
    PromptLookup,
    Speculative,
    generate,
)
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import forward_many
from fastdistill.runtime.forward import Forward
from tests.families import CASES, CAUSAL, family_config, network
from tests.goldens.make_families import GOLDENS, text, write_folder
from tests.strategies import LOGITS, Setting, assert_rows, bits, cut, level, token_lists, trees

FEW = settings(max_examples=6)
SAID = json.loads(GOLDENS.read_text("utf-8"))


@pytest.mark.parametrize("name", CAUSAL)
def test_a_folder_says_what_transformers_said_of_it(isa, tmp_path, name):
    """Both computed in float32: logits within 1e-4 of the largest, and 32 greedy tokens alike."""
    write_folder(tmp_path / "model", family_config(name))
    model = fd.load(tmp_path / "model", threads=2)
    tokens, golden = text(model.vocab_size), SAID[name]
    got = model.logits(tokens)
    for row, want in golden["logits"].items():
        np.testing.assert_allclose(got[int(row)], want, atol=1e-4 * np.abs(want).max())
    session = model.session(8 + len(golden["written"]))
    written = generate(session, tokens[:8], len(golden["written"]), end_tokens=frozenset())
    assert written.tokens == golden["written"]


def test_every_causal_case_has_its_golden():
    assert SAID.keys() == set(CAUSAL)
    assert len({len(set(golden["written"])) for golden in SAID.values()}) > 3  # they do not all repeat one token


formats = st.sampled_from(["f32", "q8", "q4"])


@FEW
@given(format=formats, threads=st.integers(1, 3), words=token_lists(1, 30), data=st.data())
@pytest.mark.parametrize("name", CASES)
def test_any_split_of_a_text_gives_the_same_bits(isa, name, format, threads, words, data):
    setting = Setting(name, format, threads)
    session, want = setting.session(), setting.oracle.rows(words)
    for piece in cut(data.draw, len(words), setting.max_rows):
        assert_rows(session.forward(words[piece], read=LOGITS), want[piece])


@FEW
@given(format=formats, context=token_lists(0, 12), tree=trees(10), data=st.data())
@pytest.mark.parametrize("name", CASES)
def test_a_row_of_a_tree_has_the_bits_of_its_path(isa, name, format, context, tree, data):
    setting = Setting(name, format)
    session = setting.session()
    if context:
        session.prefill(context)
    want = np.stack([setting.oracle.rows(context + tree.text(row))[-1] for row in range(len(tree.tokens))])
    for piece in cut(data.draw, len(tree.tokens), setting.max_rows):
        assert_rows(session.forward(tree.tokens[piece], parents=tree.parents[piece], read=LOGITS), want[piece])
    leaf = data.draw(st.integers(0, len(tree.tokens) - 1))
    session.keep(tree.path(leaf))
    assert_rows(session.forward([1], read=LOGITS), setting.oracle.rows(context + tree.text(leaf) + [1])[-1:])


@FEW
@given(format=formats, context=token_lists(0, 8), block=token_lists(1, 7), data=st.data())
@pytest.mark.parametrize("name", CASES)
def test_a_block_has_the_same_bits_in_whatever_order_its_rows_lie(isa, name, format, context, block, data):
    setting = Setting(name, format)
    with level("scalar"):
        alone = setting.session(threads=1)
        if context:
            alone.prefill(context)
        want = bits(alone.forward(block, nodes=[0] * len(block), parents=[-1], read=LOGITS).logits)
    session = setting.session()
    if context:
        session.prefill(context)
    order = data.draw(st.permutations(range(len(block))))
    positions = [len(context) + i for i in order]
    rows = session.forward(
        [block[i] for i in order], nodes=[0] * len(block), parents=[-1], positions=positions, read=LOGITS
    )
    assert_rows(rows, want[list(order)])


@FEW
@given(format=formats, texts=st.lists(token_lists(1, 9), min_size=2, max_size=5))
@pytest.mark.parametrize("name", CASES)
def test_a_text_has_the_same_bits_whoever_shares_the_pass(isa, name, format, texts):
    """Of experts too: which ones its neighbours go to does not matter, nor how many they are."""
    setting = Setting(name, format, threads=2)
    requests = [(setting.session(32), Forward(words, read=LOGITS)) for words in texts]
    for rows, words in zip(forward_many(requests), texts, strict=True):
        assert_rows(rows, setting.oracle.rows(words))


DECODERS = {
    "jacobi": Jacobi(),
    "lookahead": Lookahead(),
    "prompt lookup": Speculative(PromptLookup()),
    "layer skip": Speculative(LayerSkip(1)),
}


@settings(max_examples=4)
@given(prompt=token_lists(1, 12), temperature=st.sampled_from([0.0, 0.8]), format=formats)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", CAUSAL)
def test_every_decoder_writes_the_text_of_plain_decoding(name, decoder, prompt, temperature, format):
    setting = Setting(name, format)

    def written(how):
        request = dict(sampler=Sampler(temperature, seed=3))
        return generate(setting.session(48), prompt, 20, decoder=how, end_tokens=frozenset(), **request).tokens

    assert written(DECODERS[decoder]) == written(Autoregressive())
