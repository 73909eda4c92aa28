"""Draft heads: gradients through all steps, the closed form, states that decoding keeps, and a head that a model distils by itself."""

from __future__ import annotations

import errno
import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint.safetensors_file import Stored, write_safetensors
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.decode import FirstOf, HeadDrafter, PromptLookup, Speculative
from fastdistill.decode.drafters.copies import Repeats
from fastdistill.distill import divergence
from fastdistill.errors import ArgumentError, CheckpointError, DataError, FastDistillError
from fastdistill.models.draft_head import COPIES, HEAD, RECIPES, SHARES, TABLE, TOKENS, DraftHead, SavedHead, kind_of
from fastdistill.runtime import Read
from fastdistill.train.draft_head import HeadBatch, HeadEngine, HeadSettings, acceptance, distill_head
from fastdistill.train.draft_head.closed_form import first_weights
from fastdistill.train.draft_head.head_texts import HeadTexts
from fastdistill.train.draft_head.training import HeadTraining
from fastdistill.train.own_texts import Texts, lots, prompts, work, write_texts, writer
from fastdistill.train.own_texts import texts as texts_file
from fastdistill.train.own_texts.target import Target
from fastdistill.train.own_texts.texts import held_out
from fastdistill.train.own_texts.work import WorkTime
from fastdistill.train.runs import checkpoints
from tests.decode.test_head_drafter import copies
from tests.test_cli import write_model

SHAPE = DraftHead(32, 32, 50, 40, 48)
TAPPED = replace(SHAPE, taps=("layers.2", "layers.5"))
SHAPES = {"eagle": SHAPE, "eagle, tapped": TAPPED, "medusa": DraftHead(32, 32, 50, 40, heads=3)}
each_recipe = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def tensors(shape=SHAPE, seed=0):
    chance = np.random.default_rng(seed)
    weights = shape.plan().weights
    return {
        name: Tensor(name, "f32", w.shape, chance.normal(0, 0.25, w.shape).astype(np.float32))
        for name, w in weights.items()
    }


def batch_of(rows, steps, shape=SHAPE, seed=1):
    chance = np.random.default_rng(seed)
    first = chance.normal(0, 1, (rows, shape.width(0))).astype(np.float32)
    targets = chance.normal(0, 1, (steps, rows, shape.hidden_size)).astype(np.float32)
    tokens = chance.integers(0, shape.vocab_size, (steps, 1 + COPIES, rows)).astype(np.int32)
    tokens[:, 1:][chance.random((steps, COPIES, rows)) < 0.3] = -1
    return HeadBatch(first, tokens, targets, chance.random((steps, rows)).astype(np.float32))


def forward_kl(logits, theirs, weights, total):
    return divergence(logits, theirs, "forward_kl", weights=weights, total_weight=total, out=logits)


def texts_of(lengths, shape=SHAPE, seed=2):
    chance, n = np.random.default_rng(seed), sum(lengths)
    states = chance.normal(0, 1, (n, shape.width(0))).astype(np.float16)
    asked = np.arange(len(lengths) + 1)
    return HeadTexts(
        chance.integers(0, shape.vocab_size, n).astype(np.int32), states, np.cumsum([0, *lengths], dtype=np.int64),
        chance.integers(0, shape.vocab_size, asked.sum()).astype(np.int32), np.cumsum(asked),
    )  # fmt: skip


def text_of(texts, place):
    """Prompt and text, up to a place."""
    text = np.searchsorted(texts.starts, place, side="right") - 1
    prompt = texts.prompts[slice(*texts.prompt_starts[text : text + 2])].tolist()
    return prompt + texts.tokens[texts.starts[text] : place + 1].tolist()


