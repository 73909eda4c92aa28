"""What an op of a plan is, said once: executors, lowering, packing, profile, docs and tests read it here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Protocol

import numpy as np

# What a weight is to its op.
MATRIX = "matrix"  # rows are multiplied by it; may be quantised, and then its op's first input is quantised too
TABLE = "table"  # rows of it are looked up
BIAS = "bias"  # of the matrix before it, which holds it when packed; may be left out
VECTOR = "vector"  # one axis, float32
# What an op adds to, in place of making a value: the gradient of a weight.
MATRIX_SUM = "matrix sum"
VECTOR_SUM = "vector sum"
SUMS = MATRIX_SUM, VECTOR_SUM

OWN = "own"  # the set of keys and values that a model's rows store for themselves and those after them
# Of a model that reads a source: its encoder's own, which nobody needs afterwards, and what the decoder's rows attend to.
ENCODE, CROSS = "encode", "cross"

Width = Callable[[Sequence[int], Sequence[tuple[int, ...]], Mapping[str, Any]], int]


def same_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    """That of the inputs, which all have one; so have weights."""
    assert {*widths, *(shape[-1] for shape in shapes)} == {widths[0]}, (widths, shapes)
    return widths[0]


def matrix_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    """Of a matrix times the input: the matrix's outputs."""
    (outputs, inputs), *biases = shapes
    assert [inputs] == list(widths) and biases in ([], [(outputs,)]), (widths, shapes)
    return outputs


class Keys(Protocol):
    """Keys and values that rows of a pass see, as a reference knows them: see `runtime.forward_pass.KeySet`."""

    @property
    def slots(self) -> np.ndarray: ...
    @property
    def nodes(self) -> np.ndarray: ...
    @property
    def caches(self) -> Sequence[Any]: ...
    def visible(self, node: int) -> np.ndarray: ...


class PassRows(Protocol):
    """The rows of a pass, as a reference knows them: see `runtime.forward_pass.ForwardPass`."""

    @property
    def tokens(self) -> np.ndarray | None: ...
    @property
    def inputs(self) -> np.ndarray | None: ...
    @property
    def positions(self) -> np.ndarray: ...
    @property
    def sequences(self) -> np.ndarray: ...
    @property
    def read_rows(self) -> np.ndarray: ...
    def keys(self, name: str) -> Keys | None: ...


def token_column(request: PassRows, column: int) -> np.ndarray:
    """int32 (rows,): one of the tokens that each row has."""
    assert request.tokens is not None
    return request.tokens.reshape(-1, len(request.positions))[column]


class Reverse(Protocol):
    """What an adjoint says of an op, written down by `fastdistill.train.differentiate`.

    Values are those of the forward; an adjoint need not know whether they have been kept or are made again.
    """

    def wants(self, value: int) -> bool:
        """Whether anybody asks for the gradient by a value."""
        ...

    def trains(self, weight: str) -> bool:
        """Whether anybody asks for the gradient by a weight."""
        ...

    def op(self, kind: str, *inputs: int, weights: Sequence[str] = (), **constants: Any) -> int:
        """One more op, and the value that it makes."""
        ...

    def give(self, value: int, gradient: int) -> None:
        """A part of the gradient by a value, in its shape; parts are summed."""
        ...

    def give_product(self, value: int, gradient: int, matrix: str) -> None:
        """The same: gradient times a matrix (outputs, inputs). Products for one value become one op."""
        ...


@dataclass(frozen=True)
class StepKind:
    """One op of C: a line of csrc/ops.h, of the same name.

    Parameters
    ----------
    name : str
        as there
    inputs : tuple[int, ...], optional
        which of the op's inputs it reads; None: all. Where the op lacks one of them, it has no such step
    writes : bool, default True
        makes the op's value
    row_wise : bool, default False
        treats each row on its own: neighbours of such steps run without a barrier between them
    joins : bool, default False
        steps of this kind over the same value are one step in C, with all their weights and outputs
    reads_weights : bool, default False
        reads all of its weights, which have to come from memory
    adds_products : bool, default False
        adds products of rows' numbers to all numbers of its weights' gradients
    reads_keys : bool, default False
        reads the keys and values that rows see, which have to come from memory
    """

    name: str
    inputs: tuple[int, ...] | None = None
    writes: bool = True
    row_wise: bool = False
    joins: bool = False
    reads_weights: bool = False
    adds_products: bool = False
    reads_keys: bool = False


