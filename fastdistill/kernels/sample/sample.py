"""One token of each row of logits: processors, then the argmax of what survives plus Gumbel noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_array, check_integer, check_number
from fastdistill.cached import cached_property
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import check_status, check_workspace, const, ffi, lib, pointer, written
from fastdistill.kernels.threads import check_threads
from fastdistill.messages import short

_FLOAT = np.finfo(np.float32)
_MOST_TOKENS = 2**23 - 1  # the masses of more tokens could overflow (csrc/kernels/sample/sample.c)


class Biases(Mapping[int, float]):
    """Numbers by token, which nobody changes: what a sampler has found out about its bias stays true."""

    def __init__(self, biases: Mapping[int, float]) -> None:
        self._biases = dict(biases)

    def __getitem__(self, token: int) -> float:
        return self._biases[token]

    def __iter__(self) -> Iterator[int]:
        return iter(self._biases)

    def __len__(self) -> int:
        return len(self._biases)

    def __repr__(self) -> str:
        return repr(self._biases)


@dataclass(frozen=True)
class Sampler:
    """How a token is chosen.

    Processors apply in this order: bans, bias, penalties as listed, temperature, top-k, top-p, min-p.

    Parameters
    ----------
    temperature : float, default 0.0
        0 (greedy: the first largest logit) up to 1e30
    top_k : int, default 0
        keep the k largest, ties to the lowest tokens; 0 keeps all
    top_p : float, default 1.0
        keep the shortest prefix, best first, of at least this mass; in (0, 1], 1 keeps all
    min_p : float, default 0.0
        drop what is less likely than this share of the best; in [0, 1]
    repetition_penalty : float, default 1.0
        tokens of prompt and answer: a negative logit is multiplied, another one divided by it; above 0, 1 does nothing
    frequency_penalty : float, default 0.0
        taken from a token's logit for each time that the answer has it; in [-2, 2]
    presence_penalty : float, default 0.0
        taken once from the logit of each token that the answer has; in [-2, 2]
    no_repeat_ngram_size : int, default 0
        bans what would end a run of so many tokens that prompt and answer hold already, unless that leaves no token
        allowed; 0 bans nothing
    logit_bias : Mapping[int, float], optional
        added to the logits of these tokens; -inf bans
    seed, sequence : int, default 0
        64 and 32 bits: together with a row's position and the round they fix the noise
    round : int, default 0
        20 bits: decoders that draw a position again draw with new noise in another round
    prompt_length : int, default 0
        so many tokens of what a row has seen, from the first, are no part of the answer; a text's is its prompt's

    Raises
    ------
    ArgumentError

    Notes
    -----
    Real numbers are rounded to float32.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    seed: int = 0
    sequence: int = 0
    round: int = 0
    prompt_length: int = 0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 0, 1e30)
        check_integer("top_k", self.top_k, 0, 2**31 - 1)
        check_number("top_p", self.top_p, float(_FLOAT.tiny), 1)
        check_number("min_p", self.min_p, 0, 1)
        check_number("repetition_penalty", self.repetition_penalty, float(_FLOAT.tiny), float(_FLOAT.max))
        for name in ("frequency_penalty", "presence_penalty"):
            check_number(name, getattr(self, name), -2, 2)
        check_integer("no_repeat_ngram_size", self.no_repeat_ngram_size, 0, 2**31 - 1)
        check_integer("seed", self.seed, 0, 2**64 - 1)
        check_integer("sequence", self.sequence, 0, 2**32 - 1)
        check_integer("round", self.round, 0, 2**20 - 1)
        check_integer("prompt_length", self.prompt_length, 0, 2**31 - 1)
        if not isinstance(self.logit_bias, Mapping):
            raise ArgumentError(f"logit_bias must map tokens to numbers, got {type(self.logit_bias).__name__}")
        biases = {}
        for token, bias in self.logit_bias.items():
            token = check_integer("a token of logit_bias", token, 0, _MOST_TOKENS - 1)
            biases[token] = check_number(f"logit_bias[{token}]", bias, -np.inf, float(_FLOAT.max))
        object.__setattr__(self, "logit_bias", Biases(biases))

    @cached_property
    def is_greedy(self) -> bool:
        """Whether a row's token is the argmax of its logits, if `allowed` bans nothing."""
        return float(np.float32(self.temperature)) == 0 and not self.penalises and not self.logit_bias

    @cached_property
    def is_temperature_alone(self) -> bool:
        """Whether a row's token is the argmax of its logits over a temperature plus noise, if `allowed` bans nothing."""
        off = self.top_k == 0 and self.top_p == 1 and self.min_p == 0 and not self.penalises
        return off and not self.logit_bias and float(np.float32(self.temperature)) > 0

    @cached_property
    def penalises(self) -> bool:
        """Whether a row's token depends on what the row has seen."""
        penalty = self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0
        return penalty or self.no_repeat_ngram_size > 0


