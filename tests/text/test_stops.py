"""Stop strings in texts of every decoder: one text, whoever writes it and however many tokens come at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stop_oracle import oracle, spelt_out, stops_for
from tokenizers_made_here import KINDS, byte_spelling, write_folder

import fastdistill as fd
from fastdistill.decode import Autoregressive, Request
from fastdistill.decode.text import Text, prepare_session
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import from_callable
from fastdistill.text.stream import TextStream
from fastdistill.text.tokenizer import Tokenizer
from tests.texts import events

PROMPT = [5, 6, 7]


@pytest.fixture(scope="module", params=["byte_level", "llama2", "word_piece"])
def tokenizer(request, tmp_path_factory):
    return Tokenizer(write_folder(tmp_path_factory.mktemp(request.param), KINDS[request.param]))


def foretold(tokens, vocab_size, masked):
    """A model whose text is known, whatever it is shown.  Row i is for token i + 1; where masks are filled, for i."""
    whole = [*PROMPT, *tokens]

    def logits(text):
        z = np.zeros((len(text), vocab_size), np.float32)
        for i in range(len(text)):
            following = i + (not masked)
            z[i, whole[following] if following < len(whole) else 0] = 9.0
        return z

    return from_callable(logits, vocab_size, mask_token=vocab_size - 1 if masked else None)


def decoders(tokens, random):
    """Each decoder with guesses that are right now and then."""

    def guess(text, budget):
        right = tokens[len(text) - len(PROMPT) :][:budget]
        return [token if random.random() < 0.7 else 3 for token in right]

    yield Autoregressive()
    yield fd.Speculative(fd.PromptLookup(), max_draft=7)
    yield fd.Speculative(fd.CallableDrafter(guess), max_draft=7)
    yield fd.Jacobi(block=6)
    yield fd.Lookahead(window=3, ngram=3, guesses=3)
    yield fd.Unmask(fd.unmask.Schedule(4))
    yield fd.Unmask(fd.unmask.Threshold(0.5), block_length=5)


@given(data=st.data())
@settings(max_examples=40)
def test_every_decoder_ends_its_text_at_the_same_stop(tokenizer, data):
    special = min(tokenizer.special_ids)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1) | st.just(special), min_size=1, max_size=24))
    stops = data.draw(stops_for("".join(char for char, _ in spelt_out(tokenizer, ids, ended=True))))
    ends = frozenset(data.draw(st.sampled_from([(), (special,)])))
    count = next((n for n, token in enumerate(ids, 1) if token in ends), len(ids))
    text, stopped, needed = oracle(tokenizer, ids[:count], stops)
    reason = "stop" if stopped or ids[count - 1] in ends else "length"
    for decoder in decoders(ids, np.random.default_rng(0)):
        masked = isinstance(decoder, fd.Unmask)
        session = foretold(ids, tokenizer.vocab_size + masked, masked)
        prompt = np.array(PROMPT, np.int32)
        request = Request(prompt, prepare_session(session, prompt), Sampler(), max_tokens=len(ids), end_tokens=ends)
        written = Text(session, request, decoder, TextStream(tokenizer, stops))
        pieces = "".join(event.piece for event in events([written]))
        assert pieces == written.result.text == text, decoder
        assert (written.result.tokens, written.result.finish_reason) == (ids[:needed], reason), decoder


def test_a_stop_that_only_the_end_makes_certain_is_the_reason(tokenizer):
    """Half a character at the end of the text is U+FFFD there, and nothing before."""
    byte = byte_spelling()[0xC3] if tokenizer.byte_level else "<0xC3>"
    if tokenizer.token_id(byte) is None:
        pytest.skip("has no lone bytes")
    ids = [tokenizer.token_id(byte)]
    session, prompt = foretold(ids, tokenizer.vocab_size, False), np.array(PROMPT, np.int32)
    request = Request(prompt, prepare_session(session, prompt), Sampler(), max_tokens=1)
    written = Text(session, request, Autoregressive(), TextStream(tokenizer, "\ufffd"))
    assert "".join(event.piece for event in events([written])) == ""
    assert (written.result.text, written.result.tokens, written.result.finish_reason) == ("", ids, "stop")