@each_recipe
def test_gradients_go_back_through_every_step(isa, shape):
    """Along random directions, beside central differences of the value in float64 steps: each parameter, three steps deep."""
    engine, batch = HeadEngine(shape, tensors(shape), steps=3, rows=16, threads=2), batch_of(11, 3, shape)
    total = float(batch.weights.sum())
    assert engine.accumulate(batch, forward_kl, total) == engine.value(batch, forward_kl, total)
    chance, step = np.random.default_rng(3), 2e-3
    assert set(engine.parameters) == set(shape.trained)
    for parameter in engine.parameters.values():
        way, at = chance.normal(0, 1, parameter.shape).astype(np.float32), parameter.to_array()
        slope = float((parameter.to_array(parameter.gradient).astype(np.float64) * way).sum())
        values = []
        for sign in (1, -1):
            parameter.assign(at + np.float32(sign * step) * way)
            values.append(engine.value(batch, forward_kl, total))
        parameter.assign(at)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=0.02, abs=2e-3)


@each_recipe
def test_gradients_have_the_same_bits_for_any_number_of_threads(isa, shape):
    found = []
    for threads in (1, 2, 3):
        engine = HeadEngine(shape, tensors(shape), steps=2, rows=40, threads=threads)
        engine.accumulate(batch_of(40, 2, shape), forward_kl, 1.0)
        found.append([parameter.gradient.tobytes() for parameter in engine.parameters.values()])
    assert found[0] == found[1] == found[2]


def test_rows_without_weight_change_nothing():
    whole, some = batch_of(8, 2), np.arange(5)
    engine = HeadEngine(SHAPE, tensors(), steps=2, rows=8, threads=1)
    value = engine.value(
        HeadBatch(
            whole.hidden[some],
            np.ascontiguousarray(whole.tokens[:, :, some]),
            whole.targets[:, some],
            whole.weights[:, some],
        ),
        forward_kl,
        1.0,
    )
    zeroed = whole.weights.copy()
    zeroed[:, 5:] = 0
    assert engine.value(replace(whole, weights=zeroed), forward_kl, 1.0) == pytest.approx(value, rel=1e-6)
    with pytest.raises(ArgumentError, match="at most 8 rows and 2 steps, got 8 and 3"):
        engine.value(batch_of(8, 3), forward_kl, 1.0)
    with pytest.raises(ArgumentError, match=r"hidden and targets must have \(32, 32\) numbers a row, got \(96, 32\)"):
        engine.value(batch_of(8, 2, TAPPED), forward_kl, 1.0)


@pytest.mark.parametrize("shape", [SHAPE, TAPPED], ids=["last states", "and taps"])
def test_a_batch_follows_each_place_to_the_end_of_its_text(shape):
    texts = texts_of([4, 2, 5], shape)
    assert texts.places.tolist() == [0, 1, 2, 4, 6, 7, 8, 9]
    batch = HeadBatch.of(shape, texts, np.array([1, 4, 6]), 3, fading=0.5)
    assert batch.weights.tolist() == [[1, 1, 1], [0.5, 0, 0.5], [0, 0, 0.25]]
    for row, place in enumerate((1, 4, 6)):
        assert (batch.hidden[row] == texts.states[place].astype(np.float32)).all()
        for step in np.flatnonzero(batch.weights[:, row]):
            text = text_of(texts, place + step)
            assert batch.tokens[step, :, row].tolist() == [text[-1], *copies(text)]
            assert (batch.targets[step, row] == texts.states[place + step + 1, :32].astype(np.float32)).all()
    assert texts.places_in(np.array([True, False, True])).tolist() == [0, 1, 2, 6, 7, 8, 9]


def test_places_that_only_repeat_are_left_to_lookup():
    """Where eight tokens come again: of a text that goes round in circles, of one that copies its prompt, not of seven."""
    round_and_round, prompt, copied = [*range(9)] * 3, [*range(20, 32)], [*range(20, 30), 1, 2, 20, 21]
    tokens = np.array([*round_and_round, *copied, *range(20, 27)], np.int32)
    starts = np.array([0, 27, 41, 48])
    texts = HeadTexts(
        tokens, np.zeros((48, 4), np.float16), starts, np.array(prompt * 2, np.int32), np.array([0, 0, 12, 24])
    )
    assert texts.places.tolist() == [*range(16), *range(27, 34), *range(37, 40), *range(41, 47)]


