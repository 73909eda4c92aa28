"""A run goes on to the same bits wherever it was killed, says what it measured once, and loses nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, BusyError, CheckpointError, NotFiniteError
from fastdistill.train.runs import Interruption, RunFolder, read_metrics
from tests.process.children import status_of
from tests.process.moments import at_line
from tests.train import stand_in
from tests.train.stand_in import batches, go

STEPS = 17
CONFIG = {"steps": STEPS}


def measured(path: Path) -> list[dict]:
    """The lines of a run, without what a clock says."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(found[name].tobytes() == wanted[name].tobytes() for name in wanted)


def work(path: Path, **changes):
    """Begin a run, or go on with it."""
    with RunFolder(path, None if path.exists() else CONFIG) as run:
        return go(run, STEPS, **changes)


def traced(path: Path, count: int) -> int:
    """Work, and be killed at the count-th line of what loops and writes; how many lines there were."""
    within = "loop.py", "files.py", "safetensors_file.py", "/runs/"
    return at_line(lambda: work(path), count, lambda: os.kill(os.getpid(), signal.SIGKILL), within)


def dying_at_line(path: Path, count: int) -> int:
    return status_of(lambda: traced(path, count))


def dying_at_byte(path: Path, count: int, action: signal.Handlers = signal.SIG_DFL) -> int:
    """Work, and be killed in the middle of a write that makes a file longer than so many bytes; or have it fail there."""

    def function():
        signal.signal(signal.SIGXFSZ, action)
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))
        work(path)

    return status_of(function)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the state of a run that nothing has interrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    trained, state, _ = work(path)
    assert trained.finished and trained.step == STEPS
    return path, state


def check(path: Path, whole) -> None:
    """Going on ends as the run that nothing has interrupted."""
    trained, state, _ = work(path)
    assert trained.finished and trained.step == STEPS and same(state, whole[1])
    assert measured(path) == measured(whole[0])
    assert sorted(file.name for file in path.iterdir()) == ["checkpoints", "config.json", "metrics.jsonl"]
    assert sorted(file.name for file in (path / "checkpoints").iterdir()) == [
        "step-00000015.safetensors",
        "step-00000017.safetensors",
    ]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.fixture(scope="module")
