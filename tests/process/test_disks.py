"""Full disks and read-only ones: an error of one line that names the file, nothing half written, and the source as it was."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import fastdistill as fd
from fastdistill import cli
from fastdistill.decode.costs import kept_costs
from fastdistill.errors import CheckpointError, FastDistillError, FetchError
from fastdistill.fetch import fetch
from tests.command_line import start
from tests.process import disks
from tests.process.children import in_child
from tests.process.conftest import COSTS, MESSAGES, PROMPTS, TOKENS
from tests.process.writers import WRITERS, Sources, tree
from tests.test_fetch import Registry
from tests.test_files import litter
from tests.train.test_runs import work as run_of_training

PLENTY = 4096  # pages


@pytest.fixture
def disk(tmp_path) -> Path:
    """Where one may be mounted, by a forked process."""
    if reason := disks.why_none(str(tmp_path)):
        pytest.skip(f"this system lets nobody mount a disk of his own: {reason}")
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def failed(work: Callable[[], object], names: str, *reasons: str) -> bool:
    """Whether it failed, by an error of one line that says what of, and why."""
    try:
        work()
    except FastDistillError as error:
        assert names in str(error) and "\n" not in str(error), error
        assert any(reason in str(error) for reason in reasons or ("No space left", "Read-only")), error
        return True
    return False


def some(most: int, count: int = 8) -> list[int]:
    """From 1 below `most`, the first ones and others up to the last."""
    return sorted(
        {*range(1, min(most, 4)), *(1 + (most - 2) * n // count for n in range(count + 1))} & set(range(1, most))
    )


@pytest.mark.parametrize("name", WRITERS)
def test_wherever_the_disk_is_full_nothing_is_there_or_what_was(sources, disk, name):
    """By rooms: of pages, and of files and folders; then there is room, and the same call does it."""
    called, write = WRITERS[name]
    target, read = disk / called, tree(sources.folder) | tree(sources.gguf)

    def work():
        write(sources, target)

    def test() -> int:
        disks.own_mounts()
        disks.mount(disk, PLENTY, PLENTY)
        work()
        work()  # over itself
        want, (pages, files) = tree(target), disks.used(disk)
        disks.unmount(disk)
        failures = 0
        for room in [(pages_there, PLENTY) for pages_there in some(pages + 1)] + [
            (PLENTY, files_there) for files_there in some(files + 3)
        ]:
            disks.mount(disk, *room)
            if failed(work, str(target)):
                failures += 1
                assert tree(target) == {} and litter(disk) in ([], [f"{called}.part"])
            disks.resize(disk, PLENTY, PLENTY)
            work()
            assert tree(target) == want and litter(disk) == [called]
            # What is there stays where there is too little room for another one beside it.
            disks.resize(disk, *(there + some for there, some in zip(disks.used(disk), room, strict=True)))
            failures += failed(work, str(target))
            assert tree(target) == want and litter(disk) in ([called], [called, f"{called}.part"])
            disks.unmount(disk)
        return failures

    assert in_child(test) >= 4
    assert tree(sources.folder) | tree(sources.gguf) == read


@pytest.mark.parametrize("name", WRITERS)
def test_where_files_may_be_so_long_and_no_longer(sources, tmp_path, name):
    """As a quota has it; the same promise without a disk of one's own."""
    called, write = WRITERS[name]
    target = tmp_path / called

    def work():
        write(sources, target)

    def test() -> int:
        work()
        want, failures, limits = tree(target), 0, resource.getrlimit(resource.RLIMIT_FSIZE)
        longest = max(map(len, want.values()))
        for length in (0, 1, *(longest * part // 5 for part in range(1, 6))):
            resource.setrlimit(resource.RLIMIT_FSIZE, (length, limits[1]))
            failures += failed(work, str(target), "File too large")
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert tree(target) == want and litter(tmp_path) in ([called], [called, f"{called}.part"])
            work()
            assert tree(target) == want and litter(tmp_path) == [called]
        return failures

    assert in_child(test) >= 6


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_cannot_be_written_is_said_by_name(sources, disk, name):
    called, write = WRITERS[name]

    def test():
        disks.own_mounts()
        disks.mount(disk, PLENTY)
        write(sources, disk / called)
        want = tree(disk)
        disks.make_read_only(disk)
        assert failed(lambda: write(sources, disk / called), str(disk / called))
        assert failed(lambda: write(sources, disk / f"other{Path(called).suffix}"), str(disk / "other"))
        assert tree(disk) == want

    in_child(test)


def test_a_run_of_training_goes_on_once_there_is_room(disk, tmp_path):
    """Its folder, its lines and its checkpoints: `tests/train/test_runs.py` has what each of them loses."""
    run_of_training(tmp_path / "whole")
    want = tree(tmp_path / "whole" / "checkpoints").keys()

    def test() -> int:
        disks.own_mounts()
        failures = 0
        for room in [(pages, PLENTY) for pages in range(1, 9)] + [(PLENTY, files) for files in range(1, 12)]:
            disks.mount(disk, *room)
            try:
                run_of_training(disk / "run")
            except CheckpointError as error:
                assert str(disk / "run") in str(error) and "\n" not in str(error)
                failures += 1
            disks.resize(disk, PLENTY, PLENTY)
            assert run_of_training(disk / "run")[0].finished
            assert tree(disk / "run" / "checkpoints").keys() == want and litter(disk) == ["run"]
            disks.unmount(disk)
        return failures

    assert in_child(test) >= 8


def test_a_fetch_into_a_full_cache_leaves_nothing(sources, disk, tmp_path, monkeypatch):
    registry = Registry(tmp_path, sources.gguf, monkeypatch, 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))

    def test():
        disks.own_mounts()
        disks.mount(disk, 1)
        with pytest.raises(FetchError, match="has 0 MB free; fetching needs"):
            fetch("tiny")
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)  # somebody else takes the room meanwhile
        pages = -(-registry.source.download_size // disks.PAGE)
        said = []
        for room in range(1, 9 * pages, max(pages // 2, 1)):
            disks.resize(disk, room)
            try:
                fetch("tiny")
                break
            except FetchError as error:
                said.append(str(error))
            assert [path.name for path in (disk / "fastdistill" / "models").iterdir()] == [".tiny.lock"]
        disks.resize(disk, PLENTY)
        assert fetch("tiny").is_dir()
        return said

    said = in_child(test)
    assert len(said) > 3 and sum("No space left on device" in one for one in said) > len(said) // 2, said


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_costs_that_cannot_be_kept_are_measured_each_time(folder, disk, monkeypatch, texts, how):
    """A cache is never needed: a model loads, writes, chats, and guesses by what it has measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))

    def test():
        disks.own_mounts()
        if how == "full":
            disks.mount(disk, 1)
            (disk / "ballast").write_bytes(bytes(disks.PAGE))
        else:
            disks.mount(disk, PLENTY)
            disks.make_read_only(disk)
        before = tree(disk)
        model = fd.load(folder, threads=2)
        monkeypatch.setattr(model, "measure_costs", lambda: COSTS)
        assert model.generate(PROMPTS[0], max_tokens=TOKENS, decoder="auto").tokens == texts[PROMPTS[0]]
        assert model.chat(MESSAGES, max_tokens=2).tokens and model.costs == COSTS
        assert kept_costs(disk / "costs", lambda: COSTS) == COSTS
        assert tree(disk) == before

    in_child(test)


def test_the_commands_say_it_in_a_line(sources: Sources, disk, capsys):
    """And end by 1; no traceback."""

    def test() -> list[tuple[int, str]]:
        disks.own_mounts()
        disks.mount(disk, 2)
        said = []
        for arguments in (
            ("quantize", sources.folder, disk / "made", "--format", "q8"),
            ("convert", sources.gguf, disk / "made"),
            ("convert", sources.folder, disk / "made.gguf"),
        ):
            code = cli.main([str(argument) for argument in arguments])
            said.append((code, capsys.readouterr().err.splitlines()[-1]))
            assert litter(disk) == []
        return said

    for code, last in in_child(test):
        assert code == 1 and last.startswith(f"fastdistill: error: {disk}/made") and "No space left on device" in last


@pytest.mark.parametrize(
    "arguments", [("info",), ("generate", "MODEL", "the"), ("generate", "MODEL", "the", "--json")], ids=str
)
def test_output_that_nobody_has_room_for_is_an_error_of_a_line(folder, arguments):
    with open("/dev/full", "wb") as full:
        process = start(*(folder if one == "MODEL" else one for one in arguments), stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        1,
        b"fastdistill: error: the output cannot be written: No space left on device\n",
    )
