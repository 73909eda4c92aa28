"""Filled positions that are masked again, or filled anew: a model may take a token back once it sees more of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdistill.arguments import check_integer, check_number
from fastdistill.decode.unmask.rules import Step, log_of
from fastdistill.errors import ArgumentError
from fastdistill.kernels.unmask.unmask_select import UnmaskRule, unmask_select

_LEAST_SURE = UnmaskRule("given")


@dataclass
class Block:
    """The current block, as remasking sees it.

    Attributes
    ----------
    filled : bool (n,)
        which of its positions hold a token
    confidence : float32 (n,)
        log probability of each token when it was filled
    revisions : int32 (n,)
        how often each was replaced
    quotas : list[int] | None
        of the steps still to come, positions to fill in each; None: they are not scheduled
    extra_steps : int
        that the remasking has taken in this block
    """

    filled: np.ndarray
    confidence: np.ndarray
    revisions: np.ndarray
    quotas: list[int] | None = None
    extra_steps: int = 0


def least_sure(block: Block, count: int) -> np.ndarray:
    """The `count` filled positions with the lowest confidence, bool (n,): the first of equal ones first."""
    quota = np.array(count, np.int32)
    return unmask_select(None, block.filled, _LEAST_SURE, quota=quota, scores=-block.confidence).chosen


class Remask:
    """What all kinds of remasking share: nothing happens."""

    fills_block = False  # each step fills all of the block, before some of it is masked again

    def again(self, block: Block) -> np.ndarray | None:
        """Positions to mask again after a step, bool (n,); changes the block's quotas where that takes further steps."""
        return None

    def rereads(self, block: Block) -> np.ndarray | None:
        """Filled positions that the next forward reads again, bool (n,): where its token differs, it may replace what is there."""
        return None

    def replaces(self, step: Step, tokens: np.ndarray) -> np.ndarray:
        """Which predictions of positions that were read again replace the tokens that are there, int32 (n,): bool (n,)."""
        return np.zeros(len(tokens), bool)


@dataclass(frozen=True)
class RunningConfidence(Remask):
    """Each step fills the whole block, then masks again as many as later steps have to fill: the least sure ones (MDPO's RCR).

    A token so keeps its place only while others were filled with less confidence. With `Schedule` alone.
    """

    fills_block = True

    def again(self, block: Block) -> np.ndarray | None:
        return least_sure(block, sum(block.quotas)) if block.quotas else None


@dataclass(frozen=True)
class Remdm(Remask):
    """Late in each block, some steps that first mask the least sure tokens again (ReMDM).

    Parameters
    ----------
    at : float, optional
        when this part of the block has been filled
    steps : int, default 1
        how many such steps a block gets
    count : int, default 1
        tokens masked in each

    Raises
    ------
    ArgumentError
    """

    at: float = 7 / 8
    steps: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        check_number("at", self.at, 0, 1)
        check_integer("steps", self.steps, 0, 1 << 16)
        check_integer("count", self.count, 1, 1 << 30)

    def again(self, block: Block) -> np.ndarray | None:
        filled = int(block.filled.sum())
        if block.extra_steps >= self.steps or filled == 0 or filled < self.at * len(block.filled):
            return None
        block.extra_steps += 1
        count = min(self.count, filled)
        if block.quotas is not None:
            block.quotas.insert(0, count)
        return least_sure(block, count)


@dataclass(frozen=True)
class Revise(Remask):
    """A filled position is read again in each forward, and its token replaced where another one is probable enough (BARD).

    Parameters
    ----------
    threshold : float, default 0.9
        probability that the other token needs
    times : int, default 1
        how often a position may be replaced: bounded, or two tokens might take turns for ever

    Raises
    ------
    ArgumentError
    """

    threshold: float = 0.9
    times: int = 1

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, 0, 1)
        check_integer("times", self.times, 0, 1 << 30)

    def rereads(self, block: Block) -> np.ndarray | None:
        return block.filled & (block.revisions < self.times)

    def replaces(self, step: Step, tokens: np.ndarray) -> np.ndarray:
        return (step.confidence >= log_of(self.threshold)) & (step.tokens != tokens)


def check_remask(remask: object) -> None:
    if remask is not None and not isinstance(remask, Remask):
        raise ArgumentError(
            f"remask must be unmask.RunningConfidence(), Remdm(), Revise() or None, got {type(remask).__name__}"
        )
