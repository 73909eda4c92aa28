"""tokenizer_config.json and special_tokens_map.json: special tokens, chat templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from fastdistill.text.tokenizer_config import TokenizerConfig
from tests.fuzz.law import folder, joined, lawful, parts
from tests.fuzz.mutators import json_changed


def run(data: bytes) -> None:
    config, names = parts(data)
    config = TokenizerConfig(
        folder({"tokenizer_config.json": config} | ({"special_tokens_map.json": names} if names else {}))
    )
    with lawful():
        assert all(isinstance(name, str) for name in config.special_tokens)
    with lawful():
        assert all(isinstance(part, str) for pair in config.chat_templates.items() for part in pair)
    for wanted, tools in ((None, False), (None, True), ("rag", False), ("{{ x }}", True)):
        with lawful():
            assert isinstance(config.chat_template(wanted, tools), str)


def changed(data: bytes, random: Random) -> bytes:
    config, names = parts(data)
    if names and random.random() < 0.3:
        return joined(config, json_changed(names, random))
    return joined(json_changed(config, random), names)


def seeds() -> Iterator[bytes]:
    token = {"content": "<s>", "lstrip": False, "special": True}
    full = {
        "bos_token": token, "eos_token": "</s>", "pad_token": None, "image_token": "<i>", "additional_special_tokens": ["<a>", token],
        "extra_special_tokens": {"boi": "<b>"}, "chat_template": "{{ messages }}", "added_tokens_decoder": {"0": token},
    }  # fmt: skip
    several = [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": "{{ tools }}"}]
    for config in (
        full,
        {"chat_template": several, "extra_special_tokens": ["<x>"]},
        {"chat_template": {"rag": "{{ documents }}"}},
    ):
        yield joined(json.dumps(config).encode(), b"")
        yield joined(
            json.dumps(config).encode(), json.dumps({"unk_token": "<u>", "additional_special_tokens": ["<y>"]}).encode()
        )
