"""A model's folder on disk: its config and its named tensors."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config, eos_token_ids, read_config
from fastdistill.checkpoint.folder import Checkpoint, check_tensors, open_checkpoint, write_checkpoint
from fastdistill.checkpoint.quantize import quantize_checkpoint, quantize_tensor
from fastdistill.checkpoint.target import Target, target_of
from fastdistill.checkpoint.tensor import FORMATS, Tensor

__all__ = [
    "FORMATS",
    "Checkpoint",
    "Config",
    "Target",
    "Tensor",
    "check_tensors",
    "eos_token_ids",
    "open_checkpoint",
    "quantize_checkpoint",
    "quantize_tensor",
    "read_config",
    "target_of",
    "write_checkpoint",
]
