"""BERT (Devlin et al. 2018) and what is made as it is: MiniLM, BGE, E5, GTE, cross-encoders."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import activation, check_only
from fastdistill.models.described_encoder import WITH_POOLER, encoder
from fastdistill.models.encoder import MaskedHead, Names, Pool
from fastdistill.models.plan import Ignored, Plan

BERT: dict[str, Any] = WITH_POOLER | {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}
MODEL_TYPES = {"bert": BERT}
NEXT_SENTENCE = Ignored("whether one sentence follows another is not asked here", ())


def masked_head(config: Config) -> MaskedHead:
    """BERT's, whose bias is not the linear's."""
    at = "cls.predictions."
    return MaskedHead(
        dense=f"{at}transform.dense",
        norm=f"{at}transform.LayerNorm",
        bias=f"{at}bias",
        decoder=f"{at}decoder",
        activation=activation(config, "hidden_act"),
    )


def plan(config: Config) -> Plan:
    """The forward pass of one BERT."""
    check_only("bert", "position_embedding_type", config.string("position_embedding_type"), "absolute")
    return encoder(
        config,
        "bert",
        class_name="Bert",
        heads={
            "Model": lambda config: Pool(dense="bert.pooler.dense", activation="tanh"),
            "ForSequenceClassification": lambda config: Pool(
                dense="bert.pooler.dense", activation="tanh", classifier="classifier"
            ),
            "ForMaskedLM": masked_head,
            "ForPreTraining": masked_head,
        },
        root="bert.",
        names=Names(),
        pooler="bert.pooler",
        types=config.integer("type_vocab_size", minimum=1, maximum=1 << 10),
        ignored={"cls.seq_relationship.*": NEXT_SENTENCE},
    )
