"""What `kernels.verify_tree` means.

A rule walks a tree, asks `decide(node, chance)` whether a node is accepted, and ends with the last accepted node and
the law of the token after it. With given uniforms the answer is u < chance; with both answers in turn the same code
enumerates what can happen.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastdistill.errors import ArgumentError


def checked(name, law):
    """The law as float64.  It sums to 1, but for the roundings of 16-bit floats and of a float32 sum."""
    law = law.astype(np.float64)
    if not abs(law.sum() - 1) <= 2**-8 + len(law) * 2**-24:
        raise ArgumentError(f"{name} must sum to 1, got {law.sum():.6g}")
    return law


class Tree(NamedTuple):
    """One tree.  Its rows may be of any float type; they are used as float64."""

    parents: np.ndarray  # (nodes,)
    tokens: np.ndarray  # (nodes,)
    target: np.ndarray  # (nodes, vocab), or for the rule "coupled" (nodes,)
    drafts: np.ndarray | None = None  # (rows, vocab)
    draft_rows: np.ndarray | None = None  # (nodes,)
    replacement: bool = True
    lenience: tuple[str, float] | None = None

    def children(self, node):
        return np.flatnonzero(self.parents[1:] == node) + 1

    def path(self, node):
        """Nodes from the root to this one."""
        return [*self.path(self.parents[node]), node] if node > 0 else [0]

    def draft(self, node):
        """The law that this node's token was drawn from; all on that token, if it was chosen."""
        row = -1 if self.draft_rows is None else self.draft_rows[node]
        if row < 0:
            return np.eye(self.target.shape[1])[self.tokens[node]]
        q = checked(f"drafts[{row}]", self.drafts[row])
        drawn_before = [
            sibling
            for sibling in self.children(self.parents[node])
            if sibling < node and self.draft_rows[sibling] == row and not self.replacement
        ]
        if drawn_before:
            q[self.tokens[drawn_before]] = 0
            q /= q.sum()
        return q

    def lenient(self, p):
        """f(p): not a law any more."""
        name, e = self.lenience or ("linear", 1.0)
        return p**e if name == "exponential" else p / e ** {"linear": 1, "square": 2}[name]


class Law:
    """The law p of the token after a node, as far as children have not been refused, and the weight of the path to the node."""

    def __init__(self, tree, node, weight=1.0):
        self.tree, self.node, self.p, self.weight = tree, node, tree.target[node].astype(np.float64), weight

    def chance(self, child):
        """With which probability this child's token is kept."""
        token = self.tree.tokens[child]
        checked(f"target[{self.node}]", self.tree.target[self.node])
        return min(1.0, self.weight * self.tree.lenient(self.p)[token] / self.tree.draft(child)[token])

    def refuse(self, child):
        """What is left when the child, drawn from q, has been refused: p becomes max(w p - q, 0) over its mass S."""
        left = np.maximum(self.weight * self.tree.lenient(self.p) - self.tree.draft(child), 0)
        mass = left.sum()
        if mass > 0:
            self.p, self.weight = left / mass, mass / (mass + (1 - self.weight))
        elif self.weight < 1:
            self.weight = 0.0  # nothing below this node can be accepted any more
        # else p = q, and the refusal came of a rounding: p stays


def top_down(tree, decide, law_after=Law):
    """From the root down, child by child, until all children of a node are refused: the last node, the law after it."""
    at, law = 0, law_after(tree, 0)
    for node in range(1, len(tree.parents)):
        if tree.parents[node] != at:
            continue
        if decide(node, law.chance(node)):
            at, law = node, law_after(tree, node)
        else:
            law.refuse(node)
    return at, law


def bottom_up(tree, decide, law_after=Law):
    """The deepest first: a node is accepted with the whole path to it, after its children have been refused."""

    def below(node, law):
        for child in tree.children(node):
            if law.weight == 0:
                break
            after = law_after(tree, child, law.chance(child))
            found = below(child, after)
            if found:
                return found
            if decide(child, after.weight):
                return child, after
            law.refuse(child)
        return None

    law = law_after(tree, 0)
    return below(0, law) or (0, law)


