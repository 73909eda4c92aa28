"""Checked functions over NumPy arrays, each with a reference of the same name in `fastdistill.reference`."""

from fastdistill.kernels.distill.divergence_call import RowDivergence
from fastdistill.kernels.distill.head_divergence import HeadDivergence, head_divergence
from fastdistill.kernels.distill.row_divergence import row_divergence
from fastdistill.kernels.distill.row_divergence_topk import row_divergence_topk
from fastdistill.kernels.distill.top_k import top_k
from fastdistill.kernels.fixed_point.fixed_point_prefix import fixed_point_prefix
from fastdistill.kernels.fixed_point.jacobi_step import JacobiStep, jacobi_step
from fastdistill.kernels.fixed_point.lookahead_layout import LookaheadLayout, lookahead_layout
from fastdistill.kernels.fixed_point.ngram_pool import NgramPool
from fastdistill.kernels.forward.exp_log import exp_log
from fastdistill.kernels.forward.linear import PackedWeight, kernel_name, linear
from fastdistill.kernels.forward.quantize_rows import quantize_rows
from fastdistill.kernels.forward.row_statistics import RowStatistics, row_statistics
from fastdistill.kernels.isa import isa, isa_levels, set_isa
from fastdistill.kernels.sample.gumbel_noise import gumbel_noise
from fastdistill.kernels.sample.philox import philox
from fastdistill.kernels.sample.probabilities import probabilities
from fastdistill.kernels.sample.sample import Sampler, sample, sample_workspace
from fastdistill.kernels.threads import default_threads
from fastdistill.kernels.train.adamw_step import adamw_step
from fastdistill.kernels.train.sgd_step import sgd_step
from fastdistill.kernels.train.sum_of_squares import sum_of_squares
from fastdistill.kernels.transport.distance_gradient import distance_gradient
from fastdistill.kernels.transport.pairwise_distance import pairwise_distance
from fastdistill.kernels.transport.softmax import softmax, softmax_gradient
from fastdistill.kernels.transport.unrolled_sinkhorn import Unrolled, unrolled_sinkhorn
from fastdistill.kernels.unmask.draft_and_verify import Drafted, draft_and_verify
from fastdistill.kernels.unmask.unmask_select import Unmasked, UnmaskRule, unmask_select
from fastdistill.kernels.verify.build_tree import BuiltTree, build_tree
from fastdistill.kernels.verify.expand_tree import Expansion, expand_tree
from fastdistill.kernels.verify.find_matches import Matches, find_matches
from fastdistill.kernels.verify.residual_distribution import residual_distribution
from fastdistill.kernels.verify.tree_layout import TreeLayout, tree_layout
from fastdistill.kernels.verify.verify_tree import Verified, verify_tree, verify_tree_workspace

__all__ = [
    "BuiltTree",
    "Drafted",
    "Expansion",
    "HeadDivergence",
    "JacobiStep",
    "LookaheadLayout",
    "Matches",
    "NgramPool",
    "PackedWeight",
    "RowDivergence",
    "RowStatistics",
    "Sampler",
    "TreeLayout",
    "UnmaskRule",
    "Unmasked",
    "Unrolled",
    "Verified",
    "adamw_step",
    "build_tree",
    "default_threads",
    "distance_gradient",
    "draft_and_verify",
    "exp_log",
    "expand_tree",
    "find_matches",
    "fixed_point_prefix",
    "gumbel_noise",
    "head_divergence",
    "isa",
    "isa_levels",
    "jacobi_step",
    "kernel_name",
    "linear",
    "lookahead_layout",
    "pairwise_distance",
    "philox",
    "probabilities",
    "quantize_rows",
    "residual_distribution",
    "row_divergence",
    "row_divergence_topk",
    "row_statistics",
    "sample",
    "sample_workspace",
    "set_isa",
    "sgd_step",
    "softmax",
    "softmax_gradient",
    "sum_of_squares",
    "top_k",
    "tree_layout",
    "unmask_select",
    "unrolled_sinkhorn",
    "verify_tree",
    "verify_tree_workspace",
]
