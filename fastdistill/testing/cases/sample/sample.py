"""One token of each row, whatever processors come before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels import Sampler
from fastdistill.reference.sample.sample import sample as reference_sample
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import holds, within

# Edges of lanes, mask words, blocks and chunks, and one long row.
WIDTHS = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 4099]


def any_sampler(draw: Choices) -> Sampler:
    """Every processor, at its ends and between them."""
    return Sampler(
        temperature=draw.choice([0.0, 1e-6, 0.3, 1.0, 5.0]),
        top_k=draw.choice([0, 0, 1, 2, 16, 50, 300, 10_000]),
        top_p=draw.choice([1.0, 1.0, 1e-9, 0.5, 0.9, 0.999999]),
        min_p=draw.choice([0.0, 0.0, 1e-30, 0.05, 0.5, 1.0]),
        repetition_penalty=draw.choice([1.0, 1.3, 0.5]),
        frequency_penalty=draw.choice([0.0, 0.0, 0.3, -2.0]),
        presence_penalty=draw.choice([0.0, 0.0, 1.1, -0.7]),
        no_repeat_ngram_size=draw.choice([0, 0, 1, 2, 3]),
        prompt_length=draw.choice([0, 3, 100]),
        **_key(draw),
    )


def plain_sampler(draw: Choices) -> Sampler:
    """A temperature alone."""
    return Sampler(temperature=draw.choice([0.5, 1.0, 4.0]), **_key(draw))


def _key(draw: Choices) -> dict[str, Any]:
    return {
        "seed": draw.integer(0, 2**64 - 1),
        "sequence": draw.integer(0, 2**32 - 1),
        "round": draw.integer(0, 2**20 - 1),
    }


def cases(draw: Choices, sampler: Callable[[Choices], Sampler] = any_sampler) -> Case:
    """Logits spread out, alike, with ties, with bans of every kind; a sampler."""
    rows, vocab = draw.integer(1, 3), draw.choice(WIDTHS)
    random = draw.generator()
    z = (random.standard_normal((rows, vocab)) * draw.choice([0.0, 0.1, 3.0, 60.0])).astype(np.float32)
    if draw.boolean():
        z = np.round(z)
    z[random.random(z.shape) < draw.choice([0.0, 0.7])] = -np.inf
    keep = int(random.integers(vocab))  # one token that nothing bans
    z[:, keep] = 1.5
    bias = dict(zip(random.integers(0, vocab, 5).tolist(), [-np.inf, 2.0, -3.5, 0.0, 0.1], strict=True))
    bias.pop(keep, None)
    chosen = replace(sampler(draw), logit_bias=bias if draw.boolean() else {})
    case: Case = {"logits": z, "sampler": chosen, "positions": random.integers(-(2**31), 2**31, rows).astype(np.int32)}
    if draw.boolean():
        few = min(draw.choice([3, vocab]), vocab)  # so that tokens repeat
        case["seen"] = [random.integers(0, few, random.integers(0, 20)).astype(np.int32) for _ in range(rows)]
        if chosen.no_repeat_ngram_size:  # a run that ends with what nothing else bans would ban it
            case["seen"] = [text[text != keep] for text in case["seen"]]
    if draw.boolean():
        mask = random.integers(0, 2**32, (rows, (vocab + 31) // 32), np.uint32)
        mask[:, keep // 32] |= np.uint32(1 << keep % 32)
        case["allowed"] = mask
    return case


def close_threshold(vocab: int) -> float:
    """How far rounding may move a mass or a p.

    Each p is 2 ulp, 2^-22 of it, off; a mass is a sum of them over another, and each of its p loses up to 2^-40.
    """
    return 2.0**-21 + vocab * 2.0**-39


def check(case: Case, function: Callable[..., Any] = kernels.sample) -> Any:
    """Equal tokens, but where a threshold is too close to call, or the two best keys are."""
    got, want = function(**case), reference_sample(**case)
    holds(np.shape(got) == want.tokens.shape, f"tokens have shape {np.shape(got)}, expected {want.tokens.shape}")
    within("tokens", got, case["logits"].shape[1])
    for row, token in enumerate(got):
        if want.slack[row] <= close_threshold(want.keys.shape[1]):
            continue
        best = want.keys[row, want.tokens[row]]
        # Either noise is off by 2^-21 + 2^-22 |g| (gumbel_noise.c), |g| <= 23, and its sum with x rounds once.
        doubt = 2 * (2.0**-21 + 23 * 2.0**-22 + 2.0**-24 * (abs(best) + 23))
        close = case["sampler"].temperature and want.keys[row, token] >= best - doubt
        holds(token == want.tokens[row] or close, f"tokens[{row}] is {token}, the reference draws {want.tokens[row]}")
    return got
