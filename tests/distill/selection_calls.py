"""A valid call of every selector, mask, norm and closed form, in the form of tests/kernels/calls.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import distill as d

Row = tuple[Callable[..., Any], dict[str, Any]]


def eighths(*shape: int) -> np.ndarray:
    """float64 in 0..7.875, which every other real dtype holds too."""
    return (np.arange(np.prod(shape)) * 37 % 64).reshape(shape) / 8


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


WEIGHTS = [1.0, 0.0, 0.5, 2.0]


def _weights() -> np.ndarray:
    return np.array(WEIGHTS)


def _ridge(**arguments: Any) -> d.KernelRidge:
    return d.KernelRidge(**({"kernel": np.eye(3) * 2, "targets": eighths(3, 2), "ridge": 0.5} | arguments))


def _family() -> list[np.ndarray]:
    return [eighths(6, width) for width in (2, 3)]


def _averaged(**arguments: Any) -> list[tuple[str, np.ndarray]]:
    return sorted(d.ema(**arguments).items())


def _pairs() -> np.ndarray:
    return np.array([[[1, 2], [1, 3]], [[4, 4], [7, 5]]], np.int32)


CALLS: dict[str, Callable[[], Row]] = {
    "ExpertMerge.apply": lambda: (d.merge_experts([2.0, 1.0, 1.0], np.eye(3), 2, preserve=0).apply, {"weights": eighths(3, 2, 2)}),
    "KernelRidge": lambda: (lambda **given: _ridge(**given).limit(0.5), {"kernel": np.eye(3), "targets": eighths(3), "ridge": 0.5}),
    "KernelRidge.limit": lambda: (_ridge().limit, {"alpha": 0.5}),
    "KernelRidge.predict": lambda: (_ridge().predict, {"cross_kernel": eighths(4, 3), "steps": 2, "alpha": 0.5}),
    "KernelRidge.refit": lambda: (lambda targets: _ridge().refit(targets).limit(0.5), {"targets": eighths(3)}),
    "KernelRidge.self_distill": lambda: (_ridge().self_distill, {"steps": 2, "alpha": 0.5}),
    "ReverseLevel.apply": lambda: (d.reverse_fit(*_family()).apply, {"inputs": eighths(4, 2), "targets": eighths(4, 3)}),
    "add_noise": lambda: (
        d.add_noise,
        {"gradient_sum": eighths(2, 3), "bound": 1.0, "multiplier": 1.0, "expected_batch": 4.0, "generator": np.random.default_rng(0)},
    ),
    "agreement_weights": lambda: (
        d.agreement_weights,
        {
            "log_probs": -eighths(3, 4), "weights": _weights(), "sequences": i32(0, 0, 1, 1), "level": "token", "statistic": "variance",
            "gamma": 1.0, "quantile": 0.5, "cap": 2.0,
        },
    ),
    "agreement_weights.sequence": lambda: (d.agreement_weights, {"log_probs": -eighths(3, 4), "sequences": i32(0, 0, 1, 1), "level": "sequence"}),
    "apply_chain": lambda: (d.apply_chain, {"levels": d.reverse_chain(_family()), "embeddings": _family()}),
    "best_alpha": lambda: (d.best_alpha, {"targets": eighths(3, 2), "first": eighths(3, 2) + 1, "second": eighths(3, 2) * 2}),
    "class_similarity": lambda: (
        d.class_similarity, {"features": eighths(4, 3), "labelled_features": 1 + eighths(3, 3), "labels": i32(0, 2, 0), "classes": 3},
    ),
    "clip_factors": lambda: (d.clip_factors, {"norms": eighths(4), "bound": 1.0}),
    "clip_rows": lambda: (d.clip_rows, {"rows": eighths(4), "cap": None, "quantile": 0.5, "weights": _weights()}),
    "clip_rows.cap": lambda: (d.clip_rows, {"rows": eighths(4), "cap": 3.0}),
    "confidence_gate": lambda: (
        d.confidence_gate, {"student_entropy": eighths(4), "teacher_entropy": eighths(4)[::-1].copy(), "temperature": 0.5, "weights": _weights()},
    ),
    "corrupt": lambda: (
        d.corrupt,
        {
            "tokens": i32(1, 2, 3, 4)[None], "noise": np.array([[0.5, 0.25]]), "mask_token": 9, "generator": 0, "kind": "mixed", "vocab": 12,
            "excluded": i32(0, 11), "floor": 0.125,
        },
    ),
    "corrupt.mask": lambda: (d.corrupt, {"tokens": i32(1, 2, 3, 4)[None], "noise": np.array([[0.5, 0.25]]), "mask_token": 9, "generator": 0}),
    "distance_filter": lambda: (
        d.distance_filter, {"points": eighths(4, 3), "own": 1 + eighths(3, 3), "centers": eighths(2, 3), "quantile": 0.5},
    ),
    "ema": lambda: (_averaged, {"target": {"a": eighths(3), "b": eighths(2, 2)}, "source": {"a": eighths(3) + 1, "b": eighths(2, 2)}, "decay": 0.75}),
    "embedding_norm_squared": lambda: (d.embedding_norm_squared, {"tokens": i32(1, 2, 1), "gradients": eighths(3, 4)}),
    "expand_groups": lambda: (
        d.expand_groups, {"group_weights": np.array([1.0, 0.5]), "groups": i32(0, 0, 1, 1), "weights": _weights(), "mean": True},
    ),
    "ghost_norm_squared": lambda: (d.ghost_norm_squared, {"inputs": eighths(2, 3, 4), "gradients": eighths(2, 3, 5)}),
    "held_cosine": lambda: (d.held_cosine, {"step": 3, "steps": 9, "start": 0.9, "end": 0.5, "held": 0.1}),
    "margin_weights": lambda: (d.margin_weights, {"similarities": eighths(4, 3), "weights": _weights()}),
    "masked_mean": lambda: (
        d.masked_mean,
        {"logits": eighths(2, 2, 3), "mask": np.array([[True, False], [True, True]]), "weights": np.array([1.0, 0.5]), "space": "probabilities"},
    ),
    "merge_experts": lambda: (
        d.merge_experts, {"importance": eighths(4), "similarity": eighths(4, 4), "slots": 2, "preserve": 0.5, "assign": "all"},
    ),
    "mixed_noise_probabilities": lambda: (d.mixed_noise_probabilities, {"noise": eighths(4) / 8, "floor": 0.125}),
    "nested_answer_masks": lambda: (d.nested_answer_masks, {"prompt_lengths": i32(1, 2), "lengths": i32(9, 30), "generator": 0, "short": True}),
    "nested_masks": lambda: (d.nested_masks, {"uniforms": eighths(2, 3) / 8, "alphas": np.array([0.0, 0.5, 1.0])}),
    "noise_schedule": lambda: (d.noise_schedule, {"blocks": 5, "window": 3, "lowest": 0.0, "highest": 1.0}),
    "opener": lambda: (d.opener, {"entropies": eighths(4), "sequences": i32(1, 1, 2, 2), "fraction": 0.5, "weights": _weights()}),
    "pack_pairs": lambda: (d.pack_pairs, {"prompt": i32(5, 6), "pairs": _pairs(), "end_token": 7, "pad_token": 8, "lead": 1}),
    "pair_attention": lambda: (
        d.pair_attention,
        {"positions": i32(0, 1, 1), "streams": np.array([0, 1, 2], np.int8), "padding": np.array([False, False, True])},
    ),
    "pair_mask": lambda: (
        d.pair_mask,
        {
            "tokens": i32(1, 2, 3, 4).reshape(2, 2), "uniforms": eighths(2, 2) / 8, "alpha_noisy": np.array([0.25, 0.5]),
            "alpha_cleaner": np.array([0.5, 1.0]), "mask_token": 9,
        },
    ),
    "pass_rate_weights": lambda: (
        d.pass_rate_weights,
        {"passed": i32(1, 2), "tries": i32(4, 8), "alpha": 1.0, "beta": 1.0, "normalise": "mean", "unbiased": True},
    ),
    "pick_state": lambda: (d.pick_state, {"states": i32(1, 2, 1, 3).reshape(2, 2), "noise": 0.5}),
    "polynomial_decay": lambda: (d.polynomial_decay, {"step": 3, "steps": 9, "start": 0.1, "power": 2.0}),
    "rdp_epsilon": lambda: (
        d.rdp_epsilon, {"sampling_rate": 0.01, "noise_multiplier": 1.0, "steps": 10, "delta": 1e-5, "orders": i32(2, 8, 32)},
    ),
    "reference_gap": lambda: (
        d.reference_gap,
        {"student_rows": eighths(4), "reference_rows": eighths(4)[::-1].copy(), "fraction": 0.4, "weights": _weights(), "method": "exact"},
    ),
    "renyi_divergences": lambda: (d.renyi_divergences, {"sampling_rate": 0.01, "noise_multiplier": 1.0, "orders": i32(2, 8, 32)}),
    "reverse_chain": lambda: (d.reverse_chain, {"embeddings": _family(), "regression": "pcr", "ridge": 1.0}),
    "reverse_fit": lambda: (d.reverse_fit, {"inputs": eighths(6, 2), "targets": eighths(6, 3), "regression": "ridge", "ridge": 1.0}),
    "semi_autoregressive_masks": lambda: (
        d.semi_autoregressive_masks, {"prompt_lengths": i32(1, 2), "lengths": i32(9, 30), "generator": 0, "block": 4, "probability": 0.5},
    ),
    "shift_labels": lambda: (d.shift_labels, {"tokens": i32(1, 2, 3, 4), "sequences": i32(0, 0, 1, 1)}),
    "slerp": lambda: (d.slerp, {"a": eighths(2, 3), "b": 1 + eighths(2, 3), "t": 0.25}),
    "span_geomean": lambda: (
        d.span_geomean, {"log_probs": -eighths(3), "starts": np.array([0, 2, 5]), "spans": np.array([[0, 4], [4, 7]])},
    ),
    "teacher_sentences": lambda: (
        d.teacher_sentences,
        {
            "teacher": eighths(4) / 8, "student": eighths(4)[::-1] / 8, "responses": i32(0, 0, 1, 1), "threshold": 0.25, "tokens": i32(3, 1, 2, 4),
            "least_tokens": 2,
        },
    ),
    "tied_norm_squared": lambda: (
        d.tied_norm_squared,
        {"tokens": i32(1, 4, 1), "embedding_gradients": eighths(3, 2), "hidden": eighths(4, 2), "logit_gradients": eighths(4, 5)},
    ),
    "top_fraction": lambda: (d.top_fraction, {"scores": eighths(4), "fraction": 0.4, "weights": _weights(), "method": "quantile"}),
    "trajectory_noise": lambda: (d.trajectory_noise, {"states": i32(1, 2, 1, 3).reshape(2, 2)}),
}  # fmt: skip
