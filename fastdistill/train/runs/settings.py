"""All that decides a run, beside the files that it reads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastdistill.arguments import check_choice, check_flag, check_integer, check_mapping, check_number, check_text
from fastdistill.errors import ArgumentError
from fastdistill.messages import listed

SCHEDULES = "cosine", "linear", "constant"
_MOST = 2**31 - 1
_RATE, _LORA_RATE = 5e-5, 2e-4


@dataclass(frozen=True)
class Settings:
    """What a run is told; what is None takes the default that is said here.

    Parameters
    ----------
    model : str
        a folder, or the name of a model
    data : str
        a file or a folder of .jsonl and .txt files
    evaluation : str, optional
        the same, held out
    objective : str, default "cross_entropy"
        or a divergence from a teacher, "forward_kl", ...
    teacher : str, optional
        a model, or a file of a teacher's answers to the data
    temperature : float, default 1.0
        that a divergence divides logits by
    objective_options : dict, optional
        what else the divergence is told, by name: beta, label_scale, ...: see `train.objective`
    on_policy : float, default 0.0
        how probable it is that the student writes what is behind an example's prompt itself, which the teacher then judges
    steps : int, optional
        of the run
    epochs : int, optional
        None: one, where neither steps nor minutes are given
    minutes : float, optional
        of work
    rows : int, default 512
        most tokens of a batch
    accumulate : int, default 1
        batches a step
    max_length : int, optional
        most tokens of a sequence; longer ones are cut in pieces; None: rows, or as many as the model takes
    train_on : str, default "completions"
        "completions" or "all": what is learnt of prompts and conversations
    learning_rate : float, optional
        None: 5e-5, with LoRA 2e-4
    schedule : str, optional
        of SCHEDULES: how the rate falls after the warm-up; None: "cosine", or "constant" where minutes alone end the run
    warmup : int, optional
        steps in which it rises; None: a thirtieth of the steps
    weight_decay : float, default 0.01
        decoupled, of matrices
    clip : float, default 1.0
        most of the gradient's norm; 0: any
    average : float, default 0.0
        of the weights over the steps, what each step keeps of it, such as 0.999: what is written at the end; 0: the weights themselves
    train : tuple[str, ...], optional
        patterns of the weights that are trained; None: all
    freeze : tuple[str, ...], optional
        patterns of weights that are not, of those
    lora : int, optional
        rank of what is trained beside frozen weights; None: weights themselves are trained
    alpha : float, optional
        of LoRA, whose pairs count alpha / rank times; None: twice the rank
    targets : tuple[str, ...], optional
        patterns of the matrices that LoRA is beside; None: all of layers
    seed : int, default 0
        of all chances
    format : str, optional
        of weights that are not trained; None: as they are stored
    threads : int, optional
        which change no bit; None: as many as this process may use
    checkpoint : bool, default False
        keep what enters each layer alone, and compute the rest again: less memory, more time
    evaluate_every : int, optional
        steps; None: a tenth of them, or 100
    save_every : int, optional
        steps; None: only by minutes
    save_minutes : float, default 10.0
        and where the newest checkpoint is so old

    Raises
    ------
    ArgumentError
    """

    model: str
    data: str
    evaluation: str | None = None
    objective: str = "cross_entropy"
    teacher: str | None = None
    temperature: float = 1.0
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    on_policy: float = 0.0
    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    rows: int = 512
    accumulate: int = 1
    max_length: int | None = None
    train_on: str = "completions"
    learning_rate: float | None = None
    schedule: str | None = None
    warmup: int | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.0
    train: tuple[str, ...] | None = None
    freeze: tuple[str, ...] | None = None
    lora: int | None = None
    alpha: float | None = None
    targets: tuple[str, ...] | None = None
    seed: int = 0
    format: str | None = None
    threads: int | None = None
    checkpoint: bool = False
    evaluate_every: int | None = None
    save_every: int | None = None
    save_minutes: float = 10.0

    def __post_init__(self) -> None:
        for name in ("model", "data", "evaluation", "teacher"):
            if getattr(self, name) is not None or name in ("model", "data"):
                check_text(name, getattr(self, name))
        bounds: dict[str, tuple[float, float]] = {
            "steps": (1, _MOST), "epochs": (1, _MOST), "rows": (2, 1 << 16), "accumulate": (1, 1 << 20), "max_length": (2, 1 << 16),
            "warmup": (0, _MOST), "lora": (1, 1 << 16), "seed": (0, 2**64 - 1), "evaluate_every": (1, _MOST), "save_every": (1, _MOST),
            "minutes": (0.0, 1e9), "learning_rate": (0.0, 1e9), "weight_decay": (0.0, 1e9), "clip": (0.0, 1e30), "average": (0.0, 1.0),
            "alpha": (1e-9, 1e9), "temperature": (1e-6, 1e6), "on_policy": (0.0, 1.0), "save_minutes": (0.0, 1e9),
        }  # fmt: skip
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if value is not None:
                whole = isinstance(least, int)
                checked = (
                    check_integer(name, value, int(least), int(most))
                    if whole
                    else check_number(name, value, least, most)
                )
                object.__setattr__(self, name, checked)
        check_flag("checkpoint", self.checkpoint)
        check_mapping("objective_options", self.objective_options, "names to numbers")
        if "temperature" in self.objective_options:
            raise ArgumentError("objective_options must not have temperature, which is a setting of its own")
        given = [name for name in ("alpha", "targets") if getattr(self, name) is not None]
        if given and self.lora is None:
            raise ArgumentError(f"{' and '.join(given)} go with lora, got no rank")
        if self.lora is not None and (self.train is not None or self.freeze is not None):
            raise ArgumentError(
                "train and freeze are of a run without lora, where targets say what is trained; got both"
            )
        for name in ("train", "freeze", "targets"):
            patterns = getattr(self, name)
            if patterns is not None:
                every = (patterns,) if isinstance(patterns, str) else patterns
                object.__setattr__(self, name, tuple(check_text(f"each of {name}", each) for each in every))
        if self.on_policy and self.teacher is None:
            raise ArgumentError("on_policy needs a teacher, who judges what the student writes; got none")
        if self.steps is None and self.epochs is None and self.minutes is None:
            object.__setattr__(self, "epochs", 1)
        if self.steps is not None and self.epochs is not None:
            raise ArgumentError(
                f"steps or epochs must say how long the run is, got both, {self.steps} and {self.epochs}"
            )
        known = self.steps is not None or self.epochs is not None
        if self.schedule is None:
            object.__setattr__(self, "schedule", "cosine" if known else "constant")
        if check_choice("schedule", self.schedule, SCHEDULES) != "constant" and not known:
            raise ArgumentError(
                f"schedule {self.schedule} needs steps or epochs, got minutes alone: no clock decides what is learnt"
            )
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", _RATE if self.lora is None else _LORA_RATE)

    def to_json(self) -> dict[str, Any]:
        """What config.json stores of it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Settings:
        """What `to_json` gave.

        Raises
        ------
        ArgumentError
        """
        unknown = stored.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ArgumentError(f"settings of a run that this version does not know: {listed(sorted(unknown))}")
        return cls(**stored)

    def warmup_of(self, steps: int | None) -> int:
        """Steps of the warm-up of a run of so many."""
        if self.warmup is not None:
            return self.warmup
        return math.ceil(steps / 30) if steps is not None else 10
