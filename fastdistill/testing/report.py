"""What a self-test found, as an object, as text and as JSON."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any

SMALL_MODEL = "listops-mdlm"  # whose logits are hashed: it comes with the package
WEIGHT_BYTES = 64 << 20  # multiplied by one row: more than most caches; and as many for what they are packed from
_EXAMPLE_BYTES = 100_000_000


@dataclass(frozen=True)
class ModelSpeed:
    """How fast a model wrote, a token a forward; of an encoder, how fast it read texts, many tokens a forward.

    Attributes
    ----------
    model : str
        as it was given
    forwards : int
        that were timed
    tokens : int
        of all of them
    seconds : float
        that they took
    bytes : int
        that one of them reads: weights once, and keys and values
    """

    model: str
    forwards: int
    tokens: int
    seconds: float
    bytes: int

    @property
    def tokens_per_second(self) -> float:
        """As measured."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Difference:
    """Something that is not as it must be.

    Attributes
    ----------
    kernel : str
        its name; "logits" where the small model's are not those of every machine; "encode" where a text of an encoder has
        other bits among others, or at this level
    level : str
        the instruction-set level
    seed : int | None
        of the case; None of logits and texts
    threads : int
        that the call had
    message : str
        what differs first
    model : str | None
        whose texts they are; None of kernels and logits
    """

    kernel: str
    level: str
    seed: int | None
    threads: int
    message: str
    model: str | None = None

    @property
    def command(self) -> str:
        """What repeats it."""
        if self.model is not None:
            return f"fastdistill selftest {shlex.quote(self.model)} --seconds 0 --level {self.level}"
        seed = "" if self.seed is None else f" --seed {self.seed}"
        return f"fastdistill selftest --kernel {self.kernel} --level {self.level}{seed}"

    def __str__(self) -> str:
        case = "" if self.seed is None else f", case seed {self.seed}"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.kernel} at {self.level}{case}, {threads}: {self.message}\n  repeat: {self.command}"


@dataclass(frozen=True)
class Report:
    """What `selftest` found; its str is a text for people.

    Attributes
    ----------
    version : str
        of fastdistill
    levels : tuple[str, ...]
        those that were checked
    level : str
        the one that is selected, and that speeds were measured at
    threads : int
        that this process uses by default
    cases : dict[str, int]
        by kernel, how many cases ran at every one of the levels
    seconds : float
        that they took
    logits : int
        ways by which the small model's logits were computed and hashed; 0: none
    encoded : int
        ways by which an encoder has read texts, hashed likewise; 0: none was given
    differences : tuple[Difference, ...]
        of each kernel and level the first; none: all is right
    complete : bool
        False where it was interrupted
    memory : int | None
        bytes in all; None where the system does not say, or nothing was measured
    available : int | None
        bytes that programs can have without others giving way
    bandwidth : float | None
        bytes a second that the machine reads; None where nothing was measured
    weight_rates : dict[str, float] | None
        by weight format, bytes of weights a second that the product with one row reads; None where nothing was measured
    model : ModelSpeed | None
        what was measured of a model, where one was given
    """

    version: str
    levels: tuple[str, ...]
    level: str
    threads: int
    cases: dict[str, int]
    seconds: float
    logits: int
    encoded: int
    differences: tuple[Difference, ...]
    complete: bool = True
    memory: int | None = None
    available: int | None = None
    bandwidth: float | None = None
    weight_rates: dict[str, float] | None = None
    model: ModelSpeed | None = None

    @property
    def ok(self) -> bool:
        """Nothing differs."""
        return not self.differences

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return (
            {"ok": self.ok}
            | asdict(self)
            | {"differences": [asdict(each) | {"command": each.command} for each in self.differences]}
        )

    def __str__(self) -> str:
        return "\n".join([self._verdict(), *map(str, self.differences), *self._checked(), *self._measured()])

    def _verdict(self) -> str:
        count = len(self.differences)
        said = "all right on this machine" if self.complete else "nothing wrong so far, interrupted"
        if count:
            said = f"{count} check{'s' * (count > 1)} FAILED"
        return f"fastdistill  {self.version}: {said}"

    def _checked(self) -> list[str]:
        levels = f"levels       {', '.join(self.levels)}; selected: {self.level}"
        lines = [levels, f"threads      {self.threads}"]
        failed = {each.kernel for each in self.differences}
        if self.cases:
            total = sum(self.cases.values())
            right = len(self.cases) - len(failed & self.cases.keys())
            lines.append(
                f"kernels      {right} of {len(self.cases)} right: {total:,} case{'s' * (total > 1)} in {self.seconds:.1f} s, at each level "
                "as the reference has it and to the bit alike"
            )
        if self.logits and "logits" not in failed:
            lines.append(
                f"logits       right: of {SMALL_MODEL}, computed in {self.logits} ways, of each weight format one hash, that of every machine"
            )
        if self.encoded and "encode" not in failed:
            lines.append(
                f"encode       right: texts of the model, read in {self.encoded} ways, alone and together at each level, have one hash"
            )
        return lines

    def _measured(self) -> list[str]:
        from fastdistill.runtime.bandwidth import BANDWIDTH_BYTES

        lines = []
        if self.memory is not None:
            free = "" if self.available is None else f", {self.available / 1e9:.1f} GB of it available"
            lines.append(f"memory       {self.memory / 1e9:.1f} GB{free}")
        if self.bandwidth is not None:
            lines.append(
                f"bandwidth    {self.bandwidth / 1e9:.1f} GB/s: the best of 1 to {self.threads} threads over {BANDWIDTH_BYTES >> 20} MB"
            )
        if self.weight_rates:
            lines.append(
                f"weights      {WEIGHT_BYTES >> 20} MB of them, multiplied by one row; tokens a second of a model that has "
                f"{_EXAMPLE_BYTES // 10**6} MB are fewer"
            )
            for format, rate in self.weight_rates.items():
                lines.append(
                    f"  {format:11}{rate / 1e9:.2f} GB/s, so below {rate / _EXAMPLE_BYTES:,.1f} tokens a second"
                )
        if self.model is not None:
            lines.append(self._model_line(self.model))
        return lines

    def _model_line(self, model: ModelSpeed) -> str:
        line = f"model        {model.model}: {model.tokens_per_second:,.1f} tokens a second, "
        if model.tokens > model.forwards:
            return f"{line}read {model.tokens // model.forwards:,} a forward, over {model.seconds:.1f} s"
        line += f"a forward each, over {model.seconds:.1f} s"
        if self.bandwidth:
            most = self.bandwidth / model.bytes
            line += f"; a forward reads {model.bytes / 1e6:,.1f} MB, which memory gives {most:,.1f} times a second (caches more often)"
        return line