def test_a_text_that_goes_round_in_circles_is_ended(model, monkeypatch):
    target = fd.load(model)
    plain = [target.generate([5, number], max_tokens=60).tokens for number in range(6)]
    monkeypatch.setattr(writer, "LOOP", 3)
    texts = write_texts(target, [[5, number] for number in range(6)], max_tokens=60)
    ended = 0
    for number, whole in enumerate(plain):
        seen, text = Repeats(3), texts.part(number, number + 1).tokens.tolist()
        first = next((end for end in range(1, len(whole) + 1) if seen.append([whole[end - 1]])), len(whole))
        assert text == whole[:first]
        ended += first < len(whole)
    assert ended


def test_a_text_that_fails_is_left_out_and_a_lot_of_them_is_an_error(model, tmp_path, monkeypatch):
    monkeypatch.setattr(lots, "LOT", 4)
    monkeypatch.setattr(prompts, "_OWN", 12)
    settings = HeadSettings(model=str(model), minutes=1e-3, max_tokens=8, threads=1)
    take, failing = writer._WatchingRun.take, [2]

    def fails(self, rows):
        if self._request.sampler.sequence in failing and rows.tokens is not None:
            raise ValueError("this one")
        return take(self, rows)

    monkeypatch.setattr(writer._WatchingRun, "take", fails)
    some = lots_of(settings, tmp_path / "some")
    assert some.write(lambda share, tokens: None, lambda: False)
    texts = some.read()
    assert len(texts) > 8 and np.flatnonzero(np.diff(texts.starts) == 0).tolist() == [2]
    failing += range(4, 12)  # whole lots, but not the first one
    most = lots_of(settings, tmp_path / "most")
    assert most.write(lambda share, tokens: None, lambda: False)
    assert np.flatnonzero(np.diff(most.read().starts) > 0).tolist() == [0, 1, 3]
    failing += range(4)
    with pytest.raises(ValueError, match="this one"):
        lots_of(settings, tmp_path / "all").write(lambda share, tokens: None, lambda: False)


def test_some_texts_are_held_out():
    for count in (2, 5, 15):
        seen, unseen = held_out(count)
        assert unseen.tolist() == [False] * (count - 1) + [True] and (seen == ~unseen).all()
    seen, unseen = held_out(40)
    assert np.flatnonzero(unseen).tolist() == [15, 31] and (seen == ~unseen).all()
    assert all(which.tolist() == [True] for which in held_out(1))


def test_medusa_has_no_network_between_and_reads_one_state(model):
    with pytest.raises(ArgumentError, match="intermediate_size goes with recipe 'eagle'"):
        HeadSettings(model="m", recipe="medusa", intermediate_size=64)
    with pytest.raises(ArgumentError, match="taps go with recipe 'eagle'"):
        HeadSettings(model="m", recipe="medusa", taps=("layers.0",))
    plan = fd.load(model).plan
    assert HeadSettings(model="m", recipe="medusa").reads(plan) == ()


def test_a_head_reads_the_model_after_two_thirds_of_its_layers_or_where_it_is_told_to(model, tmp_path):
    plan = fd.load(write_model(tmp_path / "deep", layers=6)).plan
    assert HeadSettings(model="m").reads(plan) == ("layers.4",) and HeadSettings(model="m", taps=()).reads(plan) == ()
    assert HeadSettings(model="m", taps=["layers.1", "layers.3"]).reads(plan) == ("layers.1", "layers.3")
    with pytest.raises(ArgumentError, match=r"tap 'layers.9' is unknown; this model has: .*layers\.5"):
        HeadSettings(model="m", taps=("layers.9",)).reads(plan)
    for wrong in ("layers.1", (3,), 7):
        with pytest.raises(ArgumentError, match="taps must be names of hidden states"):
            HeadSettings(model="m", taps=wrong)


