"""Beside transformers and llama.cpp: models of every family that GGUF files hold, there and back, compute the same.

`pip install '.[bench]'`, then `pytest -m peers`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastdistill as fd
from bench.lib.peers import REASON
from fastdistill.checkpoint import open_checkpoint
from fastdistill.checkpoint.gguf import convert_gguf, export_checkpoint
from fastdistill.models import export_folder
from tests.checkpoint.tiny_families import FAMILIES, OTHERS, bits, stored, tiny_config, tokenizer_files, write_tiny

pytestmark = pytest.mark.peers

torch = pytest.importorskip("torch", reason=REASON.format("torch"))
transformers = pytest.importorskip("transformers", reason=REASON.format("transformers"))
llama_cpp = pytest.importorskip("llama_cpp", reason=REASON.format("llama-cpp-python"))

# llama.cpp keeps keys and values in f16, 2^-11 of each, and looks GELU up by f16: a few such in a few layers.
LLAMA_CPP = 8 * 2.0**-11

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
    """Of all tokens in one pass, float32 (tokens, vocabulary); masked models have no cache, so no `eval`."""
    model = llama_cpp.Llama(str(path), n_ctx=64, n_batch=64, n_ubatch=64, logits_all=True, verbose=False, n_threads=1)
    batch = llama_cpp.llama_batch_init(len(TOKENS), 0, 1)
    try:
        batch.n_tokens = len(TOKENS)
        for i, token in enumerate(TOKENS):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        assert llama_cpp.llama_decode(model.ctx, batch) == 0
        found = llama_cpp.llama_get_logits(model.ctx)
        return np.ctypeslib.as_array(found, shape=(len(TOKENS), model.n_vocab())).copy()
    finally:
        llama_cpp.llama_batch_free(batch)
        model.close()


def said(folder) -> dict[str, Any]:
    """What a config says, whichever way and whatever it leaves out, but for the width of GPT-2's MLP, which it may leave out."""
    config = transformers.AutoConfig.from_pretrained(folder).to_dict()
    return {
        key: value for key, value in config.items() if key not in ("_name_or_path", "n_inner", "dtype", "hidden_act")
    }


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest, as a share of the largest logit."""
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
    assert difference(logits_of(again), wanted) < 1e-6
    if name != "mistral":  # a llama there
        assert type(again) is type(model)
        assert said(tmp_path / "folder") == said(folder)
    assert difference(llama_cpp_logits(tmp_path / "model.gguf"), wanted) < LLAMA_CPP


@pytest.mark.parametrize("name", OTHERS)
def test_a_masked_model_there(tmp_path, name):
    """Of which transformers has none: beside the same folder as it is loaded here."""
    write_tiny(tmp_path / "folder", name)
    export_folder(tmp_path / "folder", tmp_path / "model.gguf")
    wanted = fd.load(tmp_path / "folder", threads=1).logits(TOKENS)
    assert difference(llama_cpp_logits(tmp_path / "model.gguf"), wanted) < LLAMA_CPP


@pytest.mark.parametrize("format", ["f16", "bf16", "q8", "q4"])
def test_every_format_there(tmp_path, format):
    """Both round activations before they multiply, to 8 bits or to bf16: neither is much further off than the other."""
    write_tiny(tmp_path / "folder", "llama", format)
    export_folder(tmp_path / "folder", tmp_path / "model.gguf")
    exact, ours = (fd.load(tmp_path / "folder", threads=1, format=kind).logits(TOKENS) for kind in ("f32", None))
    found = difference(llama_cpp_logits(tmp_path / "model.gguf"), exact)
    assert found < 2 * max(difference(ours, exact), 2.0**-8)


# What it has no reader for, or reads in part: StableLM 2's norms of heads, Falcon's groups.
UNREAD = {
    "mistral",
    "mixtral",
    "smollm3",
    "olmo2",
    "olmoe",
    "granite",
    "stablelm 2",
    "falcon 40",
    "gpt_neox",
    "gpt_neox in a row",
}


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - UNREAD))
def test_transformers_reads_the_file_itself(tmp_path, name):
    model = made(tmp_path / "folder", name)
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        export_checkpoint(checkpoint, tmp_path / "model.gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", config=model.config)
    found = theirs.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(found[key], value), key
