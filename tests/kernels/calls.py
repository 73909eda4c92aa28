"""One valid call of every public kernel, and every wrong one that can be derived from it.

`python -m tests.kernels.calls PART` makes the calls of one part in a process of its own, under a limit of memory, and says of each
what it is before it is made: so a call that ends the process is known too.  `test_door.py` runs the parts.
"""

from __future__ import annotations

import inspect
import itertools
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastdistill import distill, show, transport
from fastdistill import kernels as k
from fastdistill.errors import FastDistillError
from fastdistill.kernels.boundary import aligned_bytes
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.kernels.forward.linear import packed_bytes
from tests.distill import selection_calls

Row = tuple[Callable[..., Any], dict[str, Any]]
WRITTEN = {
    "out",
    "workspace",
    "packed",
    "gradient",
    "value",
    "first",
    "second",
    "velocity",
}  # the names of arguments that a call may change
LONGEST_MESSAGE = 400
EITHER = {
    "ExpertMerge",
    "add_noise",
    "masked_mean",
    "TeacherWriter.append",
    "acceptance",
    "alm_loss",
    "attention_loss",
    "common_vocabulary",
    "cosine_similarity",
    "cosine_similarity_gradient",
    "cross_entropy",
    "divergence",
    "entropy",
    "exp_log",
    "feature_loss",
    "info_nce",
    "jsd",
    "log_prob_gradient",
    "mapped_teacher",
    "mi_alpha",
    "pad_columns",
    "pairwise_distance",
    "pairwise_ranking",
    "partial_ranking",
    "plackett_luce",
    "pld",
    "preference_ranking",
    "relation_loss",
    "row_divergence",
    "row_divergence_topk",
    "sampled_reverse_kl",
    "scatter_columns",
    "sinkhorn",
    "sinkhorn_divergence",
    "sinkhorn_loss",
    "softmax",
    "standardise",
    "teacher_top_k",
    "topk_divergence",
    "uld_loss",
    "unrolled_sinkhorn",
    "wasserstein_1d",
}  # another real dtype asks for another result


def f32(*shape: int) -> np.ndarray:
    """Eighths, which float16 holds too: another dtype of them is the same numbers."""
    return ((np.arange(np.prod(shape)) * 37 % 64).reshape(shape) / 8).astype(np.float32)


def law(*shape: int) -> np.ndarray:
    return k.softmax(f32(*shape))


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def _pool(key: int = 1) -> k.NgramPool:
    pool = k.NgramPool(3, 16, 4, key)
    pool.insert(i32(1, 2, 3, 1, 2, 4, 1, 2, 3))
    return pool


def _inserted(tokens: Any) -> Any:
    pool = k.NgramPool(3, 16)
    pool.insert(tokens)
    return pool.lookup(1)


def _packed(**arguments: Any) -> Any:
    return k.PackedWeight(**arguments).multiply(f32(2, 40))


def _transport(**arguments: Any) -> Any:
    found = transport.sinkhorn(**({"epsilon": 0.5, "max_iterations": 5} | arguments))
    return found.value, found.value_linear, found.potentials, found.plan, found.gradient, found.status


def _divergence(**arguments: Any) -> Any:
    found = transport.sinkhorn_divergence(**({"epsilon": 0.5, "max_iterations": 5} | arguments))
    return found.value, found.gradient, found.converged


_FOLDER = tempfile.TemporaryDirectory()


def _teacher_file() -> Path:
    path = Path(_FOLDER.name) / "read.safetensors"
    if not path.exists():
        with distill.TeacherWriter(path, 40, 3) as file:
            file.append(f32(2, 40))
    return path


def _appended(**arguments: Any) -> Any:
    with distill.TeacherWriter(Path(_FOLDER.name) / "written.safetensors", 40, 3) as file:
        file.append(**arguments)
    return tuple(distill.TeacherFile(Path(_FOLDER.name) / "written.safetensors")[:])


def _appended_top_k(**arguments: Any) -> Any:
    with distill.TeacherWriter(Path(_FOLDER.name) / "written.safetensors", 9, 2) as file:
        file.append_top_k(**arguments)
    return tuple(distill.TeacherFile(Path(_FOLDER.name) / "written.safetensors")[:])


def _solved() -> transport.Transport:
    return transport.sinkhorn(None, None, f32(4, 5), epsilon=0.5, max_iterations=5)


def _statistics(*shape: int) -> k.RowStatistics:
    return k.row_statistics(f32(*shape, 40))


TREE = {"parents": i32(-1, 0, 0, 1), "tokens": i32(0, 3, 4, 5)}
CHAIN = {"parents": i32(-1, 0, 1), "tokens": i32(0, 3, 4)}
ROWS = {"weights": np.array([1.0, 0.5]), "reduction": "mean", "total_weight": 4.0, "gradient": True}  # of two rows
MASKED = np.array([[True, False, True], [True, True, True]])


def _pair() -> dict[str, Any]:
    return {"student": f32(2, 8), "teacher": f32(2, 8)[::-1].copy()}


def _divergence_of(name: str, **more: Any) -> Row:
    """A call of a divergence by the name of its objective."""
    number = KINDS[name].parameter if name in KINDS else None
    teacher = {} if name == "entropy" else {"teacher": f32(2, 40)[::-1].copy(), "teacher_is_law": False}
    return getattr(distill, name), {
        "student": f32(2, 40), **teacher, **({number.name: number.default} if number else {}), "weights": np.array([1.0, 2.0]),
        "temperature": 2.0, "reduction": "mean", "total_weight": 3.0, "scale": 0.5, "temperature_squared": True, "labels": i32(3, -100),
        "label_scale": 0.5, "gradient": True, "out": None, "threads": 1, **more,
    }  # fmt: skip