@dataclass(frozen=True)
class Table:
    """What an op's steps read beside its inputs, made once a pass for each value of one of the op's constants.

    Parameters
    ----------
    step : StepKind
        that makes it
    constant : str
        whose value tells one table from another
    widths : Callable[[Mapping[str, Any]], tuple[int, ...]]
        of the constants: floats a row of each value that the step makes
    """

    step: StepKind
    constant: str
    widths: Callable[[Mapping[str, Any]], tuple[int, ...]]


@dataclass(frozen=True)
class OpKind:
    """What an op is.

    Parameters
    ----------
    name : str
        as in `Op.kind`
    meaning : str
        in a line: x, y, z are its inputs, w and b its weights; constants have their own names
    reference : Callable[..., np.ndarray | None]
        what it means, in NumPy: (*inputs, *weights, **constants) -> (rows, width), or None where it makes no value. Inputs are float32 (rows, width), a
        matrix or table is a Tensor, other weights are float32. With `of_pass` it also gets `request`, the PassRows
    of_pass : bool, default False
        it needs to know the rows: their tokens, positions, or who sees whom
    inputs : tuple[int, ...], optional
        how many values it reads; more than one number: any of them
    weights : tuple[str, ...], default ()
        roles of its weights: MATRIX, TABLE, BIAS, VECTOR. One of SUMS: it makes no value, but adds to the gradient of this
        weight, an array of its shape that the reference gets and writes to
    repeated : bool, default False
        it has any number of weights: these roles over and over
    constants : Mapping[str, str], optional
        name -> the field of C's struct fd_op that it goes to; "vectors": an array, after the weights of one axis;
        "": none, C knows it by the value's width
    width : Width, optional
        floats a row of its value, of (widths of inputs, shapes of weights, constants)
    steps : tuple[StepKind, ...], default ()
        what it becomes in C, in order; (): one row-wise step of the same name
    table : Table, optional
        what these steps read beside its inputs
    epilogue : tuple[str, int], optional
        (name in C's enum fd_epilogue, n): where its last n inputs are the n outputs of one linear, it can be that
        linear's end
    writes_over : int, optional
        the input that its value may be written over, element by element; None: none
    quantises : bool, default False
        its step can write the int8 form of its value as well
    selects : bool, default False
        its rows are those that are read, and so are those of all that is made of them
    spreads : bool, default False
        its rows are all, though its input's are those that are read
    adjoint : Callable[[Reverse, Op, int], None], optional
        its gradient, as ops: given the op and the gradient by its value. None: it has none
    """

    name: str
    meaning: str
    reference: Callable[..., Any]
    of_pass: bool = False
    inputs: tuple[int, ...] = (1,)
    weights: tuple[str, ...] = ()
    repeated: bool = False
    constants: Mapping[str, str] = field(default_factory=dict)
    width: Width = same_width
    steps: tuple[StepKind, ...] = ()
    table: Table | None = None
    epilogue: tuple[str, int] | None = None
    writes_over: int | None = None
    quantises: bool = False
    selects: bool = False
    spreads: bool = False
    adjoint: Callable[[Reverse, Any, int], None] | None = None

    def __post_init__(self) -> None:
        if not self.steps:
            object.__setattr__(self, "steps", (StepKind(self.name, row_wise=True),))

    def roles(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """(role, name) of an op's weights, of which the last may be left out."""
        return zip(cycle(self.weights) if self.repeated else self.weights, names, strict=False)

    def sum_of(self, names: Iterable[str]) -> str | None:
        """The weight whose gradient an op adds to; None where it makes a value."""
        return next((name for role, name in self.roles(names) if role in SUMS), None)

    def matrices(self, names: Iterable[str]) -> list[str]:
        """Those of an op's weights that its first input is multiplied by."""
        return [name for role, name in self.roles(names) if role == MATRIX]
