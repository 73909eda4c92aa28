"""A GGUF file's tokenizer: byte-level BPE as tokenizer.json, its settings, and the tokens that end a text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fastdistill.checkpoint.gguf.reader import GgufFile
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.messages import short

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # of a token's types, those that text cannot merge into


def tokenizer_files(file: GgufFile) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json and generation_config.json, by name."""
    _pre_tokenizer(file)  # which says more than what its vocabulary lacks
    tokens, types, merges = _vocabulary(file)
    return {
        "tokenizer.json": _json(_tokenizer(file, tokens, types, merges), indent=None),
        "tokenizer_config.json": _json(_tokenizer_config(file, tokens)),
        "generation_config.json": _json(_generation_config(file, tokens, types)),
    }


def _json(value: Any, indent: int | None = 2) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=indent).encode()


def _token_id(file: GgufFile, key: str) -> int | None:
    """The token that the metadata name: bos, eos, eot, unknown, padding."""
    index = file.get(f"tokenizer.ggml.{key}_token_id", int, None)
    rows = file.tensors["token_embd.weight"].shape[0]
    if index is not None and not 0 <= index < rows:
        raise CheckpointError(f"{file.name}: tokenizer.ggml.{key}_token_id is {index}, but there are {rows} tokens")
    return index


def special_ids(file: GgufFile) -> dict[str, Any]:
    """bos, eos and padding, as config.json and generation_config.json have them."""
    ids = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {name: index for name, key in ids.items() if (index := _token_id(file, key)) is not None}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(digits: str) -> dict[str, Any]:
    """The splitting that Llama 3 and Qwen 2 share but for the length of their runs of digits."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}


_DIGITS = {"type": "Digits", "individual_digits": True}
_PRE_TOKENIZERS = {
    "gpt-2": _byte_level(use_regex=True),
    "smollm": {"type": "Sequence", "pretokenizers": [_DIGITS, _byte_level(use_regex=True)]},
    "llama-bpe": _split(r"\p{N}{1,3}"),
    "qwen2": _split(r"\p{N}"),
}
# Other names that llama.cpp gives to the same: splitting, adding of bos, taking of whole words.
_ALIASES = {
    "gpt-2": ("phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0", "mellum", "modern-bert",
              "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling"),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
    "qwen2": ("deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan"),
}  # fmt: skip
_SAME = {name: same for same, names in _ALIASES.items() for name in (same, *names)}


def _pre_tokenizer(file: GgufFile) -> str:
    """Which of _PRE_TOKENIZERS the file's tokenizer has."""
    model, name = file.get("tokenizer.ggml.model", str), file.get("tokenizer.ggml.pre", str, "default")
    if model != "gpt2":
        raise UnsupportedError(f"{file.name}: tokenizer {short(model)} cannot be converted; gpt2 (byte-level BPE) can")
    if name not in _SAME:
        known = ", ".join(sorted(_SAME))
        raise UnsupportedError(f"{file.name}: pre-tokenizer {short(name)} cannot be converted; {known} can")
    return _SAME[name]


def _vocabulary(file: GgufFile) -> tuple[list[str], list[int], list[tuple[str, str]]]:
    """Tokens, their types, and the merges, each checked against the others."""

    def listed(key: str, kind: type, items: str) -> Any:
        value = file.metadata.get("tokenizer.ggml." + key)
        if not isinstance(value, kind) or (isinstance(value, np.ndarray) and value.dtype.kind not in "iu"):
            raise CheckpointError(
                f"{file.name}: metadata tokenizer.ggml.{key} must be an array of {items}, got {short(value)}"
            )
        return value

    tokens, merges = listed("tokens", list, "strings"), listed("merges", list, "strings")
    types, rows = listed("token_type", np.ndarray, "integers"), file.tensors["token_embd.weight"].shape[0]
    if not len(tokens) == len(types) == rows:
        raise CheckpointError(
            f"{file.name}: {len(tokens)} tokens and {len(types)} token types for an embedding of {rows} rows"
        )
    vocabulary = set(tokens)
    if len(vocabulary) != len(tokens) or "" in vocabulary:
        raise CheckpointError(f"{file.name}: tokenizer.ggml.tokens: some are empty or come twice")
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary:
            raise CheckpointError(f"{file.name}: merge {short(merge)} must be two tokens that make a third")
        pairs.append((left, right))
    return tokens, types.tolist(), pairs


