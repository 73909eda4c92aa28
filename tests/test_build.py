"""Building: units are compiled once, and a checkout that was not built says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import fastdistill

ROOT = Path(__file__).resolve().parents[1]

# Stands for gcc: notes what it was asked to compile, and makes an empty file of it.
COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo "a compiler 1.0"; exit; }
compiles=; output=; source=
while [ $# -gt 0 ]; do
    case "$1" in -c) compiles=1 ;; -o) output=$2 ;; *.c) source=$1 ;; esac
    shift
done
[ -n "$compiles" ] && [ "${source##*/}" != probe.c ] && basename "$source" >>"$COMPILED"
: >"$output"
"""

# Compiles all but what includes a header.
REFUSING = """#!/bin/sh
for word; do case "$word" in *.c) ! grep -q {header} "$word" || {{ echo "probe.c: error: {header}" >&2; exit 1; }} ;; esac; done
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of what a build reads, with nothing compiled in it."""
    for name in ("csrc", "fastdistill"):
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "tree")
    return tmp_path / "tree"


def installed_here(tmp_path, wanted):
    """A folder with those of what is installed here whose name is wanted, for a Python -S to find."""
    site = tmp_path / "site"
    site.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for found in Path(place).iterdir():
            if wanted(found.name) and not (site / found.name).exists():
                (site / found.name).symlink_to(found)
    return site


def needs_setuptools():
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools {setuptools.__version__} does not read pyproject.toml; pip takes a newer one")


def test_units_are_compiled_side_by_side_as_far_as_memory_goes():
    """A board of 512 MB compiles one by one, whatever cores it has."""
    text = (ROOT / "setup.py").read_text()
    names = {"re": re}
    exec(text[text.index("UNIT_MEMORY =") : text.index("class BuildExtension")], names)
    memory = "MemTotal:  4000000 kB\nMemAvailable:  {} kB\n"
    assert [names["at_once"](4, memory.format(kb)) for kb in (90000, 400000, 700000, 3000000)] == [1, 1, 2, 4]
    assert names["at_once"](4, "") == 4


def test_units_are_compiled_once_and_again_when_what_they_read_changes(tree, tmp_path):
    needs_setuptools()
    compiler, compiled = tmp_path / "cc", tmp_path / "compiled"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    environment = os.environ | {"CC": str(compiler), "LDSHARED": f"{compiler} -shared", "COMPILED": str(compiled)}

    def build(folder):
        """What a build in a folder of its own compiles, and what it prints."""
        compiled.write_text("")
        places = ["--build-lib", str(tmp_path / folder), "--build-temp", str(tmp_path / folder)]
        command = [sys.executable, "setup.py", "build_ext", *places]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return sorted(compiled.read_text().split()), done.stdout

    units, said = build("first")
    assert {"fastdistill._native.c", "dispatch.c", "isa_scalar.c", "threads.c"} <= set(units)
    assert f"compiling {len(units)} files of C" in said
    assert build("second")[0] == []
    with (tree / "csrc" / "kernels" / "best.c").open("a") as source:
        source.write("/* changed */\n")
    assert build("third")[0] == units


def test_the_package_has_all_embedded_files(tree, tmp_path):
    needs_setuptools()
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path / "package")]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def files(root):
        """What lies in its folders, that of Python aside."""
        embedded = root / "fastdistill" / "embedded"
        return {str(path.relative_to(embedded)) for path in embedded.rglob("*.*") if path.suffix not in (".py", ".pyc")}

    assert files(tmp_path / "package") == files(ROOT) >= {"listops-mdlm/model.safetensors", "prompts/advice.txt"}


def test_the_compiler_may_be_a_command_of_several_words(tmp_path):
    """`ccache clang`, `env gcc`: which compiler it is, the whole command says."""
    compiler = tmp_path / "cc"
    for version, flag in (("a compiler 1.0", True), ("clang version 1.0", False)):
        compiler.write_text(f'#!/bin/sh\necho "{version}"\n')
        compiler.chmod(0o755)
        program = "import json, runpy; print(json.dumps(runpy.run_path('csrc/build_native.py')['FLAGS']))"
        environment = os.environ | {"CC": f"env {compiler}", "FASTDISTILL_CFLAGS": "-O1 -DX"}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        flags = json.loads(done.stdout)
        assert ("-fno-tree-ter" in flags) == flag and flags[-2:] == ["-O1", "-DX"]


