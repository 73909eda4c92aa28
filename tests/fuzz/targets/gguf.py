"""GGUF files: header, config, tokenizer, and every tensor as the folder would hold it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fastdistill.checkpoint.config import Config
from fastdistill.checkpoint.gguf.config import file_model, folder_model
from fastdistill.checkpoint.gguf.convert import _notice, _tensors
from fastdistill.checkpoint.gguf.reader import BLOCKS, F32, Q4_0, Q8_0, open_gguf
from fastdistill.checkpoint.gguf.rotary import write_rotary
from fastdistill.checkpoint.gguf.tokenizer import tokenizer_files
from fastdistill.checkpoint.gguf.writer import Described, write_gguf
from fastdistill.files import parse_json
from tests.checkpoint.tiny_families import FAMILIES, OTHERS, tiny_config
from tests.fuzz.law import lawful, stored
from tests.fuzz.mutators import gguf_changed

LONGEST = 1 << 17
changed = gguf_changed
SMALL = {
    "vocab_size": 8,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "head_dim": 32,
}
OWN = {
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 1}, "llada": {"d_model": 32, "n_heads": 1, "n_layers": 1, "mlp_hidden_size": 32,
    "embedding_size": 8, "mask_token_id": 7}, "Dream": SMALL | {"mask_token_id": 7},
}  # fmt: skip
TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "ab", "▁", "<0x0A>"]
TYPES = [2, 3, 3, 1, 1, 1, 1, 6]
VOCABULARY: dict[str, Any] = {
    "tokenizer.ggml.tokens": TOKENS, "tokenizer.ggml.token_type": np.array(TYPES, np.int32), "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0, "tokenizer.chat_template": "{{ messages }}",
}  # fmt: skip
SCORES = {"tokenizer.ggml.scores": np.arange(8, dtype=np.float32)}
KINDS: list[dict[str, Any]] = [
    {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.merges": ["a b"]},
    {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.merges": []},
    {"tokenizer.ggml.model": "gemma4", "tokenizer.ggml.merges": ["a b"]},
    {"tokenizer.ggml.model": "llama", "tokenizer.ggml.add_space_prefix": True} | SCORES,
    {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
    }
    | SCORES,
    {"tokenizer.ggml.model": "bert", "tokenizer.ggml.seperator_token_id": 2, "tokenizer.ggml.mask_token_id": 3},
]


def run(data: bytes) -> None:
    with lawful(), open_gguf(stored(data)) as file:
        _notice(file)
        model = file_model(file)
        with lawful():
            for name, made in tokenizer_files(file).items():
                parse_json(made, name)
        with np.errstate(all="ignore"):
            for tensor in _tensors(file, model, None, None):
                assert tensor.parts and all(size > 0 for size in tensor.shape)


def seeds() -> Iterator[bytes]:
    """A file of each architecture and each kind of tokenizer, of one layer."""
    names = [*FAMILIES, *OTHERS]
    for number, name in enumerate(names):
        config = tiny_config(name)
        small = {key: value for key, value in SMALL.items() if key in config or key == "vocab_size"}
        config |= small | OWN.get(config["model_type"], {})
        for key in ("num_key_value_heads", "num_kv_heads", "n_kv_heads"):
            config |= {key: 1} if key in config else {}
        with lawful():
            yield made(
                config, KINDS[number % len(KINDS)], F32 if number % 3 == 0 else Q8_0 if number % 3 == 1 else Q4_0
            )


def made(config: Mapping[str, Any], kind: Mapping[str, Any], format: int) -> bytes:
    model, values = folder_model(Config(config))
    extra: dict[str, np.ndarray] = {}
    if model.architecture.rotary:
        found, extra = write_rotary(Config(config), model.architecture, model.sizes)
        values |= found
    metadata = {"general.architecture": model.architecture.name} | {
        f"{model.architecture.name}.{key}": value for key, value in values.items()
    }
    described = [Described(name, F32, data.shape, data.nbytes) for name, data in extra.items()]
    for place in model.places:
        kind_of = format if len(place.shape) == 2 and place.shape[-1] % 32 == 0 else F32
        count, size = BLOCKS[kind_of]
        described.append(Described(place.name, kind_of, place.shape, math.prod(place.shape) // count * size))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        pieces = [(tensor.name, np.full(tensor.size, 0x2C, np.uint8)) for tensor in described]
        write_gguf(path, metadata | VOCABULARY | dict(kind), described, pieces)
        return path.read_bytes()
