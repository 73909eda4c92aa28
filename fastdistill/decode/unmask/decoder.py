"""Unmasking: a masked diffusion model fills an answer that is all masks at first, or masks within a text, several positions a forward.

Each forward predicts every masked position of the current block; a rule (`rules`) says which predictions stand
(`filling`). What is seen, and what is kept between forwards, is the view's business (`views`); `run` puts them
together. Sources: LLaDA (Nie et al. 2025), Dream (Ye et al. 2025): the loop, blocks from left to right; Fast-dLLM (Wu
et al. 2025): caches; BARD, SDAR: block-causal attention; FreeDave (Wu & Zhang 2025): drafts.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

from fastdistill.arguments import check_choice, check_flag, check_integer, check_number
from fastdistill.decode.request import Request
from fastdistill.decode.unmask.end_of_text import EndOfText
from fastdistill.decode.unmask.remasking import Remask, RunningConfidence, check_remask
from fastdistill.decode.unmask.rules import Rule, Schedule, Threshold
from fastdistill.decode.unmask.run import UnmaskRun
from fastdistill.errors import ArgumentError
from fastdistill.messages import short
from fastdistill.runtime.forward import SessionLike

CACHES, ATTENTIONS = ("none", "prefix", "dual"), ("full", "block_causal")
MOST_DRAFTS = 64


@runtime_checkable
class FillsMasks(Protocol):
    """A decoder for masked diffusion models: beside `start`, it says how many rows a forward over a text of so many tokens has."""

    fills_masks: bool

    def rows(self, length: int) -> int: ...


@dataclass(frozen=True)
class Unmask:
    """Decoding for masked diffusion models: masks are filled (unmasked) by a rule until none is left.

    They are max_tokens masks behind the prompt of `Model.generate`, and those within the text of `Model.fill`.

    Parameters
    ----------
    rule : Rule, optional
        which positions to fill after a forward, of `fastdistill.unmask`: Threshold, Schedule, Factor, EntropyThreshold,
        EntropyBudget, Adaptive, Learned, Explore
    block_length : int, optional
        positions that are filled before the ones behind them; None: the model's own, where it is one of blocks, else the
        whole answer at once
    max_steps : int, optional
        most forwards; the last one fills whatever is left. None: as many as the rule takes, at most one a position (and
        those of `remask`)
    cache : str, default "none"
        "none": every forward runs the whole text; "prefix": within a block, what is before it is not run again; "dual":
        nor is what is behind it. Both see keys and values from the block's first forward: faster, not exact
    refresh_every : int, optional
        forwards after which a cache is made anew within a block; 1 is exact; None: once a block
    attention : str, optional
        "full", or "block_causal" for models trained so: a block sees what is before it and itself; its cache is exact, and
        needs no `cache`. Of a model of blocks they are counted from position 0, and the prompt is read in blocks; else
        from the answer's beginning, and the prompt is read as a chain. None: as the model was trained
    temperature : float, optional
        of the draw; None: the request's. Confidence is always the model's own, of the token drawn
    remask : Remask, optional
        unmask.RunningConfidence, Remdm or Revise: fill positions more than once
    drafts : int, default 0
        check so many steps of the schedule ahead in each forward: fewer forwards, the very same answer (FreeDave); rows
        grow as many times
    end : EndOfText, optional
        see unmask.EndOfText
    early_exit : bool, default True
        stop as soon as the text has ended; False: fill the whole answer
    trace : bool, default False
        keep a record of who was filled when: `Generation.trace`
    mask_token, logit_shift : int, optional
        None: the session's

    Raises
    ------
    ArgumentError

    Notes
    -----
    A position that is filled stays as it is, except with `remask`. Text becomes certain from its beginning on.

    Examples
    --------
    >>> model = fd.load("listops-mdlm")  # comes with the package
    >>> prompt = "<|bos|> sort : dog ant cow bat _ _ _ _ | _ _ ->"
    >>> answer = model.generate(prompt, decoder=fd.Unmask(fd.unmask.Threshold(0.9)))
    >>> answer.text, answer.stats.forwards
    ('ant bat cow dog', 1)
    """

    rule: Rule = field(default_factory=Threshold)
    _: KW_ONLY
    block_length: int | None = None
    max_steps: int | None = None
    cache: str = "none"
    refresh_every: int | None = None
    attention: str | None = None
    temperature: float | None = None
    remask: Remask | None = None
    drafts: int = 0
    end: EndOfText = field(default_factory=EndOfText)
    early_exit: bool = True
    trace: bool = False
    mask_token: int | None = None
    logit_shift: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise ArgumentError(
                f"rule must be one of those for unmasking, such as unmask.Threshold(), got {short(self.rule)}"
            )
        for name, least in (("block_length", 1), ("max_steps", 1), ("refresh_every", 1), ("mask_token", 0)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), least, 1 << 30)
        check_choice("cache", self.cache, CACHES)
        if self.attention is not None:
            check_choice("attention", self.attention, ATTENTIONS)
        for name in ("early_exit", "trace"):
            check_flag(name, getattr(self, name))
        if self.temperature is not None:
            check_number("temperature", self.temperature, 0, 1e6)
        if self.logit_shift is not None:
            check_integer("logit_shift", self.logit_shift, 0, 1)
        check_integer("drafts", self.drafts, 0, MOST_DRAFTS)
        check_remask(self.remask)
        if not isinstance(self.end, EndOfText):
            raise ArgumentError(f"end must be an unmask.EndOfText, got {type(self.end).__name__}")
        self._check_together()

    def _check_together(self) -> None:
        """Refuse settings that contradict one another."""
        scheduled = type(self.rule) is Schedule
        if self.attention == "block_causal" and (self.cache != "none" or self.rule.lookahead):
            raise ArgumentError(
                "block-causal attention has an exact cache of its own and sees nothing ahead: no cache, no lookahead"
            )
        if self.cache == "none" and self.refresh_every is not None:
            raise ArgumentError("refresh_every needs a cache to be made anew: cache='prefix' or 'dual'")
        if isinstance(self.remask, RunningConfidence) and not scheduled:
            raise ArgumentError(
                "RunningConfidence masks again what later steps of a schedule fill: rule must be an unmask.Schedule"
            )
        if self.end.discount != 1 and self.rule.selection.score != "confidence":
            raise ArgumentError(f"discount is of confidence, but the rule goes by {self.rule.selection.score}")
        if self.drafts and not (
            scheduled
            and self.remask is None
            and self.max_steps is None
            and self.refresh_every is None
            and self.end == EndOfText()
        ):
            raise ArgumentError(
                "drafts are steps of a fixed schedule: they need rule=unmask.Schedule(...), and no remask, max_steps, refresh_every or end"
            )

    fills_masks: ClassVar[bool] = True

    def rows(self, length: int) -> int:
        """Rows of a forward over a text of so many tokens, prompt and answer."""
        return length * max(self.drafts, 1)

    def start(self, session: SessionLike, request: Request) -> UnmaskRun:
        if request.sampler.no_repeat_ngram_size:
            raise ArgumentError(
                "no_repeat_ngram_size is of texts written from left to right: an Unmask fills masks in any order"
            )
        return UnmaskRun(self._for(session), session, request)

    def _for(self, session: SessionLike) -> Unmask:
        """These settings with what a session's model says of attention and blocks, where they do not."""
        attention = self.attention or ("block_causal" if session.block else "full")
        own = session.block if attention == "block_causal" else 0
        return replace(self, attention=attention, block_length=self.block_length or own or None)
