"""Fixtures that every test shares: each instruction set in turn, the command line, and a reproducible hypothesis."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fastdistill import cli
from fastdistill.kernels import isa as selected_isa
from fastdistill.kernels import isa_levels, set_isa
from tests.command_line import end_all

settings.register_profile(
    "default", deadline=None, derandomize=True, max_examples=16, suppress_health_check=list(HealthCheck)
)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=1000)
settings.register_profile("quick", parent=settings.get_profile("default"), max_examples=4)  # for emulated CPUs
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(params=isa_levels())
def isa(request):
    """Each level of this machine, forced."""
    before = selected_isa()
    set_isa(request.param)
    yield request.param
    set_isa(before)


@pytest.fixture(autouse=True)
def _no_program_outlives_its_test():
    yield
    end_all()


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """real_model(name) -> its folder: from the user's cache, fetched first where FASTDISTILL_FETCH=1."""
    from fastdistill.fetch import cached_folder, fetch, is_fetched

    def folder(name: str) -> Path:
        if os.environ.get("FASTDISTILL_FETCH") == "1":
            return fetch(name)
        if not is_fetched(name):
            pytest.skip(f"needs the real model: run `fastdistill fetch {name}`, or set FASTDISTILL_FETCH=1")
        return cached_folder(name)

    return folder


@pytest.fixture(scope="session")
def smollm2(real_model) -> Path:
    """The folder of the real SmolLM2-135M-Instruct."""
    return real_model("smollm2-135m-instruct")


@pytest.fixture
def run(capsys, monkeypatch):
    """run(arguments..., stdin=...) -> exit code, stdout, stderr, in this process."""

    def call(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call
