"""What a drafter is asked for, and what it has to offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastdistill.arguments import check_array, check_integers
from fastdistill.cached import cached_property
from fastdistill.errors import ArgumentError
from fastdistill.kernels.sample.sample import Sampler

if TYPE_CHECKING:
    from fastdistill.decode.trees import StaticTree, Tree

_ANY_TOKEN = 2**31 - 1


@dataclass(frozen=True)
class Draft:
    """Guesses (draft tokens) at how a text goes on: a tree below its last token, the seed.

    Parameters
    ----------
    tokens : np.ndarray (n,)
        the guesses
    parents : np.ndarray (n,), optional
        of each: an earlier guess, or -1: the seed. None: a chain
    laws : float32 (laws, vocab), optional
        laws, or distributions, that guesses were drawn from. None: they were chosen, not drawn
    law_rows : int32 (n,), optional
        which law each was drawn from; -1: chosen
    replacement : bool, default True
        False: guesses with one parent and one law were drawn without replacement
    kinds : int32 (n,), optional
        guesses of one kind are alike in how often they are right, where their parents are: which line of the drafter's
        `priors`; -1: none of them. None: all -1
    layers : tuple[int, int], optional
        seed and guesses are pending in the target's session already, and have still to run through these layers

    Raises
    ------
    ArgumentError
    """

    tokens: Any
    parents: Any = None
    laws: np.ndarray | None = None
    law_rows: np.ndarray | None = None
    replacement: bool = True
    kinds: np.ndarray | None = None
    layers: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        tokens = check_integers("a draft's tokens", self.tokens, 0, _ANY_TOKEN, empty=True)
        n = len(tokens)
        order = np.arange(-1, n - 1, dtype=np.int32)
        parents = order
        if self.parents is not None:
            parents = check_integers("a draft's parents", self.parents, -1, max(n - 2, -1), empty=True)
            check_array("a draft's parents", parents, np.int32, (n,))
            if (parents > order).any():
                late = int(np.argmax(parents > order))
                raise ArgumentError(f"a draft's parents[{late}] must be an earlier guess or -1, got {parents[late]}")
        if (self.laws is None) != (self.law_rows is None):
            raise ArgumentError("a draft's laws come with law_rows, and law_rows with laws")
        if self.laws is not None:
            count, _ = check_array("a draft's laws", self.laws, np.float32, (None, None))
            check_array("a draft's law_rows", self.law_rows, np.int32, (n,))
            check_integers("a draft's law_rows", self.law_rows, -1, count - 1, empty=True)
        if self.kinds is not None:
            kinds = check_integers("a draft's kinds", self.kinds, -1, _ANY_TOKEN, empty=True)
            check_array("a draft's kinds", kinds, np.int32, (n,))
            object.__setattr__(self, "kinds", kinds)
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "parents", parents)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def is_chain(self) -> bool:
        return bool((self.parents == np.arange(-1, len(self) - 1)).all())

    def first(self, count: int) -> Draft:
        """The first `count` guesses alone: none of them loses its parent."""
        return self if count >= len(self) else self.only(np.arange(count))

    def only(self, guesses: np.ndarray) -> Draft:
        """These guesses alone, ascending, none without its parent."""
        count = len(guesses)
        if count == len(self):
            return self
        parents, is_chain = self.parents[:count], self.is_chain
        if not is_chain:  # else they are its first ones
            number = np.full(len(self) + 1, -1, np.int32)  # the last: -1's
            number[guesses] = np.arange(count)
            parents = number[self.parents[guesses]]
            is_chain = bool((parents == np.arange(-1, count - 1)).all())

        def some(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[guesses]

        return _made(
            self, tokens=self.tokens[guesses], parents=parents, law_rows=some(self.law_rows), kinds=some(self.kinds), is_chain=is_chain,
        )  # fmt: skip


NO_GUESSES = Draft(())


def chain(tokens: np.ndarray, kinds: np.ndarray | None = None) -> Draft:
    """Guesses one after another, int32 (n,), and their kinds, int32 (n,): of a drafter that need not be checked, as each round's time counts."""
    return _made(
        NO_GUESSES, tokens=tokens, parents=np.arange(-1, len(tokens) - 1, dtype=np.int32), kinds=kinds, is_chain=True
    )


