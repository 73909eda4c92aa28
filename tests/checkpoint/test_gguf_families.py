"""GGUF files of every architecture: what their metadata say is used or refused, and what is missing is named."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.checkpoint import open_checkpoint
from fastdistill.checkpoint.gguf import GgufFile, convert_gguf, export_checkpoint
from fastdistill.checkpoint.gguf.architectures import ARCHITECTURES
from fastdistill.checkpoint.gguf.moves import grouped_rows
from fastdistill.checkpoint.gguf.rotary import _share
from fastdistill.checkpoint.gguf.writer import Described, write_gguf
from fastdistill.errors import CheckpointError, UnsupportedError
from tests.checkpoint.gguf_files import config_of
from tests.checkpoint.tiny_families import FAMILIES, OTHERS, stored, write_tiny

# One of each architecture's records.
RECORDS = {architecture.model_types[0]: architecture for architecture in ARCHITECTURES}


def file_of(tmp_path, name, metadata=(), tensors=(), without=()):
    """The GGUF file of a tiny family with some metadata and tensors changed, added and left out."""
    write_tiny(tmp_path / "folder", name)
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        export_checkpoint(checkpoint, tmp_path / "first.gguf")
    with GgufFile(tmp_path / "first.gguf") as file:
        values = {key: value for key, value in file.metadata.items() if key not in without} | dict(metadata)
        arrays = {
            key: file.read(tensor).reshape(tensor.shape[0], -1).view("<f4").reshape(tensor.shape)
            for key, tensor in file.tensors.items()
            if key not in without
        }
    values = {
        key: value.astype(value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value
        for key, value in values.items()
    }
    arrays |= {key: np.asarray(value, np.float32) for key, value in dict(tensors).items()}
    described = [Described(key, 0, array.shape, array.nbytes) for key, array in arrays.items()]
    write_gguf(
        tmp_path / "model.gguf",
        values,
        described,
        ((key, np.ascontiguousarray(array)) for key, array in arrays.items()),
    )
    for path in (tmp_path / "first.gguf", *(tmp_path / "folder").iterdir()):
        path.unlink()
    (tmp_path / "folder").rmdir()
    return tmp_path / "model.gguf"


def converted(tmp_path, name, **settings):
    return convert_gguf(file_of(tmp_path, name, **settings), tmp_path / "out")


def refused(tmp_path, name, error, words, **settings):
    path = file_of(tmp_path, name, **settings)
    with pytest.raises(error, match=words):
        convert_gguf(path, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("name", FAMILIES | OTHERS)
def test_metadata_that_nothing_knows_are_refused(tmp_path, name):
    key = f"{RECORDS.get(name.split()[0], RECORDS['llama']).name}.attention.novelty"
    refused(tmp_path, name, UnsupportedError, key, metadata={key: 1})


@pytest.mark.parametrize("name", RECORDS)
def test_metadata_that_are_missing_are_named(tmp_path, name):
    """All that a config needs: but those that mean something where they are absent."""
    record = RECORDS[name]
    for key, said in record.keys.items():
        if said.endswith("?") or key in ("attention.head_count_kv", "expert_count"):
            continue
        place = tmp_path / key
        place.mkdir()
        refused(place, name, CheckpointError, f"{record.name}.{key} is missing", without=[f"{record.name}.{key}"])


@pytest.mark.parametrize("name", RECORDS)
def test_tensors_that_are_missing_are_named(tmp_path, name):
    for number, word in enumerate(RECORDS[name].layer):
        place = tmp_path / str(number)
        place.mkdir()
        key = f"blk.1.{word}.weight"
        with GgufFile(file_of(place, name)) as file:
            there = key in file.tensors
        (place / "model.gguf").unlink()
        if there:
            refused(place, name, CheckpointError, f"missing: {key}", without=[key])


@pytest.mark.parametrize(
    ("name", "settings", "error", "words"),
    [
        ("qwen2", {"metadata": {"qwen2.attention.key_length": 16}}, UnsupportedError, "value and rotary widths differ"),
        ("qwen3", {"metadata": {"qwen3.attention.value_length": 16}}, UnsupportedError, "value and rotary widths differ"),
        ("gpt_neox", {"metadata": {"gptneox.attention.head_count_kv": 1}}, UnsupportedError, "2 heads with 1 key"),
        ("stablelm", {"metadata": {"stablelm.rope.dimension_count": 34}}, UnsupportedError, "rotary widths"),
        ("stablelm", {"metadata": {"stablelm.rope.dimension_count": 7}}, UnsupportedError, "rotary widths"),
        ("gemma3_text", {"metadata": {"gemma3.attention.sliding_window": 0}}, CheckpointError, "at least 1"),
        ("gemma3_text", {"metadata": {"gemma3.attention.sliding_window_pattern": 4}}, UnsupportedError, "window_pattern"),
        ("olmo2", {"metadata": {"olmo2.attention.sliding_window": 4}}, UnsupportedError, "sliding_window"),
        ("gemma2", {"metadata": {"gemma2.attn_logit_softcapping": float("nan")}}, CheckpointError, "softcapping"),
        ("mixtral", {"metadata": {"llama.expert_count": 5}}, CheckpointError, "misshapen: blk.0.ffn_gate_inp"),
        ("qwen3_moe", {"metadata": {"qwen3moe.expert_gating_func": 2}}, UnsupportedError, "expert_gating_func"),
        ("mixtral", {"metadata": {"llama.expert_count": 1 << 31}}, CheckpointError, "expert_count"),
        ("mixtral", {"without": ["blk.0.ffn_gate_inp.weight"]}, UnsupportedError, "llama.expert_count"),
        ("falcon", {"metadata": {"falcon.attention.head_count_kv": 2}}, UnsupportedError, "4 heads with 2 key"),
        ("qwen3_moe", {"metadata": {"qwen3moe.expert_count": 1 << 31}}, CheckpointError, "expert_count"),
        ("stablelm 2", {"metadata": {"stablelm.attention.head_count": 1 << 31}}, UnsupportedError, "widths differ"),
        *((name, {"metadata": {f"{name}.rope.scaling.{key}": 1.5}}, UnsupportedError, key) for name in ("qwen3", "smollm3")
          for key in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor")),
        ("qwen2 yarn", {"metadata": {"qwen2.rope.scaling.attn_factor": 1.5}}, UnsupportedError, "attn_factor"),
        ("phi3 longrope, long", {"metadata": {"phi3.rope.scaling.yarn_attn_factor": 1.5}}, UnsupportedError, "yarn_attn"),
        ("granite", {"metadata": {"granite.rope.scaling.finetuned": False}}, UnsupportedError, "without rotary"),
        ("Dream", {"without": ["tokenizer.ggml.mask_token_id"]}, CheckpointError, "mask_token_id is missing"),
        ("Dream", {"metadata": {"dream.attention.causal": True}}, UnsupportedError, "attention.causal"),
        ("qwen2", {"metadata": {"qwen2.attention.causal": False}}, UnsupportedError, "attention.causal"),
        ("phi3 longrope, long", {"without": ["rope_factors_short.weight"]}, CheckpointError, "longrope needs"),
        ("phi3 longrope, long", {"without": ["phi3.rope.scaling.original_context_length"]}, CheckpointError, "longrope needs"),
        ("phi3 longrope, long", {"tensors": {"rope_factors_long.weight": np.ones(3)}}, CheckpointError, "16 factors"),
        ("phi3 longrope, long", {"tensors": {"rope_factors_long.weight": np.zeros(16)}}, CheckpointError, "positive"),
        ("phi3 longrope, long", {"metadata": {"phi3.rope.scaling.type": "yarn"}}, UnsupportedError, "beside rope scaling 'yarn'"),
        ("llama", {"tensors": {"rope_factors_long.weight": np.ones(16)}}, UnsupportedError, "in llama cannot"),
        ("gpt2", {"metadata": {"gpt2.rope.freq_base": 7.0}}, UnsupportedError, "rope.freq_base"),
        ("gpt2", {"tensors": {"rope_freqs.weight": np.ones(16)}}, CheckpointError, "unexpected: rope_freqs"),
        ("gpt2", {"tensors": {"blk.0.attn_qkv.weight": np.ones((64, 64))}}, CheckpointError, "misshapen: blk.0.attn_qkv"),
        ("gpt_neox", {"metadata": {"gptneox.use_parallel_residual": 1}}, CheckpointError, "must be bool"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_and_leaves_nothing(tmp_path, name, settings, error, words):
    refused(tmp_path, name, error, words, **settings)


def test_a_vector_is_a_matrix_of_one_row(tmp_path):
    """To llama.cpp: its converter writes the one, its quantiser the other."""
    name = "model.layers.0.mlp.shared_expert_gate.weight"
    vectors = {f"blk.{i}.ffn_gate_inp_shexp.weight": np.arange(64) for i in range(3)}
    found = stored(converted(tmp_path, "qwen2_moe", tensors=vectors))
    assert np.array_equal(found[name].to_float32(), [np.arange(64)])


def test_gemma_s_local_base_may_go_without_saying(tmp_path):
    config = config_of(converted(tmp_path, "gemma3_text", without=["gemma3.rope.freq_base_swa"]))
    assert config["rope_local_base_freq"] == 10000.0 and config["rope_theta"] == 1e6


def test_a_factor_without_a_kind_is_linear(tmp_path):
    config = config_of(converted(tmp_path, "qwen3", metadata={"qwen3.rope.scaling.factor": 2.0}))
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


def test_yarn_says_all_that_the_file_says(tmp_path):
    metadata = {"yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0, "yarn_attn_factor": 1.25}
    metadata = {f"qwen2.rope.scaling.{key}": value for key, value in metadata.items()}
    assert config_of(converted(tmp_path, "qwen2 yarn", metadata=metadata))["rope_scaling"] == {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0, "beta_slow": 2.0,
        "attention_factor": 1.25,
    }  # fmt: skip


def test_phi_s_scale_is_said_where_it_is_its_own(tmp_path):
    config = config_of(converted(tmp_path, "phi3 longrope, long", metadata={"phi3.rope.scaling.attn_factor": 1.5}))
    assert config["rope_scaling"]["attention_factor"] == 1.5 and config["original_max_position_embeddings"] == 32


def test_the_largest_gemma_divides_by_another_width(tmp_path):
    """llama.cpp knows it by its layers."""
    config = {"num_hidden_layers": 46, "num_attention_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 32}
    write_tiny(tmp_path / "folder", "gemma2", **config)
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        export_checkpoint(checkpoint, tmp_path / "model.gguf")
    assert config_of(convert_gguf(tmp_path / "model.gguf", tmp_path / "out"))["query_pre_attn_scalar"] == 32


def test_the_part_of_a_head_that_turns_is_what_turns():
    """transformers takes the whole of head * part, which is less than it should be where the quotient was rounded down."""
    for head in range(2, 514, 2):
        for turning in range(2, head + 1, 2):
            assert int(head * _share(turning, head)) == turning


def test_fused_rows_are_grouped_by_head():
    """Two heads of width 2, and then four over two key and value heads, row by row."""
    assert grouped_rows(2, 2, 2).tolist() == [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]
    assert grouped_rows(4, 2, 1).tolist() == [0, 1, 4, 6, 2, 3, 5, 7]
