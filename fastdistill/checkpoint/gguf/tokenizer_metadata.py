"""A folder's tokenizer as a GGUF file's metadata: byte-level BPE, and BPE over SentencePiece's alphabet with byte fallback."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.checkpoint.config import eos_token_ids
from fastdistill.checkpoint.folder import Checkpoint
from fastdistill.checkpoint.gguf.pre_tokenizers import PRE_TOKENIZERS
from fastdistill.errors import CheckpointError, FastDistillError, UnsupportedError
from fastdistill.files import TEMPLATES, read_json, read_text
from fastdistill.messages import short

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = "▁"
_MAX_TEMPLATE_BYTES = 1 << 20
# How the tokens that have names are called there.
_IDS = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask"}


def tokenizer_metadata(checkpoint: Checkpoint, rows: int) -> dict[str, Any]:
    """The metadata of the tokenizer, whose tokens are filled up to the embedding's rows.

    Raises
    ------
    CheckpointError
        where a file is missing or malformed, or has more tokens than the embedding rows
    UnsupportedError
        for a tokenizer that llama.cpp has none like
    """
    folder = checkpoint.folder
    path = folder / "tokenizer.json"
    if not os.path.lexists(path):
        raise CheckpointError(f"{path}: there is no such file: a GGUF file holds the tokenizer too")
    try:
        return _metadata(checkpoint, read_json(path), str(path), rows)
    except FastDistillError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as problem:
        raise CheckpointError(
            f"{path}: it, or what lies beside it, is no tokenizer ({type(problem).__name__}: {short(str(problem))})"
        ) from None


def _metadata(checkpoint: Checkpoint, tokenizer: Mapping[str, Any], path: str, rows: int) -> dict[str, Any]:
    kind, details = _kind(tokenizer)
    if isinstance(details, str):
        raise UnsupportedError(f"{path}: {details} cannot be written as GGUF")
    model, added = tokenizer["model"], tokenizer.get("added_tokens") or []
    tokens = {int(id): str(token) for token, id in dict(model["vocab"]).items()}
    tokens |= {int(token["id"]): str(token["content"]) for token in added}
    special = {int(token["id"]): bool(token["special"]) for token in added}
    merges = [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    if tokens and not 0 <= min(tokens) <= max(tokens) < rows:
        raise CheckpointError(f"{path}: has the token {max(tokens)}, but the embedding has {rows} rows")

    unknown = model.get("unk_token")

    def type_of(id: int) -> int:
        token = tokens.get(id)
        if token is None:
            return _UNUSED
        if kind == "llama" and token == unknown:
            return _UNKNOWN
        if id in special:
            return _CONTROL if special[id] else _USER_DEFINED
        byte = kind == "llama" and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        return _BYTE if byte else _NORMAL

    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": kind,
        **details,
        "tokenizer.ggml.tokens": [tokens.get(id, f"[PAD{id}]") for id in range(rows)],
        "tokenizer.ggml.token_type": np.array([type_of(id) for id in range(rows)], np.int32),
    }
    if kind == "gpt2":
        metadata["tokenizer.ggml.merges"] = [" ".join(pair) for pair in merges]
    else:
        metadata["tokenizer.ggml.pre"] = "default"
        # llama.cpp joins the pair whose token has the highest score: the one whose merge comes first.
        ranks: dict[str, int] = {}
        for rank, pair in enumerate(merges):
            ranks.setdefault("".join(pair), rank)
        scores = [-float(ranks.get(tokens.get(id, ""), len(merges))) for id in range(rows)]
        metadata["tokenizer.ggml.scores"] = np.array(scores, np.float32)
    metadata |= _special(checkpoint, tokenizer, {token: id for id, token in tokens.items()})
    for value in metadata.values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                text.encode()  # JSON may hold what UTF-8 may not
    return metadata


def _kind(tokenizer: Mapping[str, Any]) -> tuple[str, dict[str, Any] | str]:
    """llama.cpp's name of the kind, and the metadata that say more; or what it has no name for."""
    model = tokenizer["model"]
    if model.get("type", "BPE") != "BPE":
        return "", f"a tokenizer of type {short(model['type'])}"
    normalizers, steps = _steps(tokenizer.get("normalizer")), _steps(tokenizer.get("pre_tokenizer"))
    if any(step["type"] == "ByteLevel" for step in steps):
        if any(step != {"type": "NFC"} for step in normalizers):
            return "", f"the normalizer {short(tokenizer['normalizer'])}"
        splits, whole = _splits(steps), bool(model.get("ignore_merges"))
        names = [
            name
            for name, known in PRE_TOKENIZERS.items()
            if known.bytes and (known.splits, known.whole_words) == (splits, whole)
        ]
        if names:  # of several only qwen2 stands for text that is put into NFC first
            names.sort(key=lambda name: (name == "qwen2") is not bool(normalizers))
            return "gpt2", {"tokenizer.ggml.pre": names[0]}
        return "", f"the pre-tokenizer {short(tokenizer['pre_tokenizer'], 300)}"
    if not model.get("byte_fallback"):
        return "", "BPE that falls back on no bytes"
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    if normalizers[-1:] == [replaced] and steps in ([], [split]):
        prepended = normalizers[:-1] == [{"type": "Prepend", "prepend": _SPACE}]
        if prepended or len(normalizers) == 1:
            return "llama", {"tokenizer.ggml.add_space_prefix": prepended}
    if not normalizers and [step["type"] for step in steps] == ["Metaspace"]:
        return "llama", {"tokenizer.ggml.add_space_prefix": steps[0].get("prepend_scheme", "always") != "never"}
    return (
        "",
        f"the normalizer {short(tokenizer.get('normalizer'))} with the pre-tokenizer {short(tokenizer.get('pre_tokenizer'))}",
    )


