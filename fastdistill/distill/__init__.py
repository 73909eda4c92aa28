"""Objectives of distillation: what a student's logits cost beside a teacher's, and how they should move."""

from fastdistill.distill.contrastive import ContrastiveGradient, contrastive_hinge, info_nce
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
    "attention_loss",
    "clipped_ratio",
    "contrastive_hinge",
    "cosine_similarity",
    "cosine_similarity_gradient",
    "feature_loss",
    "group_advantage",
    "hard_negatives",
    "info_nce",
    "kl_estimate",
    "layer_map",
    "log_prob_gradient",
    "mi_alpha",
    "pairwise_ranking",
    "partial_ranking",
    "plackett_luce",
    "pld",
    "preference_ranking",
    "relation_loss",
    "sampled_reverse_kl",
    "sinkhorn_loss",
    "standardise",
    "step_weights",
    "token_log_prob",
    "token_relations",
]
