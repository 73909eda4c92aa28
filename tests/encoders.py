"""A small config of every encoder family and class of it, and a folder with words: what tests of encoders go through."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from fastdistill.checkpoint import Config
from fastdistill.checkpoint.folder import write_checkpoint
from fastdistill.kernels.isa import isa_layout
from fastdistill.models import plan_for
from fastdistill.runtime.network import Network
from tests.small_models import tensors
from tests.text.tokenizers_made_here import added, tokenizer_json

# No multiple of 16 but by chance, an odd vocabulary: padding has to stay zero.
SIZES = dict(
    hidden_size=40, intermediate_size=50, num_hidden_layers=2, num_attention_heads=4, vocab_size=83, max_position_embeddings=96,
)  # fmt: skip
DISTIL = dict(dim=40, hidden_dim=50, n_layers=2, n_heads=4, vocab_size=83, max_position_embeddings=96)
MODERN = SIZES | dict(
    hidden_size=48, num_hidden_layers=4, local_attention=8, global_attn_every_n_layers=3, pad_token_id=0
)

# RoBERTa and those of its kin, whose classes have other names.
ROBERTAS: dict[str, tuple[str, str, dict[str, Any]]] = {
    f"{model_type}{what}": (model_type, f"{named}{kind}", SIZES | dict(type_vocab_size=1, pad_token_id=1) | more)
    for model_type, named in (("roberta", "Roberta"), ("xlm-roberta", "XLMRoberta"), ("camembert", "Camembert"))
    for what, kind, more in (
        ("", "Model", {}),
        (
            ", labels",
            "ForSequenceClassification",
            dict(num_labels=1) if model_type == "camembert" else dict(type_vocab_size=2),
        ),
        (", masks", "ForMaskedLM", dict(type_vocab_size=2)),
    )
}

# name -> (model_type, the class that transformers makes of it, config.json beside them)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("bert", "BertModel", SIZES),
    "bert, relu": ("bert", "BertModel", SIZES | dict(hidden_act="relu", layer_norm_eps=1e-3, type_vocab_size=3)),
    "bert, labels": ("bert", "BertForSequenceClassification", SIZES | dict(num_labels=3)),
    "bert, masks": ("bert", "BertForMaskedLM", SIZES),
    "bert, masks, untied": ("bert", "BertForMaskedLM", SIZES | dict(tie_word_embeddings=False)),
    "bert, before training": ("bert", "BertForPreTraining", SIZES),
    **ROBERTAS,
    "distilbert": ("distilbert", "DistilBertModel", DISTIL),
    "distilbert, labels": ("distilbert", "DistilBertForSequenceClassification", DISTIL | dict(num_labels=4)),
    "distilbert, masks": ("distilbert", "DistilBertForMaskedLM", DISTIL),
    "mpnet": ("mpnet", "MPNetModel", SIZES | dict(pad_token_id=1)),
    "mpnet, labels": ("mpnet", "MPNetForSequenceClassification", SIZES | dict(pad_token_id=1, num_labels=2)),
    "mpnet, masks": ("mpnet", "MPNetForMaskedLM", SIZES | dict(pad_token_id=1)),
    "modernbert": ("modernbert", "ModernBertModel", MODERN),
    "modernbert, biases": (
        "modernbert",
        "ModernBertModel",
        MODERN | dict(attention_bias=True, mlp_bias=True, norm_bias=True, hidden_activation="silu"),
    ),
    "modernbert, labels": (
        "modernbert",
        "ModernBertForSequenceClassification",
        MODERN | dict(num_labels=3, classifier_pooling="mean", classifier_bias=True),
    ),
    "modernbert, masks": ("modernbert", "ModernBertForMaskedLM", MODERN),
}
OF_TYPE = {model_type: name for name, (model_type, *_) in reversed(CASES.items())}  # the first case of each


def encoder_config(name: str, **changes: Any) -> Config:
    """The config of a case."""
    model_type, made, raw = CASES[name]
    raw = {"model_type": model_type, "architectures": [made]} | raw | changes
    if (labels := raw.pop("num_labels", 0)) and "id2label" not in raw:
        raw["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}
    return Config(raw)


def encoder(name: str, format: str = "f32", executor: str = "native", threads: int = 2) -> Network:
    """A network of a case with random weights."""
    return _encoder(name, format, executor, threads, isa_layout())


@functools.cache
def _encoder(name: str, format: str, executor: str, threads: int, layout: str) -> Network:
    plan = plan_for(encoder_config(name))
    return Network(plan, tensors(plan), format=None if format == "f32" else format, threads=threads, executor=executor)


WORDS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "text",
    "texts",
    "another",
    "a",
    "is",
    "of",
    "the",
    "query",
    "answer",
    "in",
    "on",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def words_tokenizer(types: bool = True) -> dict[str, Any]:
    """BERT's tokenizer over a few words: [CLS] text [SEP], and of a pair [CLS] text [SEP] other [SEP], whose parts are 0 and 1."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
    one = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    two = [
        *one,
        {"Sequence": {"id": "B", "type_id": int(types)}},
        {"SpecialToken": {"id": "[SEP]", "type_id": int(types)}},
    ]
    special = {token: {"id": token, "ids": [vocab[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    made = tokenizer_json(model, None, {"type": "Whitespace"}, [added(vocab[token], token, True) for token in SPECIAL])
    return made | {"post_processor": {"type": "TemplateProcessing", "single": one, "pair": two, "special_tokens": special}}  # fmt: skip


def write_encoder(folder: Path, name: str = "bert", files: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A folder of a case with random weights and that tokenizer; `files`: JSON beside it, by path."""
    config = encoder_config(name, **changes)
    named = {f"{part}_token": token for part, token in zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True)}
    text = {"tokenizer.json": words_tokenizer(), "tokenizer_config.json": named}
    beside = {name: json.dumps(value).encode() for name, value in text.items()}
    write_checkpoint(folder, config.raw, tensors(plan_for(config)).values(), beside)
    for path, value in (files or {}).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(json.dumps(value), "utf-8")
    return folder
