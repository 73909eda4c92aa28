"""Objectives of distillation: what a student's logits cost beside a teacher's, and how they should move."""

from fastdistill.distill.loss import Loss
from fastdistill.distill.sinkhorn_loss import sinkhorn_loss

__all__ = ["Loss", "sinkhorn_loss"]
