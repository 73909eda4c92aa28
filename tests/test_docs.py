"""What the pages say is so: their examples run and print what is shown, their links lead somewhere, their files exist."""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint import write_checkpoint
from fastdistill.kernels import isa, set_isa
from fastdistill.models import plan_for
from tests.encoders import write_encoder
from tests.small_models import config, tensors
from tests.text.tokenizers_made_here import KINDS, write_folder

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
RECIPES = sorted((ROOT / "docs/adding").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int  # of its first line of text, from 1
    begin: int  # of its fence, in the page
    end: int

    @property
    def runs(self) -> bool:
        """A python block, unless its first line says `# not run`: it needs the real model."""
        return self.language == "python" and not self.text.startswith("# not run")


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1, m.start(), m.end()) for m in fences]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `folder` names in an example: a model of two layers with random weights and a byte-level tokenizer."""
    settings = config("plain")
    text = write_folder(tmp_path_factory.mktemp("text"), KINDS["byte_level"], chat_template=TEMPLATE)
    files = {file.name: file.read_bytes() for file in text.iterdir()}
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_checkpoint(folder, settings.raw, tensors(plan_for(settings)).values(), files)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `encoder` names in an example."""
    return write_encoder(tmp_path_factory.mktemp("models") / "encoder", hidden_size=32)


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in blocks(page))], ids=name)
def test_the_examples_of_a_page_run_in_order_and_print_what_it_shows(page, folder, tmp_path, monkeypatch):
    """A `text` block right after a python block is what that block prints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2-135m-instruct").symlink_to(folder)  # a folder goes before a name
    monkeypatch.syspath_prepend(str(ROOT))  # examples may use tests.small_models
    run(page, monkeypatch, folder=folder)


@pytest.mark.model
def test_the_readme_runs_in_the_checkout_with_the_model_that_it_names(smollm2, monkeypatch):
    monkeypatch.chdir(ROOT)
    run(ROOT / "README.md", monkeypatch)


def run(page: Path, monkeypatch: pytest.MonkeyPatch, **names: object) -> None:
    """Execute the python blocks of a page, one after the other."""
    example = ModuleType("example")
    vars(example).update(names)
    monkeypatch.setitem(sys.modules, "example", example)  # dataclasses look there
    found, text, level = blocks(page), page.read_text(encoding="utf-8"), isa()
    try:
        for block, after in zip(found, [*found[1:], None], strict=True):
            if not block.runs:
                continue
            source = "\n" * (block.line - 1) + block.text  # so that tracebacks show the page's lines
            code = compile(source, str(page), "exec", dont_inherit=True)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, vars(example))
            if after is not None and after.language == "text" and not text[block.end : after.begin].strip():
                assert printed.getvalue() == after.text, f"{name(page)}:{block.line} prints something else"
    finally:
        set_isa(level)


def docstrings_with_examples() -> dict[str, tuple[str, Path, int]]:
    """Those of the package: where it stands -> its text, its file and its line."""
    found = {}
    for path in sorted((ROOT / "fastdistill").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if ">>> " in text else ():
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and ">>> " in (ast.get_docstring(node) or ""):
                found[f"{name(path)}:{node.name}"] = ast.get_docstring(node) or "", path, node.body[0].lineno - 1
    return found


EXAMPLES = docstrings_with_examples()


@pytest.mark.parametrize("where", EXAMPLES)
def test_the_examples_of_a_docstring_print_what_it_shows(where, folder, encoder, tmp_path, monkeypatch):
    """In them `fd` is fastdistill, `np` is NumPy, `folder` is a model, `encoder` one that encodes."""
    monkeypatch.chdir(tmp_path)
    text, path, line = EXAMPLES[where]
    names = {"fd": fd, "np": np, "folder": folder, "encoder": encoder}
    said = io.StringIO()
    doctest.DocTestRunner(verbose=False).run(
        doctest.DocTestParser().get_doctest(text, names, where, str(path), line), out=said.write
    )
    assert not said.getvalue(), said.getvalue()


MOST_USED = [
    "load",
    "Model.session",
    "Model.generate",
    "Model.stream",
    "Model.chat",
    "Model.score",
    "Model.logits",
    "Speculative",
    "Auto",
    "Jacobi",
    "Lookahead",
    "BeamSearch",
    "Unmask",
    "from_callable",
    "decode.generate",
    "kernels.sample",
    "kernels.probabilities",
    "kernels.row_statistics",
    "kernels.unmask_select",
    "kernels.verify_tree",
    "transport.sinkhorn",
    "transport.sinkhorn_divergence",
    "distill.divergence",
    "train.Engine",
    "train.Schedule",
]


@pytest.mark.parametrize("thing", MOST_USED)
def test_what_is_used_most_has_an_example(thing):
    assert "Examples\n--------\n>>> " in (inspect.getdoc(attrgetter(thing)(fd)) or ""), thing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_examples_that_do_not_run_are_python_all_the_same(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, f"{name(page)}:{block.line}", "exec")


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links spell them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name(page)} links to {target}, which is not there"
        assert not anchor or anchor in anchors(found), f"{name(page)} links to {target}, a heading that is not there"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_files_that_a_page_names_exist(page):
    named = re.findall(r"`((?:csrc|fastdistill|tests|bench|docs)/[\w./-]*)`", prose(page))
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing, f"{name(page)} names {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_tests_that_a_page_leads_to_are_there(page):
    """[`test_of_something`](../tests/test_file.py): the promise beside it is kept by that test."""
    for function, path in re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", prose(page)):
        tests = (page.parent / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {function}\(", tests, re.MULTILINE), f"{name(page)}: {path} has no {function}"


def test_the_index_names_every_page():
    index = ROOT / "docs/README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+\.md)\)", prose(index))}
    assert set(DOCS) - {index} <= linked


def indented(page: Path) -> list[str]:
    """The indented blocks of a page, outside of fences."""
    found = re.findall(r"(?<=\n\n)(?: {4}.*\n+)+", prose(page))
    return [textwrap.dedent(block).strip("\n") + "\n" for block in found]


def files_of(page: Path, comment: str) -> dict[str, str]:
    """The files that a recipe gives whole: blocks whose first line is a path, in a comment."""
    named = ((re.match(comment, block), block) for block in indented(page))
    return {found[1]: block for found, block in named if found}


def errors_of_c(text: str, folder: Path) -> str:
    """What a compiler has against C that stands in a folder."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs gcc or clang")
    command = f"{compiler} -std=gnu11 -Wall -Wno-unused -fsyntax-only -x c -I{folder} -".split()
    return subprocess.run(command, input=text.replace("#pragma once", ""), capture_output=True, text=True).stderr


