"""The Dream plan against a dense model: Qwen2's biases, all rows seen, and what its sessions say of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.models import plan_for
from fastdistill.runtime.network import Network
from tests.dense import TOLERANCE, dense
from tests.small_models import dream_config, tensors
from tests.strategies import LOGITS, token_lists

VARIANTS = {
    "plain": {},
    "tied": dict(tie_word_embeddings=True),
    "one head a key": dict(num_key_value_heads=4, rope_theta=1e6),
}


@settings(max_examples=40)
@given(
    variant=st.sampled_from(list(VARIANTS)),
    blocks=st.lists(token_lists(1, 6), min_size=1, max_size=3),
    full=st.booleans(),
)
def test_nodes_are_the_dense_model(isa, variant, blocks, full):
    """All rows in one node, or each block in its own, after those before it."""
    config = dream_config(**VARIANTS[variant])
    plan = plan_for(config)
    weights = tensors(plan)
    assert weights["model.layers.0.self_attn.q_proj.bias"].shape == (64,)
    text = [token for block in blocks for token in block]
    nodes = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks]) * (not full)
    want = dense(config.raw, weights, text, list(range(len(text))), nodes[:, None] >= nodes[None, :])
    session = Network(plan, weights, threads=2).session(1, max_rows=20)
    got = session.forward(text, nodes=nodes, parents=range(-1, int(nodes.max())), read=LOGITS).logits
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


def test_the_plan_and_its_sessions_say_how_the_model_predicts():
    plan = plan_for(dream_config())
    for facts in (plan, Network(plan, tensors(plan)).session(8)):
        assert (facts.causal, facts.mask_token, facts.logit_shift) == (False, 299, 1)
    assert plan_for(dream_config(vocab_size=152064, mask_token_id=None)).mask_token == 151666


def test_biases_are_on_queries_keys_and_values_alone():
    biased = {name.split(".")[-2] for name in plan_for(dream_config()).weights if name.endswith("bias")}
    assert biased == {"q_proj", "k_proj", "v_proj"}


@pytest.mark.parametrize("token", [300, None])
def test_a_mask_that_is_no_token_is_refused(token):
    with pytest.raises(CheckpointError, match="mask_token_id"):
        plan_for(dream_config(mask_token_id=token))


def test_another_activation_is_refused():
    with pytest.raises(UnsupportedError, match="hidden_act"):
        plan_for(dream_config(hidden_act="quick_gelu"))