def _tokenizer(file: GgufFile, tokens: list[str], types: list[int], merges: list[tuple[str, str]]) -> dict[str, Any]:
    """tokenizer.json: the byte-level BPE that the file's tokens, merges and pre-tokenizer describe.

    Qwen2's own tokenizer puts text into NFC before all else, which its GGUF files do not say: so does this one, and a
    model has the same tokens whichever kind of file it came in. The other names of its splitting stand for tokenizers
    of several models: as in llama.cpp, nothing is normalised for them.
    """
    pre, nfc = _pre_tokenizer(file), file.metadata["tokenizer.ggml.pre"] == "qwen2"
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in (_UNKNOWN, _CONTROL),
        }
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if nfc else None,
        "pre_tokenizer": _PRE_TOKENIZERS[pre],
        "post_processor": _post_processor(file, tokens),
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _adds(file: GgufFile, key: str) -> bool:
    """Whether texts begin with bos, end with eos. Llama 3's files may leave the former out, and mean yes."""
    default = key == "bos" and _pre_tokenizer(file) == "llama-bpe"
    return file.get(f"tokenizer.ggml.add_{key}_token", bool, default)


def _post_processor(file: GgufFile, tokens: list[str]) -> dict[str, Any] | None:
    """What puts bos and eos around a text."""
    ids: dict[str, int] = {}
    for key in ("bos", "eos"):
        if _adds(file, key):
            index = _token_id(file, key)
            if index is None:
                raise CheckpointError(f"{file.name}: tokenizer.ggml.add_{key}_token is set without a {key}_token_id")
            ids[key] = index
    if not ids:
        return None

    def around(name: str, type_id: int) -> list[dict[str, Any]]:
        pieces = {key: {"SpecialToken": {"id": tokens[index], "type_id": type_id}} for key, index in ids.items()}
        pieces["text"] = {"Sequence": {"id": name, "type_id": type_id}}
        return [pieces[key] for key in ("bos", "text", "eos") if key in pieces]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {
            tokens[index]: {"id": tokens[index], "ids": [index], "tokens": [tokens[index]]} for index in ids.values()
        },
    }


def _tokenizer_config(file: GgufFile, tokens: list[str]) -> dict[str, Any]:
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": _adds(file, "bos"),
        "add_eos_token": _adds(file, "eos"),
        **{name: tokens[index] for name, key in names.items() if (index := _token_id(file, key)) is not None},
    }
    template = file.get("tokenizer.chat_template", str, None)
    return config if template is None else config | {"chat_template": template}


# What llama.cpp takes as the end of a text: by metadata, and where a control token has one of these names.
_ENDS_BY_KEY = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_ENDS_BY_NAME = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>",
    # the next file of a text of code, and its padding
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>",
    "<reponame>", "<|file_sep|>",
}  # fmt: skip
# Beside all of those on the right, the one on the left ends a part of a message, or nothing.
_NO_ENDS = [
    ("<|end|>", {"<|return|>", "<|call|>"}),
    ("<|end|>", {"<|calls|>", "<|flush|>"}),
    ("</s>", {"<|tool_response>"}),
]


def _generation_config(file: GgufFile, tokens: list[str], types: list[int]) -> dict[str, Any]:
    """The special tokens; what ends a turn, a message or a file ends a text too."""
    named = {token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL and token in _ENDS_BY_NAME}
    named -= {name for name, beside in _NO_ENDS if beside <= named}
    ends = {index for index, token in enumerate(tokens) if token in named}
    ends |= {index for key in _ENDS_BY_KEY if (index := _token_id(file, key)) is not None}
    return special_ids(file) | ({"eos_token_id": sorted(ends)} if ends else {})
