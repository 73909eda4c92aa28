"""Every encoder family: what transformers computed of it, and law 1; `test_encoders_peers.py` runs transformers itself."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.models import plan_for
from fastdistill.runtime.encode import hidden_states, pooled
from tests.encoders import CASES, encoder, encoder_config, write_encoder
from tests.goldens.make_encoders import GOLDENS, text, write_folder
from tests.strategies import bits, level

FEW = settings(max_examples=6)
SAID = json.loads(GOLDENS.read_text("utf-8"))
POOLED = [name for name in CASES if encoder(name).plan.pooling]
MASKED = [name for name in CASES if "logits" in encoder(name).plan.outputs]


def columns(network, tokens, types=None) -> np.ndarray:
    """A text as the plan reads it."""
    types = np.zeros(len(tokens), np.int32) if types is None else types
    return np.array([tokens, types][: network.plan.token_columns], np.int32)


def assert_close(got: np.ndarray, want: list, what: str) -> None:
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max(), err_msg=what)


@pytest.mark.parametrize("name", CASES)
def test_a_folder_says_what_transformers_said_of_it(isa, tmp_path, name):
    """Hidden states, logits, pooled rows and scores, within 1e-4 of the largest, in float32."""
    write_folder(tmp_path / "model", encoder_config(name))
    model, golden = fd.load(tmp_path / "model", threads=2), SAID[name]
    tokens, types = text(name)
    (hidden,) = hidden_states(model.network, [columns(model.network, tokens, types)])
    for row, want in golden["hidden"].items():
        assert_close(hidden[int(row)], want, f"{name}: row {row}")
    for row, want in golden.get("logits", {}).items():
        assert_close(model.logits(tokens)[int(row)], want, f"{name}: logits of row {row}")
    row = hidden.mean(axis=0) if model.plan.pooling == "mean" else hidden[0]
    for what in {"pooled", "scores"} & golden.keys():
        assert_close(pooled(model.network, row[None])[what][0], golden[what], f"{name}: {what}")


def test_every_case_has_its_golden():
    assert SAID.keys() == CASES.keys()
    assert {"scores" in SAID[name] for name in POOLED} == {True, False} and all(
        "logits" in SAID[name] for name in MASKED
    )


texts = st.lists(st.lists(st.integers(0, 82), min_size=1, max_size=40), min_size=1, max_size=9)


@FEW
@given(
    texts=texts,
    most=st.none() | st.integers(1, 4),
    threads=st.integers(1, 3),
    format=st.sampled_from(["f32", "q8"]),
    data=st.data(),
)
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_text_has_the_same_bits_alone_and_in_any_company(isa, name, texts, most, threads, format, data):
    """In any batch and order, on any number of threads, on this level and the scalar one."""
    network = encoder(name, format, threads=threads)
    with level("scalar"):
        alone = [
            bits(next(hidden_states(encoder(name, format, threads=1), [columns(network, text)]))) for text in texts
        ]
    order = data.draw(st.permutations(range(len(texts))))
    got = hidden_states(network, [columns(network, texts[i]) for i in order], most)
    for i, hidden in zip(order, got, strict=True):
        np.testing.assert_array_equal(bits(hidden), alone[i])


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_long_texts_and_many_have_passes_of_their_own(name):
    network, random = encoder(name), np.random.default_rng(3)
    many = [columns(network, random.integers(0, 83, n)) for n in (96, 1, 95, *[96] * 24, 2)]
    got = [*hidden_states(network, many)]
    assert [len(each) for each in got] == [text.shape[1] for text in many]
    for each, hidden in zip(many, got, strict=True):
        np.testing.assert_array_equal(bits(hidden), bits(next(hidden_states(network, [each]))))
    assert not [*hidden_states(network, [])]


@pytest.mark.parametrize("name", CASES)
def test_native_and_reference_agree(isa, name):
    native, reference = (encoder(name, executor=executor) for executor in ("native", "reference"))
    random = np.random.default_rng(1)
    texts = [columns(native, random.integers(0, 83, n), random.integers(0, 2, n)) for n in (1, 9, 33)]
    for got, want in zip(hidden_states(native, texts), hidden_states(reference, texts), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
    if native.plan.pooling:
        rows = random.standard_normal((5, native.plan.hidden_size)).astype(np.float32)
        got, want = (pooled(network, rows) for network in (native, reference))
        assert got.keys() == want.keys()
        for what in got:
            np.testing.assert_allclose(got[what], want[what], atol=2e-5 * np.abs(want[what]).max())


@pytest.mark.parametrize("name", ["modernbert", "modernbert, masks"])
def test_a_local_layer_sees_so_far_to_either_side_and_no_farther(name):
    """One local layer, behind one that sees all but is made to add nothing: a row's neighbours beyond four do not change it."""
    from fastdistill.runtime.network import Network
    from tests.small_models import tensors

    plan = plan_for(encoder_config(name, num_hidden_layers=2))
    made = tensors(plan)
    for tensor in ("model.layers.0.attn.Wo.weight", "model.layers.0.mlp.Wo.weight"):
        made[tensor].data[:] = 0
    network, tokens = Network(plan, made, threads=1), np.arange(20)
    (before,) = hidden_states(network, [columns(network, tokens)])
    for place in (0, 7, 19):
        other = tokens.copy()
        other[place] = 60
        (after,) = hidden_states(network, [columns(network, other)])
        changed = (bits(before) != bits(after)).any(axis=1)
        assert np.flatnonzero(changed).tolist() == [i for i in range(20) if abs(i - place) <= 4]


