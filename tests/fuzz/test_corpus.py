"""Every kept input through its target, without a fuzzer; and that a target sees a fault."""

from __future__ import annotations

import os
import subprocess
from random import Random

import pytest

from fastdistill.checkpoint import safetensors_file
from fastdistill.encode import text_encoder
from tests.fuzz import law, native_targets
from tests.fuzz.__main__ import KEPT, main
from tests.fuzz.mutators import bytes_changed


def kept(name: str) -> list[bytes]:
    folder = KEPT / name
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", law.names())
def test_kept_inputs(name):
    target = law.target(name)
    inputs = [*kept(name), *list(target.seeds())[:40]]
    for data in inputs:
        target.run(data)
    random = Random(0)
    for _ in range(60):  # changes of a format are changes of anything
        data = random.choice(inputs)
        changed = getattr(target, "changed", bytes_changed)(data, random)
        assert isinstance(changed, bytes)
        target.run(changed)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if not native_targets.CSRC.is_dir():
        pytest.skip("the C files are not here: an installed package has none")
    path = tmp_path_factory.mktemp("native") / "targets"
    if problem := native_targets.build(path, False):
        pytest.skip(problem)
    return path


def replayed(program, name, planted=0):
    files = map(str, sorted((KEPT / name).iterdir()))
    return subprocess.run(
        [program, *files], env=os.environ | {"TARGET": name, "PLANTED": str(planted)}, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", native_targets.names())
def test_kept_inputs_of_c(program, name):
    found = replayed(program, name)
    assert found.returncode == 0, found.stderr[-2000:]


@pytest.mark.parametrize("name", native_targets.names())
def test_a_target_in_c_sees_an_array_that_is_too_short(program, name):
    assert "ERROR: AddressSanitizer" in replayed(program, name, planted=1).stderr


def test_a_target_sees_an_error_that_is_not_ours(monkeypatch):
    """A header whose numbers nobody looks at."""
    monkeypatch.setattr(safetensors_file, "_naturals", lambda value: True)
    target, random = law.target("safetensors"), Random(0)
    inputs = [*target.seeds()]

    def search() -> None:
        for _ in range(3000):
            target.run(target.changed(random.choice(inputs), random))

    with pytest.raises((TypeError, ValueError, AssertionError, MemoryError)):
        search()


def test_a_target_sees_a_message_without_a_bound():
    def fails() -> None:
        with law.lawful():
            raise law.FastDistillError("x" * 10**5)

    with pytest.raises(law.Broken, match="100000 characters"):
        fails()


def test_the_target_of_encoders_sees_a_vector_that_is_not_finite(monkeypatch):
    monkeypatch.setattr(text_encoder, "_finite", lambda found: found + float("nan"))
    with pytest.raises(law.Broken, match="vectors are float32"):
        law.target("encode").run(b"")


def test_a_call_that_writes_beside_its_arrays_is_seen(monkeypatch):
    from tests.fuzz.targets import calls

    def writes(out):
        """As C would that trusts a shape too much."""
        out.base[-1] = 0

    import numpy as np

    monkeypatch.setattr(calls, "NAMES", ["one"])
    monkeypatch.setitem(calls.CALLS, "one", lambda: (writes, {"out": np.zeros(4, np.float32)}))
    with pytest.raises(law.Broken, match="wrote beside an array"):
        calls.run(bytes([0, 5, 0, 0, 0, 0]))


def test_the_command_lists_its_targets(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in "\n" + listed for name in [*law.names(), *native_targets.names()])
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "there is no target nothing" in capsys.readouterr().err


def test_the_command_repeats_an_input(tmp_path, capsys):
    (tmp_path / "input").write_bytes(b"{}")
    assert main(["costs", "--repeat", str(tmp_path / "input")]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_every_folder_of_the_corpus_is_a_targets():
    assert {path.name for path in KEPT.iterdir()} <= {*law.names(), *native_targets.names()}
    assert sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file()) < 300_000
