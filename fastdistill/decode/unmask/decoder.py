"""Unmasking: a masked diffusion model fills an answer that is all masks at first, several positions a forward.

Each forward predicts every masked position of the current block; a rule (`rules`) says which predictions stand.  What is seen, and
what is kept between forwards, is the view's business (`views`).
Sources: LLaDA (Nie et al. 2025), Dream (Ye et al. 2025): the loop, blocks from left to right; Fast-dLLM (Wu et al. 2025): caches;
BARD, SDAR: block-causal attention; FreeDave (Wu & Zhang 2025): drafts.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import pairwise
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from fastdistill.arguments import check_choice, check_flag, check_integer, check_number
from fastdistill.decode.chance import ORDER, uniforms
from fastdistill.decode.request import Request, Run
from fastdistill.decode.unmask.remasking import Block, Remask, Revise, RunningConfidence, check_remask
from fastdistill.decode.unmask.rules import Rule, Schedule, Step, Threshold
from fastdistill.decode.unmask.trace import Trace, TraceStep
from fastdistill.decode.unmask.views import View, block_view, full_view
from fastdistill.errors import ArgumentError, CapacityError, UnsupportedError
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.kernels.unmask.draft_and_verify import draft_and_verify
from fastdistill.kernels.unmask.unmask_select import unmask_select
from fastdistill.messages import short
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Read, Rows

CACHES, ATTENTIONS = ("none", "prefix", "dual"), ("full", "block_causal")
MOST_DRAFTS = 64


@dataclass(frozen=True)
class EndOfText:
    """What is done about tokens that end the text, which many models propose too early; by default nothing.

    discount      their confidence is multiplied by this at first, growing evenly to 1 as positions are filled (EOSER)
    banned_until  they cannot be drawn until this part of the answer is filled (CD4LM)
    truncate_at   the first one proposed with at least this probability ends the answer at once: what is behind it is cut off, and
                  no longer seen by the rest, so the text may change (Learn2PD's end-of-text prediction); None: never

    raises  ArgumentError
    """

    discount: float = 1.0
    banned_until: float = 0.0
    truncate_at: float | None = None

    def __post_init__(self) -> None:
        check_number("discount", self.discount, 0, 1)
        check_number("banned_until", self.banned_until, 0, 1)
        if self.truncate_at is not None:
            check_number("truncate_at", self.truncate_at, 0, 1)


@runtime_checkable
class FillsMasks(Protocol):
    """A decoder for masked diffusion models: beside `start`, it says how many rows a forward over a text of so many tokens has."""

    fills_masks: bool

    def rows(self, length: int) -> int: ...


@dataclass(frozen=True)
class Unmask:
    """Decoding for masked diffusion models: max_tokens masks behind the prompt, filled by a rule until none is left.

    rule           which positions to fill after a forward: Threshold, Schedule, Factor, EntropyThreshold, EntropyBudget, Adaptive,
                   Learned, Explore
    block_length   positions that are filled before the ones behind them; None: the whole answer at once
    max_steps      most forwards; the last one fills whatever is left.  None: as many as the rule takes, at most one a position
                   (and those of `remask`)
    cache          "none": every forward runs the whole text; "prefix": within a block, what is before it is not run again; "dual":
                   nor is what is behind it.  Both see keys and values from the block's first forward: faster, not exact
    refresh_every  forwards after which a cache is made anew within a block; 1 is exact; None: once a block
    attention      "full", or "block_causal" for models trained so: a block sees what is before it and itself, the prompt is read as a
                   chain; its cache is exact, and needs no `cache`
    temperature    of the draw; None: the request's.  Confidence is always the model's own, of the token drawn
    remask         RunningConfidence, Remdm or Revise: fill positions more than once
    drafts         check so many steps of the schedule ahead in each forward: fewer forwards, the very same answer (FreeDave); rows
                   grow as many times
    end            see EndOfText
    early_exit     stop as soon as the text has ended; False: fill the whole answer
    trace          keep a record of who was filled when: `Generation.trace`
    mask_token, logit_shift  None: the session's

    A position that is filled stays as it is, except with `remask`.  Text becomes certain from its beginning on.

    raises  ArgumentError
    """

    rule: Rule = field(default_factory=Threshold)
    _: KW_ONLY
    block_length: int | None = None
    max_steps: int | None = None
    cache: str = "none"
    refresh_every: int | None = None
    attention: str = "full"
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
            raise ArgumentError(f"rule must be one of those for unmasking, such as Threshold(), got {short(self.rule)}")
        for name, least in (("block_length", 1), ("max_steps", 1), ("refresh_every", 1), ("mask_token", 0)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), least, 1 << 30)
        for name, choices in (("cache", CACHES), ("attention", ATTENTIONS)):
            check_choice(name, getattr(self, name), choices)
        for name in ("early_exit", "trace"):
            check_flag(name, getattr(self, name))
        if self.temperature is not None:
            check_number("temperature", self.temperature, 0, 1e6)
        if self.logit_shift is not None:
            check_integer("logit_shift", self.logit_shift, 0, 1)
        check_integer("drafts", self.drafts, 0, MOST_DRAFTS)
        check_remask(self.remask)
        if not isinstance(self.end, EndOfText):
            raise ArgumentError(f"end must be an EndOfText, got {type(self.end).__name__}")
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
                "RunningConfidence masks again what later steps of a schedule fill: rule must be a Schedule"
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
                "drafts are steps of a fixed schedule: they need rule=Schedule(...), and no remask, max_steps, refresh_every or end"
            )

    fills_masks: ClassVar[bool] = True

    def rows(self, length: int) -> int:
        """Rows of a forward over a text of so many tokens, prompt and answer."""
        return length * max(self.drafts, 1)

    def start(self, session: SessionLike, request: Request) -> UnmaskRun:
        return UnmaskRun(self, session, request)


class UnmaskRun(Run):
    """One answer being filled.  Positions are those of the text; places count from the answer's first position."""

    needs_place = True  # a token takes a place of the session before it is certain

    def __init__(self, settings: Unmask, session: SessionLike, request: Request) -> None:
        self._settings, self._session, self._request = settings, session, request
        self._mask, self._shift = _facts(settings, session)
        if request.logprobs:
            raise UnsupportedError(
                "logprobs are of tokens that follow one another; unmasking fills them in another order"
            )
        temperature = request.sampler.temperature if settings.temperature is None else settings.temperature
        self._sampler = replace(request.sampler, temperature=temperature)
        if settings.drafts and not self._argmax:
            raise ArgumentError(
                "drafts need temperature 0 and no processors: the schedule has to be a function of the text"
            )
        self._first = len(request.prompt)
        if (request.prompt == self._mask).any():
            at = int((request.prompt == self._mask).argmax())
            raise ArgumentError(
                f"the prompt holds the mask token, {self._mask}, at {at}: only what follows it can be masked"
            )
        length = min(request.max_tokens, session.capacity - self._first)
        if length < min(request.max_tokens, 1):
            raise CapacityError(
                f"the prompt has {self._first} tokens and the session's capacity is {session.capacity}: no place is left to fill"
            )
        if settings.attention == "full" and self._first + length > session.max_rows and length:
            raise CapacityError(
                f"a forward over all of the text takes {self._first + length} rows, more than the session's max_rows = {session.max_rows}"
            )
        self.text = np.concatenate([request.prompt, np.full(length, self._mask, np.int32)]).astype(np.int32)
        self.trace = Trace(length, self._mask) if settings.trace else None
        # By place: log probability of each token as it was filled, and how often it was replaced.
        self._confidence = np.full(length, np.nan, np.float32)
        self._revisions = np.zeros(length, np.int32)
        size = settings.block_length or max(length, 1)
        self._starts = list(range(self._first, self._first + length, size))
        self._size, self._number = size, 0
        self._quotas = settings.rule.quotas([self._end(i) - start for i, start in enumerate(self._starts)])
        # Of drafts: the steps to come, and the texts to run next, the certain one and guesses at those after it.
        self._crosses = settings.attention == "full" and settings.cache == "none"
        blocks = range(len(self._starts) if self._crosses else 1)
        self._schedule = [step for number in blocks for step in self._schedule_of(number)]
        self._drafts = [self.text]
        self._chances = np.empty(0, np.float32)
        if settings.rule.selection.score == "given":  # an order by chance, the same in every step
            places = np.arange(length, dtype=np.uint32)
            self._chances = uniforms(self._sampler, self._first + places, 0, length, ORDER).astype(np.float32)
        self._fresh, self._since, self._extra = True, 0, 0
        self._forwards = self._released = 0
        self._cut = False  # whether the answer has been truncated
        self._most_drafts = max(min(settings.drafts, session.max_rows // max(len(self.text), 1)), 1)
        self._view: View | None = None  # of the forward under way
        self._unread = request.prompt[:0]
        if settings.attention == "full":
            session.truncate(0)
        else:
            session.truncate(request.cached)  # short of the prompt, as the row that a shift needs
            self._unread = request.prompt[session.length : self._first - self._shift]
            self.unread = len(self._unread)

    # ---- what the loop asks for ----

    @property
    def decoding(self) -> bool:
        """Whether the forward under way fills positions, rather than read the prompt."""
        return self._view is not None

    @property
    def committed(self) -> int:
        """Positions filled so far."""
        return int((self.text[self._first :] != self._mask).sum())

    def forward(self) -> Forward:
        if len(self._unread):
            most = min(self._session.max_rows, self.room)
            chunk, self._unread = self._unread[:most], self._unread[most:]
            self.unread = len(self._unread)
            self._view = None
            return Forward(chunk, rows=())
        self._view = view = self._next_view()
        drafts = self._drafts if self._settings.drafts else [self.text]
        self._branches = [(draft, self._readable(draft, number)) for number, draft in enumerate(drafts)]
        branches = [(draft, positions) for draft, positions in self._branches if len(positions)]
        last, width = view.branching, view.ends[-1] - view.branching
        tokens = np.concatenate([self.text[view.first : last], *(draft[last : view.ends[-1]] for draft, _ in branches)])
        sizes = np.diff([view.first, *view.ends[:-1]])
        nodes = np.repeat(np.arange(len(sizes) + len(branches)), [*sizes, *[width] * len(branches)])
        parents = [*range(-1, len(sizes) - 1), *[len(sizes) - 1] * len(branches)]
        offsets = [positions - self._shift - view.first for _, positions in branches]
        rows = [row + np.where(row < last - view.first, 0, i * width) for i, row in enumerate(offsets)]
        read = self._how_to_read(np.concatenate([positions for _, positions in branches]))
        return Forward(tokens, nodes=nodes, parents=parents, replace=view.replace, rows=np.concatenate(rows), read=read)

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        view = self._view
        if view is None:
            return []
        self._forwards += 1
        self._since = 1 if self._fresh else self._since + 1
        self._fresh = False
        steps = self._steps(rows)
        if view.keep:
            self._session.keep(range(view.keep))
        else:
            self._session.truncate(self._session.length)
        if self._settings.drafts:
            self._jump(steps)
        else:
            self._advance(steps[0])
        while not self._finished and not (self._block_text == self._mask).any():
            self._number += 1
            self._fresh, self._extra = True, 0
            if not self._crosses:
                self._schedule = self._schedule_of(self._number)
        return self._release()

    # ---- before a forward ----

    @property
    def _argmax(self) -> bool:
        """Whether a position's token is the likeliest one, with nothing to draw or to forbid but by bans."""
        return self._sampler.is_greedy and self._request.allowed is None and self._request.allowed_early is None

    @property
    def _finished(self) -> bool:
        return self._number == len(self._starts)

    @property
    def _final(self) -> bool:
        """Whether the next forward is the last permitted one."""
        return self._settings.max_steps is not None and self._forwards >= self._settings.max_steps - 1

    @property
    def _start(self) -> int:
        return self._starts[self._number]

    @property
    def _block_text(self) -> np.ndarray:
        return self.text[self._start : self._end(self._number)]

    def _end(self, number: int) -> int:
        """Where a block ends."""
        return min(self._starts[0] + (number + 1) * self._size, len(self.text))

    def _reach(self, last: bool) -> int:
        """Where the positions end that may be filled in a forward; in the last one, all may."""
        if last:
            return len(self.text)
        return self._end(min(self._number + self._settings.rule.lookahead, len(self._starts) - 1))

    def _next_view(self) -> View:
        settings = self._settings
        last = self._final
        if settings.attention == "block_causal":
            before = self._starts[max(self._number - 1, 0)]
            return block_view(self._session.length, before, self._start, self._reach(last), self._shift)
        if settings.refresh_every is not None and self._since >= settings.refresh_every:
            self._fresh = True
        if self._fresh:
            self._session.truncate(0)
        return full_view(settings.cache, self._fresh, self._start, self._reach(last), len(self.text), self._shift)

    def _readable(self, draft: np.ndarray, number: int) -> np.ndarray:
        """Positions of one of the texts whose prediction is wanted."""
        if self._settings.drafts:
            steps = self._schedule[number : number + self._most_drafts]
            if not steps:
                return np.empty(0, np.int64)
            start, end = self._first + steps[0][0], self._first + steps[-1][1]
        else:
            start, end = self._start, self._reach(self._final)
        wanted = draft[start:end] == self._mask
        if self._settings.remask is not None:
            again = self._settings.remask.rereads(self._block())
            if again is not None:
                wanted[: len(again)] |= again
        return start + np.flatnonzero(wanted)

    def _block(self) -> Block:
        places = slice(self._start - self._first, self._end(self._number) - self._first)
        filled = self._block_text != self._mask
        if self._cut and self._number == len(self._starts) - 1:
            filled[-1] = False  # what was cut off cannot come back, so the token that ended the answer stands
        return Block(
            filled,
            self._confidence[places],
            self._revisions[places],
            None if self._quotas is None else self._quotas[self._number],
            self._extra,
        )

    def _how_to_read(self, positions: np.ndarray) -> Read:
        banned = [self._mask]
        places = len(self.text) - self._first
        if self.committed < self._settings.end.banned_until * places:
            banned += sorted(token for token in self._request.end_tokens if token < self._session.vocab_size)
        bans = np.array(sorted(set(banned)), np.int32)
        if self._argmax:
            return Read(banned=bans)
        allowed = self._request.masks((positions - self._first).tolist())
        return Read(sampler=replace(self._sampler, round=self._forwards), allowed=allowed, logits=True, banned=bans)

    # ---- after it ----

    def _steps(self, rows: Rows) -> list[Step]:
        """What the forward has said of each text that it ran."""
        statistics = rows.statistics
        if self._argmax:
            tokens, confidence = statistics.argmax, statistics.log_prob
        else:
            assert rows.tokens is not None and rows.logits is not None  # they were asked for
            tokens = rows.tokens
            below = rows.logits[np.arange(len(tokens)), tokens] - statistics.top
            confidence = below + statistics.log_prob  # 0 below the top: the digits of log_prob stay
        block = range(self._start - self._first, self._end(self._number) - self._first)
        steps, begin = [], 0
        for _, positions in self._branches:
            part = slice(begin, begin := begin + len(positions))
            copies = RowStatistics(*(values[part].copy() for values in statistics))
            places = (positions - self._first).astype(np.int32)
            steps.append(Step(block, places, tokens[part].copy(), confidence[part].copy(), copies))
        return steps

    def _advance(self, step: Step) -> None:
        """Fill what the rule chooses, mask again what the remasking does, cut off what is behind the end."""
        settings, answer = self._settings, self.text[self._first :]
        masked = answer[step.places] == self._mask
        fresh, filled = step.part(masked), step.part(~masked)
        quotas = None if self._quotas is None else self._quotas[self._number]
        quota = quotas.pop(0) if quotas else None
        everything = self._forwards == settings.max_steps or (
            settings.remask is not None and settings.remask.fills_block
        )
        chosen = fresh.part(np.ones(len(fresh.places), bool) if everything else self._choose(fresh, quota))
        replaced = filled.part(self._revised(filled))
        self._revisions[replaced.places] += 1
        if (chosen.tokens == self._mask).any():  # banned from what is drawn: only a rule can have put it there
            raise ArgumentError(f"{type(settings.rule).__name__} fills a position with the mask token, {self._mask}")
        new = np.union1d(chosen.places, replaced.places)
        for part in (chosen, replaced):
            answer[part.places], self._confidence[part.places] = part.tokens, part.confidence
        if settings.end.truncate_at is not None:
            new = self._truncate(fresh, new)
        self._record(new, self.text[self._first + new], self._mask_again())

    def _choose(self, step: Step, quota: int | None) -> np.ndarray:
        """Which of the masked positions to fill, bool (n,)."""
        rule, end = self._settings.rule, self._settings.end
        selection, statistics, bias = rule.selection, step.statistics, None
        if end.discount != 1:
            share = end.discount + (1 - end.discount) * self.committed / len(self._confidence)
            ends = np.isin(step.tokens, list(self._request.end_tokens))
            bias = np.where(ends, np.log(max(share, 1e-38)), 0).astype(np.float32)
        if rule.lookahead:  # exploring begins within the block
            entropy = np.where(step.places < step.block.stop, statistics.entropy, -np.inf)
            statistics = statistics._replace(entropy=entropy.astype(np.float32))
        return unmask_select(
            statistics,
            np.ones(len(step.places), bool),
            selection,
            quota=None if quota is None else np.array(quota, np.int32),
            log_probs=step.confidence if selection.score == "confidence" and not self._argmax else None,
            scores=self._chances[step.places] if selection.score == "given" else None,
            bias=bias,
            also=rule.also(step),
        ).chosen

    def _revised(self, step: Step) -> np.ndarray:
        """Which of the filled positions that were read again get another token, bool (n,)."""
        if not isinstance(self._settings.remask, Revise):
            return np.zeros(len(step.places), bool)
        sure = step.confidence >= log_of(self._settings.remask.threshold)
        return sure & (step.tokens != self.text[self._first + step.places])

    def _mask_again(self) -> np.ndarray:
        """Mask positions of the block again, as the remasking says; their places."""
        block, remask = self._block(), self._settings.remask
        again = None if remask is None or self._forwards == self._settings.max_steps else remask.again(block)
        self._extra = block.extra_steps
        if again is None:
            return np.empty(0, np.int32)
        places = self._start - self._first + np.flatnonzero(again).astype(np.int32)
        self.text[self._first + places] = self._mask
        return places

    def _truncate(self, step: Step, new: np.ndarray) -> np.ndarray:
        """End the answer with the first end-of-text that is filled, or proposed with probability enough; the new places there are."""
        ends = list(self._request.end_tokens - {self._mask})
        answer, least = self.text[self._first :], self._settings.end.truncate_at
        assert least is not None
        proposed = step.part(np.isin(step.tokens, ends) & (step.confidence >= log_of(least)))
        places = [*np.flatnonzero(np.isin(answer, ends)).tolist(), *proposed.places.tolist()]
        if not places:
            return new
        place = min(places)
        if answer[place] == self._mask:
            at = proposed.places.tolist().index(place)
            answer[place], self._confidence[place] = proposed.tokens[at], proposed.confidence[at]
            new = np.union1d(new, [place])
        length = self._first + place + 1
        self.text, self._confidence, self._revisions = (
            self.text[:length],
            self._confidence[: place + 1],
            self._revisions[: place + 1],
        )
        self._starts = [start for start in self._starts if start < length]
        self._session.truncate(min(self._session.length, length))
        self._cut = True
        return new[new <= place]

    def _schedule_of(self, number: int) -> list[tuple[int, int, int]]:
        """The steps of a block, as the kernel takes them: places [start, end), and how many of them to fill."""
        if not self._settings.drafts or number >= len(self._starts):
            return []
        assert self._quotas is not None  # drafts go with a schedule
        start, end = self._starts[number] - self._first, self._end(number) - self._first
        return [(start, end, quota) for quota in self._quotas[number]]

    def _jump(self, steps: list[Step]) -> None:
        """As many steps of the schedule at once as the drafts have got right, and one more."""
        shape = (len(steps), len(self.text) - self._first)
        states = np.stack([draft[self._first :] for draft in self._drafts])
        tokens = np.full(shape, self._mask, np.int32)
        scores, confidence = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        rule = self._settings.rule.selection
        for number, step in enumerate(steps):
            tokens[number, step.places], confidence[number, step.places] = step.tokens, step.confidence
            if rule.score == "given":
                scores[number, step.places] = self._chances[step.places]
            else:
                masked = np.ones(len(step.places), bool)
                scores[number, step.places] = unmask_select(step.statistics, masked, rule).confidence
        schedule = np.array(self._schedule[: len(steps) - 1 + self._most_drafts], np.int32).reshape(-1, 3)
        result = draft_and_verify(states, tokens, scores, schedule, self._mask, self._most_drafts)
        path = [*states[: result.accepted + 1], *result.drafts[:1]]
        for number, (before, after) in enumerate(pairwise(path)):
            new = np.flatnonzero((before == self._mask) & (after != self._mask))
            self._confidence[new] = confidence[number, new]
        new = np.flatnonzero((self.text[self._first :] == self._mask) & (path[-1] != self._mask))
        self.text[self._first :] = path[-1]
        self._schedule = self._schedule[len(path) - 1 :]
        prompt = self.text[: self._first]
        self._drafts = [
            np.concatenate([prompt, state]) for state in (result.drafts if len(result.drafts) else path[-1:])
        ]
        self._record(new, self.text[self._first + new], np.empty(0, np.int32))

    def _record(self, places: np.ndarray, tokens: np.ndarray, again: np.ndarray) -> None:
        if self.trace is not None:
            places, confidence = places.astype(np.int32), np.exp(self._confidence[places])
            self.trace.steps.append(TraceStep(places, tokens, confidence, again, len(self._confidence)))

    def _release(self) -> list[tuple[int, int]]:
        """Tokens that have become certain, from the answer's beginning on."""
        answer = self.text[self._first :]
        if self._finished:
            certain = len(answer)
        elif not self._settings.early_exit:
            certain = 0
        elif self._settings.remask is not None:
            certain = self._start - self._first
        else:
            masked = answer == self._mask
            certain = int(masked.argmax()) if masked.any() else len(answer)
        released = answer[self._released : certain].tolist()
        self._released = max(self._released, certain)
        return [(token, 0) for token in released]


def log_of(probability: float) -> np.float32:
    """Its logarithm as confidences are compared with it; -inf of 0."""
    with np.errstate(divide="ignore"):
        return np.float32(np.log(np.float32(probability)))


def _facts(settings: Unmask, session: SessionLike) -> tuple[int, int]:
    """Mask token and logit shift, of the settings or else of the session."""
    mask = session.mask_token if settings.mask_token is None else settings.mask_token
    if mask is None:
        raise ArgumentError(
            "this model has no mask token, so it is no masked diffusion model; if it is one, give mask_token"
        )
    check_integer("mask_token", mask, 0, session.vocab_size - 1)
    shift = session.logit_shift if settings.logit_shift is None else settings.logit_shift
    return mask, shift
