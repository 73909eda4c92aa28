"""Mixtral (Jiang et al. 2024): Mistral with experts."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import decoder
from fastdistill.models.experts import experts
from fastdistill.models.llama import MISTRAL
from fastdistill.models.plan import Plan

MODEL_TYPES = {
    "mixtral": MISTRAL
    | {
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "num_experts": 8,
        "num_local_experts": None,
        "num_experts_per_tok": 2,
    }
}


def plan(config: Config) -> Plan:
    """The forward pass of one Mixtral."""
    within = "block_sparse_moe.experts.{}."
    names = dict(router="block_sparse_moe.gate", gate=within + "w1", up=within + "w3", down=within + "w2")
    mixture = experts(config, "intermediate_size", renormalised=True, **names)
    return decoder(config, "mixtral", theta=1e6, experts=lambda layer: mixture)
