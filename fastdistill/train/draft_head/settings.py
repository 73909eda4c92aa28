"""What decides a draft head that a model distils by itself."""

from __future__ import annotations

from dataclasses import dataclass

from fastdistill.arguments import check_choice, check_integer
from fastdistill.errors import ArgumentError
from fastdistill.messages import listed, short
from fastdistill.models.draft_head import MEDUSA, MOST_HEADS, RECIPES
from fastdistill.models.plan import Plan
from fastdistill.train.own_texts.settings import DraftSettings


@dataclass(frozen=True, kw_only=True)
class HeadSettings(DraftSettings):
    """What decides a draft head.

    Parameters
    ----------
    model : str
        the target: a folder, or the name of a model that has been fetched
    recipe : str, default "eagle"
        "eagle": one cell, which goes on from its own estimates; "medusa": a head of its own for each guess
    minutes : float, default 30.0
        of work in all
    writing : float, default 0.75
        the share of them in which the target writes
    prompts : str, optional
        a .jsonl or .txt file or a folder, as `fastdistill train` reads them: their prompts come beside the package's own
    max_tokens : int, default 256
        of a text
    temperature : float, default 0.8
        of every third lot of texts; the others are greedy
    draft_vocab_size : int, default 8192
        tokens that it can guess: the most frequent ones of the texts
    intermediate_size : int, optional
        of eagle's feed-forward network; None: 1536, and of medusa there is none
    taps : tuple[str, ...], optional
        names of the model's hidden states that eagle's first step reads beside its last ones; None: the one after two
        thirds of its layers
    steps : int, default 3
        guesses in a row that it learns, at most 64: as many heads as medusa has
    objective : str, default "forward_kl"
        a divergence of its law from the target's, over the tokens that it can guess
    learning_rate : float, default 1e-3
        the highest
    rows : int, default 256
        of a batch
    format : str, default "q4"
        that the head is kept in: "q4", "q8", "f16" or "f32"
    seed : int, default 0
        of what is drawn: the order of prompts, the texts that are not greedy, the first weights, the order of batches
    threads : int, optional
        change no bit

    Raises
    ------
    ArgumentError
    """

    writing: float = 0.75
    recipe: str = "eagle"
    draft_vocab_size: int = 8192
    intermediate_size: int | None = None
    taps: tuple[str, ...] | None = None
    steps: int = 3
    rows: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("recipe", self.recipe, RECIPES)
        for name, most in (("draft_vocab_size", 1 << 20), ("steps", MOST_HEADS), ("rows", 1 << 20)):
            check_integer(name, getattr(self, name), 1, most)
        if self.intermediate_size is not None:
            check_integer("intermediate_size", self.intermediate_size, 1, 1 << 20)
            if self.recipe == MEDUSA:
                raise ArgumentError("intermediate_size goes with recipe 'eagle': medusa has no feed-forward network")
        if self.taps is not None:
            if type(self.taps) not in (tuple, list) or not all(type(name) is str for name in self.taps):
                raise ArgumentError(f"taps must be names of hidden states, got {short(self.taps)}")
            object.__setattr__(self, "taps", tuple(self.taps))
            if self.recipe == MEDUSA and self.taps:
                raise ArgumentError("taps go with recipe 'eagle': medusa reads the last state alone")

    def reads(self, plan: Plan) -> tuple[str, ...]:
        if self.recipe == MEDUSA or not plan.num_layers:
            return ()
        taps = (f"layers.{2 * plan.num_layers // 3}",) if self.taps is None else self.taps
        known = [name for name, value in plan.taps.items() if plan.widths[value] == plan.hidden_size]
        for name in taps:
            if name not in known:
                raise ArgumentError(f"tap {short(name)} is unknown; this model has: {listed(known)}")
        return taps
