"""What the benches compute from what they time, and that `python -m bench forward` ends in all of its targets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import __main__ as bench
from bench import forward, machine
from bench.engines import PREFILL, Ours, Work
from bench.limits import Cost, Limits, cost_of
from bench.progress import Progress
from bench.report import Report
from bench.targets import CONTEXTS, TWO_TO_ONE, Ratio, Share, Target, Value, reached, targets
from bench.timing import Samples, Timer
from fastdistill.checkpoint import write_checkpoint
from fastdistill.kernels.boundary import lib
from fastdistill.kernels.linear import FORMATS
from fastdistill.models import plan_for
from tests.small_models import config, network, tensors
from tests.text.tokenizers_made_here import KINDS, write_folder

ONE, FOUR = ("ours", Work(128, 1)), ("ours", Work(128, 4))


def test_a_ratio_is_taken_turn_by_turn():
    seconds = {FOUR: Samples.of([2, 4, 9]), ONE: Samples.of([1, 2, 3])}
    figure = reached(Target("", Ratio(FOUR, ONE), "<=", 2.0, "x"), seconds, {}, {})
    assert figure.values.tolist() == [2, 2, 3]


def test_a_share_is_the_limit_over_the_time():
    figure = reached(Target("", Share(ONE), ">=", 75, "%"), {ONE: Samples.of([2, 4])}, {ONE: 1.0}, {})
    assert figure.values.tolist() == [50, 25]


def test_what_was_not_measured_has_no_figure():
    for figure in (Ratio(FOUR, ONE), Share(ONE), Value("start")):
        assert reached(Target("", figure, ">=", 1, ""), {FOUR: Samples.of([1])}, {}, {}) is None


@pytest.mark.parametrize(
    ("sign", "met"), [(">=", {1.9: False, 2.0: True, 2.1: True}), ("<=", {1.9: True, 2.0: True, 2.1: False})]
)
def test_a_target_is_met_from_its_bound_on(sign, met):
    target = Target("", Value("start"), sign, 2.0, "")
    assert {figure: target.met(figure) for figure in met} == met


def test_every_target_but_those_beside_the_forwards_holds_at_both_contexts():
    table = [target for target in targets("avx512") if target.work != TWO_TO_ONE]
    pairs = [[str(t) for t in table if t.runs[0] and t.runs[0][1].cached in near] for near in ((0, 128), (2048,))]
    assert pairs[0] == pairs[1] and len(pairs[0]) > 10
    assert {t.runs[0][0] for t in table if t.work.startswith("avx2")} == {"stored avx2"}
    assert len({(t.work, str(t)) for t in table}) == len(table)


def test_a_forward_reads_weights_once_and_each_cached_token():
    cost = Cost(weight_bytes=1000, token_bytes=10, row={"q4": 5}, read_row={"q8": 7})
    assert cost.bytes(Work(128, 8)) == 1000 + 136 * 10
    assert cost.multiply_adds(Work(128, 8)) == {"q4": 40, "q8": 56}
    assert cost.multiply_adds(Work(0, PREFILL)) == {"q4": 5 * PREFILL, "q8": 7}
    limits = Limits(1, 100.0, {("scalar", "q4", True): 10.0, ("scalar", "q8", True): 28.0})
    assert limits.reading(cost, Work(128, 8)) == 23.6
    assert limits.computing(cost, Work(128, 8), "scalar", scales=True) == 4 + 2


@pytest.mark.parametrize("name", ["plain", "odd"])  # the head a matrix of its own, and tied to the embedding
def test_an_embedding_that_is_only_looked_up_is_not_read(name):
    net = network(name, "q4")
    cost, shape = cost_of(net), net.plan.weights["model.embed_tokens.weight"].shape
    packed = lib.fd_packed_bytes(FORMATS["q4"], *shape)
    assert net.weights.nbytes - cost.weight_bytes == (packed if name == "plain" else 0)
    assert cost.read_row == {"q4": shape[0] * shape[1]}


def test_limits_keep_the_better_figure_and_floats_have_one(monkeypatch):
    found = {
        "bandwidth": [3.0, 2.0],
        ("q4", True): [5.0, 4.0],
        ("q4", False): [9.0, 8.0],
        ("f32", True): [7.0, 6.0],
        ("f32", False): [5.0, 8.0],
    }
    monkeypatch.setattr(machine, "bandwidth", lambda threads: found["bandwidth"].pop(0))
    monkeypatch.setattr(machine, "multiply_adds", lambda level, format, scales, threads: found[format, scales].pop(0))
    limits = Limits(1)
    for bandwidth, f32 in ((3.0, 7.0), (3.0, 8.0)):
        limits.measure({("scalar", "q4"), ("scalar", "f32")})
        assert limits.bandwidth == bandwidth
        rates = {key[1:]: rate for key, rate in limits.rates.items()}
        assert rates == {("q4", True): 5.0, ("q4", False): 9.0, ("f32", True): f32, ("f32", False): f32}


def test_multiply_adds_are_those_of_all_threads_in_the_best_tile_and_the_level_stays(isa, monkeypatch):
    asked = []

    def rate(work, parts):
        asked.append((len(parts), work(1), machine.isa()))
        return 10.0

    monkeypatch.setattr(machine, "rate", rate)
    blocks = machine.PEAK_SECONDS * 100 * 10
    assert machine.multiply_adds("scalar", "q8", True, 3) == 3 * blocks * 10 * 12 * 16 * 32
    assert {row for _, row, _ in asked} == {rows * 16 * 32 for rows in machine.PEAK_TILES}
    assert {threads for threads, *_ in asked} == {1, 3} and {level for *_, level in asked} == {"scalar"}
    assert machine.isa() == isa


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_the_peak_loop_works_as_long_as_it_is_told(isa, format, scales):
    def seconds(repeats: int) -> float:
        return min(Timer(lambda: lib.fd_peak(FORMATS[format], scales, 4, repeats))() for _ in range(3))

    assert lib.fd_peak(FORMATS[format], scales, 4, 3) == 3 * 4 * 16 * 32
    repeats = 30 if isa == "scalar" else 3000
    assert seconds(8 * repeats) > 3 * seconds(repeats)


def test_an_engine_holds_what_it_is_asked_to():
    ids = np.random.default_rng(0).integers(300, size=200).tolist()
    engine = Ours(network().session(200, max_rows=PREFILL), machine.isa(), ids)
    rows = {work: engine.forward(work).tolist() for work in (Work(64, 32), Work(16, 4), Work(64, 8), Work(100, 1))}
    assert rows[Work(64, 8)] == rows[Work(64, 32)][:8]
    whole = network().session(200).forward(ids[:101]).statistics.argmax.tolist()
    assert [whole[16:20], whole[64:96], whole[100:]] == [rows[Work(16, 4)], rows[Work(64, 32)], rows[Work(100, 1)]]


class Host(machine.Watch):
    """Takes away these parts of the time, one after the other."""

    takes: list[float]

    def __exit__(self, *_: object) -> None:
        self.found["stolen"] = self.takes.pop(0)


@pytest.mark.parametrize(("takes", "kept"), [([0.0], 1), ([0.3, 0.0], 2), ([0.1, 0.3], 1)])
def test_a_group_is_repeated_once_where_the_host_took_time_and_the_quieter_turns_count(monkeypatch, takes, kept):
    monkeypatch.setattr(forward, "Watch", Host)
    monkeypatch.setattr(forward, "PAUSE", 0)
    Host.takes, calls, report = takes.copy(), [], Report("")
    options = forward.Namespace(quick=True)
    one = forward.Bench(options, report, 1, Progress())

    def turn() -> float:
        calls.append(1)
        return 1.0 if len(calls) <= forward.QUICK + 1 else 2.0

    assert one.quietly("decode", {"ours": turn})["ours"] == [kept] * forward.QUICK
    assert not Host.takes and bool(report.notes) == (len(takes) > 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with positions for a prefill."""
    settings = config("plain", max_position_embeddings=2 * PREFILL)
    text = write_folder(tmp_path_factory.mktemp("text"), KINDS["byte_level"])
    folder = tmp_path_factory.mktemp("models") / "tiny"
    files = {file.name: file.read_bytes() for file in text.iterdir()}
    write_checkpoint(folder, settings.raw, tensors(plan_for(settings)).values(), files)
    return folder