def _steps(part: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as the steps that it is a sequence of, without what changes no token."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        inner = part.get("pretokenizers") or part.get("normalizers") or []
        return [step for piece in inner for step in _steps(piece)]
    return [{name: value for name, value in part.items() if name != "trim_offsets"}]


def _splits(steps: list[dict[str, Any]]) -> tuple[str, ...] | None:
    """The regular expressions that cut a text in turn; None where something else does."""
    (digit, words), found = PRE_TOKENIZERS["smollm"].splits, []
    for step in steps:
        kind, pattern = step["type"], step.get("pattern", {}).get("Regex")
        # What is left between matches is kept, or what is not a match goes: of expressions that match all, the same.
        if (
            kind == "Split"
            and pattern
            and (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True))
        ):
            found.append(pattern)
        elif kind == "Digits" and step.get("individual_digits"):
            found.append(digit)
        elif kind == "ByteLevel" and not step.get("add_prefix_space", True):
            found += [words] if step.get("use_regex", True) else []
        else:
            return None
    return tuple(found)


def _special(checkpoint: Checkpoint, tokenizer: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """The tokens that have names, whether a text begins and ends with some, and the chat templates."""
    folder, metadata = checkpoint.folder, {}
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if os.path.lexists(folder / name):
            config |= read_json(folder / name)
    for name, key in _IDS.items():
        token = config.get(f"{name}_token")
        token = token.get("content") if isinstance(token, dict) else token
        found = (
            ids.get(token)
            if isinstance(token, str)
            else checkpoint.config.integer(f"{name}_token_id", default=None)
            if (type(checkpoint.config.raw.get(f"{name}_token_id")) is int)
            else None
        )
        if found is not None and found in ids.values():
            metadata[f"tokenizer.ggml.{key}_token_id"] = found
    ends = eos_token_ids(checkpoint.config, checkpoint.generation_config) - {
        metadata.get("tokenizer.ggml.eos_token_id")
    }
    if ends & set(ids.values()):
        metadata["tokenizer.ggml.eot_token_id"] = min(ends & set(ids.values()))
    around = _around(tokenizer.get("post_processor"))
    for name, at in (("bos", 0), ("eos", -1)):
        id = metadata.get(f"tokenizer.ggml.{name}_token_id")
        added = around[at] is not None
        if added and (id is None or ids.get(around[at] or "") != id):
            raise UnsupportedError(
                f"{folder / 'tokenizer.json'}: puts {short(around[at])} around a text, which is not its {name}_token"
            )
        metadata[f"tokenizer.ggml.add_{name}_token"] = added
    return metadata | _templates(folder, config)


def _around(processor: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The tokens that a post-processor puts before and after a text."""
    processor = processor or {}
    for inner in processor.get("processors", [processor]):
        if inner.get("type") == "TemplateProcessing":
            names = [piece.get("SpecialToken", {}).get("id") for piece in inner["single"]]
            text = names.index(None)
            before, after = names[:text], names[text + 1 :]
            if len(before) > 1 or len(after) > 1:
                return " ".join(before) or None, " ".join(after) or None
            return (before or [None])[0], (after or [None])[0]
    return None, None


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    found = config.get("chat_template")
    named = {entry["name"]: entry["template"] for entry in found} if isinstance(found, list) else {"default": found}
    if (folder / TEMPLATES).is_dir():
        for path in sorted((folder / TEMPLATES).glob("*.jinja")):
            named[path.stem] = read_text(path, _MAX_TEMPLATE_BYTES)
    if os.path.lexists(folder / "chat_template.jinja"):
        named["default"] = read_text(folder / "chat_template.jinja", _MAX_TEMPLATE_BYTES)
    return {
        "tokenizer.chat_template" + ("" if name == "default" else f".{name}"): template
        for name, template in named.items()
        if isinstance(template, str)
    }
