"""Guesses of a small head on the target's own last hidden state, trained for this target: `fastdistill distill` makes it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fastdistill.arguments import check_number
from fastdistill.decode.drafters.draft import Draft, DraftRequest
from fastdistill.decode.drafters.growing import GrowingRun, Vocabulary
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.models.draft_head import EMBEDDING, SavedHead, kind_of
from fastdistill.models.plan import Plan
from fastdistill.runtime.forward_pass import ForwardPass
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.runtime.packing import PackedWeights
from fastdistill.runtime.read import STATISTICS_ONLY, Read, Rows

ROWS = 16  # of a level of a tree: as many as `Tree` is wide
TABLE = f"{EMBEDDING}.weight"


@dataclass(frozen=True)
class HeadDrafter:
    """Draft with a head that was distilled from the target: chains, and trees, of its own estimates of the target's state.

    Parameters
    ----------
    folder : str or PathLike
        what `fastdistill distill MODEL --draft FOLDER` has made
    least_probability : float, default 0.25
        stop a chain after a guess that the head gives, with all before it, less than this

    Attributes
    ----------
    priors : tuple[tuple[float, float], ...]
        of its kinds of guesses: see `Drafter`

    Raises
    ------
    ArgumentError
    CheckpointError
        where the folder holds no draft head

    References
    ----------
    Li et al. 2024, EAGLE; Cheng et al. 2024, ReDrafter
    """

    folder: str | os.PathLike[str]
    least_probability: float = 0.25
    _head: SavedHead = field(init=False, repr=False, compare=False)
    _packed: WeakKeyDictionary[Any, HeadWeights] = field(
        init=False, repr=False, compare=False, default_factory=WeakKeyDictionary
    )

    reads_hidden = True

    def __post_init__(self) -> None:
        check_number("least_probability", self.least_probability, 0, 1)
        object.__setattr__(self, "_head", SavedHead.load(self.folder))

    @property
    def priors(self) -> tuple[tuple[float, float], ...]:
        return self._head.priors

    def start(self, request: DraftRequest) -> HeadDraftRun:
        return HeadDraftRun(self, request)

    def weights(self, network: Any) -> HeadWeights:
        """The head's, with the table of a target: packed once for each."""
        packed = self._packed.get(network)
        if packed is None:
            packed = self._packed[network] = HeadWeights(self._head, network)
        return packed


class HeadWeights(PackedWeights):
    """A head's weights, and the target's table, which both read.

    Raises
    ------
    ArgumentError
        where the head is another model's
    UnsupportedError
        for a target that has no packed table of tokens
    """

    def __init__(self, head: SavedHead, network: Any) -> None:
        weights = getattr(network, "weights", None)
        tables = [op.weights[0] for op in network.plan.ops if op.kind == "embedding"]
        if not isinstance(weights, PackedWeights) or not tables:
            raise UnsupportedError(
                "HeadDrafter needs a target whose table of tokens is packed, as the native executor has it"
            )
        table, shape = weights.matrix(tables[0]), head.shape
        wanted = (shape.vocab_size, shape.embedding_size), shape.hidden_size
        found = network.plan.weights[tables[0]].shape, network.plan.hidden_size
        if found != wanted:
            raise ArgumentError(
                f"the draft head is for a model of {wanted[0][0]} tokens and a hidden size of {wanted[1]}, "
                f"this one has {found[0][0]} and {found[1]}"
            )
        self.plan: Plan = shape.plan()
        own = {name: weight for name, weight in self.plan.weights.items() if name != TABLE}
        super().__init__(replace(self.plan, weights=own), head.tensors, None, network.threads)
        self.formats[TABLE] = weights.formats[tables[0]]
        self._matrices[TABLE] = table


