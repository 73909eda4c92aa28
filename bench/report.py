"""What a bench found: a table to read, and the same as JSON."""

from __future__ import annotations

from typing import Any

from bench.timing import Samples

NOISY = 0.2  # distance of the quartiles, as a part of the median


class Report:
    """Rows of named cells (a number, text, or Samples), and what was skipped."""

    def __init__(self, about: str) -> None:
        self.about = about.strip()
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.skipped: list[str] = []

    def row(self, **cells: Any) -> None:
        """One line of the table; columns come in the order of their first use, with spaces for underscores."""
        self.rows.append({name.replace("_", " "): value for name, value in cells.items()})

    def note(self, text: str) -> None:
        self.notes.append(text)

    def skip(self, what: str, reason: str) -> None:
        self.skipped.append(f"{what}: {reason}")

    def as_dict(self) -> dict[str, Any]:
        rows = [
            {name: cell.as_dict() if isinstance(cell, Samples) else cell for name, cell in row.items()}
            for row in self.rows
        ]
        return {"about": self.about, "rows": rows, "notes": self.notes, "skipped": self.skipped}

    def text(self) -> str:
        """The table: medians with their quartiles; `~` marks what spread too far."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        table = [columns] + [[_text(row.get(name, "")) for name in columns] for row in self.rows]
        widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
        lines = [self.about, ""]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
        ]
        lines += ["", *self.notes] if self.notes else []
        lines += [f"skipped  {reason}" for reason in self.skipped]
        if any(isinstance(cell, Samples) and cell.spread > NOISY for row in self.rows for cell in row.values()):
            lines.append(f"~ quartiles more than {NOISY:.0%} of the median apart: run it again on a quieter machine")
        return "\n".join(lines)


def _text(cell: Any) -> str:
    if isinstance(cell, Samples):
        low, high = cell.quartiles
        return f"{'~' if cell.spread > NOISY else ''}{_number(cell.median)} ({_number(low)}-{_number(high)})"
    return _number(cell) if isinstance(cell, float) else str(cell)


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
