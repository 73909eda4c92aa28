"""Every family: what transformers computed of it, law 1, and every decoder; `tests/models/test_families_peers.py` runs transformers itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.checkpoint import Tensor, open_checkpoint, quantize_tensor
from fastdistill.checkpoint.folder import write_checkpoint
from fastdistill.decode import (
    Autoregressive,
    Jacobi,
    LayerSkip,
    Lookahead,
    PromptLookup,
    Speculative,
    generate,
)
from fastdistill.decode.engine import write
from fastdistill.errors import ArgumentError, CapacityError, CheckpointError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for, quantize_folder
from fastdistill.options import DEFAULTS
from fastdistill.runtime import forward_many
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.network import Network
from fastdistill.tasks import task
from tests.families import CAUSAL, EVERY, SOURCED, family_config, network
from tests.goldens.make_families import GOLDENS, text, write_folder
from tests.small_models import tensors
from tests.strategies import LOGITS, Setting, assert_rows, bits, cut, level, poisoned, token_lists, trees

FEW = settings(max_examples=6)
SAID = json.loads(GOLDENS.read_text("utf-8"))


@pytest.mark.parametrize("name", [*CAUSAL, *SOURCED])
def test_a_folder_says_what_transformers_said_of_it(isa, tmp_path, name):
    """Both computed in float32: logits within 1e-4 of the largest, and 32 greedy tokens alike."""
    write_folder(tmp_path / "model", family_config(name))
    model = fd.load(tmp_path / "model", threads=2)
    tokens, golden = text(model.vocab_size), SAID[name]
    source = tokens[::-1] if model.target else None
    got = model.logits(tokens, source)
    for row, want in golden["logits"].items():
        np.testing.assert_allclose(got[int(row)], want, atol=1e-4 * np.abs(want).max())
    session = model.session(8 + len(golden["written"]))
    if source:
        session.read_source(source)
    written = generate(session, tokens[:8], len(golden["written"]), end_tokens=frozenset())
    assert written.tokens == golden["written"]


def test_every_case_that_transformers_knows_has_its_golden():
    assert SAID.keys() == {*CAUSAL, *SOURCED}
    assert len({len(set(golden["written"])) for golden in SAID.values()}) > 3  # they do not all repeat one token


formats = st.sampled_from(["f32", "q8", "q4"])


@FEW
@given(format=formats, threads=st.integers(1, 3), words=token_lists(1, 30), data=st.data())
@pytest.mark.parametrize("name", EVERY)
def test_any_split_of_a_text_gives_the_same_bits(isa, name, format, threads, words, data):
    setting = Setting(name, format, threads)
    session, want = setting.session(), setting.oracle.rows(words)
    for piece in cut(data.draw, len(words), setting.max_rows):
        assert_rows(session.forward(words[piece], read=LOGITS), want[piece])


@FEW
@given(format=formats, context=token_lists(0, 12), tree=trees(10), data=st.data())
@pytest.mark.parametrize("name", EVERY)
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
@pytest.mark.parametrize("name", EVERY)
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
@pytest.mark.parametrize("name", EVERY)
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
@pytest.mark.parametrize("name", [*CAUSAL, *SOURCED])
def test_every_decoder_writes_the_text_of_plain_decoding(isa, name, decoder, prompt, temperature, format):
    setting = Setting(name, format)

    def written(how):
        request = dict(sampler=Sampler(temperature, seed=3))
        return generate(setting.session(48), prompt, 20, decoder=how, end_tokens=frozenset(), **request).tokens

    assert written(DECODERS[decoder]) == written(Autoregressive())


# ---- what folders may be like ----


def folder_of(path, name: str):
    write_folder(path, family_config(name))
    return path


def test_a_file_of_a_model_without_its_head_has_shorter_names(tmp_path):
    """GPT-2's on the Hub: `h.0.ln_1.weight`, and causal masks that no model needs."""
    want = fd.load(folder_of(tmp_path / "whole", "gpt2")).logits([1, 2, 3])
    with open_checkpoint(tmp_path / "whole") as checkpoint:
        tensors = [
            Tensor(name.removeprefix("transformer."), tensor.format, tensor.shape, *tensor.parts.values())
            for name, tensor in checkpoint.tensors.items()
        ]
        masks = [
            Tensor(f"h.{i}.attn.bias", "f32", (1, 1, 4, 4), np.tri(4, dtype=np.float32)[None, None]) for i in range(2)
        ]
        write_checkpoint(tmp_path / "short", checkpoint.config.raw, tensors + masks)
    np.testing.assert_array_equal(fd.load(tmp_path / "short").logits([1, 2, 3]), want)
    for folder in ("whole", "short"):
        quantize_folder(tmp_path / folder, tmp_path / f"{folder} f16", "f16")
    got = [fd.load(tmp_path / f"{folder} f16").logits([1, 2, 3]) for folder in ("whole", "short")]
    np.testing.assert_array_equal(*got)


