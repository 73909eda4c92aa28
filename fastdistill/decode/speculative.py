"""Speculative decoding: guesses at several tokens, checked in one forward."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from fastdistill.arguments import check_choice, check_integer
from fastdistill.decode.autoregressive import SPELL, AutoregressiveRun
from fastdistill.decode.chance import uniforms
from fastdistill.decode.drafters.draft import NO_GUESSES, Draft, Drafter, DraftRequest, DraftRun
from fastdistill.decode.request import Request, Round, Run
from fastdistill.decode.trees import StaticTree, Tree
from fastdistill.errors import ArgumentError, UnsupportedError, attempt
from fastdistill.kernels.sample.probabilities import probabilities
from fastdistill.kernels.verify.tree_layout import tree_layout
from fastdistill.kernels.verify.verify_tree import RULES, Verified, verify_tree
from fastdistill.messages import short
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Read, Rows, draws_alone


@dataclass(frozen=True)
class Speculative:
    """A drafter guesses tokens, one forward of the model (the target) checks them, a rule says which stand, that is, are accepted.

    Parameters
    ----------
    drafter : Drafter
        PromptLookup(), HeadDrafter(folder), ModelDrafter(model), LayerSkip(layers), CallableDrafter(function), FirstOf
        of some of them, or another one
    rule : str, default "coupled"
        "coupled": the text of plain decoding, token for token, at any temperature. "rejection", "block" (chains),
        "traversal": its law (the distribution of its texts), another text. "typical": neither; takes what the model
        finds plausible
    tree : Tree | StaticTree, optional
        the shape of drafts: Tree(width, depth), or static_tree(...); None: a chain
    max_draft : int, default 8
        most guesses a round
    lenience : tuple[str, float], optional
        (form, e): "rejection" takes more, and keeps the law no longer (see `verify_tree`)
    epsilon, delta : float, default 0.09 and 0.3
        of "typical"

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> model, text = fd.load(folder), "to be or not to be, to be"
    >>> plain = model.generate(text, max_tokens=24)
    >>> sooner = model.generate(text, max_tokens=24, decoder=fd.Speculative(fd.PromptLookup()))
    >>> sooner.tokens == plain.tokens, sooner.stats.forwards < plain.stats.forwards
    (True, True)
    """

    drafter: Drafter
    rule: str = "coupled"
    tree: Tree | StaticTree | None = None
    max_draft: int = 8
    lenience: tuple[str, float] | None = None
    epsilon: float = 0.09
    delta: float = 0.3

    def __post_init__(self) -> None:
        if isinstance(self.drafter, type) or not hasattr(self.drafter, "start"):
            raise ArgumentError(f"drafter must be a drafter such as PromptLookup(), got {short(self.drafter)}")
        check_choice("rule", self.rule, RULES)
        if self.tree is not None and not isinstance(self.tree, (Tree, StaticTree)):
            raise ArgumentError(f"tree must be a Tree or a StaticTree, got {short(self.tree)}")
        if self.tree is not None and (self.rule == "block" or self.lenience is not None):
            raise ArgumentError("rule 'block' and lenience are for chains: give no tree")
        if self.lenience is not None and self.rule != "rejection":
            raise ArgumentError(f"lenience belongs to rule 'rejection', got {short(self.rule)}")
        if self.rule != "coupled":  # verify_tree knows what it takes
            verify_tree(
                np.array([-1], np.int32), np.array([0], np.int32), np.ones((1, 1), np.float32), rule=self.rule,
                uniforms=np.zeros(1), lenience=self.lenience, epsilon=self.epsilon, delta=self.delta,
            )  # fmt: skip
        check_integer("max_draft", self.max_draft, 1, 1 << 10)

    @property
    def taps(self) -> tuple[str, ...]:
        """What the drafter reads."""
        return getattr(self.drafter, "taps", ())

    takes_constraint = True

    def start(self, session: SessionLike, request: Request) -> SpeculativeRun:
        return SpeculativeRun(self, session, request)


class Chooser(Protocol):
    """Decides how much of each draft is worth its rows."""

    def choose(self, draft: Draft, context: int) -> np.ndarray:
        """Which guesses of a draft to check, over so many cached tokens: ascending, none without its parent."""

    def learn(self, verdicts: np.ndarray) -> None:
        """What became of them: int8 (n,), 1 right, -1 wrong, 0 not asked."""

    def timed(self, guesses: int, seconds: float) -> None:
        """What a round with so many guesses took."""

    def shared_by(self, texts: int) -> None:
        """How many texts share the next forward."""

    def rests(self, context: int) -> bool:
        """Whether the next round is one of plain decoding, whatever could be guessed."""


class SpeculativeRun(Run):
    """Reads the prompt as plain decoding does, then round after round."""

    rounds: list[Round]

    def __init__(
        self, settings: Speculative, session: SessionLike, request: Request, chooser: Chooser | None = None
    ) -> None:
        self._settings, self._session, self._request, self._chooser = settings, session, request, chooser
        self.rounds = []
        self._prompt = AutoregressiveRun(session, request)
        self._guided = self._prompt.guided  # by a constraint: it guesses too, where it leaves little choice,
        self._its_guesses = False  # and those of this round may be its own
        self._reads_hidden = getattr(settings.drafter, "reads_hidden", False)
        self._unheard_taps: Mapping[str, np.ndarray] = {}
        self.unread = self._prompt.unread
        self._emitted: list[int] = []
        self._resting = False
        self._unheard = list[int]()  # tokens that the drafter was not told of, since nobody asked it
        self._rest_round = Round(0, 0)
        self._drafts: DraftRun | None = None
        self._draft = NO_GUESSES  # the guesses that are checked,
        self._chosen = np.empty(0, np.int64)  # and their numbers in the drafter's draft
        self._base = 0  # the session's length before this round, and when that began
        self._mark = self._spell_ends = 0.0
        # Rounds that need nothing but tokens go on without the caller, who has been told so many.
        self._free = request.free_tokens
        apart = session.runs_ahead and getattr(settings.drafter, "leaves_session", False)
        self._goes_on = self._coupled and apart and self._free > 1 and draws_alone(request.read([1]))
        self._told = 0
        self._rows = np.empty(0, np.int32)  # this round's tokens: the seed, then the guesses;
        self._laid = False  # whether what becomes of them is still to come,
        self._error: Exception | None = None  # or what went wrong instead

    def forward(self) -> Forward:
        if not self._emitted:
            self._prompt.room = self.room
            asked, self.unread = self._prompt.forward(), self._prompt.unread
            return replace(asked, read=self._read(asked.read))
        if self._error is not None:
            raise self._error
        self._base, self._mark = len(self._request.prompt) + len(self._emitted) - 1, time.perf_counter()
        if self._session.length < self._base:  # an interrupt came while rounds went on
            self._session.prefill(self._emitted[self._session.length - self._base - 1 : -1])
        if self._chooser is not None:
            self._chooser.shared_by(self.together)
        self._spell_ends = self._mark + SPELL
        if not self._laid:
            self._next_rows()
        draft = self._draft
        read = self._read(
            self._request.read(*self._rows_read()) if self._coupled else Read(logits=True, banned=self._request.banned)
        )
        if draft.layers is not None:
            return Forward(layers=draft.layers, read=read)
        if not draft.is_chain:
            return Forward(self._rows, parents=self._row_parents, read=read)
        if not self._goes_on or self.together > 1 or read.allowed is not None:
            return Forward(self._rows, read=read)  # committed at once, and cut back where it was wrong
        room = min(self._session.max_rows, self._session.capacity - self._base) - len(self._rows)
        return Forward(self._rows, read=read, ahead=room, then=self._then if room > 0 else None)

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        if not self._emitted:
            return self._begin(rows)
        taken = [(token, 0) for token in self._emitted[self._told :]]
        if rows.tokens is None or len(rows.tokens):  # else the rows that were to follow have not been run
            taken += self._rest(rows) if self._resting else self._judge(rows)
        self._told = len(self._emitted)
        return taken

    def _judge(self, rows: Rows) -> list[tuple[int, int]]:
        """A round with or without guesses: its tokens, each with its row."""
        draft, session = self._draft, self._session
        verified = _nothing_guessed(rows) if self._guesses_nothing else self._verify(rows)
        count = int(verified.accepted[0]) + 1
        path, tokens = verified.path[:count], verified.tokens[:count].tolist()
        if not draft.is_chain or draft.layers is not None:
            session.keep(path)
        elif count <= len(draft):
            session.truncate(self._base + count)
        self.rounds.append(self._round(verified, count))
        taps = {name: array[path] for name, array in self._taps(rows).items()}
        self._account(tokens, path, verified.verdicts[1:], rows.tokens, taps)
        return list(zip(tokens, path.tolist(), strict=True))

    def _then(self, drawn: np.ndarray, states: Mapping[str, np.ndarray]) -> tuple[int, np.ndarray] | None:
        """What a round of a chain leads to, and the next one's rows, without what is around a forward: `Forward.then`.

        None where somebody waits for the text, or it may have ended: `take` then does the same.
        """
        guesses, tokens = self._rows[1:], drawn.tolist()
        agree = guesses == drawn[: len(guesses)]
        count = len(tokens) if agree.all() else int(agree.argmin()) + 1
        tokens = tokens[:count]
        written = len(self._emitted) + count
        if (
            time.perf_counter() > self._spell_ends or written >= self._request.max_tokens
            or (self._request.allowed_last is not None and written + self._settings.max_draft >= self._free)
            or not self._request.end_tokens.isdisjoint(tokens)
        ):  # fmt: skip
            return None
        taps = {name: array[:count].copy() for name, array in states.items()}
        if self._resting:
            self._rested(tokens[0], taps, time.perf_counter() - self._mark)
        else:
            fell = tuple(guesses[count - 1 :].tolist())
            self.rounds.append(Round(len(guesses), count - 1, fell, self._recycled(np.arange(count), count)))
            verdicts = np.zeros(len(guesses), np.int8)
            verdicts[: count - 1] = 1
            verdicts[count - 1 : count] = -1
            self._account(tokens, np.arange(count), verdicts, drawn, taps)
        self._base, self._mark = self._base + count, time.perf_counter()
        self._error = attempt(self._next_rows)  # what there is of the text is told first
        runs = self._error is None and self._draft.is_chain and self._draft.layers is None
        return count, self._rows if runs else drawn[:0]

    def _next_rows(self) -> None:
        """Guess, or rest: the rows of the next forward."""
        self._resting = self._chooser is not None and self._chooser.rests(self._base)
        self._draft = draft = NO_GUESSES if self._resting else self._propose()
        self._rows = np.concatenate([np.array(self._emitted[-1:], np.int32), draft.tokens])
        self._laid = True

    def _account(
        self, tokens: list[int], path: np.ndarray, verdicts: np.ndarray, drawn: np.ndarray | None,
        taps: Mapping[str, np.ndarray],
    ) -> None:  # fmt: skip
        """Tell the drafter and the chooser what became of the draft."""
        assert self._drafts is not None
        self._laid = False
        if self._its_guesses:
            self._drafts.accept(tokens, np.empty(0, np.int32), taps)
        else:
            if hasattr(self._drafts, "observe") and drawn is not None:
                self._drafts.observe(self._chosen, drawn)
            self._drafts.accept(tokens, self._chosen[path[1:] - 1], taps)
            if self._chooser is not None:
                self._chooser.learn(verdicts)
                self._chooser.timed(len(self._draft), self._took())
        self._wrote(tokens)

    def _wrote(self, tokens: list[int]) -> None:
        self._emitted += tokens
        if self._guided is not None:
            self._guided.write(tokens)

    def _took(self) -> float:
        """Seconds since the round began; of one that other texts share, of all of them."""
        return time.perf_counter() - self._mark if self.together == 1 else self.seconds

    def _read(self, read: Read) -> Read:
        return replace(read, hidden=True) if self._reads_hidden else read

    def _taps(self, rows: Rows) -> Mapping[str, np.ndarray]:
        return rows.taps if rows.hidden is None else {**rows.taps, "hidden": rows.hidden}

    @property
    def _coupled(self) -> bool:
        return self._settings.rule == "coupled"

    def _rest(self, rows: Rows) -> list[tuple[int, int]]:
        """A round of plain decoding, in about its time."""
        assert rows.tokens is not None
        token = int(rows.tokens[0])
        self._rested(token, self._taps(rows), self._took())
        return [(token, 0)]

    def _rested(self, token: int, taps: Mapping[str, np.ndarray], seconds: float) -> None:
        assert self._chooser is not None
        self._laid = False
        self._wrote([token])
        self._unheard.append(token)
        self._unheard_taps = taps
        self.rounds.append(self._rest_round)
        self._chooser.timed(0, seconds)

    @property
    def _guesses_nothing(self) -> bool:
        """Whether this round is one of plain decoding."""
        return self._coupled and not len(self._draft) and self._draft.layers is None

    def _begin(self, rows: Rows) -> list[tuple[int, int]]:
        """A part of the prompt has been read; the last one gives the first token."""
        first = self._prompt.take(rows)
        if self._drafts is None:
            settings, request = self._settings, self._request
            sampled = settings.rule not in ("coupled", "typical")
            self._drafts = settings.drafter.start(
                DraftRequest(request.prompt, self._session, request.sampler, settings.tree, sampled, settings.max_draft)
            )
        self._emitted = [token for token, _ in first]
        self._told = len(first)
        if first or self._taps(rows):
            self._drafts.accept(list(self._emitted), np.empty(0, np.int32), self._taps(rows))
        return first

    def _propose(self) -> Draft:
        """No more guesses than a forward takes, the session holds, and the text has tokens left (the last is no guess)."""
        session, chooser = self._session, self._chooser
        if self._unheard:
            assert self._drafts is not None
            self._drafts.accept(self._unheard, np.empty(0, np.int32), self._unheard_taps)
            self._unheard = []
        room = min(session.max_rows, session.capacity - self._base, self._request.max_tokens - len(self._emitted))
        budget = min(self._settings.max_draft, room - 1)
        guided, self._its_guesses = self._guided, False
        assert self._drafts is not None
        if guided is not None and budget > 0:
            copy = getattr(self._drafts, "propose_after", None)
            if found := guided.chain(budget, copy, chooser is None and self._settings.tree is None):
                self._its_guesses = True
                return Draft(found)
        draft = self._checked(self._drafts.propose(budget), budget) if budget > 0 else NO_GUESSES
        kept = np.arange(len(draft))
        # Of a law, and of guesses that have run through some layers, none is left out: what is refused is not drawn.
        if guided is not None and self._coupled and draft.layers is None:
            kept = guided.keeps(draft.tokens.tolist(), draft.parents.tolist())
            draft = draft.only(kept)
        some = np.arange(len(draft)) if chooser is None else chooser.choose(draft, self._base)
        self._chosen = kept[some]
        return draft.only(some)

    def _checked(self, draft: Any, budget: int) -> Draft:
        if not isinstance(draft, Draft):
            raise ArgumentError(f"the drafter must propose a Draft, got {short(draft)}")
        vocab = self._session.vocab_size
        if len(draft) and draft.tokens.max() >= vocab:
            raise ArgumentError(f"the drafter guessed token {draft.tokens.max()}, the model has {vocab}")
        if len(draft) > budget:
            raise ArgumentError(f"the drafter made {len(draft)} guesses, more than the {budget} that were asked for")
        if not draft.is_chain and (self._settings.rule == "block" or self._settings.lenience is not None):
            raise ArgumentError("rule 'block' and lenience are for chains: the drafter guessed a tree")
        if draft.layers is not None and self._chooser is not None:
            raise UnsupportedError(
                "guesses that have run through some layers cannot be left out: give Speculative, not Auto"
            )
        return draft

    @property
    def _row_parents(self) -> np.ndarray:
        """int32 (rows,): of each row the one that it follows, the seed's -1."""
        return np.concatenate([_ROOT, self._draft.parents + np.int32(1)])

    def _rows_read(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Of each row the number of the token that it draws, and what a constraint lets that be."""
        draft, guided = self._draft, self._guided
        numbers = len(self._emitted) + self._depths(draft)
        if guided is None:
            return numbers, None
        return numbers, guided.masks(guided.after(draft.tokens.tolist(), draft.parents.tolist()))

    def _depths(self, draft: Draft) -> np.ndarray:
        return np.arange(len(draft) + 1) if draft.is_chain else tree_layout(self._row_parents).depths

    def _verify(self, rows: Rows) -> Verified:
        settings, draft = self._settings, self._draft
        if self._coupled:
            assert rows.tokens is not None  # `read` asked for them
            return verify_tree(self._row_parents, self._rows, rows.tokens)
        sampler, n = self._request.sampler, len(self._rows)
        drawn = draft.laws is not None and settings.rule != "typical"  # which does not ask how tokens were drafted
        law_rows = np.concatenate([np.array([-1], np.int32), draft.law_rows]) if drawn else None
        return verify_tree(
            self._row_parents, self._rows, self._laws(rows), rule=settings.rule,
            drafts=draft.laws if drawn else None, draft_rows=law_rows, replacement=draft.replacement,
            uniforms=uniforms(sampler, self._base, len(self.rounds), n),
            lenience=settings.lenience, epsilon=settings.epsilon, delta=settings.delta,
        )  # fmt: skip

    def _laws(self, rows: Rows) -> np.ndarray:
        """What plain decoding would draw from after each row, float32 (rows, vocab)."""
        request, parents = self._request, self._row_parents
        assert rows.logits is not None
        seen = None
        if request.sampler.penalises:
            text = np.concatenate([request.prompt, np.array(self._emitted[:-1], np.int32)])
            seen = list[np.ndarray]()
            for row, parent in enumerate(parents):
                seen.append(np.append(text if parent < 0 else seen[parent], self._rows[row]))
        masks = request.masks(*self._rows_read())
        return probabilities(rows.logits, request.sampler, seen=seen, allowed=masks)

    def _round(self, verified: Verified, count: int) -> Round:
        """What became of this round's guesses: behind those that stand, the chain of first children that fell."""
        draft, last, fell = self._draft, int(verified.path[count - 1]) - 1, list[int]()
        for guess in range(len(draft)):
            if draft.parents[guess] == last and guess > last:
                fell.append(int(draft.tokens[guess]))
                last = guess
        return Round(len(draft), count - 1, tuple(fell), self._recycled(verified.path, count))

    def _recycled(self, path: np.ndarray, count: int) -> int:
        """Guesses from a pool of n-grams among the first count - 1 of a path."""
        pooled, kinds = getattr(self._drafts, "pooled", ()), self._draft.kinds
        return int(np.isin(kinds[path[1:count] - 1], pooled).sum()) if pooled and count > 1 and kinds is not None else 0


_ROOT = np.array([-1], np.int32)
_SEED, _NO_GUESS, _LOOKED_AT = np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.int8)


def _nothing_guessed(rows: Rows) -> Verified:
    """What `verify_tree` says of the seed alone: most rounds of a text in which nothing can be guessed."""
    assert rows.tokens is not None
    return Verified(_SEED, rows.tokens, _NO_GUESS, rows.tokens, _LOOKED_AT)
