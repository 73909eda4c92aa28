"""LLaDA-MoE and SDAR against a dense model: experts, norms of heads, blocks; which files are theirs, and what they may say."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.checkpoint import Config
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.models import plan_for
from tests.dense import TOLERANCE, dense
from tests.families import family_config, network
from tests.goldens.make_families import weights, write_folder
from tests.small_models import tensors
from tests.strategies import LOGITS, token_lists

NAMES = ("llada_moe", "llada_moe, a dense layer", "sdar", "sdar_moe")


@settings(max_examples=20)
@given(blocks=st.lists(token_lists(1, 6), min_size=1, max_size=3), full=st.booleans())
@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_the_dense_model(isa, name, blocks, full):
    """All rows in one node, or each block in its own, after those before it."""
    text = [token for block in blocks for token in block]
    nodes = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks]) * (not full)
    made = network(name)
    want = dense(
        family_config(name).raw, tensors(made.plan), text, list(range(len(text))), nodes[:, None] >= nodes[None, :]
    )
    got = made.session(1, max_rows=20).forward(text, nodes=nodes, parents=range(-1, int(nodes.max())), read=LOGITS)
    np.testing.assert_allclose(got.logits, want, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 4, 5, 23])
def test_logits_of_a_model_see_all_or_their_block_and_what_is_before_it(tmp_path, name, length):
    config = family_config(name)
    write_folder(tmp_path / "model", config)
    text = [(5 * i * i + i) % 82 for i in range(length)]
    blocks = np.arange(length) // (4 if name.startswith("sdar") else length)
    sees = blocks[:, None] >= blocks[None, :]
    want = dense(config.raw, weights(plan_for(config).stored), text, list(range(length)), sees)
    model = fd.load(tmp_path / "model", threads=2)
    np.testing.assert_allclose(model.logits(text), want, atol=TOLERANCE * np.abs(want).max())
    with pytest.raises(UnsupportedError, match="score needs a causal model"):
        model.score("no")


def attention_of(heads: int, kv_heads: int, size: int, hidden: int, normed: bool = True) -> dict[str, tuple[int, ...]]:
    rows = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
    linears = {f"self_attn.{part}_proj": (n, hidden) for part, n in rows.items()}
    norms = {f"self_attn.{part}_norm": (size,) for part in "qk" if normed}
    return linears | norms | {"self_attn.o_proj": (hidden, heads * size)}


def mlp_of(at: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {f"{at}.{part}_proj": (inner, hidden) for part in ("gate", "up")} | {f"{at}.down_proj": (hidden, inner)}


def experts_of(hidden: int) -> dict[str, tuple[int, ...]]:
    return {name: shape for i in range(6) for name, shape in mlp_of(f"mlp.experts.{i}", hidden, 20).items()} | {
        "mlp.gate": (6, hidden)
    }


LAYERS = {
    "llada_moe": [attention_of(4, 2, 12, 48) | experts_of(48)] * 2,
    "llada_moe, a dense layer": [
        attention_of(4, 2, 12, 48, normed=False) | mlp_of("mlp", 48, 50),
        attention_of(4, 2, 12, 48, normed=False) | experts_of(48) | mlp_of("shared_expert", 48, 12),
    ],
    "sdar": [attention_of(4, 2, 10, 44) | mlp_of("mlp", 44, 50)] * 2,
    "sdar_moe": [attention_of(4, 2, 14, 44) | experts_of(44)] * 2,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_holds_these_tensors(name):
    plan = plan_for(family_config(name))
    hidden = plan.hidden_size
    want = {"model.embed_tokens": (83, hidden), "model.norm": (hidden,), "lm_head": (83, hidden)}
    for i, layer in enumerate(LAYERS[name]):
        layer |= {f"{norm}_layernorm": (hidden,) for norm in ("input", "post_attention")}
        want |= {f"model.layers.{i}.{module}": shape for module, shape in layer.items()}
    assert plan.stored == {f"{module}.weight": shape for module, shape in want.items()}


def test_plans_and_their_sessions_say_how_the_models_predict():
    for name, block in (("llada_moe", 0), ("sdar", 4), ("sdar_moe", 4)):
        made = network(name)
        for facts in (made.plan, made.session(8)):
            assert (facts.causal, facts.block, facts.mask_token, facts.logit_shift) == (False, block, 82, 0)
    vast = dict(vocab_size=157184, num_hidden_layers=1, mask_token_id=None)
    assert plan_for(family_config("llada_moe", moe_layer_freq=[1], **vast)).mask_token == 156895
    for name in ("sdar", "sdar_moe"):
        assert plan_for(family_config(name, **vast)).mask_token == 151669
        assert plan_for(family_config(name, block_size=32)).block == 32


@pytest.mark.parametrize("names", [["LLaDAMoEModelLM"], ["LLaDAMoEModel"], ["Other", "LLaDAMoEModelLM"]])
def test_early_files_of_llada_moe_are_known_by_their_class(names):
    raw = dict(family_config("llada_moe").raw)
    said = plan_for(Config(raw | dict(model_type="llada", architectures=names)))
    assert said.architecture == "llada_moe" and said.weights.keys() == plan_for(Config(raw)).weights.keys()


@pytest.mark.parametrize("classes", [["LLaDAModelLM"], [], None, "LLaDAMoEModelLM", [["LLaDAMoEModelLM"], 3]])
def test_any_other_class_leaves_llada_what_it_is(classes):
    raw = dict(family_config("llada").raw) | dict(architectures=classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan_for(Config(raw)).architecture == "llada"


@pytest.mark.parametrize(
    "changes",
    [
        dict(norm_topk_prob=True), dict(moe_router_score_function="sigmoid"), dict(moe_router_enable_expert_bias=True),
        dict(router_num_group=8), dict(router_topk_group=4), dict(routed_scaling_factor=2.5), dict(clip_qkv=8.0),
        dict(is_causal=True),
    ],
    ids=str,
)  # fmt: skip
def test_what_llada_moe_does_not_compute_is_refused_by_name(changes):
    with pytest.raises(UnsupportedError, match=next(iter(changes))):
        plan_for(family_config("llada_moe", **changes))


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("llada_moe", dict(moe_layer_freq=[1]), "moe_layer_freq must be a list of 2"),
        ("llada_moe", dict(moe_layer_freq=None), "moe_layer_freq is missing"),
        ("llada_moe", dict(expert_intermediate_size=None), "expert_intermediate_size is missing"),
        ("llada_moe", dict(mask_token_id=83), "mask_token_id must be a token"),
        ("sdar", dict(block_size=0), "block_size must be an integer from 1"),
        ("sdar_moe", dict(mask_token_id=83), "mask_token_id must be a token"),
    ],
)
def test_what_cannot_be_is_refused(name, changes, reason):
    with pytest.raises(CheckpointError, match=reason):
        plan_for(family_config(name, **changes))


@pytest.mark.parametrize(
    "changes", [dict(use_sliding_window=True, sliding_window=8, max_window_layers=1), dict(is_causal=True)], ids=str
)
def test_sdar_sees_all_of_its_blocks(changes):
    with pytest.raises(UnsupportedError, match=next(iter(changes)).removeprefix("use_")):
        plan_for(family_config("sdar", **changes))
