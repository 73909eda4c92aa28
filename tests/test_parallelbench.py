"""What the bench of unmasking says of its figures, and that it ends in all of them."""

from __future__ import annotations

import json

import pytest

from bench import __main__ as bench
from bench.lib.list_tasks import DETERMINISTIC, TASKS
from bench.studies import parallelbench, parallelbench_verdicts
from bench.studies.parallelbench_tables import Measured, Setting, equal_tokens
from bench.studies.parallelbench_verdicts import verdicts


def measured(family, name, forwards, shuffle=1.0, one_answer=1.0, like="", answers=((1, 2), (3,))):
    right = {task: one_answer for task in DETERMINISTIC} | {"shuffle": shuffle, "choose": 1.0}
    return Measured(Setting(family, name, None, like), right, [list(a) for a in answers], forwards, 10 / forwards, 1.0)


def as_it_should_be():
    return [
        measured("schedule", "1 a step", 10.0),
        measured("schedule", "2 a step", 5.0, shuffle=0.1),
        measured("schedule", "all at once", 1.0, shuffle=0.0),
        measured("adaptive", "threshold 0.9", 2.0),
        measured("adaptive", "threshold 0.5", 1.5, shuffle=0.2),
        measured("blocks", "cache none", 3.0, like="cache none"),
        measured("blocks", "cache dual", 3.0, like="cache none"),
    ]


def drafted(answers=((1, 2), (3,)), forwards=4.0):
    return [
        measured("schedule", "1 a step", 10.0),
        measured("FreeDave", "4 drafts", forwards, like="1 a step", answers=answers),
    ]


def held(found=None, checked=None):
    """Which of the verdicts hold, by the order in which they are given."""
    by_name = [{one.setting.name: one for one in some} for some in (found or as_it_should_be(), checked or drafted())]
    return [verdict.holds for verdict in verdicts(*by_name)]


def changed(name, **changes):
    """As it should be, but for one setting."""
    return [one for one in as_it_should_be() if one.setting.name != name] + [
        measured(one.setting.family, name, **({"forwards": one.forwards, "shuffle": one.right["shuffle"], "like": one.setting.like} | changes))
        for one in as_it_should_be()
        if one.setting.name == name
    ]  # fmt: skip


def test_what_is_claimed_is_confirmed_by_figures_that_say_so():
    assert held() == [True] * 6


@pytest.mark.parametrize(
    ("claim", "found"),
    [
        (0, changed("all at once", one_answer=0.98)),
        (1, changed("2 a step", shuffle=0.51)),
        (4, changed("threshold 0.9", forwards=5.1)),
        (5, changed("cache dual", answers=((1, 2), (4,)))),
    ],
)
def test_each_claim_is_refuted_by_figures_that_contradict_it_alone(claim, found):
    assert held(found) == [number != claim for number in range(6)]


def test_a_schedule_that_no_rule_beats_is_named():
    by_name = {one.setting.name: one for one in changed("2 a step", forwards=2.1, shuffle=1.0)}
    by_name["threshold 0.9"] = measured("adaptive", "threshold 0.9", 3.0)
    verdict = parallelbench_verdicts.dominance(
        [one for one in by_name.values() if one.setting.family == "schedule"],
        [one for one in by_name.values() if one.setting.family == "adaptive"],
    )
    assert (
        str(verdict).startswith("REFUTED ")
        and verdict.figures.startswith("1 of 2 ")
        and verdict.figures.endswith("not 2 a step")
    )


@pytest.mark.parametrize("checked", [drafted(answers=((1, 2), (4,))), drafted(forwards=10.0)])
def test_drafts_have_to_give_the_same_and_to_save_forwards(checked):
    assert held(checked=checked) == [number != 3 for number in range(6)]


def test_no_threshold_may_be_as_accurate():
    found = [one for one in as_it_should_be() if one.setting.name != "threshold 0.9"]
    verdict = parallelbench_verdicts.half_the_forwards(
        [one for one in found if one.setting.family == "adaptive"], found[0]
    )
    assert not verdict.holds and verdict.figures == "no threshold reaches 100.0%"


def test_tokens_are_compared_place_by_place():
    assert equal_tokens([[1, 2, 3], [4]], [[1, 2, 3], [4]]) == 1
    assert equal_tokens([[1, 2, 3], [4]], [[1, 5], [4, 4]]) == 2 / 5


def test_settings_have_names_of_their_own_and_know_their_likes():
    names = [setting.name for setting in parallelbench.SETTINGS]
    assert len(names) == len(set(names)) and parallelbench.STATIC in names
    assert {setting.like for setting in parallelbench.SETTINGS} <= {"", *names}


def test_the_bench_ends_in_every_table_and_verdict(capsys):
    assert bench.main(["parallelbench", "--prompts", "2", "--same", "9", "--all", "--threads", "1", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = [row["rule"] for row in found["rows"]]
    assert names[: len(parallelbench.SETTINGS)] == [setting.name for setting in parallelbench.SETTINGS]
    assert len(names) == len(parallelbench.SETTINGS) + len(parallelbench.ACCEPTS)
    assert all({*TASKS, "forwards", "tokens a forward"} <= row.keys() for row in found["rows"])
    by_name = {row["rule"]: row for row in found["rows"]}
    assert (
        by_name[parallelbench.STATIC]["forwards"] == 10 and by_name["all at once, confidence"]["tokens a forward"] == 10
    )
    assert [row["rule"] for row in found["Answers that should be another's"]] == [
        setting.name for setting in parallelbench.SETTINGS if setting.like not in ("", setting.name)
    ]
    said = [note.split(maxsplit=1) for note in found["notes"] if note.startswith(("CONFIRMED", "REFUTED"))]
    assert len(said) == 6
    assert any(word == "CONFIRMED" and "FreeDave" in claim for word, claim in said)
