"""Records become tokens, and what of them is to be learnt: texts, prompts with completions, conversations.

A prompt's tokens are those that it has alone, as when the model is asked it.  What follows has the tokens that it has in the
whole text, where that begins with the prompt's tokens, and those that it has alone where it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from fastdistill.errors import DataError
from fastdistill.messages import listed, short
from fastdistill.text.chat import render_chat
from fastdistill.text.tokenizer import Tokenizer

_EXPECTED = '"messages", "prompt" with "completion", or "text"'
_ANSWERS = "completion", "response"  # names of one thing


class Part(NamedTuple):
    """Tokens of an example; its parts follow one another.

    Attributes
    ----------
    tokens : list[int]
        may be none
    answer : bool
        the model is to write them; else it is asked them
    """

    tokens: list[int]
    answer: bool


def examples(record: Mapping[str, Any], tokenizer: Tokenizer) -> Iterator[Iterable[Part]]:
    """The examples of a record: one, or of a conversation more where its template writes a turn otherwise once others follow.

    Parameters
    ----------
    record : Mapping[str, Any]
        "messages", "prompt" and "completion" (or "response"), "text" or "prompt" alone: the first of them that it has;
        a prompt and its completion are texts or messages; a "text" that is an iterator comes in blocks
    tokenizer : Tokenizer

    Raises
    ------
    ArgumentError, DataError, TextError
        saying what it holds and what was expected
    """
    answer = next((name for name in _ANSWERS if name in record), None)
    if "messages" in record:
        yield from _conversation(_messages(record, "messages"), 0, record.get("tools"), tokenizer)
    elif "prompt" in record and (answer or "text" not in record):
        if not isinstance(record["prompt"], (list, tuple)):
            yield _completion(_text(record, "prompt"), _text(record, answer) if answer else None, tokenizer)
        else:
            prompt = _messages(record, "prompt")
            messages = prompt + (_messages(record, answer) if answer else [])
            yield from _conversation(messages, len(prompt), record.get("tools"), tokenizer)
    elif isinstance(record.get("text"), Iterator):
        yield _document(record["text"], tokenizer)
    elif "text" in record:
        yield _document([_text(record, "text")], tokenizer)
    else:
        raise DataError(f"has the keys {listed(map(short, record)) or '(none)'}; expected {_EXPECTED}")


def _text(record: Mapping[str, Any], name: str) -> str:
    text = record[name]
    if not isinstance(text, str):
        raise DataError(f'its "{name}" must be a text, found {short(text)}')
    return text


def _messages(record: Mapping[str, Any], name: str) -> list[Any]:
    messages = record[name]
    if not isinstance(messages, (list, tuple)) or not all(isinstance(message, Mapping) for message in messages):
        what = "a list of messages" if name == "messages" else "a text, or messages as its other part"
        raise DataError(f'its "{name}" must be {what}, found {short(messages)}')
    return list(messages)


def _document(blocks: Iterable[str], tokenizer: Tokenizer) -> Iterator[Part]:
    """A text, all of which is to be learnt, and the token that ends texts."""
    last: list[int] = []
    for number, block in enumerate(blocks):
        tokens = tokenizer.encode(block, special=number == 0)
        last = tokens or last
        yield Part(tokens, True)
    yield Part(_end(last, tokenizer), True)


def _completion(prompt: str, completion: str | None, tokenizer: Tokenizer) -> list[Part]:
    """A prompt, and what is to be written behind it, with the token that ends texts."""
    if completion is None:
        return [Part(tokenizer.encode(prompt), False)]
    asked, written = _encoded([prompt, completion], tokenizer, special=True)
    return [Part(asked, False), Part(written + _end(written, tokenizer), True)]


def _end(tokens: list[int], tokenizer: Tokenizer) -> list[int]:
    """The token that ends texts, where the model has one and they do not end with it."""
    end = None if tokenizer.eos_token is None else tokenizer.token_id(tokenizer.eos_token)
    return [] if end is None or tokens[-1:] == [end] else [end]


def _conversation(messages: list[Any], first: int, tools: Any, tokenizer: Tokenizer) -> Iterator[list[Part]]:
    """Assistant's turns from message `first` on are to be learnt, but one that nothing precedes.

    A template that leaves the thinking out of earlier turns shows a model, when it writes a turn, another text than the
    whole conversation's: such a turn is learnt in the text that ends with it.
    """

    def written(count: int, asks: bool) -> str:
        return render_chat(tokenizer, messages[:count], add_generation_prompt=asks, tools=tools)

    whole = written(len(messages), False)  # refuses what are no messages
    turns = [
        number for number, message in enumerate(messages) if message["role"] == "assistant" and number >= max(first, 1)
    ]
    if messages[-1]["role"] != "assistant":
        whole = written(len(messages), True)
    elif not turns:
        return
    spans = {number: _span(number, written) for number in turns}
    while True:
        within = [number for number in turns if whole.startswith(spans[number][0])]
        yield _parts(whole, [(spans[number][1], len(spans[number][0])) for number in within], tokenizer)
        turns = [number for number in turns if number not in within]
        if not turns:
            return
        whole = spans[turns[-1]][0]


def _span(number: int, written: Any) -> tuple[str, int]:
    """The conversation up to this turn of the assistant, and where in it the model begins to write."""
    asked, answered = written(number, True), written(number + 1, False)
    if answered.startswith(asked):
        return answered, len(asked)
    begin = next(place for place, (one, other) in enumerate(zip(asked, answered + "\0", strict=False)) if one != other)
    before = written(number, False)  # an answer may lack what opens its thinking, but nothing earlier
    if begin < len(before) or not answered.startswith(before):
        raise DataError(f"the chat template writes what precedes turn {number} otherwise once the turn is there")
    return answered, begin


def _parts(text: str, spans: list[tuple[int, int]], tokenizer: Tokenizer) -> list[Part]:
    """A rendered conversation of which these characters are to be learnt, up to the special token that ends a turn."""
    cuts = [0, *(place for span in spans for place in span), len(text)]
    found: list[Part] = []
    for number, tokens in enumerate(_encoded([text[a:b] for a, b in pairwise(cuts)], tokenizer, special=False)):
        if number % 2 == 0:
            found.append(Part(tokens, False))
            continue
        ends = [place + 1 for place, token in enumerate(tokens) if token in tokenizer.special_ids]
        end = ends[-1] if ends and not tokenizer.decode(tokens[ends[-1] :]).strip() else len(tokens)
        found += [Part(tokens[:end], True), Part(tokens[end:], False)]
    while spans and spans[-1][1] == len(text) and not found[-1].answer:
        found.pop()  # a line's end behind the last turn: nothing more is asked
    return found


def _encoded(parts: list[str], tokenizer: Tokenizer, special: bool) -> list[list[int]]:
    """The tokens of texts that follow one another: those of the whole, where it begins with the first one's own."""
    apart = [tokenizer.encode(part, special and number == 0) for number, part in enumerate(parts)]
    whole, cuts = tokenizer.encode("".join(parts), special), [0]
    if whole == [token for tokens in apart for token in tokens]:
        return apart
    for text in accumulate(parts[:-1]):
        tokens = tokenizer.encode(text, special)
        if whole[: len(tokens)] != tokens:
            return apart
        cuts.append(len(tokens))
    return [whole[a:b] for a, b in pairwise([*cuts, len(whole)])]