# A call each, by name; `function.case` where one has several.  The first part is the public name.
CALLS: dict[str, Callable[[], Row]] = {
    "NgramPool": lambda: (k.NgramPool, {"ngram": 3, "capacity": 16, "per_key": 4, "key": 1}),
    "NgramPool.insert": lambda: (_inserted, {"tokens": i32(1, 2, 3, 1, 2, 4)}),
    "NgramPool.lookup": lambda: (_pool().lookup, {"key": 1, "count": 2}),
    "NgramPool.lookup.array": lambda: (_pool(2).lookup, {"key": i32(1, 2)}),
    "NgramPool.clear": lambda: (_pool().clear, {}),
    "NgramPool.copy": lambda: (lambda: _pool().copy().lookup(1), {}),
    "PackedWeight": lambda: (
        _packed,
        {"format": "f32", "data": f32(3, 40), "bias": f32(3), "threads": 1, "packed": aligned_bytes(packed_bytes("f32", 3, 40)), "layout": "16x4"},
    ),
    "PackedWeight.q4": lambda: (
        _packed,
        {
            "format": "q4", "data": (np.arange(3 * 32) * 7 % 256).reshape(3, 32).astype(np.uint8), "inputs": 40,
            "scale": f32(3, 2).astype(np.float16), "minimum": f32(3, 2).astype(np.float16),
            "packed": aligned_bytes(packed_bytes("q4", 3, 40)),
        },
    ),
    "PackedWeight.multiply": lambda: (k.PackedWeight("f32", f32(3, 40)).multiply, {"x": f32(2, 40), "threads": 2}),
    "RowStatistics.empty": lambda: (lambda shape: k.RowStatistics.empty(shape).argmax.shape, {"shape": 3}),
    "Sampler": lambda: (
        k.Sampler,
        {
            "temperature": 1.0, "top_k": 3, "top_p": 0.5, "min_p": 0.5, "repetition_penalty": 1.5, "frequency_penalty": 0.5,
            "presence_penalty": -0.5, "no_repeat_ngram_size": 2, "logit_bias": {3: 1.0}, "seed": 1, "sequence": 1, "round": 1, "prompt_length": 1,
        },
    ),
    "Transport.apply": lambda: (_solved().apply, {"values": f32(5, 2)}),
    "Transport.apply_transpose": lambda: (_solved().apply_transpose, {"values": f32(4, 2)}),
    "UnmaskRule": lambda: (
        k.UnmaskRule,
        {"score": "confidence", "threshold": 0.5, "factor": 1.0, "budget": 1.0, "least": 1, "most": 3, "explore": 1},
    ),
    "attention_loss": lambda: (
        distill.attention_loss,
        {"student": f32(2, 2, 1, 4), "teacher": f32(2, 3, 1, 4), "kept": np.ones((2, 4), bool), **ROWS, "weights": np.ones((2, 1))},
    ),
    "build_tree": lambda: (k.build_tree, {"parents": i32(-1, 0, -1, 1), "scores": -f32(4), "budget": 3}),
    "clipped_ratio": lambda: (
        distill.clipped_ratio,
        {"log_prob": np.array([-1.0, -2.0]), "old_log_prob": np.array([-2.0, -1.0]), "advantages": np.array([1.0, -1.0]), "epsilon": 0.2, **ROWS},
    ),
    "contrastive_hinge": lambda: (
        distill.contrastive_hinge,
        {"log_q": np.array([-1.0, -2.0]), "log_good": np.array([-2.0, -1.0]), "log_bad": np.array([-1.5, -3.0]), "margin": 0.5, **ROWS},
    ),
    "cosine_similarity": lambda: (distill.cosine_similarity, {"x": 1 + f32(2, 3), "y": 1 + f32(4, 3)}),
    "cosine_similarity_gradient": lambda: (
        distill.cosine_similarity_gradient, {"gradient": f32(2, 4), "x": 1 + f32(2, 3), "y": 1 + f32(4, 3)},
    ),
    "default_threads": lambda: (k.default_threads, {}),
    "distance_gradient": lambda: (
        k.distance_gradient,
        {"weights": f32(4, 5), "x": f32(4, 3), "y": 1 + f32(5, 3), "metric": "euclidean", "threads": 1},
    ),
    "draft_and_verify": lambda: (
        k.draft_and_verify,
        {
            "states": np.array([[9, 9, 9], [1, 9, 9]], np.int32), "tokens": np.array([[1, 2, 3], [1, 2, 3]], np.int32),
            "scores": f32(2, 3), "steps": np.array([[0, 3, 1], [0, 3, 1]], np.int32), "mask_token": 9, "drafts": 2,
        },
    ),
    "exp_log": lambda: (k.exp_log, {"x": 1 + f32(20)}),
    "expand_tree": lambda: (k.expand_tree, {"logits": f32(3, 40), "scores": -f32(3), "count": 4, "threads": 1}),
    "feature_loss": lambda: (
        distill.feature_loss, {**_pair(), "kind": "smooth_l1", "projector": f32(8, 8), "beta": 2.0, **ROWS},
    ),
    "find_matches": lambda: (
        k.find_matches,
        {"tokens": i32(1, 2, 3, 1, 2, 4, 1, 2), "max_match": 3, "min_match": 1, "count": 2},
    ),
    "fixed_point_prefix": lambda: (
        k.fixed_point_prefix,
        {"previous": np.array([[1, 2, 3]], np.int32), "current": np.array([[1, 2, 4]], np.int32)},
    ),
    "group_advantage": lambda: (distill.group_advantage, {"rewards": np.array([[1.0, 0.0, 2.0]]), "divide_by_std": True}),
    "gumbel_noise": lambda: (
        k.gumbel_noise,
        {"positions": i32(0, 5), "vocab": 40, "seed": 1, "sequence": 2, "purpose": 3, "round": 4, "index": 5},
    ),
    "hard_negatives": lambda: (
        distill.hard_negatives, {"similarities": f32(2, 8), "labels": i32(0, 1), "top_k": 3, "groups": np.arange(8) // 2},
    ),
    "info_nce": lambda: (
        distill.info_nce,
        {"similarities": f32(2, 8), "labels": i32(1, 0), "temperature": 0.5, "exclude_self": True, "groups": np.arange(8) // 2, **ROWS},
    ),
    "isa": lambda: (k.isa, {}),
    "isa_levels": lambda: (k.isa_levels, {}),
    "jacobi_step": lambda: (k.jacobi_step, {"iterate": i32(1, 2, 3), "target": i32(2, 3, 4)}),
    "jacobi_step.logits": lambda: (
        k.jacobi_step,
        {"iterate": i32(1, 2, 3), "target": f32(3, 40), "sampler": k.Sampler(1.0), "positions": i32(1, 2, 3)},
    ),
    "jacobi_step.statistics": lambda: (k.jacobi_step, {"iterate": i32(1, 2, 3), "target": _statistics(3)}),
    "kernel_name": lambda: (k.kernel_name, {"format": "q4"}),
    "kl_estimate": lambda: (
        distill.kl_estimate, {"log_q": np.array([-1.0, -2.0]), "log_p": np.array([-2.0, -1.0]), "kind": "k3", **ROWS},
    ),
    "layer_map": lambda: (distill.layer_map, {"kind": "skip", "student_layers": 3, "teacher_layers": 12}),
    "linear": lambda: (
        k.linear,
        {"x": f32(2, 40), "format": "f32", "data": f32(3, 40), "bias": f32(3), "threads": 1},
    ),
    "linear.q8": lambda: (
        k.linear,
        {
            "x": f32(2, 64), "format": "q8", "data": f32(3, 64).astype(np.int8), "scale": f32(3, 2).astype(np.float16), "minimum": None,
        },
    ),
    "linear.q4": lambda: (
        k.linear,
        {
            "x": f32(2, 64), "format": "q4", "data": f32(3, 32).astype(np.uint8), "scale": f32(3, 2).astype(np.float16),
            "minimum": f32(3, 2).astype(np.float16),
        },
    ),
    "layout": lambda: (show.layout, {"layout": i32(-1, 0, 0), "label": str}),
    "layout.lookahead": lambda: (show.layout, {"layout": k.lookahead_layout(2, 3, 1)}),
    "log_prob_gradient": lambda: (
        distill.log_prob_gradient, {"student": f32(2, 8), "tokens": i32(3, 1), "coefficients": np.array([1.0, -0.5]), "temperature": 0.5},
    ),
    "lookahead_layout": lambda: (
        k.lookahead_layout,
        {"window": np.array([[1, 2, 3], [2, 3, 4]], np.int32), "ngram": 3, "guesses": np.array([[1, 2]], np.int32), "seed": 7},
    ),
    "lookahead_layout.counts": lambda: (k.lookahead_layout, {"window": 3, "ngram": 3, "guesses": 2}),
    "mi_alpha": lambda: (
        distill.mi_alpha,
        {"scores": f32(2, 2), "baseline": np.array([0.5, 1.0]), "alpha": 0.5, "leave_one_out": True, **ROWS},
    ),
    "pairwise_distance": lambda: (
        k.pairwise_distance,
        {"x": f32(4, 3), "y": 1 + f32(5, 3), "metric": "cosine", "threads": 1},
    ),
    "pairwise_ranking": lambda: (distill.pairwise_ranking, {**_pair(), "kind": "logistic", "margin": 0.5, **ROWS}),
    "partial_ranking": lambda: (
        distill.partial_ranking,
        {
            "student": f32(2, 8), "teacher": f32(2, 3), "negatives": np.array([[1, 2, 3], [4, 0, -1]], np.int32),
            "threshold": np.array([0.5, 0.0]), "temperature": 0.5, **ROWS,
        },
    ),
    "philox": lambda: (k.philox, {"counter": np.arange(8, dtype=np.uint32).reshape(2, 4), "key": np.array([1, 2], np.uint32)}),
    "plackett_luce": lambda: (
        distill.plackett_luce, {"scores": f32(2, 8), "rank_weights": np.full((2, 8), 0.5), "rest": np.array([0.5, 1.0]), **ROWS},
    ),
    "pld": lambda: (
        distill.pld,
        {**_pair(), "labels": i32(3, 1), "teacher_temperature": 2.0, "top_k": 4, "renormalise": True, **ROWS},
    ),
    "preference_ranking": lambda: (distill.preference_ranking, {**_pair(), "top_k": 4, **ROWS}),
    "probabilities": lambda: (
        k.probabilities,
        {
            "logits": f32(3, 40), "sampler": k.Sampler(1.0, top_k=9, frequency_penalty=0.5), "seen": [i32(1), i32(2, 3), i32(0, 4)],
            "allowed": np.full((3, 2), 0xFF, np.uint32), "threads": 1, "workspace": k.sample_workspace(3, 40), "out": f32(3, 40),
        },
    ),
    "quantize_rows": lambda: (k.quantize_rows, {"x": f32(2, 40)}),
    "relation_loss": lambda: (
        distill.relation_loss,
        {
            "queries": f32(2, 2, 1, 3), "keys": f32(2, 2, 4, 3), "teacher": f32(2, 3, 1, 4), "kept": np.ones((2, 1, 4), bool), **ROWS,
            "weights": np.ones((2, 1)),
        },
    ),
    "residual_distribution": lambda: (
        k.residual_distribution,
        {"p": law(40), "q": law(40)[::-1].copy(), "a": 1.0, "out": f32(40)},
    ),
    "row_divergence": lambda: (
        k.row_divergence,
        {
            "student": f32(2, 40), "teacher": f32(2, 40)[::-1].copy(), "kind": "jsd", "parameter": 0.3, "temperature": 2.0,
            "labels": i32(3, -1), "scale": 0.5, "label_scale": 0.5, "weights": np.array([1.0, 2.0]), "teacher_is_law": False,
            "gradient": True, "out": np.empty((2, 40), np.float32), "threads": 1,
        },
    ),
    "divergence": lambda: _divergence_of("divergence", kind="skew_kl", parameter=0.3, out=np.empty((2, 40), np.float32)),
    "cross_entropy": lambda: (
        distill.cross_entropy,
        {
            "student": f32(2, 40), "labels": i32(3, -100), "weights": np.array([1.0, 2.0]), "reduction": "mean", "total_weight": 3.0,
            "gradient": True, "out": np.empty((2, 40), np.float32),
        },
    ),
    "acceptance": lambda: (
        distill.acceptance, {"student": f32(2, 40), "teacher": f32(2, 40)[::-1].copy(), "temperature": 2.0}
    ),
    "head_divergence": lambda: (
        k.head_divergence,
        {
            "hidden": f32(2, 3), "head": f32(20, 3), "kind": "jsd", "parameter": 0.25, "teacher": f32(2, 20), "teacher_hidden": None,
            "teacher_head": None, "tokens": None, "log_probs": None, "tail": "bucket", "temperature": 2.0, "labels": i32(3, -1), "scale": 0.5, "label_scale": 0.5,
            "weights": np.array([1.0, 2.0]), "teacher_is_law": False, "gradient": True, "threads": 1,
        },
    ),
    "head_divergence.listed": lambda: (
        k.head_divergence,
        {
            "hidden": f32(2, 3), "head": f32(20, 3), "tokens": i32(3, 5, 1, -1).reshape(2, 2), "log_probs": -1 - f32(2, 2),
            "tail": np.array([0.25, 0.5]),
        },
    ),
    "head_divergence.hidden": lambda: (
        k.head_divergence, {"hidden": f32(2, 3), "head": f32(20, 3), "teacher_hidden": f32(2, 5), "teacher_head": f32(20, 5)}
    ),
    "head_loss": lambda: (
        distill.head_loss,
        {
            "hidden": f32(2, 3), "head": f32(20, 3), "kind": "jsd", "parameter": 0.25, "teacher": f32(2, 20), "teacher_hidden": None,
            "teacher_head": None, "tokens": None, "log_probs": None, "tail": "bucket", "temperature": 2.0, "labels": i32(3, -100), "scale": 0.5, "label_scale": 0.5,
            "weights": np.array([1.0, 2.0]), "reduction": "mean", "total_weight": 3.0, "temperature_squared": True,
            "teacher_is_law": False, "gradient": True,
        },
    ),
    "head_loss.listed": lambda: (
        distill.head_loss,
        {
            "hidden": f32(2, 3), "head": f32(20, 3), "tokens": i32(3, 5, 1, -1).reshape(2, 2), "log_probs": -1 - f32(2, 2),
            "tail": np.array([0.25, 0.5]),
        },
    ),
    "head_loss.hidden": lambda: (
        distill.head_loss, {"hidden": f32(2, 3), "head": f32(20, 3), "teacher_hidden": f32(2, 5), "teacher_head": f32(20, 5)}
    ),
    "row_divergence_topk": lambda: (
        k.row_divergence_topk,
        {
            "student": f32(2, 40), "tokens": i32(3, 5, 1, -1).reshape(2, 2), "log_probs": -1 - f32(2, 2), "kind": "jsd", "parameter": 0.25,
            "tail": "bucket", "temperature": 2.0, "labels": i32(3, -1), "scale": 0.5, "label_scale": 0.5, "weights": np.array([1.0, 2.0]),
            "gradient": True, "out": np.empty((2, 40), np.float32), "threads": 1,
        },
    ),
    "topk_divergence": lambda: (
        distill.topk_divergence,
        {
            "student": f32(2, 40), "tokens": i32(3, 5, 1, -1).reshape(2, 2), "log_probs": -1 - f32(2, 2), "kind": "skew_kl", "parameter": 0.25,
            "tail": np.array([0.25, 0.5]), "temperature": 2.0, "labels": i32(3, -100), "scale": 0.5, "label_scale": 0.5,
            "weights": np.array([1.0, 2.0]), "reduction": "mean", "total_weight": 3.0, "temperature_squared": True, "gradient": True,
            "out": np.empty((2, 40), np.float32),
        },
    ),
    "top_k": lambda: (k.top_k, {"logits": f32(2, 40), "k": 3, "threads": 1}),
    "row_statistics": lambda: (k.row_statistics, {"logits": f32(3, 40), "threads": 1}),
    "sample": lambda: (
        k.sample,
        {
            "logits": f32(3, 40), "sampler": k.Sampler(1.0, repetition_penalty=1.5), "positions": i32(4, 5, 6),
            "seen": [i32(1), i32(2, 3), i32(0, 4)], "allowed": np.full((3, 2), 0xFF, np.uint32), "noise": f32(3, 40), "threads": 1,
            "workspace": k.sample_workspace(3, 40), "out": i32(0, 0, 0),
        },
    ),
    "sample_workspace": lambda: (lambda **sizes: k.sample_workspace(**sizes).shape, {"rows": 3, "vocab": 40, "threads": 2}),
    "sampled_reverse_kl": lambda: (
        distill.sampled_reverse_kl,
        {"student": f32(2, 8), "teacher_log_prob": np.array([-1.0, -2.0]), "tokens": i32(3, 1), "temperature": 0.5, **ROWS},
    ),
    "set_isa": lambda: (k.set_isa, {"name": k.isa()}),
    "align_bytes": lambda: (
        distill.align_bytes,
        {"teacher_offsets": i32(0, 2, 2, 3, 3, 6).reshape(3, 2), "student_offsets": i32(0, 1, 1, 3, 3, 6).reshape(3, 2)},
    ),
    "alm_loss": lambda: (
        distill.alm_loss,
        {
            "student": f32(4, 40), "labels": i32(3, 4, -100, 5), "chunks": i32(0, 2, 0, 1, 2, 3, 1, 3).reshape(2, 4),
            "teacher_log_probs": -f32(4), "kind": "kl", "binarization_temperature": 10.0, "epsilon": 1e-3,
            "space": np.arange(40) < 3, "teacher_space_log_probs": -f32(4), "weights": f32(2), "reduction": "mean",
            "total_weight": 3.0, "gradient": True,
        },
    ),
    "chunk_weights": lambda: (
        distill.chunk_weights,
        {"chunks": i32(0, 2, 0, 1, 2, 3, 1, 3).reshape(2, 4), "teacher_mask": np.arange(3) > 0, "student_mask": np.arange(3) < 2},
    ),
    "common_vocabulary": lambda: (distill.common_vocabulary, {"student": f32(2, 40), "teacher": f32(2, 44)}),
    "inverse_token_map": lambda: (distill.inverse_token_map, {"token_map": i32(3, -1, 0), "vocab": 5}),
    "mapped_teacher": lambda: (distill.mapped_teacher, {"teacher": f32(2, 5), "token_map": i32(3, -1, 0)}),
    "merge_chunks": lambda: (
        distill.merge_chunks,
        {"chunks": i32(0, 2, 0, 1, 2, 3, 1, 3).reshape(2, 4), "closes": np.array([False, True])},
    ),
    "pad_columns": lambda: (distill.pad_columns, {"gradient": f32(2, 4), "vocab": 5}),
    "scatter_columns": lambda: (distill.scatter_columns, {"gradient": f32(2, 3), "token_map": i32(3, -1, 0), "vocab": 5}),
    "sinkhorn": lambda: (
        _transport,
        {
            "a": np.full(4, 0.25), "b": np.full(5, 0.2), "cost": f32(4, 5).astype(np.float64), "tolerance": 1e-6, "unbalanced": None,
            "epsilon_scaling": 0.5, "warm_start": (np.zeros(4), np.zeros(5)), "dtype": np.float64, "history": True, "threads": 1,
            "progress": None, "lengths": (np.array(3), np.array(4)), "epsilon": 0.5, "max_iterations": 5,
        },
    ),
    "sinkhorn.points": lambda: (_transport, {"a": None, "b": None, "x": f32(4, 3), "y": 1 + f32(5, 3), "metric": "cosine"}),
    "sinkhorn_divergence": lambda: (
        _divergence,
        {
            "a": np.full(4, 0.25), "b": np.full(5, 0.2), "x": f32(4, 3).astype(np.float64), "y": 1 + f32(5, 3).astype(np.float64),
            "metric": "euclidean", "epsilon": 0.5, "max_iterations": 5, "tolerance": 1e-6, "unbalanced": (1.0, 1.0), "epsilon_scaling": 0.5,
            "dtype": np.float64, "threads": 1,
        },
    ),
    "sinkhorn_loss": lambda: (
        distill.sinkhorn_loss,
        {
            "student": f32(2, 40), "teacher": f32(2, 40)[::-1].copy(), "temperature": 2.0, "epsilon": 0.5, "iterations": 3,
            "scale": 1.0, "mode": "unrolled", "threads": 1,
        },
    ),
    "sinkhorn_loss.entropic": lambda: (
        distill.sinkhorn_loss,
        {"student": f32(2, 40), "teacher": f32(2, 40)[::-1].copy(), "epsilon": 0.5, "mode": "entropic"},
    ),
    "adamw_step": lambda: (
        k.adamw_step,
        {
            "value": f32(37), "gradient": f32(37) - 3, "first": f32(37), "second": f32(37), "step": 3, "learning_rate": 0.125, "beta1": 0.5,
            "beta2": 0.75, "epsilon": 0.5, "weight_decay": 0.25, "gradient_scale": 0.5, "zero_gradient": True, "threads": 1,
        },
    ),
    "sgd_step": lambda: (
        k.sgd_step,
        {
            "value": f32(37), "gradient": f32(37) - 3, "velocity": f32(37), "learning_rate": 0.125, "momentum": 0.5, "nesterov": True,
            "weight_decay": 0.25, "decoupled": False, "gradient_scale": 0.5, "zero_gradient": True, "threads": 1,
        },
    ),
    "sum_of_squares": lambda: (k.sum_of_squares, {"x": f32(37), "threads": 1}),
    "softmax": lambda: (k.softmax, {"logits": f32(3, 40), "temperature": 0.5, "threads": 1}),
    "softmax_gradient": lambda: (
        k.softmax_gradient,
        {"probabilities": law(3, 40), "gradient": f32(3, 40), "temperature": 0.5, "weight": 2.0, "threads": 1},
    ),
    "standardise": lambda: (distill.standardise, {"features": f32(2, 8), "epsilon": 1e-3}),
    "step_weights": lambda: (distill.step_weights, {"steps": i32(0, 0, 1, -1), "trajectories": i32(0, 1, 1, 1)}),
    "token_log_prob": lambda: (distill.token_log_prob, {"logits": f32(2, 8), "tokens": i32(3, 1), "temperature": 0.5}),
    "token_relations": lambda: (distill.token_relations, {"queries": f32(1, 2, 3, 4), "keys": f32(1, 2, 5, 4)}),
    "tree_layout": lambda: (k.tree_layout, {"parents": i32(-1, 0, 0, 1)}),
    "TeacherFile": lambda: (lambda path: tuple(distill.TeacherFile(path)[:]), {"path": str(_teacher_file())}),
    "TeacherWriter": lambda: (
        lambda **arguments: distill.TeacherWriter(**arguments).token_bytes,
        {"path": "teacher", "vocab_size": 9, "k": 3, "bits": 4, "model": "m", "data": "d", "resume": True},
    ),
    "TeacherWriter.append": lambda: (_appended, {"logits": f32(3, 40)}),
    "TeacherWriter.append_top_k": lambda: (_appended_top_k, {"ids": i32(3, 1, 4, 0).reshape(2, 2), "log_probs": -1 - f32(2, 2), "tail": None}),
    "TeacherWriter.append_top_k.tail": lambda: (
        _appended_top_k,
        {"ids": i32(3, 1, 4, 0).reshape(2, 2), "log_probs": np.full((2, 2), -2.0, np.float32), "tail": np.full(2, 0.73, np.float32)},
    ),
    "dense_log_probs": lambda: (
        distill.dense_log_probs,
        {"top": distill.TopK(i32(3, 1, 4, 0).reshape(2, 2), np.full((2, 2), -2.0, np.float32), np.full(2, 0.73, np.float32)), "vocab": 9, "tail": "drop"},
    ),
    "teacher_top_k": lambda: (distill.teacher_top_k, {"logits": f32(3, 40), "k": 4}),
    "uld_loss": lambda: (
        distill.uld_loss,
        {
            "student": f32(2, 40), "teacher": f32(2, 44), "temperature": 2.0, "weights": f32(2), "reduction": "mean", "total_weight": 3.0,
            "gradient": True,
        },
    ),
    "unmask_select": lambda: (
        k.unmask_select,
        {
            "statistics": _statistics(2, 3), "masked": MASKED.copy(), "rule": k.UnmaskRule(threshold=0.5, budget=1.0), "quota": i32(1, 2),
            "log_probs": -f32(2, 3), "bias": f32(2, 3), "also": MASKED.copy(), "threads": 1,
        },
    ),
    "unmask_select.margin": lambda: (
        k.unmask_select,
        {"statistics": _statistics(2, 3), "masked": MASKED.copy(), "rule": k.UnmaskRule("margin", threshold=0.5), "quota": 2},
    ),
    "unmask_select.given": lambda: (
        k.unmask_select,
        {"statistics": None, "masked": MASKED.copy(), "rule": k.UnmaskRule("given"), "scores": f32(2, 3)},
    ),
    "unrolled_sinkhorn": lambda: (k.unrolled_sinkhorn, {"cost": f32(4, 5), "epsilon": 0.5, "iterations": 3, "threads": 1}),
    "verify_tree": lambda: (k.verify_tree, {**_copied(TREE), "target": i32(3, 5, 1, 1), "offsets": np.array([0, 4])}),
    "verify_tree.rejection": lambda: (
        k.verify_tree,
        {
            **_copied(CHAIN), "target": law(3, 40), "rule": "rejection", "drafts": law(2, 40), "draft_rows": i32(-1, 0, 1),
            "replacement": True, "uniforms": f32(3).astype(np.float64) / 8, "lenience": ("linear", 0.5),
            "workspace": k.verify_tree_workspace("rejection", 3, 40),
        },
    ),
    "verify_tree.typical": lambda: (
        k.verify_tree,
        {**_copied(TREE), "target": law(4, 40), "rule": "typical", "uniforms": np.zeros(4), "epsilon": 0.09, "delta": 0.3},
    ),
    "verify_tree_workspace": lambda: (
        lambda **sizes: k.verify_tree_workspace(**sizes).shape, {"rule": "traversal", "nodes": 4, "vocab": 40},
    ),
    "wasserstein_1d": lambda: (
        transport.wasserstein_1d,
        {"x": f32(2, 4).astype(np.float64), "y": 1 + f32(5).astype(np.float64), "a": np.full(4, 0.25), "b": np.full(5, 0.2), "p": 2.0},
    ),
    "jsd": lambda: _divergence_of("jsd", out=np.empty((2, 40), np.float32)),
    "entropy": lambda: _divergence_of("entropy", out=np.empty((2, 40), np.float32)),
}  # fmt: skip
CALLS |= selection_calls.CALLS


def _copied(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: array.copy() for name, array in arguments.items()}


def public_callables() -> dict[str, Callable[..., Any]]:
    """Every function of `fastdistill.kernels`, `transport` and `distill`, the constructors and methods of their classes that are not
    mere results, and the drawing of arrays.  Of the divergences, which are one function by many names, the odd two."""
    found: dict[str, Callable[..., Any]] = {"layout": show.layout}
    for name, thing in [(name, getattr(module, name)) for module in (k, transport, distill) for name in module.__all__]:
        if not inspect.isclass(thing):
            if name not in KINDS or name in ("jsd", "entropy"):
                found[name] = thing
            continue
        results = issubclass(thing, tuple) or thing in (transport.Transport, transport.Divergence)
        if not results:
            found[name] = thing
        for method, value in vars(thing).items():
            if method[0] != "_" and (inspect.isfunction(value) or isinstance(value, classmethod)):
                found[f"{name}.{method}"] = getattr(thing, method)
    return found


# ---- arrays in a call: where they are, and what they may be replaced by ----
Path_ = tuple[Any, ...]


def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, np.ndarray]]:
    """The arrays of a call's arguments, and where they are."""
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from leaves(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))