WALKS = {"rejection": top_down, "block": bottom_up, "traversal": bottom_up}


def follow(tree):
    """Along the target's own draws: the last node, and which children were looked at."""
    at, seen = 0, []
    for node in range(1, len(tree.parents)):
        if tree.parents[node] == at:
            seen.append(node)
            if tree.tokens[node] == tree.target[at]:
                at = node
    return at, seen


def threshold(p, epsilon, delta):
    """What a token's probability must exceed to be typical; entropy in nats."""
    some = p[p > 0].astype(np.float64)
    return min(epsilon, delta * np.exp((some * np.log(some)).sum()))


def longest(tree, epsilon, delta):
    """The last node of the longest path of typical tokens, and which nodes were looked at: ties to the likeliest, to the lowest."""
    reached, seen, best = {0: (0, 0.0)}, [], 0  # of typical paths: length, sum of log p
    for node in range(1, len(tree.parents)):
        parent = tree.parents[node]
        if parent not in reached:
            continue
        seen.append(node)
        p = checked(f"target[{parent}]", tree.target[parent])
        if p[tree.tokens[node]] > threshold(p, epsilon, delta):
            length, logs = reached[parent]
            reached[node] = length + 1, logs + np.log(np.float64(p[tree.tokens[node]]))
            if reached[node] > reached[best]:
                best = node
    return best, seen


def draw(law, u):
    """The first token at which the cumulated law exceeds u of the whole."""
    mass = law.cumsum()
    return min(int(np.searchsorted(mass, u * mass[-1], side="right")), int(np.flatnonzero(law)[-1]))


class Decided(NamedTuple):
    """What was decided, and what the uniforms were held against."""

    path: np.ndarray  # (nodes,)
    tokens: np.ndarray  # (nodes,)
    accepted: np.ndarray  # (trees,)
    bonus: np.ndarray  # (trees,)
    verdicts: np.ndarray  # (nodes,)
    chances: np.ndarray  # (nodes,) of acceptance; NaN where no uniform was asked
    laws: list[np.ndarray]  # of each tree's final token (vocab,); none under "coupled"


def verify_tree(
    parents, tokens, target, *, rule="coupled", offsets=None, drafts=None, draft_rows=None, replacement=True, uniforms=None,
    lenience=None, epsilon=0.09, delta=0.3,
):  # fmt: skip
    """Which path of each tree the target accepts, and the token after it.  Rows of `target` are laws; see the wrapper."""
    nodes = len(parents)
    offsets = [0, nodes] if offsets is None else offsets
    trees = len(offsets) - 1
    decided = Decided(
        np.full(nodes, -1), np.full(nodes, -1), np.empty(trees, int), np.empty(trees, int), np.zeros(nodes, int),
        np.full(nodes, np.nan), [],
    )  # fmt: skip
    for index, (first, end) in enumerate(pairwise(offsets)):
        here = slice(first, end)
        rows = None if draft_rows is None else draft_rows[here]
        tree = Tree(parents[here], tokens[here], target[here], drafts, rows, replacement, lenience)
        verdicts, chances = decided.verdicts[here], decided.chances[here]

        def decide(node, chance, verdicts=verdicts, chances=chances, first=first):
            verdicts[node], chances[node] = -1, chance
            return uniforms[first + node] < chance

        if rule == "coupled":
            last, seen = follow(tree)
            verdicts[seen], bonus = -1, tree.target[last]
        else:
            if rule == "typical":
                last, seen = longest(tree, epsilon, delta)
                verdicts[seen], law = -1, tree.target[last].astype(np.float64)
            else:
                last, after = WALKS[rule](tree, decide)
                law = after.p
            checked(f"target[{last}]", tree.target[last])
            bonus = draw(law, uniforms[first])
            decided.laws.append(law)
        path = tree.path(last)
        verdicts[path] = 1
        decided.path[first : first + len(path)] = path
        decided.tokens[first : first + len(path)] = [*tree.tokens[path[1:]], bonus]
        decided.accepted[index], decided.bonus[index] = len(path) - 1, bonus
    return decided
