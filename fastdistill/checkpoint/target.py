"""How texts begin and end that a model with an encoder writes: what generation_config.json says, or config.json where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastdistill.checkpoint.config import Config, Section, eos_token_ids, said_of_texts
from fastdistill.messages import warn


@dataclass(frozen=True)
class Target:
    """Tokens with a part of their own in what is written of a source.

    Parameters
    ----------
    start : int
        that every text begins with, before its first token
    first : int, optional
        that its first token has to be
    last : int, optional
        that its last token has to be, where it is as long as may be
    banned : tuple[int, ...], default ()
        that no text holds; none that it may have to end with
    no_repeat_ngram_size : int, default 0
        no run of so many tokens comes twice in a text; 0: any may
    """

    start: int
    first: int | None = None
    last: int | None = None
    banned: tuple[int, ...] = ()
    no_repeat_ngram_size: int = 0


def target_of(config: Config, generation_config: Mapping[str, Any], start: int, vocab_size: int) -> Target:
    """What both files say.

    Parameters
    ----------
    config : Config
        config.json
    generation_config : Mapping[str, Any]
        generation_config.json; where it is empty, config.json is asked for all of it
    start : int
        what texts begin with where generation_config.json does not say
    vocab_size : int
        above every token

    Raises
    ------
    CheckpointError
    """
    generation = Section(generation_config, "generation_config.json")
    said = said_of_texts(config, generation_config)
    most = vocab_size - 1
    start = generation.integer("decoder_start_token_id", maximum=most, default=start)
    last = said.raw.get("forced_eos_token_id")
    if type(last) is list:
        last = next(iter(said.integers("forced_eos_token_id", maximum=most)), None)
    else:
        last = said.integer("forced_eos_token_id", maximum=most, default=None)
    first = said.integer("forced_bos_token_id", maximum=most, default=None)
    needed = eos_token_ids(config, generation_config) | {first, last}
    banned = tuple(token for token in _banned(said, most) if token not in needed)
    return Target(start, first, last, banned, said.integer("no_repeat_ngram_size", default=0))


def _banned(said: Section, most: int) -> tuple[int, ...]:
    """The words of one token among those that no text may hold; longer ones are named."""
    words = said.raw.get("bad_words_ids")
    if not words:
        return ()
    known = type(words) is list and all(
        type(word) is list and word and all(type(token) is int and 0 <= token <= most for token in word)
        for word in words
    )
    if not known:
        said.refuse("bad_words_ids", words, f"a list of lists of tokens, from 0 to {most}")
    longer = [word for word in words if len(word) > 1]
    if longer:
        warn(
            f"{said.source}: bad_words_ids of more than one token are not kept out of texts: {len(longer)} of {len(words)}"
        )
    banned = tuple(sorted({word[0] for word in words if len(word) == 1}))
    if len(banned) > most:
        said.refuse("bad_words_ids", len(banned), f"fewer than all {most + 1} tokens")
    return banned
