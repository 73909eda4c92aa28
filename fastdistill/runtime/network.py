"""A network: plan and weights, immutable, shared between threads; it makes sessions and runs their forwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from fastdistill.arguments import check_callable, check_choice
from fastdistill.cached import cached_property
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.errors import NotFiniteError, attempt
from fastdistill.kernels.boundary import written
from fastdistill.kernels.forward.linear import FORMATS
from fastdistill.kernels.threads import ThreadsByRows
from fastdistill.models.plan import Plan
from fastdistill.runtime.batch import Member, check_given, groups, joined, parts, result
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.packing import PackedWeights
from fastdistill.runtime.pool import Pool, executor_rows, make_seat
from fastdistill.runtime.read import Read, Rows
from fastdistill.runtime.reference_executor import ReferenceWeights
from fastdistill.runtime.session import Caller, Session
from fastdistill.runtime.session_file import read_session
from fastdistill.runtime.source import Source, encode

EXECUTORS = ("native", "reference")
FINGERPRINT_TOKENS = 8


class Network:
    """Weights packed for one executor, and the plan they belong to.

    Attributes
    ----------
    plan : Plan
        what is computed
    weights
        packed, by name
    threads : int
        of forwards, the most
    threads_of : ThreadsByRows
        of forwards of so many rows
    cache_dtype
        "f32" or "f16": of keys and values where a session does not say
    runs_ahead : bool
        whether sessions know `Forward.ahead`
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, Tensor],
        format: str | None = None,
        threads: int | None = None,
        executor: str = "native",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Pack the tensors (checked against the plan beforehand); nothing of them is held afterwards by `native`.

        Parameters
        ----------
        plan : Plan
            what is computed
        tensors : Mapping[str, Tensor]
            by name, those that the plan needs
        format : str, optional
            convert linears and head: "f32", "f16", "bf16", "q8" or "q4"; None keeps what is stored
        threads : int, optional
            of every forward; default: what this process may use
        executor : str, default "native"
            "native", or "reference": NumPy, op by op, slow
        progress : Callable[[int, int], None], optional
            called with (tensors packed, tensors in all)
        """
        if format is not None:
            check_choice("format", format, FORMATS)
        check_choice("executor", executor, EXECUTORS)
        if progress is not None:
            check_callable("progress", progress)
        made = PackedWeights if executor == "native" else ReferenceWeights
        by_rows = ThreadsByRows(threads)
        self._begin(plan, made(plan, tensors, format, by_rows.most, progress), by_rows)

    @classmethod
    def over(cls, plan: Plan, weights: PackedWeights, threads: int) -> Network:
        """The network of weights that are packed already, and may change: between two forwards of a session they must not."""
        network = cls.__new__(cls)
        network._begin(plan, weights, ThreadsByRows(threads))
        return network

    def _begin(self, plan: Plan, weights: PackedWeights | ReferenceWeights, threads: ThreadsByRows) -> None:
        self.plan, self.weights, self.threads, self.threads_of = plan, weights, threads.most, threads
        linears = {self.weights.formats[name] for name, weight in plan.weights.items() if weight.linear}
        self.cache_dtype = "f32" if "f32" in linears else "f16"
        self.runs_ahead = isinstance(weights, PackedWeights)
        self._pools: WeakValueDictionary[tuple[int, tuple[str, ...]], Pool] = WeakValueDictionary()
        self._pool = self.pool(1, ())  # that most sessions share: it stays
        self._sources: WeakValueDictionary[tuple[bytes, str], Source] = WeakValueDictionary()

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self.plan.vocab_size

    def session(
        self, capacity: int | None = None, max_rows: int = 128, cache: str | None = None, taps: Iterable[str] = ()
    ) -> Session:
        """A new, empty sequence.

        Parameters
        ----------
        capacity : int, optional
            most committed tokens; default: the model's max_position_embeddings
        max_rows : int, default 128
            most rows of one forward
        cache : str, optional
            "f16" or "f32" keys and values; default: f32 where weights are f32, else f16
        taps : Iterable[str], default ()
            names of hidden states to give with every forward: "embedding", "layers.0", ...
        """
        return Session(self, capacity, max_rows, cache, taps)

    def load_session(
        self,
        path: str | os.PathLike[str],
        capacity: int | None = None,
        max_rows: int = 128,
        taps: Iterable[str] = (),
    ) -> Session:
        """The sequence that `Session.save` has written: it goes on with the bits that it would have had.

        Raises
        ------
        CheckpointError
            where the file is another model's, damaged, or no session
        CapacityError
            where it holds more than `capacity`
        ArgumentError
        """
        saved = read_session(path, self.plan, self.fingerprint)
        if capacity is None and not saved.is_long and self.plan.long_beyond:
            capacity = min(self.plan.long_beyond, self.plan.max_positions)
        session = self.session(capacity, max_rows, saved.cache, taps)
        session.restore(saved)
        return session

    @cached_property
    def fingerprint(self) -> bytes:
        """What tells this network from others, 32 bytes: its ops, and its logits after a few fixed tokens, or all that it gives without a head.

        They have the same bits on every machine, and any other weight, but for the embeddings of other tokens, gives
        other bits.
        """
        from hashlib import sha256  # its library takes 3 MB

        plan = self.plan
        constants = [
            sorted((name, np.array(value).tolist()) for name, value in op.constants.items()) for op in plan.ops
        ]
        facts = [(op.kind, op.inputs, op.segment, some) for op, some in zip(plan.ops, constants, strict=True)]
        digest = sha256(repr(facts).encode())
        tokens = np.arange(FINGERPRINT_TOKENS) * plan.vocab_size // FINGERPRINT_TOKENS
        tokens = tokens[: min(plan.max_positions, plan.source_positions or plan.max_positions)]
        with suppress(NotFiniteError):  # such weights are told apart by the rest
            read = Read(logits="logits" in plan.outputs)
            session = self.session(len(tokens), len(tokens), "f32")
            if plan.source_positions:
                session.read_source(tokens)
            rows = session.forward(tokens, read=read)
            for given in rows.outputs.values() if rows.logits is None else (rows.logits,):
                digest.update(given.astype("<f4").tobytes())
        return digest.digest()

    def run(self, requests: Sequence[tuple[Session, Forward]]) -> list[Rows | Exception]:
        """What forwards of different sessions give, in as few passes as their rows fit, or the error that each alone ends in.

        Its session is then as it was; the others give the bits that they give without it.
        """
        results: list[Any] = [None] * len(requests)
        laid: list[tuple[int, Member]] = []
        writes: list[written] = []
        callers = [Caller() for _ in requests]  # one each: a session that is there twice is refused the second time
        try:
            for number, (session, asked) in enumerate(requests):
                member = attempt(_laid_out, callers[number], writes, session, asked)
                if isinstance(member, Exception):
                    results[number] = member
                else:
                    laid.append((number, member))
            numbers = iter([number for number, _ in laid])
            for group in groups([member for _, member in laid]):
                for given in self._pass(group):
                    results[next(numbers)] = given
            for number, (_, share) in laid if writes else ():  # now that no pass is left that might read there
                if share.out is not None and isinstance(results[number], Rows):
                    np.copyto(share.out, results[number].logits)
                    results[number] = replace(results[number], logits=share.out)
        finally:
            for writing in writes:
                writing.__exit__(None, None, None)
            for caller, (session, _) in zip(callers, requests, strict=True):
                session.leave(caller)
        return results

    def pool(self, max_rows: int, taps: tuple[str, ...]) -> Pool:
        """The executors that sessions of such forwards share."""
        key = executor_rows(max_rows), taps
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(partial(make_seat, self.plan, self.weights, self.threads_of, *key))
        return pool

    def encoded(self, sources: Sequence[np.ndarray], cache_format: str) -> list[Source]:
        """What the encoder makes of sources, which sessions share: whoever holds the same has saved the others the work.

        Parameters
        ----------
        sources : Sequence[np.ndarray]
            tokens of each, int32 (n,), as `check_source` gives them
        cache_format : str
            the type of keys and values
        """
        keys = [(tokens.tobytes(), cache_format) for tokens in sources]
        found = {key: self._sources.get(key) for key in keys}
        missing = {key: tokens for key, tokens in zip(keys, sources, strict=True) if found[key] is None}
        if missing:
            found |= zip(missing, encode(self, [*missing.values()], cache_format), strict=True)
        given = [source for source in map(found.get, keys) if source is not None]
        self._sources.update(zip(keys, given, strict=True))
        return given

    def _pass(self, members: list[Member]) -> list[Rows | Exception]:
        """What each share gives.  A pass that fails is run again share by share: the others' bits are the same in any pass."""
        alone = len(members) == 1
        session = members[0][0] if alone else max(members, key=lambda member: member[0].max_rows)[0]
        given = attempt(self._seated, session.pool, members)
        if isinstance(given, Exception):
            return [given] if alone else [self._pass([member])[0] for member in members]
        return given

    def _seated(self, pool: Pool, members: list[Member]) -> list[Rows | Exception]:
        seat = pool.take()
        try:
            outcome = seat.executor.run(joined(members))
            results = []
            for session, share, rows, reads in parts(members):
                if share.ahead:
                    rows = reads = slice(0, outcome.statistics.shape[1])
                given = attempt(result, session, share, outcome, rows, reads, seat.workspace)  # a draw may fail
                results.append(given)
                if not isinstance(given, Exception):
                    if outcome.went_on is not None:
                        share.have(outcome.went_on)
                    elif share.ahead and given.tokens is not None:
                        share.go_on(given.tokens)
                    partial = share.layers[1] < self.plan.num_layers
                    session.context.finish(share, outcome.stream[rows].copy() if partial else None)
            return results
        finally:
            pool.give_back(seat)


def _laid_out(caller: Caller, writes: list[written], session: Session, asked: Forward) -> Member:
    """A request's rows; the session is held from here on, and so is the memory that the caller wants written."""
    session.enter(caller)
    share = session.context.lay_out(asked)
    check_given(share.read, session.network.plan)
    session.prepare(share)
    if share.out is not None:
        writing = written({"out": share.out}, {})
        writing.__enter__()  # nor another request's
        writes.append(writing)
    return session, share
