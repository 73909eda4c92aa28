"""The model families, found by `model_type`."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short, suggestion
from fastdistill.models import (
    dream,
    falcon,
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    gptj,
    granite,
    llada,
    llama,
    mixtral,
    olmo2,
    olmoe,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    smollm3,
    stablelm,
    starcoder2,
)
from fastdistill.models.config_keys import completed
from fastdistill.models.plan import Plan

FAMILIES = (
    llama,
    mixtral,
    qwen2,
    qwen3,
    qwen2_moe,
    qwen3_moe,
    gemma2,
    gemma3,
    phi3,
    smollm3,
    olmo2,
    olmoe,
    granite,
    stablelm,
    starcoder2,
    gpt2,
    gpt_neox,
    gptj,
    falcon,
    llada,
    dream,
)

DEFAULTS = {
    model_type: keys for family in FAMILIES for model_type, keys in family.MODEL_TYPES.items()
}  # of absent keys


def plan_for(config: Config) -> Plan:
    """The plan of the model that a config describes.

    Parameters
    ----------
    config : Config
        config.json

    Raises
    ------
    UnsupportedError
        for an unknown model_type and what its plan does not compute
    CheckpointError
        for a config that cannot be
    """
    model_type = config.string("model_type")
    for family in FAMILIES:
        if model_type in family.MODEL_TYPES:
            return family.plan(completed(config, model_type, DEFAULTS[model_type]))
    known = sorted(DEFAULTS)
    raise UnsupportedError(
        f"model_type {short(model_type)} is not supported; known: {', '.join(known)}{suggestion(model_type, known)}"
    )
