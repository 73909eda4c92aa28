"""Texts as a draft head learns from them: where, and what it reads there."""

from __future__ import annotations

import numpy as np

from fastdistill.cached import cached_property
from fastdistill.decode.drafters.copies import Copies, Repeats
from fastdistill.models.draft_head import COPIES
from fastdistill.train.own_texts.texts import Texts

REPEATED = 8  # tokens: where so many stood before in the same order, prompt lookup guesses


class HeadTexts(Texts):
    """Texts, with places to learn from.

    Parameters
    ----------
    tokens : int32 (n,)
        this and the others as of `Texts`
    states : float16 (n, hidden_size)
        known
    starts : int64 (texts + 1,)
        of tokens
    prompts : int32 (m,)
        before them
    prompt_starts : int64 (texts + 1,)
        of prompts
    """

    @classmethod
    def of(cls, texts: Texts) -> HeadTexts:
        """The same texts."""
        return cls(texts.tokens, texts.states, texts.starts, texts.prompts, texts.prompt_starts)

    @cached_property
    def ends(self) -> np.ndarray:
        """int64 (n,): where the text of each token ends."""
        return np.repeat(self.starts[1:], np.diff(self.starts))

    @property
    def places(self) -> np.ndarray:
        """int64 (places,): of the tokens that another one follows, and with which no REPEATED tokens end that stood before."""
        return np.flatnonzero((np.arange(len(self.tokens)) + 1 < self.ends) & ~self._behind[1])

    def read(self, places: np.ndarray) -> np.ndarray:
        """int32 (1 + COPIES, *places.shape): what a step reads there, the tokens and their copies."""
        return np.concatenate([self.tokens[places][None], np.moveaxis(self._behind[0][places], -1, 0)])

    @cached_property
    def _behind(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each token: int32 (n, COPIES), its copies; bool (n,), whether REPEATED tokens that end with it stood before."""
        copies, repeats = np.empty((len(self.tokens), COPIES), np.int32), np.empty(len(self.tokens), bool)
        for text in range(len(self)):
            both = (self.prompts, self.prompt_starts), (self.tokens, self.starts)
            prompt, tokens = (array[slice(*starts[text : text + 2])].tolist() for array, starts in both)
            known, seen = Copies(COPIES), Repeats(REPEATED)
            known.append(prompt)
            seen.append(prompt)
            for at, token in enumerate(tokens, self.starts[text]):
                known.append([token])
                copies[at], repeats[at] = known.after(), seen.append([token])
        return copies, repeats

    def places_in(self, which: np.ndarray) -> np.ndarray:
        """Those of `places` that lie in some texts: bool (texts,)."""
        places = self.places
        return places[np.repeat(which, np.diff(self.starts))[places]]
