"""The model families, found by `model_type`."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short, suggestion
from fastdistill.models import dream, llada, llama
from fastdistill.models.config_keys import completed
from fastdistill.models.plan import Plan

FAMILIES = (llama, llada, dream)


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
            return family.plan(completed(config, model_type))
    known = sorted(name for family in FAMILIES for name in family.MODEL_TYPES)
    raise UnsupportedError(
        f"model_type {short(model_type)} is not supported; known: {', '.join(known)}{suggestion(model_type, known)}"
    )
