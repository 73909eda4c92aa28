"""The rows of a lookahead step or of any tree: a line each, and who sees whom."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.errors import ArgumentError
from fastdistill.kernels import LookaheadLayout, tree_layout
from fastdistill.show.labels import check_label, spelt

MOST_SHOWN = 1 << 12  # 16 MB of text


def layout(layout: LookaheadLayout | np.ndarray, *, label: Callable[[int], str] | None = None) -> str:
    """A layout as text, one line a row: its position, what it is, its token, and which rows it sees.

    Parameters
    ----------
    layout : LookaheadLayout | np.ndarray
        LookaheadLayout, or the parents of a tree, int32 (n,), as tree_layout takes them; at most 4096 rows
    label : Callable[[int], str], optional
        the text of a token; by default its number. A token of -1 is blank in any case

    Returns
    -------
    str
        lines without a last line break

    Raises
    ------
    ArgumentError
    """
    if isinstance(layout, LookaheadLayout):
        tokens, parents, _, cells, branches = layout
    else:
        parents = as_array("layout", layout, np.int32, ("rows",))
        tokens = np.full(len(parents), -1, np.int32)
        cells = branches = np.empty((0, 0), np.int32)
    check_label(label)
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
    texts = ["" if token == -1 else spelt(token, label) for token in tokens.tolist()]

    # Seen rows stand in groups: the seed, each level, each guess; of a tree, the nodes below the seed.
    begins = [row for row in range(count) if row == 0 or roles[row][0][0] != roles[row - 1][0][0]]
    groups = list(zip(begins, [*begins[1:], count], strict=True))
    marks = np.where(tree.visible, "#", ".")
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


def _roles(parents: np.ndarray, cells: np.ndarray, branches: np.ndarray) -> list[list[tuple[str, str]]]:
    """Of each row what it stands for, one thing or several: the group, and the place within it."""
    roles: list[list[tuple[str, str]]] = [[] for _ in parents]
    roles[0].append(("seed", ""))
    for (level, column), row in np.ndenumerate(cells):
        roles[row].append((f"window level {level}", f"column {column}"))
    for (guess, index), row in np.ndenumerate(branches):
        roles[row].append((f"guess {guess}", f"token {index}"))
    return [own or [("node", f"below {parent}")] for own, parent in zip(roles, parents, strict=True)]
