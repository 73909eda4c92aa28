"""Logits -> tokens: decoders, which know only the session protocol, and the loop that they run in."""

from .autoregressive import Autoregressive
from .loop import Generation, Statistics, TokenLogProbs, generate
from .request import Decoder, Request, Run

__all__ = ["Autoregressive", "Decoder", "Generation", "Request", "Run", "Statistics", "TokenLogProbs", "generate"]
