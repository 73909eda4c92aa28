"""Guess where guessing pays, on this machine and for this text; never the text of another decoder."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastdistill.decode.costs import Costs, check_costs
from fastdistill.decode.drafters.draft import Drafter
from fastdistill.decode.drafters.prompt_lookup import PromptLookup
from fastdistill.decode.pace import Pace
from fastdistill.decode.request import Request
from fastdistill.decode.speculative import Speculative, SpeculativeRun
from fastdistill.runtime.forward import SessionLike


@dataclass(frozen=True)
class Auto:
    """Speculative decoding that weighs each draft: the text of plain decoding, in about its time at worst.

    Parameters
    ----------
    costs : Costs, optional
        of forwards on this machine: `Model.costs`, or `measure_costs`. None: the model's, corrected by what rounds
        take; of a function, which nobody has timed, a row is taken to cost an eighth of a forward at first
    drafter : Drafter, optional
        its guesses are taken to cost nothing
    max_draft : int, default 31
        most guesses a round

    Raises
    ------
    ArgumentError

    Notes
    -----
    Each round takes the guesses (a chain, a part of a tree, or none) with the most expected tokens a second, from how
    often guesses of their kind were right before; and no more than it can lose without costing the text over 4 %.

    Examples
    --------
    >>> model, text = fd.load(folder), "to be or not to be, to be"
    >>> plain = model.generate(text, max_tokens=24)
    >>> model.generate(text, max_tokens=24, decoder=fd.Auto()).tokens == plain.tokens
    True
    """

    costs: Costs | None = None
    drafter: Drafter = field(default_factory=lambda: PromptLookup(min_match=1))
    max_draft: int = 31

    def __post_init__(self) -> None:
        check_costs(self.costs)
        Speculative(self.drafter, max_draft=self.max_draft)  # checks them

    @property
    def taps(self) -> tuple[str, ...]:
        """What the drafter reads."""
        return getattr(self.drafter, "taps", ())

    takes_constraint = True

    def start(self, session: SessionLike, request: Request) -> SpeculativeRun:
        priors = getattr(self.drafter, "priors", ())
        pace = Pace(self.costs or request.costs, priors, live=self.costs is None)
        return SpeculativeRun(Speculative(self.drafter, max_draft=self.max_draft), session, request, pace)
