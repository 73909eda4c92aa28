"""The decoder that weighs its drafts: the text never changes, the best part is taken, and the loss is bounded."""

from __future__ import annotations

import itertools
import json
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.decode import (
    Auto,
    Autoregressive,
    CallableDrafter,
    Costs,
    Draft,
    Jacobi,
    LayerSkip,
    Lookahead,
    PromptLookup,
    Request,
    generate,
    measure_costs,
)
from fastdistill.decode.costs import UNKNOWN, fastest_threads, kept_costs, thread_counts
from fastdistill.decode.drafters.draft import NO_GUESSES, chain
from fastdistill.decode.drafters.prompt_lookup import PRIORS
from fastdistill.decode.pace import FADING, MEMORY, NOTHING_KNOWN, Pace
from fastdistill.decode.text import Text
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime import from_callable
from tests.strategies import Setting, settings_of_models, token_lists
from tests.test_files import hostile_contents
from tests.texts import written

FLAT = Costs((1, 16), (0, 100), ((1.0, 1.0), (1.0, 1.0)))  # every forward costs the same
STEEP = Costs((1, 16), (0, 100), ((1.0, 16.0), (1.0, 16.0)))  # rows cost what forwards cost
REAL = Costs((1, 4, 8, 16), (0, 1000), ((4.3, 6.1, 10.2, 19.8), (5.3, 7.4, 13.0, 25.0)))

some_costs = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).map(
    lambda steps: Costs((1, 2, 8, 16), (0, 50), 2 * (tuple(np.cumsum([1.0, *steps]).tolist()),))
)


checked_guesses = st.lists(st.tuples(st.integers(-1, 2), st.sampled_from([1, -1, 0])), min_size=1, max_size=4)


@given(st.lists(checked_guesses | st.none(), max_size=30))
def test_what_was_right_fades_by_the_round_and_by_the_kind(rounds):
    """A kind that was asked keeps MEMORY of what it was, one that was not FADING; None: a round in which nobody was asked."""
    priors = ((1.0, 3.0), (4.0, 1.0), (2.0, 2.0))
    pace, known = Pace(FLAT, priors), {kind: [*prior] for kind, prior in enumerate(priors)} | {-1: [*NOTHING_KNOWN]}
    first = {kind: (*counts,) for kind, counts in known.items()}
    for guesses in rounds:
        if guesses is None:
            pace._resting = 1
            assert pace.rests(0)
        else:
            kinds = np.array([kind for kind, _ in guesses], np.int32)
            pace.invested = len(guesses)
            assert len(pace.choose(chain(np.zeros(len(guesses), np.int32), kinds), 0)) == len(guesses)
            pace.learn(np.array([verdict for _, verdict in guesses], np.int8))
        for kind, counts in known.items():
            verdicts = [verdict for of, verdict in guesses or () if of == kind and verdict]
            left = MEMORY if verdicts else FADING
            for which, sign in enumerate((1, -1)):
                counts[which] = first[kind][which] + left * (counts[which] - first[kind][which]) + verdicts.count(sign)
    pace.choose(NO_GUESSES, 0)  # what was rested is accounted for with the next draft
    for kind, (right, wrong) in known.items():
        assert pace.chances([kind], [-1])[0] == pytest.approx(right / (right + wrong))


@settings(max_examples=25)
@given(
    setting=settings_of_models, prompt=token_lists(1, 30), count=st.integers(1, 40), costs=some_costs,
    temperature=st.sampled_from([0.0, 1.0]), width=st.sampled_from([1, 3]), bias=st.sampled_from([0.0, 5.0]),
)  # fmt: skip
def test_the_text_is_that_of_plain_decoding(isa, setting, prompt, count, costs, temperature, width, bias):
    sampler = Sampler(temperature=temperature, seed=9, logit_bias={token: bias for token in range(4)})
    decoder = Auto(costs, PromptLookup(min_match=1, continuations=width))
    plain = generate(setting.session(), prompt, count, sampler)
    assert generate(setting.session(), prompt, count, sampler, decoder=decoder).tokens == plain.tokens


