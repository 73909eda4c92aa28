"""A draft head: what guesses the tokens after the next from the hidden state that gave the next one.

A step of it gives an estimate of the state behind a later token: what the target's head would read there.  From that the
token is guessed, over the most frequent tokens alone.  What a step reads is its recipe's.

Eagle: one cell for all steps reads a state h and the token drawn from it, and goes on from its own estimate h' (Li et al.
2024, EAGLE, without attention; Cheng et al. 2024, ReDrafter).  In place of attention it reads copies: c_k followed when the
last k tokens stood in the text before, or is none.  Looking them up costs nothing, and a small model repeats itself more
than it invents.

    x = A rms(E) + C1 rms(E1) + C2 rms(E2) + B rms(h)
    h' = x + D (silu(G rms(x)) * U rms(x))

with E the token's row of the target's table, E1 and E2 those of its copies.  h has been made to name one token; what comes
later shows better in layers before (Li et al. 2025, EAGLE-3).  So the first step, for which the target has run, reads taps
m of it too: with a matrix of its own, F [rms(h), rms(m), ...] in place of B rms(h).

Medusa: step k has weights of its own, and reads the target's h, whatever has been guessed since (Cai et al. 2024, Medusa,
section 2.1.1).

    h'_k = h + silu(W_k h + b_k)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np

from fastdistill.checkpoint.folder import open_checkpoint, write_checkpoint
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.errors import CheckpointError
from fastdistill.messages import short
from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan

TABLE = "embedding.weight"  # the target's, of tokens
COPIES = 2  # k = 1 .. COPIES
MOST_HEADS = 64
RECIPES = EAGLE, MEDUSA = "eagle", "medusa"
TOKENS = (
    "embedding",
    *(f"copies.{k}" for k in range(1, COPIES + 1)),
)  # what eagle's cell reads of them: its weights' names
HEAD, HEAD_BIAS = "head.weight", "head.bias"  # the target's head, of the tokens that are guessed
# How often a guess is right where its parent is, is learnt by the share that the head gives it: between these edges.
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)


def kind_of(shares: np.ndarray) -> np.ndarray:
    """int64, of the shape of `shares`: between which edges each lies."""
    return np.searchsorted(SHARES, shares, side="right")


@dataclass(frozen=True)
class DraftHead:
    """Sizes of one.

    Attributes
    ----------
    hidden_size : int
        of what the target's head reads
    embedding_size : int
        of a row of the target's table of tokens
    vocab_size : int
        of the target
    draft_vocab_size : int
        tokens that it can guess
    intermediate_size : int
        of eagle's feed-forward network; 0: of medusa there is none
    heads : int
        steps of medusa; 0: it is eagle's cell, which goes on and on
    epsilon : float
        of norms
    logit_scale : float
        times what the target's head reads
    logit_softcap : float
        of the target's logits; 0: none
    head_bias : bool
        whether the target's head has one
    taps : tuple[str, ...]
        names of the target's hidden states, as wide as h, that eagle's first step reads beside it
    """

    hidden_size: int
    embedding_size: int
    vocab_size: int
    draft_vocab_size: int
    intermediate_size: int = 0
    heads: int = 0
    epsilon: float = 1e-5
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    head_bias: bool = False
    taps: tuple[str, ...] = ()

    @property
    def recipe(self) -> str:
        """One of RECIPES."""
        return MEDUSA if self.heads else EAGLE

    @property
    def chained(self) -> bool:
        """Whether a step reads what the step before it gave, and not the target's state."""
        return self.recipe == EAGLE

    @property
    def copies(self) -> int:
        """Tokens that a step reads beside the last one."""
        return COPIES if self.chained else 0

    @property
    def cells(self) -> int:
        """Steps that have weights of their own; those after the last one have its."""
        return self.heads or (2 if self.taps else 1)

    def width(self, step: int) -> int:
        """Numbers that a row has which a step reads, as `inputs`: of the first one h, then its taps."""
        return self.hidden_size * (1 if step else 1 + len(self.taps))

    def state_name(self, step: int) -> str:
        """What eagle's weights are called that read this."""
        return "hidden" if step or not self.taps else "fused"

    def plan(self, step: int | None = None) -> Plan:
        """A step, over rows that have a state, as `inputs`, and tokens, int32 (1 + COPIES, rows), the copies last: "hidden", h', and "logits" of the tokens that it can guess.

        None: with the weights of all steps; it is not for running, unless there is one.
        """
        b, x = Builder(), 0
        for number in range(self.cells) if step is None else [step]:
            h = b.op("given", width=self.width(number))
            x = self._cell(b, h, number) if self.chained else self._head(b, h, number)
        facts: dict[str, Any] = {
            "hidden_size": self.hidden_size,
            "max_positions": 1 << 20,
            "architecture": "draft_head",
        }
        logits = b.head(
            b.scale(x, self.logit_scale), HEAD.removesuffix(".weight"), self.draft_vocab_size,
            bias=self.head_bias, softcap=self.logit_softcap,
        )  # fmt: skip
        return b.plan(x, {"hidden": x, "logits": logits}, {}, vocab_size=self.draft_vocab_size, **facts)

    def _cell(self, b: Builder, h: int, step: int) -> int:
        width = self.hidden_size
        name, each = self.state_name(step), width if self.width(step) > width else 0
        x = b.linear(b.rms_norm(h, f"{name}_norm.weight", self.epsilon, head_dim=each), f"{name}_proj", width)
        for column, name in enumerate(TOKENS):
            token = b.embedding(TABLE, self.vocab_size, self.embedding_size, column=column)
            token = b.rms_norm(token, f"{name}_norm.weight", self.epsilon)
            x = b.add(b.linear(token, f"{name}_proj", width), x)
        y = b.rms_norm(x, "mlp_norm.weight", self.epsilon)
        gate, up = (b.linear(y, f"mlp.{name}_proj", self.intermediate_size) for name in ("gate", "up"))
        return b.add(x, b.linear(b.gated(gate, up, "silu"), "mlp.down_proj", width))

    def _head(self, b: Builder, h: int, number: int) -> int:
        inner = b.linear(h, f"heads.{number}", self.hidden_size, bias=True)
        return b.add(h, b.activation(inner, "silu"))

    @property
    def trained(self) -> tuple[str, ...]:
        """The weights that are its own."""
        return tuple(name for name in self.plan().weights if name not in (TABLE, HEAD, HEAD_BIAS))


