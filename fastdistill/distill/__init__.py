"""Objectives of distillation: what a student's logits cost beside a teacher's, and how they should move."""

from fastdistill.distill.alignment import Alignment, align_bytes, chunk_weights, merge_chunks
from fastdistill.distill.alm import alm_loss
from fastdistill.distill.contrastive import ContrastiveGradient, contrastive_hinge, info_nce
from fastdistill.distill.divergence import (
    acceptance,
    acceptance_hybrid,
    adaptive_kl,
    alpha,
    cross_entropy,
    divergence,
    entropy,
    forward_kl,
    jeffreys,
    jsd,
    log_acceptance,
    logit_mse,
    mixed_kl,
    probability_mse,
    renyi,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    soft_cross_entropy,
    topk_divergence,
    total_variation,
)
from fastdistill.distill.features import FeatureGradient, feature_loss, layer_map, standardise
from fastdistill.distill.head_loss import HeadGradient, head_loss
from fastdistill.distill.log_prob import log_prob_gradient, token_log_prob
from fastdistill.distill.loss import Loss
from fastdistill.distill.mutual_information import MutualInformationGradient, mi_alpha
from fastdistill.distill.pairwise_ranking import pairwise_ranking
from fastdistill.distill.partial_ranking import hard_negatives, partial_ranking
from fastdistill.distill.policy import clipped_ratio, kl_estimate, sampled_reverse_kl
from fastdistill.distill.ranking import ListGradient, plackett_luce, pld, preference_ranking
from fastdistill.distill.relations import RelationGradient, attention_loss, relation_loss, token_relations
from fastdistill.distill.rollouts import group_advantage, step_weights
from fastdistill.distill.similarity import SimilarityGradient, cosine_similarity, cosine_similarity_gradient
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
    "ContrastiveGradient",
    "FeatureGradient",
    "HeadGradient",
    "ListGradient",
    "Loss",
    "MappedTeacher",
    "MutualInformationGradient",
    "RelationGradient",
    "SimilarityGradient",
    "TeacherFile",
    "TeacherWriter",
    "TopK",
    "acceptance",
    "acceptance_hybrid",
    "adaptive_kl",
    "align_bytes",
    "alm_loss",
    "alpha",
    "attention_loss",
    "chunk_weights",
    "clipped_ratio",
    "common_vocabulary",
    "contrastive_hinge",
    "cosine_similarity",
    "cosine_similarity_gradient",
    "cross_entropy",
    "dense_log_probs",
    "divergence",
    "entropy",
    "feature_loss",
    "forward_kl",
    "group_advantage",
    "hard_negatives",
    "head_loss",
    "info_nce",
    "inverse_token_map",
    "jeffreys",
    "jsd",
    "kl_estimate",
    "layer_map",
    "log_acceptance",
    "log_prob_gradient",
    "logit_mse",
    "mapped_teacher",
    "merge_chunks",
    "mi_alpha",
    "mixed_kl",
    "pad_columns",
    "pairwise_ranking",
    "partial_ranking",
    "plackett_luce",
    "pld",
    "preference_ranking",
    "probability_mse",
    "relation_loss",
    "renyi",
    "reverse_kl",
    "sampled_reverse_kl",
    "scatter_columns",
    "sinkhorn_loss",
    "skew_kl",
    "skew_reverse_kl",
    "soft_cross_entropy",
    "standardise",
    "step_weights",
    "teacher_top_k",
    "token_log_prob",
    "token_relations",
    "topk_divergence",
    "total_variation",
    "uld_loss",
]
