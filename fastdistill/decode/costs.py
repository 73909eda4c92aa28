"""What a forward costs on this machine, by its rows and the context they see: what guessing has to be worth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.arguments import check_callable, check_has, check_integer, check_integers, check_numbers
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import read_json, replace, work_folder
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.messages import short
from fastdistill.runtime.read import Read

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
CONTEXTS = (32, 512)
REPETITIONS, FEW = 4, 8
THREAD_ROWS = (1, 4, 16)  # more are arithmetic, which all threads share
THREAD_POSITIONS = CONTEXTS[0] + THREAD_ROWS[-1]  # that their forwards take
WORTH = 1.05  # how many times faster fewer threads have to be
GRANTED = 0.8  # the share of their cores that threads have to get for their times to say something
MOST_ROWS, MOST_SECONDS = 1 << 16, 1e6  # in a table: more is a mistake, and would take its reader's memory


@dataclass(frozen=True)
class Costs:
    """Seconds of a forward, linear between and beyond the points that were measured.

    Parameters
    ----------
    rows : tuple[int, ...]
        ascending, the first is 1
    contexts : tuple[int, int]
        two numbers of cached tokens
    seconds : tuple[tuple[float, ...], tuple[float, ...]]
        for each context one entry a number of rows
    threads : tuple[tuple[int, int], ...], default ()
        (rows, threads), ascending: forwards of at most so many rows ran on so many threads; the others on all
    """

    rows: tuple[int, ...]
    contexts: tuple[int, int]
    seconds: tuple[tuple[float, ...], tuple[float, ...]]
    threads: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        table = check_numbers("costs", self.seconds, "a table of seconds")
        rows = check_integers("rows", self.rows, 1, MOST_ROWS).tolist()
        contexts = check_integers("contexts", self.contexts, 0, (1 << 31) - 1).tolist()
        good = rows[0] == 1 and rows == sorted(set(rows)) and len(contexts) == 2 and contexts[0] < contexts[1]
        if not good or table.shape != (2, len(rows)) or not ((table > 0) & (table <= MOST_SECONDS)).all():
            raise ArgumentError(
                f"costs must be seconds above 0 for ascending rows from 1 in two contexts, got rows {short(self.rows)}, "
                f"contexts {short(self.contexts)}, seconds {short(self.seconds)}"
            )
        few = _check_threads(self.threads)
        object.__setattr__(self, "threads", few)
        object.__setattr__(self, "rows", tuple(rows))
        object.__setattr__(self, "contexts", tuple(contexts))
        object.__setattr__(self, "seconds", tuple(map(tuple, table.tolist())))
        near, far = np.maximum.accumulate(
            table, axis=1
        )  # more rows do not cost less: where they seem to, that is noise
        object.__setattr__(self, "_near", near)
        more = np.maximum.accumulate(np.maximum(far - near, 0))  # nor does what a longer context adds to them
        object.__setattr__(self, "_per_token", more / (self.contexts[1] - self.contexts[0]))

    def __call__(self, rows: np.ndarray, context: int) -> np.ndarray:
        """Seconds of forwards of so many rows, int (n,), over so many cached tokens: float64 (n,)."""
        rows = check_numbers("rows", rows, "numbers of rows", empty=True)
        context = check_integer("context", context, 0, 1 << 30)
        known: np.ndarray = self._near + self._per_token * max(context - self.contexts[0], 0)  # type: ignore[attr-defined]
        seconds: np.ndarray = np.interp(rows, self.rows, known)
        slope = known[-1] - known[-2] if len(self.rows) > 1 else known[-1]
        slope /= self.rows[-1] - (self.rows[-2] if len(self.rows) > 1 else 0)
        return seconds + slope * np.maximum(rows - self.rows[-1], 0)

    def by_rows(self, context: int) -> np.ndarray:
        """Seconds of a forward of 1, 2, ... rows[-1] rows over so many cached tokens."""
        return self(np.arange(1, self.rows[-1] + 1), context)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Costs:
        """What `as_dict` has made a dict of.

        Parameters
        ----------
        given : Mapping[str, Any]
            what `as_dict` gives

        Raises
        ------
        ArgumentError
            for anything that `as_dict` has not made
        """
        try:
            near, far = (tuple(seconds + 0.0 for seconds in some) for some in given["seconds"])
            first, second = map(index, given["contexts"])
            return cls(tuple(map(index, given["rows"])), (first, second), (near, far), _check_threads(given["threads"]))
        except (LookupError, OverflowError, TypeError, ValueError) as error:
            raise ArgumentError(f"no costs: {short(error)}") from None

    def __str__(self) -> str:
        lines = ["rows     " + " ".join(f"{rows:6d}" for rows in self.rows)]
        for context, seconds in zip(self.contexts, self.seconds, strict=True):
            lines.append(f"{f'at {context}':9s}" + " ".join(f"{1e3 * some:6.2f}" for some in seconds) + " ms")
        lines += [
            f"up to {rows} row{'s' * (rows > 1)} on {threads} thread{'s' * (threads > 1)}"
            for rows, threads in self.threads
        ]
        return "\n".join(lines)


def _check_threads(given: Any) -> tuple[tuple[int, int], ...]:
    """Pairs of rows, ascending, and threads."""
    try:
        few = tuple((index(rows), index(threads)) for rows, threads in given)
    except (TypeError, ValueError):
        few = ((0, 0),)
    rows = [most for most, _ in few]
    if rows != sorted(set(rows)) or not all(1 <= number <= MOST_ROWS for pair in few for number in pair):
        raise ArgumentError(f"threads must be pairs (rows, threads), rows ascending from 1, got {short(given)}")
    return few


def check_costs(costs: Any) -> None:
    """Refuse anything but Costs, or None."""
    if not isinstance(costs, Costs | None):
        raise ArgumentError(f"costs must be Costs, got {type(costs).__name__}")


UNKNOWN = Costs((1, 2), (0, 1), ((1.0, 1.125), (1.0, 1.125)))  # of a model that nobody has timed


def read_costs(file: Path | None) -> Costs | None:
    """The costs that a file holds; None where there is no such file, or it holds something else."""
    with suppress(CheckpointError, ArgumentError):
        return None if file is None else Costs.from_dict(read_json(file))
    return None


def kept_costs(file: Path | None, measure: Callable[[], Costs]) -> Costs:
    """The costs that a file holds, or, where it holds none, measured ones, which it holds from then on if it can."""
    if (known := read_costs(file)) is not None:
        return known
    costs = measure()
    if file is None or costs == UNKNOWN:
        return costs
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(file) as work:
            fresh = work / "costs"
            fresh.write_text(json.dumps(costs.as_dict()), "utf-8")
            replace(file, fresh, work)
    return costs


def measure_costs(make_session: Callable[[int, int], Any], most_positions: int = 1 << 20) -> Costs:
    """Time forwards over a short and a longer context: the least of a few, in turns.

    UNKNOWN where the clock stands still.

    Parameters
    ----------
    make_session : Callable[[int, int], Any]
        (capacity, max_rows) -> an empty session
    most_positions : int, optional
        that its sessions can have
    """
    check_callable("make_session", make_session)
    check_integer("most_positions", most_positions, 1, 1 << 30)
    rows = [count for count in ROWS if count <= max(most_positions // 2, 1)]
    far = max(min(CONTEXTS[1], most_positions - rows[-1]), 1)
    near = min(CONTEXTS[0], far - 1)
    session = make_session(far + rows[-1], 256)
    check_has("what make_session returns", session, ("forward", "prefill", "truncate", "vocab_size"), "a session")
    seconds = []
    for context in (near, far):
        found = _least_seconds([session], rows, context)[0]
        if not ((found > 0) & (found < np.inf)).all():
            return UNKNOWN
        seconds.append(tuple(found.tolist()))
    return Costs(tuple(rows), (near, far), (seconds[0], seconds[1]))


def thread_counts(most: int) -> list[int]:
    """Numbers of threads that are worth a try, ascending: a board's cores one by one, the halves of many."""
    return [*range(1, most + 1)] if most <= 4 else [*thread_counts(most // 2), most]


def fastest_threads(make_sessions: Mapping[int, Callable[[int, int], Any]]) -> tuple[tuple[int, int], ...]:
    """Time forwards of a few rows on several numbers of threads, in turns: what `Costs.threads` says.

    Parameters
    ----------
    make_sessions : Mapping[int, Callable[[int, int], Any]]
        by threads: (capacity, max_rows) -> an empty session that runs on so many; the largest is what others have to beat
        by `WORTH`. Where that one is not granted its cores, because others use them now, nothing is learnt: ()
    """
    most, context = max(make_sessions), CONTEXTS[0]
    sessions = {n: make(THREAD_POSITIONS, THREAD_ROWS[-1]) for n, make in sorted(make_sessions.items())}
    found = np.array(_least_seconds([*sessions.values()], THREAD_ROWS, context))
    if not ((found > 0) & (found < np.inf)).all() or not _granted(sessions[most], most):
        return ()
    counts, few = [*sessions], list[tuple[int, int]]()
    for rows, seconds in zip(THREAD_ROWS, found.T.tolist(), strict=True):
        best = counts[int(np.argmin(seconds))]
        few.append((rows, best if seconds[counts.index(best)] * WORTH < seconds[-1] else most))
    # One line for rows that run on as many threads, none for those at the end that run on all.
    joined = [pair for pair, after in zip(few, [*few[1:], (0, most)], strict=True) if pair[1] != after[1]]
    return tuple(joined)


def _granted(session: Any, threads: int) -> bool:
    """Whether a session's threads, which spin while they wait, have the cores that they ask for."""
    tokens, read = np.zeros(THREAD_ROWS[-1], np.int32), Read(sampler=Sampler())
    started, busy = time.perf_counter(), time.process_time()
    for _ in range(FEW):
        length = session.length
        session.forward(tokens, read=read)
        session.truncate(length)
    return time.process_time() - busy > GRANTED * threads * (time.perf_counter() - started)


def _least_seconds(sessions: Sequence[Any], rows: Sequence[int], context: int) -> list[np.ndarray]:
    """Of each session the least seconds that forwards of so many rows took, float64 (rows,), over so many cached tokens."""
    read, found = Read(sampler=Sampler()), [np.full(len(rows), np.inf) for _ in sessions]
    tokens = np.arange(context + rows[-1], dtype=np.int32) % sessions[0].vocab_size
    for session in sessions:
        if context > session.length:
            session.prefill(tokens[session.length : context])
    for repetition in range(REPETITIONS + 1):
        for i in range(len(rows)) if repetition % 2 else reversed(range(len(rows))):
            for session, least in zip(sessions, found, strict=True):
                for _ in range(max(FEW // rows[i], 1)):  # those of a few rows matter most, and are over soonest
                    started = time.perf_counter()
                    session.forward(tokens[: rows[i]], read=read)
                    taken = time.perf_counter() - started
                    session.truncate(context)
                    if repetition:  # the first one warms up
                        least[i] = min(least[i], taken)
    return found
