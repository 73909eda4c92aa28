"""The rows of a lookahead step, and a drawing of who sees whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_integer
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import const, lib, pointer
from fastdistill.kernels.verify.tree_layout import TreeLayout, tree_layout
from fastdistill.messages import short

MOST_ROWS = 1 << 16
MOST_SHOWN = 1 << 12  # 16 MB of text


class LookaheadLayout(NamedTuple):
    """A lookahead step as one tree: the seed, then the window level by level, then the guesses one after another.

    tokens     int32 (rows,)                -1 where only counts were given
    parents    int32 (rows,)                -1 for the seed, else an earlier row
    positions  int32 (rows,)                depths, the seed's is 0
    cells      int32 (levels, columns)      the row of each cell of the window
    branches   int32 (guesses, ngram - 1)   the row of each token of a guess
    """

    tokens: np.ndarray
    parents: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    branches: np.ndarray

    @property
    def visible(self) -> np.ndarray:
        """bool (rows, rows): whether row r sees row c, that is, whether c is r or above it."""
        return _visible(tree_layout(self.parents))


def lookahead_layout(
    window: int | np.ndarray, ngram: int, guesses: int | np.ndarray, *, seed: int = -1
) -> LookaheadLayout:
    """Seed, window and guesses of a lookahead step as one tree: a row sees its ancestors and itself.

    The token of window level l, column i stands at position 1 + i + l after the seed.  It sees the seed, level 0 up to column
    i, and its own column above it.  A guess sees the seed and its own tokens.  Where tokens are given, of one or
    both, rows with one parent and one token have one context and stand once, the first of them; a row may then belong to cells
    and guesses alike.

    window   how many columns, of ngram - 1 levels; or their tokens, int32 (levels, columns), levels <= ngram - 1
    ngram    2..64
    guesses  how many; or their tokens, int32 (guesses, ngram - 1)
    seed     the token of row 0
    returns  LookaheadLayout
    raises   ArgumentError; also where one of window and guesses is tokens and the other a count above 0, and where there are
             more than 65536 rows before any are merged
    source   Fu et al. 2024, Lookahead Decoding, arXiv 2402.02057
    """
    length = check_integer("ngram", ngram, 2, 64) - 1
    seed = check_integer("seed", seed, -(2**31), 2**31 - 1)
    given, arrays = {"window": window, "guesses": guesses}, (np.ndarray, list, tuple)
    counts = {name: check_integer(name, n, 0, MOST_ROWS) for name, n in given.items() if not isinstance(n, arrays)}
    merged = len(counts) < 2
    cell_tokens = np.full((length, counts["window"]), -1, np.int32) if "window" in counts else window
    branch_tokens = np.full((counts["guesses"], length), -1, np.int32) if "guesses" in counts else guesses
    cell_tokens = as_array("window", cell_tokens, np.int32, ("levels", "columns"))
    branch_tokens = as_array("guesses", branch_tokens, np.int32, ("guesses", length))
    (levels, columns), branch_count = cell_tokens.shape, len(branch_tokens)
    for name, count in counts.items():
        if merged and count > 0:
            wanted = "window and guesses must be tokens both or counts both, or one a count of 0"
            raise ArgumentError(f"{wanted}; got tokens and {name} = {count}")
    if levels > length:
        raise ArgumentError(f"window must have at most ngram - 1 = {length} levels, got {levels}")
    rows = 1 + levels * columns + branch_count * length
    if rows > MOST_ROWS:
        raise ArgumentError(f"window and guesses must make at most {MOST_ROWS} rows with the seed, got {rows}")
    tokens, parents, positions = (np.empty(rows, np.int32) for _ in range(3))
    cells, branches = np.empty((levels, columns), np.int32), np.empty((branch_count, length), np.int32)
    first_child, next_sibling = (np.empty(rows, np.int32) if merged else None for _ in range(2))
    found = lib.fd_lookahead_layout(
        levels, columns, branch_count, length, const(cell_tokens), const(branch_tokens), seed, pointer(tokens), pointer(parents),
        pointer(positions), pointer(cells), pointer(branches), pointer(first_child), pointer(next_sibling),
    )  # fmt: skip
    return LookaheadLayout(tokens[:found], parents[:found], positions[:found], cells, branches)


def show_layout(layout: LookaheadLayout | np.ndarray, *, label: Callable[[int], str] | None = None) -> str:
    """A layout as text, one line a row: its position, what it is, its token, and which rows it sees.

    layout   LookaheadLayout, or the parents of a tree, int32 (n,), as tree_layout takes them; at most 4096 rows
    label    the text of a token; by default its number.  A token of -1 is blank in any case
    returns  lines without a last line break
    raises   ArgumentError
    """
    if isinstance(layout, LookaheadLayout):
        tokens, parents, _, cells, branches = layout
    else:
        parents = as_array("layout", layout, np.int32, ("rows",))
        tokens = np.full(len(parents), -1, np.int32)
        cells = branches = np.empty((0, 0), np.int32)
    if label is not None and not callable(label):
        raise ArgumentError(f"label must be a function from a token to its text, got {short(label)}")
    parents = as_array("layout.parents", parents, np.int32, ("rows",))
    count = len(parents)
    tokens = as_array("layout.tokens", tokens, np.int32, (count,))
    cells, branches = (
        as_array(f"layout.{name}", rows, np.int32, ("levels", "columns") if name == "cells" else ("guesses", "tokens"))
        for name, rows in (("cells", cells), ("branches", branches))
    )
    for name, rows in (("cells", cells), ("branches", branches)):
        if rows.size and not (rows.min() >= 0 and rows.max() < count):
            raise ArgumentError(f"layout.{name} must hold rows in 0..{count - 1}, got {rows.min()}..{rows.max()}")
    if count > MOST_SHOWN:
        raise ArgumentError(f"layout must have at most {MOST_SHOWN} rows to be shown, got {count}")
    tree = tree_layout(parents)
    roles = _roles(parents, cells, branches)
    names = [" ".join(role).rstrip() for role, *_ in roles]
    texts = ["" if t == -1 else str(t) if label is None else printable(str(label(t))) for t in tokens.tolist()]

    # Seen rows stand in groups: the seed, each level, each guess; of a tree, the nodes below the seed.
    begins = [row for row in range(count) if row == 0 or roles[row][0][0] != roles[row - 1][0][0]]
    groups = list(zip(begins, [*begins[1:], count], strict=True))
    marks = np.where(_visible(tree), "#", ".")
    digits = len(str(count - 1))
    numbers = np.array([list(f"{row:>{digits}}") for row in range(count)]).T  # (digits, count)

    def grouped(characters: np.ndarray) -> str:
        return " ".join("".join(characters[begin:end]) for begin, end in groups)

    name_width = max(map(len, names))
    text_width = max(5, *map(len, texts)) if any(texts) else 0
    align = ">" if label is None else "<"

    def line(row: str, position: str, name: str, text: str, sees: str) -> str:
        token = f"  {text:{align}{text_width}}" if text_width else ""
        return f"{row:>{max(3, digits)}}  {position:>8}  {name:<{name_width}}{token}  {sees}".rstrip()

    lines = [line("", "", "", "", grouped(number)) for number in numbers]
    lines[-1] = line("row", "position", "what", "token", grouped(numbers[-1]))
    lines.insert(0, line("", "", "", "", "sees row: # yes, . no"))
    for row, position in enumerate(tree.depths):
        others = ", ".join(" ".join(role) for role in roles[row][1:])
        sees = grouped(marks[row]) + (f"  also {others}" if others else "")
        lines.append(line(str(row), str(position), names[row], texts[row], sees))
    return "\n".join(lines)


def _visible(tree: TreeLayout) -> np.ndarray:
    """bool (n, n), from the bits of ancestors."""
    octets = tree.ancestors.astype("<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=len(octets), bitorder="little").view(bool)


def _roles(parents: np.ndarray, cells: np.ndarray, branches: np.ndarray) -> list[list[tuple[str, str]]]:
    """Of each row what it stands for, one thing or several: the group, and the place within it."""
    roles: list[list[tuple[str, str]]] = [[] for _ in parents]
    roles[0].append(("seed", ""))
    for (level, column), row in np.ndenumerate(cells):
        roles[row].append((f"window level {level}", f"column {column}"))
    for (guess, index), row in np.ndenumerate(branches):
        roles[row].append((f"guess {guess}", f"token {index}"))
    return [own or [("node", f"below {parent}")] for own, parent in zip(roles, parents, strict=True)]


def printable(text: str) -> str:
    """One line of it: what does not print is written as Python writes it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
