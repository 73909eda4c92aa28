"""What decides a shallow student."""

from __future__ import annotations

from dataclasses import dataclass

from fastdistill.arguments import check_flag, check_integer, check_number
from fastdistill.train.own_texts.settings import DraftSettings


@dataclass(frozen=True, kw_only=True)
class StudentSettings(DraftSettings):
    """What decides a student.

    Parameters
    ----------
    model : str
        the target: a folder, or the name of a model that has been fetched
    layers : int, default 4
        of the target that the student has, from the first on
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
        a divergence of the student's law from the target's
    on_policy : float, default 0.0
        how probable it is that the student writes what is behind a prompt itself, which the target then judges
        (Zhou et al. 2024, DistillSpec)
    selection : float, optional
        above 0: the fraction of the tokens that are learnt: those where the student is furthest behind a reference, which is
        trained first in half of the time (Hu et al. 2025, AdaSPEC); None: all, without a reference
    whole : bool, default True
        the table of tokens and the head learn too, and not the layers and the last norm alone
    optimiser_steps : int, optional
        the reference's as many again; None: as the minutes allow
    learning_rate : float, default 1e-3
        the highest
    rows : int, default 512
        most tokens of a batch, prompts included
    format : str, default "q8"
        that the student is kept in: "q4", "q8", "f16" or "f32"
    seed : int, default 0
        of what is drawn: the order of prompts, texts that are not greedy, the order of batches
    threads : int, optional
        change no bit

    Raises
    ------
    ArgumentError
    """

    layers: int = 4
    on_policy: float = 0.0
    selection: float | None = None
    whole: bool = True
    optimiser_steps: int | None = None
    rows: int = 512
    format: str = "q8"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("layers", self.layers, 1, 1 << 10)
        check_number("on_policy", self.on_policy, 0, 1)
        if self.selection is not None:
            check_number("selection", self.selection, 1e-6, 1)
        check_flag("whole", self.whole)
        if self.optimiser_steps is not None:
            check_integer("optimiser_steps", self.optimiser_steps, 1, 1 << 31)
        check_integer("rows", self.rows, 2, 1 << 16)