@pytest.mark.parametrize(
    ("name", "changes", "windows"),
    [
        ("mistral", dict(sliding_window=5), [5, 5, 5, 5]),
        ("mixtral", dict(sliding_window=5), [5, 5, 5, 5]),
        ("phi3", dict(sliding_window=5), [5, 5, 5, 5]),
        ("qwen2", dict(use_sliding_window=True, sliding_window=5, max_window_layers=1), [0, 5, 5, 5]),
        ("qwen2", dict(use_sliding_window=False, sliding_window=5, max_window_layers=1), [0, 0, 0, 0]),
        ("qwen3", dict(use_sliding_window=True, sliding_window=5, max_window_layers=3), [0, 0, 0, 5]),
        ("qwen2_moe", dict(use_sliding_window=True, sliding_window=5, max_window_layers=2), [5, 0, 0, 0]),
        ("qwen2_moe", dict(use_sliding_window=True, sliding_window=5, max_window_layers=9), [5, 0, 5, 0]),
        ("qwen3_moe", dict(use_sliding_window=True, sliding_window=5, max_window_layers=1), [5, 5, 5, 5]),
        ("gemma2", dict(sliding_window=5), [5, 0, 5, 0]),
        ("gemma3", dict(sliding_window=5, sliding_window_pattern=3), [5, 5, 0, 5]),
        ("smollm3", dict(use_sliding_window=True, sliding_window=5, no_rope_layers=[1, 0, 0, 1]), [0, 5, 5, 0]),
        ("smollm3", dict(use_sliding_window=False, sliding_window=5), [0, 0, 0, 0]),
        ("qwen2", dict(use_sliding_window=True, sliding_window=5, layer_types=["full_attention", "sliding_attention"] * 2), [0, 5, 0, 5]),
    ],
)  # fmt: skip
def test_which_layers_windows_slide_in(name, changes, windows):
    plan = plan_for(family_config(name, num_hidden_layers=4, **changes))
    assert [op.constants.get("window", 0) for op in plan.ops if op.kind == "attention"] == windows


@pytest.mark.parametrize("name", ["qwen2_moe", "qwen3_moe"])
@pytest.mark.parametrize(
    ("step", "dense", "sparse"), [(1, [], [0, 1, 2, 3]), (2, [], [1, 3]), (2, [3], [1]), (3, [0], [2]), (1, [0, 9], [1, 2, 3])]
)  # fmt: skip
def test_which_layers_have_experts(name, step, dense, sparse):
    plan = plan_for(family_config(name, num_hidden_layers=4, decoder_sparse_step=step, mlp_only_layers=dense))
    assert [op.segment for op in plan.ops if op.kind == "route"] == [f"layer {i}" for i in sparse]


def test_as_many_numbers_turn_as_the_config_says():
    for head_dim in range(2, 130, 2):
        for turning in range(2, head_dim + 1, 2):
            plan = plan_for(family_config("gptj", n_embd=head_dim, n_head=1, rotary_dim=turning))
            assert {op.constants["rotary_dim"] for op in plan.ops if op.kind == "rotary"} == {turning}
    with pytest.raises(CheckpointError, match="rotary_dim must be an even number, found 3"):
        plan_for(family_config("gptj", rotary_dim=3))


def test_positions_that_have_no_embedding_are_refused():
    for executor in ("native", "reference"):
        session = network("gpt2", executor=executor).session(64)
        session.forward([1], positions=[63])
        with pytest.raises(ArgumentError, match=r"positions must lie in 0\.\.63, .* got 64"):
            session.forward([1], positions=[64])


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_a_router_is_never_quantised(tmp_path, name):
    """By neither way into q4: which experts a token goes to stays what it was."""
    exact = [weight for weight, each in network(name).plan.weights.items() if each.exact]
    kept = {weight.partition(".layers.")[2].partition(".")[2] for weight in exact}
    shared = {"mlp.shared_expert_gate.weight"} if name == "qwen2_moe" else set()
    assert kept == {"block_sparse_moe.gate.weight" if name == "mixtral" else "mlp.gate.weight"} | shared
    quantize_folder(folder_of(tmp_path / "f32", name), tmp_path / "q4", "q4")
    stored, converted = fd.load(tmp_path / "q4"), fd.load(tmp_path / "f32", format="q4")
    for model in (stored, converted):
        formats = model.network.weights.formats
        assert {formats[weight] for weight in exact} == {"f32"}
        assert all(formats[weight] == "q4" for weight in formats if ".experts." in weight)


