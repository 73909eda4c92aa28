"""What a forward is asked for, as one value, and what decoders may ask of a session."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np

from fastdistill.arguments import check_integers
from fastdistill.errors import CapacityError
from fastdistill.runtime.read import STATISTICS_ONLY, Read, Rows, check_read

_P = ParamSpec("_P")
_S = TypeVar("_S")
Then = Callable[[np.ndarray, Mapping[str, np.ndarray]], tuple[int, np.ndarray] | None]


@dataclass(frozen=True)
class Forward:
    """Rows to run through a model, and what to read of them.

    Parameters
    ----------
    tokens : np.ndarray (m,), optional
        token ids
    inputs : Mapping[str, np.ndarray], optional
        in their place: {"embedding": float32 (m, hidden_size)}
    parents : Sequence[int] | range | np.ndarray, optional
        one entry a new node: a node it sees, with all that one sees; -1: the committed context alone. Default: a chain
    nodes : np.ndarray (m,), optional
        the node of each row: rows of one node see each other. New nodes are numbered on from the pending ones. Default:
        one node a row
    positions : np.ndarray (m,), optional
        default: the depth of the row, never its flat index
    replace : tuple[int, int], optional
        (start, end): committed rows that these rows do not see, and whose place `keep` gives them
    rows : str | Sequence[int] | np.ndarray, default "all"
        which rows to read: "all", "last" or indices
    layers : tuple[int, int], optional
        (a, b): run layers a .. b - 1 only. From 0 the rows stay pending; (b, L) without tokens takes all pending rows
        on from there. What is read has passed the final norm and the head in any case
    read : Read, optional
        what to give beside the statistics
    out : float32 (reads, vocab_size), optional
        receives the logits in place of an array of the call's own
    ahead : int, default 0
        of a chain of one token: go on up to so many times with the token drawn, as forwards of their own would; what is
        read is then a row each. Only where the head draws (see `draws_alone`)
    until : frozenset[int], optional
        tokens after which it does not go on
    then : Callable, optional
        of a chain whose rows are all read: go on by what this says, and `ahead` is how many rows more there may be in
        all. Called after each pass with what its rows drew, int32 (rows,), and their hidden states by name, float32 (rows,
        width): the session's taps, and "hidden" where that is asked for. They hold until it returns. It gives how many
        of the rows stay, from the first, and the tokens of the next pass, which may be none; or None: all stay, and
        nothing follows. What is given are the rows of the last pass

    Notes
    -----
    Rows given with `parents`, `nodes`, `replace` or `layers` are pending until `keep`; a plain chain is committed at
    once.
    """

    tokens: Sequence[int] | np.ndarray | None = None
    inputs: Mapping[str, np.ndarray] | None = None
    parents: Sequence[int] | range | np.ndarray | None = None
    nodes: Sequence[int] | np.ndarray | None = None
    positions: Sequence[int] | np.ndarray | None = None
    replace: tuple[int, int] | None = None
    rows: str | Sequence[int] | np.ndarray = "all"
    layers: tuple[int, int] | None = None
    read: Read = STATISTICS_ONLY
    out: np.ndarray | None = None
    ahead: int = 0
    until: frozenset[int] = frozenset()
    then: Then | None = None

    @property
    def goes_on(self) -> bool:
        """Whether more rows are asked for than these."""
        return not (type(self.ahead) is int and self.ahead == 0)

    @property
    def is_chain(self) -> bool:
        """Whether the rows are committed at once."""
        return self.parents is None and self.nodes is None and self.replace is None and self.layers is None


def _by_fields(
    make: Callable[_P, Forward],
) -> Callable[[Callable[[_S, Forward], Rows]], Callable[Concatenate[_S, _P], Rows]]:
    """Let a method that takes a Forward be called with the Forward's fields: they are written once, above."""

    def decorate(method: Callable[[_S, Forward], Rows]) -> Callable[Concatenate[_S, _P], Rows]:
        @wraps(method)
        def call(self: _S, *arguments: _P.args, **named: _P.kwargs) -> Rows:
            return method(self, make(*arguments, **named))

        own, *_ = inspect.signature(method).parameters.values()
        fields = inspect.signature(make)
        call.__signature__ = fields.replace(  # type: ignore[attr-defined]
            parameters=[own, *fields.parameters.values()], return_annotation="Rows"
        )
        return call

    return decorate


