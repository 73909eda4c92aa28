"""How a draft model's next tokens are found: as the target would draw them, or drawn on their own from laws that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastdistill.decode.chance import DRAFT, MOST_ROUNDS
from fastdistill.decode.drafters.draft import DraftRequest
from fastdistill.kernels.sample.gumbel_noise import gumbel_noise
from fastdistill.kernels.sample.probabilities import probabilities
from fastdistill.runtime.read import STATISTICS_ONLY, Read, Rows


class Drawing:
    """Ranks the next tokens of a draft model.

    Same text: with the target's own noise of that position, so that both draw alike where their logits are (Daliri et
    al. 2024). Same law: with noise of the draft's own, so that the k best are k draws without replacement (Gumbel
    top-k).

    Parameters
    ----------
    allowed : uint32 (words,), optional
        tokens that can be proposed; None: all
    to_target : int32 (vocab,), optional
        the target's token for each, whose noise and bias it is drawn with; None: the same
    """

    def __init__(
        self, request: DraftRequest, allowed: np.ndarray | None = None, to_target: np.ndarray | None = None
    ) -> None:
        self.sampled, self._allowed, self._to_target = request.sampled, allowed, to_target
        self._vocab_size = request.session.vocab_size
        self._session_draws = not request.sampled and to_target is None
        self._round = -1
        self._ranking = self._sampler = request.sampler
        if to_target is not None:
            bias = request.sampler.logit_bias
            own = to_target.tolist() if bias else []  # most texts have none, and a vocabulary is long
            mapped = {token: bias[target] for token, target in enumerate(own) if target in bias}
            # The prompt is as long as what the draft's text has of it.
            length = int(np.isin(request.prompt[: request.sampler.prompt_length], to_target).sum())
            self._ranking = self._sampler = replace(request.sampler, logit_bias=mapped, prompt_length=length)
        self.takes_likeliest = not request.sampled and allowed is None and self._sampler.is_greedy
        if not self._sampler.temperature and not self.sampled:  # the law of greedy decoding ranks one token alone
            self._ranking = replace(self._sampler, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)

    def begin_round(self) -> None:
        """From here on chance is another."""
        self._round += 1

    def read(self, rows: int) -> Read:
        """What `first` wants of so many rows; `ranked` wants logits."""
        if self.takes_likeliest:
            return STATISTICS_ONLY
        return Read(sampler=self._sampler, allowed=self._masks(rows)) if self._session_draws else Read(logits=True)

    def first(self, rows: Rows, position: int, index: int, seen: np.ndarray) -> tuple[int, float, np.ndarray | None]:
        """The first choice after the last row read, its share, and, where it was drawn, from which law: float32 (1, vocab).

        Parameters
        ----------
        rows : Rows
        position : int
            of the row that it follows
        index : int
            tells draws of one round apart that share a position
        seen : int32 (n,)
            the text before it
        """
        if self._session_draws or self.takes_likeliest:
            statistics = rows.statistics
            token = int(statistics.argmax[-1] if rows.tokens is None else rows.tokens[-1])
            return token, float(np.exp(statistics.top[-1] - statistics.log_sum_exp[-1])), None
        keys, laws = self.ranked(rows, [position], [index], [seen])
        token = int(keys[-1].argmax())
        return token, float(laws[-1, token]), laws if self.sampled else None

    def ranked(
        self, rows: Rows, positions: Sequence[int], indices: Sequence[int], seen: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """After each row read: keys that rank the tokens, the best the largest, and their law, both float32 (rows, vocab).

        Parameters
        ----------
        rows : Rows
        positions, indices, seen
            one a row, as in `first`
        """
        assert rows.logits is not None
        laws = probabilities(rows.logits, self._ranking, seen=seen, allowed=self._masks(len(positions)))
        with np.errstate(divide="ignore"):
            keys = np.log(laws)
        if not self._sampler.temperature:
            return keys, laws
        chance = {"seed": self._sampler.seed, "sequence": self._sampler.sequence, "round": self._sampler.round}
        for row, (position, index) in enumerate(zip(positions, indices, strict=True)):
            if self.sampled:
                chance |= {"purpose": DRAFT, "round": self._round % MOST_ROUNDS, "index": index}
            own = self.sampled or self._to_target is None
            noise = gumbel_noise(np.array([position], np.int32), keys.shape[1] if own else self._vocab_size, **chance)[
                0
            ]
            keys[row] += noise if own else noise[self._to_target]
        return keys, laws

    def _masks(self, rows: int) -> np.ndarray | None:
        return None if self._allowed is None else np.repeat(self._allowed[None], rows, axis=0)
