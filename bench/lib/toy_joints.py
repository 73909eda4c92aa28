"""Laws of a few tokens that are known to the last digit: what committing several at once costs, computed and not measured.

A masked model gives the law of each position after what is known.  A decoder that commits a set A of positions draws each from
its own law, so what ties them together is lost.  Against the joint law p, after a context C, that costs

    TC(x_A | C) = KL( p(x_A | C) || product over A of p(x_i | C) ) >= 0     (total correlation)

and nothing that has one law a position to go by can do better within one round.  Here the model is exact, so nothing else costs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations, product

import numpy as np

UNKNOWN = -1
Plan = Sequence[Sequence[int]]  # of each round, the positions that it commits
Rule = Callable[[int, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""step, conditionals (n, vocab), drawn tokens int (n,), masked bool (n,) -> which positions to commit, bool (n,)"""


@dataclass(frozen=True, eq=False)
class ToyJoint:
    """A law of n tokens.

    table  float64 (vocab,) * n: what each text weighs; whole numbers keep ties exact, a sum of one is not asked for
    """

    table: np.ndarray
    _conditionals: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return self.table.ndim

    @property
    def vocab(self) -> int:
        return self.table.shape[0]

    @property
    def probabilities(self) -> np.ndarray:
        """Of each text, (vocab,) * n."""
        return self.table / self.table.sum()

    def given(self, tokens: Sequence[int]) -> ToyJoint:
        """The law of those texts alone that have these tokens, int (n,), where they are not UNKNOWN."""
        index = tuple(slice(None) if token == UNKNOWN else token for token in tokens)
        table = np.zeros_like(self.table)
        table[index] = self.table[index]
        return ToyJoint(table)

    def conditionals(self, tokens: Sequence[int]) -> np.ndarray:
        """The law of every position after the tokens that are known, (n, vocab); after what cannot be, every token alike."""
        known = tuple(int(token) for token in tokens)
        if known not in self._conditionals:
            self._conditionals[known] = self._laws(known)
        return self._conditionals[known]

    def _laws(self, known: tuple[int, ...]) -> np.ndarray:
        masked = [position for position in range(self.n) if known[position] == UNKNOWN]
        table = self.table[tuple(slice(None) if token == UNKNOWN else token for token in known)]
        laws, total = np.eye(self.vocab)[list(known)], table.sum()
        for axis, position in enumerate(masked):
            others = tuple(other for other in range(len(masked)) if other != axis)
            laws[position] = table.sum(axis=others) / total if total else 1 / self.vocab
        return laws

    def marginals(self) -> np.ndarray:
        """The law of every position while nothing is known, (n, vocab)."""
        return self.conditionals([UNKNOWN] * self.n)

    def entropy(self, positions: Iterable[int]) -> float:
        """Of these positions together, nats."""
        others = tuple(set(range(self.n)) - set(positions))
        law = self.probabilities.sum(axis=others)
        return -float((law[law > 0] * np.log(law[law > 0])).sum())


# ---- laws that have closed forms ----


def fixed(text: Sequence[int], vocab: int) -> ToyJoint:
    """One text, as in copying, reversing and sorting: TC = 0."""
    table = np.zeros((vocab,) * len(text))
    table[tuple(text)] = 1
    return ToyJoint(table)


def independent(laws: np.ndarray) -> ToyJoint:
    """Positions that do not know of one another, (n, vocab): TC = 0."""
    table = np.ones(())
    for law in laws:
        table = np.multiply.outer(table, law)
    return ToyJoint(table)


def choose(n: int, vocab: int) -> ToyJoint:
    """Any token but 0, then the end, 0: chance in one position alone, TC = 0."""
    return independent(np.array([[0] + [1] * (vocab - 1)] + [[1] + [0] * (vocab - 1)] * (n - 1), float))


def shuffle(n: int) -> ToyJoint:
    """Any permutation of n tokens: all at once is one with probability n! / n^n; TC = n log n - log n!."""
    table = np.zeros((n,) * n)
    for order in permutations(range(n)):
        table[order] = 1
    return ToyJoint(table)


def replace_one(n: int) -> ToyJoint:
    """One slot of n changed (1), the others kept (0): all at once with probability (1 - 1/n)^(n - 1), which tends to 1/e."""
    table = np.zeros((2,) * n)
    for row in np.eye(n, dtype=int):
        table[tuple(row)] = 1
    return ToyJoint(table)


def all_same(n: int, vocab: int) -> ToyJoint:
    """One token n times, any: all at once with probability vocab^(1 - n); TC = (n - 1) log vocab, and one token tells the rest."""
    table = np.zeros((vocab,) * n)
    for token in range(vocab):
        table[(token,) * n] = 1
    return ToyJoint(table)


def any_joint(n: int, vocab: int, seed: int, zeros: float = 0.0) -> ToyJoint:
    """Random weights without ties, such a part of them zero."""
    random = np.random.default_rng(seed)
    table = random.exponential(size=(vocab,) * n) ** 2 * (random.random((vocab,) * n) >= zeros)
    if not table.any():
        table.flat[0] = 1
    return ToyJoint(table)