# Those that C knows by the same name.
_NATIVE = [setting.name for setting in fields(Sampler) if setting.name not in ("logit_bias", "no_repeat_ngram_size")]


def repeating(seen: np.ndarray, size: int) -> np.ndarray:
    """What, behind a text, would end a run of `size` tokens that it holds already, int32 (k,)."""
    if len(seen) < size:
        return seen[:0]
    runs = np.lib.stride_tricks.sliding_window_view(seen, size)
    return runs[(runs[:, :-1] == seen[len(seen) - size + 1 :]).all(axis=1), -1]


def _without_repeats(
    allowed: np.ndarray | None, seen: Sequence[np.ndarray], size: int, rows: int, vocab: int
) -> np.ndarray:
    """The masks of rows, uint32 (rows, words), without what would repeat a run; one that would be empty stays."""
    every = np.packbits(np.pad(np.ones(vocab, bool), (0, -vocab % 32)), bitorder="little").view("<u4")
    masks = np.tile(every.astype(np.uint32), (rows, 1)) if allowed is None else allowed & every
    for row, text in enumerate(seen):
        tokens, left = repeating(text, size), masks[row].copy()
        np.bitwise_and.at(left, tokens >> 5, ~(np.uint32(1) << (tokens & 31).astype(np.uint32)))
        if left.any():
            masks[row] = left
    return masks


def _native(sampler: Sampler, vocab: int) -> tuple[Any, Any]:
    """The sampler for C, and what must be kept alive beside it."""
    if sampler.logit_bias and max(sampler.logit_bias) >= vocab:
        raise ArgumentError(f"logit_bias names token {max(sampler.logit_bias)}, the logits have {vocab} columns")
    tokens = np.array(list(sampler.logit_bias), np.int32)
    with np.errstate(over="ignore"):  # what is below the float32 numbers is a ban
        values = np.array(list(sampler.logit_bias.values()), np.float64).astype(np.float32)
    native = ffi.new("struct fd_sampler *")
    for name in _NATIVE:
        setattr(native, name, getattr(sampler, name))
    native.biases, native.bias_tokens, native.bias_values = len(tokens), const(tokens), const(values)
    return native, (tokens, values)


