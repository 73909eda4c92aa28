"""Which path of a drafted tree the target accepts: trees of every rule, and bounds on what roundings may decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels import Verified
from fastdistill.kernels.verify.verify_tree import RULES
from fastdistill.reference.verify.verify_tree import WALKS, Law, Tree, threshold
from fastdistill.reference.verify.verify_tree import verify_tree as reference_verify_tree
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import holds, same

WIDTHS = [1, 2, 3, 17, 255, 256, 257, 700]  # lanes, chunks
ONE = float(np.nextafter(1, 0))


def cases(
    draw: Choices,
    rules: Sequence[str] = tuple(RULES),
    leniences: Sequence[str | None] = (None, "linear", "square", "exponential"),
) -> Case:
    """One tree under a rule; under rejection chains with a lenience too."""
    rule = draw.choice(rules)
    lenience = draw.choice(leniences) if rule == "rejection" else None
    case = random_case(draw.generator(), rule, chain=None if lenience is None else True)
    if lenience is not None:
        case["lenience"] = lenience, draw.choice([1.0, 0.9, 0.3, 0.01])
    if rule == "typical":
        case |= {"epsilon": draw.choice([0.0, 0.09, 0.3, 1.0]), "delta": draw.choice([0.0, 0.3, 1.0])}
    return case


def check(case: Case, function: Callable[..., Any] = kernels.verify_tree) -> Any:
    """Exactly under "coupled"; else as the reference does where roundings do not decide."""
    found = function(**case)
    if case["rule"] == "coupled":
        want = reference_verify_tree(**case)
        for field in Verified._fields:
            same(field, getattr(found, field), getattr(want, field))
    elif case["rule"] == "typical":
        _typical(case, found)
    else:
        followed(case, found)
    return found


def random_laws(random: np.random.Generator, rows: int, vocab: int, spread: float, zeros: float) -> np.ndarray:
    """float32 (rows, vocab), each of which sums to 1."""
    p = np.exp(random.standard_normal((rows, vocab)) * spread)
    p[random.random(p.shape) < zeros] = 0
    p[np.arange(rows), random.integers(0, vocab, rows)] += 1e-3
    p /= p.sum(axis=1, keepdims=True)
    p[p < 1e-12] = 0
    return p.astype(np.float32)


def random_case(
    random: np.random.Generator,
    rule: str,
    *,
    vocab: int | None = None,
    nodes: int | None = None,
    chain: bool | None = None,
) -> Case:
    """Arguments for one tree, its tokens drawn as they say."""
    vocab = int(random.choice(WIDTHS)) if vocab is None else vocab
    nodes = int(random.integers(1, 14)) if nodes is None else nodes
    back = 1 if (rule == "block" if chain is None else chain) else int(random.choice([1, 2, 4, 14]))
    parents = np.array([-1] + [random.integers(max(0, i - back), i) for i in range(1, nodes)], np.int32)
    tokens = random.integers(0, vocab, nodes).astype(np.int32)
    if rule == "coupled":
        few = min(vocab, 3)
        return {
            "parents": parents,
            "tokens": tokens % few,
            "target": random.integers(0, few, nodes).astype(np.int32),
            "rule": rule,
        }
    spread, zeros = random.choice([0.1, 1.0, 4.0]), random.choice([0.0, 0.5])
    target = random_laws(random, nodes, vocab, spread, zeros)
    uniforms = np.where(random.random(nodes) < 0.05, random.choice([0.0, ONE]), random.random(nodes))
    case = {"parents": parents, "tokens": tokens, "target": target, "rule": rule, "uniforms": uniforms}
    if rule == "typical":
        return case
    mix = random.choice([0.0, 0.3, 1.0])
    drafts = (mix * random_laws(random, nodes, vocab, spread, zeros) + (1 - mix) * target).astype(np.float32)
    draft_rows = np.where(random.random(nodes) < 0.8, parents, random.integers(-1, nodes, nodes)).astype(np.int32)
    replacement = bool(random.integers(2))
    for i in range(1, nodes):
        if draft_rows[i] < 0:
            continue
        q = drafts[draft_rows[i]].astype(np.float64)
        if not replacement:
            q[tokens[1:i][(parents[1:i] == parents[i]) & (draft_rows[1:i] == draft_rows[i])]] = 0
        if q.sum() == 0:
            draft_rows[i] = -1
        else:
            tokens[i] = random.choice(vocab, p=q / q.sum())
    return case | {"drafts": drafts, "draft_rows": draft_rows, "replacement": replacement}


class Near(float):
    """A number and how far off a computation of it may be."""

    low: float
    high: float

    def __new__(cls, value: float, low: float, high: float) -> Near:
        self = super().__new__(cls, value)
        self.low, self.high = low, high
        return self


class TooCloseToCall(Exception):
    """The bounds say nothing: a refusal that could only happen by rounding."""


class BoundedLaw(Law):
    """Law, with bounds on the kernel's p and weight: |p - p'| <= off.

    The kernel rounds three times to float32: the factor (2^-24 of it, or half the smallest float), R (2^-24 of it), and under
    lenience the scale or the power.  Doubles round by 2^-53 a step, sums of V terms by V 2^-53 at most: 2^-40 is more than all.
    """

    def __init__(self, tree, node, weight=1.0):
        super().__init__(tree, node, weight)
        self.weight = weight if isinstance(weight, Near) else Near(weight, weight, weight)
        self.off = np.zeros(len(self.p))

    def bounds(self, child):
        """w f(p) in units of the kernel, (value, low, high) each (vocab,)."""
        tree, p = self.tree, self.p
        f = tree.lenient(p)
        name, e = tree.lenience or ("", 1.0)
        relative, absolute = 2.0**-40, 0.0
        if name == "exponential" and e < 1:
            # log within 2 ulp, its product and the exponent rounded, exp within 2 ulp: 2^-22 and 2 * 2^-24 of |e log p|, 2^-22.
            relative += e * np.abs(np.log(np.where(p > 0, p, 1))) * (2.0**-22 + 2.0**-23) + 2.0**-22
        elif name:
            relative += 2.0**-24
        if tree.draft_rows is not None and tree.draft_rows[child] >= 0:
            relative += 2.0**-24
            absolute = 2.0**-149 / tree.drafts[tree.draft_rows[child]][tree.tokens[child]] * (p + self.off > 0)
        low, high = tree.lenient(np.maximum(p - self.off, 0)), tree.lenient(p + self.off)
        low, high = self.weight.low * low * (1 - relative), self.weight.high * high * (1 + relative)
        return self.weight * f, np.maximum(low - absolute, 0), high + absolute

    def chance(self, child):
        token, q = self.tree.tokens[child], self.tree.draft(child)[self.tree.tokens[child]]
        return Near(*(min(1.0, bound[token] / q) for bound in self.bounds(child)))

    def refuse(self, child):
        q = self.tree.draft(child)
        left, low, high = (np.maximum(bound - q, 0) for bound in self.bounds(child))
        low, high = low * (1 - 2.0**-24), high * (1 + 2.0**-24)
        mass, least, most = left.sum(), low.sum(), high.sum()
        if most == 0 and self.weight.high < 1:
            self.weight = Near(0.0, 0.0, 0.0)
            return
        if 2 * least < mass or mass == 0:
            raise TooCloseToCall
        self.p = left / mass
        self.off = np.maximum(high / least - self.p, self.p - low / most) + 2.0**-40 * self.p
        weight = self.weight
        self.weight = Near(
            mass / (mass + (1 - weight)), least / (least + (1 - weight.low)) * (1 - 2.0**-40),
            min(1.0, most / (most + (1 - weight.high)) * (1 + 2.0**-40)),
        )  # fmt: skip
        if weight.low == 1:
            self.weight = Near(1.0, 1.0, 1.0)


def followed(case: Case, found: Any) -> int:
    """How often a verdict, or the final token, is right between its bounds alone.

    The reference, led by the kernel's verdicts, finds each of them right, or its uniform between the bounds of its chance.
    """
    uniforms, verdicts, close = case["uniforms"], found.verdicts, 0
    names = ("parents", "tokens", "target", "drafts", "draft_rows", "replacement", "lenience")
    tree = Tree(**{name: case[name] for name in names if name in case})

    def decide(node, chance):
        nonlocal close
        answer = verdicts[node] == 1
        holds(verdicts[node] or chance.low == 0, f"node {node} has no verdict, the reference comes to it")
        if (uniforms[node] < chance) != answer:
            within = chance.low <= uniforms[node] <= chance.high
            holds(
                within,
                f"verdicts[{node}] is {verdicts[node]}, with u = {uniforms[node]} and a chance of {float(chance)}",
            )
            close += 1
        return answer

    try:
        last, law = WALKS[case["rule"]](tree, decide, BoundedLaw)
    except TooCloseToCall:
        return 1
    path = tree.path(last)
    tokens = [*tree.tokens[path[1:]], found.bonus[0]]
    padding = [-1] * (len(tree.parents) - len(path))
    same("accepted", found.accepted, [len(path) - 1])
    same("path", found.path, path + padding)
    same("tokens", found.tokens, tokens + padding)
    same("accepted nodes", np.flatnonzero(verdicts == 1), path)
    mass, bonus = law.p.cumsum() / law.p.sum(), found.bonus[0]
    off = law.off.sum() / law.p.sum() + 2.0**-40
    below = mass[bonus - 1] if bonus else 0.0
    drawn = (law.p[bonus] > 0 or law.off[bonus] > 0) and below - off <= uniforms[0] <= mass[bonus] + off
    holds(drawn, f"bonus is {bonus}, whose mass lies in {below}..{mass[bonus]}, and u is {uniforms[0]}")
    return close + (not below <= uniforms[0] < mass[bonus] and uniforms[0] != ONE)


def _typical(case: Case, found: Any) -> None:
    """By brute force over nodes, where no p is as close to its threshold, and no two sums of logs to one another, as roundings.

    Each p log p is right to 2^-22 + 2^-24 (log within 2 ulp, a product), so is the entropy H, which then rounds to float32; exp is
    right to 2^-22.  A log is right to 2^-22 of it.
    """
    epsilon, delta = case["epsilon"], case["delta"]
    tree = Tree(case["parents"], case["tokens"], case["target"])
    candidates = []
    for node in range(len(tree.parents)):
        path = tree.path(node)
        p = np.array([tree.target[above, tree.tokens[below]] for above, below in pairwise(path)], np.float64)
        limits = np.array([threshold(tree.target[above], epsilon, delta) for above in path[:-1]])
        doubt = limits * (2.0**-22 + np.log(tree.target.shape[1]) * (2.0**-22 + 2.0**-23))
        if (np.abs(p - limits) <= doubt)[p > 0].any():
            return
        if (p > limits).all():
            logs = np.log(p)
            candidates.append((len(p), logs.sum(), -node, p.tolist(), np.abs(logs).sum() * 2.0**-22))
    best = max(candidates)
    for other in candidates:
        if other[0] == best[0] and other[3] != best[3] and abs(other[1] - best[1]) <= other[4] + best[4]:
            return
    same("the last accepted node", found.path[found.accepted[0]], -best[2])
    want = reference_verify_tree(**case)
    for field in ("path", "accepted", "verdicts"):
        same(field, getattr(found, field), getattr(want, field))
    mass = tree.target[-best[2]].astype(np.float64).cumsum()
    close = abs(mass / mass[-1] - case["uniforms"][0]).min() < 2.0**-40
    holds(found.bonus[0] == want.bonus[0] or close, f"bonus is {found.bonus[0]}, the reference draws {want.bonus[0]}")
