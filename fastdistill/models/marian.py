"""Marian (Junczys-Dowmunt et al. 2018), the translators of OPUS-MT: BART with sinusoids for positions and no norm of embeddings."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models import bart
from fastdistill.models.described import check_only
from fastdistill.models.encoder_decoder import sinusoids
from fastdistill.models.plan import Ignored, Plan
from fastdistill.models.source import constant

MARIAN: dict[str, Any] = bart.BART | {
    "vocab_size": 58101,
    "decoder_vocab_size": None,
    "share_encoder_decoder_embeddings": True,
    "decoder_start_token_id": 58100,
    "normalize_embedding": False,
    "static_position_embeddings": True,
}
MODEL_TYPES = {"marian": MARIAN}


def plan(config: Config) -> Plan:
    """The forward pass of one Marian."""
    vocab_size = config.integer("vocab_size", minimum=1, maximum=1 << 22)
    check_only("marian", "decoder_vocab_size", config.integer("decoder_vocab_size", default=vocab_size), vocab_size)
    shared = config.boolean("share_encoder_decoder_embeddings")
    check_only("marian", "share_encoder_decoder_embeddings", shared, True)
    check_only("marian", "static_position_embeddings", config.boolean("static_position_embeddings"), True)
    rows = config.integer("max_position_embeddings", minimum=1, maximum=1 << 20)
    table = sinusoids(rows, config.integer("d_model", minimum=1, maximum=1 << 16))
    given = Ignored("config.json gives the sinusoids of positions", (table,), {})
    ignored = {f"model.{stack}.embed_positions.weight": given for stack in ("encoder", "decoder")}
    described = bart.described(config, "marian", False, positions=lambda name: constant(name, table), ignored=ignored)
    return described.plan()