# ---- what a plan loses ----


def total_correlation(joint: ToyJoint, positions: Iterable[int] | None = None) -> float:
    """What positions (None: all) lose when each is drawn from its own law, nats; after a context: of `joint.given(...)`."""
    chosen = list(range(joint.n) if positions is None else positions)
    return sum(joint.entropy([position]) for position in chosen) - joint.entropy(chosen)


def plan_loss(joint: ToyJoint, plan: Plan) -> float:
    """KL(joint || what the plan draws), nats: the expected total correlation of every round, added up."""
    loss = 0.0
    known: list[int] = []
    for positions in plan:
        alone = sum(joint.entropy([*known, position]) - joint.entropy(known) for position in positions)
        loss += alone - (joint.entropy([*known, *positions]) - joint.entropy(known))
        known += positions
    return loss


def best_plans(joint: ToyJoint) -> list[tuple[float, list[list[int]]]]:
    """For 1, 2, ..., n rounds the least loss of a plan, nats, and such a plan: dynamic programming over sets, 3^n a round."""
    n = joint.n
    everything = (1 << n) - 1
    members = [[position for position in range(n) if some >> position & 1] for some in range(1 << n)]
    entropy = [joint.entropy(some) for some in members]

    def loss(known: int, added: int) -> float:
        alone = sum(entropy[known | 1 << position] - entropy[known] for position in members[added])
        return alone - (entropy[known | added] - entropy[known])

    # best[known]: loss and plan from there on, in so many rounds
    best = {known: (loss(known, everything ^ known), [members[everything ^ known]]) for known in range(everything)}
    found = [best[0]]
    while len(found) < n:
        longer = {}
        for known in best:
            firsts = [some for some in range(1, everything + 1) if not some & known and some | known in best]
            if firsts:
                total = {first: loss(known, first) + best[known | first][0] for first in firsts}
                first = min(firsts, key=total.__getitem__)
                longer[known] = (total[first], [members[first], *best[known | first][1]])
        best = longer
        found.append(best[0])
    return found


# ---- what a decoder draws ----


def law_of(joint: ToyJoint, rule: Rule, greedy: bool = False) -> np.ndarray:
    """The law of the texts that an unmasking decoder writes, (vocab,) * n: every draw of every step, enumerated.

    In each step every masked position draws a token from its own law (greedy: takes the likeliest), and the rule says which of
    them are committed; the others are drawn anew in the next step.  So a rule that looks at what was drawn shifts the law, also
    where TC = 0: positions that drew a likely token are committed sooner.
    """
    law = np.zeros_like(joint.table)
    states, step = {(UNKNOWN,) * joint.n: 1.0}, 0
    while states:
        after: dict[tuple[int, ...], float] = defaultdict(float)
        for tokens, probability in states.items():
            known = np.array(tokens)
            masked = known == UNKNOWN
            if not masked.any():
                law[tokens] += probability
                continue
            conditionals = joint.conditionals(tokens)
            for drawn, chance in _draws(conditionals, masked, greedy):
                chosen = rule(step, conditionals, drawn, masked)
                assert chosen.any() and not (chosen & ~masked).any(), "a rule commits masked positions, at least one"
                after[tuple(np.where(chosen, drawn, known).tolist())] += probability * chance
        states, step = after, step + 1
    return law


def _draws(conditionals: np.ndarray, masked: np.ndarray, greedy: bool) -> Iterator[tuple[np.ndarray, float]]:
    """All that masked positions may draw, and how likely that is; elsewhere what is known, its law being certain."""
    if greedy:
        yield conditionals.argmax(axis=1), 1.0
        return
    tokens = [
        np.flatnonzero(law) if hidden else [law.argmax()] for law, hidden in zip(conditionals, masked, strict=True)
    ]
    for drawn in product(*tokens):
        yield np.array(drawn), math.prod(law[token] for law, token in zip(conditionals, drawn, strict=True))


def planned(plan: Plan) -> Rule:
    """The rule that commits these positions in step 0, those in step 1, ..."""

    def rule(step: int, conditionals: np.ndarray, drawn: np.ndarray, masked: np.ndarray) -> np.ndarray:
        chosen = np.zeros(len(masked), bool)
        chosen[list(plan[step])] = True
        return chosen

    return rule


def plans(positions: Sequence[int], rounds: int) -> Iterator[list[list[int]]]:
    """Every way to commit these positions in so many rounds, one position a round at least."""
    if rounds == 1:
        yield [list(positions)]
        return
    for size in range(1, len(positions) - rounds + 2):
        for first in combinations(positions, size):
            rest = [position for position in positions if position not in first]
            for others in plans(rest, rounds - 1):
                yield [list(first), *others]


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) of two tables, nats."""
    some = p > 0
    with np.errstate(divide="ignore"):
        return float((p[some] * (np.log(p[some]) - np.log(q[some]))).sum())


def valid_share(joint: ToyJoint, law: np.ndarray) -> float:
    """How likely a text of this law is one that the joint can give."""
    return float(law[joint.table > 0].sum())
