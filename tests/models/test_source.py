"""Weights that a checkpoint stores fused, transposed, in pieces or otherwise: the same bits as those of a plain one."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint import Tensor, open_checkpoint, quantize_tensor, write_checkpoint
from fastdistill.cli.info import model_facts
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.models import agreement, plan_for, plan_of, quantize_folder
from fastdistill.models.source import computed, stacked, stored
from fastdistill.runtime.network import Network
from tests.small_models import FORMATS, config, tensors
from tests.strategies import LOGITS, bits

CONFIG = config("biased")
PLAIN = plan_for(CONFIG)
WHOLE = ("q8", "q4")


def fused(names):
    """Several weights as the rows of one stored tensor: where each lies."""

    def sources(weights, name):
        rows = np.cumsum([0, *(weights[part].shape[0] for part in names)])
        whole = stored(name, (int(rows[-1]), *weights[names[0]].shape[1:]))
        return {part: whole.rows(*rows[i : i + 2].tolist()) for i, part in enumerate(names)}

    return sources


def arrangement():
    """Sources of some weights in every form, and the function that arranges plain tensors so."""
    weights, sources, made = PLAIN.weights, {}, {}
    for i in range(PLAIN.num_layers):
        at = f"model.layers.{i}"
        for end in ("weight", "bias"):
            for parts, name in (
                ([f"{at}.self_attn.{c}_proj.{end}" for c in "qkv"], f"{at}.qkv.{end}"),
                ([f"{at}.mlp.{c}_proj.{end}" for c in ("gate", "up")], f"{at}.gate_up.{end}"),
            ):
                sources |= fused(parts)(weights, name)
                made[name] = parts
    return sources, made


def joined(name, parts):
    """Tensors of one format, one below the other."""
    arrays = [part.parts for part in parts]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Tensor(
        name, parts[0].format, shape, **{field: np.concatenate([a[field] for a in arrays]) for field in arrays[0]}
    )


def plain_tensors(format):
    return tensors(PLAIN, 4, format)


def fused_case(format):
    sources, made = arrangement()
    plain = plain_tensors(format)
    found = {name: tensor for name, tensor in plain.items() if name not in sources}
    return sources, found | {name: joined(name, [plain[part] for part in parts]) for name, parts in made.items()}


def renamed_case(format):
    plain = plain_tensors(format)
    return (
        {name: stored(f"x.{name}", weight.shape) for name, weight in PLAIN.weights.items()},
        {f"x.{name}": Tensor(f"x.{name}", t.format, t.shape, **t.parts) for name, t in plain.items()},
    )


def transposed_case(format):
    sources, found = {}, plain_tensors(format)
    for name, weight in PLAIN.weights.items():
        if weight.linear:
            sources[name] = stored(name, weight.shape[::-1]).transposed()
            found[name] = Tensor(name, found[name].format, weight.shape[::-1], np.ascontiguousarray(found[name].data.T))
    return sources, found


def conv1d_case(format):
    """Fused, and transposed: what GPT-2 does."""
    plain, sources = plain_tensors(format), {}
    found = dict(plain)
    for i in range(PLAIN.num_layers):
        parts = [f"model.layers.{i}.self_attn.{c}_proj.weight" for c in "qkv"]
        whole = joined(f"c_attn.{i}", [found.pop(part) for part in parts])
        found[whole.name] = Tensor(whole.name, whole.format, whole.shape[::-1], np.ascontiguousarray(whole.data.T))
        at = 0
        for part in parts:
            rows = PLAIN.weights[part].shape[0]
            sources[part] = stored(whole.name, whole.shape[::-1]).transposed().rows(at, at + rows)
            at += rows
    return sources, found


def stacked_case(format):
    """A matrix in two pieces, of the first rows and the others."""
    plain, name, cut = plain_tensors(format), "model.layers.1.mlp.up_proj.weight", 5
    rows, width = PLAIN.weights[name].shape
    source = stacked(stored("first", (cut, width)), stored("others", (rows - cut, width)))
    found = {key: tensor for key, tensor in plain.items() if key != name}
    for key, piece in (("first", slice(0, cut)), ("others", slice(cut, None))):
        part = plain[name].rows(piece)
        found[key] = Tensor(key, part.format, part.shape, **part.parts)
    return {name: source}, found


def interleaved_case(format):
    """Rows of queries and keys by turns."""
    plain = plain_tensors(format)
    q, k = (f"model.layers.0.self_attn.{c}_proj.weight" for c in "qk")
    both = joined("qk", [plain[q], plain[k]])
    rows = both.shape[0] // 2
    by_turns = both.rows(np.arange(2 * rows).reshape(2, rows).T.reshape(-1))
    found = {name: tensor for name, tensor in plain.items() if name not in (q, k)}
    found["qk"] = Tensor("qk", by_turns.format, by_turns.shape, **by_turns.parts)
    whole = stored("qk", both.shape)
    return {q: whole.picked(np.arange(0, 2 * rows, 2)), k: whole.picked(np.arange(1, 2 * rows, 2))}, found


def computed_case(format):
    """Norms stored as what is added to one."""
    plain, sources, found = plain_tensors(format), {}, {}
    for name, tensor in plain.items():
        if name.endswith("norm.weight"):  # what is exact: a few bits
            tensor.data[:] = np.round(tensor.data * 16) / 16
            sources[name] = computed("one more", lambda w: 1 + w, stored(name, tensor.shape))
            found[name] = Tensor(name, "f32", tensor.shape, tensor.data - 1)
    return sources, plain | found, plain


CASES = {
    "renamed": (renamed_case, FORMATS),
    "fused": (fused_case, FORMATS),
    "transposed": (transposed_case, ("f32", "f16", "bf16")),
    "conv1d": (conv1d_case, ("f32", "f16", "bf16")),
    "stacked": (stacked_case, FORMATS),
    "interleaved": (interleaved_case, FORMATS),
    "computed": (computed_case, ("f32", "q8")),
}


def made(case, format):
    """The plan with these sources, the tensors that it is to be made of, and the plain ones."""
    sources, found, *plain = CASES[case][0](format)
    weights = {name: replace(weight, source=sources.get(name, weight.source)) for name, weight in PLAIN.weights.items()}
    return replace(PLAIN, weights=weights), found, plain[0] if plain else plain_tensors(format)


@pytest.mark.parametrize("executor", ["native", "reference"])
@pytest.mark.parametrize(
    ("case", "format"), [(case, format) for case, (_, formats) in CASES.items() for format in formats]
)
def test_the_same_logits_as_of_plain_tensors(case, format, executor):
    plan, found, plain = made(case, format)
    for to in (None, "q4"):
        got, want = (
            Network(p, t, to, threads=2, executor=executor).session(8).forward([1, 2, 3], read=LOGITS)
            for p, t in ((plan, found), (PLAIN, plain))
        )
        np.testing.assert_array_equal(bits(got.logits), bits(want.logits))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose family stores its tensors in another way."""

    def write(case, format="f32", drop=(), **more):
        plan, found, plain = made(case, format)
        monkeypatch.setattr(agreement, "plan_for", lambda _: plan)
        kept = [tensor for name, tensor in (found | more).items() if name not in drop]
        write_checkpoint(tmp_path / "model", CONFIG.raw, kept)
        return tmp_path / "model", plain

    return write


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_loads_from_its_files(folder, format):
    path, plain = folder("fused", format)
    got = fd.load(path).session(8).forward([1, 2, 3], read=LOGITS)
    want = Network(PLAIN, plain).session(8).forward([1, 2, 3], read=LOGITS)
    np.testing.assert_array_equal(bits(got.logits), bits(want.logits))


