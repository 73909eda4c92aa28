"""What `python -m bench parallelbench` measures, and the tables of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.lib.list_tasks import DETERMINISTIC, POSITIONS, TASKS
from bench.lib.report import Report
from fastdistill.decode import Decoder


@dataclass(frozen=True)
class Setting:
    """A decoder that is measured.

    family  "schedule" commits by the clock, "adaptive" by what the model says; others are shown, not judged
    like    the setting whose answers it should give; "": none
    """

    family: str
    name: str
    decoder: Decoder
    like: str = ""


@dataclass(frozen=True)
class Measured:
    """What a setting made of the prompts.

    right    of each task, the share that is right
    answers  tokens, prompt by prompt
    """

    setting: Setting
    right: dict[str, float]
    answers: list[list[int]]
    forwards: float  # a prompt
    tokens_per_forward: float
    milliseconds: float  # a prompt

    @property
    def accuracy(self) -> float:
        """Every task counts alike."""
        return float(np.mean(list(self.right.values())))

    @property
    def one_answer(self) -> float:
        """The tasks whose answer follows from the prompt."""
        return float(np.mean([self.right[task] for task in DETERMINISTIC]))

    @property
    def is_another(self) -> bool:
        """Whether its answers should be another setting's."""
        return self.setting.like not in ("", self.setting.name)


def equal_tokens(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """The share of the tokens that are equal; of answers that are not equally long, the rest is not."""
    equal = sum(a == b for mine, its in zip(one, other, strict=True) for a, b in zip(mine, its, strict=False))
    return equal / sum(max(len(mine), len(its)) for mine, its in zip(one, other, strict=True))


def percent(share: float) -> str:
    return f"{share:.1%}"


def tables(report: Report, found: Mapping[str, Measured], every_task: bool) -> None:
    for name, one in found.items():
        shares = one.right if every_task else {"one answer": one.one_answer, **one.right}
        columns = TASKS if every_task else ("one answer", "shuffle", "choose")
        cells = {task: percent(shares[task]) for task in columns}
        speed = {"forwards": one.forwards, "tokens a forward": one.tokens_per_forward, "ms a prompt": one.milliseconds}
        report.row(rule=name, **cells, **speed)
    report.note(
        f'"one answer": {", ".join(DETERMINISTIC)}; forwards are those of one prompt of {POSITIONS} positions\n'
    )
    report.table("Answers that should be another's")
    for name, one in found.items():
        if one.is_another:
            like = found[one.setting.like]
            equal = percent(equal_tokens(one.answers, like.answers))
            report.row(
                rule=name,
                **{"should be": like.setting.name, "equal tokens": equal},
                forwards=one.forwards,
                its=like.forwards,
            )
