"""Chains and trees of a draft model's own tokens, whatever the model is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastdistill.arguments import check_integers
from fastdistill.decode.drafters.draft import NO_GUESSES, Draft, DraftRequest
from fastdistill.decode.drafters.drawing import Drawing
from fastdistill.decode.trees import StaticTree, Tree
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.kernels.verify.build_tree import build_tree
from fastdistill.kernels.verify.expand_tree import expand_tree
from fastdistill.runtime.read import Read, Rows

_LOGITS = Read(logits=True)


class Vocabulary:
    """The draft model's tokens and the target's, each in terms of the other."""

    def __init__(self, draft: int, target: int, token_map: Sequence[int] | np.ndarray | None) -> None:
        self.target, self.allowed = target, None
        self.to_target: np.ndarray | None = None  # int32 (draft,); None: the same tokens
        if token_map is None:
            if draft != target:
                raise ArgumentError(f"the draft model has {draft} tokens, the target {target}: a token_map is needed")
            return
        self.to_target = check_integers("token_map", token_map, -1, target - 1)
        if len(self.to_target) != draft:
            raise ArgumentError(f"token_map must have one entry a draft token, {draft}, got {len(self.to_target)}")
        mapped = np.flatnonzero(self.to_target >= 0).astype(np.int32)
        targets = self.to_target[mapped]
        if len(mapped) == 0 or len(np.unique(targets)) != len(targets):
            raise ArgumentError("token_map must name at least one token of the target, and each at most once")
        self._to_draft = np.full(target, -1, np.int32)
        self._to_draft[targets] = mapped
        self._mapped, self._targets = mapped, targets
        if len(mapped) == draft:
            return
        self.allowed = np.zeros(-(-draft // 32), np.uint32)
        np.bitwise_or.at(self.allowed, mapped // 32, np.uint32(1) << (mapped % 32).astype(np.uint32))

    def draft_tokens(self, tokens: np.ndarray) -> np.ndarray:
        if self.to_target is None:
            return tokens
        mapped = self._to_draft[tokens]
        return mapped[mapped >= 0]

    def target_tokens(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.asarray(tokens, np.int32) if self.to_target is None else self.to_target[tokens]

    def target_laws(self, laws: np.ndarray) -> np.ndarray:
        if self.to_target is None:
            return laws
        wide = np.zeros((len(laws), self.target), np.float32)
        wide[:, self._targets] = laws[:, self._mapped]
        return wide


class GrowingRun(ABC):
    """Guesses of a draft model for one text: says which rows it is to run, and makes a chain or a tree of what they give.

    Parameters
    ----------
    request : DraftRequest
    vocabulary : Vocabulary
        its tokens and the target's
    """

    def __init__(self, request: DraftRequest, vocabulary: Vocabulary) -> None:
        self._vocabulary, self._tree = vocabulary, request.tree
        self._drawing = Drawing(request, vocabulary.allowed, vocabulary.to_target)
        if isinstance(self._tree, Tree) and request.sampled:
            raise UnsupportedError(
                "a tree that grows where the draft is sure has no law: use a static_tree with this rule"
            )
        self._text = vocabulary.draft_tokens(request.prompt)
        self._positions = len(request.prompt) - len(self._text)  # what the target's text has more

    @property
    @abstractmethod
    def _room(self) -> int:
        """Rows that guesses may take; below 0 where there is nothing to go on from."""

    @abstractmethod
    def _root(self, read: Read) -> Rows:
        """Rows of the draft model, of which the last is the seed's."""

    @abstractmethod
    def _below(self, nodes: list[int], tokens: np.ndarray, parents: np.ndarray, read: Read) -> Rows:
        """The rows of these guesses, whose parents' rows have been run."""

    def _renumber(self, kept: np.ndarray) -> None:  # noqa: B027
        """Of the guesses so far these alone are proposed, with new numbers from 0 on."""

    def _stops(self, share: float, reached: float) -> bool:
        """Whether a chain ends with a guess that has so large a share, and with all guesses before it so large a one."""
        return False

    def _kinds(self, shares: np.ndarray) -> np.ndarray | None:
        """Of guesses with these shares: which line of the drafter's `priors`."""
        return None

    def propose(self, budget: int) -> Draft:
        room, shapeless = self._room, isinstance(self._tree, StaticTree) and len(self._tree.parents) == 0
        if budget == 0 or room < 0 or shapeless:
            return NO_GUESSES
        self._drawing.begin_round()
        if self._tree is None:
            return self._chain(min(budget, room + 1))
        rows = self._root(_LOGITS)
        grow = self._grown if isinstance(self._tree, Tree) else self._shaped
        return grow(rows, budget, room)

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        added = self._vocabulary.draft_tokens(np.array(tokens, np.int32))
        self._positions += len(tokens) - len(added)
        self._text = np.concatenate([self._text, added])

    def _chain(self, budget: int) -> Draft:
        text, laws, shares, reached = self._text, list[np.ndarray](), list[float](), 1.0
        read = self._drawing.read(1)
        rows = self._root(read)
        before = len(text)
        tokens, order = np.empty(budget, np.int32), np.arange(-1, budget - 1, dtype=np.int32)
        for guess in range(budget):
            tokens[guess], share, law = self._drawing.first(rows, len(text) - 1 + self._positions, guess, text)
            text = np.append(text, tokens[guess])
            shares.append(share)
            laws += [] if law is None else [law]
            reached *= share
            if guess == budget - 1 or self._stops(share, reached):
                break
            rows = self._below([guess], tokens, order, read)
        drawn: dict[str, Any] = {}
        if laws:
            drawn = {
                "laws": self._vocabulary.target_laws(np.concatenate(laws)),
                "law_rows": np.arange(len(laws), dtype=np.int32),
            }
        return Draft(self._vocabulary.target_tokens(text[before:]), kinds=self._kinds(np.array(shares)), **drawn)

    def _grown(self, rows: Rows, budget: int, room: int) -> Draft:
        """EAGLE-2: level by level below the likeliest nodes, then the best of all."""
        tree: Any = self._tree
        tokens, parents, scores = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)
        shares = np.empty(0, np.float32)
        frontier, reached, seen = [-1], np.zeros(1, np.float32), [self._text]
        for level in range(min(tree.depth, room + 1)):
            positions = [len(self._text) - 1 + level + self._positions] * len(frontier)
            keys, laws = self._drawing.ranked(rows, positions, frontier, seen)
            found = expand_tree(keys, reached, tree.width)
            first = len(tokens)
            tokens = np.concatenate([tokens, found.tokens])
            parents = np.concatenate([parents, np.array(frontier, np.int32)[found.rows]])
            scores = np.concatenate([scores, found.scores])
            shares = np.concatenate([shares, laws[found.rows, found.tokens]])
            frontier, reached = list(range(first, len(tokens))), found.scores
            seen = [np.append(seen[row], token) for row, token in zip(found.rows, found.tokens, strict=True)]
            if level + 1 == min(tree.depth, room + 1) or not frontier:
                break
            rows = self._below(frontier, tokens, parents, _LOGITS)
        kept = build_tree(parents, scores, budget)
        self._renumber(kept.nodes)
        tokens = self._vocabulary.target_tokens(tokens[kept.nodes])
        return Draft(tokens, kept.parents, kinds=self._kinds(shares[kept.nodes]))

    def _shaped(self, rows: Rows, budget: int, room: int) -> Draft:
        """A fixed shape: each node's children are its tokens of those ranks; drawn ones are its first, in order."""
        tree: Any = self._tree
        count = min(budget, len(tree.parents))
        shape, ranks = tree.parents[:count], tree.ranks[:count]
        tokens, law_rows = np.full(count, -1, np.int32), np.full(count, -1, np.int32)
        laws, read = [], 0
        frontier, seen = [-1], {-1: self._text}
        for level in range(min(int(count), room + 1)):
            positions = [len(self._text) - 1 + level + self._positions] * len(frontier)
            keys, law = self._drawing.ranked(
                rows, positions, [node + 1 for node in frontier], [seen[node] for node in frontier]
            )
            laws.append(law)
            reached = []
            for row, node in enumerate(frontier):
                children = np.flatnonzero(shape == node)
                wanted = np.arange(len(children)) if self._drawing.sampled else ranks[children]
                best = _largest(keys[row], int(wanted.max(initial=-1)) + 1)
                for child, rank in zip(children.tolist(), wanted.tolist(), strict=True):
                    if rank < len(best):
                        tokens[child], law_rows[child] = best[rank], read + row
                        seen[child] = np.append(seen[node], tokens[child])
                        reached.append(child)
            read += len(frontier)
            frontier = [node for node in reached if (shape == node).any()]
            if not frontier or level + 1 == room + 1:
                break
            rows = self._below(frontier, tokens, shape, _LOGITS)
        made = np.flatnonzero(tokens >= 0)
        number = np.full(count + 1, -1, np.int32)
        number[made] = np.arange(len(made))
        self._renumber(made)
        drawn: dict[str, Any] = {}
        if self._drawing.sampled:
            drawn = {"laws": self._vocabulary.target_laws(np.concatenate(laws)), "law_rows": law_rows[made]}
        return Draft(self._vocabulary.target_tokens(tokens[made]), number[shape[made]], replacement=False, **drawn)


def _largest(keys: np.ndarray, count: int) -> np.ndarray:
    """The tokens of the `count` largest keys that are not -inf, best first, ties to the lowest."""
    count = min(count, int(np.count_nonzero(keys > -np.inf)))
    if count == 0:
        return np.empty(0, np.int64)
    some = np.flatnonzero(keys >= np.partition(keys, -count)[-count])
    return some[np.argsort(-keys[some], kind="stable")][:count]
