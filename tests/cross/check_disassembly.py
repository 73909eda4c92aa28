"""Never an illegal instruction: what the built library holds beyond the baseline lies in the units that detection guards.

    python tests/cross/check_disassembly.py LIBRARY      # for instance fastdistill/_native.abi3.so, of this machine or another

Each unit's disassembly is assembled again, by an assembler that knows one machine alone and refuses what only later ones have: the
baseline, or for a level's unit the baseline with what csrc/levels.c asks for.  The symbol table says which unit an instruction
belongs to; the linkage table, the start-up code and the entries of Python are of none, and are held to the baseline.
"""

from __future__ import annotations

import bisect
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Machine:
    name: str
    baseline: str  # what the assembler calls it
    levels: dict[str, str]  # what it calls those that csrc/levels.c asks for
    comment: str  # how the disassembler's remarks begin
    allowed: dict[tuple[str, str], str]  # (unit, instruction), patterns: why it runs everywhere
    wrong_unit: tuple[str, str]  # compiled with a flag that it must not have: has to be noticed
    wrong_instructions: list[tuple[str, str]]  # in a unit each: has to be noticed

    def unit_may(self, unit: str, instruction: str) -> bool:
        return any(re.fullmatch(pattern, instruction) and re.fullmatch(where, unit) for where, pattern in self.allowed)

    def command(self, tool: str) -> str:
        return tool if platform.machine() == self.name else f"{self.name}-linux-gnu-{tool}"


MACHINES = {
    "Advanced Micro Devices X86-64": Machine(
        "x86_64",
        "generic64",
        {
            "avx2": "generic64+avx2+fma+f16c",
            "avx512": "generic64+avx2+fma+f16c+avx512f+avx512bw+avx512dq+avx512vl+avx512_vnni",
        },
        "#",
        {
            (r"levels\.c", "xgetbv"): "asked for only where CPUID says OSXSAVE",
            (
                ".*",
                "tzcnt .*",
            ): "an older CPU reads bsf, which gives the same where there is a bit, and compilers know that there is",
            (".*", "endbr64|notrack .*"): "an older CPU does nothing, or ignores the prefix",
            (".*", "data16 .*nopw .*"): "padding, of more prefixes than the assembler takes",
        },
        ("plain.c", "-mavx2"),
        [
            ("threads.c", "addsubps %xmm1, %xmm2"),
            ("plan.c", "popcnt %eax, %ecx"),
            ("plain.c", "lzcnt %eax, %ecx"),
            ("dispatch.c", "xgetbv"),
            ("isa_scalar.c", "vaddps %xmm1, %xmm2, %xmm3"),
            ("isa_avx2.c", "vpdpbusd %zmm0, %zmm1, %zmm2"),
            ("isa_avx2_reals.c", "{evex} vpaddd %ymm1, %ymm2, %ymm3"),
            ("isa_avx2.c", "ret"),
            ("isa_avx512.c", "vdpbf16ps %zmm0, %zmm1, %zmm2"),
        ],
    ),
    "AArch64": Machine(
        "aarch64",
        "armv8-a",
        {"neon": "armv8-a", "dotprod": "armv8.2-a+dotprod+nocrc", "i8mm": "armv8.2-a+dotprod+i8mm+nocrc"},
        "//",
        {
            (
                "libgcc",
                "(cas|swp|ld(add|clr|eor|set)).*",
            ): "its atomics ask the system whether there are these; zig's take it that there are not",
            (".*", "hint .*"): "a CPU that does not know the number does nothing",
        },
        ("threads.c", "-march=armv8.2-a"),
        [
            ("threads.c", ".arch armv8.1-a\n ldaddal w0, w1, [x2]"),
            ("plain.c", ".arch armv8-a+crc\n crc32b w0, w1, w2"),
            ("isa_scalar.c", ".arch armv8.2-a+fp16\n fadd v0.8h, v1.8h, v2.8h"),
            ("isa_scalar_reals.c", ".arch armv8.1-a\n sqrdmlah v0.4s, v1.4s, v2.4s"),
            ("isa_neon.c", ".arch armv8.2-a+dotprod\n sdot v0.4s, v1.16b, v2.16b"),
            ("isa_dotprod.c", "ret"),
            ("isa_dotprod.c", ".arch armv8.2-a+i8mm\n smmla v0.4s, v1.16b, v2.16b"),
            ("isa_i8mm.c", ".arch armv8.2-a+sve\n ptrue p0.s"),
            ("isa_i8mm.c", ".arch armv8-a+crc\n crc32b w0, w1, w2"),
        ],
    ),
}


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def instructions_of(machine: Machine, library: Path) -> dict[str, list[str]]:
    """Every instruction as the assembler takes it, by unit; '' is none's."""
    functions, unit = [], ""
    for line in output(machine.command("readelf"), "--symbols", "--wide", str(library)).splitlines():
        _, value, size, kind, binding, _, _, name, *_ = [*line.split(), *[""] * 9]
        if kind == "FILE":  # the local symbols of a unit follow its name
            unit = name
        elif kind == "FUNC" and binding == "LOCAL":
            of_libgcc = unit in ("", "compiler_rt") and name.startswith("__aarch64_")  # compiler_rt: zig's
            functions.append((int(value, 16), int(value, 16) + int(size, 0), "libgcc" if of_libgcc else unit))
    functions.sort()
    found: dict[str, list[str]] = {}
    listing = output(
        machine.command("objdump"),
        "--disassemble",
        "--no-show-raw-insn",
        "--disassembler-options=no-aliases" if machine.name == "aarch64" else "--wide",
        str(library),
    )
    for address, text in re.findall(r"^ *([0-9a-f]+):\t(.*)$", listing, re.MULTILINE):
        place = bisect.bisect(functions, (int(address, 16), sys.maxsize)) - 1
        unit = functions[place][2] if place >= 0 and int(address, 16) < functions[place][1] else ""
        text = re.sub(r"\b[0-9a-f]+ <[^>]*>", ".", text.split(machine.comment)[0])  # any place will do
        found.setdefault(unit, []).append(" ".join(text.split()))
    return found


