"""Logits -> tokens: decoders, which know only the session protocol, and the loop that they run in."""

from fastdistill.decode.auto import Auto
from fastdistill.decode.autoregressive import Autoregressive
from fastdistill.decode.costs import Costs, measure_costs
from fastdistill.decode.drafters import CallableDrafter, Draft, LayerSkip, ModelDrafter, PromptLookup
from fastdistill.decode.engine import Engine, Event, Task
from fastdistill.decode.generate import generate
from fastdistill.decode.generation import Generation, Piece, Statistics, TokenLogProbs
from fastdistill.decode.jacobi import Jacobi
from fastdistill.decode.lookahead import Lookahead
from fastdistill.decode.request import Decoder, Request, Round, Run
from fastdistill.decode.speculative import Speculative
from fastdistill.decode.trees import StaticTree, Tree, expected_tokens, static_tree
from fastdistill.decode.unmask import (
    Adaptive,
    EndOfText,
    EntropyBudget,
    EntropyThreshold,
    Explore,
    Factor,
    Learned,
    LearnedFilter,
    Oracle,
    Remdm,
    Revise,
    RunningConfidence,
    Schedule,
    Threshold,
    Trace,
    Unmask,
)

__all__ = [
    "Adaptive",
    "Auto",
    "Autoregressive",
    "CallableDrafter",
    "Costs",
    "Decoder",
    "Draft",
    "EndOfText",
    "Engine",
    "EntropyBudget",
    "EntropyThreshold",
    "Event",
    "Explore",
    "Factor",
    "Generation",
    "Jacobi",
    "LayerSkip",
    "Learned",
    "LearnedFilter",
    "Lookahead",
    "ModelDrafter",
    "Oracle",
    "Piece",
    "PromptLookup",
    "Remdm",
    "Request",
    "Revise",
    "Round",
    "Run",
    "RunningConfidence",
    "Schedule",
    "Speculative",
    "StaticTree",
    "Statistics",
    "Task",
    "Threshold",
    "TokenLogProbs",
    "Trace",
    "Tree",
    "Unmask",
    "expected_tokens",
    "generate",
    "measure_costs",
    "static_tree",
]
