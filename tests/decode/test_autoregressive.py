"""Plain decoding against the definition: the argmax of the logits of the text so far, one token after another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.decode import Autoregressive, Request, generate
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import from_callable
from tests.strategies import Setting, settings_of_models, token_lists


def greedy(setting: Setting, prompt: list[int], count: int) -> list[int]:
    """By the oracle: a text from scratch for every token."""
    text = list(prompt)
    for _ in range(count):
        text.append(int(setting.oracle.rows(text)[-1].view(np.float32).argmax()))
    return text[len(prompt) :]


@settings(max_examples=20)
@given(setting=settings_of_models, prompt=token_lists(1, 30), count=st.integers(1, 12))
def test_greedy_text_is_the_argmax_of_the_text_so_far(isa, setting, prompt, count):
    assert generate(setting.session(), prompt, count).tokens == greedy(setting, prompt, count)


@settings(max_examples=10)
@given(setting=settings_of_models, prompt=token_lists(1, 10))
def test_over_a_function_the_text_is_the_models_own(setting, prompt):
    session = from_callable(lambda tokens: setting.oracle.rows(tokens).view(np.float32), setting.vocab)
    assert generate(session, prompt, 6).tokens == greedy(setting, prompt, 6)


def test_the_prompt_is_read_in_chunks_and_then_one_token_a_forward():
    session = Setting("plain", "q8", max_rows=4).session()
    prompt = np.arange(10, dtype=np.int32)
    run, chunks = Autoregressive().start(session, Request(prompt, 0, Sampler())), []
    emitted = []
    for _ in range(5):
        asked = run.forward()
        chunks.append(np.asarray(asked.tokens).tolist())
        emitted.append(run.take(session.run(asked)))
    assert chunks[:3] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert emitted[:2] == [[], []] and all(len(tokens) == 1 for tokens in emitted[2:])
    assert chunks[3:] == [[token for token, _ in emitted[2]], [token for token, _ in emitted[3]]]


@pytest.mark.parametrize("cached", [0, 3, 9])
def test_what_the_session_holds_is_not_read_again(cached):
    setting, prompt = Setting("plain", "q8"), np.arange(10, dtype=np.int32)
    session = setting.session()
    if cached:
        session.prefill(prompt[:cached])
    run = Autoregressive().start(session, Request(prompt, cached, Sampler()))
    asked = run.forward()
    assert np.asarray(asked.tokens).tolist() == prompt[cached:].tolist()
    ((token, row),) = run.take(session.run(asked))
    assert ([token], row) == (greedy(setting, prompt.tolist(), 1), 0)


SAMPLERS = [
    dict(temperature=0.8), dict(temperature=1.5, top_k=20), dict(temperature=1.0, top_p=0.7), dict(temperature=1.0, min_p=0.1),
    dict(temperature=0.9, repetition_penalty=1.3, seed=2**63), dict(repetition_penalty=2.0), dict(frequency_penalty=0.9), dict(temperature=0.5, presence_penalty=2.0),
    dict(logit_bias={3: 4.0, 5: float("-inf")}), dict(no_repeat_ngram_size=2), dict(temperature=0.5, no_repeat_ngram_size=1),
]  # fmt: skip


@pytest.mark.parametrize("options", SAMPLERS)
def test_the_same_seed_writes_the_same_text_on_every_level_for_any_split(isa, options):
    """Law 2: a token is a function of logits, seed and position."""
    sampler, prompt, texts = Sampler(**options), [1, 2, 3, 4, 5, 0, 1, 2, 3], []
    for setting in (Setting("biased", "q4", 1, None, 16), Setting("biased", "q4", 3, None, 2)):
        texts.append(generate(setting.session(), prompt, 16, sampler).tokens)
    function = from_callable(lambda tokens: Setting("biased", "q4").oracle.rows(tokens).view(np.float32), 600)
    texts.append(generate(function, prompt, 16, sampler).tokens)
    warm = Setting("biased", "q4").session()
    warm.prefill([*prompt[:4], 5, 5])
    texts.append(generate(warm, prompt, 16, sampler).tokens)
    assert texts[0] == texts[1] == texts[2] == texts[3]


def test_another_seed_writes_another_text():
    """Sixteen tokens out of 600 at temperature 2: the chance of a coincidence is nil."""
    texts = {
        tuple(generate(Setting("biased", "q4").session(), [1], 16, Sampler(temperature=2.0, seed=seed)).tokens)
        for seed in range(4)
    }
    assert len(texts) == 4
