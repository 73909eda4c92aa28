"""Objectives of distillation: what a student's logits cost beside a teacher's, and how they should move."""

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

__all__ = [
    "ContrastiveGradient",
    "FeatureGradient",
    "ListGradient",
    "Loss",
    "MutualInformationGradient",
    "RelationGradient",
    "SimilarityGradient",
    "acceptance",
    "acceptance_hybrid",
    "adaptive_kl",
    "alpha",
    "attention_loss",
    "clipped_ratio",
    "contrastive_hinge",
    "cosine_similarity",
    "cosine_similarity_gradient",
    "cross_entropy",
    "divergence",
    "entropy",
    "feature_loss",
    "forward_kl",
    "group_advantage",
    "hard_negatives",
    "info_nce",
    "jeffreys",
    "jsd",
    "kl_estimate",
    "layer_map",
    "log_acceptance",
    "log_prob_gradient",
    "logit_mse",
    "mi_alpha",
    "mixed_kl",
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
    "sinkhorn_loss",
    "skew_kl",
    "skew_reverse_kl",
    "soft_cross_entropy",
    "standardise",
    "step_weights",
    "token_log_prob",
    "token_relations",
    "topk_divergence",
    "total_variation",
]