class SessionLike(Protocol):
    """One sequence, as decoders know it: of a model, over a function, or anything else that has all this.

    Attributes
    ----------
    vocab_size : int
        columns of the logits
    capacity : int
        most committed tokens
    limit : str
        what errors add where the model itself has no more room
    max_rows : int
        most rows of one forward
    length : int
        committed tokens
    pending : int
        how many rows are pending
    tokens : int32 (length,)
        the committed ones
    causal : bool
        rows see what is before them, else each other: one node a forward
    block : int
        of a model of blocks: positions of one, counted from 0, whose rows see each other and those before; 0: it is none
    mask_token : int | None
        what stands where a masked diffusion model is to write; None: it is none
    logit_shift : int
        1: row i of a masked diffusion model predicts position i + 1, not its own
    source : int32 (n,) or None
        of a model with an encoder: tokens that it has read, and that every row attends to; None: there are none
    writer : object
        whoever writes a text here: a text asks whether it still is the one
    runs_ahead : bool
        it knows `Forward.ahead`
    runner : Runner | None
        runs forwards of several sessions in one pass; None: each by itself
    """

    vocab_size: int
    capacity: int
    limit: str = ""
    max_rows: int
    causal: bool = True
    block: int = 0
    mask_token: int | None = None
    logit_shift: int = 0
    writer: object = None
    runs_ahead: bool = False
    runner: Runner | None = None

    @property
    def source(self) -> np.ndarray | None:
        return None

    @property
    def length(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def tokens(self) -> np.ndarray: ...

    def run(self, asked: Forward) -> Rows:
        """Run rows through the model.

        Raises
        ------
        ArgumentError
        CapacityError
        BusyError
        NotFiniteError
            (the session is then as it was before the call)
        """
        ...

    @_by_fields(Forward)
    def forward(self, asked: Forward) -> Rows:
        """Run rows through the model: `run` of the Forward that has these fields; see `Forward` for each."""
        return self.run(asked)

    def prefill(self, tokens: Sequence[int] | np.ndarray, read: Read = STATISTICS_ONLY) -> Rows:
        """Commit a chain of any length, in chunks of max_rows; reads the last row.

        Raises
        ------
        BusyError
        NotFiniteError
            as `forward`
        ArgumentError
        CapacityError
            before anything has run
        """
        ids = check_integers("tokens", tokens, 0, self.vocab_size - 1)
        check_read(read, 1, self.vocab_size)
        if self.length + len(ids) > self.capacity:
            raise CapacityError(
                f"{len(ids)} tokens after {self.length} do not fit a capacity of {self.capacity}{self.limit}"
            )
        last = (len(ids) - 1) // self.max_rows * self.max_rows
        for start in range(0, last, self.max_rows):
            self.run(Forward(ids[start : start + self.max_rows], rows=()))
        return self.run(Forward(ids[last:], rows="last", read=read))

    def keep(self, indices: Sequence[int] | range | np.ndarray) -> None:
        """Commit these pending rows, in this order: a path from the root; forget the others.

        Raises
        ------
        ArgumentError
            when a row's ancestors are not kept before it, or it has not run through all layers
        """
        ...

    def truncate(self, length: int) -> None:
        """Forget committed rows from `length` on, and all pending ones."""
        ...

    def common_prefix(self, tokens: np.ndarray) -> int:
        """How many of these tokens, from the first, are committed as a text is: in place, and each after reading the others."""
        ...

    def fork(self) -> SessionLike:
        """A session of its own with the same committed rows; pending rows stay behind."""
        ...


class Runner(Protocol):
    """What runs forwards of several sessions of one model."""

    def run(self, requests: Sequence[tuple[Any, Forward]]) -> list[Rows | Exception]:
        """What each gives, or the error that it alone ends in."""
        ...
