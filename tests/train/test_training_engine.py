"""The engine: gradients beside the reference in float64, the laws of their bits, and what it refuses."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint import Tensor
from fastdistill.errors import ArgumentError, NotFiniteError, UnsupportedError
from fastdistill.kernels.isa import isa_layout
from fastdistill.models import plan_for
from fastdistill.models.plan import Plan
from fastdistill.runtime.network import Network
from fastdistill.runtime.read import Read
from fastdistill.runtime.reference_executor import ReferenceExecutor
from fastdistill.train import engine as module
from fastdistill.train.batch import Batch, Seen, batch_of
from fastdistill.train.engine import Engine, _seen
from fastdistill.train.lora import with_lora
from fastdistill.train.objectives import objective
from fastdistill.train.optimisers import AdamW
from tests.families import CASES, family_config
from tests.small_models import CONFIGS, config, tensors
from tests.strategies import bits, level
from tests.train.passes import Numbers, Rows64, chains, gradients_64, training_pass

LENGTHS = [5, 1, 17, 9]
CROSS_ENTROPY = objective("cross_entropy")
# float32 against float64, as a part of a weight's largest gradient: some thousand roundings of 2^-24, most of which
# cancel, on terms that are several times their sum.
TOLERANCE = 2e-4
SMALL = 1e-3  # gradients are of about one; one that is 0, as that of a key's bias where no positions turn it, is rounded too
LAWFUL = ["odd", "biased", "gpt2", "gemma2", "qwen3_moe"]  # tied heads and untied, norms, caps, windows, experts


@functools.cache
def model(name: str) -> tuple[Plan, dict[str, Tensor]]:
    plan = plan_for(config(name) if name in CONFIGS else family_config(name))
    return plan, tensors(plan)


@functools.cache
def _engine(name: str, threads: int, checkpoint: bool, layout: str) -> Engine:
    return Engine(*model(name), rows=64, threads=threads, checkpoint=checkpoint)


def engine_of(name: str, threads: int = 2, checkpoint: bool = False) -> Engine:
    return _engine(name, threads, checkpoint, isa_layout())


def texts(vocab: int, seed: int = 0, lengths=LENGTHS) -> Batch:
    """Sequences of which some tokens count, as much or as little; the last of one does."""
    random = np.random.default_rng(seed)
    counted = [random.choice([0, 0.5, 1, 2], n) for n in lengths]
    for each in counted:
        each[-1] = 1
    return batch_of([random.integers(0, vocab, n).astype(np.int32) for n in lengths], counted)


def step(engine: Engine, *batches: Batch, total: float | None = None) -> tuple[float, dict[str, np.ndarray]]:
    """The value and the gradients' bits of one step."""
    engine.zero_gradients()
    total = sum(batch.weight for batch in batches) if total is None else total
    value = sum(engine.accumulate(batch, CROSS_ENTROPY, total) for batch in batches)
    engine.finish()
    return value, {name: bits(each.to_array(each.gradient)) for name, each in engine.parameters.items()}


@functools.cache
def expected(name: str) -> tuple[float, dict[str, np.ndarray]]:
    """All at once, on the scalar level, by one thread."""
    with level("scalar"):
        return step(engine_of(name, 1), texts(model(name)[0].vocab_size))


