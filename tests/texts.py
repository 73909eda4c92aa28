"""Texts to their ends, as `Model.generate` has them written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fastdistill.decode.engine import Engine, Event, Task, write
from fastdistill.decode.generation import Generation
from fastdistill.decode.text import Text


def written(begin: Sequence[Callable[[], Text]], together: int) -> list[Generation]:
    """So many at a time, each begun when its turn comes."""
    return write([Task(np.empty(0, np.int32), lambda _, make=make: make()) for make in begin], together)


def events(texts: Sequence[Text]) -> list[Event]:
    """All that texts that have begun give, step by step; `event.task.number` says which."""
    engine = Engine(len(texts))
    for number, text in enumerate(texts):
        engine.submit(Task(np.empty(0, np.int32), lambda _, text=text: text)).number = number
    found = []
    while engine.tasks:
        found += engine.step()
    return found
