"""The law of each row of logits under a sampler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastdistill.arguments import check_array
from fastdistill.kernels.boundary import check_status, const, lib, pointer, same_memory, written
from fastdistill.kernels.sample.sample import Sampler, Sampling


def probabilities(
    logits: np.ndarray,
    sampler: Sampler,
    *,
    seen: Sequence[np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
    threads: int | None = 1,
    workspace: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The law, or distribution, that `sample` draws from: the softmax over the tokens that the sampler's processors leave.

    Under temperature 0 the first largest logit has all of it. Its seed and sequence do not matter.

    Parameters
    ----------
    logits : float32 (rows, vocab)
        1 <= vocab < 2^23; -inf is a ban
    sampler : Sampler
        how a token is chosen
    seen : Sequence[np.ndarray], optional
        for each row its int32 (n,) text so far, prompt first, which the penalties count; None: nothing
    allowed : uint32 (rows, ceil(vocab / 32)), optional
        token t is banned unless bit t % 32 of word t // 32 is set; None: all
    threads : int | None, default 1
        at most so many; None: as many as this process may use
    workspace : uint8, optional
        from `sample_workspace`; None: made here
    out : float32 (rows, vocab), optional
        filled and returned; may be the very logits, must not overlap otherwise; None: made here

    Returns
    -------
    float32 (rows, vocab)
        each row sums to 1 but for rounding

    Raises
    ------
    ArgumentError
    NotFiniteError
    BusyError
        as `sample`

    Examples
    --------
    >>> logits = np.log(np.array([[1, 2, 7]], np.float32))
    >>> fd.kernels.probabilities(logits, fd.Sampler(temperature=1, top_k=2)).round(4)
    array([[0.    , 0.2222, 0.7778]], dtype=float32)
    """
    given = Sampling.checked(logits, sampler, seen, allowed, threads, workspace)
    law = np.empty(logits.shape, np.float32) if out is None else out
    check_array("out", law, np.float32, logits.shape, written=True)
    in_place = out is not None and same_memory(out, logits)
    reads = {"logits": None if in_place else logits, "allowed": allowed}
    with written({"out": out, "workspace": workspace}, reads):
        status = lib.fd_probabilities(
            given.rows, given.vocab, const(logits), given.sampler, const(given.seen), const(given.seen_offsets),
            const(given.allowed), pointer(law), pointer(given.workspace), given.threads,
        )  # fmt: skip
        if status != lib.FD_OK:
            check_status(f"probabilities: row {int(np.argmax(law[:, 0] < 0))}", status)
    return law
