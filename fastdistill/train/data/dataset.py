"""Examples in memory: their tokens in one array, and where each begins."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from fastdistill.arguments import as_array, check_choice, check_instance, check_integer, check_mapping
from fastdistill.cached import cached_property
from fastdistill.errors import ArgumentError, DataError, TextError
from fastdistill.messages import short, warn
from fastdistill.text.tokenizer import Tokenizer
from fastdistill.train.batch import Batch, batch_of
from fastdistill.train.data.examples import Part, examples
from fastdistill.train.data.records import Paths, read_records

MAX_LENGTH = 1024
TRAIN_ON = "completions", "all"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Sequences one after another: five bytes a token, and twelve a sequence.

    Parameters
    ----------
    tokens : int32 (n,)
    starts : int64 (sequences + 1,)
        tokens of sequence s: starts[s] to starts[s + 1], at least one
    counted : bool (n,)
        tokens that are to be predicted; the first of a sequence never is
    prompts : int32 (sequences,)
        how many tokens ask for what is behind them, from the first; all of them where nothing is; 0: it asks nothing

    Raises
    ------
    ArgumentError
    """

    tokens: np.ndarray
    starts: np.ndarray
    counted: np.ndarray
    prompts: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype, axis in (
            ("tokens", np.int32, "n"),
            ("starts", np.int64, "sequences + 1"),
            ("counted", np.bool_, len(self.tokens)),
            ("prompts", np.int32, len(self.starts) - 1),
        ):
            object.__setattr__(self, name, as_array(name, getattr(self, name), dtype, (axis,)))
        lengths = np.diff(self.starts)
        if not len(self.starts) or self.starts[0] != 0 or self.starts[-1] != len(self.tokens) or (lengths < 1).any():
            raise ArgumentError(f"starts must go up from 0 to the {len(self.tokens)} tokens, got {short(self.starts)}")
        if not ((self.prompts >= 0) & (self.prompts <= lengths)).all():
            raise ArgumentError(f"prompts must lie within their sequences, got {short(self.prompts)}")

    def __len__(self) -> int:
        """How many sequences there are."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 (sequences,): tokens of each."""
        return np.diff(self.starts)

    @cached_property
    def predicted(self) -> np.ndarray:
        """int64 (sequences,): how many tokens of each are to be predicted."""
        counts = np.concatenate([[0], np.cumsum(self.counted, dtype=np.int64)])
        return np.asarray(np.diff(counts[self.starts]) - self.counted[self.starts[:-1]])

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits that tell these sequences from others."""
        digest = sha256()
        for values in (self.tokens.astype("<i4"), self.starts.astype("<i8"), self.counted, self.prompts.astype("<i4")):
            digest.update(values.data)
        return digest.hexdigest()

    def rows(self, sequence: int) -> slice:
        """Where the tokens of a sequence stand."""
        return slice(int(self.starts[sequence]), int(self.starts[sequence + 1]))

    def batch(self, sequences: Iterable[int]) -> Batch:
        """The Batch of these sequences, in this order."""
        rows = [self.rows(sequence) for sequence in sequences]
        return batch_of([self.tokens[each] for each in rows], [self.counted[each] for each in rows])


def read_data(
    paths: Paths,
    tokenizer: Tokenizer,
    *,
    max_length: int = MAX_LENGTH,
    train_on: str = "completions",
    progress: Callable[[int], None] | None = None,
) -> Dataset:
    """The examples of files, as a model's tokenizer and chat template write them.

    Parameters
    ----------
    paths : str, PathLike or several of them
        .jsonl (.ndjson) files, of which each line is an example; .txt files, each one document; folders of such
    tokenizer : Tokenizer
    max_length : int, default 1024
        tokens of a sequence; a longer example goes on in the next one, which does not see the one before
    train_on : str, default "completions"
        what is learnt of prompts and conversations: "completions" (the assistant's turns), or "all"; of texts it is all
    progress : Callable[[int], None], optional
        called with the number of records so far

    Raises
    ------
    DataError
        naming file and line
    ArgumentError

    Notes
    -----
    A text and a completion end with the tokenizer's eos_token, where it names one.  What has nothing to predict is left
    out, but for prompts alone, which rollouts go on from.
    """
    return _made(read_records(paths), tokenizer, max_length, train_on, progress)


def make_data(
    records: Iterable[Mapping[str, Any]],
    tokenizer: Tokenizer,
    *,
    max_length: int = MAX_LENGTH,
    train_on: str = "completions",
) -> Dataset:
    """`read_data` of records that are in memory: {"text": ...}, {"prompt": ..., "completion": ...}, {"messages": [...]}.

    Parameters
    ----------
    records : iterable of mappings
    tokenizer, max_length, train_on
        as in `read_data`

    Raises
    ------
    DataError
        naming the record by its number, from 0
    ArgumentError
    """
    if isinstance(records, (str, bytes, Mapping)) or not isinstance(records, Iterable):
        raise ArgumentError(f"records must be a list of dicts, got {short(records)}")
    places = (
        (f"records[{number}]", check_mapping(f"records[{number}]", record, "names to texts or messages"))
        for number, record in enumerate(records)
    )
    return _made(places, tokenizer, max_length, train_on, None)


def _made(
    records: Iterable[tuple[str, Mapping[str, Any]]],
    tokenizer: Tokenizer,
    max_length: int,
    train_on: str,
    progress: Callable[[int], None] | None,
) -> Dataset:
    check_instance("tokenizer", tokenizer, Tokenizer)
    made = _Made(check_integer("max_length", max_length, 2, 2**31 - 1), check_choice("train_on", train_on, TRAIN_ON))
    left_out = total = 0
    for place, record in records:
        try:
            left_out += not any([made.add(example) for example in examples(record, tokenizer)])
        except (ArgumentError, TextError, DataError) as error:
            beginning = "" if str(error).startswith(place) else f"{place}: "  # a plain file's line says more
            raise DataError(f"{beginning}{error}") from error
        total += 1
        if progress is not None:
            progress(total)
    if left_out:
        warn(f"{left_out} of {total} records have nothing to predict within {max_length} tokens: they are left out")
    return made.dataset


class _Made:
    """A dataset that grows: arrays of bare numbers, whatever the examples were."""

    def __init__(self, max_length: int, train_on: str) -> None:
        self._most, self._all = max_length, train_on == "all"
        self._tokens, self._counted = array("i"), bytearray()
        self._starts, self._prompts = array("q", [0]), array("i")

    @property
    def dataset(self) -> Dataset:
        return Dataset(
            np.frombuffer(self._tokens, np.int32),
            np.frombuffer(self._starts, np.int64),
            np.frombuffer(self._counted, np.bool_),
            np.frombuffer(self._prompts, np.int32),
        )

    def add(self, parts: Iterable[Part]) -> bool:
        """Add an example; whether anything of it has stayed."""
        begin, prompt, answers = len(self._tokens), 0, True
        for tokens, answer in parts:
            if answer and not answers:
                prompt = len(self._tokens) - begin
            answers = answer
            self._tokens.extend(tokens)
            self._counted.extend((b"\1" if answer or self._all else b"\0") * len(tokens))
        length = len(self._tokens) - begin
        if not answers:  # nothing is behind it
            prompt = length
        kept = [
            (at, min(at + self._most, length))
            for at in range(0, length, self._most)
            if any(self._counted[begin + at + 1 : begin + min(at + self._most, length)])
            or (prompt == length < self._most)
        ]
        if sum(last - first for first, last in kept) < length:
            whole, counts = self._tokens[begin:], self._counted[begin:]
            del self._tokens[begin:], self._counted[begin:]
            for first, last in kept:
                self._tokens.extend(whole[first:last])
                self._counted.extend(counts[first:last])
        for first, last in kept:
            self._starts.append(self._starts[-1] + last - first)
            self._prompts.append(prompt if first == 0 and prompt < self._most else 0)
        return bool(kept)
