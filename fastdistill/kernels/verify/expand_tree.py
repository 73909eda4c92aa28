"""One more level of a drafted tree: the best continuations of its frontier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_array, check_integer
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import check_status, const, ffi, lib, pointer, refuse_rows
from fastdistill.kernels.threads import check_threads


class Expansion(NamedTuple):
    """Continuations of frontier nodes, the best first.

    Attributes
    ----------
    tokens : int32 (found,)
    rows : int32 (found,)
        the frontier node that each continues
    scores : float32 (found,)
        cumulative log probabilities, in nats
    """

    tokens: np.ndarray
    rows: np.ndarray
    scores: np.ndarray


def expand_tree(logits: np.ndarray, scores: np.ndarray, count: int, threads: int | None = 1) -> Expansion:
    """The best continuations of a frontier: (row, token) by scores[row] + log softmax(logits[row])[token].

    Best first; ties, of scores in float32, go to the lowest row, then to the lowest token.

    Parameters
    ----------
    logits : float32 (frontier, vocab)
        vocab >= 1, fewer than 2^32 values: of the draft, after each node; -inf is a ban
    scores : float32 (frontier,)
        finite: cumulative log probabilities of those nodes
    count : int
        1 or more
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    Expansion
        found <= count; what is banned is never found

    Raises
    ------
    ArgumentError
    NotFiniteError
        when a row holds NaN or +inf, or nothing but -inf, or a score is not finite

    References
    ----------
    Li et al. 2024, EAGLE-2, section 4.1
    """
    frontier, vocab = check_array("logits", logits, np.float32, ("frontier", "vocab"))
    if vocab == 0 or frontier * vocab >= 2**32:
        raise ArgumentError(
            f"logits must have at least one column and fewer than 2^32 values, got shape {logits.shape}"
        )
    scores = as_array("scores", scores, np.float32, (frontier,))
    count = min(check_integer("count", count, 1, 2**31 - 1), frontier * vocab)
    tokens, rows, expanded = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.float32)
    workspace = np.empty(frontier * min(count, vocab) + count, np.uint64)
    found = ffi.new("int64_t *")
    status = lib.fd_expand_tree(
        frontier, vocab, const(logits), const(scores), count, pointer(tokens), pointer(rows), pointer(expanded), found,
        pointer(workspace), check_threads(threads),
    )  # fmt: skip
    if status == lib.FD_NOT_FINITE:
        if not (finite := np.isfinite(scores)).all():
            row = int(finite.argmin())
            raise NotFiniteError(f"expand_tree: scores[{row}] must be finite, got {scores[row]}")
        refuse_rows("expand_tree", logits)
    check_status("expand_tree", status)
    return Expansion(tokens[: found[0]], rows[: found[0]], expanded[: found[0]])
