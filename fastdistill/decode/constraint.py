"""What a text may be, token by token: a protocol, and how decoders follow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fastdistill.decode.allowed import allowed_tokens, early_tokens
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.messages import short


@runtime_checkable
class Constraint(Protocol):
    """Says what may follow. A state is a value: nothing changes it, so that guesses fork it for nothing.

    Tokens that end a text are not its affair: they may come where `may_end` says so, and nowhere else.
    """

    def start(self) -> Any:
        """The state before the first token; None is not one."""

    def advance(self, state: Any, token: int) -> Any | None:
        """The state after one more token; None where it may not come."""

    def mask(self, state: Any) -> Any:
        """The tokens that may follow: ids, a bool array (vocab_size,), bits as uint32 (ceil(vocab_size / 32),), or None for all."""

    def may_end(self, state: Any) -> bool:
        """Whether the text may end here."""


class Grammar(Protocol):
    """What is a constraint for the tokens of one model: `bound` makes that."""

    def bound(self, tokenizer: Any, vocab_size: int) -> Constraint:
        """
        Parameters
        ----------
        tokenizer : Tokenizer
            the model's
        vocab_size : int
            columns of its logits, some perhaps without a text
        """


class Guesses(Protocol):
    """What a constraint may have beside: guesses at what it leaves no choice in. They are checked as all guesses are."""

    def guess(self, state: Any, most: int) -> Sequence[int]:
        """At most so many tokens that are likely to follow, since little else may."""


class Guided:
    """The state of one text that is being written, and of guesses behind it.

    Parameters
    ----------
    constraint : Constraint
        what it may be
    ends : Set[int]
        tokens that end it
    vocab_size : int
        tokens that there are
    """

    def __init__(self, constraint: Constraint, ends: Set[int], vocab_size: int) -> None:
        self._constraint, self._vocab_size = constraint, vocab_size
        self._ends = frozenset(token for token in ends if token < vocab_size)
        if not self._ends:
            raise ArgumentError(
                "a constraint needs a token that ends the text, and the model's files name none: give stop_token_ids"
            )
        self._ending = allowed_tokens(sorted(self._ends), vocab_size)
        self._others = early_tokens(None, self._ends, vocab_size)
        self.state = constraint.start()

    def write(self, tokens: Sequence[int]) -> None:
        """These have been written; what follows one that ends the text is no part of it."""
        for token in tokens:
            if token in self._ends:
                return
            self.state = self.advance(self.state, token)

    def advance(self, state: Any, token: int) -> Any:
        """The state behind one more token, which its mask has allowed."""
        after = self._constraint.advance(state, token)
        if after is None:
            raise ArgumentError(f"the constraint's mask allowed token {token}, and its advance refused it")
        return after

    def after(self, guesses: Sequence[int], parents: Sequence[int]) -> list[Any]:
        """The states behind the text and behind each guess, (1 + n): None where the constraint refuses it, or one before it.

        Behind a guess that would end the text there is none either.

        Parameters
        ----------
        guesses : Sequence[int]
            n tokens
        parents : Sequence[int]
            of each the number of the guess that it follows, -1 for the text; earlier ones come first
        """
        states = [self.state]
        for guess, parent in zip(guesses, parents, strict=True):
            before = states[parent + 1]
            states.append(None if before is None or guess in self._ends else self._constraint.advance(before, guess))
        return states

    def keeps(self, guesses: Sequence[int], parents: Sequence[int]) -> np.ndarray:
        """The numbers of the guesses that may come, int64, ascending."""
        states = self.after(guesses, parents)
        return np.array(
            [
                i
                for i, (guess, parent) in enumerate(zip(guesses, parents, strict=True))
                if states[i + 1] is not None
                or (guess in self._ends and states[parent + 1] is not None and self._constraint.may_end(states[parent + 1]))
            ],
            np.int64,
        )  # fmt: skip

    def chain(
        self, most: int, copy: Callable[[list[int], int], Sequence[Sequence[int]]] | None, begins: bool
    ) -> list[int]:
        """Guesses one after another: what the constraint leaves no choice in, and between, what a drafter copies, as far as that may come.

        Parameters
        ----------
        most : int
            of them
        copy : Callable[[list[int], int], Sequence[Sequence[int]]], optional
            (tokens behind the text, most) -> guesses behind those, several, of which the first is taken that may come
        begins : bool
            whether the first of them may be a copy
        """
        found, state = list[int](), self.state
        while len(found) < most:
            paths: Sequence[Sequence[int]] = [self.guess(state, most - len(found))]
            if not paths[0] and copy is not None and (found or begins):
                paths = copy(found, most - len(found))
            before = len(found)
            for token in next((path for path in paths if path and self._goes_on(state, path[0])), ()):
                if not self._goes_on(state, token):
                    break
                state = self._constraint.advance(state, token)
                found.append(int(token))
            if len(found) == before:
                break
        return found

    def _goes_on(self, state: Any, token: int) -> bool:
        return token not in self._ends and self._constraint.advance(state, token) is not None

    def guess(self, state: Any, most: int) -> list[int]:
        """Tokens that are likely to follow a state, since the constraint leaves little else; it may be asked for them."""
        guess: Callable[[Any, int], Sequence[int]] | None = getattr(self._constraint, "guess", None)
        if guess is not None:
            return [int(token) for token in guess(state, most)][:most]
        found = list[int]()
        while len(found) < most and not self._constraint.may_end(state):
            allowed = self._allowed(state)
            words = np.flatnonzero(allowed)
            bits = int(allowed[words[0]]) if len(words) == 1 else 0
            if bits == 0 or bits & (bits - 1):
                break
            found.append(32 * int(words[0]) + bits.bit_length() - 1)
            state = self._constraint.advance(state, found[-1])
            if state is None:
                break
        return found

    def masks(self, states: Sequence[Any]) -> np.ndarray:
        """What may follow each, uint32 (states, words); after one that is None, all: nobody will draw there.

        Raises
        ------
        ArgumentError
            where nothing may follow one, and the text may not end there
        """
        every = np.full(self._others.shape, 0xFFFFFFFF, np.uint32)
        return np.stack([every if state is None else self._mask(state) for state in states])

    def _allowed(self, state: Any) -> np.ndarray:
        """Tokens that go on with the text, as bits."""
        allowed = self._constraint.mask(state)
        if allowed is None:
            return self._others
        if isinstance(allowed, np.ndarray) and allowed.dtype == np.uint32:
            if allowed.shape != self._others.shape:
                raise ArgumentError(
                    f"a constraint's mask of bits must be uint32 {self._others.shape}, got {allowed.shape}"
                )
            return allowed & self._others
        empty = not np.any(allowed) if isinstance(allowed, np.ndarray) and allowed.dtype == bool else len(allowed) == 0
        return np.zeros_like(self._others) if empty else allowed_tokens(allowed, self._vocab_size) & self._others

    def _mask(self, state: Any) -> np.ndarray:
        allowed = self._allowed(state)
        if self._constraint.may_end(state):
            allowed = allowed | self._ending
        if not allowed.any():
            raise ArgumentError("the constraint lets nothing follow what has been written, nor the text end there")
        return allowed


def check_follows(decoder: Any) -> None:
    """
    Raises
    ------
    UnsupportedError
        for a decoder that does not follow a constraint
    """
    if not getattr(decoder, "takes_constraint", False):
        raise UnsupportedError(
            f"{type(decoder).__name__} does not write under a grammar: Autoregressive, Speculative, Auto, Jacobi, Lookahead and BeamSearch do"
        )


def check_constraint(constraint: Any) -> Constraint:
    """
    Raises
    ------
    ArgumentError
        for what has not the methods of one
    """
    if isinstance(constraint, type) or not isinstance(constraint, Constraint):
        raise ArgumentError(
            f"a grammar is one such as JsonSchema({{...}}), or has the methods start, advance, mask and may_end, got {short(constraint)}"
        )
    return constraint
