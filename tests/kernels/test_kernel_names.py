"""The kernel that is named is the one that runs: no vectorised level, and no low-bit format of one, falls back to plain C."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from fastdistill.errors import ArgumentError
from fastdistill.kernels import isa_levels, kernel_name
from fastdistill.kernels.boundary import ffi, lib
from fastdistill.kernels.forward.linear import FORMATS


@pytest.mark.parametrize("format", FORMATS)
def test_a_name_begins_with_the_level_that_is_selected(isa, format):
    """Level and instruction come from the struct of functions that every call goes through."""
    rows = 8 if isa == "avx512" else 4  # 32 registers, 16
    assert re.fullmatch(rf"{isa} \(.+, 16 x {rows} tile\)", kernel_name(format))


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_a_low_bit_format_has_an_instruction_of_its_own_at_every_level_but_scalar(isa, format):
    assert ("plain C" in kernel_name(format)) == (isa == "scalar")


def test_no_level_shares_code_with_another(isa):
    number = lib.fd_isa_selected()
    assert ffi.string(lib.fd_isa_name(number)).decode() == isa
    assert [lib.fd_isa_shares_code(number, other) for other in range(lib.fd_isa_count())] == [
        other == number for other in range(lib.fd_isa_count())
    ]


@pytest.mark.parametrize("level", ["", *isa_levels()])
def test_the_name_follows_the_environment_in_a_fresh_process(level):
    program = "from fastdistill.kernels import kernel_name; print(kernel_name('q4'))"
    environment = os.environ | {"FASTDISTILL_ISA": level}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == (level or isa_levels()[-1])


def test_an_unknown_format_has_no_kernel():
    with pytest.raises(ArgumentError, match="format must be one of f32, f16, bf16, q8, q4, got 'q5'"):
        kernel_name("q5")
