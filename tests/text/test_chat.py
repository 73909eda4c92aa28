"""render_chat: what a template is shown, which one it is, and typed errors for what is no conversation."""

from __future__ import annotations

import dataclasses
import enum
import json
import os

import numpy as np
import pytest
from chat_templates import DOCUMENTS, TOOLS
from test_tool_schema import no_words
from tokenizers_made_here import KINDS, write_folder
from tool_functions import add

from fastdistill.errors import ArgumentError, FastDistillError, TextError
from fastdistill.text.chat import render_chat
from fastdistill.text.tokenizer import Tokenizer
from fastdistill.text.tool_schema import function_schema

MESSAGES = [{"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "Hello"}]


@pytest.fixture
def chat(tmp_path):
    """chat(template, messages, options...) -> the text that a model with this template is shown."""

    def render(template, messages=MESSAGES, **options):
        folder = write_folder(tmp_path, KINDS["byte_level"], bos_token="<|special|>", eos_token={"content": "END"})
        (folder / "chat_template.jinja").write_text(template, "utf-8", newline="")
        return render_chat(Tokenizer(folder), messages, **options)

    return render


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m['content'] }}\n  {% endif %}\n{% endfor %}",
            "Hi <b>\n",
        ),
        ("{{ bos_token }}{{ eos_token }}{% if add_generation_prompt %}>{% endif %}", "<|special|>END>"),
        ("{{ pad_token is defined }}{{ pad_token }}", "False"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "Hi <b>"}'),
        ("{{ {'é': [1]} | tojson(separators=(',', ':'), ensure_ascii=true) }}", r'{"\u00e9":[1]}'),
        ("{{ tools is none }}{{ documents is none }}{{ flag }}", "TrueTrueyes"),
        ("{% for m in messages %}{{ m.role }}{% break %}{% endfor %}", "user"),
        ("{% generation %}{% set x = 1 %}{{ messages[1].content }}{% endgeneration %}{{ x is defined }}", "HelloFalse"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("a\r\nb\r{{ 'c\r\nd' }}", "a\nb\nc\nd"),
        ("{{ dict(a=1) }}{{ dict.fromkeys('b', 2) }}{{ namespace(c=3).c }}", "{'a': 1}{'b': 2}3"),
        ("", ""),
    ],
)
def test_a_template_renders_as_transformers_renders_it(chat, template, text):
    assert chat(template, flag="yes") == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for", "chat template failed: line 1: TemplateSyntaxError"),
        ("{{ raise_exception('roles must alternate') }}", "m: the chat template refuses: roles must alternate$"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% set n = namespace() %}{% set n.__class__ = 1 %}", "SecurityError"),
        ("{% for i in range(10**12) %}{% endfor %}", "OverflowError"),
        ("{{ nothing.there }}", "UndefinedError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ 1 | tojson(default=1) }}", "TypeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ],
)
def test_a_hostile_or_broken_template_is_a_text_error(chat, template, words):
    with pytest.raises(TextError, match=words.replace("m:", "[0-9]:")):
        chat(template)


class Role(str, enum.Enum):
    USER = "user"


@dataclasses.dataclass
class Message:
    role: Role
    content: object
    tool_calls: object = None


class Dumped:
    def __init__(self, **values):
        self.values = values

    def model_dump(self):
        return self.values


ALL = "{{ messages | tojson }}"


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        ({"role": "assistant", "content": None, "tool_calls": None}, {"role": "assistant"}),
        ({"role": "user", "content": "x", "refusal": None}, {"role": "user", "content": "x"}),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, {"role": "user", "content": [{"type": "text", "text": None}]}),
        (Message(Role.USER, "x"), {"role": "user", "content": "x"}),
        (Dumped(role="user", content="x", refusal=None), {"role": "user", "content": "x"}),
        ({"role": "tool", "content": {"a": np.float64(1.5), "b": (np.bool_(False), 2)}}, {"role": "tool", "content": {"a": 1.5, "b": [False, 2]}}),
        ({"role": "assistant", "reasoning": "r"}, {"thinking": "r", "role": "assistant", "reasoning": "r", "reasoning_content": "r"}),
    ])  # fmt: skip
def test_messages_are_shown_as_plain_data_without_keys_that_are_none(chat, message, seen):
    before = repr(message)
    assert json.loads(chat(ALL, [message])) == [seen]
    assert repr(message) == before


