"""What `fd.Unmask` is made of: rules that say which masks a forward fills, remasking, the end of the text, and what is traced."""

from fastdistill.decode.unmask.end_of_text import EndOfText
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
]
