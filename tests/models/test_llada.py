"""The llada plan against a dense model, and the embedded model against what torch computed of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.checkpoint import Config
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.models import plan_for
from fastdistill.runtime import forward_many
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.network import Network
from fastdistill.text.stream import TextStream
from tests.dense import TOLERANCE, dense
from tests.small_models import llada_config, tensors
from tests.strategies import LOGITS, bits, token_lists

# What LLaDA calls the modules of a Llama.
MODULES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "post_attention_layernorm": "ff_norm",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}
OUTSIDE = {"model.embed_tokens": "wte", "model.norm": "ln_f", "lm_head": "ff_out"}
KEYS = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "tie_word_embeddings": "weight_tying",
}
VARIANTS = {
    "plain": {},
    "grouped": dict(n_kv_heads=2, rms_norm_eps=1e-3),
    "one key head": dict(multi_query_attention=True, rope_theta=500000.0),
    "ratio": dict(mlp_hidden_size=None, mlp_ratio=3),
    "tied": dict(weight_tying=True, embedding_size=96),
    "biased": dict(include_bias=True, bias_for_layer_norm=False),
    "biased and tied": dict(include_bias=True, bias_for_layer_norm=False, weight_tying=True),
    "biased q, k, v": dict(include_qkv_bias=True, n_kv_heads=3),
}
GOLDENS = json.loads(Path(__file__).parents[1].joinpath("goldens/listops_mdlm.json").read_text("utf-8"))
MASK = 1  # of the embedded model


def made(variant: str) -> tuple[Config, dict, Network]:
    config = llada_config(**VARIANTS[variant])
    plan = plan_for(config)
    weights = tensors(plan)
    return config, weights, Network(plan, weights, threads=2)


def dense_logits(config: Config, weights: dict, tokens: list[int], sees: np.ndarray) -> np.ndarray:
    raw = {"rms_norm_eps": 1e-5} | {ours: config.raw[key] for ours, key in KEYS.items() if key in config.raw}
    raw["num_key_value_heads"] = config.raw.get("n_kv_heads") or (
        1 if config.raw.get("multi_query_attention") else raw["num_attention_heads"]
    )
    theirs = {ours: f"model.transformer.{name}" for ours, name in OUTSIDE.items()} | {
        f"model.layers.{i}.{ours}": f"model.transformer.blocks.{i}.{name}"
        for i in range(raw["num_hidden_layers"])
        for ours, name in MODULES.items()
    }
    renamed = {
        f"{ours}.{kind}": weights[f"{name}.{kind}"]
        for ours, name in theirs.items()
        for kind in ("weight", "bias")
        if f"{name}.{kind}" in weights
    }
    assert len(renamed) == len(weights)
    return dense(raw, renamed, tokens, list(range(len(tokens))), sees)


@settings(max_examples=40)
@given(variant=st.sampled_from(list(VARIANTS)), text=token_lists(1, 20))
def test_one_node_is_the_dense_model_with_all_rows_seen(isa, variant, text):
    config, weights, network = made(variant)
    want = dense_logits(config, weights, text, np.ones((len(text), len(text)), bool))
    session = network.session(1, max_rows=20)
    got = session.forward(text, nodes=[0] * len(text), parents=[-1], read=LOGITS).logits
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


@settings(max_examples=40)
@given(variant=st.sampled_from(list(VARIANTS)), blocks=st.lists(token_lists(1, 5), min_size=1, max_size=4))
def test_a_chain_of_nodes_is_the_dense_model_with_each_block_seeing_those_before(isa, variant, blocks):
    config, weights, network = made(variant)
    nodes = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    text = [token for block in blocks for token in block]
    want = dense_logits(config, weights, text, nodes[:, None] >= nodes[None, :])
    got = network.session(1, max_rows=20).forward(text, nodes=nodes, parents=range(-1, len(blocks) - 1), read=LOGITS)
    np.testing.assert_allclose(got.logits, want, atol=TOLERANCE)


def test_the_plan_and_its_sessions_say_how_the_model_predicts():
    _, _, network = made("plain")
    session = network.session(8)
    for facts in (network.plan, session):
        assert (facts.causal, facts.mask_token, facts.logit_shift) == (False, 89, 0)
    assert plan_for(llada_config(vocab_size=126464, mask_token_id=None)).mask_token == 126336


def test_a_tied_head_of_its_own_is_not_needed():
    plan = plan_for(llada_config(weight_tying=True, include_bias=True, bias_for_layer_norm=False))
    assert not [name for name in plan.weights if name.startswith("model.transformer.ff_out")]
    assert {"model.transformer.ff_out.weight", "model.transformer.ff_out.bias"} <= set(plan.ignored)


@pytest.mark.parametrize(
    "changes, key",
    [
        (dict(block_type="sequential"), "block_type"),
        (dict(block_type=None), "block_type"),
        (dict(activation_type="swiglu"), "activation_type"),
        (dict(activation_type="gelu"), "activation_type"),
        (dict(layer_norm_type="default"), "layer_norm_type"),
        (dict(layer_norm_type="gemma_rms"), "layer_norm_type"),
        (dict(layer_norm_with_affine=False), "layer_norm_with_affine"),
        (dict(rope=False), "rope"),
        (dict(rope=None), "rope"),
        (dict(alibi=True), "alibi"),
        (dict(attention_layer_norm=True), "attention_layer_norm"),
        (dict(input_emb_norm=True), "input_emb_norm"),
        (dict(scale_logits=True), "scale_logits"),
        (dict(include_bias=True), "bias_for_layer_norm"),
        (dict(bias_for_layer_norm=True), "bias_for_layer_norm"),
        (dict(rope_scaling={"rope_type": "yarn", "factor": 2.0}), "rope_type"),
    ],
)
def test_what_the_plan_cannot_do_is_refused_by_its_key(changes, key):
    with pytest.raises(UnsupportedError, match=rf"\b{key} "):
        plan_for(llada_config(**changes))


@pytest.mark.parametrize(
    "changes, key",
    [
        (dict(d_model=50), "d_model"),
        (dict(d_model="48"), "d_model"),
        (dict(n_heads=0), "n_heads"),
        (dict(n_kv_heads=4), "n_kv_heads"),
        (dict(n_kv_heads=2, multi_query_attention=True), "n_kv_heads"),
        (dict(n_layers="2"), "n_layers"),
        (dict(mlp_hidden_size=0), "mlp_hidden_size"),
        (dict(mlp_ratio=2.5), "mlp_ratio"),
        (dict(embedding_size=89), "embedding_size"),
        (dict(max_sequence_length=0), "max_sequence_length"),
        (dict(rms_norm_eps=-1.0), "rms_norm_eps"),
        (dict(weight_tying=1), "weight_tying"),
        (dict(mask_token_id=90), "mask_token_id"),
        (dict(mask_token_id=None), "mask_token_id"),
        (dict(mask_token_id=-1), "mask_token_id"),
        (dict(block_type=3), "block_type"),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_its_key(changes, key):
    with pytest.raises(CheckpointError, match=key):
        plan_for(llada_config(**changes))


# ---- the embedded model ----


@pytest.fixture(scope="module")
def listops():
    return fd.load("listops-mdlm", threads=2)


def test_it_is_found_by_name_from_anywhere_unless_a_folder_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = fd.load("listops-mdlm")
    assert (model.vocab_size, model.max_new_tokens, model.end_tokens) == (74, 10, frozenset({3}))
    (tmp_path / "listops-mdlm").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        fd.load("listops-mdlm")


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden["task"])
def test_it_says_what_torch_said(isa, listops, golden):
    logits = listops.logits([*golden["prompt_ids"], *[MASK] * 10])[15:]
    assert logits.argmax(axis=1).tolist() == golden["first_forward_argmax"]
    # Both computed in f32: each some hundred roundings of 2^-24 on logits of up to 32, and what is written has 5 decimals.
    allowed = 2 * 100 * 2.0**-24 * 32 + 5e-6
    np.testing.assert_allclose(logits[0], golden["logits_row_first_answer"], atol=allowed)
    np.testing.assert_allclose(logits[-1], golden["logits_row_last_answer"], atol=allowed)


def test_prompts_of_all_lengths_share_a_pass_in_the_bits_of_each_alone(isa, listops):
    prompts = [[*golden["prompt_ids"][: 15 - i], *[MASK] * (1 + i)] for i, golden in enumerate(GOLDENS)]
    prompts.append([*GOLDENS[0]["prompt_ids"], *[MASK] * 40])
    requests = [
        (listops.session(1, max_rows=64), Forward(ids, nodes=[0] * len(ids), parents=[-1], read=LOGITS))
        for ids in prompts
    ]
    for ids, rows in zip(prompts, forward_many(requests), strict=True):
        np.testing.assert_array_equal(bits(rows.logits), bits(listops.logits(ids)))


def test_rows_of_a_cached_prompt_are_rows_that_did_not_see_the_answer(listops):
    """Block-causal: the answer's rows see the prompt's, which were computed without them."""
    prompt, answer = GOLDENS[0]["prompt_ids"], [MASK] * 10
    nodes = [0] * len(prompt) + [1] * len(answer)
    want = listops.session(1, max_rows=64).forward(prompt + answer, nodes=nodes, parents=[-1, 0], read=LOGITS)
    session = listops.session(32)
    session.forward(prompt, nodes=[0] * len(prompt), parents=[-1], rows=())
    session.keep(range(len(prompt)))
    got = session.forward(answer, nodes=[0] * len(answer), parents=[-1], read=LOGITS)
    np.testing.assert_array_equal(bits(got.logits), bits(want.logits[len(prompt) :]))


def test_its_text_is_words(listops):
    text = "copy : ant bat _ _ _ _ _ _ | _ _ ->"
    ids = listops.tokenizer.encode(text)
    assert len(ids) == 14 and listops.tokenizer.decode(ids) == text
    assert listops.tokenizer.decode([2, 28, MASK, 29, 3, 3, 0]) == "ant bat"  # special tokens hidden
    stream = TextStream(listops.tokenizer)
    assert "".join([*map(stream.push, [28, MASK, 29, 3]), stream.finish()]) == "ant bat"


def test_a_model_that_is_not_causal_scores_nothing(listops):
    with pytest.raises(UnsupportedError, match="causal"):
        listops.score("copy : ant")
