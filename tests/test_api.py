"""load, generate, stream, score: a folder on disk becomes text, and what is wrong with it is named."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
import warnings
from collections import deque

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.checkpoint import Tensor, quantize_tensor, write_checkpoint
from fastdistill.decode.engine import write as write_tasks
from fastdistill.errors import (
    ArgumentError,
    BusyError,
    CapacityError,
    CheckpointError,
    PartialError,
    TextError,
    UnsupportedError,
)
from fastdistill.kernels.boundary import lib
from fastdistill.models import plan_for
from fastdistill.models.quantize_folder import quantize_folder
from fastdistill.options import DEFAULTS, SYNONYMS, FillOptions, Options, resolved
from fastdistill.tasks import task
from tests.small_models import FORMATS, config, tensors
from tests.strategies import bits
from tests.test_cli import write_model
from tests.text.tokenizers_made_here import byte_level

TOKENIZER = {"tokenizer.json": json.dumps(byte_level()).encode()}  # token 0 is special, 1..256 are the bytes


def made(name="plain", format="f32", seed=0, **changes):
    return tensors(plan_for(config(name, **changes)), seed, format)


def write(folder, name="plain", format="f32", files=None, weights=None, **changes):
    weights = made(name, format, **changes) if weights is None else weights
    write_checkpoint(folder, config(name, **changes).raw, weights.values(), TOKENIZER if files is None else files)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "plain", eos_token_id=299)


@pytest.fixture(scope="module")
def model(folder):
    return fd.load(folder, threads=2)


# ---- load ----


def hugging_face(folder, weights, dtype, shards=1):
    """A folder as transformers writes it: safetensors of one type, and an index when there are several."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config("plain").raw | {"torch_dtype": dtype}))
    format = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}[dtype]
    names, places = list(weights), {}
    for shard in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        header, data = {"__metadata__": {"format": "pt"}}, b""
        for name in names[shard::shards]:
            raw = quantize_tensor(weights[name], format).data.tobytes()
            offsets = [len(data), len(data) + len(raw)]
            header[name] = {"dtype": format.upper(), "shape": list(weights[name].shape), "data_offsets": offsets}
            data += raw
            places[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + data)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": 1}, "weight_map": places})
        )
    return folder


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype, format", [("float32", "f32"), ("float16", "f16"), ("bfloat16", "bf16")])
def test_loads_what_transformers_writes(tmp_path, dtype, format, shards):
    weights = made()
    loaded = fd.load(hugging_face(tmp_path / "m", weights, dtype, shards))
    assert set(loaded.network.weights.formats[name] for name, w in loaded.plan.weights.items() if w.linear) == {format}
    rounded = {name: quantize_tensor(tensor, format) for name, tensor in weights.items()}
    want = fd.load(write(tmp_path / "w", weights=rounded))
    np.testing.assert_array_equal(bits(loaded.logits([1, 2, 3])), bits(want.logits([1, 2, 3])))
    reference = fd.load(tmp_path / "m", executor="reference").logits([1, 2, 3])
    # f16 keys and values, where the cache is: 2^-11 of values near one.
    np.testing.assert_allclose(loaded.logits([1, 2, 3]), reference, atol=1e-4 if format == "f32" else 5e-3)


@pytest.mark.parametrize("stored", FORMATS)
@pytest.mark.parametrize("name", ["plain", "odd"])
def test_format_converts_linears_and_head_and_None_keeps_what_is_stored(tmp_path, name, stored):
    source = write(tmp_path / "source", name, stored)
    assert set(
        fd.load(source).network.weights.formats[w] for w, x in plan_for(config(name)).weights.items() if x.linear
    ) == {stored}
    for format in ("f32", "q8", "q4"):
        loaded = fd.load(source, format=format)
        weights = made(name, stored)
        for key, weight in loaded.plan.weights.items():
            if weight.linear:
                weights[key] = quantize_tensor(weights[key], format)
        want = fd.load(write(tmp_path / format, name, weights=weights))
        np.testing.assert_array_equal(bits(loaded.logits([1, 2, 3, 4])), bits(want.logits([1, 2, 3, 4])))
    with pytest.raises(ArgumentError, match="format must be"):
        fd.load(source, format="int4")


def test_what_is_missing_unexpected_and_misshapen_comes_in_one_error(tmp_path):
    weights = made()
    del weights["model.layers.0.mlp.up_proj.weight"], weights["model.norm.weight"]
    weights["model.layers.9.extra"] = Tensor("model.layers.9.extra", "f32", (2,), np.zeros(2, np.float32))
    shape = (32, 63)
    weights["model.layers.1.self_attn.k_proj.weight"] = Tensor(
        "model.layers.1.self_attn.k_proj.weight", "f32", shape, np.zeros(shape, np.float32)
    )
    write(tmp_path / "m", weights=weights)
    with pytest.raises(CheckpointError) as caught:
        fd.load(tmp_path / "m")
    text = str(caught.value)
    for part in ("missing: model.layers.0.mlp.up_proj.weight [96, 64]", "missing: model.norm.weight [64]", "unexpected: model.layers.9.extra [2]",
                 "misshapen: model.layers.1.self_attn.k_proj.weight [32, 63], expected [32, 64]"):  # fmt: skip
        assert part in text


