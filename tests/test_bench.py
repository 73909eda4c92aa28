"""What the benches compute from what they time, and that those with targets end in all of them."""

from __future__ import annotations

import importlib
import json
import tempfile
from itertools import pairwise

import numpy as np
import pytest

from bench import __main__ as bench
from bench.kernels import sinkhorn, top_k
from bench.lib import answers, divergences, machine, plot, spelling, writing
from bench.lib.answers import Answer, Guesses
from bench.lib.engines import PREFILL, Ours, Work
from bench.lib.limits import Cost, Limits, cost_of
from bench.lib.memory import memory_beside
from bench.lib.models import exported, random_folder
from bench.lib.peak import TILES, peak
from bench.lib.progress import Progress
from bench.lib.prompts import Prompt
from bench.lib.report import Report
from bench.lib.synthetic import Law, SyntheticSession
from bench.lib.targets import CONTEXTS, TWO_TO_ONE, Ratio, Share, Target, Value, reached, targets
from bench.lib.timing import Samples, Timer
from bench.studies import (
    diffusion,
    distilled_student,
    encode,
    encoder_decoder,
    families,
    forward,
    jacobi,
    jacobi_tables,
    speculative,
    trajectory,
    transport_pictures,
)
from bench.studies.lookup_peers import Comparison, Written, compare
from bench.studies.parallelbench_plot import ranges
from fastdistill.checkpoint import write_checkpoint
from fastdistill.decode import Autoregressive, CallableDrafter, Costs, Jacobi, Lookahead, Round, Speculative, generate
from fastdistill.kernels.boundary import lib
from fastdistill.kernels.forward.linear import FORMATS
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for
from fastdistill.runtime import Forward, from_callable
from fastdistill.runtime.read import Read
from tests.encoders import write_encoder
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


def test_multiply_adds_are_those_of_all_threads_in_the_best_tile(monkeypatch):
    asked = []

    def rate(work, parts):
        asked.append((len(parts), work(1)))
        return 10.0

    monkeypatch.setattr(machine, "rate", rate)
    blocks = machine.PEAK_SECONDS * 100 * 10
    assert machine.multiply_adds("scalar", "q8", True, 3) == 3 * blocks * 10 * 12 * 16 * 32
    assert {row for _, row in asked} == {rows * 16 * 32 for rows in TILES}
    assert {threads for threads, _ in asked} == {1, 3}


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_the_peak_loop_works_as_long_as_it_is_told(isa, format, scales):
    def seconds(repeats: int) -> float:
        return min(Timer(lambda: peak(isa)(format, scales, 4, repeats))() for _ in range(3))

    assert peak(isa)(format, scales, 4, 3) == 3 * 4 * 16 * 32
    repeats = 30 if isa == "scalar" else 3000
    assert seconds(64 * repeats) > 3 * seconds(repeats)  # far from 64: the machine is shared


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


# ---- families ----


def test_families_are_compared_and_their_heads_looked_at(folder, alone, tmp_path, monkeypatch, capsys):
    small = families.QWEN_CONFIG | dict(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=32, intermediate_size=96,
        vocab_size=700, max_position_embeddings=2 * PREFILL,
    )  # fmt: skip
    monkeypatch.setattr(families, "missing", lambda *modules: "left out")
    monkeypatch.setattr(families, "PAUSE", 0)
    monkeypatch.setattr(families, "QWEN_CONFIG", small)
    monkeypatch.setattr(families, "cached_folder", lambda name: folder)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    models = [str(folder), f"{folder}:q8", families.QWEN]
    command = ["families", "--models", ",".join(models), "--threads", "2", "--repetitions", "1", "--json", "-"]
    assert bench.main(command) == 0
    found = json.loads(capsys.readouterr().out)
    forwards, heads = (found[key] for key in found if "threads: 2" in key)
    works = [work.rows for work in families.WORKS]
    assert [(row["model"], row["rows"]) for row in forwards] == [(model, rows) for model in models for rows in works]
    assert [row["vocabulary"] for row in heads] == [300, 300, 700]
    assert all(0 < row["% of time"]["median"] < 100 and 0 < row["% of bytes"] < 100 for row in heads)
    assert heads[1]["MB"] < 0.3 * heads[0]["MB"]  # q8 beside f32
    made = tmp_path / "fastdistill-bench" / families.QWEN
    assert random_folder(made, {}, folder) == made  # once
    first = exported(made, None, tmp_path)
    assert first.stat().st_size and exported(made, None, tmp_path) == first != exported(made, "q8", tmp_path)