def test_texts_of_several_files_come_one_after_another(tmp_path):
    texts = texts_of([4, 2, 5, 1])
    for number, some in enumerate(((0, 1), (1, 3), (3, 4))):
        texts.part(*some).save(tmp_path / f"texts {number}")
    files = sorted(tmp_path.iterdir())
    assert_same(Texts.load(*files), texts)
    assert [texts_file.counted(file) for file in files] == [(1, 4), (2, 7), (1, 1)]
    names = ("tokens", "states", "starts", "prompts", "prompt_starts")
    write_safetensors(tmp_path / "flat", {name: Stored("I32", texts.tokens) for name in names})
    with pytest.raises(CheckpointError, match=r"flat: must hold arrays of so many axes: .*'states': 2.*'states': 1"):
        Texts.load(tmp_path / "flat")


@pytest.mark.parametrize("shape", [SHAPE, TAPPED], ids=["last states", "and taps"])
def test_the_closed_form_finds_a_linear_cell(shape):
    """Texts whose states follow one linear cell exactly: the head begins as that cell."""
    chance, table = np.random.default_rng(5), tensors(shape)[TABLE]
    from_state, *from_tokens = chance.normal(0, 0.2, (2 + COPIES, 32, 32))
    from_taps, taps = (
        chance.normal(0, scale, (n, len(shape.taps), 32, k)) for scale, n, k in ((0.2, 1, 32), (1, 900, 1))
    )
    tokens = chance.integers(0, 50, 900).astype(np.int32)
    states = [chance.normal(0, 1, 32)]
    normed = lambda x: x / np.sqrt((x * x).mean() + SHAPE.epsilon)  # noqa: E731
    for end in range(1, len(tokens)):
        state = from_state @ normed(states[-1])
        for matrix, tap in zip(from_taps[0], taps[end - 1, ..., 0], strict=True):
            state = state + matrix @ normed(tap)
        text = tokens[:end].tolist()
        for matrix, token in zip(from_tokens, [text[-1], *copies(text)], strict=True):
            if token >= 0:
                state = state + matrix @ normed(table.data[token].astype(np.float64))
        states.append(state)
    nothing = np.empty(0, np.int32), np.zeros(2, np.int64)
    kept = np.concatenate([states, taps.reshape(900, -1)], axis=1).astype(np.float16)
    texts = HeadTexts(tokens, kept, np.array([0, 900]), *nothing)
    first = first_weights(shape, texts, table, ridge=1e-9)
    from_read = np.concatenate([from_state, *from_taps[0]], axis=1)
    for name, matrix in zip((*TOKENS, shape.state_name(0)), (*from_tokens, from_read), strict=True):
        np.testing.assert_allclose(first[f"{name}_proj.weight"].data, matrix, atol=0.01)
    assert first["hidden_proj.weight"].shape == (32, 32)
    engine = HeadEngine(shape, {**tensors(shape), **first}, steps=1, rows=64, threads=1)
    batch = HeadBatch.of(shape, texts, np.arange(64), 1)
    expected = batch.targets[0] @ tensors(shape)[HEAD].data.T
    np.testing.assert_allclose(engine.logits(batch)[0], expected, atol=0.02)


def test_acceptance_counts_what_stands_after_right_guesses():
    texts = texts_of([90, 1, 70, 12], seed=8)
    engine = HeadEngine(SHAPE, tensors(), steps=2, rows=7, threads=1)
    d2t = np.arange(5, 45, dtype=np.int32)
    for place in texts.places[::2]:  # else hardly a guess would be right
        texts.tokens[place + 1] = d2t[engine.logits(HeadBatch.of(SHAPE, texts, np.array([place]), 1))[0, 0].argmax()]
    right, asked, counts = np.zeros((2, 4)), np.zeros(2), np.zeros((len(SHARES) + 1, 2), int)
    for place in texts.places:
        batch = HeadBatch.of(SHAPE, texts, np.array([place]), 2)
        for step, logits in enumerate(engine.logits(batch)[:, 0]):
            if not batch.weights[step, 0]:
                break
            best = np.argsort(-logits, kind="stable")[:4]
            hits = d2t[best] == texts.tokens[place + step + 1]
            shares = np.exp(logits - np.logaddexp.reduce(logits.astype(np.float64)))[best]
            asked[step] += 1
            right[step] += hits
            for kind, hit in zip(kind_of(shares), hits, strict=True):
                counts[kind, 0 if hit else 1] += 1
            if not hits[0]:
                break
    found = acceptance(engine, texts, d2t)
    assert 0 < right[1, 0] < asked[1] < asked[0]
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_allclose(found.ranks, right / asked[:, None])
    assert found.tokens == pytest.approx(1 + found.ranks[0, 0] * (1 + found.ranks[1, 0]))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "target", layers=1)


