"""Model.fill: masks within texts, against loops over the logits, in any company, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.errors import ArgumentError, CapacityError, PartialError, UnsupportedError
from fastdistill.options import FillOptions
from fastdistill.unmask import Schedule
from tests.encoders import WORDS, write_encoder
from tests.families import family_config
from tests.goldens.make_families import write_folder
from tests.test_cli import write_model

MASKED = ["bert, masks", "roberta, masks", "distilbert, masks", "mpnet, masks", "modernbert, masks"]
ONE_STEP = fd.Unmask(max_steps=1)
TEXT = "one [MASK] three four [MASK] [MASK] seven"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model of a case of encoders, by name."""
    models = {}

    def make(name: str = "bert, masks"):
        if name not in models:
            models[name] = fd.load(write_encoder(tmp_path_factory.mktemp("models") / "model", name), threads=2)
        return models[name]

    return make


@pytest.fixture(scope="module")
def listops():
    return fd.load("listops-mdlm")


def log_probs(model, ids) -> np.ndarray:
    """Of every row, of all tokens but the mask, float64 (n, vocab_size)."""
    logits = model.logits(ids).astype(np.float64)
    logits[:, model.plan.mask_token] = -np.inf
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def masks_of(model, ids) -> list[int]:
    return [place for place, token in enumerate(ids) if token == model.plan.mask_token]


@pytest.mark.parametrize("name", MASKED)
def test_the_surest_mask_is_filled_first_and_seen_by_the_next(made, name):
    model = made(name)
    given = ids = model.tokenizer.encode(TEXT)
    ids = list(ids)
    while left := masks_of(model, ids):
        found = log_probs(model, ids)
        place = max(left, key=lambda at: found[at].max())
        ids[place] = int(found[place].argmax())
    got = model.fill(TEXT, decoder=fd.Unmask(Schedule()))
    assert got.tokens == [ids[place] for place in masks_of(model, given)]
    assert got.text == model.tokenizer.decode(ids) and got.text.startswith("one ") and got.text.endswith(" seven")
    assert (got.finish_reason, got.stats.forwards, got.stats.prompt_tokens) == ("length", 3, len(ids))


@pytest.mark.parametrize("name", MASKED)
def test_one_step_fills_every_mask_from_one_forward(made, name):
    model = made(name)
    ids = model.tokenizer.encode(TEXT)
    found = log_probs(model, ids)
    got = model.fill(TEXT, decoder=ONE_STEP, logprobs=5)
    assert got.tokens == [int(found[place].argmax()) for place in masks_of(model, ids)] and got.stats.forwards == 1
    for place, said in zip(masks_of(model, ids), got.logprobs, strict=True):
        best = np.argsort(-found[place], kind="stable")[:5]
        assert [token for token, _ in said.top] == best.tolist() and said.token == best[0]
        np.testing.assert_allclose([value for _, value in said.top], found[place][best], atol=1e-5)
    one = model.fill("one [MASK] three", logprobs=1)
    assert [one.tokens, one.logprobs[0].top[0][0]] == [[one.logprobs[0].token], one.tokens[0]]


words = st.sampled_from([*WORDS, "[MASK]"])


@settings(max_examples=20)
@given(
    name=st.sampled_from(MASKED), texts=st.lists(st.lists(words, max_size=20).map(" ".join), max_size=6), seed=st.integers(0, 3),
    temperature=st.sampled_from([0.0, 0.8]), rule=st.sampled_from([Schedule(), fd.unmask.Threshold(0.1), fd.unmask.Factor(2.0)]),
)  # fmt: skip
def test_a_text_is_filled_alike_alone_and_among_others(made, name, texts, seed, temperature, rule):
    model, options = made(name), dict(seed=seed, temperature=temperature, decoder=fd.Unmask(rule), logprobs=2)
    together = model.fill(texts, **options)
    for text, got in zip(texts, together, strict=True):
        alone, by_ids = model.fill(text, **options), model.fill(model.tokenizer.encode(text), **options)
        for one in (alone, by_ids):
            assert (one.tokens, one.text, one.logprobs) == (got.tokens, got.text, got.logprobs)
        given, filled = text.split(), iter(got.tokens)
        want = [model.tokenizer.decode([next(filled)]) if word == "[MASK]" else word for word in given]
        assert got.text.split() == " ".join(want).split()


def test_a_seed_gives_a_text_and_others_give_others(made):
    drawn = [made().fill(TEXT, temperature=1.5, seed=seed).tokens for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1] and len({tuple(tokens) for tokens in drawn}) > 2
    assert made().fill(TEXT, decoder=fd.Unmask(temperature=1.5), seed=1).tokens == drawn[0]
    nothing = dict.fromkeys(FillOptions.__annotations__)
    assert made().fill(TEXT, **nothing).tokens == made().fill(TEXT).tokens
    assert made().fill(TEXT, temperature=1.5, top_k=1).tokens == made().fill(TEXT).tokens


