"""Fusing and placing keep every bit, and no value is overwritten while somebody still reads it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.checkpoint import quantize_tensor
from fastdistill.models import plan_for
from fastdistill.models.builder import Builder
from fastdistill.runtime.lowering import STEPS, Program, lower
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.runtime.network import Network
from fastdistill.runtime.pool import Pool, Seat
from fastdistill.runtime.read import Read
from tests.small_models import CONFIGS, FORMATS, config, network, tensors
from tests.strategies import LOGITS, Setting, assert_rows, bits, cut, settings_of_models, token_lists

TAPS = ("embedding", "layers.0", "layers.1")
PROGRAMS = [dict(fuse=fuse, keep=keep) for fuse in (False, True) for keep in (False, True)]


def session_with(setting: Setting, taps=(), **program):
    session = setting.session(taps=taps)
    made = session.network
    executor = NativeExecutor(made.plan, made.weights, session.max_rows, made.threads, taps, **program)
    session.pool = Pool(lambda: Seat(executor, session.max_rows, made.threads))
    session.arena = executor._arena
    return session


@given(
    setting=settings_of_models,
    program=st.sampled_from(PROGRAMS),
    text=token_lists(1, 16),
    tapped=st.booleans(),
    data=st.data(),
)
def test_fused_or_not_and_kept_or_not_programs_give_the_same_bits(isa, setting, program, text, tapped, data):
    session = session_with(setting, TAPS if tapped else (), **program)
    want = setting.session(taps=TAPS, max_rows=16).forward(text, read=Read(hidden=True))
    for piece in cut(data.draw, len(text), setting.max_rows):
        rows = session.forward(text[piece], read=Read(logits=True, hidden=True))
        assert_rows(rows, setting.oracle.rows(text)[piece])
        np.testing.assert_array_equal(bits(rows.hidden), bits(want.hidden[piece]))
        for name, array in rows.taps.items():
            np.testing.assert_array_equal(bits(array), bits(want.taps[name][piece]), name)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_pass_reads_nothing_of_the_arena_that_it_has_not_written(isa, name, format, fuse):
    """The arena full of NaN before each pass: of rows before this one, of padding, of values whose place is shared."""
    setting, text = Setting(name, format, 2), [1, 2, 3, 4, 5, 0]
    session, start = session_with(setting, TAPS, fuse=fuse), 0
    for size in (4, 1, 1):
        session.arena[:] = np.nan
        assert_rows(
            session.forward(text[start : start + size], read=LOGITS), setting.oracle.rows(text)[start : start + size]
        )
        start += size


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_going_on_from_an_exit_reads_nothing_of_the_arena_but_the_rows(isa, name, fuse):
    setting, text = Setting(name, "f32", 2), [1, 2, 3, 4]
    session = session_with(setting, fuse=fuse)
    session.forward(text, layers=(0, 1))
    session.arena[:] = np.nan
    assert_rows(session.forward(layers=(1, 2), read=LOGITS), setting.oracle.rows(text))


def assert_apart(program: Program) -> None:
    """Lifetimes by stage, from the steps alone: in no stage do two living values share a float, but one that the last to read the other writes."""
    stages = program.stages(program.steps)
    stage_of = np.repeat(np.arange(len(stages)), stages)
    alive: dict[int, list[int]] = {}
    steps: dict[int, list[int]] = {}
    for number, (stage, step) in enumerate(zip(stage_of, program.steps, strict=True)):
        for value in (*step.inputs, *step.outputs):
            alive.setdefault(value, []).append(stage)
            steps.setdefault(value, []).append(number)
    for value, when in alive.items():
        for other, then in alive.items():
            overlap = min(when) <= max(then) and min(then) <= max(when)
            if value >= other or not overlap:
                continue
            a, b = program.places[value], program.places[other]
            apart = a + program.widths[value] <= b or b + program.widths[other] <= a
            mine, others = steps[value], steps[other]
            in_place = a == b and (max(mine) <= min(others) or max(others) <= min(mine))  # an add over its residual
            assert apart or in_place, (value, other)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_values_that_live_at_once_lie_apart(name, quantised, fuse):
    plan = plan_for(config(name, layers=3))
    held = {weight: quantised for weight in plan.weights}
    program = lower(plan, held, ("embedding", "layers.1"), fuse=fuse)
    assert_apart(program)
    assert len({program.places[value] for value in plan.boundaries}) == 1


def test_a_residual_that_is_read_again_is_not_written_over():
    """No model here does so: x + a(x), and then b(x) beside it."""
    b = Builder()
    x = b.embedding("embedding", 30, 64)
    first = b.add(x, b.linear(x, "a", 64))
    leaving = b.add(first, b.linear(x, "b", 64))
    hidden = b.rms_norm(b.read(leaving), "norm", 1e-5)
    outputs = {"logits": b.head(hidden, "head", 30), "hidden": hidden}
    facts = dict(vocab_size=30, hidden_size=64, max_positions=8, architecture="none")
    plan = b.plan(leaving, outputs, {}, **facts)
    for fuse in (False, True):
        program = lower(plan, {weight: False for weight in plan.weights}, fuse=fuse)
        assert_apart(program)
        assert program.places[first] != program.places[x]


def test_a_residual_that_a_later_step_of_its_stage_reads_is_not_written_over():
    """As where blocks stand side by side and pairs of low rank beside their linears: x + f(x), and then norm(x)."""
    b = Builder()
    x = b.embedding("embedding", 30, 64)
    first = b.add(x, b.scale(b.linear(x, "a", 64), 0.5))
    leaving = b.add(first, b.linear(b.rms_norm(x, "norm", 1e-5), "b", 64))
    plan = b.plan(leaving, {"hidden": leaving}, {}, vocab_size=30, hidden_size=64, max_positions=8, architecture="none")
    program = lower(plan, dict.fromkeys(plan.weights, False))
    assert_apart(program)
    assert program.places[first] != program.places[x]


@pytest.mark.parametrize("fuse", [True, False])
def test_a_stage_is_one_step_or_several_that_treat_each_row_on_its_own(fuse):
    plan = plan_for(config())
    program = lower(plan, {weight: True for weight in plan.weights}, TAPS, fuse=fuse)
    counts, start = program.stages(program.steps), 0
    assert sum(counts) == len(program.steps)
    for count in counts:
        steps = program.steps[start : start + count]
        assert count == 1 or all(STEPS[step.kind].row_wise for step in steps)
        assert len({step.reads for step in steps}) == 1
        start += count


def test_fusing_leaves_four_linears_a_layer():
    """q, k, v; out and residual; gate, up and their product; down and residual."""
    plan = plan_for(config("plain", layers=2))
    program = lower(plan, {weight: True for weight in plan.weights})
    linears = [step for step in program.steps if step.kind == "linear"]
    assert [(len(step.weights), step.epilogue) for step in linears] == [
        (3, "FD_STORE_ONLY"),
        (1, "FD_RESIDUAL"),
        (2, "FD_GATED"),
        (1, "FD_RESIDUAL"),
    ] * 2
    assert not [step for step in program.steps if step.kind in ("add", "gated")]


def test_mixed_formats_share_a_step_and_codes():
    """q in q8 beside k in f32: the step reads floats and codes of the same rows."""
    plan = plan_for(config())
    made = tensors(plan, 1, "f32")
    for number, name in enumerate(made):
        if len(made[name].shape) == 2:
            made[name] = quantize_tensor(made[name], FORMATS[number % 5])
    fused = Network(plan, made, threads=2).session(32, max_rows=8)
    plain = Network(plan, made, threads=1).session(32, max_rows=8)
    executor = NativeExecutor(plan, plain.network.weights, 8, 1, fuse=False)
    plain.pool = Pool(lambda: Seat(executor, 8, 1))
    want = np.concatenate([bits(plain.forward([token], read=LOGITS).logits) for token in range(8)])
    assert_rows(fused.forward(range(8), read=LOGITS), want)
    reference = Network(plan, made, executor="reference").session(32).forward(range(8), read=LOGITS)
    # One flipped int8 code moves a logit by about a code's size, 1/127 of a value near one.
    np.testing.assert_allclose(want.view(np.float32), reference.logits, atol=0.05)


def test_every_network_of_the_tests_has_every_tap():
    assert set(network().plan.taps) == set(TAPS)
