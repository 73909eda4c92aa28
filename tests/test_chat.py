"""Model.chat and chat_prompt: a conversation becomes the next turn; messages and rendered text where they do not belong."""

from __future__ import annotations

import json
import warnings

import pytest

import fastdistill as fd
from fastdistill.checkpoint import write_checkpoint
from fastdistill.errors import ArgumentError, TextError
from fastdistill.models import plan_for
from tests.small_models import config, tensors
from tests.text.tokenizers_made_here import byte_level

TEMPLATE = (
    "<|special|>{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{{ style }}"
    "{% for t in tools or [] %}{{ t.name }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
BEGINS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|special|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|special|>": {"id": "<|special|>", "ids": [0], "tokens": ["<|special|>"]}},
}
MESSAGES = [{"role": "user", "content": "the ab"}]


def load(folder, **tokenizer):
    settings = config("plain")
    files = {"tokenizer.json": json.dumps(byte_level() | tokenizer).encode(), "chat_template.jinja": TEMPLATE.encode()}
    write_checkpoint(folder, settings.raw, tensors(plan_for(settings)).values(), files)
    return fd.load(folder, threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One whose tokenizer begins each text with a token, as its template does."""
    return load(tmp_path_factory.mktemp("models") / "begins", post_processor=BEGINS)


def test_chat_writes_what_follows_the_prompt_of_its_messages(model):
    options = {"max_tokens": 40, "temperature": 1.0, "seed": 3}
    prompt = model.chat_prompt(MESSAGES)
    assert prompt == model.tokenizer.encode("<|special|>user:the ab\nassistant:", special=False) and prompt[0] == 0
    want = model.generate(prompt, **options)
    answer = model.chat(MESSAGES, **options)
    assert (answer.text, answer.tokens) == (want.text, want.tokens)
    pieces, stream = [], model.chat(MESSAGES, stream=True, **options)
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            assert end.value.tokens == want.tokens and "".join(pieces) == want.text and len(pieces) > 1
            break


def test_chat_passes_on_what_the_template_reads(model):
    template = {"style": "short ", "tools": [{"name": "add"}], "add_generation_prompt": False}
    prompt = model.chat_prompt(MESSAGES, **template)
    assert model.tokenizer.decode(prompt) == "user:the ab\nshort add"
    answer = model.chat(MESSAGES, template=template, max_tokens=4)
    assert answer.stats.prompt_tokens == len(prompt) and answer.tokens == model.generate(prompt, max_tokens=4).tokens
    prompt = model.chat_prompt([*MESSAGES, {"role": "assistant", "content": "abc"}], continue_final_message=True)
    assert model.tokenizer.decode(prompt) == "user:the ab\nassistant:abc"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"template": 3}, "template must be a dict of chat_prompt's options, got 3"),
        ({"template": {3: 4}}, "template must be a dict of chat_prompt's options"),
        ({"template": {"messages": MESSAGES}}, "template cannot hold the messages"),
        ({"template": {"tools": "add"}}, "tools must be a list"),
        ({"stream": 1}, "stream must be True or False, got 1"),
        ({"max_tokens": -1}, "max_tokens"),
    ],
)
def test_chat_refuses_wrong_options_by_name(model, options, words):
    with pytest.raises(ArgumentError, match=words):
        model.chat(MESSAGES, **options)


def test_what_is_wrong_with_messages_is_known_before_anything_streams(model):
    with pytest.raises(ArgumentError, match="messages must be a list of dicts"):
        model.chat("hi", stream=True)
    with pytest.raises(TextError, match="UndefinedError"):
        model.chat(MESSAGES, stream=True, template={"tools": None, "chat_template": "{{ a.b }}"})


class Message:
    def model_dump(self):
        return MESSAGES[0]


@pytest.mark.parametrize("write", ["generate", "stream"])
@pytest.mark.parametrize(
    "prompt", [MESSAGES, tuple(MESSAGES), MESSAGES[0], [MESSAGES, MESSAGES], [Message()], ["text", MESSAGES]]
)
def test_messages_given_as_a_prompt_name_what_takes_them(model, write, prompt):
    with pytest.raises(
        ArgumentError, match=r"got messages: chat\(messages\) answers them, chat_prompt\(messages\) gives"
    ):
        getattr(model, write)(prompt)


def test_a_rendered_chat_given_as_text_warns_that_it_begins_twice(model, tmp_path):
    text = "<|special|>user:the ab\nassistant:"
    for write in (model.generate, model.stream, model.score):
        with pytest.warns(
            UserWarning, match=r"begins with '<\|special\|>' twice: its text has it and the tokenizer"
        ) as found:
            write(text)
        assert [warning.filename for warning in found] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for quiet in ("user:the ab", " " + text, "", "<|special", model.tokenizer.encode(text), [[0, 0, 5], [7]]):
            model.generate(quiet, max_tokens=1)
        plain = load(tmp_path / "plain")
        plain.generate(text, max_tokens=1)
        plain.generate("<|special|>" + text, max_tokens=1)
