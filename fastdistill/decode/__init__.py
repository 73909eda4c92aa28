"""Logits -> tokens: decoders, which know only the session protocol, and the engine that runs them."""

from fastdistill.decode.auto import Auto
from fastdistill.decode.autoregressive import Autoregressive
from fastdistill.decode.beam_search import BeamSearch
from fastdistill.decode.costs import Costs, measure_costs
from fastdistill.decode.drafters import (
    CallableDrafter,
    Draft,
    FirstOf,
    HeadDrafter,
    LayerSkip,
    ModelDrafter,
    PromptLookup,
)
from fastdistill.decode.engine import Engine, Event, Task
from fastdistill.decode.generate import generate
from fastdistill.decode.generation import Generation, Piece, Statistics, TokenLogProbs
from fastdistill.decode.jacobi import Jacobi
from fastdistill.decode.lookahead import Lookahead
from fastdistill.decode.request import Decoder, Request, Round, Run
from fastdistill.decode.speculative import Speculative
from fastdistill.decode.trees import StaticTree, Tree, expected_tokens, static_tree
from fastdistill.decode.unmask.decoder import Unmask

__all__ = [
    "Auto",
    "Autoregressive",
    "BeamSearch",
    "CallableDrafter",
    "Costs",
    "Decoder",
    "Draft",
    "Engine",
    "Event",
    "FirstOf",
    "Generation",
    "HeadDrafter",
    "Jacobi",
    "LayerSkip",
    "Lookahead",
    "ModelDrafter",
    "Piece",
    "PromptLookup",
    "Request",
    "Round",
    "Run",
    "Speculative",
    "StaticTree",
    "Statistics",
    "Task",
    "TokenLogProbs",
    "Tree",
    "Unmask",
    "expected_tokens",
    "generate",
    "measure_costs",
    "static_tree",
]
