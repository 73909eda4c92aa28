"""GGUF files to folders: what cannot be converted is named, and a folder is complete or absent."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.arguments import MOST_PATH_BYTES
from fastdistill.checkpoint.folder import open_checkpoint
from fastdistill.checkpoint.gguf import convert_gguf
from fastdistill.errors import ArgumentError, CheckpointError, FastDistillError, UnsupportedError
from tests.checkpoint.gguf_files import NAMES, TOKENS, TYPES, T, converted, gguf, put_back, refused, write_gguf
from tests.test_files import not_files

YARN = {
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 4.0,
    "llama.rope.scaling.original_context_length": 32,
}


def test_format_converts_matrices_only(tmp_path):
    written = write_gguf(tmp_path / "model.gguf", kinds=T.Q4_0)
    convert_gguf(tmp_path / "model.gguf", tmp_path / "out", format="f32")
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert {tensor.format for tensor in checkpoint.tensors.values()} == {"f32"}
        for theirs, ours in NAMES.items():
            expected = put_back(theirs, gguf.quants.dequantize(*written[theirs]))
            assert np.array_equal(checkpoint.tensors[ours].data, expected)
    convert_gguf(tmp_path / "model.gguf", tmp_path / "q8", format="q8")
    with open_checkpoint(tmp_path / "q8") as checkpoint:
        assert {(len(t.shape), t.format) for t in checkpoint.tensors.values()} == {(1, "f32"), (2, "q8")}


def test_an_unknown_format_is_an_argument_error(tmp_path):
    write_gguf(tmp_path / "model.gguf")
    with pytest.raises(ArgumentError, match="format"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out", format="q3")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"architecture": "mamba"}, UnsupportedError, "architecture 'mamba' .* gemma3"),
        ({"metadata": {"llama.expert_count": 8}}, UnsupportedError, "llama.expert_count"),
        ({"metadata": {"llama.attention.causal": False}}, UnsupportedError, r"llama\.attention\.causal"),
        ({"metadata": {"llama.attention.scale": 2.0}}, UnsupportedError, r"llama\.attention\.scale"),
        ({"metadata": {"llama.rope.scaling.type": "dynamic"}}, UnsupportedError, "dynamic"),
        ({"metadata": {"llama.rope.scaling.type": "longrope"}}, UnsupportedError, "rope_factors_long"),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, CheckpointError, "original_context_length is missing"),
        ({"metadata": YARN | {"llama.rope.scaling.factor": 0.0}}, CheckpointError, "factor must be a positive"),
        ({"metadata": YARN | {"llama.rope.scaling.yarn_ext_factor": 0.5}}, UnsupportedError, "yarn_ext_factor"),
        ({"metadata": YARN | {"llama.rope.scaling.yarn_log_multiplier": 0.1}}, UnsupportedError, "yarn_log_multiplier"),
        ({"metadata": {"llama.rope.freq_base_swa": 7.0}}, UnsupportedError, "freq_base_swa"),
        ({"metadata": {"llama.rope.dimension_count": 8}}, UnsupportedError, "rotary widths"),
        ({"metadata": {"tokenizer.ggml.model": "rwkv"}}, UnsupportedError, "tokenizer 'rwkv'.*gpt2, gemma4, llama, t5, bert can"),
        ({"metadata": {"tokenizer.ggml.pre": "token-pre"}}, UnsupportedError, "pre-tokenizer 'token-pre'.*qwen2, qwen35"),
        ({"without": ["tokenizer.ggml.pre"]}, UnsupportedError, "pre-tokenizer that it does not name"),
        ({"metadata": {"tokenizer.ggml.model": "llama"}}, CheckpointError, "scores must be an array of numbers"),
        ({"metadata": {"tokenizer.ggml.model": "t5", "tokenizer.ggml.scores": [0.5]}}, CheckpointError, "finite numbers"),
        ({"metadata": {"tokenizer.ggml.model": "bert", "tokenizer.ggml.unknown_token_id": 1 << 20}}, CheckpointError,
         "unknown_token_id is 1048576"),
        ({"metadata": {"llama.attention.head_count_kv": [2, 2]}}, CheckpointError, "head_count_kv must be int"),
        ({"metadata": {"llama.attention.head_count": 0}}, CheckpointError, "at least 1"),
        ({"metadata": {"llama.attention.head_count": 64}}, CheckpointError, "even width"),
        ({"metadata": {"llama.attention.head_count_kv": 3}}, CheckpointError, "equal groups"),
        ({"metadata": {"llama.attention.key_length": 32}}, CheckpointError, "value|attn_q"),
        ({"metadata": {"llama.embedding_length": 1 << 31}}, CheckpointError, "token_embd"),
        ({"metadata": {"llama.block_count": 1 << 31}}, CheckpointError, "block_count"),
        ({"metadata": {"llama.block_count": 3}}, CheckpointError, r"blk\.2\.attn_q"),
        ({"metadata": {"llama.block_count": 1}}, CheckpointError, r"blk\.1\.attn_q"),
        ({"metadata": {"llama.attention.layer_norm_rms_epsilon": float("nan")}}, CheckpointError, "epsilon"),
        ({"metadata": {"llama.rope.freq_base": float("inf")}}, CheckpointError, "freq_base"),
        ({"metadata": {"llama.rope.freq_base": -1.0}}, CheckpointError, "freq_base"),
        ({"metadata": {"llama.vocab_size": 5}}, CheckpointError, "token_embd"),
        ({"metadata": {"llama.feed_forward_length": "wide"}}, CheckpointError, "must be int, got 'wide'"),
        ({"metadata": {"tokenizer.ggml.eos_token_id": 1 << 20}}, CheckpointError, "eos_token_id is 1048576"),
        ({"metadata": {"tokenizer.ggml.add_bos_token": True}, "without": ["tokenizer.ggml.bos_token_id"]},
         CheckpointError, "without a bos_token_id"),
        ({"metadata": {"tokenizer.ggml.tokens": TOKENS[:-1]}}, CheckpointError, "token types"),
        ({"metadata": {"tokenizer.ggml.tokens": [*TOKENS[:-1], TOKENS[0]]}}, CheckpointError, "come twice"),
        ({"metadata": {"tokenizer.ggml.tokens": TYPES}}, CheckpointError, "must be an array of strings"),
        ({"metadata": {"tokenizer.ggml.merges": ["t h", "q q"]}}, CheckpointError, "merge 'q q'"),
        ({"metadata": {"tokenizer.ggml.merges": ["th"]}}, CheckpointError, "merge 'th'"),
        ({"without": ["tokenizer.ggml.tokens"]}, CheckpointError, "tokens must be an array"),
        ({"without": ["llama.context_length"]}, CheckpointError, "context_length is missing"),
        ({"without": ["output_norm.weight"]}, CheckpointError, "output_norm"),
        ({"tensors": {"blk.0.extra.weight": (np.ones(3, np.float32), T.F32)}}, CheckpointError, "extra"),
        ({"tensors": {"output_norm.weight": (np.ones(3, np.float32), T.F32)}}, CheckpointError, "output_norm"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_and_leaves_nothing(tmp_path, settings, error, words):
    refused(tmp_path, error, words, **settings)


def test_an_existing_folder_is_kept_unless_told(tmp_path):
    _, folder = converted(tmp_path)
    before = (folder / "config.json").stat().st_mtime_ns
    with pytest.raises(FastDistillError, match="out"):
        convert_gguf(tmp_path / "model.gguf", folder)
    assert (folder / "config.json").stat().st_mtime_ns == before
    convert_gguf(tmp_path / "model.gguf", folder, overwrite=True)


def test_progress_ends_at_all_the_bytes(tmp_path):
    written = write_gguf(tmp_path / "model.gguf")
    calls = []
    convert_gguf(tmp_path / "model.gguf", tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    total = sum(data.nbytes for data, _ in written.values())
    assert [done for done, _ in calls] == sorted(done for done, _ in calls) and calls[-1] == (total, total)


def test_a_file_that_cannot_be_opened_is_a_checkpoint_error(tmp_path):
    for path in not_files(tmp_path):
        error, words = (
            (ArgumentError, "source must be a path")
            if "\0" in str(path) or len(str(path)) > MOST_PATH_BYTES
            else (CheckpointError, r"cannot be read|no such")
        )
        with pytest.raises(error, match=words):
            convert_gguf(path, tmp_path / "out")


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    write_gguf(tmp_path / "model.gguf", kinds={"blk.0.ffn_down.weight": T.Q6_K})
    write_gguf(tmp_path / "plain.gguf", kinds=T.Q4_1)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UnsupportedError, match=r'pip install "fastdistill\[demo\]"'):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    convert_gguf(tmp_path / "plain.gguf", tmp_path / "out")  # Q4_0, Q4_1, Q8_0 and floats need no package
