"""Objectives of distillation: what a student's logits cost beside a teacher's, and how they should move."""

from fastdistill.distill.closed_forms.expert_merge import ExpertMerge, merge_experts
from fastdistill.distill.closed_forms.kernel_ridge import KernelRidge, best_alpha
from fastdistill.distill.closed_forms.merging import ema, slerp
from fastdistill.distill.closed_forms.reverse_distillation import ReverseLevel, apply_chain, reverse_chain, reverse_fit
from fastdistill.distill.features.features import FeatureGradient, feature_loss, layer_map, standardise
from fastdistill.distill.features.relations import RelationGradient, attention_loss, relation_loss, token_relations
from fastdistill.distill.laws.divergence import (
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
from fastdistill.distill.laws.head_loss import HeadGradient, head_loss
from fastdistill.distill.laws.log_prob import log_prob_gradient, token_log_prob
from fastdistill.distill.laws.sinkhorn_loss import sinkhorn_loss
from fastdistill.distill.loss import Loss
from fastdistill.distill.masks.corruption import Corrupted, MixedNoise, corrupt, mixed_noise_probabilities
from fastdistill.distill.masks.jacobi_pairs import (
    PackedPairs,
    noise_schedule,
    pack_pairs,
    pair_attention,
    pick_state,
    trajectory_noise,
)
from fastdistill.distill.masks.masks import (
    ComplementaryMasks,
    NestedMasks,
    PairMask,
    nested_answer_masks,
    nested_masks,
    pair_mask,
    semi_autoregressive_masks,
)
from fastdistill.distill.masks.shift_labels import shift_labels
from fastdistill.distill.policy.policy import clipped_ratio, kl_estimate, sampled_reverse_kl
from fastdistill.distill.policy.rollouts import group_advantage, step_weights
from fastdistill.distill.privacy.privacy import (
    add_noise,
    clip_factors,
    embedding_norm_squared,
    ghost_norm_squared,
    tied_norm_squared,
)
from fastdistill.distill.privacy.renyi_accountant import Privacy, rdp_epsilon, renyi_divergences
from fastdistill.distill.ranking.contrastive import ContrastiveGradient, contrastive_hinge, info_nce
from fastdistill.distill.ranking.mutual_information import MutualInformationGradient, mi_alpha
from fastdistill.distill.ranking.pairwise_ranking import pairwise_ranking
from fastdistill.distill.ranking.partial_ranking import hard_negatives, partial_ranking
from fastdistill.distill.ranking.ranking import ListGradient, plackett_luce, pld, preference_ranking
from fastdistill.distill.ranking.similarity import SimilarityGradient, cosine_similarity, cosine_similarity_gradient
from fastdistill.distill.selectors.agreement import agreement_weights
from fastdistill.distill.selectors.margins import Margins, class_similarity, margin_weights
from fastdistill.distill.selectors.pass_rate import expand_groups, pass_rate_weights
from fastdistill.distill.selectors.schedules import held_cosine, polynomial_decay
from fastdistill.distill.selectors.selectors import clip_rows, reference_gap, top_fraction
from fastdistill.distill.selectors.sentences import SpanScores, TeacherSentences, span_geomean, teacher_sentences
from fastdistill.distill.selectors.token_gates import confidence_gate, opener
from fastdistill.distill.teachers.several_teachers import MeanTeacher, distance_filter, masked_mean
from fastdistill.distill.teachers.teacher_file import TeacherFile, TeacherWriter
from fastdistill.distill.teachers.teacher_top_k import TopK, dense_log_probs, teacher_top_k
from fastdistill.distill.vocabularies.alignment import Alignment, align_bytes, chunk_weights, merge_chunks
from fastdistill.distill.vocabularies.alm import alm_loss
from fastdistill.distill.vocabularies.uld import uld_loss
from fastdistill.distill.vocabularies.vocabulary import (
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
    "ComplementaryMasks",
    "ContrastiveGradient",
    "Corrupted",
    "ExpertMerge",
    "FeatureGradient",
    "HeadGradient",
    "KernelRidge",
    "ListGradient",
    "Loss",
    "MappedTeacher",
    "Margins",
    "MeanTeacher",
    "MixedNoise",
    "MutualInformationGradient",
    "NestedMasks",
    "PackedPairs",
    "PairMask",
    "Privacy",
    "RelationGradient",
    "ReverseLevel",
    "SimilarityGradient",
    "SpanScores",
    "TeacherFile",
    "TeacherSentences",
    "TeacherWriter",
    "TopK",
    "acceptance",
    "acceptance_hybrid",
    "adaptive_kl",
    "add_noise",
    "agreement_weights",
    "align_bytes",
    "alm_loss",
    "alpha",
    "apply_chain",
    "attention_loss",
    "best_alpha",
    "chunk_weights",
    "class_similarity",
    "clip_factors",
    "clip_rows",
    "clipped_ratio",
    "common_vocabulary",
    "confidence_gate",
    "contrastive_hinge",
    "corrupt",
    "cosine_similarity",
    "cosine_similarity_gradient",
    "cross_entropy",
    "dense_log_probs",
    "distance_filter",
    "divergence",
    "ema",
    "embedding_norm_squared",
    "entropy",
    "expand_groups",
    "feature_loss",
    "forward_kl",
    "ghost_norm_squared",
    "group_advantage",
    "hard_negatives",
    "head_loss",
    "held_cosine",
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
    "margin_weights",
    "masked_mean",
    "merge_chunks",
    "merge_experts",
    "mi_alpha",
    "mixed_kl",
    "mixed_noise_probabilities",
    "nested_answer_masks",
    "nested_masks",
    "noise_schedule",
    "opener",
    "pack_pairs",
    "pad_columns",
    "pair_attention",
    "pair_mask",
    "pairwise_ranking",
    "partial_ranking",
    "pass_rate_weights",
    "pick_state",
    "plackett_luce",
    "pld",
    "polynomial_decay",
    "preference_ranking",
    "probability_mse",
    "rdp_epsilon",
    "reference_gap",
    "relation_loss",
    "renyi",
    "renyi_divergences",
    "reverse_chain",
    "reverse_fit",
    "reverse_kl",
    "sampled_reverse_kl",
    "scatter_columns",
    "semi_autoregressive_masks",
    "shift_labels",
    "sinkhorn_loss",
    "skew_kl",
    "skew_reverse_kl",
    "slerp",
    "soft_cross_entropy",
    "span_geomean",
    "standardise",
    "step_weights",
    "teacher_sentences",
    "teacher_top_k",
    "tied_norm_squared",
    "token_log_prob",
    "token_relations",
    "top_fraction",
    "topk_divergence",
    "total_variation",
    "trajectory_noise",
    "uld_loss",
]
