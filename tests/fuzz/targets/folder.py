"""Model folders of any method of quantising: config.json and one safetensors file, every tensor of it used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fastdistill.checkpoint.folder import open_checkpoint, write_checkpoint
from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.safetensors_file import Stored, write_safetensors
from fastdistill.checkpoint.tensor import FORMATS, Tensor
from tests.checkpoint.foreign_folders import awq, bnb4, bnb8, float8, gptq, int8, packed
from tests.checkpoint.test_foreign import AWQ, BNB4, BNB8, FP8, GPTQ, compressed
from tests.fuzz.law import folder, joined, lawful, parts
from tests.fuzz.mutators import json_changed, safetensors_changed

LONGEST = 1 << 16
METHODS: list[tuple[Any, Any]] = [
    (None, None),
    (GPTQ, gptq()),
    (GPTQ | {"desc_act": True, "sym": False, "bits": 8}, gptq(bits=8, symmetric=False, act_order=True)),
    (AWQ, awq()),
    (BNB4, bnb4()),
    (BNB4 | {"bnb_4bit_use_double_quant": False}, bnb4(nested=False)),
    (BNB8, bnb8),
    (FP8, float8("block", "weight_scale_inv")),
    (compressed(), packed()),
    (compressed(symmetric=False), packed(symmetric=False)),
    (compressed("int-quantized", num_bits=8, strategy="channel", group_size=None), int8()),
]


def run(data: bytes) -> None:
    config, tensors = parts(data)
    with (
        lawful(),
        open_checkpoint(folder({"config.json": config, "model.safetensors": tensors})) as checkpoint,
        np.errstate(all="ignore"),
    ):
        for tensor in checkpoint.tensors.values():
            with lawful():
                if tensor.format in FORMATS:
                    assert tensor.to_float32().shape == tensor.shape
                else:
                    assert np.asarray(tensor.data).shape == tensor.shape


def changed(data: bytes, random: Random) -> bytes:
    config, tensors = parts(data)
    if random.random() < 0.4:
        return joined(json_changed(config, random), tensors)
    return joined(config, safetensors_changed(tensors, random))


def seeds() -> Iterator[bytes]:
    """One small matrix as each method stores it, and a plain one beside it."""
    name, shape = "model.layers.0.mlp.up_proj.weight", (32, 64)
    with TemporaryDirectory() as place:
        path = Path(place) / "model.safetensors"
        for quantization, make in METHODS:
            arrays, _ = make(name, shape) if make else ({}, None)
            arrays |= {"model.norm.weight": Stored("F32", np.ones(8, np.float32))}
            write_safetensors(path, arrays)
            yield joined(
                json.dumps({"model_type": "llama", "quantization_config": quantization}).encode(), path.read_bytes()
            )
        tensors = [
            quantize_tensor(Tensor(f"{format}.weight", "f32", (3, 40), np.ones((3, 40), np.float32)), format)
            for format in FORMATS
        ]
        write_checkpoint(Path(place) / "ours", {"model_type": "llama"}, tensors)
        yield joined(*((Path(place) / "ours" / file).read_bytes() for file in ("config.json", "model.safetensors")))
