"""Logits -> tokens: decoders, which know only the session protocol, and the loop that they run in."""

from fastdistill.decode.auto import Auto
from fastdistill.decode.autoregressive import Autoregressive
from fastdistill.decode.costs import Costs, measure_costs
from fastdistill.decode.drafters import CallableDrafter, Draft, LayerSkip, ModelDrafter, PromptLookup
from fastdistill.decode.jacobi import Jacobi
from fastdistill.decode.lookahead import Lookahead
from fastdistill.decode.loop import Generation, Statistics, TokenLogProbs, generate
from fastdistill.decode.request import Decoder, Request, Round, Run
from fastdistill.decode.speculative import Speculative
from fastdistill.decode.trajectory import show_trajectory
from fastdistill.decode.trees import StaticTree, Tree, expected_tokens, static_tree

__all__ = [
    "Auto",
    "Autoregressive",
    "CallableDrafter",
    "Costs",
    "Decoder",
    "Draft",
    "Generation",
    "Jacobi",
    "LayerSkip",
    "Lookahead",
    "ModelDrafter",
    "PromptLookup",
    "Request",
    "Round",
    "Run",
    "Speculative",
    "StaticTree",
    "Statistics",
    "TokenLogProbs",
    "Tree",
    "expected_tokens",
    "generate",
    "measure_costs",
    "show_trajectory",
    "static_tree",
]
