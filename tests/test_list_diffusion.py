"""The bench of trained masked models: each part ends in its figures and its picture, with models of next to no training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import __main__ as bench
from bench.lib.list_models import EMBEDDED, engine_of, model_of, score, some_prompts
from bench.lib.list_tasks import TASKS
from bench.lib.peers import missing
from bench.studies import list_diffusion
from fastdistill.unmask import Schedule

PICTURE = [] if missing("matplotlib") else ["--plot"]


def found(tmp_path, *options: str, prompts: int = 1) -> dict:
    wanted = [
        "list_diffusion",
        *options,
        "--prompts",
        str(prompts),
        "--texts",
        "1",
        "--threads",
        "1",
        "--json",
        str(tmp_path / "found.json"),
    ]
    wanted += [*PICTURE, str(tmp_path / "a.png")] if PICTURE else []
    assert bench.main(wanted) == 0
    assert not PICTURE or (tmp_path / "a.png").stat().st_size > 1000
    return json.loads((tmp_path / "found.json").read_text())


@pytest.fixture
def short(monkeypatch):
    """Fewer rules: what is printed of them is the same."""
    few = {name: list_diffusion.RULES[name] for name in (*list_diffusion.SHOWN, "threshold 0.5")}
    monkeypatch.setattr(list_diffusion, "RULES", few)
    monkeypatch.setattr(list_diffusion, "THRESHOLDS", {"threshold 0.5": few["threshold 0.5"]})
    monkeypatch.setattr(list_diffusion, "LOOKS", 1)


def test_from_nothing_a_folder_is_made_that_students_begin_with(tmp_path, short):
    made = found(tmp_path, "from-nothing", "--steps", "2", "--out", str(tmp_path / "base"))
    assert [row["rule"] for row in made["rows"]] == list(list_diffusion.README) and set(TASKS) <= made["rows"][0].keys()
    assert "the least is 0.0%: not met" in made["notes"][1]
    students = found(tmp_path, "students", "--model", str(tmp_path / "base"), "--steps", "1")
    some = ["--students", "dParallel", "--learn", "shuffle"]
    few = found(tmp_path, "students", "--model", str(tmp_path / "base"), "--steps", "1", *some)
    assert [row["student"] for row in few[list_diffusion.FAST]] == ["as it is", "dParallel"]
    (summary,) = (rows for title, rows in students.items() if title.startswith("Forwards"))
    assert len(summary) == 9 and summary[0]["one answer"] <= 10
    assert [len(students[rule]) for rule in list_diffusion.SHOWN] == [9, 9, 9]


def test_an_oracle_writes_the_schedules_answers_in_fewer_forwards(tmp_path):
    rows = {row["rule"]: row for row in found(tmp_path, "filter", prompts=3)["rows"]}
    assert rows["schedule"]["forwards"] == 10 and rows["oracle"]["as scheduled"] == "100%"
    assert 1 <= rows["oracle"]["forwards"] <= rows["threshold 0.9"]["forwards"] < 10 > rows["filter, 0.96"]["forwards"]


def test_weights_by_chance_say_nothing_and_the_embedded_ones_are_right():
    some = some_prompts(2)
    chance, embedded = (engine_of(EMBEDDED, 8, 1, seed=seed) for seed in (0, None))
    assert not any(score(model_of(chance), Schedule(1), some).right.values())
    right = score(model_of(embedded), Schedule(), some)
    assert set(right.right.values()) == {1.0} and set(right.forwards.values()) == {10.0}
    again = engine_of(EMBEDDED, 8, 1, seed=0)
    for name, parameter in chance.parameters.items():
        np.testing.assert_array_equal(parameter.value, again.parameters[name].value)