@pytest.mark.parametrize(
    "changes",
    [
        dict(model_type="granite", logits_scaling=8.0),
        dict(model_type="gemma2", head_dim=16, final_logit_softcapping=3.0, query_pre_attn_scalar=16),
        dict(model_type="gptj", n_embd=64, n_head=4, n_layer=1, n_positions=256, rotary_dim=8, n_inner=None),
    ],
    ids=lambda changes: changes["model_type"],
)
def test_the_targets_law_is_that_of_its_whole_head(changes, tmp_path):
    """What scales, bends or shifts its logits is in what the head learns from, and in what it says itself."""
    target = Target.load(str(write_model(tmp_path / "target", layers=1, **changes)), 1)
    settings = HeadSettings(model=str(target.folder), draft_vocab_size=20, intermediate_size=32, rows=16, format="f32")
    taps = settings.reads(target.plan)
    texts = write_texts(target, [[5, 6, 7], [9, 8]], max_tokens=8, taps=taps)
    head = HeadTraining(settings, target, texts)
    read = Read(logits=True, hidden=True)
    rows = target.network.session(taps=taps).forward([5, 6, 7, 9, 8], read=read)
    np.testing.assert_allclose(head.engine._logits(rows.hidden)[0], rows.logits[:, head.d2t], rtol=1e-4, atol=1e-4)
    batch = head.batch(0)
    assert batch.hidden.shape[1] == 2 * batch.targets.shape[2]
    value = head.engine.accumulate(batch, head._objective, 1.0)
    assert value == head.engine.value(batch, head._objective, 1.0) and np.isfinite(value)
    head.save(tmp_path / "draft")
    cell = HeadDrafter(tmp_path / "draft")._head.beside(target.network)
    tokens = np.array([[6, 7, 9, 8, 1], [-1, -1, 7, 5, 9], [-1] * 5], np.int32)
    found, estimates = cell.run(np.concatenate([rows.hidden, *rows.taps.values()], axis=1), tokens, 0, True)
    np.testing.assert_allclose(found.logits, head.engine._logits(estimates)[0], rtol=1e-4, atol=1e-4)


def test_medusa_begins_with_the_targets_own_guess_and_its_heads_learn_apart(model):
    target = Target.load(str(model), 1)
    texts = write_texts(target, [[5, 6, 7], [9, 8]], max_tokens=12)
    settings = HeadSettings(
        model=str(model), recipe="medusa", draft_vocab_size=40, steps=2, rows=16, format="f32", threads=1
    )
    head = HeadTraining(settings, target, texts)
    batch = HeadBatch.of(head.shape, HeadTexts.of(texts), np.arange(6), 2)
    own = head.engine._logits(batch.hidden)[0].copy()
    for logits in head.engine.logits(batch):
        np.testing.assert_array_equal(logits, own)
    first = replace(batch, weights=np.stack([batch.weights[0], 0 * batch.weights[1]]))
    head.engine.accumulate(first, head._objective, 1.0)
    moved = {name for name, parameter in head.engine.parameters.items() if parameter.gradient.any()}
    assert moved == {"heads.0.weight", "heads.0.bias"}
    with pytest.raises(ArgumentError, match="a draft head of 2 heads has as many steps, got 3"):
        HeadEngine(head.shape, tensors(head.shape), steps=3)


