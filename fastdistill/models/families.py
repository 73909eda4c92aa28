"""The model families, found by `model_type`, or by the class in `architectures` where two share one."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short, suggestion
from fastdistill.models import (
    bart,
    bert,
    distilbert,
    dream,
    falcon,
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    gptj,
    granite,
    llada,
    llada_moe,
    llama,
    marian,
    mixtral,
    modernbert,
    mpnet,
    olmo2,
    olmoe,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    roberta,
    sdar,
    smollm3,
    stablelm,
    starcoder2,
    t5,
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
    llada_moe,
    dream,
    sdar,
    bart,
    marian,
    t5,
    bert,
    roberta,
    distilbert,
    mpnet,
    modernbert,
)

DEFAULTS = {
    model_type: keys for family in FAMILIES for model_type, keys in family.MODEL_TYPES.items()
}  # of absent keys

# Classes whose files have another family's model_type: (it, the class) -> their own.
_BY_CLASS = {("llada", "LLaDAMoEModel"): "lladamoe", ("llada", "LLaDAMoEModelLM"): "lladamoe"}


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
    model_type = _model_type(config)
    for family in FAMILIES:
        if model_type in family.MODEL_TYPES:
            return family.plan(completed(config, model_type, DEFAULTS[model_type]))
    known = sorted(DEFAULTS)
    raise UnsupportedError(
        f"model_type {short(model_type)} is not supported; known: {', '.join(known)}{suggestion(model_type, known)}"
    )


def _model_type(config: Config) -> str:
    """What config.json says, or should say."""
    said: str = config.string("model_type")
    classes = config.raw.get("architectures")
    names = classes if type(classes) is list else []
    return next((_BY_CLASS[said, name] for name in names if type(name) is str and (said, name) in _BY_CLASS), said)
