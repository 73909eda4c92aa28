"""Killed at any moment: a name has what it had, or the new thing whole, and the next call leaves nothing else.

Runs of training, which go on to the same bits: tests/train/test_runs.py and test_job.py. What a fetch has started:
tests/test_fetch.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from fastdistill.fetch import fetch, is_fetched
from fastdistill.models.draft_head import SavedHead
from fastdistill.train.draft_head import HeadSettings, distill_head
from fastdistill.train.draft_head.training import HeadTraining
from tests.process.children import status_of
from tests.process.moments import at_line, moments
from tests.process.writers import WRITERS, tree
from tests.test_cli import write_model
from tests.test_fetch import Registry
from tests.test_files import litter, remove

MOMENTS = 8
RENAMING = ("files.py",)  # where names are given and what is left is cleared


def killed(work: Callable[[], object], moment: int, within: tuple[str, ...] = ("",)) -> bool:
    """Whether a process that does this was, at this line; it may have ended before."""
    status = status_of(lambda: at_line(work, moment, lambda: os.kill(os.getpid(), signal.SIGKILL), within))
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.mark.parametrize("within", [("",), RENAMING], ids=["anywhere", "as it is renamed"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_killed_writer_leaves_what_was_there_and_the_next_one_cleans(sources, tmp_path, name, within):
    called, write = WRITERS[name]
    target, other = tmp_path / "here" / called, tmp_path / "there" / called
    for each in (target, other):
        each.parent.mkdir()
    write(sources, other)
    want, came, left = tree(other), 0, set()

    def work():
        write(sources, target)

    for moment in moments(work, MOMENTS, within):
        old = tree(target)
        came += killed(work, moment, within)
        between = target.parent.is_dir() and any(target.parent.glob(".made*.partial/old"))
        assert tree(target) in ([{}] if between else [old, want])
        left |= set(litter(target.parent)) - {called}
        work()
        assert tree(target) == want and litter(target.parent) == [called]
        if moment % 2:
            remove(target)
    assert came > MOMENTS // 2
    assert left or within != RENAMING  # else nothing was to be cleaned


@pytest.mark.parametrize("within", [("fetch.py", "sources.py"), RENAMING], ids=["anywhere", "as it is renamed"])
def test_a_killed_fetch_is_no_model_and_the_next_one_is(sources, tmp_path, monkeypatch, within):
    registry = Registry(tmp_path, sources.gguf, monkeypatch, 1)

    def work():
        remove(registry.root / "cache")
        fetch("tiny")

    for moment in moments(work, 4, within):
        came = killed(work, moment, within)
        assert is_fetched("tiny") or came
        assert is_fetched(fetch("tiny").name) and registry.cached == {"tiny"}


def test_a_killed_distilling_goes_on(tmp_path, monkeypatch):
    """In whatever stage it was: texts, steps, the head itself."""
    monkeypatch.setattr(HeadTraining, "_affordable", lambda self, spent: 4)
    model = write_model(tmp_path / "model", layers=1, max_position_embeddings=128)
    settings = HeadSettings(
        model=str(model), minutes=1e-3, max_tokens=4, draft_vocab_size=20, intermediate_size=32, rows=16, threads=1
    )
    (tmp_path / "heads").mkdir()
    draft = tmp_path / "heads" / "draft"

    def work():
        remove(draft)
        distill_head(settings, draft)

    within = "own_texts", "draft_head", "runs", "files.py", "loop.py"
    for moment in moments(work, 4, within):
        killed(work, moment, within)
        if draft.exists():
            SavedHead.load(draft)
            remove(draft)
        assert distill_head(settings, draft) is not None
        SavedHead.load(draft)
        assert litter(draft.parent) == ["draft"]
