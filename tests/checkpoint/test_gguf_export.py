"""Folders to GGUF files and back: nothing is lost on the way, and what llama.cpp computes otherwise is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastdistill.checkpoint import open_checkpoint, read_config
from fastdistill.checkpoint.config import Config
from fastdistill.checkpoint.gguf import ARCHITECTURES, convert_gguf, export_checkpoint
from tests.checkpoint.tiny_families import FAMILIES, OTHERS, bits, stored, tiny_config, tokenizer_files, write_tiny


def exported(tmp_path, format=None, **options):
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        export_checkpoint(checkpoint, tmp_path / "model.gguf", format, **options)
    return tmp_path / "model.gguf"


def returned(tmp_path, **options):
    return convert_gguf(exported(tmp_path, **options), tmp_path / "out")


def test_every_record_has_a_tiny_family():
    found = {config["model_type"] for config in (FAMILIES | OTHERS).values()}
    assert found == {name for architecture in ARCHITECTURES for name in architecture.model_types}


@pytest.mark.parametrize("format", ["f32", "bf16", "q8", "q4"])
@pytest.mark.parametrize("name", FAMILIES | OTHERS)
def test_a_folder_returns_as_it_was(tmp_path, name, format):
    write_tiny(tmp_path / "folder", name, format)
    folder = returned(tmp_path)
    before, after = stored(tmp_path / "folder"), stored(folder)
    assert before.keys() == after.keys()
    for tensor, there in before.items():
        again = after[tensor]
        if there.format == again.format:
            assert bits(again) == bits(there), tensor
        else:  # GPT-2's transposes
            assert again.format == "f32" and name == "gpt2" and ".c_" in tensor
            assert np.array_equal(again.to_float32(), there.to_float32())