def counting(vocab=50):
    def function(tokens):
        logits = np.zeros((len(tokens), vocab), np.float32)
        logits[np.arange(len(tokens)), (tokens + 1) % vocab] = 3.0
        return logits

    return from_callable(function, vocab)


def spent(result, costs, prompt_length):
    """What the forwards after the prompt cost, and what plain decoding's would have."""
    ours, context = 0.0, prompt_length
    for round in result.rounds:
        ours += costs(round.drafted + 1, context)
        context += round.accepted + 1
    return ours, sum(
        costs.by_rows(context)[0] for context in range(prompt_length, prompt_length + len(result.tokens) - 1)
    )


@settings(max_examples=40)
@given(costs=some_costs, seed=st.integers(0, 2**32), right=st.floats(0.0, 1.0), count=st.integers(2, 300))
def test_a_text_never_costs_more_than_the_credit_and_the_share(costs, seed, right, count):
    """Whatever the guesses: those of a drafter that is right as often as it likes, and says nothing about it."""
    random = np.random.default_rng(seed)

    def function(text, budget):
        wrong = random.random(budget) >= right
        return [(int(text[-1]) + 1 + i + int(wrong[i])) % 50 for i in range(budget)]

    result = generate(counting(), [7], count, decoder=Auto(costs, CallableDrafter(function)))
    ours, plain = spent(result, costs, 1)
    assert ours <= (1 + Pace.share) * plain + Pace.credit * costs(1, 0) + 1e-9


def right_guesses(text, budget):
    return [(int(text[-1]) + 1 + i) % 50 for i in range(budget)]


def test_guesses_are_made_where_they_pay_and_not_elsewhere():
    free = generate(counting(), [7], 200, decoder=Auto(FLAT, CallableDrafter(right_guesses)))
    assert free.stats.tokens_per_forward > 12  # all 15 as soon as they are trusted
    dear = generate(counting(), [7], 200, decoder=Auto(STEEP, CallableDrafter(right_guesses)))
    assert dear.stats.drafted == 0
    real = generate(counting(), [7], 200, decoder=Auto(REAL, CallableDrafter(right_guesses)))
    ours, plain = spent(real, REAL, 1)
    assert plain / ours > 2.5


def test_wrong_guesses_are_given_up_and_right_ones_taken_up_again():
    """A text that copies at its end alone."""

    def function(text, budget):
        guesses = right_guesses(text, budget)
        return guesses if len(text) > 200 else [(token + 3) % 50 for token in guesses]

    result = generate(counting(), [7], 400, decoder=Auto(REAL, CallableDrafter(function)))
    ends = np.cumsum([round.accepted + 1 for round in result.rounds])
    early = sum(round.drafted for round, end in zip(result.rounds, ends, strict=True) if end < 150)
    late = [round.accepted for round, end in zip(result.rounds, ends, strict=True) if end > 300]
    assert early < 30 and np.mean(late) > 4


@settings(max_examples=60)
@given(data=st.data(), size=st.integers(1, 7), costs=some_costs)
def test_the_part_that_is_chosen_is_the_best_of_all_parts(data, size, costs):
    parents = [data.draw(st.integers(-1, row - 1)) for row in range(size)]
    kinds = np.array([data.draw(st.sampled_from([0, 1, 3, 5, -1])) for _ in range(size)], np.int32)
    draft, pace = Draft(list(range(size)), parents, kinds=kinds), Pace(costs, PRIORS)
    pace._plain = 1e6  # rich: nothing is forbidden
    chances = pace.chances(kinds.tolist(), parents)

    def worth(part):
        return (1 + sum(chances[row] for row in part)) / costs(len(part) + 1, 0)

    parts = [part for n in range(size + 1) for part in combinations(range(size), n)]
    closed = [part for part in parts if all(parents[row] < 0 or parents[row] in part for row in part)]
    chosen = tuple(pace.choose(draft, 0).tolist())
    assert chosen in closed
    assert worth(chosen) == pytest.approx(max(map(worth, closed)))