def test_tokens_may_be_allowed_and_biased(made):
    model = made()
    some = [model.tokenizer.token_id(word) for word in ("text", "answer")]
    for options in (dict(allowed=some), dict(allowed=some, temperature=2.0), dict(logit_bias={some[1]: 1e4})):
        assert set(model.fill(TEXT, **options).tokens) <= set(some)


def test_a_text_without_masks_is_given_back_and_nothing_runs(made, listops, monkeypatch):
    model = made()
    monkeypatch.setattr(type(model.network), "session", None)
    for text in ("one  two", "words, that it lacks", ""):
        got = model.fill(text)
        assert (got.text, got.tokens, got.finish_reason, got.stats.forwards) == (text, [], "length", 0)
    assert model.fill(model.tokenizer.encode("one two")).text == "one two"
    assert model.fill(np.empty(0, np.int32), logprobs=1).logprobs == [] and model.fill("one").logprobs is None
    assert model.fill([]) == [] and listops.fill("sort : dog").text == "sort : dog"
    assert model.fill(["one", [7, 8]])[1].tokens == []


def test_a_diffusion_model_fills_within_as_behind(listops):
    prompt = "<|bos|> sort : dog ant cow bat _ _ _ _ | _ _ ->"
    behind = listops.generate(prompt, decoder=fd.Unmask(early_exit=False))
    within = listops.fill(prompt + " <|mask|>" * 10)
    assert within.tokens[: len(behind.tokens)] == behind.tokens and within.text.endswith(behind.text)
    some = listops.fill(prompt + " ant <|mask|> cow <|mask|>")
    assert some.text.endswith("-> ant bat cow dog") and len(some.tokens) == 2


def test_what_cannot_be_filled_is_refused(made, listops, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    causal = fd.load(write_model(folder / "causal"))
    with pytest.raises(UnsupportedError, match=r"sees a text from both sides: this one \(llama\) is causal"):
        causal.fill("a text")
    with pytest.raises(UnsupportedError, match=r"\(bert\) has no head that predicts tokens: it gives"):
        made("bert").fill("one [MASK]")
    with pytest.raises(CapacityError, match="121 tokens are more than 96"):
        made().fill([4] * 121)
    assert len(made().fill([4] * 96).tokens) == 96
    with pytest.raises(ArgumentError, match="must be an Unmask, got"):
        made().fill(TEXT, decoder="auto")
    with pytest.raises(ArgumentError, match="logprobs=5 gives the likeliest tokens of each mask"):
        made().fill(TEXT, top_k=5)
    with pytest.raises(ArgumentError, match=r"fill\(\) has no option 'max_tokens'; there are temperature, top_k"):
        made().fill(TEXT, max_tokens=5)
    with pytest.raises(ArgumentError, match="'max_new_tokens'; there are temperature"):
        made().fill(TEXT, max_new_tokens=5)
    with pytest.raises(ArgumentError, match="'guided_regex'; there are temperature"):  # generate's has none here
        made().fill(TEXT, guided_regex="a")
    with pytest.raises(ArgumentError, match=r"'targets': did you mean allowed\?"):
        made().fill(TEXT, targets=[5])
    with pytest.raises(ArgumentError, match="logit_bias names token 83"):
        made().fill(TEXT, logit_bias={83: 1.0})
    with pytest.raises(ArgumentError, match="text must"):
        made().fill(5)
    with pytest.raises(PartialError) as failed:
        made().fill([TEXT, [4] * 121])
    assert failed.value.results[0].tokens == made().fill(TEXT).tokens


def test_a_model_of_blocks_fills_where_it_is_asked_to_see_all(tmp_path):
    write_folder(tmp_path / "model", family_config("sdar"))
    model = fd.load(tmp_path / "model")
    ids = [5, 6, 82, 7, 8, 9, 82, 10, 11]
    with pytest.raises(UnsupportedError, match="a block sees nothing behind it: give Unmask\\(attention='full'\\)"):
        model.fill(ids)
    got = model.fill(ids, decoder=fd.Unmask(attention="full", max_steps=1))
    session = model.session(capacity=1, max_rows=9)
    logits = session.forward(ids, nodes=[0] * 9, parents=[-1], read=fd.Read(logits=True, banned=[82])).logits
    assert got.tokens == logits[[2, 6]].argmax(axis=1).tolist() and got.text == ""
