"""Shallow students: the first layers of a target learn to guess what it writes, as a model that drafts for it."""

from fastdistill.train.student.acceptance import StudentAcceptance, student_acceptance
from fastdistill.train.student.job import distill_student
from fastdistill.train.student.selective import SelectiveDistillation
from fastdistill.train.student.settings import StudentSettings
from fastdistill.train.student.training import StudentTraining

__all__ = [
    "SelectiveDistillation",
    "StudentAcceptance",
    "StudentSettings",
    "StudentTraining",
    "distill_student",
    "student_acceptance",
]