# ---- costs ----


def test_costs_are_linear_between_what_was_measured():
    by_rows = REAL.by_rows(0)
    assert len(by_rows) == 16 and by_rows[[0, 3, 7, 15]] == pytest.approx([4.3, 6.1, 10.2, 19.8])
    assert by_rows[5] == pytest.approx((6.1 + 10.2) / 2) == REAL(6, 0)
    assert REAL(18, 0) == pytest.approx(19.8 + 2 * (19.8 - 10.2) / 8)  # beyond, as between the last two
    assert Costs((1,), (0, 1), ((2.0,), (2.0,)))(3, 0) == pytest.approx(6.0)
    assert REAL.by_rows(2000)[7] == pytest.approx(10.2 + 2 * 2.8)
    noisy = Costs((1, 2, 4), (0, 10), ((2.0, 1.5, 3.0), (1.0, 1.0, 4.0)))
    assert (np.diff(noisy.by_rows(0)) >= 0).all() and (noisy.by_rows(10) >= noisy.by_rows(0)).all()


@pytest.mark.parametrize(
    "arguments",
    [
        ((), (0, 1), ((), ())), ((2,), (0, 1), ((1.0,), (1.0,))), ((1, 1), (0, 1), ((1.0, 1.0), (1.0, 1.0))),
        ((1,), (1, 1), ((1.0,), (1.0,))), ((1,), (0, 1), ((1.0,), (0.0,))), ((1,), (0, 1), ((1.0,), (float("nan"),))),
        ((1, 2), (0, 1), ((1.0,), (1.0,))),
    ],
)  # fmt: skip
def test_costs_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ArgumentError, match="costs must be"):
        Costs(*arguments)


