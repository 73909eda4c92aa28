"""Logits -> tokens: decoders, which know only the session protocol, and the loop that they run in."""

from fastdistill.decode.autoregressive import Autoregressive
from fastdistill.decode.loop import Generation, Statistics, TokenLogProbs, generate
from fastdistill.decode.request import Decoder, Request, Run

__all__ = ["Autoregressive", "Decoder", "Generation", "Request", "Run", "Statistics", "TokenLogProbs", "generate"]
