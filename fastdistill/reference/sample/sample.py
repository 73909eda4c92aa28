"""What `kernels.sample` means."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from fastdistill.reference.sample.gumbel_noise import gumbel_noise


class Drawn(NamedTuple):
    """Tokens, and how close it was: what differs by rounding alone can be told from what is wrong."""

    tokens: np.ndarray  # (rows,)
    keys: np.ndarray  # (rows, vocab) x + noise; -inf where a token did not survive
    slack: np.ndarray  # (rows,) the least of |mass - top_p| over prefixes and |p / min_p - 1| over all but the best


def sample(logits, sampler, positions, *, seen=None, allowed=None, noise=None):
    """One token of each row (rows, vocab): the sampler's processors in order, then the argmax of x + Gumbel noise.

    Up to x = (z - max) / T the arithmetic is float32's, as in the kernel; masses and keys are float64.
    The order (-p, token) is (-x, token).  A logit of -inf is a ban; the first of equals wins.
    """
    rows, vocab = logits.shape
    if noise is None:
        noise = gumbel_noise(positions, vocab, seed=sampler.seed, sequence=sampler.sequence, round=sampler.round)
    drawn = Drawn(np.empty(rows, np.int64), np.empty((rows, vocab)), np.empty(rows))
    for row in range(rows):
        x, survives, drawn.slack[row] = processed(logits, sampler, seen, allowed, row)
        drawn.keys[row] = np.where(survives, x + noise[row], -np.inf) if np.float32(sampler.temperature) else x
        drawn.tokens[row] = drawn.keys[row].argmax()
    return drawn


def processed(logits, sampler, seen, allowed, row):
    """Of one row after all processors: x (vocab,), which tokens survive (vocab,), how close the nearest threshold was."""
    z = logits[row]
    if allowed is not None:
        bits = np.unpackbits(allowed[row].view(np.uint8), bitorder="little")[: len(z)]
        z = np.where(bits == 1, z, np.float32(-np.inf))
    text = [] if seen is None else list(map(int, seen[row]))
    bits = np.ones(len(z)) if allowed is None else bits
    repeats = repeating(text, sampler.no_repeat_ngram_size)
    if any(bit and token not in repeats for token, bit in enumerate(bits)):
        z = np.where(np.isin(np.arange(len(z)), list(repeats)), np.float32(-np.inf), z)
    x = scaled(z, sampler, text)
    return x, *survivors(x, sampler)


def repeating(text, size):
    """Tokens that would end a run of `size` tokens that the text holds already."""
    runs = {tuple(text[at : at + size]) for at in range(len(text) - size + 1)}
    return {run[-1] for run in runs if size and [*text, run[-1]][-size:] == list(run)}


def scaled(z, sampler, seen):
    """Bias, penalties, temperature: x (vocab,), its largest 0; under temperature 0 the logits z themselves."""
    temperature, repetition = np.float32(sampler.temperature), np.float32(sampler.repetition_penalty)
    frequency, presence = np.float32(sampler.frequency_penalty), np.float32(sampler.presence_penalty)
    z, answer = z.copy(), Counter(map(int, seen[sampler.prompt_length :]))
    with np.errstate(over="ignore"):  # what overflows to -inf is a ban
        for token, bias in sampler.logit_bias.items():
            z[token] += np.float32(bias)
        for token in set(map(int, seen)):
            z[token] = z[token] * repetition if z[token] < 0 else z[token] / repetition
        for token, count in answer.items():
            z[token] -= frequency * np.float32(count) + presence
        return (z - z.max()) / temperature if temperature else z


def survivors(x, sampler):
    """Which tokens top-k, top-p and min-p keep (vocab,), and how close the nearest threshold was."""
    top_p, min_p = np.float64(np.float32(sampler.top_p)), np.float64(np.float32(sampler.min_p))
    order = np.argsort(-x, kind="stable")  # the best first, the lowest first among equals
    order = order[x[order] > -np.inf]
    if sampler.top_k:
        order = order[: sampler.top_k]
    p = np.exp(x[order].astype(np.float64))
    slack = np.inf
    if min_p > 0:
        slack = np.abs(p[x[order] < 0] / min_p - 1).min(initial=slack)
    if top_p < 1:
        mass = p.cumsum() / p.sum()
        slack = np.abs(mass - top_p).min(initial=slack)
        order = order[: np.count_nonzero(mass < top_p) + 1]
    kept = np.zeros(len(x), bool)
    kept[order[p[: len(order)] >= min_p]] = True
    return kept, slack
