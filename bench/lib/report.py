"""What a bench found: a table to read, and the same as JSON."""

from __future__ import annotations

from typing import Any

from bench.lib.timing import Samples

NOISY = 0.2  # distance of the quartiles, as a part of the median


class Report:
    """Rows of named cells (a number, text, or Samples), in one table or several, and what was skipped."""

    def __init__(self, about: str, markdown: bool = False) -> None:
        self.about = about.strip()
        self.markdown = markdown  # tables to paste into a page
        self.tables: dict[str, list[dict[str, Any]]] = {"": []}  # by title
        self.notes: list[str] = []
        self.skipped: list[str] = []

    def row(self, **cells: Any) -> None:
        """One line of the latest table; columns come in the order of their first use, `of_one` as "of one"."""
        rows = list(self.tables.values())[-1]
        rows.append({name.replace("_", " ") if name.isidentifier() else name: cell for name, cell in cells.items()})

    def table(self, title: str) -> None:
        """Rows from here on stand in a table of their own."""
        self.tables[title] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def skip(self, what: str, reason: str) -> None:
        self.skipped.append(f"{what}: {reason}")

    def as_dict(self) -> dict[str, Any]:
        tables = {
            title: [
                {name: cell.as_dict() if isinstance(cell, Samples) else cell for name, cell in row.items()}
                for row in rows
            ]
            for title, rows in self.tables.items()
        }
        return {"about": self.about, "rows": tables.pop(""), **tables, "notes": self.notes, "skipped": self.skipped}

    def text(self) -> str:
        """The tables: medians with their quartiles; `~` marks what spread too far."""
        lines = [self.about]
        for title, rows in self.tables.items():
            between = [""] if self.markdown else []
            lines += ["", *([title, *between] if title else []), *_lines(rows, self.markdown)]
        lines += ["", *self.notes] if self.notes else []
        lines += [f"skipped  {reason}" for reason in self.skipped]
        cells = [cell for rows in self.tables.values() for row in rows for cell in row.values()]
        if any(isinstance(cell, Samples) and cell.spread > NOISY for cell in cells):
            lines.append(f"~ quartiles more than {NOISY:.0%} of the median apart: run it again on a quieter machine")
        return "\n".join(lines)


def _lines(rows: list[dict[str, Any]], markdown: bool) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = [columns] + [[_text(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    if markdown and columns:
        padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in table]
        padded.insert(1, ["-" * width for width in widths])
        return [f"| {' | '.join(line)} |" for line in padded]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _text(cell: Any) -> str:
    if isinstance(cell, Samples):
        low, high = cell.quartiles
        return f"{'~' if cell.spread > NOISY else ''}{_number(cell.median)} ({_number(low)}-{_number(high)})"
    return _number(cell) if isinstance(cell, float) else str(cell)


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
