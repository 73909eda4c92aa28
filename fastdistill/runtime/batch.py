"""Rows of several sequences in one pass: how they come together, and what each gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

import numpy as np

from fastdistill.errors import UnsupportedError
from fastdistill.kernels.boundary import DRAW
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.messages import listed
from fastdistill.models.plan import Plan
from fastdistill.ops import CROSS, OWN
from fastdistill.runtime.forward_pass import ForwardPass, KeySet, Outcome, no_head
from fastdistill.runtime.read import Read, Rows, draw, draws_in_head, needs_logits
from fastdistill.runtime.session import Session
from fastdistill.runtime.share import Share
from fastdistill.runtime.visibility import without

Member = tuple[Session, Share]


def groups(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Neighbours that run the same layers and fit one executor."""
    group: list[Member] = []
    rows = most = 0
    for session, share in members:
        rows, most = rows + len(share.tokens), max(most, session.max_rows)
        if group and not (rows <= most and _alike(group[0], (session, share))):
            yield group
            group, rows, most = [], len(share.tokens), session.max_rows
        group.append((session, share))
    if group:
        yield group


def _alike(one: Member, other: Member) -> bool:
    def kind(member: Member) -> tuple[object, ...]:
        session, share = member
        return share.layers, session.taps, share.inputs is None, share.streams is None

    return kind(one) == kind(other) and not (one[1].ahead or other[1].ahead)


def check_given(read: Read, plan: Plan) -> None:
    """Refuse to read what a plan does not give.

    Raises
    ------
    UnsupportedError
    """
    if read.sampler is not None and "logits" not in plan.outputs:  # the likeliest token is asked of no pass
        raise no_head(plan)
    if read.hidden and "hidden" not in plan.outputs:
        raise UnsupportedError(
            f"this model ({plan.architecture}) names no output hidden: it gives {listed(plan.outputs)}"
        )


def joined(members: list[Member]) -> ForwardPass:
    """The shares' rows one after another; numbers of rows, lists and runs count on from share to share."""
    made = _alone(*members[0]) if len(members) == 1 else _together(members)
    session = members[0][0]
    if len(session.caches) > 1 or session.encoded is not None:
        made.others = _windowed(members, made) | _sources(members)
    return made


def _together(members: list[Member]) -> ForwardPass:
    shares = [share for _, share in members]
    first = shares[0]
    rows = _starts(len(share.tokens) for share in shares)
    runs, offsets = _joined_lists([(share.runs, share.run_offsets) for share in shares])
    lists = _starts(len(share.run_offsets) - 1 for share in shares)
    slots = [np.arange(share.first_slot, share.first_slot + len(share.tokens), dtype=np.int32) for share in shares]
    wanted = draws = None
    if any(share.read.log_prob_of is not None for share in shares):
        wanted = _joined([_or_zeros(share.read.log_prob_of, len(share.reads)) for share in shares])
    if any(draws_in_head(share.read) for share in shares):
        draws = _joined([_draws(share.read, len(share.reads)) for share in shares])
    banned, bans = _bans([(share.read.banned, len(share.reads)) for share in shares])
    return ForwardPass(
        tokens=None if first.inputs is not None else _joined([share.tokens for share in shares]),
        inputs=None
        if first.inputs is None
        else _joined([share.inputs for share in shares if share.inputs is not None]),
        positions=_joined([share.positions for share in shares]),
        sequences=_joined([np.full(len(share.tokens), n, np.int32) for n, share in enumerate(shares)]),
        slots=_joined(slots),
        nodes=_joined([share.nodes for share in shares], lists),
        runs=runs,
        run_offsets=offsets,
        caches=[session.cache for session, _ in members],
        read_rows=_joined([share.reads for share in shares], rows),
        wanted_tokens=wanted,
        banned=banned,
        bans=bans,
        want_logits=any(share.read.logits or needs_logits(share.read) for share in shares),
        want_outputs=any(share.read.hidden for share in shares) or "logits" not in members[0][0].network.plan.outputs,
        draws=draws,
        first_layer=first.layers[0],
        end_layer=first.layers[1],
        stream=None
        if first.streams is None
        else _joined([share.streams for share in shares if share.streams is not None]),
    )