def test_costs_are_measured_once_and_kept(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return REAL

    file = tmp_path / "deep" / "costs.json"
    assert kept_costs(file, measure) == kept_costs(file, measure) == REAL and len(calls) == 1
    for broken in ("", "{}", "[1]", '{"rows": [1], "contexts": [0, 1], "seconds": [[-1], [1]]}'):
        file.write_text(broken)
        assert kept_costs(file, measure) == REAL
    assert len(calls) == 5 and [path.name for path in file.parent.iterdir()] == ["costs.json"]
    (tmp_path / "file").write_text("")
    assert kept_costs(tmp_path / "file" / "costs.json", measure) == REAL  # cannot be written: measured, no error
    assert kept_costs(None, measure) == REAL


HOSTILE_COSTS = [
    {"rows": [1, 1 << 40], "contexts": [0, 1], "seconds": [[1, 2], [1, 2]]},
    {"rows": [1, 2], "contexts": [0, 1 << 70], "seconds": [[1, 2], [1, 2]]},
    {"rows": [1, 2], "contexts": [0, 1], "seconds": [[1, 1e308], [1, 2]]},
    {"rows": [1, 2], "contexts": [0, 1], "seconds": [[1, 10**400], [1, 2]]},
    {"rows": ["1", "2"], "contexts": [0, 1], "seconds": [[1, 2], [1, 2]]},
    {"rows": [1, 2], "contexts": [0, 1], "seconds": [["1", 2], [1, 2]]},
    {"rows": [1, 2], "contexts": [0, 1], "seconds": [[1], [1, 2]]},
    {"rows": 7, "contexts": "01", "seconds": {"a": 1}},
]


@pytest.mark.parametrize("content", [*hostile_contents(), *HOSTILE_COSTS], ids=lambda content: str(content)[:40])
def test_a_file_of_costs_that_are_none_is_as_none(tmp_path, content):
    file = tmp_path / "costs.json"
    if isinstance(content, dict):
        file.write_text(json.dumps(content))
    else:
        hostile_contents()[content](file)
    calls = []
    for _ in range(2):
        assert kept_costs(file, lambda: calls.append(1) or REAL) == REAL
    assert len(calls) == 1 and file.is_file()  # and what is measured then takes its place


@pytest.mark.parametrize("most_positions", [1, 2, 20, 300])
def test_costs_of_a_session_are_measured_whatever_its_size(most_positions):
    costs = measure_costs(
        lambda capacity, max_rows: Setting("plain", "q8").session(capacity, max_rows=max_rows), most_positions
    )
    assert costs.contexts[1] + costs.rows[-1] <= max(most_positions, 2) and (costs.by_rows(10) > 0).all()


@pytest.mark.parametrize("make", [lambda: Auto(3), lambda: Auto(REAL, PromptLookup), lambda: Auto(REAL, max_draft=0)])
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(ArgumentError):
        make()


def test_chances_are_those_of_a_beta_law():
    """Two guesses in a row are right with the mean of p^2, by integration; a guess of another class begins anew."""
    pace = Pace(FLAT, PRIORS)
    right, wrong = PRIORS[2]
    p = (np.arange(200000) + 0.5) / 200000
    density = p ** (right - 1) * (1 - p) ** (wrong - 1)
    mean, square = ((p**n * density).sum() / density.sum() for n in (1, 2))
    classes, parents = [2, 2, 0, 0], [-1, 0, 1, -1]
    other = PRIORS[0][0] / sum(PRIORS[0])
    np.testing.assert_allclose(pace.chances(classes, parents), [mean, square, square * other, other], rtol=1e-4)
    assert len(pace.choose(Draft([5], kinds=np.array([2], np.int32)), 0)) == 1
    pace.learn(np.array([1], np.int8))
    now = pace.chances(classes, parents)
    np.testing.assert_allclose(now[0], (right + 1) / (right + wrong + 1))
    np.testing.assert_allclose(now[3], other)  # it was not asked


def test_a_text_among_others_pays_for_its_part_of_shared_rows():
    """Where a forward of several texts costs what its rows cost, a guess of one text is as dear as a token of another."""
    draft = Draft(list(range(7)), kinds=np.full(7, 5, np.int32))
    assert len(Pace(REAL, PRIORS).choose(draft, 0)) == 7
    among = Pace(REAL, PRIORS)
    among.shared_by(16)
    assert len(among.choose(draft, 0)) <= 1
    among.shared_by(1)  # the others have ended
    assert len(among.choose(draft, 0)) == 7


def shared(decoder, counts, prompt=(7,)):
    """Texts of these lengths in the same passes; a model whose likeliest token is always the same one."""
    session = [Setting("plain", "q8").session(256) for _ in counts]
    sampler = Sampler(logit_bias={5: np.float32(1e4)})
    requests = [Request(np.array(prompt, np.int32), 0, sampler, max_tokens=count) for count in counts]
    return written([partial(Text, *pair, decoder, None) for pair in zip(session, requests, strict=True)], len(counts))


STEPS = Costs((1, 3, 4, 32), (0, 100), 2 * ((1.0, 1.01, 30.0, 300.0),))  # three rows cost what one does


@pytest.mark.parametrize(
    "decoder",
    [
        Auto(STEPS, CallableDrafter(lambda text, budget: [5] * min(budget, 2))),
        Jacobi(2, "copy", costs=STEPS),
        Lookahead(1, 3, 2, costs=STEPS),
    ],
)
def test_texts_that_have_ended_share_no_cost(decoder):
    """Among three no guess pays; the last one guesses as soon as it is alone."""
    *short, long = shared(decoder, (30, 30, 200))
    assert all(result.tokens == [5] * len(result.tokens) for result in (*short, long))
    assert all(result.stats.drafted == 0 for result in short)
    drafted = [round.drafted for round in long.rounds]
    assert sum(drafted[:29]) == 0 and sum(drafted[29:]) > 20
    alone = shared(decoder, (170,))[0]
    assert sum(drafted[29:]) > 0.5 * alone.stats.drafted


def test_a_text_is_told_how_many_share_each_forward():
    told = []

    class Listening:
        def start(self, session, request):
            run = Autoregressive().start(session, request)
            run.together, forward = 0, run.forward
            run.forward = lambda: told.append((request.max_tokens, run.together)) or forward()
            return run

    shared(Listening(), (1, 3, 2))
    assert told == [(1, 3), (3, 3), (2, 3), (3, 2), (2, 2), (3, 1)]


# ---- machines whose speed changes, and those that are fastest on some of their cores ----


class Machine:
    """A clock, and sessions whose forwards take what costs say, times how slow the machine is just then."""

    def __init__(self, monkeypatch, slowness=lambda now: 1.0, busy=1.0):
        self.now, self.slowness, self.busy = 0.0, slowness, busy
        monkeypatch.setattr("time.perf_counter", lambda: self.now)
        monkeypatch.setattr("time.process_time", lambda: self.now * self.busy)

    def session(self, costs):
        machine, made = self, counting()

        class Timed(type(made)):
            def run(self, asked):
                machine.now += machine.slowness(machine.now) * float(costs([len(asked.tokens)], self.length)[0])
                return super().run(asked)

        made.__class__ = Timed
        return made


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "slowness",
    [lambda now: 3.0 if now > 400 else 1.0, lambda now: 2.0 + np.sin(now / 150), lambda now: 3.0 if now < 400 else 1.0],
)
def test_a_machine_that_grows_slow_or_fast_meanwhile_loses_nothing_by_guessing(monkeypatch, right, slowness):
    """A hot board's clock falls to a third and comes back: all forwards cost more, and what guesses are worth is as it was."""
    random = np.random.default_rng(3)

    def function(text, budget):
        wrong = random.random(budget) >= right
        return [(int(text[-1]) + 1 + i + int(wrong[i])) % 50 for i in range(budget)]

    def seconds(decoder, slowness):
        machine = Machine(monkeypatch, slowness)
        request = Request(np.array([7], np.int32), 0, Sampler(), max_tokens=400, measured_costs=lambda: REAL)
        result = written([partial(Text, machine.session(REAL), request, decoder, None)], 1)[0]
        assert result.tokens == [(8 + i) % 50 for i in range(400)]
        return machine.now

    auto = Auto(drafter=CallableDrafter(function))
    steady = seconds(Autoregressive(), lambda now: 1.0) / seconds(auto, lambda now: 1.0)
    # Plain decoding of the same text at the speeds that the machine had, whoever asked.
    gain = seconds(Autoregressive(), slowness) / seconds(auto, slowness)
    assert gain > (0.75 * steady if steady > 1.2 else 0.98), (gain, steady)


