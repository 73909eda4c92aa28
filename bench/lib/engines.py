"""fastdistill and its peers with the same few methods: hold a context, run rows after it, in turns that a clock can read."""

from __future__ import annotations

import signal
import sys
from abc import ABC, abstractmethod
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import fastdistill as fd
from bench.lib.peers import LlamaCpp, transformers_model
from bench.lib.timing import Timer
from fastdistill.kernels import isa, set_isa

PREFILL = 512  # rows, and the most of any forward
SHORTEST = 0.02  # seconds of a turn: forwards of a few milliseconds are repeated


@dataclass(frozen=True)
class Work:
    """A forward: so many rows after so many cached tokens; all rows are read, of a prefill the last."""

    cached: int
    rows: int

    @property
    def is_prefill(self) -> bool:
        return self.rows == PREFILL

    @property
    def reads(self) -> int:
        return 1 if self.is_prefill else self.rows


class Engine(ABC):
    """Reads prefixes of `ids`; what is cached is always one of them."""

    kernel = "-"  # what runs, in words

    def __init__(self, ids: list[int]) -> None:
        self.ids, self._length = ids, 0

    def enter(self) -> None:  # noqa: B027
        """Before a turn, untimed."""

    @abstractmethod
    def truncate(self, length: int) -> None: ...

    @abstractmethod
    def append(self, tokens: list[int], every: bool) -> np.ndarray:
        """Up to PREFILL rows; the argmax after each of them, or after the last, (m,) or (1,)."""

    def hold(self, length: int) -> None:
        """Have the first `length` tokens cached and nothing else."""
        if self._length > length:
            self.truncate(length)
            self._length = length
        while self._length < length:
            tokens = self.ids[self._length : min(self._length + PREFILL, length)]
            self.append(tokens, every=False)
            self._length += len(tokens)

    def forward(self, work: Work) -> np.ndarray:
        """The rows after the context; the argmax of those that are read."""
        self.hold(work.cached)
        result = self.append(self.ids[work.cached : work.cached + work.rows], not work.is_prefill)
        self._length += work.rows
        return result

    def turn(self, work: Work) -> Timer:
        """Seconds of a forward; the first one, which wakes the threads, is not counted where it is short."""

        def prepare() -> None:
            self.enter()
            if not work.is_prefill:
                self.forward(work)

        return Timer(lambda: self.forward(work), prepare, SHORTEST)


class Ours(Engine):
    """fastdistill on one level."""

    def __init__(self, session: fd.runtime.Session, level: str, ids: list[int]) -> None:
        super().__init__(ids)
        self._session, self._level = session, level
        weights, plan = session.network.weights, session.network.plan
        formats = {weights.formats[name] for name, weight in plan.weights.items() if weight.linear}
        self.enter()
        self.kernel = f"{'+'.join(sorted(formats))} {isa()}"

    def enter(self) -> None:
        set_isa(self._level)

    def truncate(self, length: int) -> None:
        self._session.truncate(length)

    def append(self, tokens: list[int], every: bool) -> np.ndarray:
        return self._session.forward(tokens, rows="all" if every else "last").statistics.argmax

    def hold(self, length: int) -> None:
        self._length = self._session.length  # levels share a session
        super().hold(length)


class Llama(Engine):
    """llama.cpp over a GGUF file."""

    def __init__(self, gguf: Path, capacity: int, threads: int, ids: list[int]) -> None:
        super().__init__(ids)
        self.llama = LlamaCpp(gguf, capacity, threads)

    def truncate(self, length: int) -> None:
        self.llama.truncate(length)

    def append(self, tokens: list[int], every: bool) -> np.ndarray:
        return self.llama.forward_rows(tokens) if every else np.array([self.llama.forward(tokens)])


class Torch(Engine):
    """transformers' Llama; the head on the last row alone where that is all that is read."""

    def __init__(self, folder: Path, threads: int, dtype: str, ids: list[int]) -> None:
        super().__init__(ids)
        self._model, self._threads = transformers_model(folder, threads, dtype, "sdpa"), threads
        self._cache: Any = None

    def enter(self) -> None:
        import torch

        torch.set_num_threads(self._threads)

    def truncate(self, length: int) -> None:
        if length == 0:
            self._cache = None
        else:
            self._cache.crop(length - self._length)  # by how many; a length is no longer taken
            assert self._cache.get_seq_length() == length

    def append(self, tokens: list[int], every: bool) -> np.ndarray:
        import torch

        with torch.inference_mode():
            result = self._model(
                input_ids=torch.tensor([tokens]),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=0 if every else 1,
            )
            self._cache = result.past_key_values
            return result.logits[0].argmax(dim=-1).numpy()


class Elsewhere:
    """llama.cpp as another site directory has it, in a process of its own: one process holds one llama.cpp."""

    def __init__(self, site: Path, gguf: Path, capacity: int, threads: int, ids: list[int]) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _start, (site, gguf, capacity, threads, ids))
        self.system: str = self._pool.submit(_system).result()

    def turn(self, work: Work) -> Any:
        return lambda: self._pool.submit(_turn, work).result()

    def close(self) -> None:
        self._pool.shutdown()


_there: dict[Any, Any] = {}  # of the other process: the engine under "engine", and a Timer for each work


def _start(site: Path, gguf: Path, capacity: int, threads: int, ids: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench itself answers Ctrl-C
    sys.path.insert(0, str(site))
    _there["engine"] = Llama(gguf, capacity, threads, ids)


def _system() -> str:
    return _there["engine"].llama.system


def _turn(work: Work) -> float:
    timer = _there.get(work) or _there.setdefault(work, _there["engine"].turn(work))
    return timer()
