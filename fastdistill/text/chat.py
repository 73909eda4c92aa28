"""A conversation as the text a model was trained to continue, by the folder's chat template.

Templates come with models, so they run in jinja2's sandbox: they can read what they are given and change nothing.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from fastdistill.arguments import check_instance
from fastdistill.errors import TextError
from fastdistill.text.tokenizer import Tokenizer


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Any] | None = None,
    documents: Sequence[Any] | None = None,
    **variables: Any,
) -> str:
    """The text of a conversation; encode it with special=False, since a template writes bos itself.

    messages               [{"role": "user", "content": "..."}, ...]
    add_generation_prompt  end with what opens the assistant's turn
    variables              whatever else the template reads

    Raises TextError where there is no template, where it is malformed or refuses the messages, or without jinja2.
    """
    check_instance("tokenizer", tokenizer, Tokenizer)
    template = tokenizer.chat_template
    if template is None:
        raise TextError(
            f"{tokenizer.folder} has no chat template: add chat_template.jinja, or give the prompt as plain text"
        )
    names = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""}
    try:
        return _compiled(template).render(
            messages=messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            **names | variables,
        )
    except TextError:
        raise
    except Exception as error:  # a template is a program: it may fail in any way
        raise TextError(f"{tokenizer.folder}: the chat template failed: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    try:
        import jinja2.ext
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise TextError(f'a chat template needs jinja2 ({error}): pip install "fastdistill[demo]"') from error

    class Generation(jinja2.ext.Extension):
        """`{% generation %}`, which marks the assistant's words for training: what is inside, as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def strftime_now(format: str) -> str:
        return datetime.datetime.now().strftime(format)

    def tojson(value: Any, ensure_ascii: bool = False, **settings: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **settings)  # jinja2's own escapes what HTML would misread

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return environment.from_string(template)
