"""What decides a draft head that a model distils by itself."""

from __future__ import annotations

from dataclasses import dataclass

from fastdistill.arguments import check_choice, check_integer
from fastdistill.models.draft_head import RECIPES
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
    writing : float, default 0.5
        the share of them in which the target writes
    prompts : str, optional
        a .jsonl or .txt file or a folder, as `fastdistill train` reads them: their prompts come beside the package's own
    max_tokens : int, default 256
        of a text
    temperature : float, default 0.8
        of every third lot of texts; the others are greedy
    draft_vocab_size : int, default 8192
        tokens that it can guess: the most frequent ones of the texts
    intermediate_size : int, default 1536
        of eagle's feed-forward network
    steps : int, default 3
        guesses in a row that it learns: as many heads as medusa has
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

    recipe: str = "eagle"
    draft_vocab_size: int = 8192
    intermediate_size: int = 1536
    steps: int = 3
    rows: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("recipe", self.recipe, RECIPES)
        for name in ("draft_vocab_size", "intermediate_size", "steps", "rows"):
            check_integer(name, getattr(self, name), 1, 1 << 20)
