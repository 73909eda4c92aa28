"""Which tokens of an answer a masked model does not see, in training.

The masks of a pair of views are made together: complementary, where each sees what the other does not, or nested, where
the teacher sees all that the student does, and more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_flag, check_integer, check_number
from fastdistill.distill.masks.generator import as_generator
from fastdistill.errors import ArgumentError

MOST_TOKENS = 1 << 24  # of a row


class ComplementaryMasks(NamedTuple):
    """Two views of each row.

    Attributes
    ----------
    masked : np.ndarray bool (2, rows, width)
        what a view does not see: its part of the block, and all behind the block
    counted : np.ndarray bool (2, rows, width)
        what a view is trained on: its part of the block alone. The parts of both are the block, exactly
    blocks : np.ndarray int32 (rows, 2)
        first token of the block, and the one behind its last
    """

    masked: np.ndarray
    counted: np.ndarray
    blocks: np.ndarray


class NestedMasks(NamedTuple):
    """What the student and the teacher do not see of each row.

    Attributes
    ----------
    student : np.ndarray bool (rows, width)
    teacher : np.ndarray bool (rows, width)
        a subset of the student's
    """

    student: np.ndarray
    teacher: np.ndarray


class PairMask(NamedTuple):
    """Two states of one masking process.

    Attributes
    ----------
    noisy : np.ndarray int32 (..., length)
        tokens at the later time, for the student
    cleaner : np.ndarray int32 (..., length)
        tokens at the earlier time, for the teacher
    masked : np.ndarray bool (..., length)
        masked in noisy: what the student is trained on
    revealed : np.ndarray bool (..., length)
        of these, the ones that cleaner shows: the teacher is sure of them, so their loss is cross entropy
    """

    noisy: np.ndarray
    cleaner: np.ndarray
    masked: np.ndarray
    revealed: np.ndarray


def semi_autoregressive_masks(
    prompt_lengths: np.ndarray,
    lengths: np.ndarray,
    generator: np.random.Generator | int,
    *,
    block: int = 32,
    probability: float = 0.5005,
) -> ComplementaryMasks:
    """A random block of each answer half masked, and all behind it masked; and the same with the other half.

    An answer is cut into blocks from its start, the last one perhaps shorter, and each is as likely as the others. What
    is before the block is seen. Of the block a token is masked in the first view with `probability`, and in the second
    where it is not in the first (Chen et al. 2026, dParallel).

    Parameters
    ----------
    prompt_lengths : int32 (rows,)
        tokens of each row before the answer
    lengths : int32 (rows,)
        tokens of each row, prompt and answer; what is behind is padding, in no mask
    generator : np.random.Generator, or int
        where the draws come from, or a seed
    block : int, default 32
        tokens of a block, at least 1
    probability : float, default 0.5005
        0..1

    Returns
    -------
    ComplementaryMasks
        as wide as the longest row

    Raises
    ------
    ArgumentError

    Notes
    -----
    LLaDA predicts a masked token in its own row, Dream in the row before it: for Dream labels are shifted
    (`shift_labels`).
    """
    prompts, lengths, width = _lengths(prompt_lengths, lengths)
    block = check_integer("block", block, 1, MOST_TOKENS)
    probability = check_number("probability", probability, 0, 1)
    draws = as_generator("generator", generator)
    blocks = -(-(lengths - prompts) // block)
    begin = prompts + block * np.floor(draws.random(len(lengths)) * blocks).astype(np.int64)
    end = np.minimum(begin + block, lengths)
    positions = np.arange(width)
    inside = (positions >= begin[:, None]) & (positions < end[:, None])
    behind = (positions >= end[:, None]) & (positions < lengths[:, None])
    first = draws.random((len(lengths), width)) < probability
    counted = np.stack([inside & first, inside & ~first])
    return ComplementaryMasks(counted | behind, counted, np.stack([begin, end], axis=1).astype(np.int32))


def nested_answer_masks(
    prompt_lengths: np.ndarray, lengths: np.ndarray, generator: np.random.Generator | int, *, short: bool = True
) -> NestedMasks:
    """Many tokens of each answer masked for the student, and some of these for the teacher.

    Of an answer of L tokens the student's share is r ~ U(0.4, 0.9), and the teacher's r U(0.3, 0.7) within 0.1..0.6;
    tokens are counted down. Below 20 tokens the student's share is at most 0.5; up to 10 tokens it is 2 tokens and 1.
    The teacher never has more than the student (Liang et al. 2026, CD4LM).

    Parameters
    ----------
    prompt_lengths : int32 (rows,)
        tokens of each row before the answer
    lengths : int32 (rows,)
        tokens of each row, prompt and answer; what is behind is padding, in no mask
    generator : np.random.Generator, or int
        where the draws come from, or a seed
    short : bool, default True
        False: answers below 20 tokens are masked by the same shares as long ones

    Returns
    -------
    NestedMasks
        as wide as the longest row

    Raises
    ------
    ArgumentError

    Notes
    -----
    The student is trained on its own masked tokens. Those that the teacher sees are rows for which a masked model was
    not trained; `masks.teacher` leaves them out.
    """
    prompts, lengths, width = _lengths(prompt_lengths, lengths)
    draws = as_generator("generator", generator)
    answers = lengths - prompts
    student = draws.uniform(0.4, 0.9, len(answers))
    teacher = np.clip(student * draws.uniform(0.3, 0.7, len(answers)), 0.1, 0.6)
    if check_flag("short", short):
        student = np.where(answers < 20, np.minimum(student, 0.5), student)
    two = (answers <= 10) & short
    many = np.minimum(np.where(two, 2, (answers * student).astype(np.int64)), answers)
    few = np.minimum(np.where(two, 1, (answers * teacher).astype(np.int64)), many)
    positions = np.arange(width)
    answer = (positions >= prompts[:, None]) & (positions < lengths[:, None])
    order = np.argsort(np.where(answer, draws.random(answer.shape), 2.0), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, positions[None], axis=1)
    return NestedMasks(rank < many[:, None], rank < few[:, None])


def _lengths(prompt_lengths: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Both as int64 (rows,), and the longest."""
    prompts = as_array("prompt_lengths", prompt_lengths, np.int32, ("rows",)).astype(np.int64)
    lengths = as_array("lengths", lengths, np.int32, prompts.shape).astype(np.int64)
    wrong = (prompts < 0) | (lengths < prompts) | (lengths > MOST_TOKENS)
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(
            f"lengths must lie in prompt_lengths..{MOST_TOKENS} and prompts in 0.., "
            f"got {lengths[row]} and a prompt of {prompts[row]} in row {row}"
        )
    return prompts, lengths, int(lengths.max(initial=0))


