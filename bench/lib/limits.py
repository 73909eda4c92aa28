"""What a forward cannot be faster than: the memory it has to read, and the multiply-adds it has to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.lib import machine
from bench.lib.engines import Work
from fastdistill.kernels.boundary import lib
from fastdistill.kernels.forward.linear import FORMATS
from fastdistill.runtime.kv_cache import KVCache
from fastdistill.runtime.network import Network
from fastdistill.runtime.packing import QUANTISED


@dataclass(frozen=True)
class Cost:
    """What forwards of one network read and compute."""

    weight_bytes: int  # packed, all that a forward reads
    token_bytes: int  # of the cache, keys and values of one token
    row: Mapping[str, int]  # multiply-adds of every row's linears, by format
    read_row: Mapping[str, int]  # and of the head

    def bytes(self, work: Work) -> int:
        """Weights and cache, each once however many rows share them."""
        return self.weight_bytes + (work.cached + work.rows) * self.token_bytes

    def multiply_adds(self, work: Work) -> Counter[str]:
        """By format."""
        total: Counter[str] = Counter()
        for format, count in self.row.items():
            total[format] += work.rows * count
        for format, count in self.read_row.items():
            total[format] += work.reads * count
        return total


def cost_of(network: Network) -> Cost:
    plan, weights = network.plan, network.weights
    used = {kind: [op.weights[0] for op in plan.ops if op.kind == kind] for kind in ("linear", "head", "embedding")}
    counts = {}
    for kind in ("linear", "head"):
        counts[kind] = Counter[str]()
        for name in used[kind]:
            outputs, inputs = plan.weights[name].shape
            counts[kind][weights.formats[name]] += outputs * inputs
    looked_up = {*used["embedding"]} - {*used["linear"], *used["head"]}  # a row a token: next to nothing
    unread = sum(lib.fd_packed_bytes(FORMATS[weights.formats[name]], *plan.weights[name].shape) for name in looked_up)
    token_bytes = KVCache.slot_bytes(plan, network.cache_dtype)
    return Cost(weights.nbytes - unread, token_bytes, counts["linear"], counts["head"])


@dataclass
class Limits:
    """The machine's limits with so many threads; measured again, the better figure counts."""

    threads: int
    bandwidth: float = 0.0  # bytes a second
    rates: dict[tuple[str, str, bool], float] = field(default_factory=dict)  # (level, format, scales): a second

    def measure(self, kinds: set[tuple[str, str]]) -> None:
        """Bandwidth, and the multiply-adds of these pairs of a level and a format."""
        self.bandwidth = max(self.bandwidth, machine.bandwidth(self.threads))
        for level, format in kinds:
            for scales in (True, False):
                found = machine.multiply_adds(level, format, scales, self.threads)
                self.rates[level, format, scales] = max(found, self.rates.get((level, format, scales), 0.0))
            best = max(self.rates[level, format, scales] for scales in (True, False))
            self.rates[level, format, False] = best
            if format not in QUANTISED:  # floats have no scales
                self.rates[level, format, True] = best

    def reading(self, cost: Cost, work: Work) -> float:
        """Seconds to read what the forward needs."""
        return cost.bytes(work) / self.bandwidth

    def computing(self, cost: Cost, work: Work, level: str, scales: bool) -> float:
        """Seconds of its linears' dot products; `scales`: and of the instructions that follow each block."""
        return sum(count / self.rates[level, format, scales] for format, count in cost.multiply_adds(work).items())