def cyclic():
    message = {"role": "user"}
    message["content"] = message
    return message


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("hi", "messages must be a list of dicts such as .*, got 'hi'"),
        (None, "messages must be a list of dicts such as .*, got None"),
        (MESSAGES[0], "messages must be a list of dicts"),
        ([], "at least one"),
        (["hi"], r"messages\[0\] must be a dict such as .*, got 'hi'"),
        ([MESSAGES], r"messages\[0\] must be a dict"),
        ([MESSAGES[0], 3], r"messages\[1\] must be a dict"),
        ([{}], r"messages\[0\] must name its role"),
        ([{"role": None, "content": "x"}], r"messages\[0\] must name its role"),
        ([{"role": 3, "content": "x"}], r"messages\[0\] must name its role"),
        ([{"role": "user", "content": object()}], r"messages\[0\]\['content'\] must be text, numbers, lists and dicts"),
        ([{"role": "user", "content": [np.zeros(3)]}], r"messages\[0\]\['content'\]\[0\] must be text"),
        ([cyclic()], r"messages\[0\] must not hold itself"),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(chat, messages, words):
    with pytest.raises(ArgumentError, match=words) as error:
        chat(ALL, messages)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"tools": [print]},
            r"tools\[0\] must be a function or a JSON schema such as .*, got <built-in function print>",
        ),
        ({"tools": TOOLS[0]}, "tools must be a list"),
        ({"tools": ["add"]}, r"tools\[0\] must be a function or a JSON schema"),
        ({"tools": [lambda: 0]}, "tool <lambda> must have a docstring"),
        ({"documents": "text"}, "documents must be a list"),
        ({"documents": ["text"]}, r'documents\[0\] must be a dict such as {"title"'),
        ({"add_generation_prompt": 1}, "add_generation_prompt must be True or False"),
        ({"continue_final_message": 1}, "continue_final_message must be True or False"),
        ({"continue_final_message": "thinking"}, "text in 'thinking', which this one has not"),
        ({"chat_template": 3}, "chat_template must be a template's name or text, got 3"),
        ({"chat_template": "defualt"}, "the names are default; did you mean 'default'?"),
        ({"controls": object()}, "controls must be text, numbers"),
    ],
)
def test_wrong_options_are_refused_by_name(chat, options, words):
    with pytest.raises(ArgumentError, match=words):
        chat(ALL, **options)


def test_whatever_else_the_template_reads_is_passed_on(chat):
    assert chat("{{ a.b[1] }}{{ tools[0].function.name }}{{ documents[1].text }}", a={"b": [1, 2]}, tools=TOOLS, documents=DOCUMENTS) == "2addé"  # fmt: skip
    assert chat("{{ enable_thinking is defined and enable_thinking is false }}", enable_thinking=False) == "True"
    assert chat("{{ bos_token }}{{ tokenizer }}", bos_token="mine", tokenizer="t") == "minet"
    assert chat("{% if add_generation_prompt %}>{% endif %}", add_generation_prompt=False) == ""


TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def test_the_last_message_can_be_written_on(chat):
    messages = [*MESSAGES[:1], {"role": "assistant", "content": "Hello "}]
    assert chat(TURNS, messages, continue_final_message=True) == "<user>Hi <b><end><assistant>Hello "
    trimmed = TURNS.replace("m.content", "m.content | trim")
    assert chat(trimmed, messages, continue_final_message=True) == "<user>Hi <b><end><assistant>Hello"
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}]}]
    assert chat("{{ messages[0].content[0].text }}!", parts, continue_final_message=True) == "Hi"
    assert messages[1]["content"] == "Hello " and parts[0]["content"][0]["text"] == "Hi"
    for template in ("nothing of it", "{{ messages[-1].content[9:] }}", "{{ messages[-1].content | upper }}"):
        with pytest.raises(TextError, match="leaves out or changes the last message"):
            chat(template, messages, continue_final_message=True)
    with pytest.raises(ArgumentError, match="needs a last message with text"):
        chat(TURNS, [{"role": "assistant", "content": None}], continue_final_message=True)


# ---- the folder's files ----


def test_the_template_of_tokenizer_config(tmp_path):
    def text(name, template, **options):
        tokenizer = Tokenizer(write_folder(tmp_path / name, KINDS["byte_level"], chat_template=template))
        return render_chat(tokenizer, MESSAGES, **options)

    several = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}, {"name": "rag", "template": "r"}]  # fmt: skip
    assert text("one", "T{{ messages | length }}") == text("one", "T{{ messages | length }}", tools=TOOLS) == "T2"
    for form in (several, {entry["name"]: entry["template"] for entry in several}):
        assert text("several", form) == "d"
        assert text("several", form, tools=TOOLS) == text("several", form, tools=[]) == "t"
        assert text("several", form, chat_template="rag", tools=TOOLS) == "r"
        assert text("several", form, chat_template="{{ 1 }}") == "1"
    for name, template in {"number": 3, "nested": [{"name": "default", "template": []}], "unnamed": [{}]}.items():
        with pytest.raises(TextError, match="chat_template must be a string"):
            text(name, template)
    for name, template in {"none": None, "empty": [], "no entry": ["x"]}.items():
        with pytest.raises(TextError, match="has no chat template"):
            text(name, template)
    with pytest.raises(TextError, match="has no default chat template: give chat_template, one of tool_use, rag"):
        text("no default", [several[0], several[2]])


