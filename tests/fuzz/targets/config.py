"""config.json: parsed, read as the plan of its family, as llama.cpp's metadata, and for the tokens that end a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from fastdistill.checkpoint.config import Config, eos_token_ids
from fastdistill.checkpoint.gguf.config import folder_model
from fastdistill.files import parse_json
from fastdistill.models.families import DEFAULTS, plan_for
from tests.checkpoint.tiny_families import FAMILIES, OTHERS, tiny_config
from tests.fuzz.law import lawful
from tests.fuzz.mutators import ODD, json_changed

LONGEST = 4096
DONORS = [*ODD, *DEFAULTS, "linear", "dynamic", "yarn", "longrope", "llama3", "sliding_attention", "full_attention"]


def run(data: bytes) -> None:
    with lawful():
        raw = parse_json(data, "config.json")
        with lawful():
            eos_token_ids(Config(raw), raw)
        with lawful():
            folder_model(Config(raw))
        plan_for(Config(raw))


def changed(data: bytes, random: Random) -> bytes:
    return json_changed(data, random, DONORS)


def seeds() -> Iterator[bytes]:
    for name in [*FAMILIES, *OTHERS]:
        yield json.dumps(tiny_config(name)).encode()
    for model_type, keys in DEFAULTS.items():  # what a config has that says nothing, of few layers and experts
        said = {"model_type": model_type} | {key: value for key, value in keys.items() if value is not None}
        few = {
            key: 4 if "experts" in key else 2
            for key in said
            if key in ("num_hidden_layers", "n_layer", "n_layers", "num_experts", "num_local_experts")
        }
        yield json.dumps(said | few, default=str).encode()
