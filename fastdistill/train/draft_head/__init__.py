"""Draft heads: a target writes texts, a small head learns from its states what comes after the next token."""

from fastdistill.train.draft_head.acceptance import Acceptance, acceptance
from fastdistill.train.draft_head.engine import HeadBatch, HeadEngine
from fastdistill.train.draft_head.job import distill_head
from fastdistill.train.draft_head.settings import HeadSettings

__all__ = [
    "Acceptance",
    "HeadBatch",
    "HeadEngine",
    "HeadSettings",
    "acceptance",
    "distill_head",
]
