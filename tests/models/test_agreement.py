"""What a plan ignores is held against what stands in its place: equal, used with a warning, or refused; never silence."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.checkpoint import Tensor, open_checkpoint, quantize_tensor, write_checkpoint
from fastdistill.errors import ArgumentError, CheckpointError, FastDistillError
from fastdistill.models import plan_for, plan_of, quantize_folder
from tests.small_models import FORMATS, config, dream_config, llada_config, tensors
from tests.strategies import bits

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INV_FREQ = "model.layers.1.self_attn.rotary_emb.inv_freq"
SILENT = pytest.mark.filterwarnings("error")


def write(folder, made, more, weights=None):
    weights = dict(tensors(plan_for(made)) if weights is None else weights)
    write_checkpoint(folder, made.raw, (weights | {tensor.name: tensor for tensor in more}).values(), overwrite=True)
    return folder


def f32(name, values):
    return Tensor(name, "f32", values.shape, np.ascontiguousarray(values, np.float32))


def tied(seed=1):
    """A tied model, its tensors, and a head that is none of its embedding's."""
    made = config("odd")
    head = np.random.default_rng(seed).standard_normal((77, 42)) / 8
    return made, tensors(plan_for(made)), head


@SILENT
@pytest.mark.parametrize("format", FORMATS)
def test_a_head_that_is_the_tied_embedding_is_silent(tmp_path, format):
    made, weights, _ = tied()
    weights[EMBEDDING] = quantize_tensor(weights[EMBEDDING], format)
    want = fd.load(write(tmp_path / "a", made, [], weights)).logits([1, 2])
    embedding = weights[EMBEDDING]
    same = [Tensor(HEAD, format, embedding.shape, **embedding.parts), f32(HEAD, embedding.to_float32())]
    for head in same:  # in its format, and the same values in another
        got = fd.load(write(tmp_path / "b", made, [head], weights))
        assert HEAD not in got.plan.weights
        np.testing.assert_array_equal(bits(got.logits([1, 2])), bits(want))


@pytest.mark.parametrize("made", [config("odd"), dream_config(tie_word_embeddings=True)], ids=["llama", "Dream"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_head_that_differs_is_used_and_said(tmp_path, made, format):
    """As if the config did not tie it, which transformers does too; in one value of the last row as well."""
    weights = tensors(plan_for(made))
    one = weights[EMBEDDING].data.copy()
    one[-1, -1] += 0.5
    for values in (np.random.default_rng(1).standard_normal(one.shape) / 8, one):
        head = quantize_tensor(f32(HEAD, values), format)
        with pytest.warns(UserWarning, match=rf"ties .*, but it holds another {HEAD}, which is used.*false"):
            model = fd.load(write(tmp_path / "tied", made, [head], weights))
        untied = fd.load(write(tmp_path / "untied", made.changed({"tie_word_embeddings": False}), [head], weights))
        np.testing.assert_array_equal(bits(model.logits([1, 2])), bits(untied.logits([1, 2])))


def test_a_head_of_another_shape_is_refused(tmp_path):
    made, _, _ = tied()
    with (
        pytest.warns(UserWarning, match="another"),
        pytest.raises(CheckpointError, match=r"misshapen: lm_head.weight \[78, 42\], expected \[77, 42\]"),
    ):
        fd.load(write(tmp_path / "m", made, [f32(HEAD, np.zeros((78, 42)))]))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 7), chunk=st.integers(1, 9), at=st.integers(0, 20), data=st.data())