def test_texts_are_plain_decodings_and_states_those_of_a_forward(model, tmp_path):
    target = fd.load(model)
    prompts = [[5, 6, 7], [9, 8, 7, 6, 5], [3]]
    texts = write_texts(target, prompts, max_tokens=12, temperature=0.9, seed=4)
    for number, prompt in enumerate(prompts):
        part = texts.part(number, number + 1)
        read = Read(hidden=True)
        rows = target.session().forward([*prompt, *part.tokens[:-1].tolist()], read=read)
        assert (rows.hidden[len(prompt) - 1 :].astype(np.float16) == part.states).all()
    tapped = write_texts(target, prompts, max_tokens=12, temperature=0.9, seed=4, taps=("layers.0", "embedding"))
    for number, prompt in enumerate(prompts):
        part, width = tapped.part(number, number + 1), target.plan.hidden_size
        rows = target.session(taps=("layers.0", "embedding")).forward([*prompt, *part.tokens[:-1].tolist()])
        assert (part.tokens == texts.part(number, number + 1).tokens).all()
        assert (part.states[:, :width] == texts.part(number, number + 1).states).all()
        for name, states in zip(("layers.0", "embedding"), np.split(part.states[:, width:], 2, axis=1), strict=True):
            wanted = rows.taps[name][len(prompt) - 1 :]
            wanted /= np.sqrt(np.square(wanted).mean(axis=1, keepdims=True))
            np.testing.assert_allclose(states, wanted, rtol=2e-3, atol=1e-4)
    assert (
        texts.part(0, 1).tokens.tolist() == target.generate(prompts[0], max_tokens=12, temperature=0.9, seed=4).tokens
    )
    write_safetensors(tmp_path / "others", {"tokens": Stored("I32", texts.tokens)})
    with pytest.raises(
        CheckpointError, match="others: must hold tokens, states, starts, prompts, prompt_starts, found tokens"
    ):
        Texts.load(tmp_path / "others")
    with pytest.raises(ArgumentError, match="prompts must have at least one"):
        write_texts(target, [])
    texts.save(tmp_path / "texts")
    assert_same(Texts.load(tmp_path / "texts"), texts)


def assert_same(some, others):
    for name in ("tokens", "states", "starts", "prompts", "prompt_starts"):
        np.testing.assert_array_equal(getattr(some, name), getattr(others, name))


def lots_of(settings, place):
    place.mkdir(exist_ok=True)
    return lots.Lots(settings, Target.load(settings.model, 1), place / "texts", WorkTime(place / "time.json", 0.0))


def test_texts_go_on_where_an_interrupt_has_left_them(model, tmp_path, monkeypatch):
    """Asked between forwards: what is whole stays, and what comes after it is what would have come, greedy or drawn."""
    monkeypatch.setattr(lots, "LOT", 40)  # more than are written at once
    monkeypatch.setattr(prompts, "_OWN", 95)
    settings = HeadSettings(model=str(model), minutes=1e5, max_tokens=24)
    whole = lots_of(settings, tmp_path / "whole")
    assert whole.write(lambda share, tokens: None, lambda: False)
    kept = []
    for forwards in (0, 30, 50, 10**6):
        parts, asked = lots_of(settings, tmp_path / "parts"), iter(range(forwards))
        done = parts.write(lambda share, tokens: None, lambda asked=asked: next(asked, None) is None)
        kept.append(parts.texts)
    assert kept[0] == 0 < kept[1] < kept[2] < kept[3] == whole.texts and done and kept[1] % 40
    assert_same(parts.read(), whole.read())
    assert parts.tokens == len(whole.read().tokens)


