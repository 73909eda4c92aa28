"""Rows of several sequences in one pass, each as if alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from fastdistill.arguments import check_array, check_flag
from fastdistill.errors import ArgumentError, all_given, attempt
from fastdistill.kernels.boundary import DRAW, written
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.messages import short
from fastdistill.runtime.forward_pass import ForwardPass, Outcome
from fastdistill.runtime.read import Read, Rows, check_read, draw, draws_in_head, needs_logits

if TYPE_CHECKING:
    from fastdistill.runtime.session import Session, Share


_ARGUMENTS = {
    "tokens", "inputs", "parents", "nodes", "positions", "replace", "rows", "layers", "read", "out",
}  # fmt: skip


Request = tuple["Session", Mapping[str, Any]]


@overload
def forward_many(requests: Sequence[Request], return_errors: Literal[False] = False) -> list[Rows]: ...
@overload
def forward_many(requests: Sequence[Request], return_errors: bool) -> list[Rows | Exception]: ...
def forward_many(requests: Sequence[Request], return_errors: bool = False) -> list[Rows] | list[Rows | Exception]:
    """`session.forward(**arguments)` for several sessions of one model, in as few passes as their rows fit.

    requests       (session, arguments of Session.forward) pairs, each session once
    return_errors  give the error of a request in the place of its Rows, and raise none of them
    returns        one Rows a request; with more than one request they are copies

    A request fails alone: its session is as it was, the others give the bits that they give without it.

    raises  ArgumentError for requests that are none, before anything has run.  Afterwards what Session.forward raises, where every
            request has failed; PartialError with all results, where some have
    """
    check_flag("return_errors", return_errors)
    _check_requests(requests)
    return _attempted(requests) if return_errors else all_given(*_with_errors(_attempted(requests)))


def _attempted(requests: Sequence[Request]) -> list[Rows | Exception]:
    results: list[Any] = [None] * len(requests)
    laid: list[tuple[int, Share]] = []
    outs: dict[int, np.ndarray] = {}
    with ExitStack() as held:
        for number, (session, arguments) in enumerate(requests):
            made = attempt(_laid_out, held, session, arguments)
            if isinstance(made, Exception):
                results[number] = made
                continue
            share, out = made
            laid.append((number, share))
            if out is not None:
                outs[number] = out
        for group in _groups([share for _, share in laid]):
            for (number, _), result in zip(laid, _run(group, copies=len(requests) > 1), strict=False):
                results[number] = result
            laid = laid[len(group) :]
        for number, out in outs.items():  # when no pass is left that might read there
            if not isinstance(results[number], Exception):
                results[number] = _into(results[number], out)
    return results


def _with_errors(results: list[Rows | Exception]) -> tuple[list[Rows | Exception], dict[int, Exception]]:
    return results, {number: result for number, result in enumerate(results) if isinstance(result, Exception)}


def _check_requests(requests: Any) -> None:
    """Refuse what is no list of requests."""
    if not isinstance(requests, (list, tuple)):
        raise ArgumentError(f"forward_many takes a list of (session, arguments) pairs, got {short(requests)}")
    for request in requests:
        if not isinstance(request, tuple) or len(request) != 2:
            raise ArgumentError(f"forward_many takes (session, arguments) pairs, got {short(request)}")
        if not hasattr(request[0], "prepare"):
            raise ArgumentError(f"forward_many takes sessions of a model, got {short(request[0])}")
    sessions = [session for session, _ in requests]
    if len({id(session) for session in sessions}) != len(sessions):
        raise ArgumentError("each session may appear once in forward_many")
    if any(session.network is not sessions[0].network for session in sessions):
        raise ArgumentError("all sessions of forward_many must belong to one model")


def _laid_out(held: ExitStack, session: Session, arguments: Any) -> tuple[Share, np.ndarray | None]:
    """A request's rows, and where its logits are to go; the session is held from here on."""
    held.enter_context(session.entered())
    if not isinstance(arguments, Mapping) or not set(arguments) <= _ARGUMENTS:
        raise ArgumentError(f"forward_many takes arguments of Session.forward by name, got {short(arguments)}")
    given = dict(arguments)
    out = given.pop("out", None)
    share = session.prepare(**given)
    read = check_read(share.read, len(share.reads), session.vocab_size)
    if read is not share.read:
        share = replace(share, read=read)
    if out is not None:
        _check_out(out, share)
        held.enter_context(written({"out": out}, {}))  # nor another request's
    return share, out


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


def _run(shares: list[Share], copies: bool) -> list[Rows | Exception]:
    """What each share gives.  A pass that fails is run again share by share: the others' bits are the same in any pass."""
    executor = max((share.session for share in shares), key=lambda session: session.max_rows).executor
    outcome = attempt(executor.run, _joined(shares))
    if isinstance(outcome, Exception):
        return [outcome] if len(shares) == 1 else [_run([share], copies)[0] for share in shares]
    results, row, reads = [], 0, 0
    for share in shares:
        rows, read = slice(row, row + len(share.tokens)), slice(reads, reads + len(share.reads))
        results.append(attempt(_result, share, outcome, rows, read, copies))  # a draw may fail
        if not isinstance(results[-1], Exception):
            share.session.finish(share, outcome.stream[rows])
        row, reads = rows.stop, read.stop
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


def _result(share: Share, outcome: Outcome, rows: slice, reads: slice, copies: bool) -> Rows:
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
    result = Rows(
        statistics,
        tokens=tokens,
        log_probs=None if read.log_prob_of is None else part(outcome.log_probs),
        logits=logits if read.logits else None,
        hidden=part(outcome.hidden) if read.hidden else None,
        taps={name: array[rows] for name, array in outcome.taps.items()},
    )
    return result.copy() if copies else result


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