def test_any_difference_is_found_wherever_it_lies(rows, chunk, at, data):
    from fastdistill.models import agreement

    values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    other = values.copy()
    other.flat[at % other.size] += data.draw(st.sampled_from([0, 1, np.nan]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "_CHUNK", chunk)
        assert agreement._same(f32("a", values), f32("b", other)) == np.array_equal(values, other)
        # The same bits are the same, though a NaN equals nothing, and so are zeros of both signs.
        assert agreement._same(f32("a", other), f32("b", other.copy()))
        assert agreement._same(f32("a", 0 * values), f32("b", -0.0 * values))


def test_llada_has_no_head_to_use_in_place_of_a_tied_one(tmp_path):
    """Its code has none then, so a head that differs says that the config is wrong."""
    made = llada_config(weight_tying=True, include_bias=True, bias_for_layer_norm=False)
    embedding = tensors(plan_for(made))["model.transformer.wte.weight"].data
    name = "model.transformer.ff_out"
    same = [f32(f"{name}.weight", embedding), f32(f"{name}.bias", np.zeros(90))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fd.load(write(tmp_path / "same", made, same))
    for other in (f32(f"{name}.weight", embedding + 1), f32(f"{name}.bias", np.ones(90))):
        with pytest.raises(CheckpointError, match=rf"ties the head .* but it holds another {other.name}"):
            fd.load(write(tmp_path / "other", made, [other]))


@SILENT
@pytest.mark.parametrize("format", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("theta", [1e4, 1e6])
@pytest.mark.parametrize("scaling", [None, {"type": "linear", "factor": 4.0}])
def test_stored_rotary_frequencies_that_the_config_gives_are_silent(tmp_path, format, theta, scaling):
    """As old files have them: computed in float32, without the scaling, cast with the weights."""
    made = config(rope_theta=theta, rope_scaling=scaling)
    exponents = np.arange(0, 16, 2, dtype=np.float32) / np.float32(16)
    plain = (np.float32(1) / np.float32(theta) ** exponents).astype(np.float32)
    stored = quantize_tensor(f32(INV_FREQ, plain), format)
    want = fd.load(write(tmp_path / "a", made, [])).logits([1, 2, 3])
    got = fd.load(write(tmp_path / "b", made, [stored])).logits([1, 2, 3])
    np.testing.assert_array_equal(bits(got), bits(want))


@pytest.mark.parametrize(
    "change", [lambda f: 2 * f, lambda f: f[:-1], lambda f: f * 1.001, lambda f: np.full_like(f, np.nan)]
)
def test_stored_rotary_frequencies_that_the_config_does_not_give_are_said(tmp_path, change):
    made = config()
    plain = np.array([1e4 ** (-i / 8) for i in range(8)], np.float32)
    more = [f32(INV_FREQ.replace("1", str(i)), change(plain)) for i in range(2)]
    want = fd.load(write(tmp_path / "a", made, [])).logits([1, 2, 3])
    with pytest.warns(
        UserWarning, match="rotary frequencies, but it holds another .*layers.0.*layers.1.* not used"
    ) as told:
        got = fd.load(write(tmp_path / "b", made, more))
    assert len(told) == 1 and told[0].filename == __file__
    np.testing.assert_array_equal(bits(got.logits([1, 2, 3])), bits(want))


@SILENT
def test_a_bias_of_a_tied_head_must_be_nothing(tmp_path):
    made, _, _ = tied()
    fd.load(write(tmp_path / "m", made, [f32("lm_head.bias", np.zeros(77))]))
    with pytest.raises(CheckpointError, match="without a bias, but it holds another"):
        fd.load(write(tmp_path / "m", made, [f32("lm_head.bias", np.ones(77))]))
    with pytest.raises(CheckpointError, match="has the type i64"):
        fd.load(write(tmp_path / "m", made, [Tensor("lm_head.bias", "i64", (77,), np.zeros(77, np.int64))]))


def test_every_ignored_tensor_says_what_it_must_equal():
    for made in (config(), config("odd"), dream_config(tie_word_embeddings=True), llada_config(weight_tying=True)):
        plan = plan_for(made)
        for ignored in plan.ignored.values():
            assert ignored.reason
            assert ignored.equals in plan.weights if isinstance(ignored.equals, str) else ignored.equals


# ---- quantising ----


@pytest.mark.parametrize("format", ["q8", "q4", "f16"])
def test_a_tied_folder_stays_what_it_is_when_quantised(tmp_path, format):
    """A head that is the embedding is it in every format; one that differs is still used, and said."""
    made, weights, head = tied()
    write(tmp_path / "same", made, [f32(HEAD, weights[EMBEDDING].data)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_folder(tmp_path / "same", tmp_path / "same-q", format)
        assert HEAD not in fd.load(tmp_path / "same-q").plan.weights
    write(tmp_path / "other", made, [f32(HEAD, head)])
    with pytest.warns(UserWarning, match="another"):
        quantize_folder(tmp_path / "other", tmp_path / "other-q", format)
    with pytest.warns(UserWarning, match="another"):
        assert HEAD in fd.load(tmp_path / "other-q").plan.weights


@pytest.mark.parametrize(
    "changes",
    [
        dict(model_type="qwen2"),
        dict(hidden_act="quick_gelu"),
        dict(rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
        dict(attn_logit_softcapping=50.0),
        dict(num_hidden_layers=3),
        dict(hidden_size=None),
    ],
)
def test_what_cannot_be_loaded_is_not_quantised(tmp_path, changes):
    made = config()
    write(tmp_path / "m", made, [])
    (tmp_path / "m" / "config.json").write_text(json.dumps(made.raw | changes))
    with pytest.raises(FastDistillError) as refused:
        fd.load(tmp_path / "m")
    with pytest.raises(type(refused.value)) as also:
        quantize_folder(tmp_path / "m", tmp_path / "q", "q8")
    assert str(also.value) == str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_what_is_quantised_is_loaded(tmp_path):
    write(tmp_path / "m", config(), [])
    quantize_folder(tmp_path / "m", tmp_path / "q", "q8")
    assert fd.load(tmp_path / "q").network.weights.formats[HEAD] == "q8"
    with open_checkpoint(tmp_path / "q") as checkpoint:
        assert plan_of(checkpoint).weights.keys() == checkpoint.tensors.keys()
    with pytest.raises(ArgumentError, match="format must be"):
        quantize_folder(tmp_path / "nowhere", tmp_path / "q", "int4")


# ---- lists of tensors ----


def test_long_lists_of_tensors_are_cut_and_counted(tmp_path):
    made = config(layers=12)
    extra = [f32(f"adapter.{i}", np.zeros(1)) for i in range(30)]
    with pytest.raises(CheckpointError) as refused:
        fd.load(write(tmp_path / "m", made, extra, weights={HEAD: f32(HEAD, np.zeros((300, 64)))}))
    lines = str(refused.value).splitlines()
    assert len(lines) == 1 + 11 + 11
    assert (
        lines[11:13] == [f"  missing: {12 * 9 + 2 - 10} more", "  unexpected: adapter.0 [1]"]
        and lines[-1] == "  unexpected: 20 more"
    )


@pytest.mark.peers
def test_a_head_beside_a_tied_embedding_is_what_transformers_uses(tmp_path):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    made, _, head = tied()
    folder = write(tmp_path / "m", made, [f32(HEAD, head)])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        want = theirs(torch.tensor([[1, 2, 3]])).logits[0].numpy()
    with pytest.warns(UserWarning):
        got = fd.load(folder).logits([1, 2, 3])
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
