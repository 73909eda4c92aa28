"""A GGUF file's tokenizer as tokenizer.json, its settings, and the tokens that end a text.

What a file calls `gpt2` is byte-level BPE, `llama` SentencePiece's BPE, `t5` its unigram, `bert` WordPiece. Texts get the
tokens that llama.cpp gives them, and where that differs from the model's own tokenizer, those of the latter.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastdistill.checkpoint.gguf.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer, byte_level, splitting
from fastdistill.checkpoint.gguf.reader import GgufFile
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.messages import short

_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6  # of a token's types
_ADDED = (_UNKNOWN, _CONTROL, _USER_DEFINED)  # those that text cannot merge into
_SPACE = "▁"  # a space, as SentencePiece and llama.cpp's WordPiece spell it
_SEPARATOR = "seperator"  # as the files' keys spell it
# Tokens that a file of a kind need not name.
_DEFAULT_IDS = {
    "llama": {"unknown": 0, "bos": 1, "eos": 2},
    "t5": {"padding": 0, "eos": 1, "unknown": 2},
    "bert": {"padding": 0, "unknown": 100, "bos": 101, _SEPARATOR: 102, "mask": 103},
}


def tokenizer_files(file: GgufFile) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json and generation_config.json, by name."""
    if _kind(file) == "gpt2":
        _pre_tokenizer(file)  # which says more than what its vocabulary lacks
    tokens, types = _vocabulary(file)
    return {
        "tokenizer.json": _json(_tokenizer(file, tokens, types), indent=None),
        "tokenizer_config.json": _json(_tokenizer_config(file, tokens)),
        "generation_config.json": _json(_generation_config(file, tokens, types)),
    }


def _json(value: Any, indent: int | None = 2) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=indent).encode()


def _vocabulary(file: GgufFile) -> tuple[list[str], list[int]]:
    """Tokens and their types, each checked against the other."""
    tokens: list[str] = _listed(file, "tokens", list, "strings")
    types, rows = _listed(file, "token_type", np.ndarray, "integers"), file.tensors["token_embd.weight"].shape[0]
    if not len(tokens) == len(types) == rows:
        raise CheckpointError(
            f"{file.name}: {len(tokens)} tokens and {len(types)} token types for an embedding of {rows} rows"
        )
    if len(set(tokens)) != len(tokens) or "" in tokens:
        raise CheckpointError(f"{file.name}: tokenizer.ggml.tokens: some are empty or come twice")
    return tokens, types.tolist()


def _listed(file: GgufFile, key: str, kind: type, items: str, dtypes: str = "iu") -> Any:
    """A list of strings, or an array of numbers, of the metadata."""
    value = file.metadata.get("tokenizer.ggml." + key)
    if not isinstance(value, kind) or (isinstance(value, np.ndarray) and value.dtype.kind not in dtypes):
        raise CheckpointError(
            f"{file.name}: metadata tokenizer.ggml.{key} must be an array of {items}, got {short(value)}"
        )
    return value


# ---- tokenizer.json ----


def _tokenizer(file: GgufFile, tokens: list[str], types: list[int]) -> dict[str, Any]:
    parts = _KINDS[_kind(file)](file, tokens, types)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(file, tokens, types),
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": _post_processor(file, tokens),
        "decoder": parts.decoder,
        "model": parts.model,
    }


class _Parts(NamedTuple):
    """What kinds of tokenizers differ in, as tokenizer.json has it."""

    model: dict[str, Any]
    decoder: dict[str, Any]
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None


def _byte_pairs(file: GgufFile, tokens: list[str], types: list[int]) -> _Parts:
    """BPE with the merges that the file lists, over bytes or, as Gemma 4 has it, characters.

    Qwen2's own tokenizer puts text into NFC before all else, which its GGUF files do not say: so does this one, and a
    model has the same tokens whichever kind of file it came in. The other names of its splitting stand for tokenizers
    of several models: as in llama.cpp, nothing is normalised for them.
    """
    pre, vocabulary, merges = _pre_tokenizer(file), set(tokens), []
    for merge in _listed(file, "merges", list, "strings"):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary:
            raise CheckpointError(f"{file.name}: merge {short(merge)} must be two tokens that make a third")
        merges.append((left, right))
    model = _bpe(tokens, merges) | {"ignore_merges": pre.whole_words, "byte_fallback": not pre.bytes}
    if not pre.bytes:
        return _Parts(model, _unspaced(prefix=False), _spaced(prefix=False), splitting(pre))
    nfc = file.metadata.get("tokenizer.ggml.pre") == "qwen2"
    return _Parts(model, byte_level(), {"type": "NFC"} if nfc else None, splitting(pre))


