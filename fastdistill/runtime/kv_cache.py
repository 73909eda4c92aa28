"""Keys and values of one sequence, in pages that sequences with the same beginning share.

Layers with a window are a key set, and so a cache, of their own. It forgets: a page whose rows lie before the window of
all rows to come is used again for those. Slots keep their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np

from fastdistill.errors import CapacityError, ForgottenError
from fastdistill.kernels.boundary import ffi, lib, mapped_bytes, pointer
from fastdistill.models.plan import Plan
from fastdistill.ops import OWN

LANES = 16  # slots of one tile of keys
PAGE: int = lib.FD_PAGE  # slots of a page
MOST_PAGES = 16  # that are taken at once, where fewer are needed
SLACK = PAGE  # positions before a window that are kept: a text can be cut back so far beyond its last forward
NEVER = -(1 << 31)  # before all positions

Shape = tuple[int, int]  # heads of keys, floats a head


class Page:
    """PAGE slots of all layers; written only while one cache holds it.

    Attributes
    ----------
    memory : uint8 (bytes,)
        all of it
    pointer
        C's, to it
    array
        keys and values, in the cache's type
    positions : int32 (PAGE,)
        behind them, of the rows that the slots hold, for windows and slopes
    holders : WeakSet[KVCache] | None
        the caches that hold it, of those that are still there; None: it has never been shared
    """

    __slots__ = ("array", "holders", "memory", "pointer", "positions")

    def __init__(self, memory: np.ndarray, dtype: np.dtype) -> None:
        self.memory, self.pointer = memory, pointer(memory) if memory.size else ffi.NULL
        self.array, self.positions = memory[: -4 * PAGE].view(dtype), memory[-4 * PAGE :].view(np.int32)
        self.holders: WeakSet[KVCache] | None = None

    @property
    def is_shared(self) -> bool:
        """Whether several caches hold it."""
        return self.holders is not None and len(self.holders) > 1

    def held_too(self, first: KVCache, other: KVCache) -> None:
        """Note that `other` holds it from now on, as `first` does."""
        if self.holders is None:
            self.holders = WeakSet()
        self.holders.update((first, other))

    def left(self, cache: KVCache) -> bool:
        """Note that a cache holds it no more; whether nobody does."""
        if self.holders is not None:
            self.holders.discard(cache)
        return not self.holders


GONE = Page(np.empty(0, np.uint8), np.dtype(np.uint8))  # stands where one is forgotten


class Layers(NamedTuple):
    """Layers of one shape that follow one another.

    Attributes
    ----------
    first : int
        the number of the first
    layers : int
        how many
    heads : int
        of keys, a layer
    head_dim : int
        floats a head
    begin : int
        numbers a slot of the layers before
    """

    first: int
    layers: int
    heads: int
    head_dim: int
    begin: int

    @property
    def padded(self) -> int:
        return padded_head_dim(self.head_dim)

    def planes(self, page: Page) -> tuple[np.ndarray, np.ndarray]:
        """Its keys (layers, heads, tiles, padded, lanes) and values (layers, heads, PAGE, padded) in a page, as views."""
        size = self.layers * numbers((self.heads, self.head_dim))
        planes = page.array[PAGE * self.begin : PAGE * (self.begin + size)].reshape(self.layers, 2, self.heads, -1)
        keys, values = planes[:, 0], planes[:, 1]
        return (
            keys.reshape(self.layers, self.heads, PAGE // LANES, self.padded, LANES),
            values.reshape(self.layers, self.heads, PAGE, self.padded),
        )


class KVCache:
    """Keys and values of up to `slots` tokens, of f16 or f32. Pages are taken when they are first written.

    A page holds [layer][key, value][kv_head] planes. A plane of keys is [slot / 16][padded][slot % 16], for scores of
    16 slots at a time, a plane of values [slot][padded]; padded is head_dim rounded up to 16.

    Attributes
    ----------
    slots : int
        of all pages that there may be
    format : str
        the name of its type
    dtype
        its type
    is_f32 : bool
        whether that is float32
    positions_at
        bytes from a page's beginning to the positions of what its slots hold
    is_long : bool
        of a text with room for more than `Plan.long_beyond` positions
    window : int
        positions that a row sees, its own the last; what is before may be forgotten. 0: all, and nothing is
    forgotten : int
        slots, the first ones, whole pages of them
    last_forgotten : int
        the greatest position there
    """

    def __init__(self, plan: Plan, slots: int, format: str, key_set: str = OWN, is_long: bool = False) -> None:
        self.slots, self.format, self.is_long = slots, format, is_long
        self.is_f32 = format == "f32"
        self.dtype = np.dtype(np.float32 if self.is_f32 else np.float16)
        self._runs, self._numbers = list[Layers](), 0  # numbers of a slot
        self._count = 0  # of layers
        for shape, layers in groupby(plan.key_sets[key_set]):
            count = len(list(layers))
            self._runs.append(Layers(self._count, count, *shape, self._numbers))
            self._count, self._numbers = self._count + count, self._numbers + count * numbers(shape)
        self.positions_at = PAGE * self._numbers * self.dtype.itemsize
        self.window = plan.windows.get(key_set, 0) if plan.causal else 0  # else rows are written anew where they lie
        self.forgotten, self.last_forgotten = 0, NEVER
        self._pages: list[Page] = []  # of all slots; GONE, those of slots that are forgotten
        self._spare: list[Page] = []  # they hold nothing
        self._struct: Any = None  # of C, over the pages as they are

    @property
    def nbytes(self) -> int:
        """Bytes of the pages; those that other caches hold too are counted in each."""
        return sum(page.memory.nbytes for pages in (self._pages, self._spare) for page in pages)

    @property
    def struct(self) -> Any:
        """C's `struct fd_cache *`; holds until the next `reserve` or `share`."""
        if self._struct is None:
            self._held = ffi.new("void *[]", [page.pointer for page in self._pages])
            self._struct = ffi.new(
                "struct fd_cache *",
                {"pages": self._held, "positions": self.positions_at, "is_f32": self.is_f32, "is_long": self.is_long},
            )
        return self._struct

    @staticmethod
    def slot_bytes(plan: Plan, format: str, key_sets: Iterable[str] | None = None) -> int:
        """Bytes that one token takes in some key sets, or in all of a session: keys and values of each layer, and its position."""
        each = [plan.key_sets[name] for name in (plan.windows if key_sets is None else key_sets)]
        return sum(4 + sum(map(numbers, layers)) * (2 if format == "f16" else 4) for layers in each)

    @staticmethod
    def most_bytes(plan: Plan, capacity: int, max_rows: int, format: str) -> int:
        """Bytes that all key sets of a session take at most, where at most `max_rows` rows are new or pending at a time."""
        total = 0
        for name, window in plan.windows.items():
            slots = capacity + max_rows
            if window and plan.causal:
                slots = min(slots, window + SLACK + max_rows + PAGE)
            total += -(-slots // PAGE) * PAGE * KVCache.slot_bytes(plan, format, [name])
        return total

    def reserve(self, start: int, end: int) -> None:
        """See to pages for slots start .. end - 1 that may be written: new ones, or copies of those that others see too.

        Raises
        ------
        CapacityError
            where memory lacks
        """
        count = len(self._pages)
        for number in range(start // PAGE, min(-(-end // PAGE), count)):
            page = self._pages[number]
            if page.is_shared:
                copy = self._spare.pop() if self._spare else self._new_pages(1)[0]
                copy.memory[:] = page.memory
                self._struct = None  # before it is wrong: an interrupt may come anywhere
                self._pages[number] = copy
                page.left(self)  # the last one of its holders writes in place
        missing = -(-end // PAGE) - count
        if missing > 0:
            if not self.window:  # else pages come back soon
                missing = min(max(missing, min(count, MOST_PAGES)), -(-self.slots // PAGE) - count)
            new = self._new_pages(missing - len(self._spare)) if missing > len(self._spare) else []
            self._struct = None
            self._pages += new + [self._spare.pop() for _ in range(missing - len(new))]

    def check_held(self, start: int, first: int) -> None:
        """Refuse rows that follow the first `start` slots, from position `first` on, where what they see is forgotten.

        Raises
        ------
        ForgottenError
        """
        if self.forgotten > start or first - self.window < self.last_forgotten:
            raise ForgottenError(
                f"a row at position {first} after {start} tokens sees {self.window} positions in some layers; the first "
                f"{self.forgotten} tokens are forgotten there: truncate to 0 and read the text again"
            )

    def forget(self, positions: np.ndarray, first: int) -> None:
        """Let go of pages among the first slots that rows from position `first` - SLACK on do not see; `positions` (n,) are theirs."""
        while self.window and self.forgotten + PAGE <= len(positions):
            last = int(positions[self.forgotten : self.forgotten + PAGE].max())
            if last > first - self.window - SLACK:
                break
            # In this order: an interrupt in between leaves less to be seen, and nothing seen that is not there.
            self.last_forgotten = max(self.last_forgotten, last)
            self.forgotten += PAGE
            number = self.forgotten // PAGE - 1
            page, self._struct = self._pages[number], None
            self._pages[number] = GONE
            if page.left(self):
                self._spare.append(page)

    def restart(self, forgotten: int = 0, last_forgotten: int = NEVER) -> None:
        """Hold nothing; the first `forgotten` slots, whole pages, as if it had been forgotten."""
        self._struct, pages = None, self._pages
        self._pages = [GONE] * (forgotten // PAGE)
        self._spare += [page for page in pages if page is not GONE and page.left(self)]
        self.forgotten, self.last_forgotten = forgotten, last_forgotten

    def share(self, other: KVCache, slots: int) -> None:
        """Begin with the first `slots` slots of another cache of the same model: the same pages, until either writes there."""
        self.restart(*((other.forgotten, other.last_forgotten) if slots else ()))
        pages = other._pages[: -(-slots // PAGE)]
        for page in pages:
            if page is not GONE:
                page.held_too(other, self)
        self._pages = pages

    def move(self, sources: np.ndarray, start: int) -> None:
        """Put the rows of slots `sources`, in that order, at start, start + 1, ..."""
        targets = np.arange(start, start + len(sources))
        moved = targets != sources
        if not moved.any():
            return
        self.reserve(start, start + len(sources))
        rows = [self._gather(run, sources[moved]) for run in self._runs]  # all, before any is written over
        positions = self.positions(sources[moved])
        for run, (keys, values) in zip(self._runs, rows, strict=True):
            self._scatter(run, targets[moved], keys, values)
        self.set_positions(targets[moved], positions)

    def positions(self, slots: np.ndarray) -> np.ndarray:
        """Of the rows that these slots hold, int32 (n,)."""
        found = np.empty(len(slots), np.int32)
        for number in np.unique(slots // PAGE).tolist():
            rows = slots // PAGE == number
            found[rows] = self._pages[number].positions[slots[rows] % PAGE]
        return found

    def set_positions(self, slots: np.ndarray, positions: np.ndarray) -> None:
        """Put there what `positions` gives; the pages are there and may be written."""
        for number in np.unique(slots // PAGE).tolist():
            rows = slots // PAGE == number
            self._pages[number].positions[slots[rows] % PAGE] = positions[rows]

    def read(self, layer: int, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of these slots in one layer, each (n, kv_heads, head_dim)."""
        run = self._layer(layer)
        keys, values = self._gather(run, slots)
        return keys[:, 0, :, : run.head_dim], values[:, 0, :, : run.head_dim]

    def write(self, layer: int, slots: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
        """Put there what `read` gives; what pads a head is zeros then, for C multiplies that too."""
        self.reserve(int(slots.min()), int(slots.max()) + 1)
        run = self._layer(layer)
        padded = np.zeros((2, len(slots), 1, run.heads, run.padded), self.dtype)
        padded[0, :, 0, :, : run.head_dim], padded[1, :, 0, :, : run.head_dim] = keys, values
        self._scatter(run, slots, *padded)

    def read_all(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of these slots in all layers one after another, each (n, floats of a token)."""
        layers = [self.read(layer, slots) for layer in range(self._count)]
        nothing = np.empty((2, len(slots), 0), self.dtype)
        keys, values = (
            np.concatenate([none, *(part.reshape(len(part), math.prod(part.shape[1:])) for part in parts)], axis=1)
            for none, *parts in zip(nothing, *layers, strict=True)
        )
        return keys, values

    def write_all(self, slots: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
        """Put there what `read_all` gives."""
        begin = 0
        for layer in range(self._count):
            run = self._layer(layer)
            end = begin + run.heads * run.head_dim
            shape = len(slots), run.heads, run.head_dim
            self.write(layer, slots, keys[:, begin:end].reshape(shape), values[:, begin:end].reshape(shape))
            begin = end

    def _new_pages(self, count: int) -> list[Page]:
        size = PAGE * (self._numbers * self.dtype.itemsize + 4)
        try:
            chunk = mapped_bytes(count * size).reshape(count, size)
        except MemoryError:
            raise CapacityError(
                f"no memory for a cache of {(len(self._pages) + count) * PAGE} tokens ({(len(self._pages) + count) * size / 1e6:.0f} MB); "
                "give the session fewer tokens"
            ) from None
        return [Page(memory, self.dtype) for memory in chunk]

    def _layer(self, layer: int) -> Layers:
        run = next(run for run in self._runs if run.first <= layer < run.first + run.layers)
        return Layers(
            layer, 1, run.heads, run.head_dim, run.begin + (layer - run.first) * numbers((run.heads, run.head_dim))
        )

    def _gather(self, run: Layers, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of slots, each (n, layers, kv_heads, padded)."""
        gathered = np.empty((2, len(slots), run.layers, run.heads, run.padded), self.dtype)
        for number in np.unique(slots // PAGE).tolist():
            rows = np.flatnonzero(slots // PAGE == number)
            at, (keys, values) = slots[rows] % PAGE, run.planes(self._pages[number])
            gathered[0, rows] = keys[:, :, at // LANES, :, at % LANES]
            gathered[1, rows] = np.moveaxis(values[:, :, at], 2, 0)
        return gathered[0], gathered[1]

    def _scatter(self, run: Layers, slots: np.ndarray, new_keys: np.ndarray, new_values: np.ndarray) -> None:
        """Put there what `_gather` gives; the pages are there and may be written."""
        for number in np.unique(slots // PAGE).tolist():
            rows = np.flatnonzero(slots // PAGE == number)
            at, (keys, values) = slots[rows] % PAGE, run.planes(self._pages[number])
            keys[:, :, at // LANES, :, at % LANES] = new_keys[rows]
            values[:, :, at] = np.moveaxis(new_values[rows], 0, 2)


def numbers(shape: Shape) -> int:
    """Keys and values of a slot in one layer."""
    return 2 * shape[0] * padded_head_dim(shape[1])


def padded_head_dim(head_dim: int) -> int:
    """Numbers that a head of one slot takes."""
    return -(-head_dim // LANES) * LANES