def most(whole, tmp_path_factory):
    """Of each way to be killed the greatest count at which it is."""
    lines = traced(tmp_path_factory.mktemp("traced") / "run", 0)
    sizes = [file.stat().st_size for file in whole[0].rglob("*.*") if file.is_file()]
    return {dying_at_line: lines, dying_at_byte: 9 * max(sizes) // 10}  # times differ in length


def test_what_is_left_of_a_folder_that_was_being_made_goes(tmp_path):
    path = tmp_path / "run"
    work(path)
    left = tmp_path / ".run.0123abcd.partial"
    left.mkdir()
    work(path)
    assert not left.exists()


KILLS = st.lists(st.tuples(st.sampled_from([dying_at_line, dying_at_byte]), st.floats(0, 1)), min_size=1, max_size=3)


@settings(max_examples=25)
@given(kills=KILLS)
def test_killed_anywhere_and_again_it_ends_in_the_same_bits(tmp_path_factory, whole, most, kills):
    path = tmp_path_factory.mktemp("killed") / "run"
    for die, share in kills:
        status = die(path, round(share * most[die]))
        assert status in (0, -signal.SIGKILL, -signal.SIGXFSZ)
    check(path, whole)
    shutil.rmtree(path.parent)


def test_the_kills_reach_every_stage(tmp_path, most):
    """The test above would be vain if its processes died too early, or never."""
    found, lines = set(), most[dying_at_line]
    for count in range(1, lines, lines // 16):
        assert dying_at_line(tmp_path / str(count), count) == -signal.SIGKILL
        found |= {file.name for file in (tmp_path / str(count)).rglob("step*")}
    assert found >= {f"step-{step:08}.safetensors" for step in (5, 10, 15)}
    for count in (1, 1000, most[dying_at_byte]):
        assert dying_at_byte(tmp_path / f"byte{count}", count) == -signal.SIGXFSZ
    assert dying_at_byte(tmp_path / "byte", 2 * most[dying_at_byte]) == 0


@pytest.mark.parametrize("room", [0, 10, 300, 1000, 2200, 2700])
def test_where_the_disk_is_full_nothing_written_before_is_lost(tmp_path, whole, room):
    """Every write that makes a file longer than that fails, as on a full disk."""
    path = tmp_path / "run"
    with RunFolder(path, CONFIG) as run:
        go(run, 5)
    before = {file: (path / "checkpoints" / file).read_bytes() for file in os.listdir(path / "checkpoints")}
    said = tmp_path / "said"

    def function():
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
        try:
            work(path)
        except CheckpointError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            said.write_text(str(error))

    assert status_of(function) == 0
    assert "cannot be written: File too large; nothing before is lost" in said.read_text()
    kept = sorted(os.listdir(path / "checkpoints"))
    assert said.read_text().endswith(f"`fastdistill train --resume {path}` goes on from step {int(kept[-1][5:13])}")
    assert len(kept) >= len(before) and all(
        (path / "checkpoints" / file).read_bytes() == before[file] for file in before if file in kept
    )
    for line in (path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    said.unlink()
    check(path, whole)


def test_too_little_room_is_said_before_the_first_step(tmp_path, monkeypatch):
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3000))
    with RunFolder(tmp_path / "run", CONFIG) as run:
        with pytest.raises(CheckpointError, match="the disk has 0 MB free; the checkpoints of this run need 1 MB"):
            go(run, 3)
        monkeypatch.setattr(shutil, "disk_usage", real)
        go(run, 3)


# ---- asked to stop ----


def asked(path: Path, *numbers: int) -> int:
    """Work, and get these signals in the middle of step 8."""

    def sending(step):
        for number in numbers if step == 7 else ():
            os.kill(os.getpid(), number)
        return batches(step)

    def function():
        with RunFolder(path, CONFIG) as run, Interruption() as stop:
            trained, _, _ = go(run, STEPS, stop=stop, batches=sending)
        assert (trained.step, trained.finished) == (8, False)

    return status_of(function)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_finishes_the_step_and_saves(tmp_path, whole, number):
    path = tmp_path / "run"
    assert asked(path, number) == 0
    assert (path / "checkpoints" / "step-00000008.safetensors").exists()
    assert [line["step"] for line in measured(path)] == list(range(9))
    check(path, whole)


def test_asked_twice_it_ends_at_once(tmp_path, whole):
    path = tmp_path / "run"
    assert asked(path, signal.SIGINT, signal.SIGINT) == -signal.SIGINT
    assert not (path / "checkpoints" / "step-00000008.safetensors").exists()
    check(path, whole)


def test_signals_are_as_before_and_what_was_ignored_stays_so():
    def function():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        before = signal.getsignal(signal.SIGTERM)
        with Interruption() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop()
        assert signal.getsignal(signal.SIGTERM) is before

    assert status_of(function) == 0


# ---- the folder ----


def test_a_second_process_is_refused_until_the_first_has_gone(tmp_path):
    path = tmp_path / "run"
    with RunFolder(path, CONFIG), pytest.raises(BusyError, match="run: another process is at work in this run"):
        RunFolder(path)
    with RunFolder(path) as run:
        assert run.config == CONFIG


def test_a_run_takes_no_name_that_something_has(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    RunFolder(path, CONFIG).close()  # an empty folder is nothing
    with pytest.raises(CheckpointError, match=r"holds a run already: `fastdistill train --resume .*run` goes on"):
        RunFolder(path, CONFIG)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    (tmp_path / "plain").touch()
    with pytest.raises(CheckpointError, match="cannot be made: "):
        RunFolder(tmp_path / "plain" / "run", CONFIG)
    for name in ("other", "other/file", "plain"):
        with pytest.raises(CheckpointError, match=f"{name}: is there already and is no run: choose another name"):
            RunFolder(tmp_path / name, CONFIG)
        with pytest.raises(CheckpointError, match=f"{name}: is no run"):
            RunFolder(tmp_path / name)
    with pytest.raises(CheckpointError, match="nothing: there is no such run"):
        RunFolder(tmp_path / "nothing")
    assert (tmp_path / "other" / "file").exists() and (tmp_path / "plain").is_file()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, whole):
    path = tmp_path / "run"
    work(path)
    newest = path / "checkpoints" / "step-00000017.safetensors"
    os.truncate(newest, newest.stat().st_size - 1)
    with pytest.warns(
        UserWarning, match="step-00000017.safetensors' is damaged, and the checkpoint before it is taken"
    ):
        check(path, whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(path, whole)  # it has been replaced


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = tmp_path / "run"
    with RunFolder(path, CONFIG) as run:
        go(run, 3)
    with (
        RunFolder(path) as run,
        pytest.raises(CheckpointError, match="'average/bias' is not expected, 'average/table' is"),
    ):
        go(run, 3, average=None)


def test_lines_are_read_as_far_as_they_are_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1}', '{"step": 2, "loss": 1.5}', '{"step": 3}']
    for end, steps in {
        "": [1, 2, 3],
        '{"step": 4': [1, 2, 3],
        '{"step": 4}': [1, 2, 3],
        '{"step": 4}\n': [1, 2, 3, 4],
    }.items():
        path.write_text("\n".join(lines) + "\n" + end)
        assert [record["step"] for record in read_metrics(path)] == steps
    for odd in ("[]", "1", "{}", '{"step": 3}', '{"step": "4"}', "\x00", "[" * 100_000):
        path.write_text("\n".join([*lines, odd, '{"step": 5}']) + "\n")
        assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]


