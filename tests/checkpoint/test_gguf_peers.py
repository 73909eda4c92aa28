"""Beside transformers and llama.cpp: models of every family that GGUF files hold, there and back, compute the same.

`pip install '.[bench]'`, then `pytest -m peers`.
"""

from __future__ import annotations

import ctypes
import json
import logging

import numpy as np
import pytest

from bench.lib.peers import REASON
from fastdistill.checkpoint import open_checkpoint
from fastdistill.checkpoint.gguf import convert_gguf, export_checkpoint
from tests.checkpoint.tiny_families import FAMILIES, bits, stored, tiny_config, tokenizer_files

pytestmark = pytest.mark.peers

torch = pytest.importorskip("torch", reason=REASON.format("torch"))
transformers = pytest.importorskip("transformers", reason=REASON.format("transformers"))
llama_cpp = pytest.importorskip("llama_cpp", reason=REASON.format("llama-cpp-python"))

TOKENS = [int(token) for token in np.random.default_rng(7).integers(2, 270, 40)]  # past a window of 8


def made(folder, name):
    """A folder of transformers' own, with weights large enough that every part of the model shows in its logits."""
    torch.manual_seed(11)
    raw = tiny_config(name)
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for tensor_name, tensor in model.named_parameters():
            fan_in = tensor.shape[-1] if tensor.dim() > 1 else 64
            values = torch.randn_like(tensor) * (fan_in**-0.5 if tensor.dim() > 1 else 0.25)
            if "norm" in tensor_name or ".ln_" in tensor_name:
                values = torch.round(values * 64) / 64  # of Gemma's a file holds one more: exact so
                values = values + (1 if tensor_name.endswith("weight") and "gemma" not in name else 0)
            tensor.copy_(values)
    model.save_pretrained(folder)
    for file, data in tokenizer_files().items():
        (folder / file).write_bytes(data)
    return model


def logits_of(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].numpy()


def llama_cpp_logits(path) -> np.ndarray:
    model = llama_cpp.Llama(str(path), n_ctx=64, n_batch=64, logits_all=True, verbose=False, n_threads=1, seed=1)
    try:
        model.eval(TOKENS)
        return np.array(model.scores[: len(TOKENS)], np.float32)
    finally:
        model.close()


def close(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("name", FAMILIES)
def test_there_and_back(tmp_path, name):
    model = made(tmp_path / "folder", name)
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        export_checkpoint(checkpoint, tmp_path / "model.gguf")
    folder = convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    before, after = stored(tmp_path / "folder"), stored(folder)
    assert before.keys() == after.keys()
    assert [tensor for tensor in before if bits(before[tensor]) != bits(after[tensor])] == []
    wanted = logits_of(model)
    again = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(again) is type(model) and close(logits_of(again), wanted) < 1e-6
    found = close(llama_cpp_logits(tmp_path / "model.gguf"), wanted)
    print(name, found)
    assert found < 5e-3
