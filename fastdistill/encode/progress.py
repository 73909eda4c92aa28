"""A bar of texts on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def texts_bar(show: bool, what: str) -> Iterator[Callable[[int, int], None] | None]:
    """What to call with (texts done, texts in all): a bar by tqdm, where that is installed, else a line a quarter; None: nothing."""
    if not show:
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError:

        def tell(done: int, total: int) -> None:
            if done == total or done * 4 // total > (done - 1) * 4 // total:
                print(f"{what}: {done} of {total} texts", file=sys.stderr, flush=True)

        yield tell
        return
    with tqdm(desc=what, unit=" texts", file=sys.stderr) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move
