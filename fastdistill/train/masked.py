"""Training of masked diffusion models: batches whose answers have holes, and what is learnt beside the tokens in them.

A batch of whole sequences, as `batch_of` and data give it, becomes one with masks: of its tokens those that are to be
predicted, the answers, are masked, all others are seen. Then the engine runs it as any other, and with the cross entropy of
the masked tokens that is all of masked diffusion. Students that decode in fewer steps see pairs of corruptions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from fastdistill.arguments import as_array, check_choice, check_integer, check_number
from fastdistill.distill.laws.divergence import cross_entropy, divergence, entropy
from fastdistill.distill.loss import Loss
from fastdistill.distill.masks.corruption import corrupt
from fastdistill.distill.masks.generator import as_generator
from fastdistill.distill.masks.masks import nested_answer_masks, pair_mask, semi_autoregressive_masks
from fastdistill.errors import ArgumentError
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.train.batch import Batch, nothing_to_learn
from fastdistill.train.objectives import LogitsOf


@dataclass(frozen=True, eq=False)
class PairBatch(Batch):
    """A Batch of masked sequences, and the same with fewer masks.

    Parameters
    ----------
    tokens : int32 (rows,)
        with masks
    starts : int64 (sequences + 1,)
        as of a Batch
    labels : int32 (rows,)
        masked tokens, each in its own row or in the row before it
    weights : float32 (rows,)
        as of a Batch
    teacher : TopK of (rows, k), optional
        as of a Batch
    seen : Seen, optional
        as of a Batch
    cleaner : int32 (rows,)
        tokens that a teacher sees in place of `tokens`
    revealed : bool (rows,)
        of rows that count, those whose label is no secret in `cleaner`

    Raises
    ------
    ArgumentError
    """

    cleaner: np.ndarray = field(kw_only=True)
    revealed: np.ndarray = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "cleaner", as_array("cleaner", self.cleaner, np.int32, (len(self),)))
        object.__setattr__(self, "revealed", as_array("revealed", self.revealed, np.bool_, (len(self),)))

    def part(self, first: int, last: int) -> PairBatch:
        part = super().part(first, last)
        rows = slice(int(self.starts[first]), int(self.starts[first]) + len(part))
        return _pair(part, self.cleaner[rows], self.revealed[rows])


def corrupted(
    batch: Batch,
    mask_token: int,
    generator: np.random.Generator | int,
    *,
    cap: float = 20.0,
    whole: float = 0.0,
    shift: int = 0,
) -> Batch:
    """Answers masked with a probability t of their own each, t ~ U(0, 1); a masked token weighs 1 / t, or `cap` (LLaDA).

    The t of a batch are spread evenly, each interval of 1 / sequences has one (Kingma et al. 2021), which makes a step less
    noisy.  A mean by weight is then, up to that noise, the bound on -log p of an answer's token.

    Parameters
    ----------
    batch : Batch
        of whole sequences, without mask_token
    mask_token : int
        what takes the place of a masked token
    generator : np.random.Generator, or int
        where the draws come from, or a seed
    cap : float, default 20.0
        1 or more: the most that a token weighs
    whole : float, default 0.0
        0 to below 1: the share of answers with t = 1, all masked, as decoding begins; t of the others as above
    shift : int, default 0
        0: a masked token is predicted in its own row (LLaDA); 1: in the row before (Dream)

    Returns
    -------
    Batch

    Raises
    ------
    ArgumentError
    """
    cap, draws = check_number("cap", cap, 1, 1e6), as_generator("generator", generator)
    times = np.minimum(_spread(draws, batch.sequences) / (1 - check_number("whole", whole, 0, 0.999)), 1.0)
    noise = np.where(_answers(batch), _of_rows(batch, times), 0.0)
    found = corrupt(batch.tokens[None], noise[None], mask_token, draws)
    return _masked(batch, mask_token, found.counted[0], np.minimum(found.weights[0], cap), shift)


def complementary(
    batch: Batch,
    mask_token: int,
    generator: np.random.Generator | int,
    *,
    block: int = 32,
    probability: float = 0.5005,
    shift: int = 0,
) -> Batch:
    """Each sequence twice: a block of its answer masked in part, and in the other part; all behind the block masked (dParallel).

    Parameters
    ----------
    batch, mask_token, generator, shift
        as in `corrupted`
    block, probability
        as in `fastdistill.distill.semi_autoregressive_masks`

    Returns
    -------
    Batch
        of twice as many sequences: all first views, then all second ones

    Raises
    ------
    ArgumentError
    """
    views = semi_autoregressive_masks(
        _prompts(batch), batch.lengths.astype(np.int32), generator, block=block, probability=probability
    )
    inside = np.arange(views.masked.shape[2]) < batch.lengths[:, None]
    masked, counted = (both[:, inside] & _answers(batch) for both in views[:2])
    starts = np.concatenate([batch.starts, batch.starts[1:] + len(batch)])
    twice = Batch(np.tile(batch.tokens, 2), starts, np.tile(batch.labels, 2), np.tile(batch.weights, 2))
    return _masked(twice, mask_token, masked.ravel(), counted.ravel(), shift)


def nested(
    batch: Batch, mask_token: int, generator: np.random.Generator | int, *, short: bool = True, shift: int = 0
) -> PairBatch:
    """Many tokens of an answer masked for the student, some of these for the teacher (CD4LM): `fastdistill.distill.nested_answer_masks`.

    Parameters
    ----------
    batch, mask_token, generator, shift
        as in `corrupted`
    short
        as in `fastdistill.distill.nested_answer_masks`

    Returns
    -------
    PairBatch

    Raises
    ------
    ArgumentError
    """
    masks = nested_answer_masks(_prompts(batch), batch.lengths.astype(np.int32), generator, short=short)
    inside = np.arange(masks.student.shape[1]) < batch.lengths[:, None]
    student, teacher = (mask[inside] & _answers(batch) for mask in masks)
    return _paired(batch, mask_token, student, teacher, shift)


def consecutive(
    batch: Batch, mask_token: int, generator: np.random.Generator | int, *, jump: float = 0.125, shift: int = 0
) -> PairBatch:
    """Two times of one masking process, t ~ U(0, 1) for the student and max(0, t - jump) for the teacher (MCD, Latent Shadows).

    A token's one uniform says when it is masked (`fastdistill.distill.pair_mask`); the t of a batch are spread evenly.

    Parameters
    ----------
    batch, mask_token, generator, shift
        as in `corrupted`
    jump : float, default 0.125
        0 to 1: 1 shows the teacher everything

    Returns
    -------
    PairBatch

    Raises
    ------
    ArgumentError
    """
    jump, draws = check_number("jump", jump, 0, 1), as_generator("generator", generator)
    later = _of_rows(batch, _spread(draws, batch.sequences))
    noisy, cleaner = (np.where(_answers(batch), 1 - time, 1.0) for time in (later, np.maximum(later - jump, 0.0)))
    pair = pair_mask(batch.tokens[:, None], draws.random((len(batch), 1)), noisy, cleaner, mask_token)
    masked = pair.masked[:, 0]
    return _paired(batch, mask_token, masked, masked & ~pair.revealed[:, 0], shift)


@dataclass(frozen=True)
class CleanerTeacher:
    """A frozen model that sees what a PairBatch has cleaner: a teacher for `objective`.

    Parameters
    ----------
    model : Engine
        of the teacher's weights
    temperature : float, default 1.0
        that its logits are divided by: below 1 it is surer than it is
    """

    model: LogitsOf
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 1e-6, 1e6)

    def logits(self, batch: Batch, rows: np.ndarray) -> np.ndarray:
        """float32 (n, vocab) of these rows, ascending; only the sequences that they are of are run.

        Raises
        ------
        ArgumentError
        """
        _check_pair(batch)
        if not len(rows):
            return self.model.logits(batch, rows)
        first, last = np.searchsorted(batch.starts, rows[[0, -1]], "right").tolist()
        part = batch.part(first - 1, last)
        assert isinstance(part, PairBatch)
        found = self.model.logits(replace(part, tokens=part.cleaner), rows - batch.starts[first - 1])
        return found if self.temperature == 1 else found / np.float32(self.temperature)


@dataclass(frozen=True)
class CertaintyForcing:
    """-log q(label) + beta H(q at a temperature) of rows whose likeliest token is the label, -log q(label) of others (dParallel).

    Which rows these are is no part of the gradient. Both terms are over the total weight, so that parts of a batch add up;
    the published entropy is a mean over its own rows.

    Parameters
    ----------
    beta : float, default 2.0
        what the entropy is multiplied by
    temperature : float, default 0.5
        that logits are divided by in the entropy

    Raises
    ------
    ArgumentError
    """

    beta: float = 2.0
    temperature: float = 0.5

    def __post_init__(self) -> None:
        check_number("beta", self.beta, 0, 1e6)
        check_number("temperature", self.temperature, 1e-6, 1e6)

    def __call__(self, logits: np.ndarray, batch: Batch, rows: np.ndarray, total_weight: float) -> Loss:
        labels, weights = batch.labels[rows], batch.weights[rows]
        right = weights * (logits.argmax(axis=1) == labels)
        surer = entropy(logits, weights=right, temperature=self.temperature, scale=self.beta, total_weight=total_weight)
        return _sum(logits, cross_entropy(logits, labels, weights=weights, total_weight=total_weight), surer)


@dataclass(frozen=True)
class MaskedConsistency:
    """D(p, q) of rows that a teacher does not see either, -log q(label) of those that it does (MCD): of a PairBatch.

    Parameters
    ----------
    teacher : CleanerTeacher
        p
    kind : str, default "forward_kl"
        of D: see `fastdistill.distill.divergence`

    Raises
    ------
    ArgumentError

    Notes
    -----
    At its best a forward KL from a teacher at temperature 1 gives back the teacher's own law: what shortens decoding is a
    surer teacher, "reverse_kl", or a teacher that is not exact. Both of the first take choices away: look at diversity.
    """

    teacher: LogitsOf
    kind: str = "forward_kl"

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)

    def __call__(self, logits: np.ndarray, batch: Batch, rows: np.ndarray, total_weight: float) -> Loss:
        pair = _check_pair(batch)
        labels, weights, hidden = batch.labels[rows], batch.weights[rows], ~pair.revealed[rows]
        theirs = np.zeros_like(logits)
        theirs[hidden] = self.teacher.logits(batch, rows[hidden])
        revealed = cross_entropy(logits, labels, weights=weights * ~hidden, total_weight=total_weight)
        both = divergence(logits, theirs, self.kind, weights=weights * hidden, total_weight=total_weight)
        return _sum(logits, revealed, both)


def _sum(logits: np.ndarray, one: Loss, other: Loss) -> Loss:
    """Of two terms, whose gradient takes the place of the logits."""
    np.add(one.gradient, other.gradient, out=logits)
    return Loss(one.value + other.value, logits, one.rows + other.rows, {})


def _answers(batch: Batch) -> np.ndarray:
    """bool (rows,): tokens that are to be predicted.  In a batch of whole sequences the row before each says so."""
    answers = np.zeros(len(batch), bool)
    answers[1:] = batch.weights[:-1] > 0
    return answers


def _prompts(batch: Batch) -> np.ndarray:
    """int32 (sequences,): tokens of each before its answer."""
    places = np.where(_answers(batch), batch.positions, np.iinfo(np.int32).max)
    first = np.minimum.reduceat(places, batch.starts[:-1]) if len(batch) else np.empty(0)
    return np.minimum(first, batch.lengths).astype(np.int32)


def _of_rows(batch: Batch, of_sequences: np.ndarray) -> np.ndarray:
    return np.repeat(of_sequences, batch.lengths)


def _spread(draws: np.random.Generator, count: int) -> np.ndarray:
    """float64 (count,): uniform within [0, 1) each, one in each interval of 1 / count, in any order."""
    return draws.permutation((np.arange(count) + draws.random(count)) / max(count, 1))


def _masked(batch: Batch, mask_token: int, masked: np.ndarray, weights: np.ndarray, shift: int) -> Batch:
    """The batch with these tokens masked, bool (rows,); how much each counts, 0 if not masked: its label is in a row of its own, or before."""
    check_integer("shift", shift, 0, 1)
    counted = np.flatnonzero(weights)
    labels, of_rows = nothing_to_learn(len(batch))
    labels[counted - shift], of_rows[counted - shift] = batch.tokens[counted], weights[counted]
    return Batch(np.where(masked, np.int32(mask_token), batch.tokens), batch.starts, labels, of_rows)


def _paired(batch: Batch, mask_token: int, student: np.ndarray, teacher: np.ndarray, shift: int) -> PairBatch:
    noisy = _masked(batch, mask_token, student, student, shift)
    revealed = np.roll(student & ~teacher, -shift)
    return _pair(noisy, np.where(teacher, np.int32(mask_token), batch.tokens), revealed)


def _pair(batch: Batch, cleaner: np.ndarray, revealed: np.ndarray) -> PairBatch:
    return PairBatch(batch.tokens, batch.starts, batch.labels, batch.weights, cleaner=cleaner, revealed=revealed)


def _check_pair(batch: Batch) -> PairBatch:
    if not isinstance(batch, PairBatch):
        raise ArgumentError(f"batch must be a PairBatch, of `nested` or `consecutive`, got a {type(batch).__name__}")
    return batch