@pytest.mark.parametrize("format", [None, "q8", "q4"])
@pytest.mark.parametrize(
    ("experts", "top_k", "inner"), [(1, 1, 1), (2, 1, 16), (3, 3, 33), (18, 17, 15), (33, 33, 2), (40, 20, 32), (300, 4, 1)]
)  # fmt: skip
def test_mixtures_of_any_size(isa, experts, top_k, inner, format):
    """Row by row, where few experts are asked for, as all at once, where each looks for its rows; and as the reference has it."""
    sizes = dict(num_experts=experts, num_experts_per_tok=top_k, moe_intermediate_size=inner)
    plan = plan_for(family_config("qwen3_moe", **sizes))
    made, words = tensors(plan), text(83)[:9]
    mixture = Network(plan, made, format=format, threads=2)
    alone = poisoned(mixture.session(16, max_rows=1))
    rows = np.concatenate([bits(alone.forward([word], read=LOGITS).logits) for word in words])
    assert_rows(poisoned(mixture.session(16)).forward(words, read=LOGITS), rows)
    if format is None:
        want = Network(plan, made, executor="reference").session(16).forward(words, read=LOGITS).logits
        np.testing.assert_allclose(rows.view(np.float32), want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("format", ["q8", "f32"])
def test_experts_too_wide_to_be_brought_together_have_the_same_bits(isa, format):
    """Rows of more than 128 blocks are multiplied where they lie, one by one."""
    changes = dict(num_hidden_layers=1, intermediate_size=129 * 32, num_local_experts=2, num_experts_per_tok=1)
    plan = plan_for(family_config("mixtral", **changes))
    made = Network(plan, tensors(plan), format=format, threads=2)
    words = text(83)[:20]
    session = made.session(32)
    one_by_one = np.concatenate([bits(session.forward([word], read=LOGITS).logits) for word in words])
    assert_rows(made.session(32).forward(words, read=LOGITS), one_by_one)


def test_experts_that_are_quantised_in_part_are_refused():
    plan = plan_for(family_config("mixtral"))
    made = tensors(plan)
    first = "model.layers.0.block_sparse_moe.experts.0.w2.weight"
    with pytest.raises(
        UnsupportedError, match=r"experts_down \(layer 0\): some of its matrices are q8 or q4 and some are not"
    ):
        Network(plan, made | {first: quantize_tensor(made[first], "q8")}).session(8).forward([1])


# ---- Phi-3's two sets of rotary frequencies ----

ORIGINAL = 24  # of the case


def test_a_sessions_room_says_which_frequencies_its_text_has(isa, tmp_path):
    """Whatever a text's length: a token never changes those before it."""
    made, words = network("phi3, long"), text(83)[:ORIGINAL]
    short, long = (made.session(capacity) for capacity in (ORIGINAL, ORIGINAL + 1))
    assert (short.is_long, long.is_long) == (False, True)
    first, second = (bits(session.forward(words, read=LOGITS).logits) for session in (short, long))
    assert (first[1:] != second[1:]).any(axis=1).all()
    for session, want in ((made.session(ORIGINAL), first), (made.session(96), second)):
        for token, row in zip(words, want, strict=True):
            assert_rows(session.forward([token], read=LOGITS), row[None])
    (one, other) = forward_many(
        [(made.session(ORIGINAL), Forward(words, read=LOGITS)), (made.session(50), Forward(words, read=LOGITS))]
    )
    assert_rows(one, first)
    assert_rows(other, second)


def test_rows_of_one_set_of_frequencies_are_none_of_the_other(tmp_path):
    made, words = network("phi3, long"), text(83)[:20]
    short, long = made.session(ORIGINAL), made.session(96)
    short.prefill(words)
    with pytest.raises(ArgumentError, match="rotary frequencies differ"):
        long.share(short, 5)
    short.save(tmp_path / "short")
    with pytest.raises(CapacityError, match="at most 24 tokens, this one for 96"):
        made.load_session(tmp_path / "short", 96)
    assert made.load_session(tmp_path / "short").capacity == ORIGINAL
    long.prefill(words)
    long.save(tmp_path / "long")
    assert made.load_session(tmp_path / "long").is_long


def test_texts_share_what_they_have_read_with_their_kind_alone(tmp_path):
    """Both begin with a page of the same prompt; the short one's rows are none of the long one's."""
    case = family_config("phi3, long")
    roomy = case.raw["rope_scaling"] | {"original_max_position_embeddings": 80}
    write_folder(tmp_path / "model", case.changed({"rope_scaling": roomy, "original_max_position_embeddings": 80}))
    model, prompt = fd.load(tmp_path / "model", threads=2), (text(83) * 2)[:70]
    alone = [model.generate(prompt, max_tokens=n).tokens for n in (10, 20)]
    assert alone[0] != alone[1][:10]
    asked = [task(model, prompt, dict(DEFAULTS, max_tokens=n)) for n in (10, 20, 10, 20)]
    assert [each.tokens for each in write(asked)] == alone * 2
