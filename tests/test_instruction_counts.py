"""What is made of counted instructions: python -m bench instructions.  What counts them: tests/cross/run_instructions.sh."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.lib import instruction_counts
from bench.lib.instruction_counts import Block, Count, loops, parse
from bench.studies.instructions import TOKEN, UNIT, Counts
from fastdistill.errors import ArgumentError

COUNTED = """\
neon q4 1 2 1080
block 0x400 4 20
block 0x410 6 21
block 0x800 10 87
neon token 1 1000000 9
"""


def test_lines_of_blocks_belong_to_the_count_before(tmp_path):
    file = tmp_path / "ours.counts"
    file.write_text(COUNTED)
    q4, token = parse(file)
    assert (q4.program, q4.level, q4.kernel, q4.rows, q4.per_unit) == (tmp_path / "ours", "neon", "q4", 1, 540)
    assert q4.blocks == (Block(0x400, 4, 20), Block(0x410, 6, 21), Block(0x800, 10, 87))
    assert token.blocks == () and token.per_unit == 9e-6


def test_a_loop_is_blocks_one_after_another_run_as_often():
    first, second, other = Block(0x400, 4, 100), Block(0x410, 6, 105), Block(0x428, 1, 20)
    far = Block(0x800, 100, 100)
    assert loops((other, far, second, first)) == [[far], [first, second], [other]]


def test_cycles_are_those_of_the_loops_that_hold_most_instructions(monkeypatch):
    rates = {0x400: 2.0, 0x800: 0.5, 0x900: 1e6}  # the last is beyond what is looked at
    monkeypatch.setattr(instruction_counts, "cycles_an_instruction", lambda program, begin, end, cpu: rates[begin])
    blocks = (Block(0x400, 10, 60), Block(0x800, 5, 80), Block(0x900, 1, 10))
    count = Count(Path(), "neon", "q4", 1, 101, 1010, blocks)
    assert count.cycles("any") == pytest.approx(10 * (600 * 2 + 400 * 0.5) / 1000)


def test_a_tree_of_something_else_is_refused(tmp_path):
    with pytest.raises(
        ArgumentError, match=r"--llama must name a source tree of llama\.cpp, got .*, which has no ggml/"
    ):
        instruction_counts.count(tmp_path, tmp_path)


def count(level, kernel, per_unit, rows=1):
    return Count(Path(), level, kernel, rows, 1, per_unit, ())


def test_of_their_kernels_the_best_that_such_a_cpu_runs():
    theirs = [
        count("llama_neon", "q4_0_vec_dot", 500),
        count("llama_neon", "q8_0_vec_dot", 400),
        count("llama_neon", "attention", 800),
        count("llama_dotprod", "q4_0_4x4", 140),
        count("llama_i8mm", "q4_0_4x8", 160),
        count("llama_i8mm", "q4_0_4x8", 60, rows=4),
    ]
    counts = Counts([*(count(level, "q4", 100) for level in ("scalar", "neon", "dotprod", "i8mm")), *theirs])
    assert counts.levels == ["scalar", "neon", "dotprod", "i8mm"]
    best = {level: counts.best(level, "q4") for level in counts.levels}
    assert best == {"scalar": None, "neon": theirs[0], "dotprod": theirs[3], "i8mm": theirs[3]}
    assert counts.best("i8mm", "q4", 4) == theirs[5] and counts.best("dotprod", "q4", 4) is None
    millions = (TOKEN["q4"] * 140 + TOKEN["q8"] * 400 + TOKEN["attention"] * 800) / UNIT / 1e6
    assert counts.token_of_theirs("i8mm") == pytest.approx(millions)
    assert counts.token_of_theirs("scalar") is None


@pytest.mark.skipif(
    shutil.which("llvm-mca") is None or shutil.which("aarch64-linux-gnu-gcc") is None,
    reason="llvm-mca or aarch64-linux-gnu-gcc is missing; on Debian: apt install llvm gcc-aarch64-linux-gnu",
)
def test_a_chain_of_additions_takes_as_many_cycles(tmp_path):
    """8 that wait for each other and a jump back: 8 cycles, the jump beside them."""
    source, program = tmp_path / "chain.s", tmp_path / "chain"
    source.write_text(".text\n.global _start\n_start:\n" + "add x0, x0, #1\n" * 8 + "b _start\n")
    subprocess.run(["aarch64-linux-gnu-gcc", "-nostdlib", "-static", "-o", program, source], check=True)
    begin = int(subprocess.run(["aarch64-linux-gnu-nm", program], check=True, capture_output=True, text=True).stdout
                .split(" T _start")[0].split()[-1], 16)  # fmt: skip
    found = instruction_counts.cycles_an_instruction(program, begin, begin + 9 * 4, "cortex-a72")
    assert found == pytest.approx(8 / 9, rel=0.05)
