"""RoBERTa (Liu et al. 2019), XLM-RoBERTa and CamemBERT: BERT with one part, positions from the padding token on, heads of its own."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.bert import BERT
from fastdistill.models.described import Sizes, check_only
from fastdistill.models.described_encoder import encoder
from fastdistill.models.encoder import MaskedHead, Names, Pool
from fastdistill.models.plan import Plan

ROBERTA: dict[str, Any] = BERT | {"vocab_size": 50265, "pad_token_id": 1}
MODEL_TYPES = {
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA | {"vocab_size": 30522},
    "camembert": ROBERTA | {"vocab_size": 30522},
}
_CLASSES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}


def masked_head(config: Config) -> MaskedHead:
    """RoBERTa's and MPNet's."""
    return MaskedHead(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        bias="lm_head.bias",
        decoder="lm_head.decoder",
        activation="gelu",
    )


def classifier(config: Config) -> Pool:
    """Likewise: it reads the first row, not the pooler's."""
    return Pool(dense="classifier.dense", activation="tanh", classifier="classifier.out_proj")


def padded_positions(config: Config, padding: int) -> dict[str, Any]:
    """Positions are counted from the padding token's number on, itself at that one: so many are for tokens."""
    offset = padding + 1
    positions = Sizes.of(config).positions - offset
    if positions < 1:
        config.refuse("max_position_embeddings", positions + offset, f"more than the padding token + 1 = {offset}")
    return {"position_offset": offset, "max_positions": positions}


def plan(config: Config) -> Plan:
    """The forward pass of one RoBERTa."""
    check_only("roberta", "position_embedding_type", config.string("position_embedding_type"), "absolute")
    return encoder(
        config,
        "roberta",
        class_name=_CLASSES[config.raw["model_type"]],
        heads={
            "Model": lambda config: Pool(dense="roberta.pooler.dense", activation="tanh"),
            "ForSequenceClassification": classifier,
            "ForMaskedLM": masked_head,
        },
        root="roberta.",
        names=Names(),
        pooler="roberta.pooler",
        types=config.integer("type_vocab_size", minimum=1, maximum=1 << 10),
        **padded_positions(config, config.integer("pad_token_id", maximum=1 << 20)),
    )
