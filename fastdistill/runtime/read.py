"""What a forward may be asked to give, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastdistill.arguments import as_array, check_array, check_flag, check_integers
from fastdistill.errors import ArgumentError
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.kernels.sample.sample import Sampler, sample
from fastdistill.messages import short


@dataclass(frozen=True)
class Read:
    """What a forward gives beside the statistics, for the rows that are read.

    Parameters
    ----------
    logits : bool, default False
        the logits themselves, float32 (reads, vocab_size)
    hidden : bool, default False
        what the head reads, float32 (reads, hidden_size)
    sampler : Sampler, optional
        draw a token a row, a function of its logits, the sampler and its position
    allowed : bool (reads, vocab_size) or uint32 (reads, ceil(vocab_size / 32)), optional
        which tokens may be drawn; bit t % 32 of word t // 32 is that of token t
    log_prob_of : int32 (reads,), optional
        tokens whose log probability is wanted
    banned : int32 (k,), optional
        tokens whose logits are -inf in every row, for all that is given: statistics, logits, draws
    """

    logits: bool = False
    hidden: bool = False
    sampler: Sampler | None = None
    allowed: np.ndarray | None = None
    log_prob_of: Any = None
    banned: Any = None


STATISTICS_ONLY = Read()


@dataclass(frozen=True)
class Rows:
    """What a forward gave, row i for the i-th row that was read, in arrays of their own.

    Attributes
    ----------
    statistics : RowStatistics of (reads,) rows
    tokens : int32 (reads,) or None
        drawn by the sampler; None without one
    log_probs : float32 (reads,) or None
        of `log_prob_of`, in nats; None where it was not given
    logits : float32 (reads, vocab_size) or None
        None where they were not asked for
    hidden : float32 (reads, hidden_size) or None
        what the head reads; None where it was not asked for
    taps : Mapping[str, np.ndarray]
        by name, float32 (rows, width): hidden states of all rows of the forward, at the session's taps
    outputs : Mapping[str, np.ndarray]
        what else the model gives, by name, float32 (reads, width), or (rows, width) where it gives all rows
    """

    statistics: RowStatistics
    tokens: np.ndarray | None = None
    log_probs: np.ndarray | None = None
    logits: np.ndarray | None = None
    hidden: np.ndarray | None = None
    taps: Mapping[str, np.ndarray] = field(default_factory=dict)
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)


def check_read(read: Read, reads: int | None, vocab_size: int) -> Read:
    """The Read with its arrays as a pass takes them; refuses one that is none, or whose arrays do not fit so many rows (None: any)."""
    if not isinstance(read, Read):
        raise ArgumentError(f"read must be a Read, got {short(read)}")
    check_flag("read.logits", read.logits)
    check_flag("read.hidden", read.hidden)
    if read.sampler is not None and not isinstance(read.sampler, Sampler):
        raise ArgumentError(f"read.sampler must be a Sampler, got {short(read.sampler)}")
    if read.allowed is None and read.log_prob_of is None and read.banned is None:
        return read
    changed: dict[str, Any] = {}
    if read.allowed is not None:
        changed["allowed"] = _bit_masks(read.allowed, reads, vocab_size)
    for name in ("log_prob_of", "banned"):
        given = getattr(read, name)
        if given is not None:
            changed[name] = check_integers(f"read.{name}", given, 0, vocab_size - 1, empty=True)
    if "log_prob_of" in changed and reads not in (None, len(changed["log_prob_of"])):
        raise ArgumentError(
            f"read.log_prob_of must name one token a row read, {reads}, got {len(changed['log_prob_of'])}"
        )
    if "banned" in changed and len(changed["banned"]) >= vocab_size and len(np.unique(changed["banned"])) == vocab_size:
        raise ArgumentError(f"read.banned must leave a token: it bans all {vocab_size}")
    return replace(read, **changed) if any(getattr(read, name) is not made for name, made in changed.items()) else read


def _bit_masks(allowed: Any, reads: int | None, vocab_size: int) -> np.ndarray:
    """uint32 (reads, ceil(vocab_size / 32)), also of bool (reads, vocab_size)."""
    words = -(-vocab_size // 32)
    if isinstance(allowed, np.ndarray) and allowed.dtype == bool:
        rows = len(as_array("read.allowed", allowed, np.bool_, (reads, vocab_size)))
        padded = np.zeros((rows, 32 * words), bool)
        padded[:, :vocab_size] = allowed
        return np.packbits(padded, axis=1, bitorder="little").view("<u4").astype(np.uint32, copy=False)
    if not isinstance(allowed, np.ndarray) or allowed.dtype != np.uint32:
        raise ArgumentError(
            f"read.allowed must say of each row read which tokens it allows: bool (rows, {vocab_size}), or bits in "
            f"uint32 (rows, {words}); got {short(allowed)}"
        )
    check_array("read.allowed", allowed, np.uint32, (reads, words))
    return allowed


def draws_in_head(read: Read) -> bool:
    """Whether the head draws as it streams the vocabulary."""
    return read.sampler is not None and read.allowed is None and read.sampler.is_temperature_alone


def draws_alone(read: Read) -> bool:
    """Whether a token is drawn without the logits: by the head, or as the likeliest one."""
    return read.sampler is not None and not needs_logits(read)


def needs_logits(read: Read) -> bool:
    """Whether drawing needs the logits themselves."""
    if read.sampler is None or (read.allowed is None and read.sampler.is_greedy):
        return False
    return not draws_in_head(read)


def draw(
    read: Read,
    statistics: RowStatistics,
    logits: np.ndarray | None,
    positions: Callable[[], np.ndarray],
    seen: Callable[[int], np.ndarray],
    threads: int,
    workspace: np.ndarray | None = None,
    drawn: np.ndarray | None = None,
) -> np.ndarray | None:
    """The tokens that `read.sampler` draws, int32 (reads,), or None without a sampler.

    Parameters
    ----------
    read : Read
    statistics : RowStatistics
    logits : np.ndarray | None
    positions : Callable[[], np.ndarray]
        int32 (reads,): asked for where they count
    seen : Callable[[int], np.ndarray]
        of the i-th row that is read: its text, in order, which the sampler's penalties count
    threads : int
        at most so many
    workspace : np.ndarray, optional
    drawn : np.ndarray, optional
        what the head has drawn already, int32 (reads,); None: it draws nothing
    """
    if read.sampler is None:
        return None
    if drawn is not None and draws_in_head(read):
        return drawn
    if read.allowed is None and read.sampler.is_greedy:
        return statistics.argmax
    assert logits is not None  # the pass was asked for them
    rows, at = None, np.ascontiguousarray(positions(), np.int32)
    if read.sampler.penalises:
        rows = [np.ascontiguousarray(seen(row), np.int32) for row in range(len(at))]
    return sample(logits, read.sampler, at, seen=rows, allowed=read.allowed, threads=threads, workspace=workspace)


def read_rows(rows: Any, m: int) -> np.ndarray:
    """The rows to read of m, int32 (reads,), from "all", "last" or indices."""
    if isinstance(rows, str):
        if rows not in ("all", "last"):
            raise ArgumentError(f"rows must be 'all', 'last' or indices, got {short(rows)}")
        return np.arange(m, dtype=np.int32) if rows == "all" else np.array([m - 1], np.int32)
    indices = check_integers("rows", rows, 0, m - 1, empty=True)
    if len(indices) > m:
        raise ArgumentError(f"rows names {len(indices)} rows to read, but the forward has {m}")
    return indices


def common_prefix(held: np.ndarray, tokens: np.ndarray) -> int:
    """The length of the longest common prefix of two int arrays."""
    tokens = check_integers("tokens", tokens, -1, (1 << 31) - 1, empty=True)
    n = min(len(held), len(tokens))
    agree = held[:n] == tokens[:n]
    return n if agree.all() else int(np.argmin(agree))