MODEL_TYPE, D2T = "fastdistill_draft_head", "d2t"


@dataclass(frozen=True, eq=False)
class SavedHead:
    """A draft head as a folder holds it: all but the target's table.

    Attributes
    ----------
    shape : DraftHead
        its sizes
    d2t : int32 (draft_vocab_size,)
        ascending, the target's token for each that it can guess
    tensors : Mapping[str, Tensor]
        its weights by name, HEAD among them
    priors : tuple[tuple[float, float], ...]
        one a kind of `kind_of`: how many guesses are taken to have been right and wrong
    facts : Mapping[str, Any]
        how it was made: what config.json says beside that
    """

    shape: DraftHead
    d2t: np.ndarray
    tensors: Mapping[str, Tensor]
    priors: tuple[tuple[float, float], ...]
    facts: Mapping[str, Any]

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the folder, whole or not at all.

        Raises
        ------
        CheckpointError
        """
        config = {
            "model_type": MODEL_TYPE,
            "recipe": self.shape.recipe,
            **asdict(self.shape),
            "priors": [*chain.from_iterable(self.priors)],
            **self.facts,
        }
        write_checkpoint(
            folder, config, [*self.tensors.values(), Tensor(D2T, "i32", self.d2t.shape, self.d2t)], overwrite=overwrite
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> SavedHead:
        """Read what `save` has written.

        Raises
        ------
        CheckpointError
            where it is no draft head, or is damaged
        """
        with open_checkpoint(folder) as checkpoint:
            config = checkpoint.config
            if config.raw.get("model_type") != MODEL_TYPE:
                raise CheckpointError(
                    f"{folder}: is no draft head: its model_type is {short(config.raw.get('model_type'))}; a model drafts with "
                    "ModelDrafter, or --drafter model --draft-model"
                )
            eagle = config.choice("recipe", *RECIPES, default=EAGLE) == EAGLE
            most = dict.fromkeys(("hidden_size", "embedding_size", "vocab_size", "draft_vocab_size"), 1 << 24)
            most |= {"intermediate_size": 1 << 24} if eagle else {"heads": MOST_HEADS}
            integers = {name: config.integer(name, minimum=1, maximum=size) for name, size in most.items()}
            taps = config.strings("taps", default=[]) if eagle else []
            shape = DraftHead(
                **integers,
                epsilon=config.number("epsilon", minimum=1e-12),
                logit_scale=config.number("logit_scale", default=1.0),
                logit_softcap=config.number("logit_softcap", minimum=0, default=0.0),
                head_bias=config.boolean("head_bias", default=False),
                taps=tuple(taps),
            )
            plan = shape.plan()
            wanted = {name: weight.shape for name, weight in plan.weights.items() if name != TABLE}
            wanted[D2T] = (shape.draft_vocab_size,)
            found = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
            if found != wanted:
                raise CheckpointError(f"{folder}: a draft head of these sizes has the tensors {wanted}, found {found}")
            tensors = {name: tensor.rows(...) for name, tensor in checkpoint.tensors.items()}
            d2t = tensors.pop(D2T).data
            if d2t.dtype != np.int32 or d2t[0] < 0 or d2t[-1] >= shape.vocab_size or (np.diff(d2t) <= 0).any():
                raise CheckpointError(f"{folder}: {D2T} must be ascending tokens below {shape.vocab_size}")
            flat = config.numbers("priors", 2 * (len(SHARES) + 1), minimum=1e-6, maximum=1e6)
            priors = tuple(zip(flat[::2], flat[1::2], strict=True))
            known = {"model_type", "recipe", "priors", "quantization_config", *asdict(shape)}
            return cls(
                shape, d2t, tensors, priors, {name: value for name, value in config.raw.items() if name not in known}
            )
