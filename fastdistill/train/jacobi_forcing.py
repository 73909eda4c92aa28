"""Jacobi Forcing: a causal model learns to say over guesses of its own, wrong ones among them, what it says over the right tokens.

The model's texts are cut into blocks.  A state that a block has on its way to the text, when Jacobi decoding writes it, stands
beside the block itself, at the same positions, and its rows learn from the rows of the block.  So a batch is a tree: the text
is the trunk, states are branches.

The objective is a divergence from a teacher, `objective("forward_kl")`.  Its laws are the model's own, made before the step, so that no
gradient goes through them; of rows of the text, which are to stay as they are, the law is the token that follows.

Sources: Jacobi Forcing (Hu et al. 2025); with schedule="random" and behind="text" CLLM (Kou et al. 2024), global and local consistency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import check_choice, check_instance, check_integer, check_number
from fastdistill.distill.masks.generator import as_generator
from fastdistill.distill.masks.jacobi_pairs import NOISY, PackedPairs, noise_schedule, pack_pairs, pick_state
from fastdistill.distill.teachers.teacher_top_k import TopK, teacher_top_k
from fastdistill.train.batch import Batch, Seen, nothing_to_learn
from fastdistill.train.data.rollouts import MAX_TOKENS, rollouts
from fastdistill.train.engine import Engine

SCHEDULES = ("progressive", "random")
BEHIND = ("states", "text")
TOWARD = ("text", "next")


class Trajectory(NamedTuple):
    """How the blocks of a text come about, each behind the right text.

    Attributes
    ----------
    prompt : np.ndarray int32 (p,)
        what stands before the blocks: a prompt, and less than a block of the text
    states : np.ndarray int32 (iterations + 1, blocks, n)
        from tokens of the prompt by chance to the text; behind its end the last block is filled up with its last token
    first, end : int
        positions of the text's first token, and behind its last
    """

    prompt: np.ndarray
    states: np.ndarray
    first: int
    end: int


@dataclass(frozen=True)
class JacobiForcing:
    """What is trained on, and how much it counts.

    Parameters
    ----------
    block : int, default 16
        tokens of a block
    schedule : str, default "progressive"
        how noisy states are, from 0, the text, to 1, a wrong first token: it rises over a window; "random": by chance
    behind : str, default "states"
        what a state stands behind: the states of the blocks before it in its window, and the text before these; or "text"
    toward : str, default "text"
        whose laws a state learns: those of the text (global consistency), or of the state after it ("next": local)
    window : int, default 16
        blocks
    text_scale : float, default 10.0
        of the mean cross entropy of a text, beside the mean divergence of its states
    top : int, default 64
        tokens that are kept of the model's laws; all others are one outcome

    Raises
    ------
    ArgumentError
    """

    block: int = 16
    schedule: str = "progressive"
    behind: str = "states"
    toward: str = "text"
    window: int = 16
    text_scale: float = 10.0
    top: int = 64

    def __post_init__(self) -> None:
        for name in ("block", "window", "top"):
            check_integer(name, getattr(self, name), 1, 1 << 16)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("behind", self.behind, BEHIND)
        check_choice("toward", self.toward, TOWARD)
        check_number("text_scale", self.text_scale, 0, 1e6)

    def trajectories(
        self,
        engine: Engine,
        prompts: Sequence[Sequence[int]],
        generator: Any,
        *,
        max_tokens: int = MAX_TOKENS,
        end_tokens: Sequence[int] = (),
    ) -> list[Trajectory]:
        """What the model writes now behind each prompt, greedily, and how Jacobi decoding comes to it.

        A forward is an iteration of all blocks, each behind the right text: as many forwards as a block has tokens, at most.

        Parameters
        ----------
        engine : Engine
        prompts : sequence of token ids
        generator : numpy.random.Generator or seed
            of first states, and of where blocks begin
        max_tokens : int, default 128
            most of each text
        end_tokens : sequence of int, default ()
            those that end a text, as its last one

        Raises
        ------
        ArgumentError
        CapacityError
            for a prompt that leaves no room for a token
        """
        check_instance("engine", engine, Engine)
        generator = as_generator("generator", generator)
        written = rollouts(engine.network(), prompts, temperature=0, max_tokens=max_tokens, end_tokens=end_tokens)
        found = []
        for prompt, (start, stop) in zip(prompts, pairwise(written.starts), strict=True):
            text = written.tokens[start:stop]
            first, end = len(prompt), len(text)
            begin = first + int(generator.integers(min(self.block, end - first)))
            blocks = np.pad(text[begin:], (0, (begin - end) % self.block), "edge").reshape(-1, self.block)
            found.append(Trajectory(text[:begin], _states(engine, text[:begin], blocks, end, generator), first, end))
        return found

    def batch(self, engine: Engine, trajectories: Sequence[Trajectory], generator: Any) -> Batch:
        """Texts and a state of each block, and what their rows are to learn, by the model as it is now.

        Of a text, rows that are followed by a token of it weigh text_scale together, and those of states that have
        something to learn 1 / blocks a state: from the one on whose token is wrong.  The objective is divided by the
        sum of weights, or by another `total_weight`: the number of texts, in Jacobi Forcing.

        Parameters
        ----------
        engine : Engine
        trajectories : sequence of Trajectory
            whose trees fit into a batch: rows of a prompt, and two of each token of blocks
        generator : numpy.random.Generator or seed
            of states by chance

        Raises
        ------
        ArgumentError
        """
        check_instance("engine", engine, Engine)
        generator = as_generator("generator", generator)
        for each in trajectories:
            check_instance("a trajectory", each, Trajectory)
        picked = [self._picked(each.states, generator) for each in trajectories]
        packs = [
            pack_pairs(each.prompt, np.stack([_states_at(each, of_block), each.states[-1]], axis=1))
            for each, of_block in zip(trajectories, picked, strict=True)
        ]
        batch, _ = _tree(packs, self.window if self.behind == "states" else 1)
        teaches = batch
        if self.toward == "next":
            ahead = [_states_at(each, of_block + 1) for each, of_block in zip(trajectories, picked, strict=True)]
            teaches = _with_states(batch, packs, ahead)
        labels, weights = batch.labels, batch.weights
        students, teachers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start, pack, (_, states, first, end) in zip(batch.starts, packs, trajectories, strict=False):
            places = pack.positions[pack.label_rows]
            learnt = (first - 1 <= places) & (places < end - 1)
            rows = start + pack.label_rows[learnt]
            labels[rows], weights[rows] = pack.labels[learnt], self.text_scale / len(rows)
            learnt = pack.positions[pack.student_rows] < end - 1
            students.append(start + pack.student_rows[learnt])
            teachers.append(start + (pack.teacher_rows if self.toward == "text" else pack.student_rows)[learnt])
            blocks = pack.blocks[pack.student_rows[learnt]]
            weights[students[-1]] = 1 / (states.shape[1] * np.bincount(blocks)[blocks])
        shape = len(batch), min(self.top, engine.vocab_size)
        teacher = TopK(
            np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32), np.zeros(len(batch), np.float32)
        )
        teacher.ids[:, 0] = labels.clip(-1)  # of rows of the text: the token that follows, and no other
        teacher.log_probs[:, 0] = 0
        rows = np.concatenate(students)
        laws = teacher_top_k(engine.logits(teaches, np.concatenate(teachers)), shape[1])
        for mine, own in zip(teacher, laws, strict=True):
            mine[rows] = own
        labels[rows] = np.take_along_axis(laws.ids, laws.log_probs.argmax(axis=1)[:, None], axis=1)[:, 0]
        return replace(batch, teacher=teacher)

    def _picked(self, states: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """int64 (blocks,): the state of each block that is learnt from."""
        count = states.shape[1]
        progressive = self.schedule == "progressive"
        noise = noise_schedule(count, window=self.window) if progressive else generator.random((count,))
        return np.array([pick_state(states[:, block], each) for block, each in enumerate(noise)], np.int64)


def _states_at(trajectory: Trajectory, of_blocks: np.ndarray) -> np.ndarray:
    """int32 (blocks, n): of each block this state, or the text where it has no more."""
    last = len(trajectory.states) - 1
    return trajectory.states[np.minimum(of_blocks, last), np.arange(len(of_blocks))]


def _with_states(batch: Batch, packs: Sequence[PackedPairs], states: Sequence[np.ndarray]) -> Batch:
    """The batch of these packs with other states of its blocks, (blocks, n) a pack."""
    tokens = batch.tokens.copy()
    for start, pack, each in zip(batch.starts, packs, states, strict=False):
        tokens[start + np.flatnonzero(pack.streams == NOISY)] = each.reshape(-1)
    return replace(batch, tokens=tokens)


def _states(
    engine: Engine, prompt: np.ndarray, blocks: np.ndarray, end: int, generator: np.random.Generator
) -> np.ndarray:
    """States of the blocks of a text, up to the text, int32 (iterations + 1, blocks, n); what is behind the end stays as it is."""
    pack = pack_pairs(prompt, np.stack([blocks, blocks], axis=1))
    batch, parents = _tree([pack], window=1)
    noisy = np.flatnonzero(pack.streams == NOISY)
    free = noisy[pack.positions[noisy] < end]
    before, of = np.unique(parents[free], return_inverse=True)
    tokens, drawn = batch.tokens, generator.choice(prompt, len(free))
    states: list[np.ndarray] = []
    while not states or (drawn != tokens[free]).any():
        tokens[free] = drawn
        states.append(tokens[noisy])
        drawn = engine.logits(batch, before).argmax(axis=1)[of]
    return np.stack(states).reshape(-1, *blocks.shape)


def _tree(packs: Sequence[PackedPairs], window: int) -> tuple[Batch, np.ndarray]:
    """Packed texts as a batch that nothing is learnt from yet, with arrays of its own; and of each row the one before it in its text."""
    starts = np.cumsum([0, *(len(pack.tokens) for pack in packs)])
    parents, tokens = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for start, pack in zip(starts.tolist(), packs, strict=False):
        own = _parents(pack, window)
        parents.append(np.where(own < 0, -1, own + start).astype(np.int32))
        tokens.append(pack.tokens)
    above, all_tokens = np.concatenate(parents), np.concatenate(tokens)
    return Batch(all_tokens, starts, *nothing_to_learn(len(above)), seen=Seen.of_parents(above)), above


def _parents(pack: PackedPairs, window: int) -> np.ndarray:
    """int32 (length,): states of the blocks of a window are one text, which branches off behind the text before it."""
    text, noisy = np.flatnonzero(pack.streams != NOISY), np.flatnonzero(pack.streams == NOISY)
    parents = np.full(len(pack.tokens), -1, np.int32)
    for chain in (text, noisy):
        parents[chain[1:]] = chain[:-1]
    begins = noisy[np.diff(pack.blocks[noisy] // window, prepend=-1) > 0]
    parents[begins] = text[pack.positions[begins] - 1]
    return parents
