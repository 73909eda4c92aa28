"""What is said of decoding in parallel, held against what `python -m bench parallelbench` measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.studies.parallelbench_tables import Measured, equal_tokens

ALWAYS = 0.99  # what counts as right at any parallelism, or as the same answers: one in a hundred may be the model's own mistake
BROKEN = 0.5  # of what one a step gets right
HALF = 0.5
SHORTEST = 2.0  # forwards: what commits all at once cannot be outrun


@dataclass(frozen=True)
class Verdict:
    claim: str
    holds: bool
    figures: str

    def __str__(self) -> str:
        return f"{'CONFIRMED' if self.holds else 'REFUTED':9}  {self.claim}: {self.figures}"


def verdicts(found: Mapping[str, Measured], checked: Mapping[str, Measured]) -> list[Verdict]:
    """Of what was measured, by name; `checked` are FreeDave's and those that it should equal, on more prompts."""
    schedules = [one for one in found.values() if one.setting.family == "schedule"]
    adaptive = [one for one in found.values() if one.setting.family == "adaptive"]
    single = max(schedules, key=lambda one: (one.forwards, one.accuracy))
    return [
        copies(schedules),
        shuffles(schedules, single),
        dominance(schedules, adaptive),
        same_answers(checked),
        half_the_forwards(adaptive, single),
        caches([one for one in found.values() if one.setting.family == "blocks"], found),
    ]


def copies(schedules: Iterable[Measured]) -> Verdict:
    worst = min(schedules, key=lambda one: (one.one_answer, one.forwards))
    figures = f"{worst.one_answer:.1%} at the least ({worst.setting.name}, {worst.forwards:.3g} forwards)"
    return Verdict("tasks with one answer are right at any parallelism", worst.one_answer >= ALWAYS, figures)


def shuffles(schedules: Iterable[Measured], single: Measured) -> Verdict:
    parallel = [one for one in schedules if one.forwards <= single.forwards / 2]
    best = max(parallel, key=lambda one: one.right["shuffle"])
    holds = best.right["shuffle"] <= BROKEN * single.right["shuffle"]
    figures = (
        f"{single.right['shuffle']:.1%} one a step, {best.right['shuffle']:.1%} at the most with half the forwards or fewer "
        f"({best.setting.name})"
    )
    return Verdict("a fixed schedule breaks shuffles", holds, figures)


def dominates(one: Measured, other: Measured) -> bool:
    """As good in accuracy and in speed, and better in one of them."""
    mine, its = ((some.accuracy, some.tokens_per_forward) for some in (one, other))
    return mine != its and all(a >= b for a, b in zip(mine, its, strict=True))


def dominance(schedules: Iterable[Measured], adaptive: Iterable[Measured]) -> Verdict:
    some, rules = [one for one in schedules if one.forwards >= SHORTEST], list(adaptive)
    left = [one.setting.name for one in some if not any(dominates(rule, one) for rule in rules)]
    figures = f"{len(some) - len(left)} of {len(some)} schedules of two forwards or more are beaten in accuracy and speed at once"
    return Verdict(
        "adaptive rules dominate fixed schedules", not left, figures + (f"; not {', '.join(left)}" if left else "")
    )


def same_answers(checked: Mapping[str, Measured]) -> Verdict:
    drafting = [one for one in checked.values() if one.setting.family == "FreeDave"]
    holds, parts = True, []
    for one in drafting:
        static = checked[one.setting.like]
        equal = sum(a == b for a, b in zip(one.answers, static.answers, strict=True))
        holds &= equal == len(static.answers) and one.forwards < static.forwards
        parts.append(
            f"{one.setting.name}: {equal} of {len(static.answers)}, {one.forwards:.3g} forwards for {static.forwards:.3g}"
        )
    return Verdict("FreeDave gives the static schedule's answers in fewer forwards", holds, "; ".join(parts))


def half_the_forwards(adaptive: Iterable[Measured], single: Measured) -> Verdict:
    claim = "a threshold needs half the forwards of one a step, or fewer, at equal accuracy"
    equal = [one for one in adaptive if one.setting.name.startswith("threshold") and one.accuracy >= single.accuracy]
    if not equal:
        return Verdict(claim, False, f"no threshold reaches {single.accuracy:.1%}")
    best = min(equal, key=lambda one: one.forwards)
    figures = f"{best.forwards:.3g} for {single.forwards:.3g} ({best.setting.name}, {best.accuracy:.1%} for {single.accuracy:.1%})"
    return Verdict(claim, best.forwards <= HALF * single.forwards, figures)


def caches(cached: Iterable[Measured], found: Mapping[str, Measured]) -> Verdict:
    some = [one for one in cached if one.is_another]
    equal = {one.setting.name: equal_tokens(one.answers, found[one.setting.like].answers) for one in some}
    figures = "; ".join(f"{name}: {share:.1%} of the tokens" for name, share in equal.items())
    return Verdict("caches leave the answers what they are", min(equal.values()) >= ALWAYS, figures)