class HeadDraftRun(GrowingRun):
    """Goes on from the state that gave the text's last token."""

    def __init__(self, settings: HeadDrafter, request: DraftRequest) -> None:
        network = getattr(request.session, "network", None)
        if network is None:
            raise UnsupportedError(
                "HeadDrafter needs a session of a model: a session over a function has no hidden states"
            )
        weights = settings.weights(network)
        d2t = settings._head.d2t
        super().__init__(request, Vocabulary(len(d2t), request.session.vocab_size, d2t))
        self._d2t, self._least = d2t, settings.least_probability
        self._executor = NativeExecutor(weights.plan, weights, ROWS, network.threads)
        self._estimate = weights.plan.outputs["hidden"]
        self._state: np.ndarray | None = None  # float32 (1, hidden_size): gave the seed
        self._seed = np.empty(0, np.int32)
        self._input = np.empty(
            (1, weights.plan.hidden_size), np.float32
        )  # of a pass of one row, and where its estimate lies:
        self._output: np.ndarray | None = None  # None, where the last pass was another
        self._states: dict[int, np.ndarray] = {}  # estimated behind each guess's parent; -1: behind the seed

    @property
    def _room(self) -> int:
        return -1 if self._state is None else 1 << 20

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        super().accept(tokens, path, taps)
        if len(tokens) and "hidden" in taps:
            self._state, self._seed = taps["hidden"][-1:], np.array(tokens[-1:], np.int32)

    def _chain(self, budget: int) -> Draft:
        """Where the likeliest tokens are wanted, a pass after another over the same arrays: what is around them takes longer than they do."""
        if not self._drawing.takes_likeliest:
            return super()._chain(budget)
        assert self._state is not None
        self._input[:] = self._state
        token, reached = int(self._seed[0]), 1.0
        tokens, shares = list[int](), list[float]()
        while True:
            if self._output is None:
                self._run(self._input, np.array([token], np.int32), [-1], STATISTICS_ONLY)
                self._output = self._executor.value(self._estimate, 1)
                statistics = self._executor.statistics
            else:
                statistics = self._executor.again(token)
            guess = int(statistics[:1].view(np.int32)[0])
            token = int(self._d2t[guess])
            tokens.append(token)
            shares.append(math.exp(statistics[_LOG_PROB]))
            reached *= shares[-1]
            if len(tokens) == budget or reached < self._least:
                return Draft(np.array(tokens, np.int32), kinds=self._kinds(np.array(shares)))
            self._input[:] = self._output

    def _root(self, read: Read) -> Rows:
        assert self._state is not None  # there is room
        self._states = {}
        return self._run(self._state, self._seed, [-1], read)

    def _below(self, nodes: list[int], tokens: np.ndarray, parents: np.ndarray, read: Read) -> Rows:
        states = [self._states[int(parents[node])] for node in nodes]
        return self._run(np.stack(states), self._d2t[tokens[nodes]], nodes, read)

    def _run(self, states: np.ndarray, tokens: np.ndarray, nodes: list[int], read: Read) -> Rows:
        """Rows of these tokens, each drawn from its state."""
        count, self._output = len(nodes), None
        rows, zeros = np.arange(count, dtype=np.int32), np.zeros(count, np.int32)
        outcome = self._executor.run(
            ForwardPass(rows, zeros, _NOBODY, _OFFSETS, [], tokens, states, zeros, zeros, rows, want_logits=read.logits)
        )
        estimates = self._executor.value(self._estimate, count).copy()
        self._states |= dict(zip(nodes, estimates, strict=True))
        argmax, *others = outcome.statistics.copy()
        return Rows(RowStatistics(argmax.view(np.int32), *others), logits=outcome.logits)

    def _stops(self, share: float, reached: float) -> bool:
        return reached < self._least

    def _kinds(self, shares: np.ndarray) -> np.ndarray:
        return kind_of(shares).astype(np.int32)


_LOG_PROB = RowStatistics._fields.index("log_prob")
_NOBODY, _OFFSETS = np.array([[0, 1]], np.int32), np.array([0, 1])  # whom rows see: there is no attention
