"""Optimisers against closed references over many steps, and what a step may depend on."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.lib.peers import REASON
from fastdistill.errors import ArgumentError, BusyError, NotFiniteError
from fastdistill.reference.train.adamw_step import adamw_step as reference_adamw_step
from fastdistill.reference.train.sgd_step import sgd_step as reference_sgd_step
from fastdistill.train.optimisers import EMA, SGD, AdamW, Group, Schedule, clip_norm
from fastdistill.train.parameters import Parameter

SHAPES = {"embed.weight": (40, 3), "layers.0.mlp.up.weight": (16, 64), "layers.0.norm.weight": (33,), "head.bias": (7,)}


def parameters(seed: int = 0) -> dict[str, Parameter]:
    random = np.random.default_rng(seed)
    found = {}
    for name, shape in SHAPES.items():
        size = -(-shape[0] // 32) * 32 * int(np.prod(shape[1:]))
        found[name] = Parameter(name, shape, np.zeros(size, np.float32), np.zeros(size, np.float32))
        found[name].assign(random.standard_normal(shape).astype(np.float32))
    return found


def set_gradients(parameters, step: int, scale: float = 1.0) -> None:
    random = np.random.default_rng(1000 + step)
    for parameter in parameters.values():
        gradient = (random.standard_normal(parameter.shape) * scale).astype(np.float32)
        parameter.assign(gradient, to=parameter.gradient)


def values(parameters) -> dict[str, np.ndarray]:
    return {name: parameter.to_array() for name, parameter in parameters.items()}


def taken(optimiser, steps: range, rate=0.01, clip=None) -> dict[str, bytes]:
    """Take steps; the bits of the values and of what is kept."""
    for step in steps:
        set_gradients(optimiser.parameters, step)
        if clip:
            optimiser.clip(clip)
        optimiser.step(rate)
    kept = {name: array.tobytes() for name, array in optimiser.state.items()}
    return kept | {name: parameter.value.tobytes() for name, parameter in optimiser.parameters.items()}


OPTIMISERS = {
    "AdamW": (partial(AdamW, weight_decay=0.1), reference_adamw_step, 2, {"weight_decay": 0.1}),
    "SGD": (SGD, reference_sgd_step, 0, {}),
    "momentum": (
        partial(SGD, momentum=0.9, weight_decay=0.1), reference_sgd_step, 1, {"momentum": 0.9, "weight_decay": 0.1},
    ),
    "Nesterov, decoupled": (
        partial(SGD, momentum=0.9, nesterov=True, weight_decay=0.1, decoupled=True), reference_sgd_step, 1,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "decoupled": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMISERS)
def test_many_steps_are_those_of_the_reference(name):
    """100 steps in float64, clipped, with a decay of matrices alone."""
    make, reference, kept, settings = OPTIMISERS[name]
    optimiser = make(parameters())
    want = {
        each: [value.astype(np.float64), *np.zeros((kept, *value.shape))]
        for each, value in values(optimiser.parameters).items()
    }
    for step in range(1, 101):
        set_gradients(optimiser.parameters, step)
        gradients = {each: p.to_array(p.gradient).astype(np.float64) for each, p in optimiser.parameters.items()}
        norm = np.sqrt(sum(np.square(gradient).sum() for gradient in gradients.values()))
        assert optimiser.clip(20.0) == pytest.approx(norm, rel=1e-12)
        optimiser.step(0.01)
        for each, (value, *moments) in want.items():
            decay = settings.get("weight_decay", 0.0) if value.ndim > 1 else 0.0
            count = {"step": step} if kept == 2 else {}
            how = settings | {"weight_decay": decay} | count
            scale = min(1, 20 / norm)
            new = reference(value, gradients[each], *moments, learning_rate=0.01, gradient_scale=scale, **how)
            want[each] = [new[0], *new[2 : 2 + kept]]
        assert not any(parameter.gradient.any() for parameter in optimiser.parameters.values())
    assert optimiser.steps == 100
    for each, parameter in optimiser.parameters.items():
        np.testing.assert_allclose(parameter.to_array(), want[each][0], rtol=2e-6, atol=2e-6)
        padded = parameter.value.copy()
        parameter.assign(parameter.to_array())
        assert padded.tobytes() == parameter.value.tobytes()  # what pads has stayed zero


@pytest.mark.parametrize("name", OPTIMISERS)
@given(cut=st.integers(0, 9))
def test_what_goes_on_from_its_state_has_the_same_bits(name, cut):
    make = OPTIMISERS[name][0]
    whole = make(parameters(), threads=1)
    want = taken(whole, range(9), clip=5.0)
    begun, later = make(parameters()), make(parameters(seed=1), threads=2)
    taken(begun, range(cut), clip=5.0)
    later.steps = begun.steps
    assert later.state.keys() == begun.state.keys()
    for each, array in begun.state.items():
        assert array.dtype == np.float32
        later.state[each][:] = array
    for each, parameter in begun.parameters.items():
        later.parameters[each].value[:] = parameter.value
    assert taken(later, range(cut, 9), clip=5.0) == want


def test_clipping_scales_the_gradient():
    """A step of plain descent is along the clipped gradient; what is short enough is left as it is."""
    optimiser = SGD(parameters())
    for most, scale in ((1e9, 1.0), (None, 1.0), (0.5, None)):
        before = values(optimiser.parameters)
        set_gradients(optimiser.parameters, 0)
        gradients = {name: p.to_array(p.gradient) for name, p in optimiser.parameters.items()}
        norm = clip_norm(optimiser.parameters).norm
        if most:
            assert optimiser.clip(most) == norm
        optimiser.step(0.5)
        for name, value in values(optimiser.parameters).items():
            want = before[name] - 0.5 * gradients[name] * (scale or 0.5 / norm)
            np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-7)


def test_the_norm_is_that_of_all_gradients_together():
    some = parameters()
    some["head.bias"].gradient[:2] = 3, 4
    some["embed.weight"].gradient[5] = -12
    assert clip_norm(some) == (13.0, 1.0) and clip_norm(some, 6.5) == (13.0, 0.5) and clip_norm({}) == (0.0, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("make", [AdamW, SGD])
def test_a_gradient_that_is_not_finite_is_named_and_nothing_has_changed(make, bad, clip):
    optimiser = make(parameters())
    want = taken(optimiser, range(2))
    set_gradients(optimiser.parameters, 2)
    gradient = optimiser.parameters["layers.0.norm.weight"].gradient
    gradient[[2, 20]] = bad
    expected = rf"^the gradient of layers\.0\.norm\.weight is not finite: 2 of its 64 numbers, the first of them {bad}$"
    with pytest.raises(NotFiniteError, match=expected):
        optimiser.clip(clip) if clip else optimiser.step(0.1)
    assert optimiser.steps == 2 and taken(optimiser, range(0)) == want
    gradient[:] = 1e19
    for call in (lambda: optimiser.step(0.1), lambda: optimiser.clip(np.inf), lambda: optimiser.clip(5e19)):
        with pytest.raises(NotFiniteError, match="the norm of the gradients is 8e\\+19, beyond 1e\\+19: clip them"):
            call()
    assert optimiser.steps == 2 and taken(optimiser, range(0)) == want
    optimiser.clip(1.0)
    optimiser.step(0.1)
    assert np.isfinite(optimiser.parameters["layers.0.norm.weight"].value).all()


def test_the_first_group_that_matches_says_what_holds():
    """Of a gradient of zeros what is left of a step is the decay."""
    groups = (
        Group("*.mlp.*", learning_rate_factor=0.5),
        Group("layers.*", weight_decay=0.3),
        Group("head.bias", learning_rate_factor=0.0, weight_decay=9.0),
    )
    optimiser = AdamW(parameters(), weight_decay=0.1, groups=groups)
    before = values(optimiser.parameters)
    optimiser.step(0.5)
    left = {"embed.weight": 0.95, "layers.0.mlp.up.weight": 0.975, "layers.0.norm.weight": 0.85, "head.bias": 1}
    for name, value in values(optimiser.parameters).items():
        np.testing.assert_allclose(value, before[name] * left[name], rtol=2e-7)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: AdamW(parameters(), groups=[Group("layer.*")]), r"groups\[0\] is that of no parameter: 'layer\.\*' matches none"),
        (lambda: AdamW(parameters(), groups=[Group("*"), Group("head.*")]), r"groups\[1\] is that of no parameter"),
        (lambda: AdamW(parameters(), groups=["*"]), r"groups\[0\] must be a Group"),
        (lambda: AdamW(parameters(), beta2=1.0), "beta2 must lie in"),
        (lambda: AdamW(parameters(), weight_decay=-1.0), "weight_decay must lie in"),
        (lambda: AdamW(parameters(), threads=0), "threads must lie in"),
        (lambda: AdamW(parameters()).step(np.nan), "learning_rate must lie in"),
        (lambda: AdamW(parameters()).clip(0.0), "most must lie in"),
        (lambda: SGD(parameters(), momentum=2.0), "momentum must lie in"),
        (lambda: SGD(parameters(), nesterov=True), "velocity must be given where there is momentum"),
        (lambda: Group("*", learning_rate_factor=-1), "learning_rate_factor must lie in"),
        (lambda: Group(3), "pattern must be a str"),
        (lambda: EMA(parameters(), 1.5), "decay must lie in 0..1"),
        (lambda: Schedule("square", 1.0), "shape must be one of constant, linear, cosine"),
        (lambda: Schedule("cosine", 1.0), "steps must say where a cosine schedule ends, got None"),
        (lambda: Schedule("linear", 1.0, steps=3, warm_up=4), "steps must lie in 4"),
        (lambda: Schedule("linear", 0.1, steps=3, floor=0.2), "floor must lie in 0..0.1"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()


# ---- schedules ----
@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        (Schedule("constant", 2.0), [2, 2, 2]),
        (Schedule("constant", 2.0, warm_up=4), [0.5, 1, 1.5, 2, 2, 2]),
        (Schedule("linear", 1.0, steps=4), [1, 0.75, 0.5, 0.25, 0, 0]),
        (Schedule("linear", 1.0, steps=6, warm_up=2, floor=0.5), [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.5]),
        (Schedule("cosine", 1.0, steps=5, warm_up=1), [1, 1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0, 0]),
        (Schedule("cosine", 3.0, steps=2, floor=1.0), [3, 2, 1, 1]),
        (Schedule("linear", 1.0, steps=0, floor=0.25), [0.25]),
        (Schedule("cosine", 1.0, steps=2, warm_up=2), [0.5, 1, 0]),
    ],
)
def test_known_learning_rates(schedule, want):
    np.testing.assert_allclose([schedule(step) for step in range(len(want))], want, rtol=0, atol=1e-15)


@given(
    shape=st.sampled_from(["constant", "linear", "cosine"]),
    steps=st.integers(0, 50),
    warm_up=st.integers(0, 50),
    floor=st.floats(0, 1),
)
def test_a_schedule_rises_to_its_peak_and_falls_to_its_floor(shape, steps, warm_up, floor):
    schedule = Schedule(shape, 1.0, steps=steps + warm_up, warm_up=warm_up, floor=floor)
    rates = [schedule(step) for step in range(steps + warm_up + 3)]
    assert np.diff(rates[:warm_up]).min(initial=0) >= 0 and np.diff(rates[warm_up:]).max(initial=0) <= 0
    assert min(rates[warm_up:]) >= floor - 1e-15 and max(rates[: warm_up + steps], default=1) == 1
    assert rates[-1] == (1 if shape == "constant" else pytest.approx(floor, abs=1e-15))


# ---- means over steps ----
def test_the_mean_is_the_closed_one():
    """(1 - decay) sum of decay^(n - s) values[s], and decay^n of the first."""
    some = parameters()
    mean, seen = EMA(some, 0.75), [values(some)]
    for seed in range(1, 9):
        for name, value in values(parameters(seed)).items():
            some[name].assign(value)
        seen.append(values(some))
        mean.update()
    shares = [0.75**8, *(0.25 * 0.75 ** (8 - step) for step in range(1, 9))]
    for name, parameter in some.items():
        want = sum(share * each[name].astype(np.float64) for share, each in zip(shares, seen, strict=True))
        np.testing.assert_allclose(parameter.to_array(mean.state[name]), want, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(parameter.to_array(), seen[-1][name])


def test_parameters_are_their_means_inside_a_block():
    some = parameters()
    mean = EMA(some, 0.5)
    for parameter in some.values():
        parameter.value[:] *= 3
    mean.update()
    kept, before = {name: array.copy() for name, array in mean.state.items()}, values(some)
    memory = {name: parameter.value for name, parameter in some.items()}
    with pytest.raises(KeyError), mean.swapped():
        for name, parameter in some.items():
            assert parameter.value is memory[name] and parameter.value.tobytes() == kept[name].tobytes()
        with pytest.raises(BusyError, match="inside `swapped`"):
            mean.update()
        with pytest.raises(BusyError), mean.swapped():
            pass
        raise KeyError
    for name, value in values(some).items():
        assert value.tobytes() == before[name].tobytes() and mean.state[name].tobytes() == kept[name].tobytes()


def test_a_mean_that_keeps_all_or_nothing():
    some = parameters()
    still, latest = EMA(some, 1.0), EMA(some, 0.0)
    before = {name: array.copy() for name, array in still.state.items()}
    set_gradients(some, 0)
    SGD(some).step(0.1)
    still.update()
    latest.update()
    for name, parameter in some.items():
        assert still.state[name].tobytes() == before[name].tobytes()
        np.testing.assert_allclose(latest.state[name], parameter.value, rtol=0, atol=1e-6)


# ---- torch ----
@pytest.mark.peers
@pytest.mark.parametrize("name", OPTIMISERS)
def test_ten_steps_are_those_of_torch(name):
    """Its steps in float64: in float32 it rounds more than these do."""
    torch = pytest.importorskip("torch", reason=REASON.format("torch"))
    make, _, kept, settings = OPTIMISERS[name]
    if settings.get("decoupled"):
        settings = settings | {"weight_decay": 0.0}  # torch has none of these
        make = partial(make, weight_decay=0.0)
    optimiser = make(parameters())
    theirs = {
        each: torch.nn.Parameter(torch.from_numpy(value).double())
        for each, value in values(optimiser.parameters).items()
    }
    decay = settings.get("weight_decay", 0.0)
    groups = [
        {"params": [p for p in theirs.values() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in theirs.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    how = {key: value for key, value in settings.items() if key in ("momentum", "nesterov")}
    peer = torch.optim.AdamW(groups, lr=0.01) if kept == 2 else torch.optim.SGD(groups, lr=0.01, **how)
    for step in range(10):
        set_gradients(optimiser.parameters, step)
        for each, parameter in optimiser.parameters.items():
            theirs[each].grad = torch.from_numpy(parameter.to_array(parameter.gradient)).double()
        norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 20.0)
        assert optimiser.clip(20.0) == pytest.approx(float(norm), rel=1e-12)
        optimiser.step(0.01)
        peer.step()
    for each, value in values(optimiser.parameters).items():
        np.testing.assert_allclose(value, theirs[each].detach().numpy(), rtol=0, atol=1e-6)
