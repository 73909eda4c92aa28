"""Passes as training makes them: sequences one after another, a slot a row; and what plans give of them, in float64."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np

from fastdistill.checkpoint import Tensor
from fastdistill.models.plan import Plan
from fastdistill.ops import OWN
from fastdistill.runtime.forward_pass import ForwardPass, KeySet
from fastdistill.runtime.reference_executor import ReferenceExecutor
from fastdistill.train.differentiate import differentiate, reverse_segments


class Rows64:
    """Keys and values of a pass in float64, as a reference reads a cache: a slot a row."""

    is_long = False

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._layers: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._positions = np.zeros(slots, int)

    def write(self, layer: int, slots: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
        shape = self.slots, *keys.shape[1:]
        stored = self._layers.setdefault(layer, (np.full(shape, np.nan), np.full(shape, np.nan)))
        stored[0][slots], stored[1][slots] = keys, values

    def read(self, layer: int, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keys, values = self._layers[layer]
        return keys[slots], values[slots]

    def positions(self, slots: np.ndarray) -> np.ndarray:
        return self._positions[slots]

    def set_positions(self, slots: np.ndarray, positions: np.ndarray) -> None:
        self._positions[slots] = positions


def chains(lengths: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """positions, nodes, runs, run_offsets of sequences in which each row sees those before it and itself."""
    positions = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    starts = np.concatenate([np.full(n, first) for first, n in zip(np.cumsum([0, *lengths]), lengths, strict=False)])
    runs = np.stack([starts, positions + 1], axis=1).astype(np.int32)
    rows = len(positions)
    return positions, np.arange(rows, dtype=np.int32), runs, np.arange(rows + 1, dtype=np.int64)


def woods() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same of 13 rows: a tree of 7, each of which sees its ancestors and itself, and blocks of 4 and 2, seen as a whole."""
    parents = [-1, 0, 0, 1, 1, 2, 4]
    paths = [[0]]
    for row, parent in enumerate(parents[1:], 1):
        paths.append([*paths[parent], row])
    runs = [[(slot, 1) for slot in path] for path in paths] + [[(7, 4)], [(7, 4), (11, 2)]]
    positions = [len(path) - 1 for path in paths] + [0, 1, 2, 3, 4, 5]
    nodes = [*range(7), *[7] * 4, *[8] * 2]
    return (
        np.array(positions, np.int32), np.array(nodes, np.int32), np.array([*chain.from_iterable(runs)], np.int32),
        np.cumsum([0, *map(len, runs)]),
    )  # fmt: skip


def forked(trunk: int, branches: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same of a chain that goes on in branches which do not see each other."""
    stem = [[(0, row + 1)] for row in range(trunk)]
    starts = [trunk + branch * length for branch in range(branches)]
    runs = stem + [[(0, trunk), (start, row + 1)] for start in starts for row in range(length)]
    positions = [*range(trunk), *[trunk + row for _ in starts for row in range(length)]]
    nodes = np.arange(len(runs), dtype=np.int32)
    return (
        np.array(positions, np.int32), nodes, np.array([*chain.from_iterable(runs)], np.int32),
        np.cumsum([0, *map(len, runs)]),
    )  # fmt: skip


def training_pass(plan: Plan, tokens: np.ndarray, laid, reads: np.ndarray, cache) -> ForwardPass:
    """Every key set holds the same rows; `cache` makes that of one (its name -> cache). Further columns of tokens follow from the first."""
    positions, nodes, runs, offsets = laid
    slots, zeros = np.arange(len(tokens), dtype=np.int32), np.zeros(len(tokens), np.int32)
    if more := range(1, 1 + max(op.constants.get("column", 0) for op in plan.ops)):
        columns = [np.where(tokens % 3 == 0, -1, (tokens + column) % plan.vocab_size) for column in more]
        tokens = np.stack([tokens, *columns])
    others = {name: KeySet(slots, nodes, runs, offsets, [cache(name)]) for name in plan.key_sets if name != OWN}
    return ForwardPass(
        slots, nodes, runs, offsets, [cache(OWN)], tokens.astype(np.int32), None, positions,
        zeros, reads.astype(np.int32), end_layer=plan.num_layers, want_outputs=True,
        others=others or None,
    )  # fmt: skip


class Weights64:
    """Weights of a plan in float64, for the reference executor."""

    def __init__(self, plan: Plan, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.tensors = {}
        for name, weight in plan.weights.items():
            scale = weight.shape[-1] ** -0.5 if len(weight.shape) == 2 else 0.3
            data = random.standard_normal(weight.shape) * scale + (len(weight.shape) == 1)
            self.tensors[name] = Numbers(name, "f32", weight.shape, data)


class Numbers(Tensor):
    """A tensor whose values are not rounded."""

    def to_float32(self) -> np.ndarray:
        return self.data


def gradients_64(plan: Plan, wrt, output: str, weights, request: ForwardPass, dy: np.ndarray, checkpoint=False):
    """The output (reads, width), and the gradients of sum(output * dy) by `wrt`, in float64, by the reference executor."""
    made = differentiate(plan, wrt, output, checkpoint=checkpoint)
    zeros = {name: np.zeros(plan.weights[name].shape) for name in wrt if name in plan.weights}
    executor = ReferenceExecutor(made, weights, gradients=zeros, dtype=np.float64)
    value = executor.values_of(request)[plan.outputs[output]]
    request.inputs, request.segments = dy, reverse_segments(made)
    executor.values_of(request)
    request.inputs, request.segments = None, ()
    return value, executor.gradients, executor.values


def pieces(cuts: list[int]):
    return [slice(a, b) for a, b in pairwise(cuts)]