def nested_masks(uniforms: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """The masks of several times of one masking process: at each a token is seen where its uniform is below alpha.

    One uniform a token for all times couples them: what is seen at a time is seen at every alpha above. It is the law
    of the masks that a Gaussian process gives by its largest coordinate (Latent Shadows / MCD).

    Parameters
    ----------
    uniforms : float64 (..., length)
        within [0, 1)
    alphas : float64 (levels,)
        0..1, the probability that a token is seen: 0 masks all, 1 none

    Returns
    -------
    bool (levels, ..., length)
        True where masked

    Raises
    ------
    ArgumentError
    """
    uniforms = _uniforms(uniforms, (...,))
    alphas = as_array("alphas", alphas, np.float64, ("levels",))
    _check_alphas("alphas", alphas)
    return uniforms >= alphas.reshape(-1, *[1] * uniforms.ndim)


def pair_mask(
    tokens: np.ndarray,
    uniforms: np.ndarray,
    alpha_noisy: np.ndarray | float,
    alpha_cleaner: np.ndarray | float,
    mask_token: int,
) -> PairMask:
    """Tokens at two times of one masking process, by one uniform a token.

    Parameters
    ----------
    tokens : int32 (..., length)
        without mask_token
    uniforms : float64 (..., length)
        within [0, 1), of the shape of tokens; others for each time would break the coupling
    alpha_noisy : float, or float64 (...)
        0..1, the probability that a token is seen at the later time: one, or one a row
    alpha_cleaner : float, or float64 (...)
        at the earlier time, at least alpha_noisy
    mask_token : int
        what takes the place of a masked token

    Returns
    -------
    PairMask

    Raises
    ------
    ArgumentError
    """
    tokens = as_array("tokens", tokens, np.int32, (...,))
    if tokens.ndim == 0:
        raise ArgumentError("tokens must have shape (..., length), got ()")
    uniforms = _uniforms(uniforms, tokens.shape)
    mask_token = check_integer("mask_token", mask_token, 0, 2**31 - 1)
    check_unmasked(tokens, mask_token)
    levels = []
    for name, alpha in (("alpha_noisy", alpha_noisy), ("alpha_cleaner", alpha_cleaner)):
        found = as_array(name, alpha, np.float64, (...,))
        if found.shape not in ((), tokens.shape[:-1]):
            raise ArgumentError(f"{name} must be a number or have shape {tokens.shape[:-1]}, got {found.shape}")
        _check_alphas(name, found)
        levels.append(np.broadcast_to(found, tokens.shape[:-1])[..., None])
    if (levels[0] > levels[1]).any():
        raise ArgumentError("alpha_cleaner must be at least alpha_noisy, and is not in every row")
    noisy, cleaner = (uniforms >= level for level in levels)
    return PairMask(
        np.where(noisy, np.int32(mask_token), tokens),
        np.where(cleaner, np.int32(mask_token), tokens),
        noisy,
        noisy & ~cleaner,
    )


def check_unmasked(tokens: np.ndarray, mask_token: int) -> None:
    """Refuse tokens among which the mask is: it is no label."""
    if (tokens == mask_token).any():
        where = np.argwhere(tokens == mask_token)[0]
        raise ArgumentError(f"tokens must not hold mask_token {mask_token}; it stands at {tuple(map(int, where))}")


def _uniforms(uniforms: Any, shape: tuple[Any, ...]) -> np.ndarray:
    found = as_array("uniforms", uniforms, np.float64, shape)
    if not ((found >= 0) & (found < 1)).all():
        raise ArgumentError("uniforms must lie within [0, 1)")
    return found


def _check_alphas(name: str, alphas: np.ndarray) -> None:
    if not ((alphas >= 0) & (alphas <= 1)).all():
        raise ArgumentError(f"{name} must lie in 0..1")
