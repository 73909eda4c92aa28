"""selftest: it passes here; what is wrong is named, with the command that repeats it; it needs no package for tests."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from decimal import Decimal, getcontext
from pathlib import Path

import numpy as np
import pytest

import fastdistill as fd
from fastdistill import kernels, testing
from fastdistill.errors import ArgumentError, IsaError
from fastdistill.kernels import isa, isa_levels
from fastdistill.testing import cases, encoder, logits, strategies
from fastdistill.testing.choices import SeededChoices
from fastdistill.testing.compare import near, same, same_bits
from tests.command_line import Terminal
from tests.encoders import write_encoder
from tests.models.test_encoder_decoders import write as write_sourced

ROOT = Path(__file__).resolve().parent.parent
NEEDS = pytest.mark.skipif(len(isa_levels()) < 2, reason="needs a machine with two levels")


@pytest.fixture(scope="module")
def report():
    return testing.selftest(0)


def test_this_machine_is_all_right(report):
    assert report.ok and report.complete and report.levels == isa_levels() and report.level == isa()
    assert report.cases == dict.fromkeys(cases.KERNELS, 1)
    assert report.logits == 3 * 5 * len(isa_levels())
    assert report.memory > report.available > 0 and report.bandwidth > 0
    assert all(rate > 0 for rate in report.weight_rates.values())
    said = str(report)
    assert "all right on this machine" in said and f"{len(cases.KERNELS)} of {len(cases.KERNELS)} right" in said
    assert json.loads(json.dumps(report.facts()))["ok"] is True


@pytest.fixture
def broken(monkeypatch):
    """broken(kernel, level): it flips the last bit of its first result there."""

    def flip(result):
        first = result[0] if isinstance(result, tuple) else result
        first.reshape(-1).view(np.uint8)[:1] ^= 1
        return result

    def apply(kernel, level):
        right = getattr(kernels, kernel)

        @functools.wraps(right)
        def wrong(*arguments, **named):
            result = right(*arguments, **named)
            return flip(result) if isa() == level and np.size(result[0]) else result

        monkeypatch.setattr(kernels, kernel, wrong)

    return apply


@NEEDS
@pytest.mark.parametrize(
    ("kernel", "said"), [("linear", "has other bits than at scalar"), ("philox", "words[0, 0] is")]
)
def test_one_wrong_bit_at_one_level_is_named_and_its_command_repeats_it(run, broken, kernel, said):
    """Within the roundings of a product another level's bits tell; words have none."""
    level = isa_levels()[-1]
    broken(kernel, level)
    code, out, err = run("selftest", "--kernel", kernel, "--seconds", 0.2)
    assert code == 1 and err.endswith(f"error: not as it must be: {kernel} at {level}\n")
    found = re.search(rf"{kernel} at {level}, case seed (\d+), \d+ threads?: (.*)\n  repeat: fastdistill (.*)\n", out)
    assert found and said in found[2] and "0 of 1 right" in out
    again = run(*shlex.split(found[3]))
    assert again[0] == 1 and found[0] in again[1]
    other = run("selftest", "--kernel", kernel, "--level", isa_levels()[0], "--seed", found[1])
    assert other[0] == 0


