"""Files of others are read within bounds and never waited for; ours appear whole or not at all, and litter goes."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import CheckpointError, FetchError
from fastdistill.files import RegularFile, parse_json, read_file, read_json, replace, work_folder


def not_files(folder: Path) -> list[Path]:
    """What stands where a file is expected and is none, or cannot be one."""
    made = folder / "not_files"
    made.mkdir()
    os.mkfifo(made / "pipe")
    (made / "endless").symlink_to("/dev/zero")
    (made / "terminal").symlink_to("/dev/tty")
    (made / "circle").symlink_to(made / "circle")
    (made / "link to a pipe").symlink_to(made / "pipe")
    names = ["pipe", "endless", "terminal", "circle", "link to a pipe", "nothing", "a\0b", "a" * 5000, "\udc80"]
    return [made, *(made / name for name in names)]


def hostile_contents() -> dict[str, Callable[[Path], object]]:
    """What may stand where this package wrote a small JSON file, each a function that puts it there."""
    texts = {
        "nothing": "", "deep list": "[" * 100_000, "deep object": '{"a":' * 100_000, "long integer": "1" * 5000,
        "list": "[1]", "null": "null", "no object": "{}", "NaN": '{"rows": NaN, "files": NaN}', "text": "hello",
        "infinite": '{"rows": 1e999, "files": {"config.json": 1e999}}',
    }  # fmt: skip

    def unreadable(path: Path) -> None:
        path.write_text("{}")
        path.chmod(0)

    return {
        **{name: functools.partial(Path.write_text, data=text) for name, text in texts.items()},
        "binary": lambda path: path.write_bytes(bytes(range(256)) * 10),
        "hole": lambda path: (path.touch(), os.truncate(path, 1 << 40)),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
        "endless": lambda path: path.symlink_to("/dev/zero"),
        "circle": lambda path: path.symlink_to(path),
        "dangling": lambda path: path.symlink_to(path.with_name("nowhere")),
        "unreadable": unreadable,
    }


def remove(path: Path) -> None:
    """Whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def litter(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- reading ----------------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_an_error_at_once_with_its_name(tmp_path):
    for path in not_files(tmp_path):
        for error in (CheckpointError, FetchError):
            with pytest.raises(error, match=r": (there is no such file|cannot be read: )") as caught:
                read_file(path, error=error)
            assert len(str(caught.value)) < len(str(tmp_path)) + 400


def test_a_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a", 5) == b"12345"
    with pytest.raises(CheckpointError, match="a: has 5 bytes; expected at most 4"):
        read_file(tmp_path / "a", 4)
    os.truncate(tmp_path / "a", 1 << 40)  # a hole: nothing on the disk
    with pytest.raises(CheckpointError, match="has 1099511627776 bytes"):
        read_file(tmp_path / "a")
    with RegularFile(tmp_path / "a") as file, pytest.raises(CheckpointError, match=r"'the whole' takes .* memory"):
        file.read(1 << 62, 0, "the whole")


@given(data=st.binary(max_size=64), at=st.integers(0, 70), size=st.integers(0, 70))
def test_places_are_read_or_said_to_be_missing(tmp_path, data, at, size):
    (tmp_path / "a").write_bytes(data)
    with RegularFile(tmp_path / "a") as file:
        assert file.size == len(data)
        if size and at + size > len(data):
            with pytest.raises(CheckpointError, match="a: ends inside 'it': the file was cut meanwhile"):
                file.read(size, at, "it")
        else:
            assert file.read(size, at, "it").tobytes() == data[at : at + size]


def test_threads_read_one_file_at_once(tmp_path):
    content = np.arange(1 << 18, dtype=np.uint32)
    content.tofile(tmp_path / "a")
    wrong = []
    with RegularFile(tmp_path / "a") as file:

        def read(start):
            for at in range(start, 1 << 18, 1 << 12):
                if not np.array_equal(file.read(4096, 4 * at, "part").view(np.uint32), content[at : at + 1024]):
                    wrong.append(at)

        threads = [threading.Thread(target=read, args=(start,)) for start in range(0, 4096, 1024)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "text",
    [b"", b"[", b"[" * 100_000, b'{"a":' * 100_000, b'{"a": 1e999}', b'{"a": NaN}', b'{"a": 1' + b"0" * 5000 + b"}", b"\xff",
     b'{"a": 1, "a": 1}', b"[1]", b'{"' + b"a" * 9999 + b'": ' + b"1" * 9999 + b"}"],
)  # fmt: skip
def test_json_that_is_none_is_an_error_of_one_line(tmp_path, text):
    (tmp_path / "a").write_bytes(text)
    with pytest.raises(FetchError, match=r"a: (is not valid JSON|must be a JSON object)") as caught:
        read_json(tmp_path / "a", error=FetchError)
    assert len(str(caught.value)) < len(str(tmp_path)) + 300 and "\n" not in str(caught.value)


def test_a_name_that_comes_twice_is_found_in_no_time():
    text = json.dumps({str(i): 0 for i in range(200_000)})[:-1] + ', "199999": 0}'
    with pytest.raises(CheckpointError, match="'199999' comes twice"):
        parse_json(text.encode(), "it")


@given(value=st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.booleans())))
def test_json_objects_are_read(value):
    assert parse_json(json.dumps(value).encode(), "it") == value