@pytest.mark.parametrize("name", MASKED)
def test_masks_are_filled_by_every_rule_and_alike_in_any_session(tmp_path, name):
    """Law 1 of logits, and unmasking: a confident rule of one a step is greedy filling."""
    network = encoder(name)
    tokens = np.random.default_rng(2).integers(0, 83, 12).astype(np.int32)
    one = dict(nodes=np.zeros(12, np.int64), parents=[-1])
    read = fd.Read(logits=True)
    want = network.session(32).forward(tokens, read=read, **one).logits
    with level("scalar"):
        np.testing.assert_array_equal(
            bits(encoder(name, threads=1).session(64).forward(tokens, read=read, **one).logits), bits(want)
        )
    write_folder(tmp_path / "model", encoder_config(name))
    model = fd.load(tmp_path / "model")
    rule = fd.Unmask(fd.unmask.Schedule(4), mask_token=4)
    written = model.generate(tokens[:6], max_tokens=4, decoder=rule).tokens
    assert len(written) == 4 and 4 not in written[:1]


# ---- configs ----


@pytest.mark.parametrize(
    "name, changes, error, match",
    [
        ("bert", dict(architectures=["BertForQuestionAnswering"]), UnsupportedError, "BertForQuestionAnswering.*BertModel"),
        ("bert", dict(architectures=["RobertaModel"]), UnsupportedError, "RobertaModel"),
        ("bert", dict(position_embedding_type="relative_key"), UnsupportedError, "relative_key"),
        ("bert", dict(is_decoder=True), UnsupportedError, "is_decoder"),
        ("bert", dict(hidden_size=45), CheckpointError, "multiple"),
        ("bert", dict(hidden_act="mish"), UnsupportedError, "mish"),
        ("bert, labels", dict(id2label={"0": "a", "2": "b"}), CheckpointError, "id2label"),
        ("bert, labels", dict(id2label={"0": "a", "1": "a"}), CheckpointError, "id2label must be labels .* each another"),
        ("bert, labels", dict(id2label={"0": "a", "1": ["b"]}), CheckpointError, "id2label must be labels that are text"),
        ("bert, labels", dict(problem_type="ranking"), CheckpointError, "problem_type"),
        ("roberta", dict(pad_token_id=95), CheckpointError, "max_position_embeddings"),
        ("modernbert", dict(layer_types=["full_attention", "linear_attention"] * 2), UnsupportedError, "linear_attention"),
        ("modernbert", dict(classifier_pooling="max"), CheckpointError, "classifier_pooling"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused(name, changes, error, match):
    with pytest.raises(error, match=match):
        plan_for(encoder_config(name, **changes))


def test_a_file_without_a_pooler_has_vectors_and_no_pooled_rows(tmp_path):
    import os

    from fastdistill.checkpoint.folder import write_checkpoint
    from tests.small_models import tensors

    config = encoder_config("bert")
    made = {name: tensor for name, tensor in tensors(plan_for(config)).items() if "pooler" not in name}
    bare = [
        type(tensor)(tensor.name.removeprefix("bert."), tensor.format, tensor.shape, tensor.data)
        for tensor in made.values()
    ]
    write_checkpoint(tmp_path / "model", config.raw, bare)
    model = fd.load(tmp_path / "model")
    assert model.plan.pooling == "" and [*model.plan.outputs] == ["hidden"] and os.path.isdir(tmp_path)
    want = next(hidden_states(encoder("bert"), [columns(encoder("bert"), [1, 2, 3])]))
    np.testing.assert_array_equal(
        bits(next(hidden_states(model.network, [columns(model.network, [1, 2, 3])]))), bits(want)
    )
    with pytest.raises(UnsupportedError, match="pooler"):
        pooled(model.network, want)


def test_first_files_of_bert_call_norms_otherwise(tmp_path):
    from fastdistill.checkpoint.folder import write_checkpoint
    from tests.small_models import tensors

    config = encoder_config("bert")
    renamed = []
    for tensor in tensors(plan_for(config)).values():
        name = tensor.name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        renamed.append(type(tensor)(name.removeprefix("bert."), tensor.format, tensor.shape, tensor.data))
    write_checkpoint(tmp_path / "model", config.raw, renamed)
    model = fd.load(tmp_path / "model")
    text = columns(model.network, [5, 6, 7])
    np.testing.assert_array_equal(
        bits(next(hidden_states(model.network, [text]))), bits(next(hidden_states(encoder("bert"), [text])))
    )


def test_an_encoder_writes_no_texts_and_a_decoder_makes_no_vectors(tmp_path):
    from tests.families import network

    model = fd.Model(network("llama"), tmp_path, frozenset())
    with pytest.raises(UnsupportedError, match="encoders"):
        model.encode("a")
    for layers in (
        1,
        2,
    ):  # one layer shares no place for keys: its tokens have parts all the same, which sessions know nothing of
        bare = fd.load(write_encoder(tmp_path / str(layers), num_hidden_layers=layers))
        calls = (
            partial(bare.generate, [1, 2], max_tokens=2),
            partial(bare.logits, [1, 2]),
            bare.session,
            bare.measure_costs,
        )
        for call in calls:
            with pytest.raises(UnsupportedError, match=r"no sessions; Model\.encode"):
                call()
        assert bare.encode("one").shape == (40,)
