"""Beside transformers and llama.cpp: the same tokens from the same weights, and no more lost to quantisation.

Peers are never dependencies: `pip install '.[bench]'`, then `pytest -m peers`.  FASTDISTILL_GGUF names the file that the
real model was converted from; without it the comparison with llama.cpp is skipped.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import fastdistill as fd
from bench.lib.models import passage
from bench.lib.peers import REASON, missing, transformers_greedy, transformers_logits, transformers_model
from bench.studies import quality
from fastdistill.checkpoint import read_config
from fastdistill.decode import generate
from fastdistill.models import plan_for

pytestmark = pytest.mark.peers

torch = pytest.importorskip("torch", reason=REASON.format("torch"))
transformers = pytest.importorskip("transformers", reason=REASON.format("transformers"))
AutoModelForCausalLM, LlamaConfig = transformers.AutoModelForCausalLM, transformers.LlamaConfig
GPT2Config = transformers.GPT2Config

PROMPTS = {
    "chat": "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "chat with a system": "<|im_start|>system\nYou answer in one sentence.<|im_end|>\n<|im_start|>user\nWhat do bees do in winter?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "code": "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "list": "Five things to take to the mountains:\n1. A map\n2.",
    "story": "Once upon a time, in a lighthouse at the end of the world, there lived",
    "digits": "3.14159265358979 2.71828182845904 1.41421356237309 1, 1, 2, 3, 5, 8, 13, 21,",
    "CJK": "东京是日本的首都。北京是",
    "table": "| city | country |\n|---|---|\n| Paris | France |\n| Rome | Italy |\n|",
    "one token": "The",
    "long": passage(),
}
NEW_TOKENS = 64
TIE = 1e-3  # transformers' own lead below which its choice is not a choice


def assert_same_tokens(ours: list[int], theirs: list[int], leads: list[float], tie: float) -> None:
    """Equal up to where the other side itself could not tell the first token from the second."""
    assert len(ours) == len(theirs)
    for i, (token, other, lead) in enumerate(zip(ours, theirs, leads, strict=True)):
        if token != other:
            assert lead <= tie, f"token {i} is {token}, transformers' {other} leads by {lead:.2g}"
            return


@cache
def float32_pair(folder: Path):
    return fd.load(folder, format="f32"), transformers_model(folder)


@pytest.mark.model
@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "gemma3-270m"])
def test_greedy_tokens_of_the_dequantised_weights_equal_transformers(real_model, model, name):
    ours, theirs = float32_pair(real_model(model))
    ids = ours.tokenizer.encode(PROMPTS[name])
    expected, leads = transformers_greedy(theirs, ids, NEW_TOKENS)
    session = ours.session(capacity=len(ids) + NEW_TOKENS)
    assert_same_tokens(generate(session, ids, NEW_TOKENS).tokens, expected, leads, TIE)


@pytest.mark.model
def test_quantisation_costs_no_more_than_llama_cpp_s(smollm2):
    gguf = os.environ.get("FASTDISTILL_GGUF")
    if not gguf:
        pytest.skip("FASTDISTILL_GGUF names no GGUF file")
    if reason := missing("llama_cpp"):
        pytest.skip(reason)
    found = quality.divergences(smollm2, Path(gguf), threads=2)
    assert quality.within_bound(found["fastdistill"], found["llama.cpp"]), {
        name: values.mean() for name, values in found.items()
    }


# ---- small random models: every field of the config that changes the computation ----

SIZES = dict(
    vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
LLAMA3 = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
CONFIGS = {
    "untied head": LlamaConfig(**SIZES),
    "tied head": LlamaConfig(**SIZES | dict(tie_word_embeddings=True)),
    "one key head": LlamaConfig(**SIZES | dict(num_key_value_heads=1)),
    "a key head each": LlamaConfig(**SIZES | dict(num_key_value_heads=4)),
    "attention biases": LlamaConfig(**SIZES, attention_bias=True),
    "all biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "head_dim of its own": LlamaConfig(**SIZES, head_dim=24),
    "other theta": LlamaConfig(**SIZES, rope_parameters=dict(rope_type="default", rope_theta=500.0)),
    "linear rope": LlamaConfig(**SIZES, rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    "llama3 rope": LlamaConfig(**SIZES, rope_parameters=LLAMA3 | dict(rope_theta=10000.0)),
    "mistral": transformers.MistralConfig(**SIZES, head_dim=16, sliding_window=None),
    "mistral within its window": transformers.MistralConfig(**SIZES, head_dim=16, sliding_window=128),
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def save_random(folder: Path, config, dtype: str = "f32", **options) -> None:
    """A model with random weights that keep activations near one, biases and norms included."""
    chance = torch.Generator().manual_seed(7)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            spread = weight.shape[1] ** -0.5 if weight.ndim == 2 and "embed" not in name else 0.5
            weight.copy_(torch.randn(weight.shape, generator=chance) * spread + name.endswith("norm.weight"))
    model.to(DTYPES[dtype]).save_pretrained(folder, **options)


def tolerance(folder: Path, positions: int, logits: np.ndarray) -> float:
    """How far two float32 engines may be apart.

    Every logit has gone through the roundings of one dot product after another, and through angles of up to `positions`
    radians, each rounding 2^-24 of the values' size.  They are independent, so they add up to the root of their number,
    of two engines to that of twice as many; four times it leaves room for the largest of 30000 logits.
    """
    plan = plan_for(read_config(folder / "config.json"))
    roundings = positions + sum(weight.shape[1] for weight in plan.weights.values() if len(weight.shape) == 2)
    return 4 * float(np.sqrt(2 * roundings)) * 2.0**-24 * float(np.abs(logits).max())


def assert_equals_transformers(folder: Path) -> None:
    ours = fd.load(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = np.random.default_rng(3).integers(0, ours.vocab_size, 100).tolist()
    session = ours.session(capacity=128, cache="f32")
    logits = session.forward(ids, read=fd.Read(logits=True)).logits
    expected = transformers_logits(theirs, ids)
    allowed = tolerance(folder, len(ids), expected)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=allowed)
    tokens, leads = transformers_greedy(theirs, ids, 24)
    assert_same_tokens(generate(session, ids, 24).tokens, tokens, leads, tie=2 * allowed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONFIGS)
def test_small_models_equal_transformers(tmp_path, name, dtype):
    save_random(tmp_path, CONFIGS[name], dtype)
    assert_equals_transformers(tmp_path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sharded_folders_equal_transformers(tmp_path, dtype):
    save_random(tmp_path, CONFIGS["all biases"], dtype, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_equals_transformers(tmp_path)


@pytest.mark.parametrize("kind_key", ["type", "rope_type"])
@pytest.mark.parametrize("name", ["other theta", "linear rope", "llama3 rope"])
def test_old_spellings_mean_the_same(tmp_path, name, kind_key):
    save_random(tmp_path, CONFIGS[name], "bf16")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = {kind_key: rope.pop("rope_type"), **rope} if name != "other theta" else None
    path.write_text(json.dumps(config))
    assert_equals_transformers(tmp_path)


# ---- beam search ----

BEAMS = {
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(
        vocab_size=300, n_positions=256, n_embd=64, n_layer=3, n_head=4, bos_token_id=None, eos_token_id=None
    ),
}
ENDS = {"none": [], "one": [17], "several": list(range(0, 300, 20)), "many": list(range(0, 300, 4))}
PROCESSED = [
    dict(repetition_penalty=1.3),
    dict(min_tokens=5),
    dict(logit_bias={40: 3.0, 41: -np.inf}),
    dict(allowed=range(50, 250)),
    dict(no_repeat_ngram_size=1),
    dict(no_repeat_ngram_size=2),
    dict(no_repeat_ngram_size=3, repetition_penalty=0.5),
]
OF_TRANSFORMERS = {
    "min_tokens": lambda count: {"min_new_tokens": count},
    "logit_bias": lambda bias: {"sequence_bias": [[[token], value] for token, value in bias.items()]},
    "allowed": lambda ids: {"prefix_allowed_tokens_fn": lambda *_: list(ids)},
    "repetition_penalty": lambda penalty: {"repetition_penalty": penalty},
    "no_repeat_ngram_size": lambda size: {"no_repeat_ngram_size": size},
}


@pytest.fixture(scope="module", params=BEAMS)
def beams_pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("beams")
    save_random(folder, BEAMS[request.param])
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return fd.load(folder), theirs.eval()


def assert_same_search(pair, prompt, ends, search, n=3, most=24, **processed):
    ours, theirs = pair
    found = ours.generate(prompt, n=n, max_tokens=most, stop_token_ids=ends, decoder=search, **processed)
    translated = {
        key: value for name, given in processed.items() for key, value in OF_TRANSFORMERS[name](given).items()
    }
    expected = theirs.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=most, eos_token_id=ends or None, pad_token_id=299,
        num_beams=search.num_beams, length_penalty=search.length_penalty, early_stopping=search.early_stopping,
        num_return_sequences=n, return_dict_in_generate=True, output_scores=True, **translated,
    )  # fmt: skip
    assert len(found) == n
    sequences, scores = expected.sequences[:, len(prompt) :].tolist(), expected.sequences_scores.numpy()
    np.testing.assert_allclose([text.score for text in found], scores, rtol=1e-5, atol=1e-4)
    for text in found:  # those whose scores are one in float32 have no order
        tied = [each for each, score in zip(sequences, scores, strict=True) if np.isclose(score, text.score, rtol=1e-6)]
        assert [*text.tokens, *[299] * (len(tied[0]) - len(text.tokens))] in tied


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("early", [False, True, "never"])
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
def test_beam_search_equals_transformers(beams_pair, penalty, early, ends):
    for seed in range(2):
        prompt = np.random.default_rng(seed).integers(0, 300, 4 + 5 * seed).tolist()
        assert_same_search(beams_pair, prompt, ENDS[ends], fd.BeamSearch(4, penalty, early))


@pytest.mark.parametrize("processed", PROCESSED, ids=str)
def test_beam_search_with_processors_equals_transformers(beams_pair, processed):
    for seed in range(3):
        prompt = np.random.default_rng(seed).integers(0, 300, 6).tolist()
        assert_same_search(beams_pair, prompt, ENDS["several"], fd.BeamSearch(5, 1.0, "never"), 5, **processed)