def _alone(session: Session, share: Share) -> ForwardPass:
    read, rows, reads = share.read, len(share.tokens), len(share.reads)
    banned, bans = _bans([(read.banned, reads)])
    return ForwardPass(
        np.arange(share.first_slot, share.first_slot + rows, dtype=np.int32),
        share.nodes,
        share.runs,
        share.run_offsets,
        [session.cache],
        None if share.inputs is not None else share.tokens,
        share.inputs,
        share.positions,
        np.zeros(rows, np.int32),
        share.reads,
        read.log_prob_of,
        banned,
        bans,
        read.logits or needs_logits(read),
        read.hidden or "logits" not in session.network.plan.outputs,
        _draws(read, reads) if draws_in_head(read) else None,
        *share.layers,
        share.streams,
        share.ahead,
        share.until,
        then=share.then,
    )


def _windowed(members: list[Member], own: ForwardPass) -> dict[str, KeySet]:
    """The key sets of windows: the same slots, but for those that a session has forgotten there."""
    sets: dict[str, KeySet] = {}
    for name in members[0][0].caches:
        if name != OWN:
            caches = [session.caches[name] for session, _ in members]
            lists = [
                without(cache.forgotten, share.runs, share.run_offsets)
                for cache, (_, share) in zip(caches, members, strict=True)
            ]
            sets[name] = KeySet(own.slots, own.nodes, *_joined_lists(lists), caches)
    return sets


def _sources(members: list[Member]) -> dict[str, KeySet]:
    """The key set of sources: each row sees all of its own sequence's."""
    held = [(session.encoded, len(share.tokens)) for session, share in members if session.encoded is not None]
    if not held:
        return {}
    rows = [count for _, count in held]
    lengths = [len(source.tokens) for source, _ in held]
    runs = np.stack([np.zeros(len(held), np.int32), np.array(lengths, np.int32)], axis=1)
    nodes = np.repeat(np.arange(len(held), dtype=np.int32), rows)
    caches = [source.cache for source, _ in held]
    return {CROSS: KeySet(np.zeros(sum(rows), np.int32), nodes, runs, np.arange(len(held) + 1), caches)}


def parts(members: list[Member]) -> Iterator[tuple[Session, Share, slice, slice]]:
    """Of each share: which of the pass's rows are its own, and which of the rows that are read."""
    row = read = 0
    for session, share in members:
        yield session, share, slice(row, row := row + len(share.tokens)), slice(read, read := read + len(share.reads))


def result(
    session: Session, share: Share, outcome: Outcome, rows: slice, reads: slice, workspace: Callable[[], np.ndarray]
) -> Rows:
    """What a share gives, in arrays of its own; draws, in a work space, what the head has not drawn."""
    read = share.read
    argmax, *others = outcome.statistics[:, reads].copy()
    statistics = RowStatistics(argmax.view(np.int32), *others)
    plan, outputs = session.network.plan, {}
    for name, array in outcome.outputs.items():
        outputs[name] = array[reads if plan.outputs[name] in plan.read_values else rows].copy()
    logits = None if outcome.logits is None else outcome.logits[reads]
    tokens = None
    if read.sampler is not None:
        tokens = draw(
            read,
            statistics,
            logits,
            lambda: share.positions[share.reads],
            lambda row: session.context.seen_tokens(share, int(share.reads[row])),
            session.threads,
            workspace() if needs_logits(read) else None,
            None if outcome.drawn is None else outcome.drawn[reads].copy(),
        )
    return Rows(
        statistics,
        tokens=tokens,
        log_probs=None if read.log_prob_of is None or outcome.log_probs is None else outcome.log_probs[reads].copy(),
        logits=logits if read.logits else None,
        hidden=outputs.get("hidden") if read.hidden else None,
        outputs=outputs,
        taps={name: array[rows].copy() for name, array in outcome.taps.items()},
    )


def _starts(lengths: Iterable[int]) -> list[int]:
    return [0, *accumulate(lengths)]


def _joined(arrays: list[np.ndarray], starts: list[int] | None = None) -> np.ndarray:
    """The arrays one after another, the numbers in each raised by its start."""
    if len(arrays) == 1:
        return arrays[0]
    if starts is not None:
        arrays = [array + array.dtype.type(start) for array, start in zip(arrays, starts, strict=False)]
    return np.concatenate(arrays)


def _joined_lists(lists: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Runs and offsets of all lists, from those of each."""
    if len(lists) == 1:
        return lists[0]
    starts = _starts(len(runs) for runs, _ in lists)
    offsets = [offsets if n == len(lists) else offsets[:-1] for n, (_, offsets) in enumerate(lists, 1)]
    return _joined([runs for runs, _ in lists]), _joined(offsets, starts)


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
