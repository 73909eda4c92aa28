"""What followed when the end of a text stood in it before, and whether it did."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence


class Copies:
    """The token behind the last earlier occurrence of a text's last k tokens, for k = 1 .. orders.

    Parameters
    ----------
    orders : int
        0: nothing is looked for
    """

    def __init__(self, orders: int) -> None:
        self._following: list[dict[tuple[int, ...], int]] = [{} for _ in range(orders)]  # by the k tokens before it
        self._end: tuple[int, ...] = ()  # the text's last tokens, `orders` of them where it has so many

    def append(self, tokens: Iterable[int]) -> None:
        """The text has grown."""
        for token in tokens:
            end = self._end
            for k, following in enumerate(self._following[: len(end)], 1):
                following[end[-k:]] = token
            self._end = (*end, token)[1 if len(end) == len(self._following) else 0 :]

    def after(self, path: Sequence[int] = ()) -> list[int]:
        """Of the text with some more tokens behind it, which it does not keep: a token for each k; -1: none."""
        end = (*self._end, *path)
        found = []
        for k, following in enumerate(self._following, 1):
            key = end[-k:]
            copy = following.get(key, -1) if len(key) == k else -1
            if path and len(key) == k:  # in the text's last tokens and the path it may stand later still
                for behind in range(len(end) - 1, k - 1, -1):
                    if end[behind - k : behind] == key:
                        copy = end[behind]
                        break
            found.append(copy)
        return found


class Repeats:
    """Whether a text's last `length` tokens stood in it before, in the same order.

    Parameters
    ----------
    length : int
        1 or more
    """

    def __init__(self, length: int) -> None:
        self._seen = set[tuple[int, ...]]()
        self._end = deque[int](maxlen=length)

    def append(self, tokens: Iterable[int]) -> bool:
        """The text has grown: whether its end repeats."""
        repeats = False
        for token in tokens:
            self._end.append(token)
            if len(self._end) == self._end.maxlen:
                end = tuple(self._end)
                repeats = end in self._seen
                self._seen.add(end)
        return repeats
