"""One answer being filled: which rows each forward runs and reads, and what is certain after it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fastdistill.arguments import check_integer
from fastdistill.decode.chance import ORDER, uniforms
from fastdistill.decode.generation import TokenLogProbs, log_probs_of
from fastdistill.decode.request import Request, Run
from fastdistill.decode.unmask.canvas import Canvas
from fastdistill.decode.unmask.drafts import Drafts
from fastdistill.decode.unmask.end_of_text import EndOfText
from fastdistill.decode.unmask.filling import Filling
from fastdistill.decode.unmask.rules import Step
from fastdistill.decode.unmask.views import View, block_view, full_view
from fastdistill.errors import ArgumentError, CapacityError, UnsupportedError
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Read, Rows

if TYPE_CHECKING:
    from fastdistill.decode.unmask.decoder import Unmask


class UnmaskRun(Run):
    """Asks for forwards over the text, hands what they predict to `Filling` or `Drafts`, and releases what is certain."""

    needs_place = True  # a token takes a place of the session before it is certain

    def __init__(self, settings: Unmask, session: SessionLike, request: Request) -> None:
        self._settings, self._session, self._request = settings, session, request
        mask, self._shift = _facts(settings, session)
        temperature = request.sampler.temperature if settings.temperature is None else settings.temperature
        self._sampler = replace(request.sampler, temperature=temperature)
        # Whether a position's token is the likeliest one, with nothing to draw or to forbid but by bans.
        self._argmax = self._sampler.is_greedy and request.allowed is None and request.allowed_early is None
        if settings.drafts and not self._argmax:
            raise ArgumentError(
                "drafts need temperature 0 and no processors: the schedule has to be a function of the text"
            )
        if settings.drafts and request.logprobs:
            raise ArgumentError("logprobs are of one text a forward, and drafts run several: give drafts=0")
        self.said: dict[int, TokenLogProbs] | None = {} if request.logprobs else None
        text, positions = _text_to_fill(settings, session, request, mask, self._shift)
        chances = np.empty(0, np.float32)
        if settings.rule.selection.score == "given":
            at = positions.astype(np.uint32)
            chances = uniforms(self._sampler, at, 0, len(at), ORDER).astype(np.float32)
        blocks = settings.attention == "block_causal" and session.block > 0  # the prompt's, too
        self._canvas = canvas = Canvas(text, positions, mask, settings, chances, blocks)
        self.trace = canvas.trace
        self._filling: Filling | Drafts = Filling(settings, canvas, request.end_tokens)
        if settings.drafts:
            most = min(settings.drafts, session.max_rows // max(len(text), 1))
            self._filling = Drafts(settings, canvas, max(most, 1))
        self._fresh, self._since = True, 0  # whether the next forward makes the cache anew; forwards since one did
        self._released = 0  # places
        self._view: View | None = None  # of the forward under way; None: it reads the prompt,
        self._unread = request.prompt[:0]  # of which this is left
        self._wanted: list[np.ndarray] = []  # of each text that it runs: places, int64 (k,)
        # Rows of the prompt that see each other; where they are more than one, nobody knows of rows held whom they saw.
        self._span = (settings.block_length or 1) if blocks else 1
        session.truncate(request.cached if settings.attention == "block_causal" and self._span == 1 else 0)
        if settings.attention == "block_causal":
            end = canvas.start(0) - (self._shift if self._span == 1 else 0)  # short of the row that a shift needs
            self._unread = request.prompt[session.length : end]
            self.unread = len(self._unread)

    # ---- what the loop asks for, and the picture of a terminal ----

    @property
    def text(self) -> np.ndarray:
        """Prompt and answer, int32 (n,)."""
        return self._canvas.text()

    @property
    def decoding(self) -> bool:
        """Whether the forward under way fills positions, rather than read the prompt."""
        return self._view is not None

    @property
    def committed(self) -> int:
        """Positions filled so far."""
        return self._canvas.filled

    def forward(self) -> Forward:
        if len(self._unread):
            size = self._span
            most = max(min(self._session.max_rows, self.room) // size, 1) * size
            chunk, self._unread = self._unread[:most], self._unread[most:]
            self.unread = len(self._unread)
            self._view = None
            if size == 1:
                return Forward(chunk, rows=())
            nodes = np.arange(len(chunk)) // size
            return Forward(chunk, nodes=nodes, parents=range(-1, int(nodes[-1])), rows=())
        self._view = view = self._next_view()
        texts = self._filling.texts()
        self._wanted = [places for _, places in texts]
        texts = [(text, places) for text, places in texts if len(places)]
        last, width = view.branching, view.ends[-1] - view.branching
        tokens = np.concatenate([self.text[view.first : last], *(text[last : view.ends[-1]] for text, _ in texts)])
        sizes = np.diff([view.first, *view.ends[:-1]])
        nodes = np.repeat(np.arange(len(sizes) + len(texts)), [*sizes, *[width] * len(texts)])
        parents = [*range(-1, len(sizes) - 1), *[len(sizes) - 1] * len(texts)]
        offsets = [self._canvas.positions[places] - self._shift - view.first for _, places in texts]
        rows = [row + np.where(row < last - view.first, 0, i * width) for i, row in enumerate(offsets)]
        read = self._how_to_read(np.concatenate([places for _, places in texts]))
        return Forward(tokens, nodes=nodes, parents=parents, replace=view.replace, rows=np.concatenate(rows), read=read)

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        view, session = self._view, self._session
        if view is None:
            if session.pending:
                session.keep(range(min(session.pending, self._canvas.start(0) - self._shift - session.length)))
            return []
        self._since = 1 if self._fresh else self._since + 1
        self._fresh = False
        steps = self._predictions(rows)
        if view.keep:
            session.keep(range(view.keep))
        before = self._canvas.answer.copy()
        self._filling.take(steps)
        self._say(rows, before)
        length = self._canvas.length
        if not view.keep or session.length > length:
            session.truncate(min(session.length, length))  # pending rows go; an answer may have been cut
        while self._canvas.next_block():
            self._fresh = True
            self._filling.begin_block()
        return self._release()

    # ---- before a forward ----

    def _next_view(self) -> View:
        settings, canvas = self._settings, self._canvas
        start, reach = int(canvas.positions[canvas.places.start]), int(canvas.positions[self._filling.reach - 1]) + 1
        if settings.attention == "block_causal":
            start, first = canvas.start(canvas.number), max(canvas.number - 1, 0)
            starts = [at for at in map(canvas.start, range(first, canvas.blocks)) if at < reach]
            return block_view(self._session.length, starts, start, reach, self._shift)
        if settings.refresh_every is not None and self._since >= settings.refresh_every:
            self._fresh = True
        if self._fresh:
            self._session.truncate(0)
        return full_view(settings.cache, self._fresh, start, reach, canvas.length, self._shift)

    def _how_to_read(self, places: np.ndarray) -> Read:
        canvas, banned = self._canvas, {self._canvas.mask}
        if canvas.filled < self._settings.end.banned_until * len(canvas.answer):
            banned |= {token for token in self._request.end_tokens if token < self._session.vocab_size}
        bans = np.array(sorted(banned), np.int32)
        if self._argmax:
            return Read(banned=bans, logits=self._request.logprobs > 0)
        allowed = self._request.masks(places.tolist())
        return Read(sampler=replace(self._sampler, round=canvas.forwards), allowed=allowed, logits=True, banned=bans)

    # ---- after it ----

    def _predictions(self, rows: Rows) -> list[Step]:
        """What the forward has said of each text that it ran, in arrays of their own."""
        statistics = rows.statistics
        if self._argmax:
            tokens, confidence = statistics.argmax, statistics.log_prob
        else:
            assert rows.tokens is not None and rows.logits is not None  # they were asked for
            tokens = rows.tokens
            below = rows.logits[np.arange(len(tokens)), tokens] - statistics.top
            confidence = below + statistics.log_prob  # 0 below the top: the digits of log_prob stay
        steps, begin = [], 0
        for places in self._wanted:
            part = slice(begin, begin := begin + len(places))
            own = RowStatistics(*(values[part] for values in statistics))
            steps.append(Step(self._canvas.places, places.astype(np.int32), tokens[part], confidence[part], own))
        return steps

    def _say(self, rows: Rows, before: np.ndarray) -> None:
        """Keep the log probabilities of what the forward has filled in an answer, where they are asked for."""
        if self.said is None:
            return
        answer = self._canvas.answer
        for row, place in enumerate(self._wanted[0].tolist()):
            if place < len(answer) and answer[place] != before[place]:
                self.said[place] = log_probs_of(int(answer[place]), rows, row, self._request.logprobs)

    def _release(self) -> list[tuple[int, int]]:
        """Tokens that have become certain, from the answer's beginning on."""
        canvas = self._canvas
        answer = canvas.answer
        if canvas.finished:
            certain = len(answer)
        elif not self._settings.early_exit:
            certain = 0
        elif self._settings.remask is not None:
            certain = canvas.places.start
        else:
            certain = int((answer == canvas.mask).argmax())  # some of the current block is masked
        released = answer[self._released : certain].tolist()
        self._released = max(self._released, certain)
        return [(token, 0) for token in released]


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


