"""Masked diffusion: answers that are all masks at first, and the rules by which they are filled."""

from fastdistill.decode.unmask.decoder import EndOfText, FillsMasks, Unmask
from fastdistill.decode.unmask.learned_filter import LearnedFilter
from fastdistill.decode.unmask.remasking import Remask, Remdm, Revise, RunningConfidence
from fastdistill.decode.unmask.rules import (
    Adaptive,
    EntropyBudget,
    EntropyThreshold,
    Explore,
    Factor,
    Learned,
    Oracle,
    Rule,
    Schedule,
    Threshold,
)
from fastdistill.decode.unmask.trace import Trace, TraceStep

__all__ = [
    "Adaptive",
    "EndOfText",
    "EntropyBudget",
    "EntropyThreshold",
    "Explore",
    "Factor",
    "FillsMasks",
    "Learned",
    "LearnedFilter",
    "Oracle",
    "Remask",
    "Remdm",
    "Revise",
    "Rule",
    "RunningConfidence",
    "Schedule",
    "Threshold",
    "Trace",
    "TraceStep",
    "Unmask",
]