def _sentence_pieces(file: GgufFile, tokens: list[str], types: list[int]) -> _Parts:
    """SentencePiece's BPE: of all neighbours that make a token, those that make the one of the highest score merge."""
    scores, merges = _scores(file, tokens), []
    pieces = {
        token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind not in (*_ADDED, _BYTE)
    }
    for token in sorted(pieces, key=lambda token: -scores[pieces[token]]):
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        found = [(left, right) for left, right in halves if left in pieces and right in pieces]
        merges += sorted(found, key=lambda pair: [pieces[half] for half in pair])
    model = _bpe(tokens, merges) | {
        "byte_fallback": True,
        "unk_token": tokens[_required_id(file, "unknown")],
        "fuse_unk": True,
    }
    prefix = file.get("tokenizer.ggml.add_space_prefix", bool, True)
    return _Parts(model, _unspaced(prefix), _spaced(prefix))


def _bpe(tokens: list[str], merges: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges,
    }


def _unigram(file: GgufFile, tokens: list[str], types: list[int]) -> _Parts:
    """SentencePiece's unigram: the pieces whose scores have the highest sum, of the text that its table normalises."""
    prefix = file.get("tokenizer.ggml.add_space_prefix", bool, False)
    steps: list[dict[str, Any]] = []
    if "tokenizer.ggml.precompiled_charsmap" in file.metadata:
        table = _listed(file, "precompiled_charsmap", np.ndarray, "bytes").astype(np.uint8).tobytes()
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()})
    if file.get("tokenizer.ggml.remove_extra_whitespaces", bool, False):
        steps += [_replace({"Regex": r"\A +| +\z"}, ""), _replace({"Regex": " {2,}"}, " ")]
    steps += _spaced(prefix)["normalizers"]
    model = {
        "type": "Unigram",
        "unk_id": _required_id(file, "unknown"),
        "vocab": list(zip(tokens, _scores(file, tokens), strict=True)),
        "byte_fallback": types.count(_BYTE) == 256,
    }
    return _Parts(model, _unspaced(prefix), {"type": "Sequence", "normalizers": steps})


def _scores(file: GgufFile, tokens: list[str]) -> list[float]:
    scores = _listed(file, "scores", np.ndarray, "numbers", "iuf")
    if len(scores) != len(tokens) or not np.isfinite(scores).all():
        raise CheckpointError(f"{file.name}: tokenizer.ggml.scores must be {len(tokens)} finite numbers, one a token")
    return scores.astype(float).tolist()


def _spaced(prefix: bool) -> dict[str, Any]:
    """Spaces spelt as tokens spell them; one before each text, if asked for."""
    steps = [{"type": "Prepend", "prepend": _SPACE}] if prefix else []
    return {"type": "Sequence", "normalizers": [*steps, _replace({"String": " "}, _SPACE)]}


def _unspaced(prefix: bool) -> dict[str, Any]:
    """The way back."""
    steps = [_replace({"String": _SPACE}, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {"type": "Sequence", "decoders": steps + strip}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _word_pieces(file: GgufFile, tokens: list[str], types: list[int]) -> _Parts:
    """BERT's: words cut into the longest tokens from the left. The file marks what begins a word, BERT what does not."""
    vocabulary = {
        token if kind in _ADDED else token.removeprefix(_SPACE) if token.startswith(_SPACE) else "##" + token: index
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
    }
    if len(vocabulary) != len(tokens):
        raise CheckpointError(f"{file.name}: tokenizer.ggml.tokens: some are the same as BERT spells them")
    lowercase = file.get("tokenizer.ggml.normalizer.lowercase", bool, True)
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": file.get("tokenizer.ggml.normalizer.strip_accents", bool, lowercase),
        "lowercase": lowercase,
    }
    model = {
        "type": "WordPiece",
        "unk_token": tokens[_required_id(file, "unknown")],
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": vocabulary,
    }
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    return _Parts(model, decoder, normalizer, {"type": "BertPreTokenizer"})


_KINDS: dict[str, Callable[[GgufFile, list[str], list[int]], _Parts]] = {
    "gpt2": _byte_pairs,
    "gemma4": _byte_pairs,
    "llama": _sentence_pieces,
    "t5": _unigram,
    "bert": _word_pieces,
}


def _kind(file: GgufFile) -> str:
    """Which of _KINDS the file's tokenizer is."""
    kind = file.get("tokenizer.ggml.model", str)
    if kind not in _KINDS:
        raise UnsupportedError(f"{file.name}: tokenizer {short(kind)} cannot be converted; {', '.join(_KINDS)} can")
    return kind


def _pre_tokenizer(file: GgufFile) -> PreTokenizer:
    name = "gemma4" if _kind(file) == "gemma4" else file.get("tokenizer.ggml.pre", str, None)
    if name not in PRE_TOKENIZERS:
        known = ", ".join(sorted(PRE_TOKENIZERS))
        found = "a pre-tokenizer that it does not name" if name is None else f"pre-tokenizer {short(name)}"
        raise UnsupportedError(f"{file.name}: {found} cannot be converted; {known} can")
    return PRE_TOKENIZERS[name]


def _added_tokens(file: GgufFile, tokens: list[str], types: list[int]) -> list[dict[str, Any]]:
    """Tokens that text holds as they are. Phi-3's take the spaces behind them, which its files do not say."""
    phi_3 = re.search("phi-?3", file.get("general.name", str, "").lower()) is not None
    return [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": phi_3 and token not in ("<unk>", "<s>", "<|endoftext|>"),
            "normalized": False,
            "special": kind in (_UNKNOWN, _CONTROL),
        }
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in _ADDED
    ]