def test_template_files_come_before_tokenizer_config(tmp_path):
    folder = write_folder(tmp_path, KINDS["byte_level"], chat_template="config")
    more = folder / "additional_chat_templates"
    more.mkdir()
    (more / "notes.txt").write_text("no template")
    assert render_chat(Tokenizer(folder), MESSAGES) == "config"
    (more / "tool_use.jinja").write_text("tools")
    assert render_chat(Tokenizer(folder), MESSAGES, tools=TOOLS) == "tools"
    with pytest.raises(TextError, match="no default"):
        render_chat(Tokenizer(folder), MESSAGES)
    (folder / "chat_template.jinja").write_text("file")
    assert render_chat(Tokenizer(folder), MESSAGES) == "file"
    for i in range(70):
        (more / f"{i}.jinja").touch()
    with pytest.raises(TextError, match="holds more than 64 templates"):
        render_chat(Tokenizer(folder), MESSAGES)


SPECIAL = (
    "{{ bos_token }},{{ eos_token }},{{ pad_token }},{{ image_token }},{{ additional_special_tokens | join('+') }}"
)


@pytest.mark.parametrize(
    ("config", "map", "text"),
    [
        ({}, None, ",,,,"),
        ({}, {"bos_token": "<b>", "eos_token": {"content": "<e>", "lstrip": False}}, "<b>,<e>,,,"),
        ({"bos_token": "<a>", "pad_token": "<p>"}, {"bos_token": "<b>"}, "<b>,,<p>,,"),
        ({"bos_token": "<a>", "added_tokens_decoder": {}}, {"bos_token": "<b>", "eos_token": "<e>"}, "<a>,,,,"),
        ({"image_token": "<i>", "add_bos_token": True, "pad_token": None}, None, ",,,<i>,"),
        ({"additional_special_tokens": ["<x>", {"content": "<y>"}]}, None, ",,,,<x>+<y>"),
        ({"extra_special_tokens": ["<x>"]}, None, ",,,,<x>"),
        ({"extra_special_tokens": {"image_token": "<i>"}}, None, ",,,<i>,"),
    ],
)
def test_special_tokens_have_the_names_that_the_files_give_them(tmp_path, config, map, text):
    folder = write_folder(tmp_path, KINDS["byte_level"], chat_template=SPECIAL, **config)
    if map is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(map))
    tokenizer = Tokenizer(folder)
    assert render_chat(tokenizer, MESSAGES) == text
    assert [tokenizer.bos_token or "", tokenizer.eos_token or ""] == text.split(",")[:2]


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"bos_token": 3}', b"\xff", b"[" * 100000, b'{"bos_token": {"content": []}}']
)
def test_a_malformed_file_is_named(tmp_path, name, content):
    folder = write_folder(tmp_path, KINDS["byte_level"])
    (folder / name).write_bytes(content)
    (folder / "chat_template.jinja").write_text("{{ bos_token }}")
    with pytest.raises(TextError, match=r"tokenizer_config\.json|special_tokens_map\.json") as error:
        render_chat(Tokenizer(folder), MESSAGES)
    assert len(str(error.value)) < 400


FILES = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "additional_chat_templates/a.jinja")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling", "large", "bytes", "pointer", "page"])
def test_a_file_that_is_none_neither_hangs_nor_fills_the_memory(tmp_path, name, kind):
    folder = write_folder(tmp_path, KINDS["byte_level"])
    (folder / "chat_template.jinja").write_text("{{ bos_token }}")
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to(folder / "nowhere")
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 33)
    elif kind == "pointer":  # of Git LFS: text, which a template could be
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    elif kind == "page":
        path.write_text("<!doctype html>\n<title>Sign in</title>")
    else:
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(FastDistillError, match=path.name):
        render_chat(Tokenizer(folder), MESSAGES)


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_another_key_of_the_last_message_may_go_on(chat, key):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes", "reasoning_content": "Hm, "}]
    for read in ("reasoning_content", "thinking"):
        template = "{{ messages[0].content }}<think>{{ messages[1]." + read + " }}</think>{{ messages[1].content }}"
        assert chat(template, messages, continue_final_message=key) == "Hi<think>Hm, "


def test_a_function_is_shown_by_its_schema(chat):
    template = "{{ tools | tojson }}"
    assert chat(template, tools=[add]) == json.dumps([function_schema(add)])
    with pytest.raises(ArgumentError, match="tool no_words: its docstring must describe argument a"):
        chat(template, tools=[no_words])