def test_texts_end_where_their_time_does(model, tmp_path, monkeypatch):
    """Those that are being written are cut; but of the fewest none."""
    settings, shares = HeadSettings(model=str(model), minutes=1e-3, max_tokens=24, temperature=0.0), []
    monkeypatch.setattr(lots, "HELD_OUT", 3)
    monkeypatch.setattr(prompts, "_OWN", 70)
    short = lots_of(settings, tmp_path / "short")
    assert short.write(lambda share, tokens: shares.append(share), lambda: False)
    found = short.read()
    long = lots_of(replace(settings, minutes=1e5), tmp_path / "long")
    long.write(lambda share, tokens: None, lambda: False)
    texts, lengths = long.read(), np.diff(found.starts)
    # One whose prompt is long may have no token yet, where those behind it have.
    by_prompt = {(part := texts.part(n, n + 1)).prompts.tobytes(): part for n in range(len(texts))}
    wholes = [by_prompt[found.part(n, n + 1).prompts.tobytes()] for n in range(len(found))]
    whole = np.array([len(all.tokens) for all in wholes])
    assert 3 < len(found) < len(texts) and (lengths[:3] == whole[:3]).all()
    assert (lengths < whole).any() and shares[-1] == 1 > shares[-2]
    for number, all in enumerate(wholes):
        some = found.part(number, number + 1)
        assert (some.tokens == all.tokens[: len(some.tokens)]).all()
        assert (some.states == all.states[: len(some.tokens)]).all()
    assert short.write(shares.append, lambda: True)  # nothing is left to do