# ---- special tokens ----


def _token_id(file: GgufFile, key: str) -> int | None:
    """The token that the metadata name: bos, eos, eot, unknown, padding; or which it is if they do not."""
    rows = file.tensors["token_embd.weight"].shape[0]
    index = file.get(f"tokenizer.ggml.{key}_token_id", int, None)
    if index is None:
        index = _DEFAULT_IDS.get(_kind(file), {}).get(key)
        return index if index is not None and index < rows else None
    if not 0 <= index < rows:
        raise CheckpointError(f"{file.name}: tokenizer.ggml.{key}_token_id is {index}, but there are {rows} tokens")
    return index


def _required_id(file: GgufFile, key: str) -> int:
    index = _token_id(file, key)
    if index is None:
        raise CheckpointError(f"{file.name}: its tokenizer is without a {key}_token_id, which it needs")
    return index


def special_ids(file: GgufFile) -> dict[str, Any]:
    """bos, eos and padding, as config.json and generation_config.json have them."""
    ids = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {name: index for name, key in ids.items() if (index := _token_id(file, key)) is not None}


def _adds(file: GgufFile, key: str) -> bool:
    """Whether texts begin with bos, end with eos; with BERT's separator they do, whatever the file says."""
    kind = _kind(file)
    if kind == "bert" or key == _SEPARATOR:
        return kind == "bert" and key != "eos"
    usual = {"llama": "bos", "t5": "eos"}.get(kind) or ("bos" if _pre_tokenizer(file).begins else None)
    return file.get(f"tokenizer.ggml.add_{key}_token", bool, key == usual)


def _post_processor(file: GgufFile, tokens: list[str]) -> dict[str, Any] | None:
    """What puts bos and eos around a text."""
    before, after = (
        {tokens[index]: index for key in keys if _adds(file, key) for index in [_required_id(file, key)]}
        for keys in (["bos"], ["eos", _SEPARATOR])
    )
    if not before and not after:
        return None

    def around(name: str, type_id: int) -> list[dict[str, Any]]:
        first, last = (
            [{"SpecialToken": {"id": token, "type_id": type_id}} for token in each] for each in (before, after)
        )
        return [*first, {"Sequence": {"id": name, "type_id": type_id}}, *last]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {
            token: {"id": token, "ids": [index], "tokens": [token]} for token, index in (before | after).items()
        },
    }


def _tokenizer_config(file: GgufFile, tokens: list[str]) -> dict[str, Any]:
    names = {
        "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding", "sep_token": _SEPARATOR,
        "mask_token": "mask",
    }  # fmt: skip
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": _adds(file, "bos"),
        "add_eos_token": _adds(file, "eos"),
        **{name: tokens[index] for name, key in names.items() if (index := _token_id(file, key)) is not None},
    }
    template = file.get("tokenizer.chat_template", str, None)
    named = {
        key.removeprefix("tokenizer.chat_template."): file.get(key, str)
        for key in file.metadata
        if key.startswith("tokenizer.chat_template.")
    }
    if named:
        templates = ({} if template is None else {"default": template}) | named
        return config | {"chat_template": [{"name": name, "template": text} for name, text in templates.items()]}
    return config if template is None else config | {"chat_template": template}


# What llama.cpp takes as the end of a text: by metadata, and where a control token has one of these names.
_ENDS_BY_KEY = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_ENDS_BY_NAME = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
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
