"""What a target writes by itself, for a draft to learn from: prompts, texts in lots, the states behind them, the clock."""

from fastdistill.train.own_texts.texts import Texts
from fastdistill.train.own_texts.writer import write_texts

__all__ = ["Texts", "write_texts"]
