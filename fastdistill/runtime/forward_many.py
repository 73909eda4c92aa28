"""Rows of several sequences in one pass, each as if alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdistill.arguments import check_array
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import DRAW
from fastdistill.kernels.row_statistics import RowStatistics
from fastdistill.runtime.forward_pass import ForwardPass, Outcome
from fastdistill.runtime.read import Read, Rows, check_read, draw, draws_in_head, needs_logits

if TYPE_CHECKING:
    from fastdistill.runtime.session import Session, Share


_ARGUMENTS = {
    "tokens", "inputs", "parents", "nodes", "positions", "replace", "rows", "layers", "read", "out",
}  # fmt: skip


def forward_many(requests: Sequence[tuple[Session, Mapping[str, Any]]]) -> list[Rows]:
    """`session.forward(**arguments)` for several sessions of one model, in as few passes as their rows fit.

    requests  (session, arguments of Session.forward) pairs, each session once
    returns   one Rows a request; with more than one request they are copies
    raises    as Session.forward, before anything has run; NotFiniteError leaves the sessions of the failed pass as they were
    """
    if not all(isinstance(request, tuple) and len(request) == 2 for request in requests):
        raise ArgumentError("forward_many takes (session, arguments) pairs")
    sessions = [session for session, _ in requests]
    if len({id(session) for session in sessions}) != len(sessions):
        raise ArgumentError("each session may appear once in forward_many")
    for session, arguments in requests:
        if not hasattr(session, "network"):
            raise ArgumentError(f"forward_many takes sessions of a model, got {type(session).__name__}")
        if not isinstance(arguments, Mapping) or not set(arguments) <= _ARGUMENTS:
            raise ArgumentError(f"forward_many takes arguments of Session.forward by name, got {arguments!r:.80}")
    if any(session.network is not sessions[0].network for session in sessions):
        raise ArgumentError("all sessions of forward_many must belong to one model")
    results: list[Rows] = []
    with ExitStack() as held:
        for session in sessions:
            held.enter_context(session.entered())
        shares, outs = [], []
        for session, arguments in requests:
            given = dict(arguments)
            outs.append(given.pop("out", None))
            shares.append(session.prepare(**given))
            check_read(shares[-1].read, len(shares[-1].reads), session.vocab_size)
            if outs[-1] is not None:
                _check_out(outs[-1], shares[-1])
        for group in _groups(shares):
            results.extend(_run(group, len(shares) > 1))
    return [result if out is None else _into(result, out) for result, out in zip(results, outs, strict=True)]


def _groups(shares: list[Share]) -> list[list[Share]]:
    """Neighbours that run the same layers and fit one executor."""
    groups: list[list[Share]] = []
    for share in shares:
        group = groups[-1] if groups else []
        rows = sum(len(member.tokens) for member in [*group, share])
        alike = group and group[0].layers == share.layers and group[0].session.taps == share.session.taps
        same_kind = (
            group
            and (group[0].inputs is None) == (share.inputs is None)
            and (group[0].streams is None) == (share.streams is None)
        )
        if alike and same_kind and rows <= max(member.session.max_rows for member in [*group, share]):
            group.append(share)
        else:
            groups.append([share])
    return groups


def _run(shares: list[Share], copies: bool) -> list[Rows]:
    executor = max((share.session for share in shares), key=lambda session: session.max_rows).executor
    outcome = executor.run(_joined(shares))
    results, row, reads = [], 0, 0
    for share in shares:
        rows = slice(row, row + len(share.tokens))
        result = _result(share, outcome, rows, slice(reads, reads + len(share.reads)))
        results.append(result.copy() if copies else result)
        row, reads = rows.stop, reads + len(share.reads)
    row = 0
    for share in shares:
        share.session.finish(share, outcome.stream[row : row + len(share.tokens)])
        row += len(share.tokens)
    return results


def _joined(shares: list[Share]) -> ForwardPass:
    """The shares' rows one after another; numbers of rows, lists and runs count on from share to share."""

    def joined(arrays: list[np.ndarray], starts: list[int] | None = None) -> np.ndarray:
        if len(arrays) == 1:
            return arrays[0]
        if starts is not None:
            arrays = [array + array.dtype.type(start) for array, start in zip(arrays, starts, strict=False)]
        return np.concatenate(arrays)

    def starts(lengths: Iterable[int]) -> list[int]:
        return [0, *accumulate(lengths)]

    first, count = shares[0], len(shares)
    rows = starts(len(share.tokens) for share in shares)
    runs = starts(len(share.runs) for share in shares)
    lists = starts(len(share.run_offsets) - 1 for share in shares)
    offsets = [share.run_offsets if n == count else share.run_offsets[:-1] for n, share in enumerate(shares, 1)]
    slots = [np.arange(share.first_slot, share.first_slot + len(share.tokens), dtype=np.int32) for share in shares]
    wanted = None
    if any(share.read.log_prob_of is not None for share in shares):
        wanted = joined([_or_zeros(share.read.log_prob_of, len(share.reads)) for share in shares])
    banned, bans = _bans([(share.read.banned, len(share.reads)) for share in shares])
    draws = None
    if any(draws_in_head(share.read) for share in shares):
        draws = joined([_draws(share.read, len(share.reads)) for share in shares])
    return ForwardPass(
        tokens=None if first.inputs is not None else joined([share.tokens for share in shares]),
        inputs=None if first.inputs is None else joined([share.inputs for share in shares if share.inputs is not None]),
        positions=joined([share.positions for share in shares]),
        sequences=joined([np.full(len(share.tokens), n, np.int32) for n, share in enumerate(shares)]),
        slots=joined(slots),
        nodes=joined([share.nodes for share in shares], lists),
        runs=joined([share.runs for share in shares]),
        run_offsets=joined(offsets, runs),
        caches=[share.session.cache for share in shares],
        read_rows=joined([share.reads for share in shares], rows),
        wanted_tokens=wanted,
        banned=banned,
        bans=bans,
        want_logits=any(share.read.logits or needs_logits(share.read) for share in shares),
        want_hidden=any(share.read.hidden for share in shares),
        draws=draws,
        first_layer=first.layers[0],
        end_layer=first.layers[1],
        stream=None
        if first.streams is None
        else joined([share.streams for share in shares if share.streams is not None]),
    )