def test_info_counts_stored_tensors_and_the_weights_made_of_them(folder):
    path, _ = folder("fused", "q8")
    facts = model_facts(path, None)
    assert facts["parameters"] == sum(int(np.prod(weight.shape)) for weight in PLAIN.weights.values())
    with open_checkpoint(path) as checkpoint:
        assert sum(found["tensors"] for found in facts["formats"].values()) == len(checkpoint.tensors)
        assert sum(found["bytes"] for found in facts["formats"].values()) == sum(
            t.nbytes for t in checkpoint.tensors.values()
        )


def test_messages_name_what_is_stored(folder):
    path, _ = folder("fused", drop=["model.layers.1.qkv.weight"])
    with pytest.raises(CheckpointError, match=r"missing: model.layers.1.qkv.weight \[324, 48\]"):
        fd.load(path)
    wrong = Tensor("model.layers.0.qkv.weight", "f32", (323, 48), np.zeros((323, 48), np.float32))
    left = Tensor("model.layers.0.self_attn.q_proj.weight", "f32", (108, 48), np.zeros((108, 48), np.float32))
    shutil.rmtree(path)
    path, _ = folder("fused", **{wrong.name: wrong, left.name: left})
    with pytest.raises(CheckpointError) as caught:
        fd.load(path)
    assert "misshapen: model.layers.0.qkv.weight [323, 48], expected [324, 48]" in str(caught.value)
    assert "unexpected: model.layers.0.self_attn.q_proj.weight [108, 48]" in str(caught.value)


