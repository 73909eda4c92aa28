"""A network: plan and weights, immutable, shared between threads; it makes sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fastdistill.arguments import check_callable, check_choice
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.kernels.linear import FORMATS
from fastdistill.kernels.threads import check_threads
from fastdistill.models.plan import Plan
from fastdistill.runtime.native import NativeExecutor
from fastdistill.runtime.packing import PackedWeights
from fastdistill.runtime.reference import ReferenceExecutor, ReferenceWeights
from fastdistill.runtime.session import Session

EXECUTORS = ("native", "reference")


class Network:
    """Weights packed for one executor, and the plan they belong to."""

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

    def executor(self, max_rows: int, most_keys: int, taps: Iterable[str]) -> NativeExecutor | ReferenceExecutor:
        """What runs a session's passes."""
        if isinstance(self.weights, ReferenceWeights):
            return ReferenceExecutor(self.plan, self.weights, taps)
        return NativeExecutor(self.plan, self.weights, max_rows, most_keys, self.threads, taps)
