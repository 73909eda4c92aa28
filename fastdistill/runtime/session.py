"""A session: one sequence's rows, and their keys and values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import ref

import numpy as np

from fastdistill.arguments import check_choice, check_instance, check_integer
from fastdistill.errors import ArgumentError, BusyError, CapacityError, ForgottenError, UnsupportedError, attempt
from fastdistill.messages import listed, short
from fastdistill.models.plan import Plan
from fastdistill.ops import OWN
from fastdistill.runtime.context import Context, Kept
from fastdistill.runtime.forward import Forward, Runner, SessionLike
from fastdistill.runtime.forward_pass import POSITION_LIMIT
from fastdistill.runtime.kv_cache import NEVER, KVCache
from fastdistill.runtime.pool import Pool
from fastdistill.runtime.read import Rows
from fastdistill.runtime.session_file import SavedSession, write_session
from fastdistill.runtime.share import Share
from fastdistill.runtime.source import Source, check_source

CACHES = ("f16", "f32")  # types of keys and values


class Caller:
    """Who holds a session, for as long as somebody knows it."""

    __slots__ = ("__weakref__",)


class Hold:
    """A caller's turn; the one that comes after it is the first to say so, since a dict's setdefault is never half done.

    Attributes
    ----------
    caller : Callable[[], Caller | None]
        whose turn it is; of None when it is over
    after : dict[str, Hold]
        the next one
    """

    __slots__ = ("after", "caller")

    def __init__(self, caller: Callable[[], Caller | None]) -> None:
        self.caller, self.after = caller, dict[str, Hold]()


def _nobody() -> None:
    """Of a turn that is over."""


class Home(Runner, Protocol):
    """What a session knows of the network that it belongs to.

    Attributes
    ----------
    plan : Plan
        what is computed
    threads : int
        of every forward
    cache_dtype : str
        of keys and values where a session does not say
    runs_ahead : bool
        whether its executor does
    fingerprint : bytes
        what tells the network from others
    """

    plan: Plan
    threads: int
    cache_dtype: str
    runs_ahead: bool

    @property
    def fingerprint(self) -> bytes: ...
    def pool(self, max_rows: int, taps: tuple[str, ...]) -> Pool: ...
    def encoded(self, sources: Sequence[np.ndarray], cache_format: str) -> list[Source]: ...


class Session(SessionLike):
    """One sequence over a network; made by `Model.session`. Belongs to one caller at a time (`BusyError`).

    Attributes
    ----------
    network : Home
        what it runs
    runner : Runner | None
        runs forwards of several sessions in one pass
    threads
        of every forward
    runs_ahead : bool
        it knows `Forward.ahead`
    capacity : int
        most committed tokens
    limit : str
        what errors add where the model itself has no more room
    max_rows : int
        most rows of one forward
    vocab_size : int
        columns of the logits
    taps
        names of hidden states that every forward gives
    context : Context
        its rows
    caches : dict[str, KVCache]
        keys and values, by key set: the rows' own, which all layers without a window have, and one of each window
    cache_format
        the type of them: "f16" or "f32"
    pool
        executors of its passes
    causal : bool
        as of the plan
    block : int
        as of the plan
    mask_token : int | None
        as of the plan
    is_long : bool
        has room for more than `Plan.long_beyond` positions, where its rotary frequencies are others
    logit_shift : int
        as of the plan
    source : int32 (n,) or None
        tokens that `read_source` has read
    encoded : Source | None
        what the encoder has made of them
    writer : object
        whoever writes a text here: a text asks whether it still is the one
    """

    def __init__(
        self, network: Home, capacity: int | None, max_rows: int, cache: str | None, taps: Iterable[str]
    ) -> None:
        plan = network.plan
        if plan.only_encodes:
            raise UnsupportedError(
                f"this model ({plan.architecture}) reads a text in one pass and keeps nothing of it: it has no sessions; "
                "Model.encode makes vectors of texts"
            )
        most = min(plan.max_positions, POSITION_LIMIT)
        try:
            self.capacity = check_integer("capacity", most if capacity is None else capacity, 1, most)
        except ArgumentError as error:
            raise ArgumentError(f"{error} ({most} is the model's {plan.positions_source})") from None
        self.limit = f" ({most} is the model's {plan.positions_source})" if self.capacity == most else ""
        self.max_rows = check_integer("max_rows", max_rows, 1, 1 << 16)
        if cache is not None:
            check_choice("cache", cache, CACHES)
        if isinstance(taps, (str, range)) or not isinstance(taps, (Sequence, Set)):
            raise ArgumentError(f"taps must be names of values, got {short(taps)}")
        self.taps = tuple(taps)
        for name in self.taps:
            if not isinstance(name, str) or name not in plan.taps:
                raise ArgumentError(f"tap {short(name)} is unknown; this model has: {listed(plan.taps)}")
        self.runs_ahead = network.runs_ahead and "logits" in plan.outputs
        self.vocab_size, self.threads = plan.vocab_size, network.threads
        self.causal, self.block = plan.causal, plan.block
        self.mask_token, self.logit_shift = plan.mask_token, plan.logit_shift
        self.network = self.runner = network
        self.pool = network.pool(self.max_rows, self.taps)  # it is there as long as somebody may need it
        self.context = Context(
            self.capacity, self.max_rows, plan.vocab_size, plan.num_layers, plan.hidden_size, self.limit
        )
        self.context.runs_ahead = self.runs_ahead
        # Pending rows lie behind those that are committed.
        slots, self.cache_format = self.capacity + self.max_rows, cache or network.cache_dtype
        self.is_long = 0 < plan.long_beyond < self.capacity
        self.caches = {name: KVCache(plan, slots, self.cache_format, name, self.is_long) for name in plan.windows}
        self._windowed = [cache for cache in self.caches.values() if cache.window]
        self.encoded: Source | None = None
        self.writer: object = None
        self._holds: dict[str, Hold] = {}  # the last one known of a "call", and of a whole "text"

    def __repr__(self) -> str:
        waiting = f", {self.pending} rows pending" if self.pending else ""
        return (
            f"<session of {self.network.plan.architecture}: {self.length} of {self.capacity} tokens{waiting}, "
            f"{self.cache_format} cache, forwards of at most {self.max_rows} rows>"
        )

    def __copy__(self) -> Session:
        raise UnsupportedError("a copy would share this session's cache: session.fork() makes one of its own")

    def __deepcopy__(self, _: Any) -> Session:
        return self.__copy__()

    def __reduce_ex__(self, _: Any) -> Any:
        raise UnsupportedError(
            "a session is not pickled: session.save(path) keeps it in a file, model.load_session(path) reads it"
        )

    @property
    def cache(self) -> KVCache:
        """Keys and values of the layers without a window."""
        return self.caches[OWN]

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, the source's among them; those that other sessions hold too are counted in each."""
        held = 0 if self.encoded is None else self.encoded.cache.nbytes
        return held + sum(cache.nbytes for cache in self.caches.values())

    @property
    def length(self) -> int:
        """Committed tokens."""
        return self.context.length

    @property
    def tokens(self) -> np.ndarray:
        """The committed tokens, int32 (length,); -1 where a row was given as `inputs`."""
        return self.context.tokens[: self.length].copy()

    @property
    def source(self) -> np.ndarray | None:
        """The tokens that the encoder has read, int32 (n,); None: none yet, or the model has no encoder."""
        return None if self.encoded is None else self.encoded.tokens

    @property
    def pending(self) -> int:
        """How many rows are pending."""
        return self.context.waiting

    def read_source(self, tokens: Sequence[int] | np.ndarray) -> bool:
        """Have the encoder read a source, which all rows attend to; what was written after another one is forgotten.

        Parameters
        ----------
        tokens : Sequence[int] | np.ndarray
            of the source

        Returns
        -------
        bool
            whether it is another source than before; else nothing changes

        Raises
        ------
        UnsupportedError
            where the model has no encoder
        BusyError
        ArgumentError
        CapacityError
            where it is longer than the model
        NotFiniteError
            (the session is then as it was before the call)
        """
        ids = check_source(tokens, self.network.plan)
        with self.entered():
            if self.encoded is not None and np.array_equal(self.encoded.tokens, ids):
                return False
            (encoded,) = self.network.encoded([ids], self.cache_format)
            self._forget()
            self.encoded = encoded
        return True

    def run(self, asked: Forward) -> Rows:
        (given,) = self.network.run([(self, asked)])
        if isinstance(given, Exception):
            try:
                raise given
            finally:
                del given  # an error holds this frame
        return given

    def keep(self, indices: Sequence[int] | range | np.ndarray) -> None:
        with self.entered():
            kept = self.context.kept(indices)
            self.context.cut(kept.start)  # an interrupt leaves what is sure
            for cache in self.caches.values():
                cache.move(kept.sources, kept.start)
            self.context.take(kept)

    def truncate(self, length: int) -> None:
        """Forget committed rows from `length` on, and all pending ones.

        Raises
        ------
        BusyError
        ArgumentError
        ForgottenError
            where rows that follow there would see what a window has passed over, by more than the last forward and
            SLACK positions; never at 0
        """
        with self.entered():
            self._check_held(check_integer("length", length, 0, self.length))
            if length:
                self.context.cut(length)
            else:
                self._forget()

    def common_prefix(self, tokens: np.ndarray) -> int:
        """How many of these tokens, from the first, are committed as a text is: in place, and each after reading the others.

        0 where it could not go on from there, or from one token before, since a window has passed over it.
        """
        length = self.context.common_prefix(tokens)
        return 0 if isinstance(attempt(self._check_held, max(length - 1, 0)), ForgottenError) else length

    def fork(self) -> Session:
        """A session of its own with the same committed rows, whose pages both hold until one writes there; pending rows stay behind."""
        other = Session(self.network, self.capacity, self.max_rows, self.cache_format, self.taps)
        other.share(self, self.length)
        return other

    def share(self, other: Session, length: int) -> None:
        """Begin with the first `length` committed rows of another session: with the pages that hold them, and its source.

        Parameters
        ----------
        other : Session
            of the same network, with a cache of the same type
        length : int
            at most the other one's, and what this one has room for

        Raises
        ------
        BusyError
        ArgumentError
        ForgottenError
            where the other one could not be truncated to `length`
        """
        check_instance("other", other, Session)
        if other.network is not self.network or other.cache_format != self.cache_format:
            raise ArgumentError("other must be a session of the same model, with keys and values of the same type")
        if other.is_long != self.is_long:
            beyond = self.network.plan.long_beyond
            raise ArgumentError(
                f"other has room for {other.capacity} tokens, this session for {self.capacity}; where one has room for more "
                f"than {beyond} and one has not, their rotary frequencies differ"
            )
        with self.entered(), other.entered():
            other._check_held(check_integer("length", length, 0, min(other.length, self.capacity)))
            self.context.cut(0)  # an interrupt leaves what is sure
            self.encoded = other.encoded
            for name, cache in self.caches.items():
                cache.share(other.caches[name], length)
            self.context.adopt(other.context, length)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keep the committed rows in a file, for `Model.load_session`; pending rows stay behind.

        The file is there whole or not at all; one that was there is replaced.

        Raises
        ------
        BusyError
        ArgumentError
            for what is no path
        CheckpointError
            where it cannot be written
        """
        with self.entered():
            context, n = self.context, self.length
            held = {name: cache.read_all(np.arange(cache.forgotten, n)) for name, cache in self.caches.items()}
            saved = SavedSession(
                context.tokens[:n], context.positions[:n], context.text_length, held, self.is_long, self.source
            )
            write_session(path, saved, self.network.fingerprint, self.network.plan.source_positions > 0)

    def restore(self, saved: SavedSession) -> None:
        """Begin with the rows of a file.

        Raises
        ------
        CapacityError
        """
        with self.entered():
            n = len(saved.tokens)
            if saved.is_long != self.is_long:
                most = self.network.plan.long_beyond
                raise CapacityError(
                    f"the session that was saved had room for {'more than' if saved.is_long else 'at most'} {most} tokens, this "
                    f"one for {self.capacity}; their rotary frequencies differ"
                )
            if n > self.capacity:
                raise CapacityError(
                    f"the session that was saved holds {n} tokens, more than a capacity of {self.capacity}"
                )
            encoded = None if saved.source is None else self.network.encoded([saved.source], self.cache_format)[0]
            self.context.cut(0)
            self.encoded = encoded
            for name, (keys, values) in saved.held.items():
                cache, forgotten = self.caches[name], n - len(keys)
                cache.restart(forgotten, int(saved.positions[:forgotten].max(initial=NEVER)))
                if len(keys):
                    slots = np.arange(forgotten, n)
                    cache.reserve(forgotten, n)
                    cache.write_all(slots, keys, values)
                    cache.set_positions(slots, saved.positions[slots])
            self.context.take(Kept(0, np.arange(n), saved.tokens, saved.positions, saved.text_length))

    def prepare(self, share: Share) -> None:
        """Have room for the rows of a pass; what neither they nor later ones see is forgotten first.

        Raises
        ------
        ArgumentError
            where they attend to a source, and there is none
        CapacityError
        ForgottenError
        """
        if self.encoded is None and self.network.plan.source_positions:
            raise ArgumentError(
                "the rows of this model attend to a source, and this session has none: session.read_source(tokens) first"
            )
        if self._windowed:
            start, first = self.context.reach(share)
            for cache in self._windowed:
                cache.check_held(start, first)
            for cache in self._windowed:
                cache.forget(self.context.positions[:start], first)
        end = share.first_slot + len(share.tokens) + share.ahead
        for cache in self.caches.values():
            cache.reserve(share.first_slot, end)

    def _forget(self) -> None:
        """Forget all rows."""
        self.context.cut(0)
        for cache in self._windowed:
            cache.restart()

    def _check_held(self, length: int) -> None:
        """Refuse a beginning of the committed rows that nothing can follow, since what it would see is forgotten."""
        for cache in self._windowed:
            if length:
                cache.check_held(length, self.context.next_position(length))

    @contextmanager
    def entered(self, work: str = "call") -> Iterator[None]:
        """Hold the session for such work; a second caller gets BusyError."""
        me = Caller()
        try:
            self.enter(me, work)
            yield
        finally:
            self.leave(me, work)

    def enter(self, caller: Caller, work: str = "call") -> None:
        """Hold the session until `leave`, or until the caller is gone: an interrupt leaves no lock behind, wherever it comes."""
        mine = Hold(ref(caller))
        held = self._holds.setdefault(work, mine)
        while held is not mine:
            if held.caller() is not None:
                raise BusyError("this session is in use by another caller; a session belongs to one at a time")
            held = held.after.setdefault("", mine)  # of several who find it over, one comes next
        self._holds[work] = mine

    def leave(self, caller: Caller, work: str = "call") -> None:
        """Let go of the session, if it is this caller who holds it."""
        held = self._holds.get(work)
        if held is not None and held.caller() is caller:
            held.caller = _nobody