def test_biases_beside_a_config_without_them_are_refused(tmp_path):
    bias = made("biased")
    with pytest.raises(CheckpointError, match=r"unexpected: model\.layers\.0\.mlp\.gate_proj\.bias"):
        fd.load(write(tmp_path / "c", "biased", weights=bias, attention_bias=False, mlp_bias=False))


@pytest.mark.parametrize(
    "changes",
    [
        dict(rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
        dict(model_type="mamba"),
        dict(hidden_act="quick_gelu"),
    ],
)
def test_a_model_that_is_not_supported_says_so(tmp_path, changes):
    write_checkpoint(tmp_path / "m", config(**changes).raw, made().values())
    with pytest.raises(UnsupportedError):
        fd.load(tmp_path / "m")


def test_no_folder_and_no_config(tmp_path):
    with pytest.raises(CheckpointError, match="neither a folder nor the name of a model"):
        fd.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        fd.load(tmp_path)


def test_a_bad_thread_count_or_executor_is_refused(folder):
    for options in (dict(threads=0), dict(threads=1.5), dict(threads=lib.fd_threads_limit() + 1), dict(executor="gpu")):
        with pytest.raises(ArgumentError):
            fd.load(folder, **options)


def test_progress_reaches_the_end(folder, tmp_path):
    for source in (folder, write(tmp_path / "tied", "odd")):
        calls = []
        fd.load(source, progress=lambda done, total, calls=calls: calls.append((done, total)))
        assert calls[-1][0] == calls[-1][1] and calls == sorted(calls)


def test_a_model_is_whole_after_its_folder_is_gone(tmp_path):
    """Nothing stays mapped: a file cut short under a map would end the process."""
    loaded = fd.load(write(tmp_path / "m"))
    want = loaded.logits([1, 2])
    (tmp_path / "m" / "model.safetensors").write_bytes(b"")
    np.testing.assert_array_equal(bits(loaded.logits([1, 2])), bits(want))
    with open("/proc/self/maps") as maps:
        assert str(tmp_path) not in maps.read()


def test_weights_that_are_not_finite_give_an_error_or_a_result(tmp_path):
    weights = made()
    weights["model.layers.0.mlp.up_proj.weight"].data[3, 5] = np.nan
    loaded = fd.load(write(tmp_path / "m", weights=weights))
    with pytest.raises(fd.errors.NotFiniteError):
        loaded.logits([1, 2])
    with pytest.raises(CheckpointError, match="up_proj"):
        fd.load(tmp_path / "m", format="q8")


# ---- logits and score ----


def test_logits_and_score_are_those_of_the_rows(model):
    text = "the abc of 日本"
    ids = model.tokenizer.encode(text)
    logits = model.logits(ids)
    assert logits.shape == (len(ids), 300) and logits.dtype == np.float32
    wide = logits.astype(np.float64)
    log_probs = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    score = model.score(text)
    assert score.tokens == ids
    np.testing.assert_allclose(score.log_probs, log_probs[np.arange(len(ids) - 1), ids[1:]], atol=1e-5)
    assert score.total == pytest.approx(score.log_probs.sum()) and score.perplexity == pytest.approx(
        np.exp(-score.log_probs.mean())
    )
    assert [s.tokens for s in model.score([text, "ab"])] == [ids, model.tokenizer.encode("ab")]
    assert len(model.score("a").log_probs) == 0 and np.isnan(model.score("a").perplexity)


def test_perplexity_beyond_floats_is_infinite():
    assert fd.api.Score([0, 1], np.array([-800.0], np.float32)).perplexity == np.inf


def test_logits_of_more_rows_than_one_forward_takes(model):
    ids = np.random.default_rng(0).integers(0, 300, 300)
    session = model.session(300, max_rows=300)
    np.testing.assert_array_equal(bits(model.logits(ids)), bits(session.forward(ids, read=fd.Read(logits=True)).logits))
    with pytest.raises(CapacityError):
        model.logits([1] * 513)
    for wrong in ([], [300], [-1], [0.5], "text"):
        with pytest.raises(ArgumentError):
            model.logits(wrong)


# ---- generate ----

PROMPTS = ["the ", "END", "日本", [5, 6, 7]]


@pytest.fixture(scope="module")
def written(model):
    """A long text, and where each token ends in it."""
    return model.generate("the ", max_tokens=60)


def decoded(model, tokens):
    return model.tokenizer.decode(tokens)


def test_tokens_and_text_belong_together(model, written):
    assert len(written.tokens) == 60 and written.finish_reason == "length"
    assert written.text == decoded(model, written.tokens)
    assert model.generate(model.tokenizer.encode("the "), max_tokens=60).text == written.text
    assert written.stats.prompt_tokens == len(model.tokenizer.encode("the ")) and written.stats.new_tokens == 60


@given(start=st.integers(0, 40), length=st.integers(1, 6))
def test_a_stop_string_ends_the_text_before_it(model, written, start, length):
    stop = written.text[start : start + length]
    if not stop or "\ufffd" in stop:
        return
    result = model.generate("the ", max_tokens=60, stop=stop)
    assert result.finish_reason == "stop"
    assert result.text == written.text[: written.text.index(stop)]
    assert result.tokens == written.tokens[: len(result.tokens)]  # the one that completes it included
    assert stop in decoded(model, result.tokens) and stop not in decoded(model, result.tokens[:-1])
    assert model.generate("the ", max_tokens=60, stop=["\x00never", stop]).text == result.text


def test_ends_are_the_union_of_config_generation_config_and_stop_token_ids(tmp_path):
    files = TOKENIZER | {"generation_config.json": json.dumps({"eos_token_id": [7, 8]}).encode()}
    loaded = fd.load(write(tmp_path / "m", files=files, eos_token_id=9))
    assert loaded.end_tokens == {7, 8, 9}
    for token in (7, 8, 9, 11):
        result = loaded.generate([1, 2], max_tokens=5, logit_bias={token: 1e4}, stop_token_ids=[11])
        assert (result.tokens, result.finish_reason) == ([token], "stop")
    assert loaded.generate([1, 2], max_tokens=5, logit_bias={11: 1e4}).finish_reason == "length"


def test_no_end_can_be_drawn_before_min_tokens(model):
    options = dict(max_tokens=8, logit_bias={299: 1e4, 11: 2e4}, stop_token_ids=[11])
    assert model.generate([1, 2], **options).tokens == [11]
    result = model.generate([1, 2], min_tokens=3, **options)
    assert len(result.tokens) == 4 and result.tokens[-1] == 11 and not {11, 299} & set(result.tokens[:-1])
    free = model.generate([1, 2], max_tokens=8).tokens
    assert model.generate([1, 2], max_tokens=8, min_tokens=8).tokens == free or 299 in free
    short = model.generate([1, 2], min_tokens=100, **options)
    assert (len(short.tokens), short.finish_reason) == (8, "length")


def test_allowed_and_bias_choose_the_tokens(model):
    allowed = [40, 41, 42]
    result = model.generate("the ", max_tokens=20, allowed=allowed)
    assert set(result.tokens) <= set(allowed)
    mask = np.zeros(300, bool)
    mask[allowed] = True
    assert model.generate("the ", max_tokens=20, allowed=mask).tokens == result.tokens
    assert (
        model.generate("the ", max_tokens=20, allowed=list(range(300))).tokens
        == model.generate("the ", max_tokens=20).tokens
    )
    assert set(model.generate("the ", max_tokens=20, allowed=allowed, temperature=2.0).tokens) <= set(allowed)
    banned = {token: -float("inf") for token in set(model.generate("the ", max_tokens=20).tokens)}
    assert not set(model.generate("the ", max_tokens=20, logit_bias=banned).tokens) & set(banned)


@pytest.mark.parametrize("name", ["plain", "odd"])  # 300 and 77 tokens: neither fills its last word
@settings(max_examples=6)
@given(data=st.data())
def test_ids_and_masks_are_never_taken_for_one_another(tmp_path_factory, name, data):
    """As many ids as a mask has words, or as there are tokens, in any type of integers, are ids."""
    loaded = _of(name, tmp_path_factory)
    vocab = loaded.vocab_size
    count = data.draw(st.sampled_from([1, -(-vocab // 32), vocab]))
    ids = data.draw(st.lists(st.integers(0, vocab - 1), min_size=count, max_size=count))
    if count == vocab:
        ids = sorted(ids)
        assume(count <= 2 or ids[-1] > 1)  # a mask of 0 and 1, which is refused
    mask = np.zeros(vocab, bool)
    mask[ids] = True
    options = dict(max_tokens=3, temperature=5.0, seed=data.draw(st.integers(0, 9)))
    want = loaded.generate([1, 2], allowed=mask, **options).tokens
    assert set(want) <= set(ids)
    for given_ids in (
        ids,
        tuple(ids),
        set(ids),
        *(np.array(ids, dtype) for dtype in (np.uint32, np.int32, np.int64, np.uint16, ">u4")),
    ):
        assert loaded.generate([1, 2], allowed=given_ids, **options).tokens == want


_LOADED: dict[str, fd.Model] = {}


def _of(name, tmp_path_factory):
    if name not in _LOADED:
        _LOADED[name] = fd.load(write(tmp_path_factory.mktemp("models") / name, name))
    return _LOADED[name]


@pytest.fixture
def decoders(model, written, tmp_path, monkeypatch):
    """Same-text decoders; one knows the text and goes on beyond its end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def knowing(text, budget):
        known = [*model.tokenizer.encode("the "), *written.tokens]
        return known[len(text) : len(text) + budget]

    return {
        "knowing": fd.Speculative(fd.CallableDrafter(knowing)),
        "lookup": fd.Speculative(fd.PromptLookup(min_match=1), tree=fd.Tree(2, 4)),
        "skip": fd.Speculative(fd.LayerSkip(1), max_draft=3),
        "model": fd.Speculative(fd.ModelDrafter(model), max_draft=5),
        "auto": "auto",
    }


@pytest.mark.parametrize("name", ["knowing", "lookup", "skip", "model", "auto"])
@pytest.mark.parametrize(
    "options",
    [
        dict(stop=[""]), dict(temperature=0.9, seed=3, top_p=0.9), dict(repetition_penalty=1.4), dict(logprobs=2),
        dict(frequency_penalty=0.5, presence_penalty=0.5), dict(temperature=0.9, seed=3, frequency_penalty=-0.5),
        dict(min_tokens=20, stop_token_ids=range(100, 140)), dict(allowed=range(90, 130)), dict(max_tokens=7),
    ],
)  # fmt: skip
def test_every_option_means_the_same_to_every_decoder(model, written, decoders, name, options):
    """A stop string inside a draft, penalties that count guesses, tokens allowed by their number in the text."""
    if "stop" in options:
        options = {"stop": [written.text[21:24]]}
    options = {"max_tokens": 40} | options
    session, other = model.session(capacity=120), model.session(capacity=120)
    plain = model.generate("the ", session=session, **options)
    ours = model.generate("the ", session=other, decoder=decoders[name], **options)
    assert (ours.text, ours.tokens, ours.finish_reason) == (plain.text, plain.tokens, plain.finish_reason)
    assert ours.logprobs == plain.logprobs
    assert other.tokens.tolist() == session.tokens.tolist() and other.pending == 0
    assert "".join(model.stream("the ", decoder=decoders[name], **options)) == plain.text


class Drafter:
    def start(self, request):
        raise AssertionError("never called")


@pytest.mark.parametrize(
    "decoder, text",
    [
        (fd.PromptLookup(), r"a drafter is not a decoder: pass Speculative\(PromptLookup\("), (Drafter(), r"goes into Speculative\("),
        (fd.unmask.Threshold(0.9), r"a rule for unmasking is not a decoder: pass Unmask\(Threshold\(threshold=0\.9"), (fd.Auto, r"pass Auto\("),
        (fd.unmask.Revise(), r"pass Unmask\(remask=Revise\("), (fd.unmask.EndOfText(), r"pass Unmask\(end=EndOfText\("), ("fast", '"auto" or a decoder'),
        (fd.Tree(), r"pass Speculative\(drafter, tree=Tree\("), (fd.Sampler(), "settings by name"), (np.zeros(3), '"auto" or a decoder'),
    ],
)  # fmt: skip
def test_what_is_no_decoder_is_refused(model, decoder, text):
    with pytest.raises(ArgumentError, match=text):
        model.generate("the ", decoder=decoder)


def test_few_rows_run_on_the_threads_that_were_found_to_be_fastest(folder, tmp_path, monkeypatch):
    """Where nobody asks for a number: what was measured once counts for every load after it, and changes no bit."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FASTDISTILL_THREADS", raising=False)
    monkeypatch.setattr("fastdistill.kernels.threads.default_threads", lambda: 4)
    monkeypatch.setattr("fastdistill.api.fastest_threads", lambda sessions: ((2, min(sessions)), (4, 3)))
    first = fd.load(folder)
    before, threads = first.logits([1, 2, 3]), first.network.threads_of
    assert [threads(rows) for rows in (1, 3, 5)] == [4, 4, 4]
    assert first.costs.threads == ((2, 1), (4, 3)) and [threads(rows) for rows in (1, 2, 3, 4, 5)] == [1, 1, 3, 3, 4]
    again = fd.load(folder)
    assert again.network.threads_of(2) == 1 and again.logits([1, 2, 3]).tobytes() == before.tobytes()
    with fd.Profile() as profile:
        again.logits([1, 2, 3])
    assert profile.threads == 3
    asked = fd.load(folder, threads=4)
    assert asked.costs.threads == () and asked.network.threads_of(1) == 4
    monkeypatch.setenv("FASTDISTILL_THREADS", "4")
    assert fd.load(folder).costs.threads == ()


def test_a_model_of_few_positions_has_costs_too(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FASTDISTILL_THREADS", raising=False)
    monkeypatch.setattr("fastdistill.kernels.threads.default_threads", lambda: 2)
    model = fd.load(write_model(tmp_path / "short", "plain", max_position_embeddings=20))
    assert model.costs.threads == () and len(model.costs.rows) > 1


def test_costs_are_measured_once_a_machine(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = fd.load(folder, threads=1)
    assert first.costs is first.costs and len(list((tmp_path / "fastdistill" / "costs").iterdir())) == 1
    again = fd.load(folder, threads=1)
    monkeypatch.setattr(type(again), "measure_costs", None)
    assert again.costs == first.costs


def test_special_tokens_are_tokens_but_no_text(model):
    result = model.generate("the ", max_tokens=3, allowed=[0])
    assert result.tokens == [0, 0, 0] and result.text == ""


def test_nothing_is_asked_for_and_nothing_is_done(model):
    result = model.generate("the ", max_tokens=0)
    assert (result.text, result.tokens, result.finish_reason, result.stats.forwards) == ("", [], "length", 0)
    assert model.generate(["the ", "END"], max_tokens=0)[1].tokens == []


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(temperature=1.0, seed=5),
        dict(temperature=0.7, top_k=9, repetition_penalty=1.2),
        dict(frequency_penalty=1.5),
        dict(logprobs=2),
        dict(stop="a"),
    ],
)
def test_a_list_of_prompts_is_each_prompt_alone(model, options):
    together = model.generate(PROMPTS, max_tokens=12, **options)
    for one, prompt in zip(together, PROMPTS, strict=True):
        alone = model.generate(prompt, max_tokens=12, **options)
        assert (one.text, one.tokens, one.finish_reason, one.logprobs) == (
            alone.text,
            alone.tokens,
            alone.finish_reason,
            alone.logprobs,
        )


def test_more_prompts_than_share_a_pass(model):
    prompts = [[1 + n % 7, n % 5] for n in range(40)]
    together = model.generate(prompts, max_tokens=2)
    assert [one.tokens for one in together] == [model.generate(prompt, max_tokens=2).tokens for prompt in prompts]


def test_a_session_is_reused_and_writes_the_same_text(model):
    session, text = model.session(), "the abc "
    for _ in range(3):
        n = len(model.tokenizer.encode(text))
        held = session.tokens.tolist()
        result = model.generate(text, max_tokens=8, session=session)
        assert result.text == model.generate(text, max_tokens=8).text
        ids = model.tokenizer.encode(text)
        common = next((i for i, (a, b) in enumerate(zip(held, ids, strict=False)) if a != b), min(len(held), n))
        assert result.stats.reused_tokens == min(common, n - 1)
        text += "END"
    assert session.tokens.tolist()[:n] == ids


def test_capacity_ends_a_text_and_refuses_a_prompt(model):
    session = model.session(capacity=6)
    result = model.generate([1, 2, 3, 4], session=session)
    assert len(result.tokens) == 3 and result.finish_reason == "capacity"
    with pytest.raises(CapacityError, match="7 tokens, more than the session's capacity of 6"):
        model.generate([1] * 7, session=session)
    with pytest.raises(CapacityError):
        model.generate([1] * 513)
    whole = model.generate([1] * 510, max_tokens=100)
    assert len(whole.tokens) == 3 and whole.finish_reason == "capacity"


def test_log_probs_of_the_tokens(model):
    result = model.generate([1, 2, 3], max_tokens=4, logprobs=3)
    logits = model.logits([1, 2, 3, *result.tokens])[2:-1].astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for row, entry, token in zip(log_probs, result.logprobs, result.tokens, strict=True):
        assert entry.token == token and entry.log_prob == pytest.approx(row[token], abs=1e-5)
        assert [t for t, _ in entry.top] == np.argsort(-row, kind="stable")[:3].tolist()
    assert model.generate([1, 2, 3], max_tokens=4).logprobs is None
    assert len(model.generate([1, 2, 3], max_tokens=1, logprobs=1000).logprobs[0].top) == 300


@pytest.mark.parametrize(
    "options", [dict(), dict(temperature=1.5, seed=3), dict(stop="a"), dict(stop=["ab", "e"]), dict(max_tokens=0)]
)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_pieces_of_a_stream_make_the_text(model, prompt, options):
    options = dict(max_tokens=40) | options
    stream, pieces = model.stream(prompt, **options), []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            result = end.value
            break
    want = model.generate(prompt, **options)
    assert "".join(pieces) == want.text == result.text
    assert result.tokens == want.tokens and all(pieces[:-1])
    assert [token for piece in pieces for token in piece.tokens] == want.tokens
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [want.finish_reason]


def test_tokens_alone_are_streamed_as_they_come(tmp_path):
    plain = fd.load(write(tmp_path / "m", files={}))
    pieces = list(plain.stream([1, 2, 3], max_tokens=5, logprobs=2))
    want = plain.generate([1, 2, 3], max_tokens=5, logprobs=2)
    assert [piece.tokens for piece in pieces] == [[token] for token in want.tokens] and not any(pieces)
    assert [entry for piece in pieces for entry in piece.logprobs] == want.logprobs


def test_tokens_alone_need_no_tokenizer(tmp_path):
    loaded = fd.load(write(tmp_path / "m", files={}))
    result = loaded.generate([1, 2, 3], max_tokens=5)
    assert len(result.tokens) == 5 and result.text == ""
    for call in (
        lambda: loaded.generate("text"),
        lambda: loaded.score("text"),
        lambda: loaded.generate([1], stop="x"),
        lambda: loaded.tokenizer,
    ):
        with pytest.raises(TextError, match=r"tokenizer\.json"):
            call()


@pytest.mark.parametrize(
    "prompt, options",
    [
        ([300], {}), ([-1], {}), ([1.5], {}), (None, {}), (5, {}), ([[], 5], {}), ([[300], []], {}), ([None], {}),
        ([1], dict(max_tokens=-1)), ([1], dict(max_tokens=1.5)), ([1], dict(min_tokens=-1)),
        ([1], dict(temperature=-1.0)), ([1], dict(temperature=float("nan"))), ([1], dict(top_k=-1)), ([1], dict(top_p=0.0)), ([1], dict(top_p=2)),
        ([1], dict(min_p=-0.1)), ([1], dict(repetition_penalty=0)), ([1], dict(frequency_penalty=2.5)), ([1], dict(presence_penalty=-3)), ([1], dict(seed=-1)), ([1], dict(seed=1.5)),
        ([1], dict(logit_bias={300: 1.0})), ([1], dict(logit_bias={1: "a"})), ([1], dict(logit_bias=[1])),
        ([1], dict(allowed=[])), ([1], dict(allowed=[300])), ([1], dict(allowed=np.ones(299, bool))), ([1], dict(allowed=np.ones((1, 300), bool))), ([1], dict(allowed=5)),
        ([1], dict(allowed=np.zeros(300, bool))), ([1], dict(allowed=np.ones(300, int))), ([1], dict(allowed=[0, 1] * 150)), ([1], dict(allowed=np.ma.array([1, 2], mask=[True, False]))), ([1], dict(allowed=[True] * 300)), ([1], dict(allowed=np.ones(300))), ([1], dict(stop="")), ([1], dict(stop=[1])), ([1], dict(stop=5)),
        ([1], dict(stop_token_ids=[300])), ([1], dict(stop_token_ids=5)), ([1], dict(stop_token_ids="x")), ([1], dict(logprobs=-1)),
        ([1], dict(grammar=5)), ([1], dict(grammar="root ::= a")), ([1], dict(grammar=fd.constraint.Regex)), ([1], dict(grammar=fd.constraint.Regex("a"), stop="a")),
        ([1], dict(logprobs=5000)), ([1], dict(session=5)), ([1], dict(decoder=5)), (["a", "b"], dict(session=5)),
    ],
)  # fmt: skip
def test_generate_refuses(model, prompt, options):
    with pytest.raises(ArgumentError):
        model.generate(prompt, **options)


def test_a_session_of_another_model_or_in_use_is_refused(model, folder):
    with pytest.raises(ArgumentError, match="another model"):
        model.generate([1], session=fd.load(folder).session())
    with pytest.raises(ArgumentError, match="list"):
        model.generate(["a", "b"], session=model.session())
    session = model.session()
    with session.entered(), pytest.raises(BusyError):
        model.generate([1], session=session)
    with pytest.raises(ArgumentError, match="one prompt"):
        model.stream(["a", "b"])


def test_a_stream_neither_begins_nor_goes_on_while_a_text_is_written_in_its_session(model):
    session = model.session()
    begun = model.stream([1], session=session)
    next(begun)
    with session.entered("text"):
        for call in (begun.__next__, lambda: model.stream([1], session=session)):
            with pytest.raises(BusyError):
                call()
    assert model.generate([1], max_tokens=3, session=session).tokens == model.generate([1], max_tokens=3).tokens


@pytest.mark.parametrize(
    "name, meant",
    [
        ("max_new_tokens", "max_tokens"), ("max_length", "max_tokens"), ("n_predict", "max_tokens"), ("maxtokens", "max_tokens"), ("temp", "temperature"),
        ("temprature", "temperature"), ("do_sample", "temperature: 0 takes"), ("repeat_penalty", "repetition_penalty"), ("num_return_sequences", "n"),
        ("stop-sequences", "stop"), ("Top_K", "top_k"), ("eos_token_id", "stop_token_ids"), ("response_format", r"grammar=constraint.JsonSchema\("), ("guided_regex", r"grammar=constraint.Regex\("), ("gbnf", "grammar=constraint.Gbnf"),
        ("Grammar", r"grammar\?"), ("draft_model", r"decoder=Speculative\(ModelDrafter\("),
    ],
)  # fmt: skip
def test_a_wrong_option_is_told_what_was_meant(model, name, meant):
    with pytest.raises(ArgumentError, match=rf"^generate\(\) has no option '{name}': did you mean {meant}"):
        model.generate([1], **{name: 1})
    for call, argument in ((model.stream, [1]), (model.chat, [{"role": "user", "content": "a"}])):
        with pytest.raises(ArgumentError, match=rf"^{call.__name__}\(\) has no option '{name}'"):
            call(argument, **{name: 1})


def test_an_option_far_from_all_is_told_which_there_are(model):
    with pytest.raises(ArgumentError, match=r"no option 'zzz'; there are max_tokens, min_tokens, .*, decoder, n$"):
        model.generate([1], zzz=1)
    with pytest.raises(ArgumentError) as caught:
        model.generate([1], **{"x" * 10**6: 1})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [8, "b", [2], None])
def test_only_the_prompt_is_given_by_position(model, value):
    for call in (model.generate, model.stream):
        with pytest.raises(
            ArgumentError, match=rf"{call.__name__}\(\) takes one prompt by position and options by name"
        ):
            call("a", value)


def test_the_options_have_one_home():
    """Types for checkers, defaults, help() and the docstring name the same options."""
    assert Options.__annotations__.keys() == DEFAULTS.keys()
    of_fill = {name: default for name, default in DEFAULTS.items() if name in FillOptions.__annotations__}
    shown = list(inspect.signature(fd.Model.generate).parameters.values())
    assert [each.name for each in shown] == ["self", "prompt", "n", *DEFAULTS]
    assert all(each.kind is each.KEYWORD_ONLY and each.default == DEFAULTS[each.name] for each in shown[3:])
    assert "temperature: 'float | None' = 0.0" in str(inspect.signature(fd.Model.stream))
    assert list(inspect.signature(fd.Model.fill).parameters) == ["self", "text", *of_fill]
    for function, options in ((fd.Model.generate, DEFAULTS), (fd.Model.fill, of_fill)):
        text = inspect.getdoc(function)
        for name, default in options.items():
            assert re.search(rf"^{name} : .*, default {re.escape(repr(default))}$", text, re.MULTILINE), name
    names = {*DEFAULTS, "n"}
    assert not names & set(SYNONYMS)
    first_words = {re.match(r"\w+", meant)[0] for meant in SYNONYMS.values()}
    assert first_words <= names | {"model", "load", "its", "the"}


def test_None_is_the_default_of_every_option(model):
    want = model.generate("the ", max_tokens=9)
    nothing = dict.fromkeys(DEFAULTS) | {"max_tokens": 9}
    assert model.generate("the ", **nothing).tokens == want.tokens
    assert model.generate("the ", temperature=1.0, seed=None).tokens == model.generate("the ", temperature=1.0).tokens


# ---- several texts of one prompt ----


@settings(max_examples=6)
@given(n=st.sampled_from([1, 2, 5, 33]), more=st.integers(0, 3), seed=st.integers(0, 2**64 - 1))
def test_texts_of_one_prompt_are_the_same_however_many(model, n, more, seed):
    chance = dict(max_tokens=3, temperature=1.5, seed=seed)
    texts = model.generate("the ", n=n, **chance)
    assert [one.tokens for one in model.generate("the ", n=n + more, **chance)][:n] == [one.tokens for one in texts]
    assert texts[0].tokens == model.generate("the ", **chance).tokens
    last = task(model, "the ", resolved("generate", chance), sequence=n - 1)  # alone in its pass
    assert write_tasks([last])[0].tokens == texts[-1].tokens
    if n > 4:
        assert len({tuple(one.tokens) for one in texts}) > 1


def test_texts_of_one_prompt_without_chance_are_equal_and_warned_of(model):
    with pytest.warns(UserWarning, match="n=3 texts at temperature 0 are all equal") as caught:
        texts = model.generate("the ", n=3, max_tokens=4)
    assert caught[0].filename == __file__
    assert [one.tokens for one in texts] == [model.generate("the ", max_tokens=4).tokens] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(model.generate("the ", n=1, max_tokens=4)) == 1


@pytest.mark.parametrize(
    "prompt, changes, text",
    [
        ("a", dict(n=0), r"n must lie in 1\.\."), ("a", dict(n=True), "n must be an integer"), ("a", dict(n="2"), "n must be an integer"),
        (["a"], dict(n=2), "n is for one prompt"), ("a", dict(n=2, session=5), "session serves one text"),
    ],
)  # fmt: skip
def test_n_is_checked(model, prompt, changes, text):
    with pytest.raises(ArgumentError, match=text):
        model.generate(prompt, temperature=1.0, **changes)
    with pytest.raises(ArgumentError, match="no option 'n'"):
        model.stream("a", n=2)


# ---- nothing is said where nothing is wrong ----


def test_sound_models_are_read_written_and_asked_in_silence(model, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in ("listops-mdlm", model.folder):
            loaded = fd.load(folder, threads=1)
            loaded.generate("copy 1 2 ->" if folder == "listops-mdlm" else "the ", max_tokens=4)
            quantize_folder(loaded.folder, tmp_path / "q8", "q8", overwrite=True)
            fd.load(tmp_path / "q8", threads=1).logits([1, 2, 3])


# ---- what they look like, and how they travel ----


def test_a_model_tells_what_it_is(model, tmp_path):
    assert repr(model) == "<Model 'plain': llama, 100,160 parameters, f32, 512 positions, 2 threads>"
    weights = made("plain", "q8")
    weights["lm_head.weight"] = quantize_tensor(made()["lm_head.weight"], "q4")
    mixed = fd.load(write(tmp_path / "mixed", weights=weights), threads=1)
    assert "q8 and q4, 512 positions, 1 thread>" in repr(mixed)


def test_a_generation_tells_how_it_begins_and_ended(model):
    text = model.generate("the ", max_tokens=40)
    assert re.fullmatch(r"<Generation '.*', 40 tokens, length, \d+ tokens/s>", repr(text)), repr(text)
    assert repr(fd.Generation("Hi", [5], "stop")) == "<Generation 'Hi', 1 token, stop>"
    assert len(repr(fd.Generation("x" * 10**6))) < 150


def test_a_model_is_not_pickled_and_a_text_is(model):
    with pytest.raises(UnsupportedError, match=r"a Model is not pickled: .* load '.*plain' again"):
        pickle.dumps(model)
    assert copy.copy(model) is model and copy.deepcopy([model])[0] is model
    for options_given in (dict(logprobs=2), dict(decoder=fd.Jacobi(trace=True, adaptive=False))):
        text = model.generate("the ", max_tokens=5, **options_given)
        assert pickle.loads(pickle.dumps(text)) == text


def test_no_prompts_give_no_texts(model):
    assert model.generate([]) == []


def test_prompts_come_in_any_sequence(model):
    want = [one.tokens for one in model.generate(PROMPTS, max_tokens=3)]
    for prompts in (tuple(PROMPTS), deque(PROMPTS)):
        assert [one.tokens for one in model.generate(prompts, max_tokens=3)] == want
    for single in (range(5, 8), (5, 6, 7), np.array([5, 6, 7])):
        assert model.generate(single, max_tokens=3).tokens == want[3]


def test_a_second_text_in_a_session_ends_the_first_one(model):
    """Two texts in one cache would read each other's tokens."""
    session = model.session(capacity=64)
    first = model.stream([1, 2], session=session, max_tokens=20)
    next(first, None)
    want = model.generate([3, 4], max_tokens=5).tokens
    assert model.generate([3, 4], max_tokens=5, session=session).tokens == want
    with pytest.raises(BusyError, match="another text"):
        list(first)


# ---- one text of several fails alone ----


def test_a_text_of_a_list_fails_alone(model):
    """What cannot begin and what fails on the way, among more than share a pass; the rest is what it is without them."""

    def guesses(text, budget):
        if len(text) > 5 and text[0] == 9:
            raise LookupError("a drafter that fails")
        return [1] * budget

    prompts = [[1 + n % 7, n % 5] for n in range(40)]
    options = dict(max_tokens=9, decoder=fd.Speculative(fd.CallableDrafter(guesses)))
    want = [one.tokens for one in model.generate(prompts, **options)]
    wrong = {3: [], 7: [1] * 600, 20: [300], 33: [9, 1], 39: 5}
    with pytest.raises(
        PartialError, match=r"5 of 40 requests failed .* number 3: ArgumentError: the prompt is empty"
    ) as raised:
        model.generate([wrong.get(n, prompt) for n, prompt in enumerate(prompts)], **options)
    results, errors = raised.value.results, raised.value.errors
    assert {n: type(error) for n, error in errors.items()} == {
        3: ArgumentError, 7: CapacityError, 20: ArgumentError, 33: LookupError, 39: ArgumentError,
    }  # fmt: skip
    for n, result in enumerate(results):
        assert result.error is errors.get(n) and (result.finish_reason == "error") == (n in wrong)
        if n not in wrong:
            assert result.tokens == want[n]
    assert results[33].tokens == model.generate([9, 1], max_tokens=len(results[33].tokens)).tokens != []
    assert results[33].text == decoded(model, results[33].tokens)


def test_what_is_wrong_with_every_text_is_raised_as_it_is(model):
    for wrong, error in ((dict(max_tokens=-1), ArgumentError), (dict(decoder="no"), ArgumentError)):
        with pytest.raises(error):
            model.generate(["the ", "abc"], **wrong)
    with pytest.raises(ArgumentError, match="the prompt is empty"):
        model.generate([[]])


def test_a_stream_raises_the_error_that_ended_it(model):
    def guesses(text, budget):
        if len(text) > 6:
            raise LookupError("a drafter that fails")
        return [1] * budget

    pieces = []
    with pytest.raises(LookupError, match="a drafter that fails"):
        for piece in model.stream([65, 66], max_tokens=20, decoder=fd.Speculative(fd.CallableDrafter(guesses))):
            pieces.append(piece)
    assert pieces


def test_a_session_is_kept_in_a_file(model, tmp_path):
    session = model.session()
    first = model.generate("the ", max_tokens=5, session=session)
    session.save(tmp_path / "conversation")
    text = "the " + first.text + "and "
    again = model.load_session(tmp_path / "conversation")
    results = [model.generate(text, max_tokens=9, session=one, logprobs=1) for one in (session, again)]
    assert results[0].tokens == results[1].tokens and results[0].logprobs == results[1].logprobs
    assert results[1].stats.reused_tokens == results[0].stats.reused_tokens > 0