def replaced(value: Any, path: Path_, new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, dict):
        return value | {path[0]: replaced(value[path[0]], path[1:], new)}
    items = [replaced(item, path[1:], new) if index == path[0] else item for index, item in enumerate(value)]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _in_bytes(array: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins so many bytes after a cache line."""
    memory = aligned_bytes(array.nbytes + offset + 64)
    copy = memory[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _mapped(array: np.ndarray, mode: str, folder: Path) -> np.ndarray:
    np.save(folder / "array.npy", array)
    return np.load(folder / "array.npy", mmap_mode=mode)


def _strided(array: np.ndarray) -> np.ndarray:
    return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array


class Subclass(np.ndarray):
    """An array that is more than its numbers."""


def variants(array: np.ndarray, folder: Path) -> Iterator[tuple[str, bool, Any]]:
    """Other forms of an array: the name, whether it holds the same numbers, and the form."""
    yield "read-only", True, _read_only(array)
    yield "misaligned", True, _in_bytes(array, 1)
    yield "misaligned by four", True, _in_bytes(array, 4)
    yield "big-endian", True, array.astype(array.dtype.newbyteorder(">"))
    yield "strided", True, _strided(array)
    yield "backwards", True, np.flip(np.flip(array).copy())
    yield "column-major", True, array.copy(order="F")
    yield "read-only map", True, _mapped(array, "r", folder)
    yield "copy-on-write map", True, _mapped(array, "c", folder)
    yield "writable map", True, _mapped(array, "r+", folder)
    yield "list", True, array.tolist()
    yield "tuple", True, tuple(array.tolist()) if array.ndim else array
    yield "masked", False, np.ma.array(array, mask=np.arange(array.size).reshape(array.shape) % 2 == 0)
    yield "list of masked", False, [np.ma.array(row, mask=True) for row in array] if array.ndim else np.ma.masked
    yield "subclass", True, array.view(Subclass)
    yield "matrix", False, np.asmatrix(array) if array.ndim == 2 else array.view(Subclass)
    yield "empty", False, array[:0] if array.ndim else array
    yield "empty rows", False, array[..., :0] if array.ndim else array
    yield "no axes", False, np.array(3, array.dtype)
    yield "one axis more", False, array[None]
    yield "sixty axes", False, np.zeros((1,) * 60, array.dtype)
    yield "broadcast", False, np.broadcast_to(array[:1], array.shape) if array.ndim else array
    for dtype in (
        np.float64,
        np.float32,
        np.float16,
        np.longdouble,
        np.int64,
        np.int16,
        np.uint8,
        np.uint64,
        np.complex64,
        object,
        str,
    ):
        with np.errstate(all="ignore"):
            yield (
                f"as {np.dtype(dtype).name}",
                np.array_equal(array.astype(dtype).astype(array.dtype), array),
                array.astype(dtype),
            )
    yield "records", False, np.zeros(array.shape, [("a", np.int8)])
    yield "dates", False, np.zeros(array.shape, "M8[s]")


def overlaps(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Both arrays in one memory: one from its middle on the other, the other way round, and both from one place."""
    line = 64 if one.dtype == np.uint8 or other.dtype == np.uint8 else max(one.itemsize, other.itemsize)
    for how, first, second in (("before", 0, line), ("behind", line, 0), ("on", 0, 0)):
        memory = aligned_bytes(max(one.nbytes, other.nbytes) + 2 * line)
        placed = []
        for array, start in ((one, first), (other, second)):
            part = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            placed.append((part, array))
        for part, array in placed:
            part[...] = array
        if np.shares_memory(placed[0][0], placed[1][0]):
            yield how, placed[0][0], placed[1][0]


def frozen(result: Any) -> Any:
    """What a call gave, as something to compare bit by bit."""
    if isinstance(result, np.ndarray):
        return result.dtype.str, result.shape, result.tobytes()
    if isinstance(result, (tuple, list)):
        return tuple(frozen(item) for item in result)
    if isinstance(result, dict):
        return frozen(list(result.items()))
    if isinstance(result, np.generic):
        return result.dtype.str, result.tobytes()
    if isinstance(result, k.NgramPool):
        return result.ngram, result.capacity, result.per_key, result.key
    return result


def made(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[str, Any]:
    """What came of a call: ("gave", result), ("refused", message) or ("failed", why)."""
    try:
        return "gave", frozen(function(**arguments))
    except FastDistillError as error:
        text = str(error)
        if len(text) > LONGEST_MESSAGE or len(text.splitlines()) != 1 or "np." in text.split(": pass ")[0]:
            return "failed", f"the message {text[:1000]!r}"
        return "refused", text
    except MemoryError:
        return "refused", "no memory"
    except Exception as error:
        return "failed", f"{type(error).__name__}: {str(error)[:300]}"


def _bytes_of(arguments: dict[str, Any], but: set[str]) -> dict[Path_, bytes]:
    return {path: np.asarray(array).tobytes() for path, array in leaves(arguments) if path[0] not in but}


def wrong_arrays(folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Every array of every call in every form, and every array that is written over every other."""
    for name, make in CALLS.items():
        for path, array in leaves(make()[1]):
            for form, same, value in variants(array, folder):
                where = ".".join(map(str, path))
                same = same and not (name.split(".")[0] in EITHER and form in ("as float32", "as float64"))
                yield (
                    f"{name} {where} {form}",
                    lambda make=make, path=path, same=same, value=value: _form(make, path, same, value),
                )
            if path[0] in WRITTEN:
                for other, beside in leaves(make()[1]):
                    if other == path or (other[0] in WRITTEN and other < path):
                        continue
                    for how, one, two in overlaps(array, beside):
                        yield (
                            f"{name} {path[0]} {how} {'.'.join(map(str, other))}",
                            lambda make=make, path=path, other=other, one=one, two=two: _overlap(
                                make, path, other, one, two
                            ),
                        )


def _form(make: Callable[[], Row], path: Path_, same: bool, value: Any) -> str:
    want = made(*make())
    function, arguments = make()
    arguments = replaced(arguments, path, value)
    if (
        isinstance(value, np.ma.MaskedArray)
        and len(path) > 1
        and made(function, replaced(arguments, path, None)) == want
    ):
        return ""  # nothing reads this field
    kept = WRITTEN if isinstance(value, np.ndarray) and value.flags.writeable else WRITTEN - {path[0]}
    before = _bytes_of(arguments, kept)
    outcome, what = made(function, arguments)
    if outcome == "failed":
        return what
    if _bytes_of(arguments, kept) != before:
        return "an input has changed"
    if outcome == "gave" and same and ("gave", what) != want:
        return f"gave {str(what)[:200]}, the plain call {str(want)[:200]}"
    if outcome == "gave" and isinstance(value, np.ma.MaskedArray):
        return "took a masked array"
    return ""


def _overlap(make: Callable[[], Row], path: Path_, other: Path_, one: np.ndarray, two: np.ndarray) -> str:
    function, arguments = make()
    arguments = replaced(replaced(arguments, path, one), other, two)
    alone = {p: a.copy() for p, a in leaves(arguments)}
    plain = arguments
    for place, array in alone.items():
        plain = replaced(plain, place, array)
    if path[0] in ("workspace", "packed"):  # what is in it does not matter
        plain = replaced(plain, path, aligned_bytes(one.nbytes).view(one.dtype).reshape(one.shape))
    want = made(function, plain)
    before = {p: a.tobytes() for p, a in leaves(arguments)}
    outcome, what = made(function, arguments)
    if outcome == "failed":
        return what
    if outcome == "refused":
        return "" if before == {p: a.tobytes() for p, a in leaves(arguments)} else "refused, but has written"
    return "" if ("gave", what) == want else "gave something else than apart"


# ---- odd objects in place of each argument ----
class Raises:
    """Whatever is asked of it, it fails."""

    def _fail(self, *_: Any) -> Any:
        raise RuntimeError("no")

    __repr__ = __str__ = __index__ = __float__ = __int__ = __len__ = __iter__ = __array__ = __getitem__ = __bool__ = (
        _fail  # type: ignore[assignment]
    )
    __lt__ = __gt__ = __le__ = __ge__ = __contains__ = _fail  # type: ignore[assignment]
    __hash__ = object.__hash__


def _holding(thing: Any) -> np.ndarray:
    array = np.empty(1, object)
    array[0] = thing
    return array


ODD: list[Any] = [
    None, True, False, np.True_, 0, 1, -1, 3, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**5000, -(10**5000), 0.5, -0.5, 1e30, 1e308,
    float("nan"), float("inf"), -float("inf"), 1j, np.float32(np.nan), np.int64(-1), np.uint64(2**64 - 1), np.longdouble(1), "", "q4",
    "x" * 10**6, "\ud800\n", "0", b"x", b"x" * 10**6, bytearray(4), memoryview(b"abcd"), [], (), {}, set(), frozenset({1}), [1, 2, 3],
    [[1]], [[1], [1, 2]], [None], ["a"], [10**5000], [2**63, -1], (0.5, float("nan")), ("linear", "x"), {1: 2}, {"a": "b"},
    {10**5000: 1.0}, {0: float("nan")}, range(3), range(10**6), object(), int, lambda *_, **__: "x", iter([1]), Ellipsis, slice(3),
    NotImplemented, Raises(), [Raises()], {0: Raises()}, np.array(1), np.array(np.nan), np.zeros(0), np.zeros((0, 0), np.float32),
    np.zeros((2, 2)), np.full(3, np.nan), np.full((3, 40), np.nan, np.float32), np.full((3, 40), -np.inf, np.float32),
    np.full((3, 40), np.inf), np.full(4, 10**6), np.full(3, -(2**31), np.int32), np.array(["a", "b"]), np.array([None, 10**5000], object),
    _holding(Raises()), np.zeros(3, [("a", np.float32)]), np.ma.array([1, 2, 3], mask=True), np.ma.masked,
    np.datetime64("NaT"), np.array(["2026"], "M8[D]"), np.zeros((1,) * 60, np.float32), k.Sampler(), k.Sampler(1.0), k.UnmaskRule("given"),
    k.RowStatistics(*[Raises()] * 6), k.RowStatistics.empty((2, 3)), k.LookaheadLayout(*[Raises()] * 5), k.LookaheadLayout(*[[]] * 5),
    k.LookaheadLayout(i32(0), i32(-1), i32(0), np.full((1, 1), 9, np.int32), np.full((1, 1), -9, np.int32)),
]  # fmt: skip
SLOW = {2**31 - 1}  # iterations without end, and arrays beyond any memory


def parameters(make: Callable[[], Row]) -> list[str]:
    return list(make()[1])


def odd_objects() -> Iterator[tuple[str, Callable[[], str]]]:
    """Every argument of every call replaced by every odd object."""
    for name, make in CALLS.items():
        for parameter, (number, odd) in itertools.product(parameters(make), enumerate(ODD)):
            yield (
                f"{name} {parameter} ODD[{number}]",
                lambda make=make, parameter=parameter, odd=odd: _odd(make, {parameter: odd}),
            )


def _odd(make: Callable[[], Row], odd: dict[str, Any]) -> str:
    function, arguments = make()
    outcome, what = made(function, arguments | odd)
    return what if outcome == "failed" else ""


def odd_pairs() -> Iterator[tuple[str, Callable[[], str]]]:
    """Two arguments at once and arrays of random contents, by hypothesis."""
    numbers = [number for number, odd in enumerate(ODD) if not (isinstance(odd, int) and odd in SLOW)]
    random_arrays = st.builds(
        lambda dtype, shape, seed: np.random.default_rng(seed).integers(-3, 50, shape).astype(dtype),
        st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint32, np.uint8, np.bool_]),
        st.lists(st.integers(0, 4), max_size=3), st.integers(0, 99),
    )  # fmt: skip
    things = (
        st.sampled_from(numbers).map(lambda number: ODD[number]) | random_arrays | st.integers(-9, 60) | st.floats()
    )

    def search(make: Callable[[], Row]) -> str:
        @settings(
            max_examples=20, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck),
            print_blob=False,
        )  # fmt: skip
        @given(st.dictionaries(st.sampled_from(parameters(make)), things, min_size=1, max_size=3))
        def attempt(odd: dict[str, Any]) -> None:
            failure = _odd(make, odd)
            assert not failure, f"{ {name: type(value).__name__ for name, value in odd.items()} }: {failure}"

        try:
            attempt()
        except AssertionError as error:
            return str(error)[:500]
        return ""

    for name, make in CALLS.items():
        if parameters(make):
            yield f"{name} pairs", lambda make=make: search(make)


def limit_memory() -> bool:
    """Whether memory beyond 2 GB is refused from now on: under emulation and sanitizers it cannot be."""
    if int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() > 1 << 30:
        return False
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    try:
        np.empty(1 << 32, np.uint8)
    except MemoryError:
        return True
    return False


def main(part: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not limit_memory():
        ODD[:] = [odd for odd in ODD if not (isinstance(odd, int) and odd in SLOW)]
    with tempfile.TemporaryDirectory() as folder:
        cases = {"arrays": lambda: wrong_arrays(Path(folder)), "odd": odd_objects, "pairs": odd_pairs}[part]()
        for name, case in cases:
            print(name, end="\t", flush=True)
            print(case(), flush=True)
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
