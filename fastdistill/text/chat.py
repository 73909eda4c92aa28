"""A conversation as the text a model was trained to continue, by the folder's chat template.

What a template sees is what transformers' `apply_chat_template` shows it, so that published templates write the same
text.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastdistill.arguments import check_flag, check_instance
from fastdistill.errors import ArgumentError, TextError
from fastdistill.messages import short
from fastdistill.text.templates import render_template
from fastdistill.text.tokenizer import Tokenizer
from fastdistill.text.tool_schema import function_schema

MESSAGE = '{"role": "user", "content": "Hello"}'
TOOL = '{"type": "function", "function": {"name": ..., "description": ..., "parameters": ...}}'
_REASONING = ("reasoning_content", "thinking", "reasoning")  # one thing under its names, the usual one first
# Written behind the message to continue, found again in the text.  A template may strip the space, which then says so.
_MARK = "THE_ANSWER_GOES_ON_FROM_HERE "


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Any],
    /,
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool | str = False,
    tools: Sequence[Any] | None = None,
    documents: Sequence[Any] | None = None,
    chat_template: str | None = None,
    **variables: Any,
) -> str:
    """The text of a conversation; encode it with special=False, since a template writes bos itself.

    Parameters
    ----------
    tokenizer : Tokenizer
    messages : Sequence[Any]
        [{"role": "user", "content": "..."}, ...]; dataclasses and pydantic models do as well; a key that is None counts
        as absent
    add_generation_prompt : bool, default True
        end with what opens the assistant's turn
    continue_final_message : bool | str, default False
        end within the last message, which the model writes on; then nothing opens a turn. A str names the key that goes
        on, "reasoning_content" say, in place of "content"
    tools : Sequence[Any], optional
        functions (`function_schema`), or JSON schemas of some; a model's template "tool_use" is for them
    documents : Sequence[Any], optional
        dicts, usually of "title" and "text"
    chat_template : str, optional
        the name of a template of the folder, or one's own text
    **variables : Any
        whatever else the template reads; also in place of a special token

    Raises
    ------
    ArgumentError
        for messages that are none
    TextError
        where there is no template, where it is malformed, refuses the messages or takes more time or memory than
        `render_template` grants, or without jinja2
    """
    check_instance("tokenizer", tokenizer, Tokenizer)
    given = {
        "messages": _conversation(messages),
        "tools": _dicts("tools", tools, f"a function or a JSON schema such as {TOOL}"),
        "documents": _dicts("documents", documents, 'a dict such as {"title": ..., "text": ...}'),
        "add_generation_prompt": check_flag("add_generation_prompt", add_generation_prompt),
        **{name: _plain(name, value) for name, value in variables.items()},
    }
    template = tokenizer.config.chat_template(chat_template, tools=tools is not None)
    final = None
    if isinstance(continue_final_message, str) or check_flag("continue_final_message", continue_final_message):
        given["add_generation_prompt"] = False
        key = continue_final_message if isinstance(continue_final_message, str) else "content"
        final = _mark(given["messages"][-1], key)
    try:
        text = render_template(template, {**tokenizer.config.special_tokens, **given})
    except TextError as error:
        raise TextError(f"{tokenizer.folder}: {error}") from error
    return text if final is None else _cut(text, final)


def is_conversation(value: object) -> bool:
    """Whether this is messages or one of them, and so neither text nor token ids."""
    one = value[0] if isinstance(value, (list, tuple)) and value else value
    return isinstance(one, Mapping) or callable(getattr(one, "model_dump", None))


def _conversation(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, (list, tuple)):
        raise ArgumentError(f"messages must be a list of dicts such as {MESSAGE}, got {short(messages)}")
    if not messages:
        raise ArgumentError(f"messages must hold at least one dict such as {MESSAGE}, got none")
    return [_message(f"messages[{i}]", message) for i, message in enumerate(messages)]


def _message(name: str, value: Any) -> dict[str, Any]:
    message = _plain(name, value)
    if not isinstance(message, dict):
        raise ArgumentError(f"{name} must be a dict such as {MESSAGE}, got {short(value)}")
    message = {key: item for key, item in message.items() if item is not None}
    if not isinstance(message.get("role"), str):
        raise ArgumentError(f"{name} must name its role, as {MESSAGE} does, got {short(value)}")
    reasoning = next((message[key] for key in _REASONING if key in message), None)
    if reasoning is not None:
        message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return message


def _dicts(name: str, values: Any, expected: str) -> list[dict[str, Any]] | None:
    if values is None:
        return None
    if not isinstance(values, (list, tuple)):
        raise ArgumentError(f"{name} must be a list, each {expected}, got {short(values)}")
    found = []
    for i, value in enumerate(values):
        if name == "tools" and (inspect.isfunction(value) or inspect.ismethod(value)):
            value = function_schema(value)
        item = None if callable(value) else _plain(f"{name}[{i}]", value)
        if not isinstance(item, dict):
            raise ArgumentError(f"{name}[{i}] must be {expected}, got {short(value)}")
        found.append(item)
    return found


def _plain(name: str, value: Any) -> Any:
    """The value made of None, booleans, numbers, text, and lists, tuples and dicts of them: a template calls no method else."""
    try:
        return _copied(name, value)
    except RecursionError:
        raise ArgumentError(f"{name} must not hold itself, nor be nested so deeply") from None


def _copied(name: str, value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, str):  # an enum's member, say
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, np.generic):
        return _copied(name, value.item())
    if isinstance(value, Mapping):
        return {_copied(f"a key of {name}", key): _copied(f"{name}[{short(key)}]", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_copied(f"{name}[{i}]", item) for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _copied(f"{name}.{field.name}", getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if callable(getattr(value, "model_dump", None)) and not isinstance(value, type):
        return _copied(name, value.model_dump())
    raise ArgumentError(f"{name} must be text, numbers, lists and dicts, got {short(value)}")


def _mark(message: dict[str, Any], key: str) -> str:
    """Mark the end of a message's text, and give the text."""
    content = message.get(key)
    if isinstance(content, str):
        for name in _REASONING if key in _REASONING else (key,):  # under all of its names
            if message.get(name) == content:
                message[name] = content + _MARK
        return content
    for part in reversed(content if isinstance(content, (list, tuple)) else ()):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text: str = part["text"]
            part["text"] = text + _MARK
            return text
    raise ArgumentError(
        f"continue_final_message needs a last message with text in {short(key)}, which this one has not"
    )


def _cut(text: str, final: str) -> str:
    """The rendered text up to the mark behind its last message."""
    end = text.rfind(_MARK.strip())
    if end < 0 or final.strip() not in text[:end]:
        raise TextError("the chat template leaves out or changes the last message, so that nothing can be written on")
    return text[:end] if text.startswith(_MARK, end) else text[:end].rstrip()
