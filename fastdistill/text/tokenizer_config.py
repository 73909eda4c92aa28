"""What stands beside tokenizer.json: how the special tokens are called, and the chat templates.

Both as transformers reads them: special_tokens_map.json before tokenizer_config.json, but not at all where the latter
holds `added_tokens_decoder`; template files before templates in tokenizer_config.json.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from fastdistill.cached import cached_property
from fastdistill.errors import ArgumentError, TextError
from fastdistill.files import TEMPLATES, read_json, read_text
from fastdistill.messages import listed, short, suggestion

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_TEMPLATE_BYTES = 1 << 20  # twenty times the longest published one
MOST_TEMPLATES = 64
MOST_ENTRIES = 1000  # of additional_chat_templates/, whatever they are


class TokenizerConfig:
    """The special tokens and chat templates of a model's folder. Files are read on first use.

    Raises
    ------
    TextError
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def special_tokens(self) -> Mapping[str, str | list[str]]:
        """Each special token that has a name: bos_token, eos_token, ..., and what else the model calls `..._token`.

        `additional_special_tokens` is a list.  A token that the files do not name, or name null, is absent.
        """
        values = self._config
        if "added_tokens_decoder" not in values:
            values = values | self._json("special_tokens_map.json")
        tokens: dict[str, str | list[str]] = {}
        extra = values.get("extra_special_tokens")  # the newer place: names of the model's own, or a plain list
        if isinstance(extra, dict):
            values = values | extra
        for name, value in values.items():
            spelt = value.get("content") if isinstance(value, dict) else value  # a token may come with its settings
            if name in NAMED and value is not None and not isinstance(spelt, str):
                raise TextError(f"{self.folder / 'tokenizer_config.json'}: {name} must be text, got {short(value)}")
            if isinstance(spelt, str) and (name.endswith("_token") or (isinstance(extra, dict) and name in extra)):
                tokens[name] = spelt
        more = values.get("additional_special_tokens") or extra
        if isinstance(more, list):
            spelt = [token.get("content") if isinstance(token, dict) else token for token in more]
            tokens["additional_special_tokens"] = [token for token in spelt if isinstance(token, str)]
        return tokens

    @cached_property
    def chat_templates(self) -> Mapping[str, str]:
        """Templates by name; the only one, or the usual one, is "default"."""
        files = {"default": self.folder / "chat_template.jinja"} if self._has("chat_template.jinja") else {}
        templates = {name: _template(path) for name, path in (files | self._additional()).items()}
        if templates:
            return templates
        found = self._config.get("chat_template")
        named: list[tuple[Any, Any]]
        if isinstance(found, list):
            named = [(entry.get("name"), entry.get("template")) for entry in found if isinstance(entry, dict)]
        elif isinstance(found, dict):
            named = list(found.items())
        else:
            named = [] if found is None else [("default", found)]
        for name, template in named:
            if not isinstance(name, str) or not isinstance(template, str):
                path = self.folder / "tokenizer_config.json"
                raise TextError(f"{path}: chat_template must be a string or named strings, got {short(template)}")
        return dict(named)

    def chat_template(self, wanted: str | None = None, tools: bool = False) -> str:
        """The template to use: the one of that name, or that text itself, or by default the usual one.

        Parameters
        ----------
        wanted : str, optional
        tools : bool, default False
            there are tools, for which a model may have a template of its own, "tool_use"

        Raises
        ------
        TextError
            where there is none
        ArgumentError
            where none has that name
        """
        known = self.chat_templates
        if wanted is not None:
            if not isinstance(wanted, str):
                raise ArgumentError(f"chat_template must be a template's name or text, got {short(wanted)}")
            if wanted not in known and "{" not in wanted:
                raise ArgumentError(
                    f"chat_template must be a template or the name of one, got {short(wanted)}; "
                    f"the names are {listed(known) or 'none'}{suggestion(wanted, known)}"
                )
            return known.get(wanted, wanted)
        if not known:
            raise TextError(
                f"{self.folder} has no chat template: add chat_template.jinja, or give the prompt as plain text"
            )
        name = "tool_use" if tools and "tool_use" in known else "default"
        if name not in known:
            raise TextError(f"{self.folder} has no default chat template: give chat_template, one of {listed(known)}")
        return known[name]

    @cached_property
    def _config(self) -> dict[str, Any]:
        return self._json("tokenizer_config.json")

    def _has(self, name: str) -> bool:
        return os.path.lexists(self.folder / name)

    def _json(self, name: str) -> dict[str, Any]:
        return read_json(self.folder / name, error=TextError) if self._has(name) else {}

    def _additional(self) -> dict[str, Path]:
        place = self.folder / TEMPLATES
        if not place.is_dir():
            return {}
        try:
            with os.scandir(place) as entries:
                names = [entry.name for entry in islice(entries, MOST_ENTRIES + 1)]
        except OSError as error:
            raise TextError(f"{place}: cannot be read: {error.strerror or error}") from error
        found = {name.removesuffix(".jinja"): place / name for name in sorted(names) if name.endswith(".jinja")}
        if len(names) > MOST_ENTRIES or len(found) > MOST_TEMPLATES:
            raise TextError(f"{place}: holds more than {MOST_TEMPLATES} templates or {MOST_ENTRIES} files")
        return found


def mask_token_id(folder: Path, vocab_size: int) -> int | None:
    """The token that a folder's files call mask_token, without the package `tokenizers`; None where they name none of the model's.

    Raises
    ------
    TextError
    """
    path = folder / "tokenizer.json"
    named = TokenizerConfig(folder).special_tokens.get("mask_token")
    if named is None or not os.path.lexists(path):
        return None
    added = read_json(path, error=TextError).get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and token.get("content") == named and type(id := token.get("id")) is int:
            return id if 0 <= id < vocab_size else None
    return None


def _template(path: Path) -> str:
    text = read_text(path, MAX_TEMPLATE_BYTES, TextError)
    return text.replace("\r\n", "\n").replace("\r", "\n")
