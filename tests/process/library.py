"""What processes of the library `multiprocessing` run: a module that a new one imports soon."""

from __future__ import annotations

import fastdistill as fd

models: list[fd.Model] = []  # the last one writes


def load(folder) -> None:
    models.append(fd.load(folder, threads=2))


def write(prompt: str, tokens: int) -> list[int]:
    return models[-1].generate(prompt, max_tokens=tokens).tokens
