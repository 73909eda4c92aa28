"""Objectives of distillation: what a student's logits cost beside a teacher's, and how they should move."""

from fastdistill.distill.agreement import agreement_weights
from fastdistill.distill.corruption import Corrupted, MixedNoise, corrupt, mixed_noise_probabilities
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
    total_variation,
)
from fastdistill.distill.expert_merge import ExpertMerge, merge_experts
from fastdistill.distill.jacobi_pairs import (
    PackedPairs,
    noise_schedule,
    pack_pairs,
    pair_attention,
    pick_state,
    trajectory_noise,
)
from fastdistill.distill.kernel_ridge import KernelRidge, best_alpha
from fastdistill.distill.loss import Loss
from fastdistill.distill.margins import Margins, class_similarity, margin_weights
from fastdistill.distill.masks import (
    ComplementaryMasks,
    NestedMasks,
    PairMask,
    nested_answer_masks,
    nested_masks,
    pair_mask,
    semi_autoregressive_masks,
)
from fastdistill.distill.merging import ema, slerp
from fastdistill.distill.pass_rate import expand_groups, pass_rate_weights
from fastdistill.distill.privacy import (
    add_noise,
    clip_factors,
    embedding_norm_squared,
    ghost_norm_squared,
    tied_norm_squared,
)
from fastdistill.distill.renyi_accountant import Privacy, rdp_epsilon, renyi_divergences
from fastdistill.distill.reverse_distillation import ReverseLevel, apply_chain, reverse_chain, reverse_fit
from fastdistill.distill.schedules import held_cosine, polynomial_decay
from fastdistill.distill.selectors import clip_rows, reference_gap, top_fraction
from fastdistill.distill.sentences import SpanScores, TeacherSentences, span_geomean, teacher_sentences
from fastdistill.distill.several_teachers import MeanTeacher, distance_filter, masked_mean
from fastdistill.distill.shift_labels import shift_labels
from fastdistill.distill.sinkhorn_loss import sinkhorn_loss
from fastdistill.distill.token_gates import confidence_gate, opener

__all__ = [
    "ComplementaryMasks",
    "Corrupted",
    "ExpertMerge",
    "KernelRidge",
    "Loss",
    "Margins",
    "MeanTeacher",
    "MixedNoise",
    "NestedMasks",
    "PackedPairs",
    "PairMask",
    "Privacy",
    "ReverseLevel",
    "SpanScores",
    "TeacherSentences",
    "acceptance",
    "acceptance_hybrid",
    "adaptive_kl",
    "add_noise",
    "agreement_weights",
    "alpha",
    "apply_chain",
    "best_alpha",
    "class_similarity",
    "clip_factors",
    "clip_rows",
    "confidence_gate",
    "corrupt",
    "cross_entropy",
    "distance_filter",
    "divergence",
    "ema",
    "embedding_norm_squared",
    "entropy",
    "expand_groups",
    "forward_kl",
    "ghost_norm_squared",
    "held_cosine",
    "jeffreys",
    "jsd",
    "log_acceptance",
    "logit_mse",
    "margin_weights",
    "masked_mean",
    "merge_experts",
    "mixed_kl",
    "mixed_noise_probabilities",
    "nested_answer_masks",
    "nested_masks",
    "noise_schedule",
    "opener",
    "pack_pairs",
    "pair_attention",
    "pair_mask",
    "pass_rate_weights",
    "pick_state",
    "polynomial_decay",
    "probability_mse",
    "rdp_epsilon",
    "reference_gap",
    "renyi",
    "renyi_divergences",
    "reverse_chain",
    "reverse_fit",
    "reverse_kl",
    "semi_autoregressive_masks",
    "shift_labels",
    "sinkhorn_loss",
    "skew_kl",
    "skew_reverse_kl",
    "slerp",
    "soft_cross_entropy",
    "span_geomean",
    "teacher_sentences",
    "tied_norm_squared",
    "top_fraction",
    "total_variation",
    "trajectory_noise",
]
