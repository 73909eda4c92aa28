"""Config -> plan: one file a model family, found by `model_type`."""

from __future__ import annotations

from fastdistill.models.agreement import plan_of
from fastdistill.models.export_folder import export_folder
from fastdistill.models.families import plan_for
from fastdistill.models.plan import Plan
from fastdistill.models.quantize_folder import quantize_folder

__all__ = ["Plan", "export_folder", "plan_for", "plan_of", "quantize_folder"]