def refused(machine: Machine, march: str, instructions: list[str]) -> list[str]:
    """Those that the assembler does not know."""
    command = (machine.command("as"), f"-march={march}", "-o", "/dev/null", "-")
    told = subprocess.run(command, input="\n".join(instructions) + "\n", capture_output=True, text=True)
    lines = {int(number) for number in re.findall(r"^\{standard input\}:(\d+): Error", told.stderr, re.MULTILINE)}
    assert bool(lines) == bool(told.returncode), told.stderr
    return [instructions[line - 1] for line in sorted(lines)]


def machine_of(library: Path) -> Machine:
    header = output("readelf", "--file-header", str(library))
    return MACHINES[header.split("Machine:")[1].splitlines()[0].strip()]


def findings(library: Path) -> tuple[list[str], list[str]]:
    """A line for each unit; a line for each thing that is wrong."""
    machine = machine_of(library)
    lines, wrong = [], []
    for unit, instructions in sorted(instructions_of(machine, library).items()):
        level = re.match(r"isa_(\w+?)(_reals)?\.c$", unit)
        name = level[1] if level and machine.levels.get(level[1], machine.baseline) != machine.baseline else ""
        beyond = [text for text in refused(machine, machine.baseline, instructions) if not machine.unit_may(unit, text)]
        bad = refused(machine, machine.levels[name], beyond) if name else beyond
        lines.append(
            f"{unit or 'no unit':<26} {len(instructions):6} instructions, {len(beyond):6} beyond {machine.baseline}"
        )
        wrong += [f"{unit or 'no unit'} must not hold: {text}" for text in list(dict.fromkeys(bad))[:10]]
        if name and len(beyond) == len(bad):
            wrong.append(f"{unit} holds none of the instructions of {name}")
    return lines, wrong


def check_that_wrong_units_are_noticed(machine: Machine) -> None:
    sys.path.insert(0, str(ROOT / "csrc"))
    from build_native import FLAGS

    compiler = [machine.command("gcc"), "-shared", "-fPIC", "-nostdlib"]
    unit, flag = machine.wrong_unit
    cases = {f"{unit} with {flag}": ([*FLAGS, flag, str(ROOT / "csrc" / unit)], None)}
    for unit, instruction in machine.wrong_instructions:
        code = f'.file "{unit}"\n.type wrong, %function\nwrong:\n{instruction}\n.size wrong, .-wrong\n.section .note.GNU-stack\n'
        cases[f"{unit} with {instruction.splitlines()[-1]}"] = (["-x", "assembler", "-"], code)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "wrong.so"
        for name, (arguments, code) in cases.items():
            subprocess.run([*compiler, *arguments, "-o", str(library)], input=code, text=True, check=True)
            if not findings(library)[1]:
                raise SystemExit(f"not noticed: {name}")
    print(f"noticed: {'; '.join(cases)}")


if __name__ == "__main__":
    (path,) = map(Path, sys.argv[1:])
    lines, wrong = findings(path)
    print(*lines, sep="\n")
    missing = [
        level for level in machine_of(path).levels if not any(line.startswith(f"isa_{level}.c ") for line in lines)
    ]
    wrong += [f"no unit isa_{level}.c: is this the whole library, with its symbols?" for level in missing]
    if wrong:
        raise SystemExit("\n".join(wrong))
    check_that_wrong_units_are_noticed(machine_of(path))
