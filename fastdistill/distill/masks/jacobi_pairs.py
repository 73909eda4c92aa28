"""Training on a model's own Jacobi trajectories: noisy blocks beside what they converge to, in one forward.

A prompt is followed by pairs of blocks, each a state of Jacobi decoding and its fixed point. Noisy blocks see the
prompt and noisy blocks, converged ones the prompt and converged blocks: two texts with one prompt, at the same
positions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_integer, check_number
from fastdistill.errors import ArgumentError

PROMPT, NOISY, CONVERGED = 0, 1, 2
_MOST_BLOCKS = 1 << 24
_MOST_TOKEN = 2**31 - 1


class PackedPairs(NamedTuple):
    """A packed sequence, and which of its rows learn what.

    Attributes
    ----------
    tokens : np.ndarray int32 (length,)
        the prompt, then of each pair the noisy and the converged block; what is behind the end of text is padding
    positions : np.ndarray int32 (length,)
        in the text: those of both blocks of a pair are the same
    streams : np.ndarray int8 (length,)
        0: prompt, 1: noisy, 2: converged
    blocks : np.ndarray int32 (length,)
        the number of the pair, -1 in the prompt
    padding : np.ndarray bool (length,)
        tokens that are padding
    student_rows : np.ndarray int32 (n,)
        noisy rows that learn from the converged rows beside them
    teacher_rows : np.ndarray int32 (n,)
        those rows; they get no gradient
    label_rows : np.ndarray int32 (m,)
        rows of the prompt and of converged blocks that learn their next token
    labels : np.ndarray int32 (m,)
        those tokens: they need no shift
    """

    tokens: np.ndarray
    positions: np.ndarray
    streams: np.ndarray
    blocks: np.ndarray
    padding: np.ndarray
    student_rows: np.ndarray
    teacher_rows: np.ndarray
    label_rows: np.ndarray
    labels: np.ndarray


def trajectory_noise(states: np.ndarray) -> np.ndarray:
    """The noise of each state of a Jacobi trajectory: the share of the block from its first wrong token on.

    Parameters
    ----------
    states : int32 (states, n)
        of one block; the last is the fixed point

    Returns
    -------
    float64 (states,)
        0 for the fixed point, 1 where the first token is wrong

    Raises
    ------
    ArgumentError
    """
    states = as_array("states", states, np.int32, ("states", "n"))
    if 0 in states.shape:
        raise ArgumentError(f"states must have at least one state of one token, got shape {states.shape}")
    return 1 - _first_difference(states, states[-1]) / states.shape[1]


def _first_difference(blocks: np.ndarray, converged: np.ndarray) -> np.ndarray:
    """The first offset at which blocks (..., n) differ, n where they do not."""
    return np.logical_and.accumulate(blocks == converged, axis=-1).sum(axis=-1)


def noise_schedule(blocks: int, *, window: int = 16, lowest: float = 0.0, highest: float = 1.0) -> np.ndarray:
    """The noise that each block of a text is to have: it rises over a window of blocks, and begins again.

    Parameters
    ----------
    blocks : int
        how many
    window : int, default 16
        at least 1
    lowest, highest : float, default 0.0 and 1.0
        0..1, of the first and the last block of a window

    Returns
    -------
    float64 (blocks,)

    Raises
    ------
    ArgumentError
    """
    blocks = check_integer("blocks", blocks, 0, _MOST_BLOCKS)
    window = check_integer("window", window, 1, _MOST_BLOCKS)
    lowest, highest = check_number("lowest", lowest, 0, 1), check_number("highest", highest, 0, 1)
    return np.linspace(lowest, highest, window)[np.arange(blocks) % window]


def pick_state(states: np.ndarray, noise: float) -> int:
    """The state of a trajectory whose noise is nearest to the one wanted, the first of equals.

    Parameters
    ----------
    states : int32 (states, n)
        as `trajectory_noise` takes them
    noise : float
        0..1

    Returns
    -------
    int

    Raises
    ------
    ArgumentError
    """
    found = trajectory_noise(states)
    return int(np.argmin(np.abs(found - check_number("noise", noise, 0, 1))))


def pack_pairs(
    prompt: np.ndarray,
    pairs: np.ndarray,
    *,
    end_token: int | None = None,
    pad_token: int | None = None,
    lead: int = 0,
) -> PackedPairs:
    """Put a prompt and pairs of noisy and converged blocks into one sequence, and say which rows learn what.

    The rows of a noisy block learn from its first wrong token on: the row there predicts the token after it. A pair
    whose blocks are equal has no such row. All but the last tokens of the prompt and of converged blocks are followed
    by a token to learn; the last one of a block, and of the prompt, by the first of the next converged block, whatever
    lies between in the sequence. From the row of the end of text on, nothing is learnt (Jacobi Forcing).

    Parameters
    ----------
    prompt : int32 (p,)
    pairs : int32 (pairs, 2, n)
        noisy, converged
    end_token : int, optional
        the end of the text: converged tokens behind it become padding, and later pairs teach nothing. Needs pad_token
    pad_token : int, optional
        noisy rows of this token learn nothing, and it is no label
    lead : int, default 0
        1: noisy rows learn from the row before the first wrong token on, which predicts that token; never before the
        block

    Returns
    -------
    PackedPairs

    Raises
    ------
    ArgumentError
    """
    prompt = as_array("prompt", prompt, np.int32, ("tokens",))
    pairs = as_array("pairs", pairs, np.int32, ("pairs", 2, "n"))
    if end_token is not None:
        end_token = check_integer("end_token", end_token, 0, _MOST_TOKEN)
        if pad_token is None:
            raise ArgumentError("pad_token must be given with end_token: what is behind the end becomes padding")
    pad_token = -1 if pad_token is None else check_integer("pad_token", pad_token, 0, _MOST_TOKEN)
    lead = check_integer("lead", lead, 0, 1)
    if (prompt < 0).any() or (pairs < 0).any():
        raise ArgumentError("prompt and pairs must hold tokens, at least 0")
    count, _, size = pairs.shape
    noisy, converged = pairs[:, 0], pairs[:, 1].copy()
    end = _cut_behind(converged, end_token, pad_token)
    start = len(prompt)

    # Of each pair and offset, (pairs, n): places among the converged tokens, and rows of noisy and of converged tokens.
    offsets = np.arange(size)
    places = size * np.arange(count)[:, None] + offsets
    noisy_rows = start + size * np.arange(count)[:, None] + places
    converged_rows = noisy_rows + size
    first = np.maximum(_first_difference(noisy, converged) - lead, 0)
    wrong = (noisy != converged).any(axis=-1)
    learns = wrong[:, None] & (offsets >= first[:, None]) & (places < end) & (noisy != pad_token)

    # The text of the prompt and the converged tokens, and the row of each.
    text = np.concatenate([prompt, converged.reshape(-1)])
    rows = np.concatenate([np.arange(start), converged_rows.reshape(-1)])
    labels = np.arange(1, len(text))
    labels = labels[(labels <= start + end) & (text[1:] != pad_token)]

    tokens = np.concatenate([prompt, np.stack([noisy, converged], axis=1).reshape(-1)])
    positions = np.concatenate([np.arange(start), np.repeat(start + places, 2, axis=0).reshape(-1)])
    streams = np.concatenate([np.full(start, PROMPT), np.tile(np.repeat([NOISY, CONVERGED], size), count)])
    blocks = np.concatenate([np.full(start, -1), np.repeat(np.arange(count), 2 * size)])
    return PackedPairs(
        tokens,
        positions.astype(np.int32),
        streams.astype(np.int8),
        blocks.astype(np.int32),
        tokens == pad_token,
        noisy_rows[learns].astype(np.int32),
        converged_rows[learns].astype(np.int32),
        rows[labels - 1].astype(np.int32),
        text[labels],
    )


def _cut_behind(converged: np.ndarray, end_token: int | None, pad_token: int) -> int:
    """The place of the end of text among converged tokens (pairs, n), or how many there are.

    What its block has behind it becomes padding.
    """
    text, size = converged.reshape(-1), converged.shape[1]  # a view
    ended = np.flatnonzero(text == end_token) if end_token is not None else np.empty(0, np.int64)
    if len(ended) == 0:
        return len(text)
    end = int(ended[0])
    text[end + 1 : (end // size + 1) * size] = pad_token
    return end


def pair_attention(positions: np.ndarray, streams: np.ndarray, padding: np.ndarray | None = None) -> np.ndarray:
    """Which token of a packed sequence sees which: those of the prompt and of its own stream that are not behind it.

    Parameters
    ----------
    positions : int32 (length,)
        of `PackedPairs`
    streams : int8 (length,)
        of `PackedPairs`
    padding : bool (length,), optional
        tokens that none sees, themselves included; None: none is padding

    Returns
    -------
    bool (length, length)
        True where the token of the row sees that of the column

    Raises
    ------
    ArgumentError
    """
    positions = as_array("positions", positions, np.int32, ("length",))
    streams = as_array("streams", streams, np.int8, positions.shape)
    seen = ((streams == PROMPT) | (streams == streams[:, None])) & (positions <= positions[:, None])
    return seen if padding is None else seen & ~as_array("padding", padding, np.bool_, positions.shape)
