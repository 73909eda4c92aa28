"""What decides how a draft comes of its target's own texts, whatever the draft is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fastdistill.arguments import check_choice, check_integer, check_number, check_path
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.models.plan import Plan


@dataclass(frozen=True, kw_only=True)
class DraftSettings:
    """What all drafts share.

    Parameters
    ----------
    model : str
        the target: a folder, or the name of a model that has been fetched
    minutes : float, default 30.0
        of work in all
    writing : float, default 0.5
        the share of them in which the target writes
    prompts : str, optional
        a .jsonl or .txt file or a folder, as `fastdistill train` reads them: their prompts come beside the package's own
    max_tokens : int, default 256
        of a text
    temperature : float, default 0.8
        of every third lot of texts; the others are greedy
    objective : str, default "forward_kl"
        a divergence of the draft's law from the target's
    learning_rate : float, default 1e-3
        the highest
    format : str, default "q4"
        that the draft is kept in: "q4", "q8", "f16" or "f32"
    seed : int, default 0
        of what is drawn
    threads : int, optional
        change no bit

    Raises
    ------
    ArgumentError
    """

    model: str
    minutes: float = 30.0
    writing: float = 0.5
    prompts: str | None = None
    max_tokens: int = 256
    temperature: float = 0.8
    objective: str = "forward_kl"
    learning_rate: float = 1e-3
    format: str = "q4"
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("model", "prompts"):
            if name == "model" or self.prompts is not None:
                check_path(name, getattr(self, name))
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
        check_number("minutes", self.minutes, 1e-3, 1e6)
        check_number("writing", self.writing, 0.01, 0.99)
        check_integer("max_tokens", self.max_tokens, 4, 1 << 20)
        check_number("temperature", self.temperature, 0, 1e3)
        check_choice("objective", self.objective, KINDS)
        check_number("learning_rate", self.learning_rate, 0, 10)
        check_choice("format", self.format, ("q4", "q8", "f16", "f32"))
        check_integer("seed", self.seed, 0, 2**63 - 1)

    def reads(self, plan: Plan) -> tuple[str, ...]:
        """Names of the target's hidden states that the draft learns from, beside what its head reads."""
        return ()
