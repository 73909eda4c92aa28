"""What a type checker says of a user's file: right calls have their types, wrong ones are errors in their lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# In comments: the type that is revealed, or what is said of an error.
FILE = """
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

import fastdistill as fd

if TYPE_CHECKING:
    from typing_extensions import Unpack

model = fd.load("folder", format="q8", threads=2)
words = ["a", "b"]
reveal_type(model.generate("a", max_tokens=3, temperature=0.5, seed=None, stop=None))  # Generation
reveal_type(model.generate([1, 2]))  # Generation
reveal_type(model.generate(range(3)))  # Generation
reveal_type(model.generate(np.array([1, 2])))  # Generation
reveal_type(model.generate("a", n=3))  # list[Generation]
reveal_type(model.generate([1, 2], n=3))  # list[Generation]
reveal_type(model.generate(words, max_tokens=3))  # list[Generation]
reveal_type(model.generate(("a", "b")))  # list[Generation]
reveal_type(model.generate([[1, 2], [3]]))  # list[Generation]
reveal_type(model.generate([np.array([1, 2])]))  # list[Generation]
reveal_type(model.generate(["a", [3]]))  # list[Generation]
reveal_type(model.fill("a", logprobs=3, decoder=fd.Unmask(max_steps=1)))  # Generation
reveal_type(model.fill([1, 2]))  # Generation
reveal_type(model.fill(np.array([1, 2]), allowed=range(3)))  # Generation
reveal_type(model.fill(words, temperature=0.5, seed=1))  # list[Generation]
reveal_type(model.score("a"))  # Score
reveal_type(model.score(words))  # list[Score]
reveal_type(model.stream("a", decoder="auto"))  # Generator[Piece, None, Generation]
reveal_type(model.chat([{"role": "user", "content": "a"}], max_tokens=3))  # Generation
reveal_type(model.chat([], stream=True))  # Generator[Piece, None, Generation]
reveal_type(model.generate("a").text)  # str
reveal_type(model.generate("a").tokens)  # list[int]
reveal_type(model.session(capacity=8))  # Session
model.generate("a", allowed=np.ones(8, bool), stop_token_ids=np.array([1]))
model.generate("a", allowed=range(3), logit_bias={1: 2.0}, stop=["a"], stop_token_ids=(1,), session=model.session())
model.generate("a", grammar=fd.constraint.JsonSchema({"type": "null"}))
model.generate("a", grammar=fd.constraint.Trie([[1]]))
for decoder in (fd.Autoregressive(), fd.Auto(), fd.BeamSearch(), fd.Jacobi(), fd.Lookahead(), fd.Speculative(fd.PromptLookup()), fd.Unmask(fd.unmask.Threshold(0.9))):
    model.generate("a", decoder=decoder)


def ask(prompt: str, **options: "Unpack[fd.Options]") -> str:
    return model.generate(prompt, **options).text


def pieces(prompt: str) -> Generator[str, None, fd.Generation]:
    return (yield from model.stream(prompt, max_tokens=8))


ask("a", temperature=0.5)
ask("a", temprature=0.5)  # did you mean "temperature"
model.generate("a", max_new_tokens=3)  # did you mean "max_tokens"
model.chat([], max_new_tokens=3)  # did you mean "max_tokens"
model.stream("a", temprature=1.0)  # did you mean "temperature"
model.generate("a", temperature="hot")  # No overload variant
model.stream("a", temperature="hot")  # expected "float | None"
model.generate("a", 8)  # No overload variant
model.fill("a", max_tokens=8)  # No overload variant
model.stream("a", 8)  # incompatible type "int"
model.stream(["a"])  # incompatible type "str"
model.stream("a", decoder=fd.PromptLookup())  # "PromptLookup"; expected "Decoder | str | None"
model.stream("a", decoder=fd.unmask.Threshold(0.9))  # "Threshold"; expected "Decoder | str | None"
model.generate("a").txt  # "Generation" has no attribute "txt"
fd.laod("folder")  # Module has no attribute "laod"
reveal_type(fd.unmask.Threshold(0.9))  # Threshold
fd.unmask.Treshold(0.9)  # Module has no attribute "Treshold"; maybe "Threshold"?
"""

SETTINGS = "[mypy]\nstrict = True\nfollow_imports = silent\n"


def test_a_users_file_has_types_and_wrong_calls_are_errors(tmp_path, pytestconfig):
    pytest.importorskip("mypy", reason="needs mypy: pip install mypy")
    cache = getattr(pytestconfig, "cache", None)  # None with -p no:cacheprovider
    (tmp_path / "user.py").write_text(FILE)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        "mypy.ini",
        "--cache-dir",
        str(cache.mkdir("mypy") if cache else tmp_path / "cache"),
        "--hide-error-context",
        "user.py",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    said: dict[int, str] = {}
    for line, words in re.findall(r"^user\.py:(\d+): (.*)$", done.stdout, re.MULTILINE):
        said[int(line)] = said.get(int(line), "") + re.sub(r"(\w+\.)+(?=\w)", "", words) + "\n"
    for number, line in enumerate(FILE.splitlines(), 1):
        code, _, wanted = line.partition("  # ")
        found = said.get(number, "")
        if code.startswith("reveal_type"):
            assert found == f'note: Revealed type is "{wanted}"\n', f"{line}: {found}"
        elif wanted:
            assert "error: " in found and wanted in found, f"{line}: {found}"
        else:
            assert not found, f"{line}: {found}"


@pytest.mark.parametrize("system", ["win32", "darwin", "linux"])
def test_the_package_uses_names_that_a_system_has(tmp_path, pytestconfig, system):
    pytest.importorskip("mypy", reason="needs mypy: pip install mypy")
    cache = getattr(pytestconfig, "cache", None)
    place = str(cache.mkdir("mypy") if cache else tmp_path / "cache")
    command = [sys.executable, "-m", "mypy", "--platform", system, "--cache-dir", place, "fastdistill"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert not re.findall(r"^.*error: .*\[(?:attr-defined|call-arg|name-defined)\]$", done.stdout, re.MULTILINE), system
