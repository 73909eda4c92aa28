"""What is done about tokens that end the text, which many models propose too early."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdistill.arguments import check_number
from fastdistill.decode.unmask.rules import Step, log_of


@dataclass(frozen=True)
class EndOfText:
    """What is done about tokens that end the text, which many models propose too early; by default nothing.

    Parameters
    ----------
    discount : float, default 1.0
        their confidence is multiplied by this at first, growing evenly to 1 as positions are filled (EOSER)
    banned_until : float, default 0.0
        they cannot be drawn until this part of the answer is filled (CD4LM)
    truncate_at : float, optional
        the first one proposed with at least this probability ends the answer at once: what is behind it is cut off, and
        no longer seen by the rest, so the text may change (Learn2PD's end-of-text prediction); None: never

    Raises
    ------
    ArgumentError
    """

    discount: float = 1.0
    banned_until: float = 0.0
    truncate_at: float | None = None

    def __post_init__(self) -> None:
        check_number("discount", self.discount, 0, 1)
        check_number("banned_until", self.banned_until, 0, 1)
        if self.truncate_at is not None:
            check_number("truncate_at", self.truncate_at, 0, 1)

    def discounts(self, step: Step, ends: list[int], filled: int, places: int) -> np.ndarray | None:
        """What is added to the log probability of each prediction where so many places are filled, float32 (n,); None: nothing."""
        if self.discount == 1:
            return None
        share = self.discount + (1 - self.discount) * filled / places
        return np.where(np.isin(step.tokens, ends), np.log(max(share, 1e-38)), 0).astype(np.float32)

    def proposed(self, step: Step, ends: list[int]) -> Step:
        """The predictions that end the answer at once."""
        assert self.truncate_at is not None
        return step.part(np.isin(step.tokens, ends) & (step.confidence >= log_of(self.truncate_at)))