# ---- trajectory ----


def test_a_trajectory_is_drawn(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(trajectory, "load", lambda kind: [Prompt("owls", "To whit, to whoo.", False)])
    pytest.importorskip("matplotlib")
    picture = tmp_path / "folder made for it" / "owls.png"
    command = ["trajectory", "--model", str(folder), "--tokens", "20", "--json", "-", "--png", str(picture)]
    assert bench.main([*command, "--prompt", "owls"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["tokens"] == 20
    assert (
        found["notes"][0].count("\n") == 2 + found["rows"][0]["forwards"]
    )  # legend, header, the prompt's line, rounds
    assert picture.exists() and not found["skipped"]
    assert bench.main([*command, "--prompt", "bees"]) == 1
    assert "--prompt must be one of owls, got bees" in capsys.readouterr().err


def test_a_model_is_forced_and_its_texts_drawn(tmp_path, capsys):
    """Too little training to gain anything; what is counted and drawn is there, and texts were compared."""
    pytest.importorskip("matplotlib")
    sizes = {"steps": 2, "forcing-steps": 2, "texts": 2, "questions": 2, "prompts": 1, "block": 8}
    numbers = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    picture = tmp_path / "forced.png"
    command = ["jacobi_forcing", *numbers, "--threads", "1", "--json", "-", "--plot", str(picture)]
    assert bench.main([*command, "--ways", "local", "progressive"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["decoder"] for row in found["rows"]][:2] == ["block 4", "block 8"]
    assert all(row["before"] >= 1 and row["after"] >= 1 for row in found["rows"])
    assert {row["way"] for row in found["rows"]} == {"local", "progressive"}
    right = "right answers, of 2: 0.0% before, 0.0% after, local, 0.0% after, progressive"
    assert right in found["notes"] and picture.exists()


def test_students_of_every_arm_are_taught_judged_and_found_again(tmp_path, capsys):
    sizes = {"steps": 2, "texts": 4, "unseen": 2, "questions": 1, "tokens": 6, "seeds": 2, "target-steps": 2}
    numbers = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    command = [
        "distilled_student",
        "spelling",
        *numbers,
        "--threads",
        "1",
        "--json",
        "-",
        "--work",
        str(tmp_path / "work"),
    ]
    assert bench.main(command) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)["rows"]
    assert [row["student"] for row in rows] == [distilled_student.NONE, *distilled_student.ARMS]
    assert all(1 <= row["tokens a forward"] <= 5 and "-" in row["first guess, by seed"] for row in rows)
    assert "learns the task" in said.err
    assert bench.main(command) == 0  # of what --work holds
    again = capsys.readouterr()
    assert json.loads(again.out)["rows"] == rows and "learns the task" not in again.err


def test_words_are_spelt_out_and_answers_end():
    for prompt, answer in spelling.spellings(20, np.random.default_rng(0)):
        task, *words = (spelling.SIGNS[token] for token in prompt[1:-1])
        spelt = "".join(spelling.SIGNS[token] for token in answer[:-1]).split("_")
        assert spelt == (words if task == "copy" else words[::-1]) and answer[-1] == spelling.END
        assert len(answer) <= spelling.MOST and len(prompt) <= spelling.LONGEST_PROMPT


# ---- speculative ----

TABLE = Costs((1, 4), (0, 10), ((1.0, 4.0), (2.0, 8.0)))  # rows * (1 + context / 10)
ROUNDS = [Round(3, 3), Round(0, 0), Round(2, 0, (7, 8))]


def answer(loops=False, rounds=ROUNDS, prompt=10, seconds=(1.0,), plain=(1.0,), decoder="auto"):
    tokens = list(range(1 + sum(round.accepted + 1 for round in rounds)))
    times = {"plain": Samples.of(plain), decoder: Samples.of(seconds)}
    return Answer("", [0] * prompt, tokens, loops, {decoder: rounds}, times)


def test_rounds_cost_their_rows_over_what_is_cached_by_then():
    one = answer()
    assert one.cost(TABLE, "auto") == pytest.approx(4 * 2.0 + 1 * 2.4 + 3 * 2.5)
    assert one.plain_cost(TABLE) == pytest.approx(2.0 + 2.1 + 2.2 + 2.3 + 2.4 + 2.5)
    assert one.relative_cost(TABLE, "auto") == pytest.approx(17.9 / 13.5)


def test_a_text_without_guesses_costs_what_plain_decoding_does():
    assert answer(rounds=[Round(0, 0)] * 9).relative_cost(TABLE, "auto") == 1


def test_rounds_are_replayed_over_the_lengths_that_they_had():
    cached, asked = [], []

    def guesses(text, budget):
        cached.append(len(text) - 1)
        return [(int(text[-1]) + 1 + i + (i == len(text) % 3)) % 50 for i in range(budget)]

    class Recorder:
        def __call__(self, rows, context):
            asked.append(context)
            return np.ones(len(rows))

    counting = from_callable(lambda tokens: np.eye(50, dtype=np.float32)[(tokens + 1) % 50], 50)
    text = generate(counting, [3, 4, 5], 40, decoder=Speculative(CallableDrafter(guesses), max_draft=4))
    Answer("", [3, 4, 5], text.tokens, False, {"auto": text.rounds}, {}).cost(Recorder(), "auto")
    assert asked[: len(cached)] == cached and len(asked) == text.stats.forwards
    assert len(cached) >= len(asked) - 1  # the last token is not guessed


def test_acceptance_by_depth_counts_guesses_whose_parents_stood():
    tree = Round(7, 1, (4,))  # of seven guesses one stood, and below it there was one more
    guesses = Guesses.of([answer(), answer(rounds=[tree, Round(2, 2)])], "auto")
    assert guesses.asked[:3].tolist() == [4, 3, 1] and guesses.right[:3].tolist() == [3, 2, 1]
    assert [guesses.at(depth) for depth in (1, 2, 3, 4, 99)] == ["75%", "67%", "100%", "-", "-"]
    assert (guesses.drafted, guesses.accepted, guesses.acceptance) == (14, 6, "43%")
    assert guesses.tokens_per_forward == 11 / 5
    assert Guesses.of([], "auto").tokens_per_forward == 0 and Guesses.of([], "auto").acceptance == "-"


def test_a_speed_up_is_paired_and_its_median_leaves_looping_answers_out():
    noisy = answer(plain=(4, 20, 6), seconds=(2, 10, 2))
    assert noisy.speed_up("auto").values.tolist() == [2, 2, 3]
    assert noisy.rate("plain").values.tolist() == [6 / 4, 6 / 20, 1]
    some = [noisy, answer(plain=(3.0,)), answer(plain=(9.0,), loops=True), answer(plain=(4.0,))]
    found = answers.figures(some, some, TABLE, ["auto"])
    assert found[answers.COPY.format("auto")] == found[answers.TYPICAL] == 3
    assert found[answers.SLOWEST] == 2  # of all


def test_costs_add_up_over_prompts_and_the_dearest_is_of_all():
    cheap, dear = answer(rounds=[Round(0, 0)] * 90, prompt=0), answer(loops=True)
    found = answers.figures([], [cheap, dear], TABLE, ["auto"])
    assert found[answers.TOTAL] == 1 and found[answers.DEAREST] == pytest.approx(17.9 / 13.5)
    found = answers.figures([], [cheap, answer()], TABLE, ["auto"])
    plain = cheap.plain_cost(TABLE)
    assert found[answers.TOTAL] == pytest.approx((plain + 17.9) / (plain + 13.5))
    assert answers.COPY.format("auto") not in found and not answers.figures([], [], TABLE, ["auto"])


def test_the_bounds_of_guessing():
    bounds = {target.work: str(target) for target in answers.targets(["auto"])}
    assert bounds[answers.COPY.format("auto")] == ">= 3x plain"
    assert bounds[answers.TOTAL] == bounds[answers.DEAREST] == "<= 1.05x plain"
    assert bounds[answers.TYPICAL] == bounds[answers.SLOWEST] == ">= 0.95x plain"


def test_perfect_guesses_gain_their_rows_over_what_these_cost():
    assert answers.perfect(Costs((1, 2, 4), (0, 9), ((1, 1, 8),) * 2), 5).tolist() == [1, 2, 3 / 4.5, 0.5]


def test_prompts_are_spread_out():
    assert writing.spread_out(range(20), 4) == [0, 5, 10, 15]
    assert writing.spread_out(range(3), 9) == [0, 1, 2] and writing.spread_out([], 2) == []


def test_a_peer_is_compared_with_itself():
    into: dict[int, Comparison] = {}
    for speed in (1.0, 3.0, 2.0):
        writers = {0: lambda *_: Written([1, 2], 10.0), 7: lambda *_, speed=speed: Written([1, speed], 10 * speed)}
        compare(writers, [5], 2, 3, 0.0, into)
    assert into[7].cells() == {
        "prompts": 3,
        "tokens/s": 20.0,
        "/ its plain": 2.0,
        "least": 1.0,
        "most": 3.0,
        "text of its plain": "1 of 3",
    }


@pytest.fixture
def few(monkeypatch):
    """Two prompts of each kind, no peers, no pauses."""
    some = [Prompt("one", "the cat and the cat and the", False), Prompt("two", "one two three one two", False)]
    monkeypatch.setattr(writing, "load", lambda kind: some)
    monkeypatch.setattr(speculative, "missing", lambda *modules: "left out")
    monkeypatch.setattr(speculative, "no_llama_cpp", lambda gguf: "left out")
    monkeypatch.setattr(speculative, "PAUSE", 0)


GUESS = ["speculative", "--quick", "--threads", "1", "--json", "-"]


def test_guessing_ends_in_every_target(folder, few, capsys):
    assert bench.main([*GUESS, "--drafters", "1", "--model", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    names = list(speculative.decoders())
    assert [row["work"] for row in found["targets"]] == [target.work for target in answers.targets(names)]
    assert {row["met"] for row in found["targets"]} <= {"yes", "NO"}
    assert [row["rows"] for row in found["rows"]] == list(range(1, 33)) and found["rows"][0]["/ of 1 at 32"] == 1
    titles = [title for title in found if isinstance(found[title], list) and title not in ("notes", "skipped")]
    copies = next(found[title] for title in titles if title.startswith("copy-heavy"))
    assert [row["prompt"] for row in copies] == ["one", "two"] and {*names} <= {*copies[0]}
    assert any(title.startswith("open prompts") for title in titles)
    assert any(title.startswith("other drafters") for title in titles)
    assert sum("left out" in reason for reason in found["skipped"]) == 2


def test_an_interrupted_guessing_shows_what_was_finished(folder, few, monkeypatch, capsys):
    def interrupted(self, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(speculative.Bench, "drafters", interrupted)
    assert bench.main([*GUESS, "--drafters", "--open", "0", "--model", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    measured = {row["work"] for row in found["targets"] if row["met"] != "-"}
    assert measured == {answers.COPY.format(name) for name in speculative.decoders()}
    assert any("interrupted" in note for note in found["notes"])


def test_a_decoder_that_writes_another_text_stops_the_bench(folder, few, monkeypatch):
    written = writing.generate

    def wrong(session, ids, count, *, decoder, **options):
        text = written(session, ids, count, decoder=decoder, **options)
        if isinstance(decoder, Speculative):
            text.tokens[-1] ^= 1
        return text

    monkeypatch.setattr(writing, "generate", wrong)
    with pytest.raises(AssertionError, match="wrote another text"):
        bench.main([*GUESS, "--model", str(folder)])


# ---- jacobi ----

ITERATE = ["jacobi", "--quick", "--tokens", "16", "--threads", "1", "--json", "-"]


def synthetic(coupled, seed=0):
    session = network(threads=1).session(200, max_rows=64)
    return SyntheticSession(session, Law(coupled, session.vocab_size, seed))


def converging_texts(coupled, decoder, prompt=range(70)):
    """The same prompt is longer than a forward, so that it is read in chunks."""
    return generate(synthetic(coupled), list(prompt), 60, decoder=decoder)


@pytest.mark.parametrize("coupled", [0.0, 0.3, 1.0])
def test_a_synthetic_text_is_its_laws_whoever_writes_it(coupled):
    decoders = [
        Autoregressive(),
        Jacobi(costs=TABLE),
        Jacobi(max_blocks=2, adaptive=False),
        jacobi.sliding(8),
        Lookahead(costs=TABLE),
        Lookahead(adaptive=False),  # trees
    ]
    plain, *others = [converging_texts(coupled, decoder).tokens for decoder in decoders]
    assert others == [plain] * len(others)
    positions = np.arange(69, 69 + 60)
    before = np.array([69, *plain[:-1]], np.int32)
    assert Law(coupled, 300).after(before, positions).tolist() == plain


def test_a_synthetic_law_depends_on_the_token_where_it_is_coupled_and_nowhere_else():
    positions = np.arange(10_000)
    parts = [Law(coupled, 49152).is_coupled(positions) for coupled in (0.0, 0.3, 0.7, 1.0)]
    for part, expected in zip(parts, (0.0, 0.3, 0.7, 1.0), strict=True):
        assert abs(part.mean() - expected) <= 5 * 0.5 / 100  # five standard deviations
    assert all((some <= more).all() for some, more in pairwise(parts))
    one, other = (Law(0.3, 49152).after(np.full(10_000, token), positions) for token in (1, 2))
    assert not (one != other)[~parts[1]].any() and (one != other)[parts[1]].mean() > 0.99
    assert (Law(0.3, 49152, seed=1).after(np.full(10_000, 1), positions) != one).mean() > 0.99


def test_trajectories_converge_the_faster_the_less_is_coupled():
    rates = [
        converging_texts(q, Jacobi(recycle=False, adaptive=False)).stats.tokens_per_forward for q in (0.0, 0.5, 1.0)
    ]
    assert rates[0] > rates[1] > rates[2] >= 1
    assert rates[0] == 59 / 8  # a block of 16 that is made up gives one token, and then 16
    assert rates[2] < 1.1


def test_rows_of_a_synthetic_tree_draw_by_their_depths():
    session = synthetic(1.0)
    session.run(Forward([5, 6, 7], rows=()))
    tree = np.array([-1, 0, 0, 2], np.int32)
    read = session.run(Forward([1, 2, 1, 4], parents=tree, rows=[3, 1], read=Read(sampler=Sampler())))
    want = Law(1.0, 300).after(np.array([4, 2], np.int32), np.array([5, 4]))
    assert read.tokens.tolist() == want.tolist() and session.pending == 4


def test_rows_beyond_the_table_lie_on_the_line_through_its_last_ones():
    assert answer(rounds=[Round(7, 0)]).cost(TABLE, "auto") == 8 * 2.0


def test_recycled_guesses_and_rows_are_counted():
    guesses = Guesses.of([answer(rounds=[Round(3, 3, recycled=2), Round(1, 0, (7,))])], "auto")
    assert guesses.recycled == 2 and guesses.rows_per_forward == 3
    assert Guesses.of([], "auto").rows_per_forward == 0


def test_what_adaptive_decoders_may_lose():
    def timed(seconds, rounds):
        times = {"plain": Samples.of([1.0])} | {name: Samples.of([seconds]) for name in jacobi_tables.HELD}
        tokens = list(range(1 + sum(round.accepted + 1 for round in rounds)))
        return Answer("", [0] * 10, tokens, False, {name: rounds for name in jacobi_tables.HELD}, times)

    cheap, dear = timed(0.5, [Round(0, 0)] * 3), timed(2.0, ROUNDS)
    found = jacobi_tables.figures({"copy": [cheap], "open": [dear]}, TABLE)
    assert list(found) == [target.work for target in jacobi_tables.targets()]
    plain = 2.0 + 2.1 + 2.2
    assert list(found.values()) == [0.5, 0.5] + [pytest.approx((plain + 17.9) / (plain + 13.5))] * 2
    assert {str(target) for target in jacobi_tables.targets()} == {">= 0.95x plain", "<= 1.05x plain"}
    assert jacobi_tables.figures({"copy": [cheap], "open": []}, TABLE) == {}


def test_time_is_plains_over_speed_turn_by_turn():
    noisy = answer(plain=(4, 20, 6), seconds=(2, 10, 2))
    assert answers.median_time([noisy], "auto") == 0.5 and answers.slowest([noisy, answer()], "auto") == 1


def test_iterating_ends_in_every_target(folder, few, capsys):
    assert bench.main([*ITERATE, "--model", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["work"] for row in found["targets"]] == [target.work for target in jacobi_tables.targets()]
    assert {row["met"] for row in found["targets"]} <= {"yes", "NO"}
    titles = [title for title in found if isinstance(found[title], list) and title not in ("notes", "skipped")]

    def rows(start):
        return next(found[title] for title in titles if title.startswith(start))

    assert [(row["prompts"], row["decoder"]) for row in rows("all guesses")] == [
        (f"1 {kind}", name) for kind in ("copy", "open") for name in jacobi.fixed()
    ]
    assert [row["kind"] for row in rows("adaptive")] == ["copy", "copy", "open", "open"]
    assert {*jacobi.adaptive()} <= {*rows("adaptive")[0]}
    made = rows("a synthetic model")
    assert [(row["q"], row["decoder"]) for row in made] == [
        (q, name) for q in jacobi.COUPLED for name in jacobi.converging()
    ]
    blocks = [row["tokens a forward"] for row in made if row["decoder"] == "block 16"]
    assert blocks[0] > blocks[-1]  # the less is coupled, the faster
    marked = [row["decoder"] for row in made if row[""]]
    assert sorted(marked) == sorted(jacobi.converging())  # one q each


def test_an_interrupted_iterating_shows_what_was_finished(folder, few, monkeypatch, capsys):
    def interrupted(self, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jacobi.Bench, "synthetic", interrupted)
    assert bench.main([*ITERATE, "--model", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(row["met"] != "-" for row in found["targets"])
    assert any("interrupted" in note for note in found["notes"])
    assert not any(title.startswith(("all guesses", "a synthetic")) for title in found)


def test_a_step_of_diffusion_is_timed(monkeypatch, capsys):
    """Over a small vocabulary; the share of statistics is what it says, the product's forward left out."""
    monkeypatch.setattr(diffusion, "VOCAB", 600)
    monkeypatch.setattr(diffusion, "CALLS", 1)
    arguments = ["diffusion", "--repetitions", "2", "--width", "32", "--formats", "q8", "--threads", "1", "--json", "-"]
    assert bench.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    small, large = (rows[0] for title, rows in found.items() if title.endswith("threads: 1"))
    assert small["milliseconds"]["median"] > 0 and small["met"] in ("yes", "no")
    assert large["product"]["median"] > 0 and large["% statistics"]["median"] > 0


# ---- encoders ----


def test_encoders_are_timed_without_peers(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(encode, "missing", lambda *modules: "left out")
    monkeypatch.setattr(encode, "PAUSE", 0)
    folder = str(write_encoder(tmp_path / "model"))
    assert bench.main(["encode", "--model", folder, "--sentences", "12", "--repetitions", "1", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    many, one = (rows for title, rows in found.items() if "sentence" in title and isinstance(rows, list))
    assert [row["engine"] for row in many] == [row["engine"] for row in one] == ["f32", "q8", "q4"]
    assert many[0]["least cosine"] > 0.999 and all(row["ms"]["median"] > 0 for row in (*many, *one))
    assert any("left out" in reason for reason in found["skipped"])
    assert any("first vector" in note for note in found["notes"])


def test_an_encoder_decoder_is_timed_without_peers(monkeypatch, capsys):
    monkeypatch.setattr(encoder_decoder, "missing", lambda *modules: "left out")
    monkeypatch.setattr(encoder_decoder, "PAUSE", 0)
    monkeypatch.setattr(encoder_decoder, "NEW", 3)
    monkeypatch.setattr(
        encoder_decoder,
        "SMALL",
        encoder_decoder.SMALL | dict(vocab_size=99, d_model=32, d_kv=8, d_ff=40, num_heads=4, num_layers=1),
    )
    monkeypatch.setattr(encoder_decoder, "SOURCE", 2)
    assert bench.main(["encoder_decoder", "--repetitions", "1", "--json", "-"]) == 0
    (rows,) = (rows for title, rows in json.loads(capsys.readouterr().out).items() if title.startswith("3 tokens"))
    assert [(row["beams"], row["engine"]) for row in rows] == [
        (beams, name) for beams in (1, 4) for name in ("f32", "q8", "q4")
    ]


@pytest.mark.model
def test_texts_under_schemas_are_timed(smollm2, capsys):
    asked = ["--model", str(smollm2), "--schemas", "1", "--tokens", "12", "--repetitions", "1", "--json", "-"]
    assert bench.main(["grammar", *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    (rows,) = (rows for title, rows in found.items() if title.startswith("threads"))
    assert [row["schema"] for row in rows] == ["a person"] and rows[0]["tokens"] == 12
    assert any(note.startswith("a mask of 49152 tokens") for note in found["notes"])


# ---- sinkhorn ----


def test_transport_is_timed_in_every_case(monkeypatch, capsys):
    """Small problems, no peers."""
    small = {"SIZES": (40,), "SMALL": 20, "MANY": 50, "BATCH": 3, "SIDE": 8, "CLOUDS": (100,), "SINKD_VOCAB": 50}
    for name, size in small.items():
        monkeypatch.setattr(sinkhorn, name, size)
    monkeypatch.setattr(sinkhorn, "missing", lambda *modules: "left out")
    monkeypatch.setattr(machine, "BANDWIDTH_BYTES", 1 << 20)
    monkeypatch.setattr(machine, "PEAK_SECONDS", 1e-3)
    assert bench.main(["sinkhorn", "--repetitions", "1", "--threads", "1", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    titles = [title for title, rows in found.items() if title.endswith("threads: 1") and rows]
    assert [title.split(",")[0] for title in titles[:2]] == ["dense", "clouds apart"] and len(titles) >= 4
    (dense,) = found[titles[0]]
    assert dense["by"] == "ours" and 0 < dense["error"] < 1 and dense["of bandwidth"].endswith("%")
    points = next(rows for title, rows in found.items() if title.startswith("points"))
    assert not points or {row["met"] for row in points} == {"yes"}
    assert any("left out" in reason for reason in found["skipped"])


def test_solvers_that_disagree_stop_the_bench():
    a, plan = np.full(2, 0.5), np.full((2, 2), 0.25)
    sinkhorn.agree("itself", plan, plan, a)
    with pytest.raises(AssertionError, match="the plan of another is"):
        sinkhorn.agree("another", np.eye(2) / 2, plan, a)


@pytest.mark.parametrize("name", ["row_divergence", "row_divergence_topk"])
def test_divergences_are_checked_and_timed(monkeypatch, capsys, name):
    """Few rows, no peers, and a process of its own for memory."""
    for size, few in {"ROWS": 3, "VOCAB": 100}.items():
        monkeypatch.setattr(divergences, size, few)
    module = importlib.import_module(f"bench.kernels.{name}")
    monkeypatch.setattr(module, "missing", lambda *modules: "left out")
    monkeypatch.setattr(module, "memory_beside", lambda *arguments: 10**6)
    monkeypatch.setattr(machine, "BANDWIDTH_BYTES", 1 << 20)
    assert bench.main([name, "--kinds", "jsd", "--repetitions", "1", "--threads", "1", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in found["rows"]} == {"jsd"} and found["rows"][-1]["MB beside"] == 1
    assert any("left out" in reason for reason in found["skipped"])
    little, whole = module.memory_calls("jsd", *(["drop"] if name.endswith("topk") else []), "ours", "1")
    assert len(little().values) == 2 and len(whole().values) == 3


def test_the_memory_of_a_call_is_what_it_takes_at_its_peak():
    """The program that it runs, on a call that takes 64 MB and gives them back."""
    taken = memory_beside("tests.test_bench", 64 << 20)
    assert 60 << 20 < taken < 80 << 20  # the system counts pages in batches


def memory_calls(size):
    return (lambda: bytes(10)), (lambda: bytearray(b"x") * int(size))


def test_the_best_of_rows_are_checked_and_timed(monkeypatch, capsys):
    for size, few in {"ROWS": 3, "VOCAB": 100, "K": 5}.items():
        monkeypatch.setattr(top_k, size, few)
    monkeypatch.setattr(top_k, "missing", lambda *modules: "left out")
    monkeypatch.setattr(machine, "BANDWIDTH_BYTES", 1 << 20)
    assert bench.main(["top_k", "--repetitions", "1", "--threads", "1", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["level"] == "numpy" and found["rows"][0]["case"] == "3 x 100, k = 5"


def test_the_pictures_of_transport_are_drawn(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for name, size in {"WIDTH": 12, "HEIGHT": 8, "GRID": 20, "MOST_ITERATIONS": 20}.items():
        monkeypatch.setattr(transport_pictures, name, size)
    assert bench.main(["transport_pictures", "--folder", str(tmp_path), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    drawn = {row["file"] for row in found["rows"]}
    assert {file.name for file in tmp_path.iterdir()} == drawn != set()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["forward", "--plot", "a.jpg"], "a picture is a .png file, got a.jpg"),
        (["forward", "--plot", "/dev/null/a.png"], "/dev/null cannot be made"),
        (["transport_pictures", "--folder", "/dev/null/a"], "/dev/null/a cannot be made"),
        (["trajectory", "--png", "a.png"], "a.png cannot be drawn: matplotlib"),
        (["parallelbench", "--plot", "a.png"], "a.png cannot be drawn: matplotlib"),
    ],
    ids=str,
)
def test_a_picture_that_cannot_be_drawn_is_said_before_anything_runs(monkeypatch, capsys, command, text):
    if "matplotlib" in text:
        monkeypatch.setattr(plot, "missing", lambda module: f"{module} is not installed")
    else:
        monkeypatch.setattr(plot, "missing", lambda module: None)
    with pytest.raises(SystemExit) as end:
        bench.main(command)
    assert end.value.code == 2 and text in capsys.readouterr().err


def test_numbers_of_points_are_joined():
    assert ranges([1, 2, 3, 5, 7, 8]) == "1-3, 5, 7-8" and ranges([4]) == "4"


def test_benches_are_listed_in_columns(capsys):
    assert bench.main([]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    known = bench.benches()
    begins = {line.index(about, 2 + len(name)) for line, (name, (_, about)) in zip(lines, known.items(), strict=True)}
    assert len(begins) == 1