# --- writing ----------------------------------------------------------------------------------------------------------


def make(target: Path, content: str) -> None:
    with work_folder(target) as work:
        (work / "model").mkdir()
        (work / "model" / "content").write_text(content)
        replace(target, work / "model", work)


def test_a_name_is_taken_and_replaced_and_nothing_else_stays(tmp_path):
    for content in ("first", "second"):
        make(tmp_path / "model", content)
        assert (tmp_path / "model" / "content").read_text() == content and litter(tmp_path) == ["model"]


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127])
def test_a_name_may_be_as_long_as_names_are(tmp_path, name):
    for content in ("first", "second"):
        make(tmp_path / name, content)
    assert (tmp_path / name / "content").read_text() == "second" and litter(tmp_path) == [name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(error), work_folder(tmp_path / "model") as work:
        (work / "half").write_text("of it")
        raise error
    assert litter(tmp_path) == []


AT_WORK = """
import os, signal, sys
from pathlib import Path
from fastdistill import files
target = Path(sys.argv[1])
with files.work_folder(target) as work:
    made = work / "made"
    made.mkdir()
    (made / "content").write_text("new")
    if sys.argv[2] == "between":  # the old one has gone, the new one has not come
        replace = os.rename
        def dying(old, new):
            if Path(new) == target:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(old, new)
        os.replace = dying
        files.replace(target, made, work)
    print("there", flush=True)
    sys.stdin.read()
"""


def at_work(target: Path, how: str = "waiting") -> subprocess.Popen[str]:
    """A process inside a work folder for this name."""
    command = [sys.executable, "-c", AT_WORK, str(target), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == ("there\n" if how == "waiting" else "")
    return process


def test_the_folder_of_a_killed_process_goes_with_the_next_and_those_of_others_stay(tmp_path):
    names = ["model", "model.b", "mod[e]l"]
    dead, alive, other = at_work(tmp_path / "model"), at_work(tmp_path / "model"), at_work(tmp_path / "model.b")
    odd = at_work(tmp_path / "mod[e]l")
    for process in (dead, other, odd):
        process.kill()
        process.communicate()
    assert len(litter(tmp_path)) == 4
    make(tmp_path / "model", "next")
    left = litter(tmp_path)
    assert len(left) == 4 and "model" in left  # the living one's, and those of the other names
    make(tmp_path / "mod[e]l", "next")
    make(tmp_path / "model.b", "next")
    assert len(litter(tmp_path)) == 4  # three models, and the living one's
    alive.communicate("")
    assert alive.returncode == 0 and litter(tmp_path) == sorted(names)


def test_killed_between_its_two_renames_the_old_one_comes_back(tmp_path):
    make(tmp_path / "model", "old")
    process = at_work(tmp_path / "model", "between")
    assert process.wait() == -signal.SIGKILL and "model" not in litter(tmp_path)
    with work_folder(tmp_path / "model"):
        assert (tmp_path / "model" / "content").read_text() == "old"
    assert litter(tmp_path) == ["model"]


def test_many_at_once_leave_one_and_no_litter(tmp_path):
    """Each cleans up while others begin: a folder that its maker has not locked yet must not be taken from it."""
    failed = []

    def work(i):
        for _ in range(20):
            try:
                with work_folder(tmp_path / "model") as folder:
                    (folder / "a").write_text(str(i))
                    assert (folder / "a").read_text() == str(i)
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and litter(tmp_path) == []
