"""DistilBERT (Sanh et al. 2019): half of BERT's layers, without parts and pooler."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import activation
from fastdistill.models.described_encoder import SHARED, encoder
from fastdistill.models.encoder import MaskedHead, Names, Pool
from fastdistill.models.plan import Plan

DISTILBERT: dict[str, Any] = SHARED | {
    "vocab_size": 30522,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "activation": "gelu",
    "max_position_embeddings": 512,
}
MODEL_TYPES = {"distilbert": DISTILBERT}
SPELLING = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
NAMES = Names(
    types="",
    layers="transformer.layer",
    q="attention.q_lin",
    k="attention.k_lin",
    v="attention.v_lin",
    attention_out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    mlp_norm="output_layer_norm",
)


def plan(config: Config) -> Plan:
    """The forward pass of one DistilBERT."""
    config = config.respelt(**SPELLING)
    return encoder(
        config,
        "distilbert",
        class_name="DistilBert",
        heads={
            "Model": lambda config: None,
            "ForSequenceClassification": lambda config: Pool(
                dense="pre_classifier", activation="relu", classifier="classifier"
            ),
            "ForMaskedLM": lambda config: MaskedHead(
                dense="vocab_transform",
                norm="vocab_layer_norm",
                bias="vocab_projector.bias",
                decoder="vocab_projector",
                activation=activation(config, "hidden_act"),
            ),
        },
        root="distilbert.",
        names=NAMES,
        epsilon=1e-12,
    )
