"""A draft head that runs: its own weights, beside the table of tokens of the network that it was distilled from."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.kernels.threads import ThreadsByRows
from fastdistill.messages import listed
from fastdistill.models.draft_head import TABLE, SavedHead, kind_of
from fastdistill.runtime.forward_pass import ForwardPass
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.runtime.packing import PackedWeights
from fastdistill.runtime.read import Rows

ROWS = 16  # most of a pass: of a level of a tree that grows

_LOG_PROB = RowStatistics._fields.index("log_prob")
_NOBODY, _OFFSETS = np.array([[0, 1]], np.int32), np.array([0, 1])  # whom rows see: there is no attention


class RunnableHead:
    """A draft head's folder, read; its weights are packed once for each network that it runs beside.

    Parameters
    ----------
    folder : str or PathLike

    Attributes
    ----------
    d2t : int32 (draft_vocab_size,)
        the target's token for each that it can guess
    priors : tuple[tuple[float, float], ...]
        one a kind
    copies : int
        tokens that a step reads beside the last one
    taps : tuple[str, ...]
        names of the target's hidden states that the first step reads beside its last one

    Raises
    ------
    CheckpointError
        where the folder holds no draft head
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._saved = SavedHead.load(folder)
        self.d2t, self.priors = self._saved.d2t, self._saved.priors
        self.copies, self.taps = self._saved.shape.copies, self._saved.shape.taps
        self._packed: WeakKeyDictionary[Any, _Weights] = WeakKeyDictionary()

    def beside(self, network: Any) -> HeadCell:
        """What runs it beside a network; one a text.

        Raises
        ------
        ArgumentError
            where it is another model's
        UnsupportedError
            for a network that has no packed table of tokens
        """
        weights = self._packed.get(network)
        if weights is None:
            weights = self._packed[network] = _Weights(self._saved, network)
        return HeadCell(weights, network.threads_of)

    def kinds(self, shares: np.ndarray) -> np.ndarray:
        """int32: which line of `priors` is for guesses that it gives these shares."""
        return kind_of(shares).astype(np.int32)


class HeadCell:
    """The steps of a draft head, one after another.

    Attributes
    ----------
    steps : int
        how many there are
    chained : bool
        whether a step goes on from what the step before it gave: else all read the same state
    """

    def __init__(self, weights: _Weights, threads: ThreadsByRows) -> None:
        shape = weights.shape
        self.steps, self.chained = shape.heads or 1 << 20, shape.chained
        self._executors = [NativeExecutor(shape.plan(step), weights, ROWS, threads) for step in range(shape.cells)]
        self._step = 0  # of the last pass that `likeliest` ran
        self._inputs = [np.empty((1, shape.width(step)), np.float32) for step in range(shape.cells)]  # of such passes
        # Executors whose arrays are still those of such a pass: where its estimate lies.
        self._laid: dict[int, np.ndarray] = {}

    def run(self, states: np.ndarray, tokens: np.ndarray, step: int, logits: bool) -> tuple[Rows, np.ndarray]:
        """What a step guesses, and what the next one reads.

        Parameters
        ----------
        states : float32 (n, hidden_size)
            of the first step with its taps, one after another
        tokens : int32 (1 + copies, n)
            drawn from them, and their copies
        step : int
            from 0
        logits : bool
            give them too, float32 (n, draft_vocab_size)

        Returns
        -------
        rows : Rows
            statistics, and the logits
        states : float32 (n, hidden_size)
            that the next step reads
        """
        count = len(states)
        if count > ROWS:  # a level of a static tree
            parts = [slice(begin, begin + ROWS) for begin in range(0, count, ROWS)]
            some, estimated = zip(
                *(self.run(states[part], tokens[:, part], step, logits) for part in parts), strict=True
            )
            statistics = RowStatistics(*map(np.concatenate, zip(*(each.statistics for each in some), strict=True)))
            read = Rows(statistics, logits=np.concatenate([each.logits for each in some]) if logits else None)
            return read, np.concatenate(estimated)
        number = self._cell(step)
        self._laid.pop(number, None)
        executor = self._executors[number]
        rows, zeros = np.arange(count, dtype=np.int32), np.zeros(count, np.int32)
        request = ForwardPass(
            rows, zeros, _NOBODY, _OFFSETS, [], tokens, states, zeros, zeros, rows, want_logits=logits
        )
        outcome = executor.run(request)
        argmax, *others = outcome.statistics.copy()
        following = executor.value(executor.plan.outputs["hidden"], count).copy() if self.chained else states
        return Rows(RowStatistics(argmax.view(np.int32), *others), logits=outcome.logits), following

    def likeliest(self, tokens: Sequence[int], state: np.ndarray | None = None) -> tuple[int, float]:
        """The likeliest guess after a token and its copies, and its share: the first step's, from `state`, or else the step's after the last guess's.

        The same arrays serve call after call: to lay them out takes longer than the pass.
        """
        before = self._cell(self._step)
        self._step = 0 if state is not None else self._step + 1
        number = self._cell(self._step)
        executor, read = self._executors[number], self._inputs[number]
        if state is None:
            state = self._laid[before] if self.chained else self._inputs[before]
        read[:] = state
        if number in self._laid:
            statistics = executor.again(*tokens)
        else:
            self.run(read, np.array(tokens, np.int32)[:, None], self._step, False)
            self._laid[number] = executor.value(executor.plan.outputs["hidden"], 1)
            statistics = executor.statistics
        return int(statistics[:1].view(np.int32)[0]), math.exp(statistics[_LOG_PROB])

    def _cell(self, step: int) -> int:
        """Which executor a step has."""
        return min(step, len(self._executors) - 1)


class _Weights(PackedWeights):
    """A head's, and the target's table, which both read."""

    def __init__(self, head: SavedHead, network: Any) -> None:
        weights = getattr(network, "weights", None)
        tables = [op.weights[0] for op in network.plan.ops if op.kind == "embedding"]
        if not isinstance(weights, PackedWeights) or not tables:
            raise UnsupportedError(
                "a draft head needs a target with a packed table of tokens, as the native executor has it"
            )
        shape = head.shape
        wanted = (shape.vocab_size, shape.embedding_size), shape.hidden_size
        found = network.plan.weights[tables[0]].shape, network.plan.hidden_size
        if found != wanted:
            raise ArgumentError(
                f"the draft head is for a model of {wanted[0][0]} tokens and a hidden size of {wanted[1]}, "
                f"this one has {found[0][0]} and {found[1]}"
            )
        unknown = [name for name in shape.taps if name not in network.plan.taps]
        if unknown:
            raise ArgumentError(f"the draft head reads {listed(unknown)}, which this model has not")
        self.shape, plan = shape, shape.plan()
        own = {name: weight for name, weight in plan.weights.items() if name != TABLE}
        super().__init__(replace(plan, weights=own), head.tensors, None, network.threads)
        self.formats[TABLE] = weights.formats[tables[0]]
        self._matrices[TABLE] = weights.matrix(tables[0])