@pytest.mark.parametrize("header, path, says", [
    ("", "", "fastdistill is built with gcc or clang; found neither, nor {cc}:"),
    ("Python.h", None, "fastdistill is built with Python.h, which {cc} does not compile (probe.c: error: Python.h):"),
    ("stdlib.h", None, "fastdistill is built with stdlib.h, which {cc} does not compile (probe.c: error: stdlib.h):"),
])  # fmt: skip
def test_what_a_build_lacks_is_named_with_the_package_that_brings_it(tree, tmp_path, header, path, says):
    needs_setuptools()
    compiler = tmp_path / "cc"
    if header:  # it compiles all but that
        compiler.write_text(REFUSING.format(header=header))
        compiler.chmod(0o755)
    environment = os.environ | {"CC": str(compiler)} | ({} if path is None else {"PATH": path})
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    first, *packages = done.stderr[done.stderr.index("fastdistill is built") :].splitlines()
    assert first == says.format(cc=compiler) and len(packages) == 4
    assert packages[0].split(maxsplit=2)[2] == "apt install gcc python3-dev"


def test_a_cffi_without_its_metadata_builds_no_package_without_its_c(tree, tmp_path):
    """Its modules would be passed over in silence."""
    needs_setuptools()
    site = installed_here(tmp_path, lambda name: not name.endswith((".pth", ".dist-info")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-S", "setup.py", "build_ext"],
        cwd=tree,
        env=environment | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "fastdistill: cffi's metadata is missing" in done.stderr


@pytest.mark.parametrize("command", [["-c", "import fastdistill as fd; fd.kernels"], ["-m", "fastdistill", "info"]])
def test_a_checkout_that_was_not_built_says_what_to_do(tree, command):
    # -S: without the finder of an editable install, which brings its built module to any copy.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPATH"] = os.pathsep.join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    done = subprocess.run([sys.executable, "-S", *command], cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert f"fastdistill in {tree} is a checkout whose C has not been built" in last
    assert f'pip install -e "{tree}"' in last and len(last) < 600


TOKENS_ALONE = """\
import sys
from pathlib import Path
import numpy as np
import fastdistill as fd
from fastdistill.cli import main

assert fd.kernels.row_statistics(np.eye(4, dtype=np.float32)).argmax.tolist() == [0, 1, 2, 3]
model = fd.load("listops-mdlm")
generation = model.generate([5, 6, 7], max_tokens=8)
assert len(generation.tokens) == 8 and generation.text == "", generation
for text in (lambda: model.generate("[MAX 1 2]"), lambda: model.generate([5], stop="x"), lambda: model.tokenizer):
    try:
        text()
        raise SystemExit("text was read without a tokenizer")
    except fd.errors.TextError as error:
        print(error)
sys.argv[1:] = ["info", "listops-mdlm"]
main()
"""


def test_token_ids_need_numpy_and_cffi_alone(tmp_path):
    """What `pip install --no-deps` leaves out; text says which package it needs."""
    site = installed_here(tmp_path, lambda name: name.startswith(("numpy", "cffi", "_cffi")))
    (site / "fastdistill").symlink_to(Path(fastdistill.__file__).parent)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", TOKENS_ALONE],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *refused, versions = [line for line in done.stdout.splitlines() if "tokenizers" in line]
    wanted = (
        "text needs the package tokenizers, token ids do not (No module named 'tokenizers'): pip install tokenizers"
    )
    assert refused == [wanted] * 3 and versions.endswith("tokenizers (not installed)")


def test_wheels_are_made_for_the_pythons_and_machines_that_the_package_names():
    """pyproject.toml, the workflow that makes wheels, and the abi3 tag of setup.py say one thing."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    oldest = project["project"]["requires-python"].removeprefix(">=3.")
    assert f'"py_limited_api": "cp3{oldest}"' in (ROOT / "setup.py").read_text()
    assert project["tool"]["cibuildwheel"]["build"][0] == f"cp3{oldest}-*"
    workflow = (ROOT / ".github" / "workflows" / "wheels.yml").read_text()
    assert "\t" not in workflow and "uses: actions/checkout@v" in workflow
    made = set(re.findall(r"system: (\w+), machine: (\w+),", workflow))
    assert made == {
        *(("linux", machine) for machine in ("x86_64", "aarch64", "armv7l", "riscv64")),
        *(("macos", machine) for machine in ("arm64", "x86_64")),
        *(("windows", machine) for machine in ("AMD64", "ARM64")),
    }
    pages = (ROOT / "docs" / "install.md").read_text()
    assert all(re.search(rf"\b{machine}\b", pages, re.IGNORECASE) for _, machine in made)


def test_a_wheel_holds_neither_c_nor_tests(tree, tmp_path):
    needs_setuptools()
    compiler = tmp_path / "cc"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    environment = os.environ | {
        "CC": str(compiler),
        "LDSHARED": f"{compiler} -shared",
        "COMPILED": str(tmp_path / "compiled"),
    }
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp310-abi3-" in wheel.name or sysconfig.get_config_var("Py_GIL_DISABLED")
    names = zipfile.ZipFile(wheel).namelist()
    kinds = {Path(name).suffix for name in names if name.startswith("fastdistill/")}
    assert kinds == {".py", ".pyi", ".typed", ".so", ".json", ".safetensors", ".md", ".txt"}
    assert {name.split("/")[0] for name in names} == {"fastdistill", f"fastdistill-{fastdistill.__version__}.dist-info"}
