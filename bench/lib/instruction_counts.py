"""What tests/cross/run_instructions.sh counts under qemu, and what llvm-mca expects that it takes.

Cycles are those of a loop that goes on for ever with its data in the first cache, by llvm's model of a CPU.  Blocks of code that were run
one after another, as often, are taken for such a loop; of a kernel, those that hold most of its instructions.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from os import environ
from pathlib import Path

from fastdistill.errors import ArgumentError

SCRIPT = Path(__file__).parents[2] / "tests/cross/run_instructions.sh"
THEIRS = "ggml/src/ggml-cpu/arch/arm/repack.cpp"  # of llama.cpp's files one that is built
AS_OFTEN = 0.1  # blocks of one loop are run as often, but for such a part
COVERED = 0.9  # of a kernel's instructions
ITERATIONS = 100  # of a loop that llvm-mca looks at
FEATURES = "+dotprod,+i8mm"  # what CPUs of a level have, whether llvm knows so or not


@dataclass(frozen=True)
class Block:
    """Code that is left at its end alone."""

    address: int
    instructions: int
    times: int

    @property
    def end(self) -> int:
        return self.address + 4 * self.instructions


@dataclass(frozen=True)
class Count:
    """The instructions of a kernel at one shape, and the blocks of `program` that they lie in."""

    program: Path
    level: str
    kernel: str
    rows: int
    units: int
    instructions: int
    blocks: tuple[Block, ...]

    @property
    def per_unit(self) -> float:
        return self.instructions / self.units

    def cycles(self, cpu: str) -> float:
        """Cycles of a unit."""
        covered = cycles = 0.0
        for loop in loops(self.blocks):
            run = sum(block.instructions * block.times for block in loop)
            covered += run
            cycles += run * cycles_an_instruction(self.program, loop[0].address, loop[-1].end, cpu)
            if covered >= COVERED * self.instructions:
                break
        return self.per_unit * cycles / covered


def count(folder: Path, llama: Path | None = None) -> list[Count]:
    """Builds and counts in a folder, which has to last as long as cycles are asked for."""
    if llama and not (llama / THEIRS).exists():
        raise ArgumentError(f"--llama must name a source tree of llama.cpp, got {llama}, which has no {THEIRS}")
    command = [str(SCRIPT), "--into", str(folder), *([str(llama)] if llama else [])]
    done = subprocess.run(command, env=environ | {"PYTHON": sys.executable}, capture_output=True, text=True)
    if done.returncode:
        raise ArgumentError(f"instructions cannot be counted: {done.stderr.strip().splitlines()[-1]}")
    return [found for file in sorted(folder.glob("*.counts")) for found in parse(file)]


def parse(file: Path) -> Iterator[Count]:
    for part in re.split(r"\n(?!block)", file.read_text().strip()):
        first, *lines = (line.split() for line in part.splitlines())
        level, kernel, rows, units, instructions = first
        blocks = tuple(Block(int(address, 16), int(n), int(times)) for _, address, n, times in lines)
        yield Count(file.with_suffix(""), level, kernel, int(rows), int(units), int(instructions), blocks)


def loops(blocks: tuple[Block, ...]) -> list[list[Block]]:
    """Blocks joined where one ends at another's beginning and is run as often; those with most instructions first."""
    joined: list[list[Block]] = []
    for block in sorted(blocks, key=lambda block: block.address):
        for loop in joined:
            if loop[-1].end == block.address and abs(loop[-1].times - block.times) <= AS_OFTEN * block.times:
                loop.append(block)
                break
        else:
            joined.append([block])
    return sorted(joined, key=lambda loop: -sum(block.instructions * block.times for block in loop))


@cache
def cycles_an_instruction(program: Path, begin: int, end: int, cpu: str) -> float:
    """Of the code at these addresses, as llvm-mca expects."""
    objdump = [
        "aarch64-linux-gnu-objdump",
        "-d",
        "--no-show-raw-insn",
        f"--start-address={begin}",
        f"--stop-address={end}",
    ]
    listing = subprocess.run([*objdump, str(program)], check=True, capture_output=True, text=True).stdout
    code = re.findall(r"^ +[0-9a-f]+:\t(.*?)(?: *//.*)?$", listing, re.MULTILINE)
    code = [re.sub(r"[0-9a-f]+ <.*>", ".", line) for line in code]  # where a jump goes
    command = ["llvm-mca", "-mtriple=aarch64", f"-mcpu={cpu}", f"-mattr={FEATURES}", f"-iterations={ITERATIONS}"]
    report = subprocess.run([*command], input="\n".join(code), check=True, capture_output=True, text=True).stdout
    cycles, instructions = (
        int(re.search(rf"^{name}: +(\d+)", report, re.MULTILINE)[1]) for name in ("Total Cycles", "Instructions")
    )
    return cycles / instructions


def no_mca() -> str | None:
    """Why cycles cannot be said; None where they can."""
    return None if shutil.which("llvm-mca") else "llvm-mca is missing; on Debian: apt install llvm"