# ---- the loop ----


def test_a_run_learns_and_its_folder_changes_nothing(tmp_path):
    trained, state, records = go(None, 30)
    with RunFolder(tmp_path / "run", CONFIG) as run:
        again, saved, lines = go(run, 30)
    assert same(state, saved) and trained.loss == again.loss
    assert [line["step"] for line in lines] == list(range(31)) == [line["step"] for line in records]
    held_out = [line["evaluation"] for line in records if "evaluation" in line]
    assert len(held_out) == 7 and held_out[-1] < held_out[0]
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == lines


def test_micro_batches_change_no_bit(tmp_path):
    def split(step):
        return [part for batch in batches(step) for part in batch.split(7)]

    _, state, records = go(None, STEPS)
    _, other_state, others = go(None, STEPS, batches=split)
    assert same(state, other_state)
    assert np.allclose([line["loss"] for line in records[1:]], [line["loss"] for line in others[1:]], rtol=1e-13)


def test_minutes_end_a_run_and_save_it(tmp_path):
    with RunFolder(tmp_path / "run", CONFIG) as run:
        trained, _, _ = go(run, None, minutes=0.02 / 60, save_every=None)
        assert trained.finished and trained.seconds >= 0.02 and run.saved == trained.step > 0
        again, _, _ = go(run, None, minutes=0.02 / 60)
        assert again.finished and again.step == trained.step


def test_minutes_between_checkpoints(tmp_path):
    with RunFolder(tmp_path / "run", CONFIG) as run:
        saved = []
        go(run, 5, save_every=None, save_minutes=0, report=lambda record: saved.append(run.saved))
    assert saved == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("where", ["objective", "loss", "gradient"])
def test_what_is_no_number_ends_the_run_before_it_is_learnt(tmp_path, where):
    steps = []

    def late(value):
        return np.nan if len(steps) == 8 else value

    def counting(step):
        steps.append(step)
        return batches(step)

    def objective(logits, *rest):
        loss = stand_in.objective(late(1) * logits if where == "objective" else logits, *rest)
        if where == "gradient":
            loss.gradient[0] = late(loss.gradient[0])
        return loss._replace(value=late(loss.value)) if where == "loss" else loss

    with (
        RunFolder(tmp_path / "run", CONFIG) as run,
        pytest.raises(
            NotFiniteError, match=r"step 8: .*: try a lower learning rate; the newest checkpoint is of step 5"
        ),
    ):
        go(run, STEPS, batches=counting, objective=objective)
    assert run.saved == 5


def test_an_end_is_needed():
    with pytest.raises(ArgumentError, match="steps or minutes must say when training ends, got neither"):
        go(None, None)


def test_the_average_is_that_of_what_each_step_left():
    states = [go(None, steps)[1] for steps in range(5)]
    for name in ("table", "bias"):
        mean = states[0][name].astype(np.float64)
        for state in states[1:]:
            mean = 0.75 * mean + 0.25 * state[name]
            np.testing.assert_allclose(state[f"average/{name}"], mean, rtol=1e-5, atol=1e-6)