@pytest.mark.parametrize("format", WHOLE)
def test_a_quantised_folder_keeps_its_tensors_as_they_are_stored(folder, tmp_path, format):
    path, plain = folder("fused")
    quantize_folder(path, tmp_path / "q", format)
    with open_checkpoint(path) as before, open_checkpoint(tmp_path / "q") as after:
        assert before.tensors.keys() == after.tensors.keys()
        assert after.tensors["model.layers.0.qkv.weight"].format == format
    got = fd.load(tmp_path / "q").session(8).forward([1, 2, 3], read=LOGITS)
    converted = {name: quantize_tensor(t, format) if len(t.shape) == 2 else t for name, t in plain.items()}
    want = Network(PLAIN, converted).session(8).forward([1, 2, 3], read=LOGITS)
    np.testing.assert_array_equal(bits(got.logits), bits(want.logits))


@pytest.mark.parametrize("format", WHOLE)
def test_what_is_used_transposed_is_not_quantised_on_disk(folder, tmp_path, format):
    path, _ = folder("transposed")
    with pytest.raises(
        UnsupportedError, match=f"q_proj.weight: is used transposed, where blocks of {format} would lie across"
    ):
        quantize_folder(path, tmp_path / "q", format)
    assert not (tmp_path / "q").exists()
    quantize_folder(path, tmp_path / "f16", "f16")
    assert set(fd.load(tmp_path / "f16").network.weights.formats.values()) == {"f16", "f32"}
    plan, found, _ = made("transposed", "f32")
    name = "model.layers.0.mlp.up_proj.weight"
    found[name] = quantize_tensor(found[name], format)
    with pytest.raises(UnsupportedError, match="used transposed"):
        Network(plan, found)
    with pytest.raises(UnsupportedError, match="used transposed"):
        plan.weights[name].source.tensor(found)


def test_pieces_of_several_formats_are_refused(folder):
    path, _ = folder("stacked")
    plan, found, _ = made("stacked", "f32")
    with pytest.raises(UnsupportedError, match="first, others: are one weight, and stored as f16, f32"):
        Network(plan, found | {"first": quantize_tensor(found["first"], "f16")})
    with open_checkpoint(path) as checkpoint:
        assert plan_of(checkpoint).stored.keys() == checkpoint.tensors.keys()


@pytest.mark.parametrize("formats", [("f32", "bf16"), ("f16", "f32")])
def test_parts_of_several_formats_are_refused_under_a_computed_weight_too(formats):
    parts = {
        name: quantize_tensor(Tensor(name, "f32", (2,), np.ones(2, np.float32)), format)
        for name, format in zip("ab", formats, strict=True)
    }
    joined = stacked(stored("a", (2,)), stored("b", (2,)))
    one_more = computed("one more", lambda w: 1 + w, joined)
    for source in (joined, one_more):
        with pytest.raises(UnsupportedError, match="one format"):
            source.format({name: part.format for name, part in parts.items()})
        with pytest.raises(UnsupportedError, match="one format"):
            source.tensor(parts)


def test_a_computed_weight_refuses_what_its_parts_refuse():
    """So that no quantised folder is written which cannot be read."""
    source = computed("twice", lambda w: 2 * w, stored("w", (64, 4)).transposed())
    assert source.format({"w": "bf16"}) == "f32"
    with pytest.raises(UnsupportedError, match="transposed"):
        source.format({"w": "q8"})
