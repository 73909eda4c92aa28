"""Every kernel on every level of this machine against its reference, and law 1; then what the machine can do."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastdistill import __version__
from fastdistill.arguments import check_callable, check_integer, check_number
from fastdistill.errors import ArgumentError, IsaError
from fastdistill.fetch import find_folder
from fastdistill.kernels import default_threads, isa, isa_levels, set_isa
from fastdistill.messages import listed, short, suggestion
from fastdistill.platform import available_memory, total_memory
from fastdistill.testing.cases import KERNELS, cases_of, kernel_of
from fastdistill.testing.choices import SeededChoices
from fastdistill.testing.compare import same_bits
from fastdistill.testing.report import Difference, Report

SECONDS = 10.0  # of cases
LOGITS, ENCODE = "logits", "encode"  # beside the names of kernels
_MODEL_SECONDS = 2.0
_SAY_SECONDS = 0.1
Progress = Callable[[float, str], None]


def selftest(
    seconds: float = SECONDS,
    *,
    level: str | None = None,
    kernel: str | None = None,
    seed: int | None = None,
    model: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check what this machine computes, and measure what it can do.

    Cases of each kernel are made from seeds, the same ones each time; at every level a kernel must agree with its NumPy reference
    within the roundings that are derived for it, and with the lowest level to the bit, whatever the number of threads. The small
    model's logits must have the hash that they have on every machine; texts of an encoder the same bits alone and together at
    every level. Measuring takes some seconds more.

    Parameters
    ----------
    seconds : float, default 10.0
        how long cases of kernels are run; one of each is run in any case
    level : str, optional
        check this one alone, beside the lowest, which gives the bits; default: all of this machine
    kernel : str, optional
        check this one alone, or "logits", and measure nothing; default: all
    seed : int, optional
        run this case of `kernel` alone
    model : str, optional
        a model's folder or name, whose speed is measured; and whose texts are checked, if it is an encoder
    progress : Callable[[float, str], None], optional
        called with the share that is done, and what is being done

    Returns
    -------
    report : Report
        `report.ok`; its str says all

    Raises
    ------
    ArgumentError
    IsaError
        for a level that this machine lacks
    CheckpointError
        for a model that cannot be read, as `load` does
    """
    checks = Checks(seconds, level=level, kernel=kernel, seed=seed, model=model, progress=progress)
    checks.run()
    return checks.report()


