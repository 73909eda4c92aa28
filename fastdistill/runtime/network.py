"""A network: plan and weights, immutable, shared between threads; it makes sessions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from hashlib import sha256

import numpy as np

from fastdistill.arguments import check_callable, check_choice
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.errors import NotFiniteError
from fastdistill.kernels.forward.linear import FORMATS
from fastdistill.kernels.threads import check_threads
from fastdistill.models.plan import Plan
from fastdistill.runtime.native import NativeExecutor
from fastdistill.runtime.packing import PackedWeights
from fastdistill.runtime.read import Read
from fastdistill.runtime.reference import ReferenceExecutor, ReferenceWeights
from fastdistill.runtime.session import Session
from fastdistill.runtime.session_file import read_session

EXECUTORS = ("native", "reference")
FINGERPRINT_TOKENS = 8


class Network:
    """Weights packed for one executor, and the plan they belong to.

    plan         what is computed
    weights      packed, by name
    threads      of every forward
    cache_dtype  "f32" or "f16": of keys and values where a session does not say
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, Tensor],
        format: str | None = None,
        threads: int | None = None,
        executor: str = "native",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Pack the tensors (checked against the plan beforehand); nothing of them is held afterwards by `native`.

        format    convert linears and head: "f32", "f16", "bf16", "q8" or "q4"; None keeps what is stored
        threads   of every forward; default: what this process may use
        executor  "native", or "reference": NumPy, op by op, slow
        """
        if format is not None:
            check_choice("format", format, FORMATS)
        check_choice("executor", executor, EXECUTORS)
        if progress is not None:
            check_callable("progress", progress)
        self.plan = plan
        self.threads = check_threads(threads)
        weights = PackedWeights if executor == "native" else ReferenceWeights
        self.weights = weights(plan, tensors, format, self.threads, progress)
        linears = {self.weights.formats[name] for name, weight in plan.weights.items() if weight.linear}
        self.cache_dtype = "f32" if "f32" in linears else "f16"

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self.plan.vocab_size

    def session(
        self, capacity: int | None = None, max_rows: int = 256, cache: str | None = None, taps: Iterable[str] = ()
    ) -> Session:
        """A new, empty sequence.

        capacity  most committed tokens; default: the model's max_position_embeddings
        max_rows  most rows of one forward
        cache     "f16" or "f32" keys and values; default: f32 where weights are f32, else f16
        taps      names of values to expose with every forward: "embedding", "layers.0", ...
        """
        return Session(self, capacity, max_rows, cache, taps)

    def load_session(
        self,
        path: str | os.PathLike[str],
        capacity: int | None = None,
        max_rows: int = 256,
        taps: Iterable[str] = (),
    ) -> Session:
        """The sequence that `Session.save` has written: it goes on with the bits that it would have had.

        raises  CheckpointError where the file is another model's, damaged, or no session; CapacityError where it holds more than
                `capacity`; ArgumentError
        """
        saved = read_session(path, self.plan, self.fingerprint)
        session = self.session(capacity, max_rows, saved.cache, taps)
        session.restore(saved)
        return session

    @cached_property
    def fingerprint(self) -> bytes:
        """What tells this network from others, 32 bytes: its ops, and its logits after a few fixed tokens.

        They have the same bits on every machine, and any other weight, but for the embeddings of other tokens, gives other bits.
        """
        plan = self.plan
        constants = [
            sorted((name, np.array(value).tolist()) for name, value in op.constants.items()) for op in plan.ops
        ]
        facts = [(op.kind, op.inputs, op.segment, some) for op, some in zip(plan.ops, constants, strict=True)]
        digest = sha256(repr(facts).encode())
        tokens = np.arange(FINGERPRINT_TOKENS) * plan.vocab_size // FINGERPRINT_TOKENS
        tokens = tokens[: plan.max_positions]
        with suppress(NotFiniteError):  # such weights are told apart by the rest
            rows = self.session(len(tokens), len(tokens), "f32").forward(tokens, read=Read(logits=True))
            assert rows.logits is not None
            digest.update(rows.logits.astype("<f4").tobytes())
        return digest.digest()

    def executor(self, max_rows: int, most_keys: int, taps: Iterable[str]) -> NativeExecutor | ReferenceExecutor:
        """What runs a session's passes."""
        if isinstance(self.weights, ReferenceWeights):
            return ReferenceExecutor(self.plan, self.weights, taps)
        return NativeExecutor(self.plan, self.weights, max_rows, most_keys, self.threads, taps)
