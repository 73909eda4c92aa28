"""A GGUF file's config: Hugging Face's, or refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from fastdistill import load
from fastdistill.checkpoint.folder import open_checkpoint
from fastdistill.errors import UnsupportedError
from tests.checkpoint.gguf_files import HEADS, INNER, KEY_VALUE_HEADS, TOKENS, WIDTH, T, config_of, converted, refused


def test_config_is_hugging_face_s(tmp_path):
    _, folder = converted(tmp_path)
    config = config_of(folder)
    config.pop("quantization_config")
    assert config == {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": KEY_VALUE_HEADS, "head_dim": 16,
        "hidden_act": "silu", "max_position_embeddings": 128, "vocab_size": len(TOKENS), "rms_norm_eps": 1e-05,
        "rope_theta": 100000.0, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 1, "eos_token_id": 0,
    }  # fmt: skip
    assert b'"rms_norm_eps": 1e-05' in (folder / "config.json").read_bytes()
    assert "apache-2.0" in (folder / "NOTICE").read_text()
    with warnings.catch_warnings():  # what was converted is asked nothing and warned of nothing
        warnings.simplefilter("error")
        assert load(folder, threads=1).logits([1, 2]).shape == (2, len(TOKENS))


def test_an_output_matrix_unties_the_head(tmp_path):
    head = np.ones((len(TOKENS), WIDTH), np.float32)
    _, folder = converted(tmp_path, tensors={"output.weight": (head, T.F32)})
    assert config_of(folder)["tie_word_embeddings"] is False
    with open_checkpoint(folder) as checkpoint:
        assert np.array_equal(checkpoint.tensors["lm_head.weight"].data, head)


@pytest.mark.parametrize(
    "metadata",
    [{"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, {"llama.rope.scale_linear": 4.0}],
)
def test_linear_rope_scaling(tmp_path, metadata):
    _, folder = converted(tmp_path, metadata=metadata)
    assert config_of(folder)["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


def llama3_quotients(factor: float, low: float = 1.0, high: float = 4.0, original: int = 8192) -> np.ndarray:
    """What llama.cpp's converter writes for Llama 3's scaling, frequency by frequency, as it is published."""
    found = []
    for i in range(0, 16, 2):
        wavelength = 2 * np.pi * 100000.0 ** (i / 16)
        if wavelength < original / high:
            found.append(1.0)
        elif wavelength > original / low:
            found.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recovered(tmp_path, factor):
    _, folder = converted(tmp_path, tensors={"rope_freqs.weight": (llama3_quotients(factor), T.F32)})
    assert config_of(folder)["rope_scaling"] == {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip


@pytest.mark.parametrize(
    "quotients",
    [
        llama3_quotients(8.0, high=5.0),
        llama3_quotients(8.0)[:-1],
        *(np.full(8, value) for value in (np.nan, np.inf, 0.0, -1.0)),
    ],
)
def test_other_rope_quotients_are_refused(tmp_path, quotients):
    tensors = {"rope_freqs.weight": (quotients.astype(np.float32), T.F32)}
    refused(tmp_path, UnsupportedError, "rope_freqs", tensors=tensors)