# What forwards of 1, 4 and 16 rows take on 1 to 4 threads of a board whose memory two cores keep busy.
BOARD = {1: (40, 80, 290), 2: (26, 44, 150), 3: (27, 36, 104), 4: (29, 38, 82)}


def board_sessions(machine, times):
    return {
        n: lambda capacity, rows, some=some: machine.session(Costs((1, 4, 16), (0, 1), (some, some)))
        for n, some in times.items()
    }


def test_few_rows_run_on_as_many_threads_as_are_fastest(monkeypatch):
    machine = Machine(monkeypatch, busy=4.0)
    assert fastest_threads(board_sessions(machine, BOARD)) == ((1, 2), (4, 3))
    assert fastest_threads(board_sessions(machine, {n: BOARD[n] for n in (1, 2)})) == ()  # all are fastest: no line
    near = {n: (40 / n, 80 / n, 290 / n) for n in (1, 2, 3)} | {4: (13.4, 26.8, 96.8)}
    assert fastest_threads(board_sessions(machine, near)) == ()  # a percent is noise
    assert thread_counts(4) == [1, 2, 3, 4] and thread_counts(12) == [1, 2, 3, 6, 12] and thread_counts(1) == [1]


@pytest.mark.parametrize("busy", [1.5, 3.0])
def test_where_others_use_the_cores_no_number_of_threads_is_learnt(monkeypatch, busy):
    assert fastest_threads(board_sessions(Machine(monkeypatch, busy=busy), BOARD)) == ()


