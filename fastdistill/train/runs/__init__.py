"""Runs that survive: their folder, their checkpoints, what they measure."""

from __future__ import annotations

from fastdistill.train.runs.checkpoints import Progress
from fastdistill.train.runs.folder import RunFolder, read_config
from fastdistill.train.runs.interruption import Interruption
from fastdistill.train.runs.metrics import read_metrics
from fastdistill.train.runs.settings import Settings

__all__ = ["Interruption", "Progress", "RunFolder", "Settings", "read_config", "read_metrics"]
