"""MPNet (Song et al. 2020): RoBERTa's positions and heads, and numbers by distance in all scores."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import Sizes, check_only
from fastdistill.models.described_encoder import WITH_POOLER, encoder
from fastdistill.models.distances import by_distance
from fastdistill.models.encoder import Names, Pool
from fastdistill.models.plan import Plan
from fastdistill.models.roberta import classifier, masked_head, padded_positions
from fastdistill.models.source import stored

PADDING = 1  # whatever the config calls so
BUCKETS, FARTHEST = 32, 128  # of distances; the distance from which on all are in the last one
MPNET: dict[str, Any] = WITH_POOLER | {
    "vocab_size": 30527,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "relative_attention_num_buckets": BUCKETS,
}
MODEL_TYPES = {"mpnet": MPNET}
NAMES = Names(
    types="",
    q="attention.attn.q",
    k="attention.attn.k",
    v="attention.attn.v",
    attention_out="attention.attn.o",
    attention_norm="attention.LayerNorm",
)


def plan(config: Config) -> Plan:
    """The forward pass of one MPNet."""
    key = "relative_attention_num_buckets"
    check_only("mpnet", key, config.integer(key), BUCKETS)  # transformers' code counts 32 whatever the config says
    table = stored("mpnet.encoder.relative_attention_bias.weight", (BUCKETS, Sizes.of(config).heads))
    return encoder(
        config,
        "mpnet",
        class_name="MPNet",
        heads={
            "Model": lambda config: Pool(dense="mpnet.pooler.dense", activation="tanh"),
            "ForSequenceClassification": classifier,
            "ForMaskedLM": masked_head,
        },
        root="mpnet.",
        names=NAMES,
        distances=by_distance(table, True, FARTHEST),
        pooler="mpnet.pooler",
        **padded_positions(config, PADDING),
    )
