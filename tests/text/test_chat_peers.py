"""Rendered chats beside those of transformers, which only these tests need.

FASTDISTILL_TEMPLATES may name a folder of published templates (*.jinja), which are then compared as well.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from chat_templates import CONVERSATIONS, OPTIONS, TEMPLATES, TOOLS
from tokenizers_made_here import KINDS, write_folder

from fastdistill.errors import FastDistillError
from fastdistill.text.chat import render_chat
from fastdistill.text.tokenizer import Tokenizer

pytestmark = pytest.mark.peers

NAMES = {
    "bos_token": "<|special|>",
    "eos_token": {"content": "<e>", "lstrip": False, "__type": "AddedToken"},
    "pad_token": None,
    "unk_token": "<u>",
    "image_token": "<image>",
}


def both(folder, messages, **options):
    """What transformers renders and what we do, or None where it refuses."""
    transformers = pytest.importorskip("transformers")
    peer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    try:
        want = peer.apply_chat_template(messages, tokenize=False, **options)
    except Exception:
        want = None
    if "continue_final_message" not in options:
        options = {"add_generation_prompt": False} | options
    try:
        got = render_chat(Tokenizer(folder), messages, **options)
    except FastDistillError:
        got = None
    return want, got


def compare(folder, template):
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    rendered = 0
    for conversation, messages in CONVERSATIONS.items():
        for name, options in OPTIONS.items():
            want, got = both(folder, messages, **options)
            assert got == want, f"{conversation}, {name}"
            rendered += want is not None
    return rendered


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_transformers_renders_them(tmp_path, name):
    folder = write_folder(tmp_path, KINDS["byte_level"], **NAMES)
    assert compare(folder, TEMPLATES[name]) >= 6  # most refuse some of the conversations


PUBLISHED = os.environ.get("FASTDISTILL_TEMPLATES")


@pytest.mark.skipif(not PUBLISHED, reason="FASTDISTILL_TEMPLATES names no folder of published templates")
@pytest.mark.parametrize("path", sorted(Path(PUBLISHED or ".").rglob("*.jinja")) if PUBLISHED else [None], ids=str)
def test_published_templates_render_as_transformers_renders_them(tmp_path, path):
    folder = write_folder(tmp_path, KINDS["byte_level"], **NAMES)
    assert compare(folder, path.read_text("utf-8")) > 0


SPELL = "{{ bos_token }},{{ eos_token }},{{ unk_token }},{{ pad_token }},{{ image_token }},{{ boi_token }},{{ sep_token is defined }}"


@pytest.mark.parametrize(
    "map", [None, {}, {"bos_token": "<b>", "eos_token": {"content": "<e2>", "lstrip": False}, "sep_token": "<s>"}]
)
@pytest.mark.parametrize("config", [None, NAMES, {"bos_token": "<a>", "added_tokens_decoder": {}}, {"extra_special_tokens": {"boi_token": "<i>", "eos_token": "</s>"}}])  # fmt: skip
def test_special_tokens_are_named_as_transformers_names_them(tmp_path, config, map):
    folder = write_folder(tmp_path, KINDS["byte_level"], **(config or {}))
    if map is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(map))
    (folder / "chat_template.jinja").write_text(SPELL)
    want, got = both(folder, CONVERSATIONS["one"])
    assert want is not None and got == want


@pytest.mark.parametrize("tools", [None, [], TOOLS])
@pytest.mark.parametrize("wanted", [None, "rag", "{{ 1 }}"])
@pytest.mark.parametrize("names", [("default",), ("default", "tool_use", "rag"), ("tool_use", "rag"), ()])
@pytest.mark.parametrize("form", ["list", "dict", "files", "files first"])
def test_named_templates_are_chosen_as_transformers_chooses(tmp_path, form, names, wanted, tools):
    config = {}
    if form == "list":
        config = {"chat_template": [{"name": name, "template": f"config {name}"} for name in names]}
    elif names:
        config = {"chat_template": {name: f"config {name}" for name in names}} if form != "files" else {}
    folder = write_folder(tmp_path, KINDS["byte_level"], **config)
    for name in names if form.startswith("files") else ():
        path = folder / ("chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"file {name}")
    want, got = both(folder, CONVERSATIONS["one"], tools=tools, chat_template=wanted)
    if wanted == "rag" and "rag" not in names:
        assert (want, got) == ("rag", None)  # a name that no template has is one's own mistake, not a template
    else:
        assert got == want