class Checks:
    """A self-test that can be asked what it has found before it is over."""

    def __init__(
        self,
        seconds: float,
        *,
        level: str | None,
        kernel: str | None,
        seed: int | None,
        model: str | None,
        progress: Progress | None,
    ) -> None:
        self._seconds = check_number("seconds", seconds, 0, 1e9)
        if level is not None and (not isinstance(level, str) or level not in isa_levels()):
            raise IsaError(f"level must be one of this machine, {listed(isa_levels())}; got {short(level)}")
        if kernel is not None and (not isinstance(kernel, str) or kernel not in (*KERNELS, LOGITS)):
            near = suggestion(kernel, KERNELS) if isinstance(kernel, str) else ""
            raise ArgumentError(f"kernel must be {LOGITS}, {listed(KERNELS, 3)}; got {short(kernel)}{near}")
        if seed is not None:
            check_integer("seed", seed, 0, 2**63 - 1)
            if kernel in (None, LOGITS):
                raise ArgumentError("seed is that of a case of one kernel: give kernel too")
        if model is not None:
            find_folder(model)
        if model is not None and kernel is not None:
            raise ArgumentError("model is measured where all kernels are checked: leave kernel out")
        if progress is not None:
            check_callable("progress", progress)
        self._levels = isa_levels() if level is None else (level,)
        self._kernels = [*KERNELS] if kernel is None else [kernel] if kernel != LOGITS else []
        self._checks_logits = kernel in (None, LOGITS)
        self._measures = kernel is None
        self._seed, self._model, self._progress = seed, model, progress
        self._said, self._threads = 0.0, default_threads()
        self._cases = dict.fromkeys(self._kernels, 0)
        self._spent = dict.fromkeys(self._kernels, 0.0)  # seconds
        self._differences: dict[tuple[str, str], Difference] = {}  # by kernel and level
        self._logits, self._encoded, self._complete = 0, 0, False
        self._found: dict[str, Any] = {}

    def run(self) -> None:
        """Check everything, then measure."""
        before = isa()
        try:
            with np.errstate(all="ignore"):  # references meet the edges too
                if self._checks_logits:
                    self._check_logits()
                self._check_kernels()
            is_encoder = self._model is not None and self._check_encoder(self._model)
            set_isa(before)
            if self._measures:
                self._measure(is_encoder)
            self._complete = True
        finally:
            set_isa(before)

    def report(self) -> Report:
        """What has been found so far."""
        ran = {name: count for name, count in self._cases.items() if count}
        return Report(
            __version__, tuple(self._levels), isa(), self._threads, ran, sum(self._spent.values()), self._logits,
            self._encoded, tuple(self._differences.values()), self._complete, **self._found,
        )  # fmt: skip

    def _say(self, share: float, words: str) -> None:
        if self._progress is not None and (share in (0, 1) or time.monotonic() - self._said > _SAY_SECONDS):
            self._said = time.monotonic()
            self._progress(share, words)

    # ---- law 1 ----

    def _check_logits(self) -> None:
        from fastdistill.testing.logits import HASHES, SmallModel

        self._say(0.0, "logits of a small model")
        model = SmallModel()
        for level in self._levels:
            set_isa(level)
            for way, found in model.hashes():
                self._logits += 1
                if found != HASHES[way.format]:
                    message = f"{way}: SHA-256 {found}, and of every machine {HASHES[way.format]}"
                    difference = Difference(LOGITS, level, None, way.threads, message)
                    self._differences.setdefault((LOGITS, level), difference)

    def _check_encoder(self, model: str) -> bool:
        """Check texts of a model, if it is an encoder: whether it is."""
        from fastdistill.checkpoint import open_checkpoint
        from fastdistill.models import plan_of
        from fastdistill.testing.encoder import encoder_hashes

        with open_checkpoint(find_folder(model)) as checkpoint:
            if not plan_of(checkpoint).encodes:
                return False
        base, wanted = isa_levels()[0], ""
        for level, threads in ((base, 1), *((level, max(self._threads, 2)) for level in self._levels)):
            self._say(1.0, f"texts alone and together, at {level}")
            set_isa(level)
            for way, found in encoder_hashes(model, threads):
                self._encoded, wanted = self._encoded + 1, wanted or found
                if found != wanted:
                    message = f"texts {way}: SHA-256 {found}, and alone at {base} by 1 thread {wanted}"
                    difference = Difference(ENCODE, level, None, threads, message, model)
                    self._differences.setdefault((ENCODE, level), difference)
        return True

    # ---- kernels ----

    def _check_kernels(self) -> None:
        if not self._kernels:
            return
        if self._seed is not None:
            self._check_case(self._kernels[0], self._seed)
            return
        started = time.monotonic()
        while (passed := time.monotonic() - started) < self._seconds or not all(self._cases.values()):
            kernel = min(self._kernels, key=self._spent.__getitem__)  # whose cases are slow has fewer
            total = sum(self._cases.values())
            self._say(min(passed / max(self._seconds, 1e-9), 1.0), f"{total:,} cases of kernels: {kernel}")
            self._check_case(kernel, self._cases[kernel])

    def _check_case(self, kernel: str, seed: int) -> None:
        """At the lowest level and at each that is asked for, by another number of threads each."""
        started = time.monotonic()
        base, wanted = isa_levels()[0], None
        for place, level in enumerate(isa_levels()):
            if level != base and level not in self._levels:
                continue
            set_isa(level)
            threads = (seed + place) % max(self._threads, 2) + 1
            try:
                got = _call(kernel, seed, threads)
                if level == base:
                    wanted = got
                elif wanted is not None:
                    same_bits(got, wanted, f"at {base}")
            except Exception as error:
                message = (
                    str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {short(str(error))}"
                )
                if level in self._levels:
                    difference = Difference(kernel, level, seed, threads, message)
                    self._differences.setdefault((kernel, level), difference)
        self._cases[kernel] += 1
        self._spent[kernel] += time.monotonic() - started

    # ---- what the machine can do ----

    def _measure(self, is_encoder: bool) -> None:
        from fastdistill.runtime.bandwidth import bandwidth
        from fastdistill.testing.encoder import encoder_speed
        from fastdistill.testing.machine import model_speed, weight_rates

        self._say(1.0, "memory and its bandwidth")
        self._found["memory"], self._found["available"] = total_memory(), available_memory()
        self._found["bandwidth"] = bandwidth(self._threads)
        self._found["weight_rates"] = weight_rates(self._threads)
        if self._model is not None:
            self._say(1.0, "the model's speed")
            speed = encoder_speed if is_encoder else model_speed
            self._found["model"] = speed(self._model, None, _MODEL_SECONDS)


def _call(kernel: str, seed: int, threads: int) -> Any:
    """What a kernel gives for the case of a seed, checked."""
    file, function = cases_of(kernel), kernel_of(kernel)
    if "threads" in inspect.signature(function).parameters:
        function = partial(function, threads=threads)
    return file.check(file.cases(SeededChoices(f"{kernel} {seed}")), function)
