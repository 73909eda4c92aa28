"""What a teacher says of a batch's rows: a model that runs beside the student, or its answers in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastdistill.arguments import check_has, check_instance, check_integer
from fastdistill.distill.teachers.teacher_file import TeacherFile, TeacherWriter
from fastdistill.errors import ArgumentError, CheckpointError, UnsupportedError
from fastdistill.messages import short
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.forward_many import forward_many
from fastdistill.runtime.read import Read
from fastdistill.runtime.session import Session
from fastdistill.train.batch import Batch
from fastdistill.train.data.dataset import Dataset

MAX_ROWS = 256  # of a pass


class Teacher:
    """A model that says the logits of a batch's rows; each sequence is read on its own.

    It goes on where it stood within a sequence, so that a batch that is asked in parts, in order, is read once.

    Parameters
    ----------
    model : Model or Network
        `fastdistill.load` gives one
    max_rows : int, default 256
        of a pass

    Raises
    ------
    ArgumentError
    UnsupportedError
        for a model that is not causal
    """

    def __init__(self, model: Any, max_rows: int = MAX_ROWS) -> None:
        network = getattr(model, "network", model)
        check_has("model", network, ["session", "vocab_size", "plan"], "a Model or a Network")
        if not network.plan.causal:
            raise UnsupportedError("a Teacher must be a causal model: this one predicts a token from both sides of it")
        self._network, self._max_rows = network, check_integer("max_rows", max_rows, 1, 1 << 16)
        self._batch: Batch | None = None
        self._sequence, self._session = -1, None  # the one that was read last, if not to its end

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return int(self._network.vocab_size)

    def logits(self, batch: Batch, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Its logits of these rows, float32 (n, vocab_size).

        Parameters
        ----------
        batch : Batch
        rows : int64 (n,)
            of the batch, ascending
        out : float32 (n, vocab_size), optional
            receives them

        Raises
        ------
        CapacityError
            for a sequence longer than the model's positions
        UnsupportedError
            for a batch that says what its rows see
        ArgumentError
        """
        if (np.diff(rows) <= 0).any():
            raise ArgumentError(f"rows must be ascending, got {short(rows)}")
        if batch.seen is not None:
            raise UnsupportedError("a Teacher reads sequences one token after another, not what `seen` lets rows see")
        given = np.empty((len(rows), self.vocab_size), np.float32) if out is None else out
        if batch is not self._batch:
            self._batch, self._session = batch, None
        for wave in self._waves(batch, rows):
            requests = [
                (session, Forward(tokens, rows=reads, read=Read(logits=True), out=given[places]))
                for session, tokens, reads, places in wave
            ]
            forward_many(requests)
        return given

    def _waves(self, batch: Batch, rows: np.ndarray) -> Iterator[list[tuple[Session, np.ndarray, np.ndarray, slice]]]:
        """Passes: of some sequences a chunk of tokens each, which of its rows are read, and where their logits go."""
        sequences = np.searchsorted(batch.starts, rows, "right") - 1
        wave: list[tuple[Session, np.ndarray, np.ndarray, slice]] = []
        room = self._max_rows
        for sequence in np.unique(sequences).tolist():
            begin = int(batch.starts[sequence])
            places = slice(*np.searchsorted(sequences, [sequence, sequence + 1]).tolist())
            wanted = rows[places] - begin
            session = self._session_of(sequence, int(batch.lengths[sequence]), int(wanted[0]))
            at, end = session.length, int(wanted[-1]) + 1
            while at < end:
                if not room or any(session is other for other, *_ in wave):
                    yield wave
                    wave, room = [], self._max_rows
                chunk = min(room, end - at)
                first, last = np.searchsorted(wanted, [at, at + chunk]).tolist()
                tokens = batch.tokens[begin + at : begin + at + chunk]
                wave.append(
                    (session, tokens, wanted[first:last] - at, slice(places.start + first, places.start + last))
                )
                at, room = at + chunk, room - chunk
        if wave:
            yield wave

    def _session_of(self, sequence: int, length: int, first: int) -> Session:
        """One that holds the sequence up to where it was read last, if that is not beyond `first`."""
        session = self._session
        if session is None or sequence != self._sequence or session.length > first:
            session = self._network.session(length, self._max_rows)
        self._sequence, self._session = sequence, session
        return session


def write_teacher_file(
    model: Any,
    data: Dataset,
    path: str | os.PathLike[str],
    k: int = 50,
    *,
    bits: int = 5,
    name: str = "",
    resume: bool = False,
    max_rows: int = MAX_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write what a teacher says of a dataset: row i is token i, the law of what follows it in its sequence.

    Parameters
    ----------
    model : Model or Network
    data : Dataset
    path : str or PathLike
    k, bits : int, default 50 and 5
        tokens kept of each row, and bits of each of their log-probabilities: see `TeacherWriter`
    name : str, default ""
        of the model, said in the file
    resume : bool, default False
        go on with what an error or an interrupt has left
    max_rows : int, default 256
        of a pass, and whose logits are in memory
    progress : Callable[[int, int], None], optional
        called with (rows so far, rows in all)

    Raises
    ------
    ArgumentError
    CapacityError
    CheckpointError
    """
    check_instance("data", data, Dataset)
    teacher, total = Teacher(model, max_rows), len(data.tokens)
    with TeacherWriter(path, teacher.vocab_size, k, bits=bits, model=name, data=data.digest, resume=resume) as file:
        while file.tokens < total:
            sequence = int(np.searchsorted(data.starts, file.tokens, "right")) - 1
            last = int(np.searchsorted(data.starts, data.starts[sequence] + max_rows, "right")) - 1
            batch = data.batch(range(sequence, max(last, sequence + 1)))
            begin = file.tokens - int(data.starts[sequence])
            for first in range(begin, len(batch), max_rows):
                file.append(teacher.logits(batch, np.arange(first, min(first + max_rows, len(batch)))))
                if progress is not None:
                    progress(file.tokens, total)


def open_teacher_file(path: str | os.PathLike[str], data: Dataset) -> TeacherFile:
    """A teacher's answers to this dataset, as `write_teacher_file` writes them.

    Raises
    ------
    CheckpointError
        for a file of other data, or that is no teacher file
    """
    check_instance("data", data, Dataset)
    file = TeacherFile(path)
    if file.settings.data != data.digest:
        raise CheckpointError(
            f"{path}: its rows are of the data {short(file.settings.data[:16])}, expected {short(data.digest[:16])}: "
            "the same files, tokenizer, max_length and train_on"
        )
    return file