def test_threads_of_costs_are_kept_and_checked(tmp_path):
    costs = Costs(REAL.rows, REAL.contexts, REAL.seconds, ((1, 2), (4, 3)))
    assert kept_costs(tmp_path / "costs.json", lambda: costs) == kept_costs(tmp_path / "costs.json", None) == costs
    assert str(costs).splitlines()[-2:] == ["up to 1 row on 2 threads", "up to 4 rows on 3 threads"]
    for wrong in (((4, 3), (1, 2)), ((1, 0),), ((1, 2, 3),), ((1, 2), (1, 3)), (1, 2), "no"):
        with pytest.raises(ArgumentError, match="threads must be"):
            Costs(REAL.rows, REAL.contexts, REAL.seconds, wrong)


# ---- a clock that says nothing ----


@pytest.mark.parametrize(
    "clock", [lambda: 12.5, itertools.count(0, -1).__next__, lambda: float("nan"), lambda: float("inf")]
)
@pytest.mark.parametrize("decoder", [Auto(), Jacobi(4), Lookahead(3, 3, 3)])
def test_a_clock_that_stands_still_changes_no_text(monkeypatch, tmp_path, clock, decoder):
    """Costs that nobody could measure are those of a model that nobody has timed, and are not kept."""
    setting = Setting("plain", "q8")
    plain = generate(setting.session(), [1, 2, 1, 2], 30)
    monkeypatch.setattr("time.perf_counter", clock)
    costs = kept_costs(tmp_path / "costs.json", lambda: measure_costs(setting_sessions(setting), 64))
    assert costs is UNKNOWN and not list(tmp_path.iterdir())
    session = setting.session()
    request = Request(np.array([1, 2, 1, 2], np.int32), 0, Sampler(), max_tokens=30, measured_costs=lambda: costs)
    result = written([partial(Text, session, request, decoder, None)], 1)[0]
    assert (result.tokens, result.error) == (plain.tokens, None)
    assert result.stats.tokens_per_second >= 0


@pytest.mark.parametrize("took", [0.0, -1.0, float("nan"), float("inf")])
def test_rounds_that_took_no_time_say_nothing_of_costs(took):
    pace = Pace(REAL, PRIORS, live=True)
    pace._seconds = [1.0, 1.0]
    for guesses in (0, 1) * 9:
        pace.timed(guesses, took)
    assert pace.seconds(np.array([0, 3]), 0) == Pace(REAL, PRIORS).seconds(np.array([0, 3]), 0)


def test_costs_of_the_first_guesses_are_those_of_any():
    """Looked up once where they lie near each other, and again where the context has grown, more guesses come or more texts share."""
    pace = Pace(REAL, PRIORS, live=True)
    pace._extra = 0.25
    for together, guesses, context in ((1, 3, 0), (1, 12, 0), (1, 12, 64), (1, 2, 704), (3, 2, 704), (3, 20, 0)):
        pace.shared_by(together)
        for _ in range(2):
            found = pace.first_seconds(guesses, context)
            assert found == pace.seconds(np.arange(guesses + 1), context)
    assert pace.first_seconds(1, 31) == pace.seconds(np.arange(2), 0)


def setting_sessions(setting):
    return lambda capacity, max_rows: setting.session(capacity, max_rows=max_rows)


def test_guesses_that_cannot_be_left_out_are_refused():
    with pytest.raises(UnsupportedError, match="not Auto"):
        generate(Setting("plain", "q8").session(), [1, 2], 9, decoder=Auto(REAL, LayerSkip(1)))


