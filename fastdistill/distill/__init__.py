"""Objectives of distillation: what a student's logits cost beside a teacher's, and how they should move."""

from fastdistill.distill.alignment import Alignment, align_bytes, chunk_weights, merge_chunks
from fastdistill.distill.alm import alm_loss
from fastdistill.distill.loss import Loss
from fastdistill.distill.sinkhorn_loss import sinkhorn_loss
from fastdistill.distill.teacher_file import TeacherFile, TeacherWriter
from fastdistill.distill.top_k import TopK, dense_log_probs, teacher_top_k
from fastdistill.distill.uld import uld_loss
from fastdistill.distill.vocabulary import (
    CommonVocabulary,
    MappedTeacher,
    common_vocabulary,
    inverse_token_map,
    mapped_teacher,
    pad_columns,
    scatter_columns,
)

__all__ = [
    "Alignment",
    "CommonVocabulary",
    "Loss",
    "MappedTeacher",
    "TeacherFile",
    "TeacherWriter",
    "TopK",
    "align_bytes",
    "alm_loss",
    "chunk_weights",
    "common_vocabulary",
    "dense_log_probs",
    "inverse_token_map",
    "mapped_teacher",
    "merge_chunks",
    "pad_columns",
    "scatter_columns",
    "sinkhorn_loss",
    "teacher_top_k",
    "uld_loss",
]