def with_kinds(draft: Draft, kinds: np.ndarray) -> Draft:
    """The same guesses, of these kinds: int32 (n,), -1 or more."""
    return _made(draft, kinds=kinds)


def _made(like: Draft, **fields: Any) -> Draft:
    """A draft with other fields than this one: nothing is checked."""
    draft = object.__new__(Draft)
    draft.__dict__.update(like.__dict__, **fields)
    return draft


def merged(paths: Sequence[np.ndarray], kinds: Sequence[np.ndarray]) -> Draft:
    """Paths of tokens from the seed, each with its kinds, as one tree in which what they share stands once, of the first path's kind."""
    if len(paths) == 1:
        return chain(paths[0], kinds[0])
    nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node
    rows: list[tuple[int, int, int]] = []
    for path, each in zip(paths, kinds, strict=True):
        node = -1
        for token, kind in zip(path.tolist(), each.tolist(), strict=True):
            parent, node = node, nodes.setdefault((node, token), len(nodes))
            if node == len(rows):
                rows.append((token, parent, kind))
    tokens, parents, every = np.array(rows, np.int32).reshape(-1, 3).T.copy()
    return Draft(tokens, parents, kinds=every)


@dataclass(frozen=True)
class DraftRequest:
    """The text that guesses are wanted for.

    Attributes
    ----------
    prompt : int32 (n,)
    session : Any
        the target's: its capacity, vocabulary, layers
    sampler : Sampler
        the one that the target draws with
    tree : Tree | StaticTree | None
        the shape that is wanted; None: a chain
    sampled : bool
        the rule gains by guesses that were drawn, with their laws
    max_draft : int
        most guesses a round
    """

    prompt: np.ndarray
    session: Any
    sampler: Sampler
    tree: Tree | StaticTree | None = None
    sampled: bool = False
    max_draft: int = 8

    @property
    def source(self) -> np.ndarray:
        """What the text is written of, int32 (k,), where the model has an encoder: texts repeat it as they repeat a prompt."""
        source = getattr(self.session, "source", None)
        return np.empty(0, np.int32) if source is None else source


class DraftRun(Protocol):
    """Guesses for one text.

    A run some of whose guesses come from a pool of n-grams names their kinds in `pooled`: rounds count those that are
    accepted. A run that learns from wrong guesses too has `observe(chosen, drawn)` beside, called before `accept` under
    rule "coupled": of the last draft the guesses `chosen`, int (n,), were checked; `drawn`, int32 (n + 1,), is what the
    target drew after the seed and after each of them: after the seed alone, where there was no room for a draft. It
    holds until the session's next call. A run that can guess behind guesses of another, those of a constraint, has
    `propose_after(tokens, budget)`, which gives several paths of tokens, the best first.
    """

    def propose(self, budget: int) -> Draft:
        """At most `budget` guesses, 1 or more, at what follows the text; none is an answer too."""

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        """The text has grown.

        Parameters
        ----------
        tokens : Sequence[int]
            the new ones: at first the one that the prompt's last forward gave, then those of each round
        path : int32 (k,)
            the guesses of the last draft that are among them, in order; one token more follows them
        taps : Mapping[str, np.ndarray]
            hidden states, where the session gives some, of the rows that were accepted, the seed first: float32 (k + 1,
            width) each. Before, of the prompt's rows, forward by forward; there are no new tokens then until the last.
            They hold until the session's next call
        """


class Drafter(Protocol):
    """Frozen settings; `start` begins one text.

    One with `leaves_session` asks the request's session for nothing but its sizes, once a run has begun: its rounds
    take less time. One with `reads_hidden` gets "hidden" among the rows' taps: what the target's head read of each row.
    One with `taps` needs a session that has these, as `Model.generate` makes it. Where its guesses have kinds, `priors`
    is one pair a kind: how many guesses are taken to have been right and wrong before any was.
    """

    def start(self, request: DraftRequest) -> DraftRun: ...