def _joined(seen: Sequence[np.ndarray], rows: int, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """Every row's seen tokens in one array, and where each row begins and the last one ends."""
    if not isinstance(seen, (list, tuple, np.ndarray)) or getattr(seen, "ndim", 1) == 0:
        raise ArgumentError(f"seen must be a list of one array a row, got {short(seen)}")
    if len(seen) != rows:
        raise ArgumentError(f"seen must hold one array a row: expected {rows}, got {len(seen)}")
    parts = [as_array(f"seen[{row}]", tokens, np.int32, ("tokens",)) for row, tokens in enumerate(seen)]
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum([len(tokens) for tokens in parts], out=offsets[1:])
    joined = np.concatenate([np.empty(0, np.int32), *parts])
    if joined.size and not (joined.min() >= 0 and joined.max() < vocab):
        raise ArgumentError(f"seen tokens must lie in 0..{vocab - 1}, got {joined.min()}..{joined.max()}")
    return joined, offsets


def sample_workspace(rows: int, vocab: int, threads: int | None = 1) -> np.ndarray:
    """Memory for `sample` over so many rows and columns, to use again and again.

    Parameters
    ----------
    rows : int
        of the logits, at most
    vocab : int
        columns of the logits
    threads : int | None, default 1
        at most so many; None: as many as this process may use
    """
    pieces = min(check_threads(threads), check_integer("rows", rows, 0, 2**31 - 1))
    return np.empty(pieces * lib.fd_sample_workspace(check_integer("vocab", vocab, 1, _MOST_TOKENS)), np.uint8)


class Sampling(NamedTuple):
    """What `sample` and `probabilities` are given alike, checked and as C takes it.

    Attributes
    ----------
    rows : int
        of logits
    vocab : int
        columns of each
    sampler : Any
        struct fd_sampler
    biases : Any
        the arrays that `sampler` points into, kept alive beside it
    seen : int32 (tokens,) or None
        those that each row's penalties count, one row's behind the other's; None: no penalty
    seen_offsets : int64 (rows + 1,) or None
        where each row's begin in `seen`
    allowed : uint32 (rows, ceil(vocab / 32)) or None
        the masks that were given, without what would repeat a run of tokens; None: all
    workspace : uint8 (bytes,)
        of `sample_workspace`
    threads : int
        at most so many
    """

    rows: int
    vocab: int
    sampler: Any
    biases: Any
    seen: np.ndarray | None
    seen_offsets: np.ndarray | None
    allowed: np.ndarray | None
    workspace: np.ndarray
    threads: int

    @classmethod
    def checked(
        cls,
        logits: np.ndarray,
        sampler: Sampler,
        seen: Sequence[np.ndarray] | None,
        allowed: np.ndarray | None,
        threads: int | None,
        workspace: np.ndarray | None,
    ) -> Sampling:
        """What they are given, checked.

        Raises
        ------
        ArgumentError
        """
        rows, vocab = check_array("logits", logits, np.float32, ("rows", "vocab"))
        if not 1 <= vocab <= _MOST_TOKENS:
            raise ArgumentError(f"logits must have 1..{_MOST_TOKENS} columns, got shape {logits.shape}")
        if not isinstance(sampler, Sampler):
            raise ArgumentError(f"sampler must be a Sampler, got {type(sampler).__name__}")
        joined, offsets = (None, None) if seen is None else _joined(seen, rows, vocab)
        if allowed is not None:
            check_array("allowed", allowed, np.uint32, (rows, (vocab + 31) // 32))
        if seen is not None and sampler.no_repeat_ngram_size:
            allowed = _without_repeats(allowed, seen, sampler.no_repeat_ngram_size, rows, vocab)
        threads = check_threads(threads)
        if workspace is None:
            workspace = sample_workspace(rows, vocab, threads)
        else:
            check_workspace(workspace, min(threads, rows) * lib.fd_sample_workspace(vocab))
        native, biases = _native(sampler, vocab)
        return cls(rows, vocab, native, biases, joined, offsets, allowed, workspace, threads)


def sample(
    logits: np.ndarray,
    sampler: Sampler,
    positions: np.ndarray,
    *,
    seen: Sequence[np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
    noise: np.ndarray | None = None,
    threads: int | None = 1,
    workspace: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The token of each row: a function of its logits, the sampler, its position, what it has seen and what it allows.

    Parameters
    ----------
    logits : float32 (rows, vocab)
        1 <= vocab < 2^23; -inf is a ban
    sampler : Sampler
        how a token is chosen
    positions : int32 (rows,)
        of the token that is drawn
    seen : Sequence[np.ndarray], optional
        for each row its int32 (n,) text so far, prompt first, which the penalties count; None: nothing
    allowed : uint32 (rows, ceil(vocab / 32)), optional
        token t is banned unless bit t % 32 of word t // 32 is set; None: all
    noise : float32 (rows, vocab), optional
        finite, instead of the Gumbel noise of (seed, sequence, round, position)
    threads : int | None, default 1
        at most so many; None: as many as this process may use
    workspace : uint8, optional
        from `sample_workspace`, of one caller at a time; None: made here
    out : int32 (rows,), optional
        apart from the other arrays, filled and returned; None: made here

    Returns
    -------
    int32 (rows,)

    Raises
    ------
    ArgumentError
        also when every token of a row is banned
    NotFiniteError
        when a row holds NaN or +inf, banned or not, or when bias or repetition penalty makes a logit +inf
    BusyError
        where another call is writing workspace or out

    Examples
    --------
    >>> logits = np.log(np.array([[1, 2, 7], [6, 3, 1]], np.float32))
    >>> positions = np.arange(2, dtype=np.int32)
    >>> fd.kernels.sample(logits, fd.Sampler(), positions)
    array([2, 0], dtype=int32)
    >>> fd.kernels.sample(logits, fd.Sampler(temperature=1, top_k=2, seed=7), positions)
    array([2, 0], dtype=int32)
    """
    given = Sampling.checked(logits, sampler, seen, allowed, threads, workspace)
    rows, vocab = given.rows, given.vocab
    positions = as_array("positions", positions, np.int32, (rows,))
    if noise is not None:
        check_array("noise", noise, np.float32, (rows, vocab))
        if not np.isfinite(noise).all():
            raise NotFiniteError("sample: noise holds a NaN or an infinity")
    if out is not None:
        check_array("out", out, np.int32, (rows,), written=True)
    tokens = np.empty(rows, np.int32) if out is None else out
    reads = {"logits": logits, "positions": positions, "allowed": allowed, "noise": noise}
    with written({"out": out, "workspace": workspace}, reads):
        status = lib.fd_sample(
            rows, vocab, const(logits), const(positions), given.sampler, const(given.seen), const(given.seen_offsets),
            const(given.allowed), const(noise), pointer(tokens), pointer(given.workspace), given.threads,
        )  # fmt: skip
        if status != lib.FD_OK:
            check_status(f"sample: row {int(np.argmax(tokens < 0))}", status)
    return tokens
