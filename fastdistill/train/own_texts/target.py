"""The model that distils a draft."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastdistill.checkpoint import eos_token_ids, open_checkpoint
from fastdistill.errors import UnsupportedError
from fastdistill.fetch import find_folder
from fastdistill.models import Plan, plan_of
from fastdistill.runtime.network import Network
from fastdistill.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Target:
    """The model that distils.

    Attributes
    ----------
    folder : Path
        where it is
    network : Network
        what runs it
    tokenizer : Tokenizer
        its own
    end_tokens : frozenset[int]
        those that end a text
    """

    folder: Path
    network: Network
    tokenizer: Tokenizer
    end_tokens: frozenset[int]

    @property
    def plan(self) -> Plan:
        return self.network.plan

    @classmethod
    def load(cls, model: str, threads: int | None) -> Target:
        """From a folder, or by the name of a model that has been fetched.

        Raises
        ------
        CheckpointError, TextError
        UnsupportedError
            for a model that is not causal, or has no head
        """
        folder = find_folder(model)
        with open_checkpoint(folder) as checkpoint:
            network = Network(plan_of(checkpoint), checkpoint.tensors, None, threads)
            ends = eos_token_ids(checkpoint.config, checkpoint.generation_config)
        if not network.plan.causal or "logits" not in network.plan.outputs:
            raise UnsupportedError(f"a draft is for a causal model with a head, which {model} is not")
        return cls(folder, network, Tokenizer(folder), ends)