@pytest.fixture
def alone(monkeypatch):
    """No peers, no pauses."""
    monkeypatch.setattr(forward, "missing", lambda *modules: "left out")
    monkeypatch.setattr(forward, "no_llama_cpp", lambda gguf: "left out")
    monkeypatch.setattr(forward, "PAUSE", 0)
    monkeypatch.setattr(machine, "BANDWIDTH_BYTES", 1 << 20)
    monkeypatch.setattr(machine, "PEAK_SECONDS", 1e-3)


COMMAND = ["forward", "--quick", "--formats", "stored", "--threads", "2", "--json", "-"]


def test_the_bench_ends_in_every_target(folder, alone, capsys):
    assert bench.main([*COMMAND, "--model", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["targets, 2 threads"]
    level = machine.isa()
    assert [(row["work"], row["target"]) for row in rows] == [(t.work, str(t)) for t in targets(level)]
    measured = {row["work"] for row in rows if row["met"] != "-"}
    for row, target in zip(rows, targets(level), strict=True):
        reached = row["reached"]
        figure = reached["median"] if isinstance(reached, dict) else reached
        assert row["met"].split()[0] == ("-" if reached == "not measured" else "yes" if target.met(figure) else "NO")
    assert {f"decode, {CONTEXTS[0]} cached", "start to first token, 16-token prompt"} <= measured
    assert f"f32 {level}" in {row["kernel"] for row in found["rows"]}
    assert any("left out" in reason for reason in found["skipped"])


def test_an_interrupt_leaves_what_was_finished(folder, alone, monkeypatch, capsys):
    def interrupted(self) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(forward.Bench, "scaling", interrupted)  # comes after the first group
    assert bench.main([*COMMAND, "--model", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["rows"] for row in found["rows"]} == {PREFILL}
    assert any("interrupted" in note for note in found["notes"])
