"""What tests of the runtime share: random settings, random trees, and the oracle that computes one token at a time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from fastdistill.kernels import isa, set_isa
from fastdistill.kernels.forward.row_statistics import RowStatistics, row_statistics
from fastdistill.runtime.kv_cache import LANES, PAGE
from fastdistill.runtime.read import Read, Rows
from fastdistill.runtime.session import Session
from tests.families import network
from tests.small_models import CONFIGS, FORMATS

LOGITS = Read(logits=True)
CAPACITY = 96
ALPHABET = 6  # few tokens: a tree then often holds the same one twice


def bits(array: np.ndarray) -> np.ndarray:
    """float32 -> int32 of the same bits: -0 is not 0, and a NaN equals itself."""
    return np.ascontiguousarray(array, np.float32).view(np.int32).copy()


@contextlib.contextmanager
def level(name: str) -> Iterator[None]:
    before = isa()
    set_isa(name)
    try:
        yield
    finally:
        set_isa(before)


SOURCE = [1, 0, 3, 2, 5, 4, 1, 1, 0, 2, 4]  # of models that read one


def sourced(session: Session) -> Session:
    """With a source, where the model reads one, and NaN behind its last slot."""
    if session.network.plan.source_positions and session.encoded is None:
        session.read_source(SOURCE)
        cache, behind = session.encoded.cache, np.arange(len(SOURCE), PAGE)
        for run in cache._runs:
            keys, values = run.planes(cache._pages[0])
            keys[:, :, behind // LANES, :, behind % LANES] = np.nan
            values[:, :, behind] = np.nan
    return session


def poisoned(session: Session) -> Session:
    """NaN wherever nothing has been written: whoever reads a hidden slot, or a result of nobody, shows it."""
    for cache in session.caches.values():
        cache.reserve(0, cache.slots)
        for page in cache._pages:
            page.array.fill(np.nan)
    seat = session.pool.take()
    seat.executor._arena.fill(np.nan)
    seat.executor._partial_attention.fill(np.nan)
    seat.executor._partial_statistics.fill(np.nan)
    session.pool.give_back(seat)
    return session


@dataclass(frozen=True)
class Setting:
    """A small model and how its sessions are to run."""

    name: str
    format: str
    threads: int = 1
    cache: str | None = None
    max_rows: int = 16

    def session(self, capacity: int = CAPACITY, **options) -> Session:
        threads = options.pop("threads", self.threads)
        made = network(self.name, self.format, threads=threads)
        capacity = min(capacity, made.plan.max_positions)
        asked = {"max_rows": self.max_rows, "cache": self.cache} | options
        return sourced(poisoned(made.session(capacity, **asked)))

    @property
    def vocab(self) -> int:
        return network(self.name, self.format).plan.vocab_size

    @property
    def oracle(self) -> Oracle:
        return _oracle(self.name, self.format, self.cache)


settings_of_models = st.builds(
    Setting,
    name=st.sampled_from(list(CONFIGS)),
    format=st.sampled_from(FORMATS),
    threads=st.integers(1, 4),
    cache=st.sampled_from([None, "f16", "f32"]),
    max_rows=st.integers(4, 16),
)


def token_lists(smallest: int, largest: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, ALPHABET - 1), min_size=smallest, max_size=largest)


class Oracle:
    """Logits of any text, one token a forward, scalar, one thread: what law 1 says everything else has to equal."""

    def __init__(self, setting: Setting) -> None:
        with level("scalar"):
            self._session = setting.session(capacity=512, threads=1)
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def rows(self, text: Sequence[int]) -> np.ndarray:
        """Bits of the logits of every row, int32 (len(text), vocab)."""
        text = tuple(int(token) for token in text)
        missing = next((n for n in range(1, len(text) + 1) if text[:n] not in self._known), None)
        if missing is not None:
            held = tuple(self._session.tokens)
            common = next(
                (i for i, (a, b) in enumerate(zip(held, text, strict=False)) if a != b), min(len(held), len(text))
            )
            self._session.truncate(min(common, missing - 1))
            with level("scalar"):
                for n in range(self._session.length, len(text)):
                    self._known[text[: n + 1]] = bits(self._session.forward([text[n]], read=LOGITS).logits[0])
        return np.stack([self._known[text[: n + 1]] for n in range(len(text))])


@functools.cache
def _oracle(name: str, format: str, cache: str | None) -> Oracle:
    return Oracle(Setting(name, format, 1, cache))


def assert_rows(rows: Rows, want: np.ndarray) -> None:
    """The logits have these bits, and the statistics those of row_statistics(logits) (law 6)."""
    got = bits(rows.logits)
    assert got.shape == want.shape
    wrong = np.flatnonzero((got != want).any(axis=1))
    assert wrong.size == 0, f"rows {wrong} of {len(want)} differ"
    if len(got):
        assert_statistics(rows.statistics, row_statistics(got.view(np.float32)))


def assert_statistics(got: RowStatistics, want: RowStatistics) -> None:
    for field in RowStatistics._fields:
        np.testing.assert_array_equal(getattr(got, field).view(np.int32), getattr(want, field).view(np.int32), field)


@dataclass(frozen=True)
class Tree:
    """Rows over a context, one node each: row i has token tokens[i] and parent parents[i], an earlier row or -1."""

    tokens: list[int]
    parents: list[int]

    def path(self, row: int) -> list[int]:
        """Rows from the root to `row`."""
        path = []
        while row >= 0:
            path.append(row)
            row = self.parents[row]
        return path[::-1]

    def text(self, row: int) -> list[int]:
        return [self.tokens[ancestor] for ancestor in self.path(row)]


@st.composite
def trees(draw: st.DrawFn, largest: int = 14) -> Tree:
    """Any forest: chains, stars, combs; siblings in any order, the same token often twice."""
    size = draw(st.integers(1, largest))
    parents = [draw(st.integers(-1, row - 1)) for row in range(size)]
    return Tree(draw(token_lists(size, size)), parents)


def cut(draw: st.DrawFn, n: int, most: int) -> list[slice]:
    """[0, n) in pieces of at most `most`."""
    pieces, start = [], 0
    while start < n:
        size = draw(st.integers(1, min(most, n - start)))
        pieces.append(slice(start, start + size))
        start += size
    return pieces
