"""Which rows a forward runs, and whom they see: how the text is laid over a session's committed rows and nodes.

A text is the prompt and a masked answer, or has masks within it; a block of them is being filled. Under full attention
every row sees every other one, so a forward runs all of it (no cache) or a part, beside keys and values from the block's
first forward that are slightly stale (Fast-dLLM's prefix and dual caches). Under block-causal attention a block sees what
is before it and itself: its keys and values never change once it is filled, and the cache is exact.
"""

from __future__ import annotations

from typing import NamedTuple


class View(NamedTuple):
    """One forward over rows [first, ends[-1]) of the text: nodes [first, ends[0]), [ends[0], ends[1]), ..., each seeing those before it.

    Attributes
    ----------
    first : int
        its first row in the text
    ends : tuple[int, ...]
        where each node ends, ascending
    replace : tuple[int, int] | None
        committed rows [start, end) that these stand for; None: none
    keep : int
        rows, from the first, that the session keeps afterwards
    """

    first: int
    ends: tuple[int, ...]
    replace: tuple[int, int] | None = None
    keep: int = 0

    @property
    def branching(self) -> int:
        """Where the last node begins: several versions of it may be run at once."""
        return self.ends[-2] if len(self.ends) > 1 else self.first


def full_view(cache: str, fresh: bool, start: int, reach: int, length: int, shift: int) -> View:
    """Full attention over a text of `length` rows, whose positions [start, reach) may be filled.

    Parameters
    ----------
    cache : str
    fresh : bool
        nothing is committed; else what the view of the block's first forward kept
    start : int
    reach : int
    length : int
    shift : int
        1: the row before a position predicts it
    """
    if fresh or cache == "none":
        return View(0, (length,), keep={"none": 0, "prefix": start - shift, "dual": length}[cache])
    if cache == "prefix":
        return View(start - shift, (length,))
    return View(start - shift, (reach,), replace=(start - shift, reach))


def block_view(committed: int, starts: list[int], start: int, end: int, shift: int) -> View:
    """Block-causal attention: the block that begins at `start`, behind the one before it where that is not committed yet.

    Parameters
    ----------
    committed : int
        rows that the session holds
    starts : list[int]
        of the blocks, that one among them, whose rows may run
    start : int
    end : int
        of the last one
    shift : int
        as of `full_view`
    """
    ends = [boundary for boundary in starts if boundary > committed]
    return View(committed, (*ends, end), keep=start - shift - committed)