def test_the_files_of_a_new_kernel_fit_the_tree():
    """Each has its folder, its Python imports what there is, and its C compiles, in plain C."""
    page = ROOT / "docs/adding/kernel.md"
    python, c = files_of(page, r"# ([\w/]+\.py)\n"), files_of(page, r"/\* ([\w/]+\.c) \*/\n")
    assert (len(python), len(c)) == (5, 1)
    for path in python | c:
        assert (ROOT / path).parent.is_dir(), f"{path}: there is no such folder"
    for path, text in python.items():
        modules = [node.module or "" for node in ast.walk(ast.parse(text, path)) if isinstance(node, ast.ImportFrom)]
        for module in modules:
            at = ROOT / module.replace(".", "/")
            there = at.is_dir() or at.with_suffix(".py").exists() or f"{module.replace('.', '/')}.py" in python
            assert there or module.split(".")[0] not in ("fastdistill", "bench"), f"{path} imports {module}"
    for path, text in c.items():
        assert not errors_of_c(text, (ROOT / path).parent)


def test_the_bodies_of_a_new_op_and_its_gradient_compile_beside_the_others():
    bodies = [block for block in indented(ROOT / "docs/adding/op.md") if block.startswith("static int op_")]
    assert len(bodies) == 2
    text = "".join(re.sub(r"\bop_\w+\(", f"op_{i}_of_the_page(", body, count=1) for i, body in enumerate(bodies))
    assert not errors_of_c(f'#include "elementwise.c"\n{text}', ROOT / "csrc/kernels/forward")


@pytest.mark.parametrize("page", RECIPES, ids=name)
def test_contributing_leads_to_every_recipe(page):
    assert f"](docs/adding/{page.name})" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
