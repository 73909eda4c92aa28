"""Where guesses come from: each drafter is frozen settings, `start` begins one text."""

from fastdistill.decode.drafters.callable_drafter import CallableDrafter
from fastdistill.decode.drafters.draft import Draft, Drafter, DraftRequest, DraftRun
from fastdistill.decode.drafters.first_of import FirstOf
from fastdistill.decode.drafters.head_drafter import HeadDrafter
from fastdistill.decode.drafters.layer_skip import LayerSkip
from fastdistill.decode.drafters.model_drafter import ModelDrafter
from fastdistill.decode.drafters.prompt_lookup import PromptLookup

DRAFTERS = (CallableDrafter, FirstOf, HeadDrafter, LayerSkip, ModelDrafter, PromptLookup)

__all__ = [
    "DRAFTERS",
    "CallableDrafter",
    "Draft",
    "DraftRequest",
    "DraftRun",
    "Drafter",
    "FirstOf",
    "HeadDrafter",
    "LayerSkip",
    "ModelDrafter",
    "PromptLookup",
]
