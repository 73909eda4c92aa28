"""The prompts that decoders are compared on, and what counts as an answer that merely loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = ("copy", "open")
FOLDER = Path(__file__).with_suffix("")
CHAT = ".chat"


@dataclass(frozen=True)
class Prompt:
    name: str
    text: str
    chat: bool  # a message of the user, to be rendered with the chat template


def load(kind: str) -> list[Prompt]:
    """The prompts of one of KINDS, by name."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    files = ((path.stem, path.read_bytes().decode("utf-8")) for path in (FOLDER / kind).glob("*.txt"))
    return sorted(
        (Prompt(stem.removesuffix(CHAT), text, stem.endswith(CHAT)) for stem, text in files),
        key=lambda prompt: prompt.name,
    )


def loops(tokens: Sequence[int], period: int = 32, window: int = 128) -> bool:
    """Whether the last `window` tokens repeat with a period of at most `period`; fewer tokens than that do not."""
    last = list(tokens[-window:])
    return len(last) == window and any(last[p:] == last[:-p] for p in range(1, min(period, window - 1) + 1))
