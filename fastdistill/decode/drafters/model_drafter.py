"""Guesses from a model: another one, or the target itself in a smaller format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastdistill.arguments import check_integers, check_number
from fastdistill.decode.drafters.draft import NO_GUESSES, Draft, DraftRequest
from fastdistill.decode.drafters.drawing import Drawing
from fastdistill.decode.trees import StaticTree, Tree
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.kernels.verify.build_tree import build_tree
from fastdistill.kernels.verify.expand_tree import expand_tree
from fastdistill.runtime.read import Read, Rows

_LOGITS = Read(logits=True)


@dataclass(frozen=True)
class ModelDrafter:
    """Draft with a model that is faster than the target.

    Parameters
    ----------
    model : Any
        anything with `session(capacity=, max_rows=)` and `vocab_size`: `fd.load(folder, format="q4")`, say
    least_probability : float, default 0.0
        stop a chain after a guess to which the model gives less than this
    token_map : np.ndarray (draft vocabulary,), optional
        the target's token for each of the model's, -1 where there is none; each at most once. None: the same
        vocabulary. Text that the model has no token for is left out of its context

    Raises
    ------
    ArgumentError
        when the vocabularies do not fit
    """

    model: Any
    least_probability: float = 0.0
    token_map: Sequence[int] | np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not hasattr(self.model, "session") or not hasattr(self.model, "vocab_size"):
            raise ArgumentError(f"model must be a model such as fd.load gives, got {type(self.model).__name__}")
        check_number("least_probability", self.least_probability, 0, 1)

    def start(self, request: DraftRequest) -> ModelDraftRun:
        return ModelDraftRun(self, request)


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


class ModelDraftRun:
    """Keeps the draft model's session where the text is."""

    def __init__(self, settings: ModelDrafter, request: DraftRequest) -> None:
        model, session = settings.model, request.session
        self._vocabulary = Vocabulary(model.vocab_size, session.vocab_size, settings.token_map)
        self._drawing = Drawing(request, self._vocabulary.allowed, self._vocabulary.to_target)
        self._least, self._tree = settings.least_probability, request.tree
        if isinstance(self._tree, Tree) and request.sampled:
            raise UnsupportedError(
                "a tree that grows where the draft is sure has no law: use a static_tree with this rule"
            )
        width = 1 if self._tree is None else self._tree.width
        rows = max(256, request.max_draft, width)
        most = getattr(getattr(model, "plan", None), "max_positions", session.capacity)
        self._session = model.session(capacity=min(most, session.capacity + request.max_draft), max_rows=rows)
        self._text = self._vocabulary.draft_tokens(request.prompt)
        self._positions = len(request.prompt) - len(self._text)  # what the target's text has more
        self._ran: dict[int, int] = {}  # of the last tree: guess -> pending row of the session

    def propose(self, budget: int) -> Draft:
        room = self._session.capacity - len(self._text)  # rows that guesses may take
        shapeless = isinstance(self._tree, StaticTree) and len(self._tree.parents) == 0
        if budget == 0 or len(self._text) == 0 or room < 0 or shapeless:
            return NO_GUESSES
        self._drawing.begin_round()
        self._ran = {}
        if self._tree is None:
            return self._chain(min(budget, room + 1))
        rows = self._catch_up(_LOGITS)
        grow = self._grown if isinstance(self._tree, Tree) else self._shaped
        return grow(rows, budget, room)

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        if self._session.pending:
            self._session.keep([self._ran[guess] for guess in path.tolist() if guess in self._ran])
        added = self._vocabulary.draft_tokens(np.array(tokens, np.int32))
        self._positions += len(tokens) - len(added)
        self._text = np.concatenate([self._text, added])
        self._session.truncate(min(self._session.common_prefix(self._text), max(len(self._text) - 1, 0)))

    def _catch_up(self, read: Read) -> Rows:
        """Read what the session has not seen of the text: the seed at least."""
        return self._session.prefill(self._text[self._session.length :], read)

    def _chain(self, budget: int) -> Draft:
        session, text, laws = self._session, self._text, []
        read = self._drawing.read(1)
        rows = self._catch_up(read)
        before = len(text)
        for guess in range(budget):
            token, law = self._drawing.first(rows, len(text) - 1 + self._positions, guess, text)
            sure = np.exp(rows.statistics.top[-1] - rows.statistics.log_sum_exp[-1])
            text = np.append(text, np.int32(token))
            laws += [] if law is None else [law]
            if sure < self._least or guess == budget - 1:
                break
            rows = session.forward(text[-1:], rows="last", read=read)
        drawn: dict[str, Any] = {}
        if laws:
            drawn = {
                "laws": self._vocabulary.target_laws(np.concatenate(laws)),
                "law_rows": np.arange(len(laws), dtype=np.int32),
            }
        return Draft(self._vocabulary.target_tokens(text[before:]), **drawn)

    def _grown(self, rows: Rows, budget: int, room: int) -> Draft:
        """EAGLE-2: level by level below the likeliest nodes, then the best of all."""
        tree: Any = self._tree
        tokens, parents, scores = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)
        frontier, reached, seen = [-1], np.zeros(1, np.float32), [self._text]
        for level in range(min(tree.depth, room + 1)):
            positions = [len(self._text) - 1 + level + self._positions] * len(frontier)
            keys, _ = self._drawing.ranked(rows, positions, frontier, seen)
            found = expand_tree(keys, reached, tree.width)
            first = len(tokens)
            tokens = np.concatenate([tokens, found.tokens])
            parents = np.concatenate([parents, np.array(frontier, np.int32)[found.rows]])
            scores = np.concatenate([scores, found.scores])
            frontier, reached = list(range(first, len(tokens))), found.scores
            seen = [np.append(seen[row], token) for row, token in zip(found.rows, found.tokens, strict=True)]
            if level + 1 == min(tree.depth, room + 1) or not frontier:
                break
            rows = self._run(frontier, tokens, parents)
        kept = build_tree(parents, scores, budget)
        self._ran = {number: self._ran[node] for number, node in enumerate(kept.nodes.tolist()) if node in self._ran}
        return Draft(self._vocabulary.target_tokens(tokens[kept.nodes]), kept.parents)

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
            rows = self._run(frontier, tokens, shape)
        made = np.flatnonzero(tokens >= 0)
        number = np.full(count + 1, -1, np.int32)
        number[made] = np.arange(len(made))
        self._ran = {int(number[node]): row for node, row in self._ran.items()}
        drawn: dict[str, Any] = {}
        if self._drawing.sampled:
            drawn = {"laws": self._vocabulary.target_laws(np.concatenate(laws)), "law_rows": law_rows[made]}
        return Draft(self._vocabulary.target_tokens(tokens[made]), number[shape[made]], replacement=False, **drawn)

    def _run(self, nodes: list[int], tokens: np.ndarray, parents: np.ndarray) -> Rows:
        """The draft model's rows of these nodes, pending below those of their parents."""
        above = [self._ran.get(int(parents[node]), -1) for node in nodes]
        first = self._session.pending
        rows = self._session.forward(tokens[nodes], parents=above, read=_LOGITS)
        self._ran |= {node: first + row for row, node in enumerate(nodes)}
        return rows


def _largest(keys: np.ndarray, count: int) -> np.ndarray:
    """The tokens of the `count` largest keys that are not -inf, best first, ties to the lowest."""
    count = min(count, int(np.count_nonzero(keys > -np.inf)))
    if count == 0:
        return np.empty(0, np.int64)
    some = np.flatnonzero(keys >= np.partition(keys, -count)[-count])
    return some[np.argsort(-keys[some], kind="stable")][:count]
