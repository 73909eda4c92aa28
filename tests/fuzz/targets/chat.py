"""Conversations: messages, tools and documents, whatever they are, put into a template in its own process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from random import Random

from fastdistill.text import templates
from fastdistill.text.chat import render_chat
from fastdistill.text.tokenizer import Tokenizer
from tests.checkpoint.tiny_families import tokenizer_files
from tests.fuzz.law import lawful
from tests.fuzz.mutators import json_changed
from tests.text.chat_templates import TEMPLATES

LONGEST = 8192
templates.SECONDS = 0.5  # of a template: the limit is what is tried here, not how long it is


@cache
def tokenizer() -> Tokenizer:
    from pathlib import Path
    from tempfile import mkdtemp

    folder = Path(mkdtemp())
    for name, data in tokenizer_files().items():
        (folder / name).write_bytes(data)
    made = Tokenizer(folder)
    made.config.special_tokens, made.config.chat_templates  # noqa: B018  read now: the folder goes
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return made


def run(data: bytes) -> None:
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(given, dict):
        return
    messages = given.pop("messages", None)
    variables = {name: value for name, value in given.items() if name not in ("tokenizer", "messages", "self")}
    with lawful():
        render_chat(tokenizer(), messages, **variables)


def changed(data: bytes, random: Random) -> bytes:
    return json_changed(data, random, DONORS)


TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
    },
    {"role": "tool", "name": "f", "content": "2"},
    {"role": "assistant", "content": "Two.", "reasoning_content": "1 + 1"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "d",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
    },
}
DONORS = [
    *TALK, TOOL, None, 1, "x", [], {}, "content", "{{ messages }}", "{% for m in messages %}{{ m.content }}{% endfor %}", "{{ 1/0 }}",
    "{{ 'x' * 10**9 }}", "{{ raise_exception('no') }}", "{{ messages[0].__class__ }}", "{{ namespace(_x=1) }}", "{{ tools | tojson(indent=2) }}",
    "{% generation %}x{% endgeneration %}", "{% for i in range(10**9) %}{% endfor %}", "{{ dict(a=1).fromkeys(messages) }}", "{{ strftime_now('%Y') }}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "\ud800", "{{ messages | map('x') | list }}",
]  # fmt: skip


def seeds() -> Iterator[bytes]:
    yield json.dumps(
        {"messages": TALK, "tools": [TOOL], "documents": [{"title": "t", "text": "x"}], "add_generation_prompt": True}
    ).encode()
    yield json.dumps({"messages": TALK, "continue_final_message": True, "date_string": "today"}).encode()
    yield json.dumps({"messages": TALK, "continue_final_message": "reasoning_content"}).encode()
    for template in [*TEMPLATES.values(), *(text for text in DONORS if isinstance(text, str))]:
        yield json.dumps({"messages": TALK[:2], "chat_template": template}).encode()
