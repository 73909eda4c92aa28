"""Training: a plan run in reverse, parameters beside an immutable network, optimisers, data, runs."""

from fastdistill.train.batch import Batch, Seen, batch_of
from fastdistill.train.data import (
    Batches,
    OnPolicy,
    Teacher,
    open_teacher_file,
    read_data,
    rollouts,
    write_teacher_file,
)
from fastdistill.train.differentiate import differentiate, reverse_segments
from fastdistill.train.engine import Engine
from fastdistill.train.jacobi_forcing import JacobiForcing, Trajectory
from fastdistill.train.lora import LoRA, save_adapter, with_lora
from fastdistill.train.objectives import objective
from fastdistill.train.optimisers import EMA, SGD, AdamW, Group, Schedule
from fastdistill.train.parameters import Parameter, Parameters
from fastdistill.train.saved_model import save_model, trainable

__all__ = [
    "EMA",
    "SGD",
    "AdamW",
    "Batch",
    "Batches",
    "Engine",
    "Group",
    "JacobiForcing",
    "LoRA",
    "OnPolicy",
    "Parameter",
    "Parameters",
    "Schedule",
    "Seen",
    "Teacher",
    "Trajectory",
    "batch_of",
    "differentiate",
    "objective",
    "open_teacher_file",
    "read_data",
    "reverse_segments",
    "rollouts",
    "save_adapter",
    "save_model",
    "trainable",
    "with_lora",
    "write_teacher_file",
]
