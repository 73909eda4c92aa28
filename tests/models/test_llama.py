"""The llama plan against a dense model written independently."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint import Config
from fastdistill.errors import CheckpointError, FastDistillError, UnsupportedError
from fastdistill.models import plan_for
from fastdistill.models.rope import rotary
from tests.dense import TOLERANCE, dense
from tests.small_models import CONFIGS, config, network, tensors
from tests.strategies import LOGITS, token_lists, trees


def dense_logits(name: str, tokens: list[int], positions: list[int], sees: np.ndarray) -> np.ndarray:
    made = network(name)
    return dense(config(name).raw, tensors(made.plan), tokens, positions, sees)


names = st.sampled_from(list(CONFIGS))


@settings(max_examples=15)
@given(name=names, text=token_lists(1, 20))
def test_a_chain_is_the_dense_model(isa, name, text):
    n = len(text)
    want = dense_logits(name, text, list(range(n)), np.tri(n, dtype=bool))
    got = network(name).session(32).forward(text, read=LOGITS).logits
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


@settings(max_examples=15)
@given(name=names, context=token_lists(0, 8), tree=trees(10))
def test_a_tree_is_the_dense_model_with_each_row_seeing_its_path(name, context, tree):
    n, size = len(context), len(tree.tokens)
    sees = np.tri(n + size, dtype=bool)
    for row in range(size):
        sees[n + row, n:] = False
        sees[n + row, [n + ancestor for ancestor in tree.path(row)]] = True
    positions = [*range(n), *(n + len(tree.path(row)) - 1 for row in range(size))]
    want = dense_logits(name, context + tree.tokens, positions, sees)[n:]
    session = network(name).session(64)
    if context:
        session.prefill(context)
    got = session.forward(tree.tokens, parents=tree.parents, read=LOGITS).logits
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


@settings(max_examples=15)
@given(
    name=names,
    context=token_lists(0, 8),
    blocks=st.lists(token_lists(1, 4), min_size=1, max_size=3),
    branches=st.booleans(),
)
def test_blocks_are_the_dense_model_with_rows_of_one_node_seeing_each_other(name, context, blocks, branches):
    """A chain of blocks, or branches of one context."""
    n, node_of = len(context), [number for number, block in enumerate(blocks) for _ in block]
    sees = np.tri(n + len(node_of), dtype=bool)
    for i, own in enumerate(node_of):
        for j, other in enumerate(node_of):
            sees[n + i, n + j] = own == other or (not branches and other < own)
    starts = [0] * len(blocks) if branches else np.cumsum([0, *map(len, blocks[:-1])]).tolist()
    positions = [
        *range(n),
        *(n + start + i for start, block in zip(starts, blocks, strict=True) for i in range(len(block))),
    ]
    flat = [token for block in blocks for token in block]
    want = dense_logits(name, context + flat, positions, sees)[n:]
    session = network(name).session(64)
    if context:
        session.prefill(context)
    parents = [-1] * len(blocks) if branches else [number - 1 for number in range(len(blocks))]
    got = session.forward(flat, nodes=node_of, parents=parents, read=LOGITS).logits
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


@settings(max_examples=15)
@given(name=names, context=token_lists(3, 10), data=st.data())
def test_replacing_is_the_dense_model_with_the_replaced_rows_hidden(name, context, data):
    """Rows behind the replaced ones keep what they have read; rows after `keep` see the new ones in their place."""
    n = len(context)
    start = data.draw(st.integers(0, n - 1))
    end = data.draw(st.integers(start + 1, n))
    new = data.draw(token_lists(end - start, end - start))
    sees = np.tri(n + len(new) + 1, dtype=bool)
    sees[n:, start:end] = False
    want = dense_logits(name, [*context, *new, 5], [*range(n), *range(start, end), n], sees)
    session = network(name).session(64)
    session.prefill(context)
    np.testing.assert_allclose(
        session.forward(new, replace=(start, end), read=LOGITS).logits, want[n:-1], atol=TOLERANCE
    )
    session.keep(range(len(new)))
    np.testing.assert_allclose(session.forward([5], read=LOGITS).logits, want[-1:], atol=TOLERANCE)


def test_a_long_context_is_the_dense_model(isa):
    """Over two borders of 128 keys, in one forward, and the last row again on its own, split over keys."""
    text = np.random.default_rng(1).integers(0, 77, 260).tolist()
    want = dense_logits("odd", text, list(range(260)), np.tri(260, dtype=bool))
    session = network("odd").session(260, max_rows=260)
    np.testing.assert_allclose(session.forward(text, read=LOGITS).logits, want, atol=TOLERANCE)
    session.truncate(259)
    np.testing.assert_allclose(session.forward(text[-1:], read=LOGITS).logits, want[-1:], atol=TOLERANCE)


# ---- rope ----


def inverse_frequencies(config: Config, head_dim: int) -> np.ndarray:
    return rotary(config.section("rope_parameters"), head_dim, 512).inverse_frequencies


def rope_config(**rope) -> Config:
    return config(rope_scaling=rope, head_dim=16) if rope else config(head_dim=16)


def test_plain_rope_frequencies():
    want = [10000.0 ** (-2 * i / 16) for i in range(8)]
    np.testing.assert_array_equal(inverse_frequencies(rope_config(), 16), np.array(want, np.float32))


def test_linear_rope_divides_every_frequency():
    want = [10000.0 ** (-2 * i / 16) / 4 for i in range(8)]
    np.testing.assert_allclose(inverse_frequencies(rope_config(rope_type="linear", factor=4.0), 16), want, rtol=2**-23)


@given(
    factor=st.floats(1, 64), low=st.floats(0.5, 4), spread=st.floats(0.5, 8), original=st.integers(16, 1 << 16),
    size=st.sampled_from([2, 16, 64, 128]), theta=st.sampled_from([1e4, 5e5]),
)  # fmt: skip
def test_llama3_rope_is_the_released_formula(factor, low, spread, original, size, theta):
    """Wavelengths beyond original / low are slowed by the factor, those below original / high are not; between, blended."""
    high = low + spread
    rope = dict(
        rope_type="llama3",
        factor=factor,
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=original,
    )
    want = []
    for i in range(size // 2):
        frequency = theta ** (-2 * i / size)
        wavelength = 2 * math.pi / frequency
        if wavelength > original / low:
            frequency /= factor
        elif wavelength >= original / high:
            smooth = (original / wavelength - low) / (high - low)
            frequency = (1 - smooth) * frequency / factor + smooth * frequency
        want.append(frequency)
    got = inverse_frequencies(config(rope_theta=theta, rope_scaling=rope), size)
    np.testing.assert_allclose(got, want, rtol=1e-6)


YARN = dict(rope_type="yarn", factor=4.0, beta_fast=20.0, beta_slow=2.0, original_max_position_embeddings=2048)
LONGROPE = dict(rope_type="longrope", short_factor=[1.0] * 32, long_factor=[2.0] * 32, original_max_position_embeddings=64)  # fmt: skip


@pytest.mark.parametrize(
    ("rope", "changes"),
    [
        (YARN, dict(factor=8.0, beta_fast=40.0, beta_slow=0.5, original_max_position_embeddings=100, truncate=False, attention_factor=2.0)),
        (YARN | dict(mscale=0.7, mscale_all_dim=0.4), dict(mscale=0.8, mscale_all_dim=0.5)),
        (LONGROPE, dict(factor=3.0, attention_factor=2.0, short_factor=[1.5] * 32, long_factor=[3.0] * 32, original_max_position_embeddings=128)),
    ],
)  # fmt: skip
def test_every_number_of_a_scaling_changes_it(rope, changes):
    def made(said: dict) -> list:
        turns = rotary(rope_config(**said).section("rope_parameters"), 64, 512)
        long = [] if turns.long is None else turns.long.tolist()
        return [turns.inverse_frequencies.tolist(), turns.factor, long, turns.original]

    for key, value in changes.items():
        assert made(rope | {key: value}) != made(rope), key


def test_old_and_new_spellings_of_rope_are_one():
    old = config(rope_theta=5e4, rope_scaling={"type": "linear", "factor": 2.0})
    new = Config(
        {k: v for k, v in config().raw.items() if k != "rope_theta"}
        | {"rope_parameters": {"rope_theta": 5e4, "rope_type": "linear", "factor": 2.0}}
    )
    np.testing.assert_array_equal(inverse_frequencies(old, 16), inverse_frequencies(new, 16))


@pytest.mark.parametrize("kind", ["dynamic", "mrope", ""])
def test_rope_that_depends_on_the_length_is_refused(kind):
    with pytest.raises(UnsupportedError, match="rope_type"):
        plan_for(rope_config(rope_type=kind, factor=2.0))


@pytest.mark.parametrize(
    "rope",
    [
        dict(rope_type="linear"),
        dict(rope_type="linear", factor=0),
        dict(rope_type="linear", factor="2"),
        dict(rope_type="llama3", factor=8.0),
        dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=4.0,
            high_freq_factor=1.0,
            original_max_position_embeddings=64,
        ),
        dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64.5,
        ),
    ],
)
def test_impossible_rope_is_refused(rope):
    with pytest.raises(CheckpointError, match=r"rope_parameters|factor|original"):
        plan_for(rope_config(**rope))


# ---- configs ----


def test_weights_are_what_the_config_says():
    tied, untied = plan_for(config("odd")), plan_for(config("plain"))
    assert "lm_head.weight" not in tied.weights and "lm_head.weight" in tied.ignored
    assert tied.weights["model.embed_tokens.weight"].linear  # it is the head too
    assert not untied.weights["model.embed_tokens.weight"].linear
    assert untied.weights["lm_head.weight"].shape == (300, 64)
    biased = plan_for(config("biased")).weights
    assert biased["model.layers.1.self_attn.q_proj.weight"].shape == (6 * 18, 48)  # head_dim is given
    assert biased["model.layers.1.self_attn.o_proj.weight"].shape == (48, 6 * 18)
    assert biased["model.layers.0.self_attn.o_proj.bias"].shape == (48,)
    assert biased["model.layers.0.mlp.down_proj.bias"].shape == (48,)
    assert not [name for name in untied.weights if name.endswith("bias")]


def test_absent_key_value_heads_are_those_of_the_class_and_null_ones_the_heads():
    raw = {k: v for k, v in config(num_attention_heads=16).raw.items() if k != "num_key_value_heads"}
    for model_type, absent in (("llama", 16), ("mistral", 8)):
        assert plan_for(Config(raw | {"model_type": model_type})).num_kv_heads == absent
        assert plan_for(Config(raw | {"model_type": model_type, "num_key_value_heads": None})).num_kv_heads == 16


@pytest.mark.parametrize(
    "changes, key",
    [
        (dict(num_attention_heads=0), "num_attention_heads"),
        (dict(num_attention_heads=True), "num_attention_heads"),
        (dict(num_key_value_heads=3), "num_key_value_heads"),
        (dict(num_key_value_heads=8), "num_key_value_heads"),
        (dict(hidden_size=2**40), "hidden_size"),
        (dict(hidden_size=64.0), "hidden_size"),
        (dict(hidden_size=66), "hidden_size"),
        (dict(head_dim=0), "head_dim"),
        (dict(head_dim=15), "head_dim"),
        (dict(intermediate_size=-1), "intermediate_size"),
        (dict(num_hidden_layers=0), "num_hidden_layers"),
        (dict(vocab_size=0), "vocab_size"),
        (dict(vocab_size=2**40), "vocab_size"),
        (dict(rms_norm_eps=float("nan")), "rms_norm_eps"),
        (dict(rms_norm_eps=-1e-5), "rms_norm_eps"),
        (dict(rms_norm_eps="1e-5"), "rms_norm_eps"),
        (dict(rope_theta=0), "rope_theta"),
        (dict(rope_theta=float("inf")), "rope_theta"),
        (dict(max_position_embeddings=0), "max_position_embeddings"),
        (dict(tie_word_embeddings=1), "tie_word_embeddings"),
        (dict(attention_bias="yes"), "attention_bias"),
        (dict(sliding_window=0), "sliding_window"),
        (dict(hidden_act="quick_gelu"), "hidden_act"),
        (dict(model_type="gpt5"), "model_type"),
        (dict(model_type=None), "model_type"),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_its_key(changes, key):
    with pytest.raises((CheckpointError, UnsupportedError), match=key):
        plan_for(config(**changes))


_anything = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 600), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["rope_type", "factor", "rope_theta", "type"]), st.one_of(st.none(), st.floats(), st.text(max_size=3)), max_size=3),
)  # fmt: skip
_KEYS = [
    *config("biased").raw,
    "rope_scaling",
    "rope_parameters",
    "sliding_window",
    "use_sliding_window",
    "hidden_act",
    "partial_rotary_factor",
]


@settings(max_examples=1000)
@given(name=names, changes=st.dictionaries(st.sampled_from(_KEYS), _anything, min_size=1, max_size=3))
def test_any_config_is_a_plan_or_an_error_of_ours(name, changes):
    if changes.get("num_hidden_layers", 2) not in range(-1, 4):  # many layers are slow to describe, nothing else
        changes.pop("num_hidden_layers")
    try:
        plan = plan_for(config(name, **changes))
    except FastDistillError as error:
        assert str(error)
        return
    assert plan.head_dim % 2 == 0 and plan.num_heads % plan.num_kv_heads == 0
    assert all(size >= 1 for weight in plan.weights.values() for size in weight.shape)
