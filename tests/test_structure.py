"""The shape of the tree is a promise: data flows one way, and every kernel has all its places."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from fastdistill.models.plan import OP_KINDS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastdistill"

# Who may import whom: a part imports parts before it, and itself.
FLOW = [
    "errors",
    "user_cache",
    "reference",
    "kernels",
    "checkpoint",
    "models",
    "runtime",
    "decode",
    "text",
    "api",
    "fetch",
    "cli",
]
BESIDE = {
    "kernels": {"reference"},  # a kernel does not lean on its meaning
    "decode": {"checkpoint", "models", "reference"},  # decoders do not know models
    "text": {"reference", "kernels", "checkpoint", "models", "runtime", "decode"},  # text serves api alone
    "fetch": {"models", "runtime", "decode", "api"},
    "api": {"reference"},
}
DOORS = {"boundary", "isa", "threads", "__init__"}  # of kernels/: not kernels


def imports(path):
    """Parts of the package that a file imports, those for type checkers alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        node
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            parts = (name or "").split(".")
            if parts[0] == "fastdistill" and len(parts) > 1:
                yield parts[1]


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(path for path in PACKAGE.rglob("*.py") if part_of(path) not in ("__init__", "__main__"))
KERNELS = sorted(path.stem for path in (PACKAGE / "kernels").glob("*.py") if path.stem not in DOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_data(path):
    part = part_of(path)
    assert part in FLOW, f"{part} has no place in the flow of data: give it one in FLOW"
    for other in set(imports(path)) - {"_native"}:
        assert FLOW.index(other) <= FLOW.index(part), f"{part} imports {other}, which comes after it"
        assert other not in BESIDE.get(part, ()), f"{part} must not know {other}"


def test_only_the_boundary_touches_the_compiled_module():
    users = [
        str(path.relative_to(PACKAGE))
        for path in FILES
        if "_native" in imports(path) or "import _native" in path.read_text()
    ]
    assert users == ["kernels/boundary.py"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_has_all_its_places(kernel):
    places = [
        f"csrc/kernels/{kernel}.c",
        f"fastdistill/reference/{kernel}.py",
        f"tests/kernels/test_{kernel}.py",
        f"bench/{kernel}.py",
        f"docs/kernels/{kernel}.md",
    ]
    missing = [place for place in places if not (ROOT / place).exists()]
    assert not missing, f"{kernel} lacks {', '.join(missing)}"
    assert f'#include "{kernel}.c"' in (ROOT / "csrc/kernels/all.h").read_text()
    assert re.search(rf"\bfd_{kernel}\(", (ROOT / "csrc/fastdistill.h").read_text()), f"fastdistill.h lacks fd_{kernel}"
    assert kernel in import_module("fastdistill.kernels").__all__, f"fastdistill.kernels does not export {kernel}"
    assert "isa" in inspect_names(ROOT / f"tests/kernels/test_{kernel}.py"), f"test_{kernel}.py forces no level"


def inspect_names(path):
    return {
        argument.arg
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        for argument in node.args.args
    }


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_and_its_reference_have_one_name_and_signature(kernel):
    ours, meaning = (
        getattr(import_module(f"fastdistill.{where}.{kernel}"), kernel) for where in ("kernels", "reference")
    )
    names = list(inspect.signature(meaning).parameters)
    shared = [name for name in inspect.signature(ours).parameters if name != "threads"]
    assert shared[: len(names)] == names


def test_every_c_file_of_a_kernel_is_included():
    included = set(re.findall(r'#include "(\w+)\.c"', (ROOT / "csrc/kernels/all.h").read_text()))
    assert included == {path.stem for path in (ROOT / "csrc/kernels").glob("*.c")}


def test_every_op_has_a_meaning():
    source = (PACKAGE / "runtime/reference.py").read_text()
    assert all(f'"{kind}"' in source for kind in OP_KINDS)
