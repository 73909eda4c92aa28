"""Steps of parameters along their gradients: optimisers, clipping, groups, schedules, and means of parameters over steps."""

from fastdistill.train.optimisers.adamw import AdamW
from fastdistill.train.optimisers.clip_norm import clip_norm
from fastdistill.train.optimisers.ema import EMA
from fastdistill.train.optimisers.groups import Group
from fastdistill.train.optimisers.optimiser import Optimiser
from fastdistill.train.optimisers.schedule import Schedule
from fastdistill.train.optimisers.sgd import SGD

__all__ = ["EMA", "SGD", "AdamW", "Group", "Optimiser", "Schedule", "clip_norm"]