def assert_same(found: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for name, each in found.items():
        np.testing.assert_array_equal(each, want[name], err_msg=name)


# ---- what they are ----


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_reference_in_float64(name):
    engine = engine_of(name)
    plan, batch = engine.plan, texts(engine.vocab_size)
    laid = chains(LENGTHS) if plan.causal else (batch.positions, *_seen(plan, batch))
    assert_gradients_of_the_reference(engine, batch, laid)


def assert_gradients_of_the_reference(engine: Engine, batch: Batch, laid) -> None:
    plan, reads = engine.plan, np.flatnonzero(batch.weights)
    request = training_pass(plan, batch.tokens, laid, reads, lambda name: Rows64(len(batch)))
    weights = Exact(engine)
    logits = ReferenceExecutor(plan, weights, dtype=np.float64).values_of(request)[plan.outputs["logits"]]
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    of_label = np.arange(len(reads)), batch.labels[reads]
    shares = batch.weights[reads, None].astype(float) / batch.weight
    want = -(np.log(chances[of_label]) * shares[:, 0]).sum()
    chances[of_label] -= 1
    _, gradients, _ = gradients_64(plan, [*plan.weights], "logits", weights, request, chances * shares)
    value, found = step(engine, batch)
    assert value == pytest.approx(want, rel=1e-5)
    for name, gradient in gradients.items():
        largest = max(np.abs(gradient).max(), SMALL)
        got = found[name].view(np.float32)
        np.testing.assert_allclose(got, gradient, rtol=0, atol=TOLERANCE * largest, err_msg=name)


class Exact:
    """The weights of an engine, for a reference."""

    def __init__(self, engine: Engine) -> None:
        arrays = {name: parameter.to_array() for name, parameter in engine.parameters.items()}
        self.tensors = {name: Numbers(name, "f32", each.shape, each.astype(float)) for name, each in arrays.items()}


@pytest.mark.parametrize("name", ["odd", "gpt2"])
def test_one_batch_is_learnt_by_heart(name):
    engine = Engine(*model(name), rows=64, threads=2)
    optimiser, batch = AdamW(engine.parameters, weight_decay=0.0), texts(engine.vocab_size)
    values = []
    for _ in range(150):
        values.append(engine.accumulate(batch, CROSS_ENTROPY, batch.weight))
        engine.finish()
        optimiser.step(0.01)
    assert values[0] > 4 and values[-1] < 0.01


@pytest.mark.parametrize("name", CASES)
def test_logits_have_the_bits_of_a_session(name):
    plan, stored = model(name)
    network, engine = Network(plan, stored, threads=2), engine_of(name)
    batch = texts(plan.vocab_size)
    every = engine.logits(batch, np.arange(len(batch)))
    for first, last in pairwise(batch.starts.tolist()):
        rows = np.arange(last - first)
        nodes = rows if plan.causal else rows // (plan.block or len(rows))  # those of a node see each other
        session = network.session(len(rows))
        read = session.forward(
            batch.tokens[first:last], nodes=nodes, parents=range(-1, nodes[-1]), read=Read(logits=True)
        )
        want = read.logits
        np.testing.assert_array_equal(bits(every[first:last]), bits(want))
    np.testing.assert_array_equal(bits(engine.logits(batch)), bits(every[batch.weights > 0]))


# ---- the same bits ----


@pytest.mark.parametrize("name", LAWFUL)
def test_gradients_have_the_same_bits_however_they_are_computed(isa, name):
    """Any threads, any instruction set, any split of a step's sequences, layers kept or run again."""
    batch = texts(model(name)[0].vocab_size)

    @settings(max_examples=8)
    @given(st.sampled_from([1, 2, 3]), st.booleans(), st.sets(st.integers(1, len(LENGTHS) - 1)))
    def check(threads, checkpoint, cuts):
        ends = sorted({0, len(LENGTHS), *cuts})
        parts = [batch.part(first, last) for first, last in pairwise(ends)]
        value, found = step(engine_of(name, threads, checkpoint), *parts)
        assert value == pytest.approx(expected(name)[0], rel=1e-12)
        assert_same(found, expected(name)[1])

    check()


def test_long_sums_go_row_by_row_too(isa, monkeypatch):
    """More rows than any tile of C has, and than the head sees at a time."""
    lengths = [70, 1, 130, 64, 33]
    batch = texts(CONFIGS["odd"]["vocab_size"], 1, lengths)
    want = step(Engine(*model("odd"), rows=sum(lengths), threads=1), batch)[1]
    monkeypatch.setattr(module, "HEAD_ROWS", 48)
    engine = Engine(*model("odd"), rows=200, threads=3)
    assert_same(step(engine, *batch.split(200))[1], want)


@pytest.mark.parametrize("pattern", ["norm", "lm_head", "embed_tokens", "layers.0.", "bias", "down_proj"])
@pytest.mark.parametrize("name", ["odd", "biased"])
def test_what_is_trained_alone_has_the_gradients_that_it_has_among_all(name, pattern):
    plan, stored = model(name)
    names = [each for each in plan.weights if pattern in each]
    if not names:
        pytest.skip(f"{name} has no {pattern}")
    engine = Engine(plan, stored, names, rows=64, threads=2)
    value, found = step(engine, texts(plan.vocab_size))
    assert [*found] == names and value == expected(name)[0]
    assert_same(found, expected(name)[1])


def test_steps_do_not_know_of_the_steps_before_them():
    engine = engine_of("odd")
    step(engine, texts(engine.vocab_size, 7, [23, 3]))
    engine.accumulate(texts(engine.vocab_size, 8), CROSS_ENTROPY, 1.0)  # whose sum is never finished
    assert_same(step(engine, texts(engine.vocab_size))[1], expected("odd")[1])


# ---- rows that see what the batch says ----


def pairs(vocab: int, seed: int = 3) -> tuple[Batch, list[np.ndarray]]:
    """Two sequences, each a beginning and two blocks behind it, at the same positions, that do not see each other, one in
    pieces between those of the other; and the rows of each text that is in it."""
    laid = [0, 0, 0, 1, 1, 2, 2, 2, 1, 1, 1], [0, 1, 1, 2]  # whose each row is: of both texts, of one, of the other
    texts, sees, positions = [], [], []
    for number, whose in enumerate(map(np.array, laid)):
        first = len(laid[0]) * number
        seen = ((whose == 0) | (whose == whose[:, None])) & np.tri(len(whose), dtype=bool)
        sees.append(seen)
        positions += (seen.sum(axis=1) - 1).tolist()
        texts += [first + np.flatnonzero((whose == 0) | (whose == one)) for one in (1, 2)]
    ends = np.cumsum([0, *map(len, laid)])
    visible = np.zeros((ends[-1], ends[-1]), bool)
    for seen, first in zip(sees, ends[:-1], strict=True):
        visible[first : first + len(seen), first : first + len(seen)] = seen
    random = np.random.default_rng(seed)
    tokens, labels = random.integers(0, vocab, (2, ends[-1]))
    weights = random.choice([0, 0.5, 1, 2], ends[-1])
    return Batch(tokens, ends, labels, weights, seen=Seen.of(np.array(positions), visible)), texts


CAUSAL = [name for name in CASES if model(name)[0].causal]


@pytest.mark.parametrize("name", CAUSAL)
def test_texts_that_share_a_beginning_have_the_logits_of_each_alone(name):
    engine = engine_of(name)
    batch, texts_of = pairs(engine.vocab_size)
    found = bits(engine.logits(batch, np.arange(len(batch))))
    for rows in texts_of:
        alone = batch_of([batch.tokens[rows]])
        np.testing.assert_array_equal(found[rows], bits(engine.logits(alone, np.arange(len(rows)))))


@pytest.mark.parametrize("name", LAWFUL)
def test_texts_that_share_a_beginning_have_the_gradients_of_the_reference_in_float64(name):
    engine = engine_of(name)
    batch, _ = pairs(engine.vocab_size)
    assert_gradients_of_the_reference(engine, batch, (batch.positions, *_seen(engine.plan, batch)))


@pytest.mark.parametrize("name", LAWFUL)
def test_texts_that_share_a_beginning_have_the_same_bits_however_they_are_computed(isa, name):
    batch, _ = pairs(model(name)[0].vocab_size)
    with level("scalar"):
        want = step(engine_of(name, 1), batch)[1]
    assert_same(step(engine_of(name, 3, True), *batch.split(11))[1], want)
    assert_same(step(engine_of(name), batch)[1], want)


@pytest.mark.parametrize(("position", "refused"), [(63, False), (64, True)])
def test_positions_that_a_table_lacks_are_refused(small, position, refused):
    one = np.ones((1, 1), bool)
    batch = Batch([1], [0, 1], [2], [1], seen=Seen.of(np.array([position]), one))
    with (
        pytest.raises(ArgumentError, match="positions must be below the model's 64, got 64")
        if refused
        else nullcontext()
    ):
        small.logits(batch)


# ---- rows that count for nothing ----


def uncounted(batch: Batch, rows: slice) -> Batch:
    weights = batch.weights.copy()
    weights[rows] = 0
    return Batch(batch.tokens, batch.starts, batch.labels, weights)


@pytest.mark.parametrize("name", ["odd", "biased"])
def test_sequences_that_count_for_nothing_give_nothing(name):
    engine = engine_of(name)
    batch = texts(engine.vocab_size)
    less = uncounted(batch, slice(int(batch.starts[2]), int(batch.starts[3])))
    want = step(engine, batch.part(0, 2), batch.part(3, 4))
    value, found = step(engine, less)
    assert value == pytest.approx(want[0], rel=1e-12)
    assert_same(found, want[1])


def test_without_rows_that_count_nothing_changes():
    engine = engine_of("odd")
    batch, empty = texts(engine.vocab_size), batch_of([])
    for none in (empty, uncounted(batch, slice(None))):
        value, found = step(engine, none, total=1.0)
        assert value == 0 and not any(each.any() for each in found.values())
        assert engine.logits(none).shape == (0, engine.vocab_size)
    parts = [empty, batch.part(0, 2), empty, batch.part(2, 4)]
    assert_same(step(engine, *parts)[1], expected("odd")[1])


# ---- what it refuses ----


@pytest.mark.parametrize("name", ["odd", "gpt2"])
def test_a_weight_that_is_not_finite_is_an_error_and_once_it_is_again_none(name):
    engine = Engine(*model(name), rows=64, threads=2)
    batch = texts(engine.vocab_size)
    for parameter in engine.parameters.values():
        kept = parameter.to_array()
        for wrong in (np.nan, np.inf):
            array = kept.copy()
            array[tuple(batch.tokens[:1]) if kept.shape == (engine.vocab_size, engine.plan.hidden_size) else 0] = wrong
            parameter.assign(array)
            with pytest.raises(NotFiniteError):
                step(engine, batch)
        parameter.assign(kept)
    assert_same(step(engine, batch)[1], expected(name)[1])


def test_what_does_not_fit_is_refused():
    plan, stored = model("odd")
    with pytest.raises(ArgumentError, match="trained must name weights of the model, got nothing"):
        Engine(plan, stored, ["nothing"])
    with pytest.raises(ArgumentError, match="rows must lie in"):
        Engine(plan, stored, rows=0)
    with pytest.raises(ArgumentError, match="a batch must have at most 64 rows, got 65"):
        engine_of("odd").accumulate(texts(plan.vocab_size, lengths=[65]), CROSS_ENTROPY, 1.0)
    with pytest.raises(UnsupportedError, match="a sequence has 25 tokens; training knows the positions of"):
        engine_of("phi3, long").logits(texts(plan.vocab_size, lengths=[3, 25]))


@pytest.mark.parametrize("name", CASES)
def test_pairs_of_low_rank_have_the_same_gradients_however_they_are_computed(name):
    """Pairs stand between ops that are one step without them: what they read must still be there."""
    plan, held = model(name)
    lora = with_lora(plan, 3)
    held = held | lora.tensors(1)
    for pair in lora.pairs:  # zeros would hide what A gets
        held[pair.b].data[...] = np.random.default_rng(2).uniform(-0.1, 0.1, held[pair.b].shape)
    batch = texts(plan.vocab_size)
    _, whole = step(Engine(lora.plan, held, lora.trained, rows=40, threads=2), batch)
    again = Engine(lora.plan, held, lora.trained, rows=48, threads=1, checkpoint=True)
    assert_same(step(again, batch.part(0, 2), batch.part(2, 3), batch.part(3, 4))[1], whole)


@pytest.fixture(scope="module")
def small() -> Engine:
    plan = plan_for(family_config("gpt2"))
    return Engine(plan, tensors(plan), rows=40, threads=1)


@pytest.mark.parametrize(
    ("lengths", "token", "message"),
    [([3], 83, r"tokens\[1\] must lie in 0..82, got 83"), ([3], -1, "must lie in 0..82, got -1"), ([30, 11], 1, "at most 40 rows, got 41")],
)  # fmt: skip
def test_batches_that_a_model_cannot_take_are_refused(small, lengths, token, message):
    batch = texts(83, lengths=lengths)
    batch.tokens[1] = token
    for call in (lambda: small.accumulate(batch, CROSS_ENTROPY, 1.0), lambda: small.logits(batch)):
        with pytest.raises(ArgumentError, match=message):
            call()


@pytest.mark.parametrize(
    ("rows", "message"), [([40], "0..31, got 40"), ([-1], "got -1"), ([3, 1], "rows must be ascending")]
)
def test_rows_that_a_batch_lacks_are_refused(small, rows, message):
    with pytest.raises(ArgumentError, match=message):
        small.logits(texts(83), np.array(rows))


def test_a_format_that_there_is_not_is_refused(small):
    with pytest.raises(ArgumentError, match=r"format must be one of f32, .*, got 'q5'"):
        Engine(small.plan, {}, format="q5")


def test_a_batch_of_nothing_gives_nothing(small):
    assert small.accumulate(batch_of([]), CROSS_ENTROPY, 1.0) == 0 and small.logits(batch_of([])).shape == (0, 83)
    assert small.logits(texts(83), np.empty(0, np.int64)).shape == (0, 83)


def test_an_objective_without_a_gradient_of_the_logits_is_refused(small):
    def value_alone(*arguments):
        return CROSS_ENTROPY(*arguments)._replace(gradient=np.zeros(83, np.float32))

    with pytest.raises(ArgumentError, match=r"of the shape of the logits, \(\d+, 83\), got \(83,\)"):
        small.accumulate(texts(83), value_alone, 1.0)
    with pytest.raises(ArgumentError, match="objective must be callable, got None"):
        small.accumulate(texts(83), None, 1.0)


def test_new_sums_hold_nothing_of_those_that_were_not_ended(small):
    batch = texts(83)
    _, want = step(small, batch)
    small.accumulate(texts(83, seed=1), CROSS_ENTROPY, 1.0)  # its table's sums would come with the next end
    assert_same(step(small, batch)[1], want)