def test_a_kernel_that_fails_is_named(run, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(kernels, "top_k", fails)
    code, out, _ = run("selftest", "--kernel", "top_k", "--json", "--seconds", 0)
    found = json.loads(out)
    assert code == 1 and not found["ok"] and len(found["differences"]) == len(isa_levels())
    assert found["differences"][0] == {
        "kernel": "top_k", "level": "scalar", "seed": 0, "threads": 1, "message": "RuntimeError: 'no'",
        "command": "fastdistill selftest --kernel top_k --level scalar --seed 0", "model": None,
    }  # fmt: skip


def test_other_logits_are_named(run, monkeypatch):
    monkeypatch.setitem(logits.HASHES, "q8", "0" * 64)
    code, out, _ = run("selftest", "--kernel", "logits")
    level = isa_levels()[0]
    assert code == 1 and f"logits at {level}, 1 thread: q8 weights, 1 thread, rows in forwards of 24: SHA-256" in out
    assert f"repeat: fastdistill selftest --kernel logits --level {level}\n" in out and "logits       right" not in out


def test_the_small_models_rotary_frequencies_are_the_same_on_every_machine():
    """The powers of the C library are right to some 2^-52 of their size; none is as near to where float32 turns to the next number."""
    getcontext().prec = 40
    plan = fd.load(testing.report.SMALL_MODEL).plan
    found = next(op.constants["inverse_frequencies"] for op in plan.ops if op.kind == "rotary")
    for i, frequency in enumerate(found):
        exact = Decimal(10000) ** (Decimal(-i) / len(found))
        for other in np.nextafter(frequency, np.float32([0, 9])):
            middle = (Decimal(float(frequency)) + Decimal(float(other))) / 2
            assert abs(middle - exact) > exact * Decimal(2) ** -28


def test_json_holds_one_object_with_what_a_model_takes_and_how_fast_it_is(run):
    code, out, err = run("selftest", "listops-mdlm", "--json", "--seconds", 0, "--level", isa_levels()[0])
    found = json.loads(out)
    assert code == 0 and found["ok"] and found["levels"] == [isa_levels()[0]]
    assert (
        found["model"]["forwards"] > 0 and found["model"]["bytes"] > 3_000_000 and found["session"]["cache_bytes"] > 0
    )
    assert "cases of kernels" in err or "logits" in err


@pytest.mark.parametrize("case", ["bert, labels", "modernbert, masks"])
def test_texts_of_an_encoder_are_read_alone_and_together_at_each_level(tmp_path, case, monkeypatch):
    folder = str(write_encoder(tmp_path / "model", case))
    monkeypatch.setattr("fastdistill.testing.run._MODEL_SECONDS", 0.01)
    report = testing.selftest(0, model=folder)
    assert report.ok and report.encoded == 2 + 2 * len(isa_levels())
    speed = report.model
    assert speed.tokens == 960 * speed.forwards and speed.tokens_per_second == speed.tokens / speed.seconds
    said = str(report)
    assert f"encode       right: texts of the model, read in {report.encoded} ways" in said
    assert "read 960 a forward" in said and "a forward each" not in said


def test_a_text_with_other_bits_among_others_is_named(run, tmp_path, monkeypatch):
    folder = str(write_encoder(tmp_path / "a model"))
    right, level = encoder.hidden_states, isa_levels()[-1]

    def wrong(network, texts):
        for hidden in right(network, texts):
            yield hidden + np.float32(1e-6 * (len(texts) > 1 and isa() == level))

    monkeypatch.setattr(encoder, "hidden_states", wrong)
    monkeypatch.setattr("fastdistill.testing.run._MODEL_SECONDS", 0.01)
    code, out, err = run("selftest", folder, "--seconds", 0)
    assert code == 1 and f"encode at {level}" in err and "1 check FAILED" in out and "encode       right" not in out
    assert f"encode at {level}, 2 threads: texts together: SHA-256" in out
    repeat = re.search(r"repeat: fastdistill (.*)", out)[1]
    code, out, _ = run(*shlex.split(repeat))
    assert code == 1 and f"encode at {level}" in out
    monkeypatch.setattr(encoder, "hidden_states", right)
    assert run(*shlex.split(repeat))[0] == 0


def test_a_model_with_an_encoder_is_timed_behind_a_source(tmp_path, monkeypatch):
    monkeypatch.setattr("fastdistill.testing.run._MODEL_SECONDS", 0.01)
    report = testing.selftest(0, model=str(write_sourced(tmp_path / "model", "bart")))
    assert report.ok and not report.encoded and report.model.tokens == report.model.forwards > 0


HOOK = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pytest", "hypothesis", "_pytest"):
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Refuse())
"""


def python(program: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", HOOK + program], env=environment, capture_output=True, text=True)


def test_it_runs_without_pytest_and_hypothesis_and_strategies_say_what_they_need():
    done = python(
        "from fastdistill.cli import main\n"
        "code = main(['selftest', '--kernel', 'row_statistics', '--seconds', '0'])\n"
        "try:\n    import fastdistill.testing.strategies\nexcept ImportError as error:\n    print(error)\n"
        "sys.exit(code)"
    )
    assert done.returncode == 0, done.stderr
    assert "all right" in done.stdout
    assert done.stdout.endswith("fastdistill.testing.strategies needs hypothesis: pip install 'fastdistill[test]'\n")


def test_an_interrupt_says_what_was_checked():
    terminal = Terminal("selftest", "--kernel", "philox", "--seconds", "600")
    terminal.expect("0 cases of kernels: philox")
    terminal.expect("cases of kernels: philox")
    terminal.process.send_signal(signal.SIGINT)
    said = terminal.expect("to the bit alike")
    assert "nothing wrong so far, interrupted" in said and "1 of 1 right" in said
    assert terminal.end() == 130


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"seconds": -1}, ArgumentError, "seconds must lie in"),
        ({"level": "sse9"}, IsaError, "level must be one of this machine, .*; got 'sse9'"),
        ({"kernel": "liner"}, ArgumentError, "kernel must be logits, .* more; got 'liner'; did you mean 'linear'"),
        ({"seed": 3}, ArgumentError, "seed is that of a case of one kernel"),
        ({"seed": 3, "kernel": "logits"}, ArgumentError, "seed is that of a case of one kernel"),
        ({"seed": -1, "kernel": "linear"}, ArgumentError, "seed must lie in"),
        ({"model": "listops-mdlm", "kernel": "linear"}, ArgumentError, "leave kernel out"),
        ({"progress": 3}, ArgumentError, "progress must be"),
    ],
)
def test_refuses(arguments, error, text):
    with pytest.raises(error, match=text):
        testing.selftest(**arguments)


# ---- cases and comparisons ----


@pytest.mark.parametrize("kernel", cases.KERNELS)
def test_a_seed_makes_the_same_case_each_time(kernel):
    one, other = (cases.cases_of(kernel).cases(SeededChoices(f"{kernel} 5")) for _ in range(2))
    assert [*one] == [*other] and repr(one) == repr(other)


def off_by_one(kernel):
    """The kernel, with its first number wrong."""
    if kernel == "ngram_pool":

        class Wrong(kernels.NgramPool):
            def lookup(self, *arguments):
                return super().lookup(*arguments) + np.int32(1)

        return Wrong
    right = cases.kernel_of(kernel)

    def wrong(**arguments):
        result = right(**arguments)
        first = result.potentials[0] if kernel == "sinkhorn" else result[0] if isinstance(result, tuple) else result
        if not isinstance(first, np.ndarray):
            return (first + 1, *result[1:]) if isinstance(result, tuple) else first + 1
        for place in np.ndindex(first.shape):
            first[place] = not first[place] if first.dtype == bool else first[place] + 1
            break
        return result

    return wrong


@pytest.mark.parametrize("kernel", cases.KERNELS)
def test_a_check_sees_what_is_wrong_and_nothing_else(kernel):
    file, seen = cases.cases_of(kernel), 0
    with np.errstate(all="ignore"):
        for seed in range(20):
            file.check(file.cases(SeededChoices(f"{kernel} {seed}")))
            try:
                file.check(file.cases(SeededChoices(f"{kernel} {seed}")), off_by_one(kernel))
            except AssertionError:
                seen += 1
    assert seen >= 5


def test_strategies_are_by_name_and_say_which_there_are():
    assert set(cases.KERNELS) <= set(dir(strategies)) and strategies.linear().example
    with pytest.raises(AttributeError, match="has no strategy 'lineer'; did you mean 'linear'"):
        strategies.lineer  # noqa: B018


def test_comparisons_say_where_and_by_how_much():
    want = np.arange(6.0).reshape(2, 3)
    got = want.copy()
    same("y", got, want, np.float64)
    got[1, 1:] += [1e-3, 1e-2]
    with pytest.raises(AssertionError, match=r"^y\[1, 1\] is 4\.001, the reference says 4\.0; so are 1 more of 6$"):
        same("y", got, want)
    near("y", got, want, 1e-1)
    with pytest.raises(AssertionError, match=r"^y\[1, 2\] is 5\.01, the reference says 5\.0, and may be 0\.005 apart$"):
        near("y", got, want, 5e-3)
    near("y", np.array([np.nan, np.inf, 3]), np.array([np.nan, np.inf, 4]), [0, 0, np.inf])
    with pytest.raises(AssertionError, match=r"y has shape \(3,\), expected \(2,\)"):
        near("y", np.zeros(3), np.zeros(2), 1)
    with pytest.raises(AssertionError, match=r"y has dtype float64, expected float32"):
        same("y", np.zeros(3), np.zeros(3), np.float32)
    with pytest.raises(AssertionError, match=r"y\[0\] is nan"):
        near("y", np.array([np.nan]), np.zeros(1), 1e9)


def test_bits_tell_zeros_apart_and_nans_alike():
    same_bits((np.array([np.nan]), {"a": 1}), (np.array([np.nan]), {"a": 1}), "at scalar")
    with pytest.raises(
        AssertionError, match=r"result\[0\]\[1\] has other bits than at scalar: 80000000 \(-0\.0\), not 00000000"
    ):
        same_bits([np.float32([1, -0.0])], [np.float32([1, 0])], "at scalar")
    with pytest.raises(AssertionError, match="there are 1 results, at scalar 2"):
        same_bits((1,), (1, 2), "at scalar")
