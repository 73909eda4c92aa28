"""Tokens corrupted for a block diffusion model: masked, or replaced by random ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_choice, check_integer, check_integers, check_number
from fastdistill.distill.masks.generator import as_generator
from fastdistill.distill.masks.masks import check_unmasked
from fastdistill.errors import ArgumentError

_KINDS = "mask", "mixed"


class MixedNoise(NamedTuple):
    """What becomes of a token, in probabilities that sum to 1.

    Attributes
    ----------
    mask : np.ndarray float64 (...)
        it is masked
    uniform : np.ndarray float64 (...)
        a random token takes its place
    clean : np.ndarray float64 (...)
        it stays
    """

    mask: np.ndarray
    uniform: np.ndarray
    clean: np.ndarray


class Corrupted(NamedTuple):
    """Corrupted tokens, and what a model is trained on.

    Attributes
    ----------
    tokens : np.ndarray int32 (rows, length)
    counted : np.ndarray bool (rows, length)
        where the token is not the one that was given
    weights : np.ndarray float64 (rows, length)
        of each token, 0 where it is not counted: 1 / noise of masked tokens, whose mean is 1; 1 with mixed noise
    """

    tokens: np.ndarray
    counted: np.ndarray
    weights: np.ndarray


def mixed_noise_probabilities(noise: np.ndarray | float, *, floor: float = 0.0) -> MixedNoise:
    """How likely a token is masked, replaced by a random one, or left, at a noise level.

    With phi = pi noise / 2: 1 - cos phi, sin phi + cos phi - 1, 1 - sin phi. From all clean at 0 to all masked at 1; at
    half way the most random tokens, sqrt 2 - 1 (BARD).

    Parameters
    ----------
    noise : float64 (...), or float
        0..1
    floor : float, default 0.0
        0..1, the least probability to stay; what is more than 1 then is taken from all three in proportion

    Returns
    -------
    MixedNoise

    Raises
    ------
    ArgumentError
    """
    noise = as_array("noise", noise, np.float64, (...,))
    floor = check_number("floor", floor, 0, 1)
    _check_noise(noise)
    # By half angles, none of which takes one near number from another: at both ends the three are exact.
    half = np.pi * noise / 4
    mask = 2 * np.sin(half) ** 2
    clean = 2 * np.sin(np.pi * (1 - noise) / 4) ** 2
    uniform = 2 * np.sin(half) * np.sqrt(2) * np.sin(np.pi * (1 - noise) / 4)
    clean = np.maximum(clean, floor)
    total = mask + uniform + clean
    return MixedNoise(mask / total, uniform / total, clean / total)


def corrupt(
    tokens: np.ndarray,
    noise: np.ndarray,
    mask_token: int,
    generator: np.random.Generator | int,
    *,
    kind: str = "mask",
    vocab: int | None = None,
    excluded: np.ndarray | None = None,
    floor: float = 0.0,
) -> Corrupted:
    """Corrupt each token by the noise level of its block.

    - mask: a token is masked with probability `noise`, and counts 1 / noise
    - mixed: by `mixed_noise_probabilities`; a random token that happens to be the right one does not count (BARD)

    Parameters
    ----------
    tokens : int32 (rows, length)
        without mask_token
    noise : float64 (rows, blocks)
        0..1, of so many equal blocks of a row: blocks divide the length
    mask_token : int
        what takes the place of a masked token
    generator : np.random.Generator, or int
        where the draws come from, or a seed
    kind : str, default "mask"
        "mask" or "mixed"
    vocab : int, optional
        tokens 0..vocab - 1 are drawn; for mixed noise
    excluded : int32 (k,), optional
        tokens that are never drawn; mask_token never is
    floor : float, default 0.0
        of `mixed_noise_probabilities`

    Returns
    -------
    Corrupted

    Raises
    ------
    ArgumentError

    Notes
    -----
    The weight of padding is the caller's, as is the denominator: the number of tokens, and not of masked ones, makes
    the mean unbiased.
    """
    tokens = as_array("tokens", tokens, np.int32, ("rows", "length"))
    rows, length = tokens.shape
    noise = as_array("noise", noise, np.float64, (rows, "blocks"))
    mask_token = check_integer("mask_token", mask_token, 0, 2**31 - 1)
    check_choice("kind", kind, _KINDS)
    floor = check_number("floor", floor, 0, 1)
    _check_noise(noise)
    check_unmasked(tokens, mask_token)
    blocks = noise.shape[1]
    if blocks == 0 or length % blocks:
        raise ArgumentError(f"noise must have a number of blocks that divides the length {length}, got {blocks}")
    noise = np.repeat(noise, length // blocks, axis=1)
    others = np.empty(0, np.int64) if kind == "mask" else _drawable(vocab, mask_token, excluded)
    draws = as_generator("generator", generator)
    uniforms = draws.random(tokens.shape)
    if kind == "mask":
        masked = uniforms < noise
        weights = np.divide(1.0, noise, out=np.zeros(tokens.shape), where=masked)
        return Corrupted(np.where(masked, np.int32(mask_token), tokens), masked, weights)
    chances = mixed_noise_probabilities(noise, floor=floor)
    masked = uniforms < chances.mask
    replaced = ~masked & (uniforms < chances.mask + chances.uniform)
    drawn = others[draws.integers(0, len(others), tokens.shape)].astype(np.int32)  # as many, whatever is replaced
    found = np.where(masked, np.int32(mask_token), np.where(replaced, drawn, tokens))
    counted = found != tokens
    return Corrupted(found, counted, counted.astype(np.float64))


def _drawable(vocab: int | None, mask_token: int, excluded: np.ndarray | None) -> np.ndarray:
    """The tokens that may take another's place."""
    if vocab is None:
        raise ArgumentError('vocab must be given for kind "mixed": random tokens are drawn from it')
    vocab = check_integer("vocab", vocab, 1, 1 << 24)
    allowed = np.ones(vocab, bool)
    if excluded is not None:
        allowed[check_integers("excluded", excluded, 0, vocab - 1, empty=True)] = False
    if mask_token < vocab:
        allowed[mask_token] = False
    if not allowed.any():
        raise ArgumentError("excluded must leave a token to draw, and leaves none")
    return np.flatnonzero(allowed)


def _check_noise(noise: np.ndarray) -> None:
    if not ((noise >= 0) & (noise <= 1)).all():
        raise ArgumentError("noise must lie in 0..1")
