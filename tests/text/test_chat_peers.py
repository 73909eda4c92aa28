"""Rendered chats beside those of transformers, which only these tests need.

FASTDISTILL_TEMPLATES may name a folder of published templates (*.jinja), which are then compared as well.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest
from chat_templates import CONVERSATIONS, DOCUMENTS, OPTIONS, TEMPLATES, TOOLS
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers_made_here import KINDS, write_folder
from tool_functions import FUNCTIONS, Level, Unit, add

from fastdistill.errors import FastDistillError
from fastdistill.text.chat import render_chat
from fastdistill.text.tokenizer import Tokenizer
from fastdistill.text.tool_schema import function_schema

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


WORDS = st.one_of(
    st.sampled_from(
        ["", " ", "\n", "Hi <b>&", "  trim me \n", "é日🙂", "</think>", "<think>x</think>y", "{{ 1 }}", "a\r\nb", '"']
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 1 << 60), st.floats(allow_nan=False, allow_infinity=False), WORDS
    ),
    lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(WORDS, inside, max_size=3)),
    max_leaves=5,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": WORDS, "arguments": st.one_of(WORDS, st.dictionaries(WORDS, JSON))}
            ),
        },
        optional={"id": st.sampled_from(["call12345", "x"])},
    ),
    max_size=2,
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
        "content": st.one_of(WORDS, st.none(), st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}), max_size=2)),
    },
    optional={"tool_calls": st.one_of(st.none(), CALLS), "reasoning_content": WORDS, "thinking": WORDS, "name": WORDS},
)  # fmt: skip
TOOL = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": WORDS, "description": WORDS, "parameters": st.just(TOOLS[0]["function"]["parameters"])}
        ),
    }
)
GIVEN = st.fixed_dictionaries(
    {"add_generation_prompt": st.booleans()},
    optional={
        "tools": st.one_of(st.none(), st.lists(st.one_of(TOOL, st.just(add)), max_size=2)),
        "documents": st.one_of(st.none(), st.just(DOCUMENTS), st.lists(st.fixed_dictionaries({"text": WORDS}), max_size=2)),
        "enable_thinking": st.booleans(),
        "controls": JSON,
        "date_string": WORDS,
    },
)  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_any_conversation_renders_as_transformers_renders_it(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path, KINDS["byte_level"], **NAMES)
    (folder / "chat_template.jinja").write_text(TEMPLATES[name], "utf-8")
    peer, tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder), Tokenizer(folder)
    rendered = 0

    @given(messages=st.lists(MESSAGE, min_size=1, max_size=4), options=GIVEN, goes_on=st.booleans())
    @settings(max_examples=150, deadline=None)
    def check(messages, options, goes_on):
        nonlocal rendered
        if goes_on:
            options = options | {"continue_final_message": True, "add_generation_prompt": False}
        try:
            want = peer.apply_chat_template(messages, tokenize=False, **options)
        except Exception:
            want = None
        try:
            got = render_chat(tokenizer, messages, **options)
        except FastDistillError:
            got = None
        assert got == want
        rendered += want is not None

    check()
    assert rendered >= 5


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "content"])
def test_any_key_goes_on_as_in_transformers(tmp_path, key):
    folder = write_folder(tmp_path, KINDS["byte_level"], **NAMES)
    (folder / "chat_template.jinja").write_text(TEMPLATES["thinking"], "utf-8")
    messages = [*CONVERSATIONS["one"], {"role": "assistant", "content": "7", "reasoning": "3 and "}]
    want, got = both(folder, messages, continue_final_message=key)
    assert want is not None and got == want


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_functions_have_the_schemas_that_transformers_gives_them(function):
    pytest.importorskip("transformers")
    from transformers.utils import get_json_schema

    want = get_json_schema(function)
    assert function_schema(function) == want and json.dumps(function_schema(function)) == json.dumps(want)


HINTS = st.recursive(
    st.sampled_from([int, float, str, bool, Any, list, dict, tuple, Unit, Level, Literal["a", 2], type(None)]),
    lambda inside: st.one_of(
        inside.map(lambda hint: list[hint]),
        inside.map(lambda hint: dict[str, hint]),
        inside.map(lambda hint: Optional[hint]),  # noqa: UP045
        st.tuples(inside, inside).map(lambda hints: Union[hints]),  # noqa: UP007
        st.tuples(inside, inside).map(lambda hints: tuple[hints]),
    ),
    max_leaves=6,
)  # fmt: skip


@given(hints=st.lists(HINTS, max_size=3), returned=HINTS)
@settings(max_examples=300, deadline=None)
def test_any_hints_have_the_schemas_that_transformers_gives_them(hints, returned):
    pytest.importorskip("transformers")
    from transformers.utils import get_json_schema

    names = [f"argument{i}" for i in range(len(hints))]
    found: dict[str, Any] = {}
    exec(f"def tool({', '.join(names)}): ...", found)
    tool = found["tool"]
    tool.__annotations__ = dict(zip(names, hints, strict=True)) | {"return": returned}
    tool.__doc__ = "Does it.\n\nArgs:\n" + "".join(f"    {name}: of {name}\n" for name in names)
    assert json.dumps(function_schema(tool)) == json.dumps(get_json_schema(tool))