def test_training_takes_what_time_is_left(model, tmp_path, monkeypatch):
    """By a clock that a look moves on by a second: of all calls' work, and of what judging will take."""
    ticks = itertools.count(100.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    clock = WorkTime(tmp_path / "time.json", 90.0)
    clock.keep()
    assert (clock.seconds, WorkTime(tmp_path / "time.json", 98.0).seconds) == (11, 10 + 102 - 98)
    settings = HeadSettings(model=str(model), minutes=10, draft_vocab_size=20, intermediate_size=32, rows=16)
    texts = texts_of([2] * 15 + [49], DraftHead(64, 64, 256, 20, 32, taps=("layers.0",)))
    head = HeadTraining(settings, Target.load(str(model), 1), texts)
    judged = 48 / 16 / 3
    for spent in (11, 400):  # two rounds of samples, and two looks around them
        assert head._affordable(spent) == int((600 - spent - 2 * 6 - 2 - judged) / 1.08)
    assert head._affordable(700) == 1
    assert head._affordable(-1400) == int((2000 - 3 * 6 - 3 - judged) / 1.08)  # samples take a hundredth
    taken = itertools.chain([50.0] * 9, itertools.repeat(1.0))  # the first steps of a process are slow
    monkeypatch.setattr(HeadTraining, "_seconds", lambda self, step: next(taken))
    assert head._affordable(11) == int((589 - 7 - judged) / 1.08)


def test_a_model_distils_a_head_whose_guesses_are_right(model, tmp_path, monkeypatch):
    """Interrupted while it trains, it goes on to the same bytes; and the head's drafts leave the text as it is."""
    monkeypatch.setattr(HeadTraining, "_affordable", lambda self, spent: 60)
    monkeypatch.setattr(lots, "HELD_OUT", 64)
    settings = HeadSettings(
        model=str(model),
        minutes=1e-3,
        max_tokens=40,
        draft_vocab_size=48,
        intermediate_size=32,
        rows=64,
        learning_rate=3e-3,
        format="f32",
    )
    found = distill_head(settings, tmp_path / "whole")
    done = []
    assert (
        distill_head(settings, tmp_path / "parts", training=lambda steps: done.append, stop=lambda: len(done) > 20)
        is None
    )
    assert (tmp_path / "parts.run").is_dir()
    with pytest.raises(CheckpointError, match="was begun with other settings"):
        distill_head(replace(settings, steps=2), tmp_path / "parts")
    assert distill_head(settings, tmp_path / "parts").tokens == found.tokens
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts and not (tmp_path / "parts.run").exists()
    with pytest.raises(CheckpointError, match="is there already"):
        distill_head(settings, tmp_path / "whole")
    assert found.tokens > 1.2 and SavedHead.load(tmp_path / "whole").priors[-1][1] > 0
    target = fd.load(model)
    drafter, accepted = HeadDrafter(tmp_path / "whole"), 0
    for options in ({}, {"temperature": 0.7, "seed": 3}):
        plain = target.generate("What is it?", max_tokens=60, **options)
        for decoder in (Speculative(drafter, max_draft=4), Speculative(FirstOf(PromptLookup(min_match=8), drafter))):
            drafted = target.generate("What is it?", max_tokens=60, decoder=decoder, **options)
            assert drafted.tokens == plain.tokens
    for prompt in ("Why is it?", "Name it.", "Is it so?"):
        drafted = target.generate(prompt, max_tokens=60, decoder=Speculative(drafter))
        accepted += drafted.stats.accepted
    assert accepted > 0


def test_what_goes_wrong_leaves_what_the_same_call_goes_on_with(model, tmp_path, monkeypatch):
    monkeypatch.setattr(HeadTraining, "_affordable", lambda self, spent: 2)
    settings = HeadSettings(
        model=str(model), minutes=1e-3, max_tokens=4, draft_vocab_size=20, intermediate_size=32, rows=16
    )
    (tmp_path / "none.jsonl").write_text("")
    for changes in (
        {"model": "nowhere"},
        {"prompts": str(tmp_path / "nowhere.txt")},
        {"prompts": str(tmp_path / "none.jsonl")},
    ):
        with pytest.raises(FastDistillError, match=r"nowhere|none\.jsonl"):
            distill_head(replace(settings, **changes), tmp_path / "draft")
    assert not (tmp_path / "draft.run").exists()
    assert HeadSettings(model=model, prompts=tmp_path) == HeadSettings(model=str(model), prompts=str(tmp_path))
    with pytest.raises(ArgumentError, match="model must be"):
        HeadSettings(model=3)

    for name, module in (("time.json", work), ("texts", texts_file), ("steps.json", work)):
        replaced = module.replace_file

        def full(target, made, name=name, replaced=replaced):
            if name in str(target.relative_to(tmp_path)):
                raise OSError(errno.ENOSPC, "No space left on device")
            replaced(target, made)

        with (
            monkeypatch.context() as patch,
            pytest.raises(CheckpointError, match=rf"{name}: cannot be written: No space"),
        ):
            patch.setattr(module, "replace_file", full)
            distill_head(settings, tmp_path / "draft")
    with (
        monkeypatch.context() as patch,
        pytest.raises(CheckpointError, match=r"step 2 .*the same call goes on from step 0"),
    ):
        patch.setattr(checkpoints, "replace_file", lambda target, made: full(tmp_path / "steps.json", made))
        distill_head(settings, tmp_path / "draft")
    assert distill_head(replace(settings, threads=1), tmp_path / "draft") is not None


def test_a_context_without_room_for_a_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "_OWN", 20)
    short = write_model(tmp_path / "short", layers=1, max_position_embeddings=16)
    with pytest.raises(DataError, match=r"0 texts have come.*of the model's 16"):
        distill_head(HeadSettings(model=str(short), minutes=1e-3), tmp_path / "draft")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_command_makes_a_head_and_others_guess_with_it(recipe, model, run, tmp_path, monkeypatch):
    monkeypatch.setattr(HeadTraining, "_affordable", lambda self, spent: 20)
    (tmp_path / "mine.jsonl").write_text(
        '{"prompt": "Is it so?"}\n{"messages": [{"role": "user", "content": "Why?"}]}\n'
    )
    mine = str(tmp_path / "mine.jsonl")
    own = {"eagle": ("--intermediate-size", "32"), "medusa": ("--steps", "2")}[recipe]
    options = (
        "--recipe",
        recipe,
        "--minutes",
        "0.001",
        "--max-tokens",
        "24",
        "--draft-vocab-size",
        "64",
        "--prompts",
        mine,
        *own,
    )
    code, out, err = run("distill", model, "--draft", tmp_path / "draft", *options)
    assert code == 0, err
    assert SavedHead.load(tmp_path / "draft").shape.recipe == recipe
    assert "tokens a forward" in out and f"--decoder auto --drafter {tmp_path / 'draft'}" in out and "step 20/20" in err
    plain = run("generate", model, "What?", "--max-tokens", "30")[1]
    for decoder in ("auto", "speculative"):
        guessing = ("--decoder", decoder, "--drafter", str(tmp_path / "draft"), "--stats")
        code, out, err = run("generate", model, "What?", "--max-tokens", "30", *guessing)
        assert code == 0 and out == plain and "guesses" in err