def test_a_drafter_is_told_of_its_guesses_by_its_own_numbers():
    heard = []

    class Counting:
        """Guesses a wrong token beside each right one, and puts the right ones last."""

        priors = ((8.0, 0.2),)

        def start(self, request):
            self.text = request.prompt.tolist()
            return self

        def propose(self, budget):
            n = min(budget // 2, 3)
            right = [(self.text[-1] + 1 + i) % 50 for i in range(n)]
            return Draft([0] * n + right, [-1] * n + [-1, *range(n, 2 * n - 1)], kinds=np.array([-1] * n + [0] * n))

        def accept(self, tokens, path, taps):
            heard.append((len(tokens) - 1, path.tolist()))
            self.text += tokens

    result = generate(counting(), [7], 60, decoder=Auto(FLAT, Counting()))
    assert result.tokens == [(8 + i) % 50 for i in range(60)]
    assert [3, 4, 5] in [path for _, path in heard] and all(count == len(path) for count, path in heard)


def test_guesses_that_seem_certain_are_bound_by_what_may_be_lost():
    pace = Pace(Costs((1, 32), (0, 100), 2 * ((1.0, 1.0 + 31 * 0.45),)), PRIORS)
    draft = Draft(np.zeros(31, np.int32), kinds=np.full(31, len(PRIORS) - 1, np.int32))
    assert len(pace.choose(draft, 0)) == 4  # 4 rows at 0.45 are within the credit of 2 forwards, 5 are not
    pace.learn(np.array([-1, 0, 0, 0], np.int8))
    assert len(pace.choose(draft, 1)) == 0


@pytest.mark.parametrize(
    "made",
    [
        [],
        None,
        {"rows": [float("inf")], "contexts": [0, 1], "seconds": [[1], [1]]},
        {"rows": [1], "contexts": [0, 1], "seconds": [[10**400], [1]]},
        {"rows": [1, 2], "contexts": [0, 1], "seconds": [[1], [1, 2]]},
    ],
)
def test_costs_from_anything_else_are_refused(made):
    with pytest.raises(ArgumentError):
        Costs.from_dict(made)


@pytest.mark.parametrize("actual", [0.8, 1.0, 2.5])
def test_costs_are_corrected_by_what_rounds_take(actual):
    """Rounds with guesses take another part of plain ones than the table says: what counts is that part, whatever the unit."""
    pace = Pace(REAL, PRIORS, live=True)
    draft = Draft(list(range(7)), kinds=np.full(7, 5, np.int32))
    for _ in range(12):
        pace.choose(Draft(()), 0)
        pace.learn(np.empty(0, np.int8))
        pace.timed(0, 3e-3 * REAL(np.array([1]), 0)[0])
        chosen = pace.choose(draft, 0)
        assert len(chosen) > 0
        pace.learn(np.ones(len(chosen), np.int8))
        pace.timed(len(chosen), 3e-3 * actual * REAL(np.array([1 + len(chosen)]), 0)[0])
        pace._gain = 1e6
    ratio = pace.seconds(np.array([7]), 0)[0] / pace.seconds(np.array([0]), 0)[0]
    table = float(REAL(np.array([8]), 0)[0] / REAL(np.array([1]), 0)[0])
    assert ratio == pytest.approx(table * actual)


def test_costs_that_are_given_stand():
    pace = Pace(REAL)
    for _ in range(20):
        chosen = pace.choose(Draft([1, 2], kinds=[-1, -1]), 0)
        pace.learn(np.ones(len(chosen), np.int8))
        pace.timed(len(chosen), 99.0)
        pace.choose(Draft(()), 0)
        pace.learn(np.empty(0, np.int8))
        pace.timed(0, 1.0)
    assert pace.seconds(np.array([1, 2]), 0) == REAL(np.array([2, 3]), 0).tolist()
