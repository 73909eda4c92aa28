"""A model with some of its layers: the plan of a config that has no more, the same weights, in every family."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.checkpoint import open_checkpoint, write_checkpoint
from fastdistill.errors import ArgumentError, CheckpointError, UnsupportedError
from fastdistill.models import plan_for, plan_of
from fastdistill.models.cut_folder import cut_folder
from fastdistill.runtime import Read
from fastdistill.runtime.network import Network
from tests.families import CAUSAL, family_config
from tests.small_models import tensors

TOKENS = [5, 6, 7, 8, 2]


def written(folder, name, **changes):
    """The folder of a case with random weights."""
    config = family_config(name, **changes)
    write_checkpoint(folder, config.raw, tensors(plan_for(config)).values(), {"tokenizer_config.json": b"{}"})
    return folder


def network(folder):
    with open_checkpoint(folder) as checkpoint:
        return Network(plan_of(checkpoint), checkpoint.tensors, None, 1)


def logits(network, **how):
    return network.session().forward(TOKENS, read=Read(logits=True), **how).logits


@pytest.mark.parametrize("name", CAUSAL)
def test_the_cut_says_what_the_target_says_after_those_layers(name, tmp_path):
    target = network(written(tmp_path / "target", name))
    for kept in (1, target.plan.num_layers):
        cut_folder(tmp_path / "target", tmp_path / f"cut {kept}", range(kept))
        cut = network(tmp_path / f"cut {kept}")
        assert cut.plan.num_layers == kept
        assert (cut.plan.weights.keys() - target.plan.weights.keys()) == set()
        assert logits(cut).tobytes() == logits(target, layers=(0, kept)).tobytes()
    assert (tmp_path / "cut 1" / "tokenizer_config.json").read_bytes() == b"{}"


def test_layers_from_anywhere_keep_their_order_and_their_formats(tmp_path):
    written(tmp_path / "target", "llama", num_hidden_layers=4)
    cut_folder(tmp_path / "target", tmp_path / "cut", [0, 2, 3])
    with open_checkpoint(tmp_path / "target") as whole, open_checkpoint(tmp_path / "cut") as cut:
        for place, layer in enumerate((0, 2, 3)):
            name = "model.layers.{}.self_attn.q_proj.weight"
            mine, theirs = cut.tensors[name.format(place)], whole.tensors[name.format(layer)]
            assert mine.format == theirs.format and np.array_equal(mine.to_float32(), theirs.to_float32())
        assert cut.config.raw["num_hidden_layers"] == 3
        tied = {**cut.config.raw, "num_hidden_layers": 4}
        assert tied == whole.config.raw


def test_lists_of_layers_are_cut_with_them(tmp_path):
    written(tmp_path / "target", "smollm3", no_rope_layers=[1, 0, 1], layer_types=["full_attention"] * 3)
    cut_folder(tmp_path / "target", tmp_path / "cut", [1, 2])
    with open_checkpoint(tmp_path / "cut") as cut:
        assert cut.config.raw["no_rope_layers"] == [0, 1] and len(cut.config.raw["layer_types"]) == 2
    written(tmp_path / "mixture", "qwen3_moe", num_hidden_layers=3, mlp_only_layers=[0, 2])
    cut_folder(tmp_path / "mixture", tmp_path / "cut mixture", [1, 2])
    with open_checkpoint(tmp_path / "cut mixture") as cut:
        assert cut.config.raw["mlp_only_layers"] == [1]


def test_refuses(tmp_path):
    written(tmp_path / "target", "gemma2")
    with pytest.raises(
        UnsupportedError, match=r"layers 1 cannot be cut out: layer 1 would compute something else as layer 0"
    ):
        cut_folder(tmp_path / "target", tmp_path / "cut", [1])
    with pytest.raises(ArgumentError, match=r"layers must be ascending, got \[1, 0\]"):
        cut_folder(tmp_path / "target", tmp_path / "cut", [1, 0])
    with pytest.raises(ArgumentError, match=r"layers\[1\] must lie in 0..1, got 2"):
        cut_folder(tmp_path / "target", tmp_path / "cut", [0, 2])
    assert not (tmp_path / "cut").exists()
    with pytest.raises(CheckpointError, match="is there already"):
        cut_folder(tmp_path / "target", tmp_path / "target", [0])
    cut_folder(tmp_path / "target", tmp_path / "target", [0], overwrite=True)
    assert network(tmp_path / "target").plan.num_layers == 1
