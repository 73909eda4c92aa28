"""Many texts at once: they share passes, join and leave between them, and are each what they would be alone.

A step is one forward of every text that takes part. Texts that are being written come first, a row or a few each;
prompts are read in what is left of the step's rows, in chunks, the first come first. A prompt that begins as another
text's does begins with the pages that hold it (`Session.share`), and waits for the other one to have read them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

import numpy as np

from fastdistill.arguments import check_instance, check_integer
from fastdistill.decode.generation import Generation, Piece
from fastdistill.decode.text import Text
from fastdistill.errors import ArgumentError, attempt
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.kv_cache import PAGE
from fastdistill.runtime.read import Rows
from fastdistill.runtime.session import Session

MOST_TEXTS = 32  # that share a step
MOST_ROWS = 128  # of a step in which prompts are read
FEWEST_ROWS = 16  # of a chunk of a prompt that others leave room for, and that are worth waiting for
LEAST_SHARED = (
    8  # tokens that are taken over: to read so many takes longer than to copy the page that both write to later
)


class Beginning(NamedTuple):
    """What a text may begin with.

    Attributes
    ----------
    session : Session
        whose rows these are
    length : int
        its first ones, so many
    """

    session: Session
    length: int


class Task:
    """A text from when it is asked for until it ends.

    Attributes
    ----------
    prompt : int32 (n,)
    family : object
        tasks of one family (equal ones) may begin with what others have read of their prompts; None: it has none
    text : Text | None
        while it is being written; None before and afterwards
    result : Generation
        what there is of it so far
    cancelled : bool
        is to end where it is
    submitted : bool
        an engine has it
    """

    def __init__(self, prompt: np.ndarray, begin: Callable[[Beginning | None], Text], family: object = None) -> None:
        """`begin` makes the text, with a beginning where one is given: of a task of the same family."""
        self.prompt, self.family, self._begin = prompt, family, begin
        self.text: Text | None = None
        self.result = Generation()
        self.cancelled = self.submitted = False

    @classmethod
    def ended(cls, result: Generation) -> Task:
        """One that has ended before it began."""
        task = cls(np.empty(0, np.int32), lambda _: Text.__new__(Text))
        task.result = result
        return task

    @classmethod
    def failed(cls, error: Exception) -> Task:
        """One that an error has ended before it began."""
        return cls.ended(Generation(finish_reason="error", error=error))

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.result.finish_reason)

    def begin(self, beginning: Beginning | None = None) -> None:
        """Begin the text; raises what its session or its decoder raises."""
        self.text = self._begin(beginning)
        self.result = self.text.result


class Event(NamedTuple):
    """A part of a text that has become certain.

    Attributes
    ----------
    task : Task
        whose it is
    piece : Piece
        the part
    """

    task: Task
    piece: Piece


class Engine:
    """Writes texts together. One caller steps; `submit` and `cancel` may be called from other threads meanwhile.

    Attributes
    ----------
    tasks : list[Task]
        those that have not ended: first those that take part, then those that wait
    """

    def __init__(self, max_texts: int = MOST_TEXTS, max_rows: int = MOST_ROWS) -> None:
        """At most so many texts share a step; prompts are read while it has fewer than `max_rows` rows."""
        self._most_texts = check_integer("max_texts", max_texts, 1, 1 << 16)
        self._most_rows = check_integer("max_rows", max_rows, 1, 1 << 16)
        self._running: list[Task] = []
        self._waiting: deque[Task] = deque()
        self._cancels = False  # whether somebody has cancelled a task since the last step

    @property
    def tasks(self) -> list[Task]:
        return [*self._running, *self._waiting]

    def submit(self, task: Task) -> Task:
        """Have a text written; it joins at the next step that has a place for it.

        Raises
        ------
        ArgumentError
            for what is no Task
        """
        check_instance("task", task, Task)
        if task.submitted:
            raise ArgumentError("this task has been submitted already: each is written once")
        task.submitted = True
        self._waiting.append(task)
        return task

    def cancel(self, task: Task) -> None:
        """End a text where it is, at the next step.

        Raises
        ------
        ArgumentError
            for what is no Task
        """
        check_instance("task", task, Task)
        task.cancelled = self._cancels = True

    def step(self) -> list[Event]:
        """Run one forward of every text that takes part, and give what has become certain: each text's last piece says why it ended."""
        events = self._admit()
        for task in self._running:
            if task.cancelled and task.text is not None:
                events.append(Event(task, task.text.end("cancelled")))
        if any(task.finished for task in self._running):  # cancelled, or left by a step that was interrupted
            self._leave()
        started = time.perf_counter()
        asked = self._ask()
        results = iter(_run([request for *_, requests in asked for request in requests]))
        seconds = time.perf_counter() - started
        ended = False
        for task, text, requests in asked:
            piece = text.answer([next(results) for _ in requests], seconds)
            if piece is not None:
                events.append(Event(task, piece))
                ended = ended or piece.finish_reason is not None
        if ended:
            self._leave()
        return events

    def run(self) -> None:
        """Step until every text has ended."""
        while self._running or self._waiting:
            self.step()

    def _leave(self) -> None:
        """Let go of the texts that have ended, and of their sessions."""
        ended = [task for task in self._running if task.finished]
        self._running = [task for task in self._running if not task.finished]
        for task in ended:
            task.text = None

    def _admit(self) -> list[Event]:
        """Begin texts that wait, as many as there are places; the last pieces of those that end before they begin."""
        events, later = self._cancelled(), list[Task]()
        while self._waiting and len(self._running) + len(later) < self._most_texts:
            task = self._waiting.popleft()
            if not task.finished and task.text is None:
                beginning, waits = (None, False) if task.family is None else self._beginning(task)
                if waits:
                    later.append(task)
                    continue
                error = attempt(task.begin, beginning)
                if isinstance(error, Exception):
                    task.result = Generation(finish_reason="error", error=error)
            if task.finished:
                task.text = None
                events.append(Event(task, Piece("", finish_reason=task.result.finish_reason)))
            else:
                self._running.append(task)
        self._waiting.extendleft(reversed(later))
        return events

    def _cancelled(self) -> list[Event]:
        """The last pieces of texts that were cancelled before they began."""
        if not self._cancels:
            return []
        self._cancels, events = False, list[Event]()
        for _ in range(len(self._waiting)):  # others may append meanwhile
            task = self._waiting.popleft()
            if task.cancelled and not task.finished and task.text is None:
                task.result.finish_reason = "cancelled"
                events.append(Event(task, Piece("", finish_reason="cancelled")))
            else:
                self._waiting.append(task)
        return events

    def _beginning(self, task: Task) -> tuple[Beginning | None, bool]:
        """What other texts have read of a prompt already, if it is not too little; and whether more of it is on its way, a page at least."""
        best: Beginning | None = None
        coming, prompt = 0, task.prompt[:-1]  # the last token is read in any case, for what follows it
        for other in self._running:
            text = other.text
            if text is None or other.family != task.family:
                continue
            length = text.session.common_prefix(prompt)
            if length >= (LEAST_SHARED if best is None else best.length + 1):
                best = Beginning(cast(Session, text.session), length)
            common = _common(text.request.prompt, prompt)
            if text.run.unread and common > text.session.length:  # what it has read is here, or forgotten
                coming = max(coming, common)
        return best, coming >= max(PAGE, best.length + FEWEST_ROWS if best is not None else 0)

    def _ask(self) -> list[tuple[Task, Text, Sequence[tuple[SessionLike, Forward | Exception]]]]:
        """What each text that takes part runs, and where: those being written, then prompts, while there is room for a chunk."""
        texts = [(task, task.text) for task in self._running if task.text is not None]
        part = [(task, text, self._most_rows) for task, text in texts if not text.run.unread]
        rows, fewest = len(part), min(FEWEST_ROWS, -(-self._most_rows // 2))
        reading = [(task, text) for task, text in texts if text.run.unread]
        for number, (task, text) in enumerate(reading):
            room = max(self._most_rows - rows, 0 if number else fewest)  # the first one is never left out
            if room < min(text.run.unread, fewest):
                break
            part.append((task, text, room))
            rows += min(text.run.unread, room)
        asked = [attempt(text.ask, len(part), room) for _, text, room in part]
        return [
            (task, text, [(text.session, what)] if isinstance(what, Exception) else what)
            for (task, text, _), what in zip(part, asked, strict=True)
        ]


def _run(requests: Sequence[tuple[SessionLike, Forward | Exception]]) -> list[Rows | Exception]:
    """What each session gives, or the error that it ends in; an error in the place of a Forward stays what it is.

    Sessions of one runner share passes.
    """
    if len(requests) == 1:  # nothing to sort
        ((session, what),) = requests
        if not isinstance(what, Exception):
            return [attempt(session.run, what)] if session.runner is None else session.runner.run([(session, what)])
    results: dict[int, Rows | Exception] = {}
    for number, (session, what) in enumerate(requests):
        if isinstance(what, Exception):
            results[number] = what
        elif session.runner is None:
            results[number] = attempt(session.run, what)
        elif number not in results:
            together = [
                (place, (other, asked))
                for place, (other, asked) in enumerate(requests)
                if other.runner is session.runner and not isinstance(asked, Exception)
            ]
            given = session.runner.run([request for _, request in together])
            results |= dict(zip([place for place, _ in together], given, strict=True))
    return [results[number] for number in range(len(requests))]


def _common(one: np.ndarray, other: np.ndarray) -> int:
    n = min(len(one), len(other))
    agree = one[:n] == other[:n]
    return n if agree.all() else int(agree.argmin())


def write(tasks: Iterable[Task], max_texts: int = MOST_TEXTS) -> list[Generation]:
    """Have texts written to their ends; what became of each, in order."""
    engine = Engine(max_texts)
    submitted = [engine.submit(task) for task in tasks]
    engine.run()
    return [task.result for task in submitted]
