"""What a target is asked: the user's prompts, and the package's own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from fastdistill.text.chat import render_chat
from fastdistill.train.data.examples import examples
from fastdistill.train.data.own_prompts import own_prompts
from fastdistill.train.data.records import read_records
from fastdistill.train.own_texts.target import Target

LEAST_ROOM = 16  # tokens of a text, behind its prompt
_OWN = 8192  # prompts of the package: more than any half hour needs
_TEXT_PROMPT = 32  # tokens of a plain text that are a prompt


def prompts_of(target: Target, files: str | None, seed: int, max_length: int | None = None) -> Iterator[list[int]]:
    """Token ids: the user's, each behind one of the package's own while there are some of both; those that leave no room are left out."""
    most = min(target.plan.max_positions, max_length or target.plan.max_positions)
    prompts: Iterator[list[int]] = (_asked(target, text) for text in own_prompts(_OWN, seed))
    if files is not None:
        theirs = prompts_in(files, target)
        pairs = zip(prompts, theirs, strict=False)  # what is lost when theirs are over is one of the package's
        prompts = chain(chain.from_iterable(pairs), theirs, prompts)
    return (prompt for prompt in prompts if len(prompt) + LEAST_ROOM <= most)


def _asked(target: Target, text: str) -> list[int]:
    """A question as the model is asked it: by its template, where it has one."""
    if target.tokenizer.config.chat_template is None:
        return target.tokenizer.encode(text)
    asked = render_chat(target.tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)
    return target.tokenizer.encode(asked, special=False)


def prompts_in(files: str, target: Target) -> Iterator[list[int]]:
    """Token ids of a user's: of a record with an answer what comes before it, of a plain text its first words."""
    for _, record in read_records(files):
        for example in examples(record, target.tokenizer):
            prompt: list[int] = []
            for part in example:
                if part.answer:
                    prompt = prompt or part.tokens[:_TEXT_PROMPT]
                    break
                prompt += part.tokens
            if prompt:
                yield prompt