def _result(share: Share, outcome: Outcome, rows: slice, reads: slice) -> Rows:
    read = share.read
    statistics = RowStatistics(*(field[reads] for field in outcome.statistics))

    def part(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[reads]

    session = share.session

    def seen(row: int) -> np.ndarray:
        return session.seen_tokens(share, int(share.reads[row]))

    logits = part(outcome.logits)
    workspace = session.workspace() if needs_logits(read) else None
    tokens = draw(
        read,
        statistics,
        logits,
        share.positions[share.reads],
        seen,
        session.network.threads,
        workspace,
        part(outcome.drawn),
    )
    return Rows(
        statistics,
        tokens=tokens,
        log_probs=None if read.log_prob_of is None else part(outcome.log_probs),
        logits=logits if read.logits else None,
        hidden=part(outcome.hidden) if read.hidden else None,
        taps={name: array[rows] for name, array in outcome.taps.items()},
    )


def _check_out(out: np.ndarray, share: Share) -> None:
    """Refuse anything but a writable array that the logits fit."""
    if not share.read.logits:
        raise ArgumentError("out receives logits: pass read=Read(logits=True) with it")
    check_array("out", out, np.float32, (len(share.reads), share.session.vocab_size), written=True)


def _into(result: Rows, out: np.ndarray) -> Rows:
    assert result.logits is not None  # _check_out has seen to it
    np.copyto(out, result.logits)
    return replace(result, logits=out)


def _draws(read: Read, n: int) -> np.ndarray:
    """What the head draws n rows with; zeros: nothing."""
    draws = np.zeros(n, DRAW)
    if read.sampler is not None and draws_in_head(read):
        sampler = read.sampler
        draws[:] = sampler.seed, 0, sampler.sequence, sampler.round, sampler.temperature
    return draws


def _bans(wanted: list[tuple[np.ndarray | None, int]]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """`banned` and `bans` of a pass, from (tokens, reads) of each share; shares that ban the same have one list."""
    if all(tokens is None for tokens, _ in wanted):
        return None, None
    lists: dict[bytes, tuple[int, int]] = {}
    parts: list[np.ndarray] = []
    spans, end = [], 0
    for tokens, _ in wanted:
        ascending = np.empty(0, np.int32) if tokens is None else np.sort(tokens)
        key = ascending.tobytes()
        if key not in lists:
            parts.append(ascending)
            lists[key] = end, end + len(ascending)
            end += len(ascending)
        spans.append(lists[key])
    return np.concatenate(parts), np.repeat(np.array(spans, np.int64), [reads for _, reads in wanted], axis=0)


def _or_zeros(array: np.ndarray | None, n: int) -> np.ndarray:
    return np.zeros(n, np.int32) if array is None else array
