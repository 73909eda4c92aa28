"""The shape of the tree is a promise: data flows one way, and every kernel has all its places."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest

import fastdistill
from fastdistill import kernels, transport
from fastdistill.ops import OPS
from fastdistill.runtime.lowering import STEPS
from fastdistill.testing.cases import KERNELS as CASES
from fastdistill.testing.cases import kernel_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastdistill"

# Who may import whom: a part imports parts before it, and itself.
FLOW = [
    "platform",
    "messages",
    "errors",
    "cached",
    "files",
    "arguments",
    "user_cache",
    "embedded",
    "reference",
    "kernels",
    "checkpoint",
    "transport",
    "distill",
    "ops",
    "models",
    "runtime",
    "decode",
    "unmask",
    "show",
    "text",
    "constraint",
    "encode",
    "options",
    "sources",
    "fetch",
    "train",
    "tasks",
    "api",
    "testing",
    "cli",
]
BESIDE = {
    "kernels": {"reference"},  # a kernel does not lean on its meaning
    # What stands on kernels alone; objectives have files too.
    "transport": {"user_cache", "embedded", "reference", "checkpoint"},
    "distill": {"user_cache", "embedded", "reference"},
    "checkpoint": {"reference"},  # what a file holds is no meaning of a kernel
    "ops": {"kernels", "transport", "distill"},  # what an op means does not lean on how it is computed
    "decode": {"checkpoint", "models", "reference"},  # decoders do not know models
    "unmask": {"checkpoint", "models", "runtime", "reference", "kernels"},  # names of decode's parts
    "show": {"checkpoint", "models", "reference"},
    "text": {
        "reference",
        "kernels",
        "checkpoint",
        "models",
        "runtime",
        "decode",
        "unmask",
        "show",
    },  # text serves api alone
    "constraint": {"checkpoint", "models", "runtime", "reference", "kernels"},  # names of decode's and text's parts
    "sources": {"models", "runtime", "decode", "unmask", "show", "text", "options"},
    "fetch": {"models", "runtime", "decode", "unmask", "show", "text", "options"},
    "api": {"reference"},
}
BESIDE_KERNELS = {
    "kinds",
    "divergence_call",
    "points",
    "transport_problems",
    "__init__",
}  # files of a family that are no kernels
SOLVERS = [
    ("transport", "sinkhorn")
]  # kernels whose Python does more than to call them: it is a part, by the family's name

CSRC = ROOT / "csrc"
C_FILES = sorted(CSRC.rglob("*.[ch]"))
LISTS = ["kernels/all.h", "kernels/all_reals.h", "plain.c"]


def home(family, kernel):
    return f"fastdistill.{family}" if (family, kernel) in SOLVERS else f"fastdistill.kernels.{family}"


def exported(package, kernel):
    """What the file of a kernel is for: the function of its name, or a class, `NgramPool` of ngram_pool."""
    module = import_module(f"{package}.{kernel}")
    return getattr(module, kernel, None) or getattr(module, kernel.title().replace("_", ""))


def signatures(function_or_class):
    """The parameters that users see, by the name of the function, or of each method and the constructor."""
    if inspect.isfunction(function_or_class):
        functions = {function_or_class.__name__: function_or_class}
    else:
        methods = dict(inspect.getmembers(function_or_class, inspect.isfunction))
        functions = {name: method for name, method in methods.items() if name == "__init__" or name[0] != "_"}
    return {
        name: [parameter for parameter in inspect.signature(function).parameters if parameter != "threads"]
        for name, function in functions.items()
    }


def typing_only(tree):
    """What stands under `if TYPE_CHECKING`."""
    return {
        node
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"
        for node in ast.walk(test)
    }


def imports(path):
    """Parts of the package that a file imports, those for type checkers alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = typing_only(tree)
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
WRAPPERS = [
    (path.parent.name, path.stem) for path in (PACKAGE / "kernels").glob("*/*.py") if path.stem not in BESIDE_KERNELS
]
KERNELS = sorted(WRAPPERS + SOLVERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_data(path):
    part = part_of(path)
    assert part in FLOW, f"{part} has no place in the flow of data: give it one in FLOW"
    for other in set(imports(path)) - {"_native"}:
        assert FLOW.index(other) <= FLOW.index(part), f"{part} imports {other}, which comes after it"
        assert other not in BESIDE.get(part, ()), f"{part} must not know {other}"


# Modules that one system alone has, and of those that every system has the names that all of them have and the package uses.
ONE_SYSTEM = {
    "fcntl",
    "grp",
    "posix",
    "pty",
    "pwd",
    "resource",
    "syslog",
    "termios",
    "tty",
    "msvcrt",
    "nt",
    "winreg",
    "ctypes",
}
EVERY_SYSTEM = {
    "mmap": "",
    "os": "O_CREAT O_RDWR O_WRONLY PathLike close devnull dup2 environ fsdecode fsencode fspath fstat fsync listdir lstat open path "
    "replace scandir urandom walk write",
    "select": "",
    "signal": "SIGINT SIGTERM SIG_DFL SIG_IGN default_int_handler getsignal signal",
    "sys": "_getframe argv byteorder executable exit float_info modules path stderr stdin stdout",
    "time": "monotonic perf_counter process_time sleep",
}


@pytest.mark.parametrize(
    "path",
    sorted({*PACKAGE.rglob("*.py")} - {PACKAGE / "platform.py"}),
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_only_one_file_knows_the_operating_system(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        modules, used = [], []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules, used = [node.module], [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = [(node.value.id.lstrip("_"), node.attr)]
        for module in modules:
            assert module not in ONE_SYSTEM, f"line {node.lineno}: {module} is for platform.py: not every system has it"
        for module, name in used:
            assert module not in EVERY_SYSTEM or name in EVERY_SYSTEM[module].split(), (
                f"line {node.lineno}: if Windows has {module}.{name}, say so in EVERY_SYSTEM; else it is for platform.py"
            )


def test_only_the_boundary_touches_the_compiled_module():
    users = [
        str(path.relative_to(PACKAGE))
        for path in FILES
        if "_native" in imports(path) or "import _native" in path.read_text()
    ]
    assert users == ["kernels/boundary.py"]


@pytest.mark.parametrize(("family", "kernel"), KERNELS)
def test_a_kernel_has_all_its_places(family, kernel):
    test = f"tests/kernels/{family}/test_{kernel}.py"
    places = [
        f"csrc/kernels/{family}/{kernel}.c",
        f"fastdistill/reference/{family}/{kernel}.py",
        test,
        f"bench/kernels/{kernel}.py",
        f"docs/kernels/{family}/{kernel}.md",
        f"fastdistill/testing/cases/{family}/{kernel}.py",
    ]
    missing = [place for place in places if not (ROOT / place).exists()]
    assert not missing, f"{kernel} lacks {', '.join(missing)}"
    assert f"{family}/{kernel}" in included_kernels()
    thing = exported(home(family, kernel), kernel)
    verb = "" if inspect.isfunction(thing) else r"_\w+"  # a class has an entry for each of its methods
    line = rf"KERNEL\(\w+, {kernel}{verb},"
    assert re.search(line, (ROOT / "csrc/kernels.h").read_text()), f"kernels.h lacks {kernel}{verb}"
    public = f"fastdistill.{family if (family, kernel) in SOLVERS else 'kernels'}"
    assert thing.__name__ in import_module(public).__all__, f"{public} does not export {thing.__name__}"
    assert "isa" in inspect_names(ROOT / test), f"{test} forces no level"


def test_every_function_with_a_reference_has_cases():
    """Those that share a file with another one too: softmax_gradient."""
    public = {name for package in (kernels, transport) for name in package.__all__}
    meanings = {
        name
        for path in (PACKAGE / "reference").glob("*/*.py")
        for name, function in vars(import_module(f"fastdistill.reference.{path.parent.name}.{path.stem}")).items()
        if inspect.isfunction(function) and function.__module__.endswith(f".{path.stem}") and name in public
    }
    assert meanings | {"ngram_pool"} == CASES.keys()
    assert {kernel_of(name).__name__ for name in CASES} == meanings | {"NgramPool"}


def included_kernels() -> set[str]:
    return {name for unit in LISTS for name in listed(ROOT / "csrc" / unit)}


def listed(path: Path) -> list[str]:
    """The bodies that a unit is a list of, `forward/linear`."""
    return re.findall(r'#include "(?:kernels/)?(\w+/\w+)\.c"', path.read_text())


def inspect_names(path):
    return {
        argument.arg
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        for argument in node.args.args
    }


@pytest.mark.parametrize(("family", "kernel"), KERNELS)
def test_a_kernel_and_its_reference_have_one_name_and_signature(family, kernel):
    ours, meaning = exported(home(family, kernel), kernel), exported(f"fastdistill.reference.{family}", kernel)
    assert ours.__name__ == meaning.__name__
    got, want = signatures(ours), signatures(meaning)
    assert got.keys() == want.keys()
    for name, parameters in want.items():
        assert got[name][: len(parameters)] == parameters


def test_every_c_file_of_a_kernel_is_included():
    bodies = (ROOT / "csrc/kernels").rglob("*.c")
    assert included_kernels() == {f"{path.parent.name}/{path.stem}" for path in bodies}


@pytest.mark.parametrize("unit", LISTS)
def test_a_list_of_bodies_is_in_no_order_but_the_alphabet(unit):
    assert listed(ROOT / "csrc" / unit) == sorted(set(listed(ROOT / "csrc" / unit)))


def included_by(path: Path) -> set[Path]:
    """The files of csrc that one includes, those for tests left out."""
    names = re.findall(r'^ *#include "(.+)"', path.read_text(), re.MULTILINE)
    found = {next((place / name for place in (path.parent, CSRC) if (place / name).exists()), None) for name in names}
    return {file.resolve() for file in found if file is not None}


def test_no_file_of_c_includes_itself():
    including = {path.resolve(): included_by(path) for path in C_FILES}
    while including:  # files that include nothing which is left, over and over
        ends = {path for path, others in including.items() if not others & including.keys()}
        assert ends, f"a circle among {sorted(path.name for path in including)}"
        including = {path: others for path, others in including.items() if path not in ends}


def test_a_file_of_c_is_read_once_or_is_made_to_be_read_again():
    """What is included twice says so: kernels.h and ops.h become what their reader says, real.h and *_real.h one kind of real after the other."""
    units = set(CSRC.glob("*.c")) | {CSRC / "kernels" / name for name in ("all.h", "all_reals.h", "tile_end.h")}
    for path in set(C_FILES) - units:
        again = path.name in ("kernels.h", "ops.h", "real.h") or path.name.endswith("_real.h")
        assert ("#pragma once\n" in path.read_text()) != again, path


def test_every_file_of_c_includes_what_it_uses():
    """Each compiles when it stands alone, a body of a kernel in plain C; words of one architecture are read by its units alone."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs gcc or clang")

    def errors(path: Path) -> str:
        command = f"{compiler} -std=gnu11 -Werror=implicit-function-declaration -fsyntax-only -x c -".split()
        line = f'#include "{path}"\n'
        return subprocess.run(command, input=line, capture_output=True, text=True).stderr

    alone = [path for path in C_FILES if "#pragma once" in path.read_text() and not re.search("avx|neon", path.name)]
    assert len(alone) > 40
    with ThreadPoolExecutor() as pool:
        assert not list(filter(None, pool.map(errors, alone)))


def test_every_step_of_an_op_is_an_op_of_c_and_the_other_way_round():
    assert set(re.findall(r"^FD_OP\((\w+),", (ROOT / "csrc/ops.h").read_text(), re.MULTILINE)) == STEPS.keys()


def test_the_plans_page_lists_every_op():
    rows = [f"| `{kind.name}` | {kind.meaning} |" for kind in OPS.values()]
    assert "\n".join(rows) in (ROOT / "docs/plan.md").read_text()


# ---- no circles ----

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"  # it names everything, for type checkers
}


def imported(path, for_types=True):
    """Modules of the package that a file imports: in functions too, and those for type checkers alone where they are asked for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set() if for_types else typing_only(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def circles(graph):
    """Sets of nodes each of which leads to every other (Kosaraju's two passes)."""
    order, seen = [], set()

    def visit(node, edges, out):
        stack = [(node, iter(edges[node]))]
        seen.add(node)
        while stack:
            following = next((other for other in stack[-1][1] if other not in seen), None)
            if following is None:
                out.append(stack.pop()[0])
            else:
                seen.add(following)
                stack.append((following, iter(edges[following])))

    for node in graph:
        if node not in seen:
            visit(node, graph, order)
    back = {node: [other for other in graph if node in graph[other]] for node in graph}
    seen.clear()
    found = []
    for node in reversed(order):
        if node not in seen:
            found.append([])
            visit(node, back, found[-1])
    return [sorted(circle) for circle in found if len(circle) > 1]


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert circles(graph) == [["b", "c"]] and circles({"a": {"b"}, "b": set()}) == []


def test_files_import_each_other_in_no_circle():
    graph = {name: set(imported(path, for_types=False)) & set(MODULES) - {name} for name, path in MODULES.items()}
    assert circles(graph) == []


def test_parts_know_each_other_in_no_circle():
    """Types that only annotations name count too: within a part, settings and what they start may know each other."""
    graph = {name.split(".")[1]: set() for name in MODULES}
    for name, path in MODULES.items():
        part = name.split(".")[1]
        graph[part] |= {other.split(".")[1] for other in imported(path) if other in MODULES} - {part}
    assert circles(graph) == []


def test_a_name_of_the_package_is_listed_once():
    assert fastdistill.Sampler  # it has been imported by now
    listed = fastdistill.__dir__()
    assert len(listed) == len(set(listed)) and set(fastdistill.__all__) <= set(listed)
