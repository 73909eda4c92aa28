"""What a text may be, token by token: a protocol, and how decoders follow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fastdistill.decode.allowed import allowed_tokens, early_tokens
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.messages import short

Copy = Callable[[list[int], int], Sequence[Sequence[int]]]
DEAD_END = "the constraint lets nothing follow what has been written, nor the text end there"
NARROW = 256  # tokens: what may follow is a mark or a name, no words of the text's own


@runtime_checkable
class Constraint(Protocol):
    """Says what may follow. A state is a value: nothing changes it, so that guesses fork it for nothing.

    Tokens that end a text are not its affair: they may come where `may_end` says so, and nowhere else.  It may have
    `guess(state, most)` beside, at most so many tokens that are likely to follow since little else may; they are checked as
    all guesses are.
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


class Node:
    """A place that a text may reach: a state, what is known of what may follow, and the places behind it that have been looked at."""

    __slots__ = ("_behind", "bits", "state")

    def __init__(self, state: Any) -> None:
        self.state = state
        self.bits: np.ndarray | None = None
        self._behind: dict[int, Node | None] = {}

    def behind(self, token: int, constraint: Constraint) -> Node | None:
        """The place behind one more token; None where it may not come."""
        if token not in self._behind:
            after = constraint.advance(self.state, token)
            self._behind[token] = None if after is None else Node(after)
        return self._behind[token]


class Guided:
    """Where one text that is being written stands, and guesses behind it.

    Parameters
    ----------
    constraint : Constraint
        what it may be
    ends : Set[int]
        tokens that end it
    vocab_size : int
        tokens that there are

    Attributes
    ----------
    here : Node
        the place behind what has been written
    """

    def __init__(self, constraint: Constraint, ends: Set[int], vocab_size: int) -> None:
        self._constraint, self._vocab_size = constraint, vocab_size
        self._ends = frozenset(token for token in ends if token < vocab_size)
        if not self._ends:
            raise ArgumentError(
                "a constraint needs a token that ends the text, and the model's files name none: give stop_token_ids"
            )
        self._ending: Any = allowed_tokens(sorted(self._ends), vocab_size)
        self._others = early_tokens(None, self._ends, vocab_size)
        self.here = Node(constraint.start())

    def write(self, tokens: Sequence[int]) -> None:
        """These have been written; what follows one that ends the text is no part of it."""
        for token in tokens:
            if token in self._ends:
                if not self._constraint.may_end(self.here.state):  # of a guess that nothing may follow: see `masks`
                    raise ArgumentError(DEAD_END)
                return
            self.here = self.advance(self.here, token)

    def advance(self, node: Node, token: int) -> Node:
        """The place behind one more token, which its mask has allowed."""
        after = node.behind(token, self._constraint)
        if after is None:
            raise ArgumentError(f"the constraint's mask allowed token {token}, and its advance refused it")
        return after

    def after(self, guesses: Sequence[int], parents: Sequence[int]) -> list[Node | None]:
        """The places behind the text and behind each guess, (1 + n): None where the constraint refuses it, or one before it.

        Behind a guess that would end the text there is none either.

        Parameters
        ----------
        guesses : Sequence[int]
            n tokens
        parents : Sequence[int]
            of each the number of the guess that it follows, -1 for the text; earlier ones come first
        """
        nodes: list[Node | None] = [self.here]
        for guess, parent in zip(guesses, parents, strict=True):
            before = nodes[parent + 1]
            nodes.append(None if before is None else self._goes_on(before, guess))
        return nodes

    def keeps(self, guesses: Sequence[int], parents: Sequence[int]) -> np.ndarray:
        """The numbers of the guesses that may come, int64, ascending."""
        nodes, kept = self.after(guesses, parents), list[int]()
        for number, (guess, parent) in enumerate(zip(guesses, parents, strict=True)):
            before = nodes[parent + 1]
            ends = guess in self._ends and before is not None and self._constraint.may_end(before.state)
            if ends or nodes[number + 1] is not None:
                kept.append(number)
        return np.array(kept, np.int64)

    def chain(self, most: int, copy: Copy | None, begins: bool) -> list[int]:
        """Guesses one after another: what the constraint leaves no choice in, and copies where it leaves little.

        Parameters
        ----------
        most : int
            of them
        copy : Callable[[list[int], int], Sequence[Sequence[int]]], optional
            (tokens behind the text, most) -> guesses behind those, several, of which the first is taken that may come
        begins : bool
            whether the first of them may be a copy
        """
        found, node = list[int](), self.here
        while len(found) < most:
            more = self.guess(node, most - len(found))
            if not more and copy is not None and (found or begins) and self._is_narrow(node):
                paths = copy(found, 1)
                more = next((path for path in paths if path and self._goes_on(node, path[0]) is not None), ())
            before = len(found)
            for token in more:
                after = self._goes_on(node, token)
                if after is None:
                    break
                node = after
                found.append(int(token))
            if len(found) == before:
                break
        return found

    def _goes_on(self, node: Node, token: int) -> Node | None:
        return None if token in self._ends else node.behind(token, self._constraint)

    def _is_narrow(self, node: Node) -> bool:
        """Whether few tokens may follow: marks and names, not words of the text's own."""
        return int(np.unpackbits(self._mask(node).view(np.uint8)).sum()) <= NARROW

    def guess(self, node: Node, most: int) -> Sequence[int]:
        """Tokens that are likely to follow, since the constraint leaves little else; it may be asked for them."""
        guess: Callable[[Any, int], Sequence[int]] | None = getattr(self._constraint, "guess", None)
        if guess is not None:
            return [int(token) for token in guess(node.state, most)][:most]
        found = list[int]()
        while len(found) < most:
            mask = self._mask(node)
            words = np.flatnonzero(mask)
            bits = int(mask[words[0]]) if len(words) == 1 else 0
            if bits == 0 or bits & (bits - 1):
                break
            token = 32 * int(words[0]) + bits.bit_length() - 1
            after = self._goes_on(node, token)
            if after is None:
                break
            node = after
            found.append(token)
        return found

    def masks(self, nodes: Sequence[Node | None]) -> np.ndarray:
        """What may follow each, uint32 (nodes, words); after one that is None, all: nobody will draw there.

        Where nothing may follow a guess, an end of the text stands for that: it is an error, if the text comes there.

        Raises
        ------
        ArgumentError
            where nothing may follow the first, and the text may not end there
        """
        every = np.full(self._others.shape, 0xFFFFFFFF, np.uint32)
        masks = [every if node is None else self._mask(node) for node in nodes]
        if not masks[0].any():
            raise ArgumentError(DEAD_END)
        return np.stack([mask if mask.any() else self._ending for mask in masks])

    def _mask(self, node: Node) -> np.ndarray:
        if node.bits is None:
            node.bits = self._allowed(node.state)
            if self._constraint.may_end(node.state):
                node.bits = node.bits | self._ending
        return node.bits

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