def _text_to_fill(
    settings: Unmask, session: SessionLike, request: Request, mask: int, shift: int
) -> tuple[np.ndarray, np.ndarray]:
    """All of a text, int32 (n,), and the positions of what is to be filled in it, int64; refuses what cannot be served."""
    first, most = len(request.prompt), request.max_tokens
    held = np.flatnonzero(request.prompt == mask)
    if request.within:
        if settings.attention == "block_causal":
            raise UnsupportedError(
                "masks within a text are filled from both sides, and with block-causal attention a block sees nothing behind it: "
                "give Unmask(attention='full'), though models of blocks were not trained for that"
            )
        if shift and len(held) and held[0] == 0:
            raise ArgumentError("the text begins with a mask, and this model predicts a token in the row before it")
        if settings.end != EndOfText():
            raise ArgumentError("end is of masks that end the text: those within one have no end among them")
        text, positions = request.prompt, held
    else:
        if len(held):
            raise ArgumentError(
                f"the prompt holds the mask token, {mask}, at {held[0]}: only what follows it can be masked"
            )
        length = min(most, session.capacity - first)
        if length < min(most, 1):
            raise CapacityError(
                f"the prompt has {first} tokens and the session's capacity is {session.capacity}: no place is left to fill"
            )
        text, positions = (
            np.concatenate([request.prompt, np.full(length, mask, np.int32)]),
            np.arange(first, first + length),
        )
    if settings.attention == "full" and len(text) > session.max_rows and len(positions):
        raise CapacityError(
            f"a forward over all of the text takes {len(text)} rows, more than the session's max_rows = {session.max_rows}"
        )
    return text, positions
