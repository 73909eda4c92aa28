"""The native executor against the reference, op by op on the native inputs: end to end, a flipped code hides errors."""

from __future__ import annotations

from itertools import accumulate, pairwise, product
from types import SimpleNamespace

import numpy as np
import pytest

from fastdistill.checkpoint import Tensor
from fastdistill.errors import NotFiniteError
from fastdistill.kernels import isa as selected_isa
from fastdistill.kernels import isa_levels, set_isa
from fastdistill.models.builder import Builder
from fastdistill.ops import OPS, OWN, SUMS
from fastdistill.ops.activation import ACTIVATIONS
from fastdistill.ops.adjoints.attention import columns
from fastdistill.ops.adjoints.norm import normed_width
from fastdistill.ops.kind import same_width
from fastdistill.runtime.batch import joined
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.kv_cache import KVCache
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.runtime.network import Network
from fastdistill.runtime.read import Read
from fastdistill.runtime.reference_executor import ReferenceExecutor, ReferenceWeights
from fastdistill.runtime.source import encoding
from fastdistill.train.differentiate import differentiate, reverse_segments
from fastdistill.train.parameters import TrainedWeights
from tests.families import CASES, SOURCED, network
from tests.runtime import attention_bounds
from tests.runtime.gradient_bounds import EPS, GRADIENT_BOUNDS, rounded
from tests.small_models import CONFIGS, FORMATS, tensors
from tests.strategies import LOGITS
from tests.train.passes import chains, training_pass
from tests.train.plans import PLANS


def run_both(native, reference, tokens, context):
    """Each op's native inputs and output beside the reference's output on those inputs."""
    session = native.session(capacity=64, max_rows=16)
    if len(context):
        session.prefill(context)
    executor = NativeExecutor(native.plan, native.weights, 16, 2, fuse=False, keep=True)
    for cache in session.caches.values():
        cache.reserve(0, cache.slots)
    asked = Forward(tokens, read=Read(logits="logits" in native.plan.outputs))
    request = joined([(session, session.context.lay_out(asked))])
    outcome = executor.run(request)
    judge = ReferenceExecutor(reference.plan, reference.weights)
    rows = len(tokens)
    for op in native.plan.ops:
        inputs = [executor.value(value, rows) for value in op.inputs]
        got = outcome.logits if op.kind == "head" else executor.value(op.output, rows)
        want = judge.op(op, inputs, request)
        yield op, got, want, BOUNDS[op.kind](op, inputs, want, judge, request)


def assert_within_bounds(native, reference, tokens, context):
    for op, got, want, allowed in run_both(native, reference, tokens, context):
        error = np.abs(got - want)
        assert (error <= allowed).all(), f"{op.kind} {op.weights}: off by {error.max():g}"


@pytest.mark.parametrize("format", ["f32", "q8", "q4"])
@pytest.mark.parametrize("name", SOURCED)
def test_each_op_of_an_encoder_and_its_decoder_agrees_with_the_reference(isa, name, format):
    """In the pass that reads the source, and in one over what it has left."""
    native, reference = network(name, format), network(name, format, "reference")
    plan, source = native.plan, np.arange(40, 57, dtype=np.int32)
    executor = NativeExecutor(plan, native.weights, 32, 2, fuse=False, keep=True)
    judge = ReferenceExecutor(plan, reference.weights)
    session = native.session(capacity=64, max_rows=16)
    session.read_source(source)
    session.prefill([2, 5, 7])
    session.cache.reserve(0, session.cache.slots)
    asked = Forward([1, 8, 1, 60], read=LOGITS)
    checked = set()
    for request in (
        encoding(plan, [source], session.cache_format)[0],
        joined([(session, session.context.lay_out(asked))]),
    ):
        outcome, rows = executor.run(request), request.rows
        for op in plan.part(0, plan.num_layers, request.segments):
            inputs = [executor.value(value, rows) for value in op.inputs]
            if op.kind == "store":  # the reference puts there what has been put there
                (cache,) = request.keys(op.constants["key_set"]).caches
                stored = cache.read(op.constants["layer"], np.arange(rows))
                judge.op(op, inputs, request)
                np.testing.assert_array_equal(stored, cache.read(op.constants["layer"], np.arange(rows)))
            else:
                got = outcome.logits if op.kind == "head" else executor.value(op.output, rows)
                want = judge.op(op, inputs, request)
                error, allowed = np.abs(got - want), BOUNDS[op.kind](op, inputs, want, judge, request)
                assert (error <= allowed).all(), f"{op.kind} ({op.segment}) {op.weights}: off by {error.max():g}"
            checked.add(op.output)
    assert len(checked) == len(plan.ops)


# What rounding may do to an op, by kind: roundings on the way to a result, times the size of what is rounded.


def multiplied(op, inputs, want, judge, request):
    weight, *biases = (judge.weights.tensors[name] for name in op.weights)
    x, w, inputs_count = np.abs(inputs[0]), np.abs(weight.to_float32()), inputs[0].shape[1]
    roundings = inputs_count + 2  # one a term
    if weight.format in ("q8", "q4"):
        roundings = 4 * (inputs_count / 32 + 2)  # four a block
        x = x + x.max(axis=1, keepdims=True) / 127  # a code stands for at most one step more
    if weight.minimum is not None:  # what is summed is |scale code| + |minimum|, more than |weight|
        w = w + 2 * np.repeat(np.abs(weight.minimum.astype(np.float64)), 32, axis=1)[:, :inputs_count]
    return roundings * EPS * (x @ w.T + sum(np.abs(bias.to_float32()) for bias in biases))


def attended(op, inputs, want, judge, request):
    # A score is head_dim products, summed in head_dim steps of at most |q| |k|, then scaled: within `score` of the
    # true one.  Both exp's argument and the peak carry that error, exp 2 ulp more; then sums over the keys, ranks folded by
    # 16, and one division.  The result is an average of values: at most the largest of them.
    set_ = request.keys(op.constants.get("key_set", OWN))
    (cache,) = set_.caches
    head_dim, slots = op.constants["head_dim"], np.arange(cache.slots)
    keys, values = (np.abs(part.astype(np.float64)).max() for part in cache.read(op.constants["layer"], slots))
    size = np.abs(inputs[0]).max() * keys * head_dim * op.constants["scale"]
    score = (head_dim + 2) * EPS * size
    score += op.constants.get("softcap", 0) * (4 + 2) * EPS  # tanh within 2^-22; a quotient and a product
    distance = np.ptp(cache.positions(slots))
    score += 2 * EPS * np.abs(op.constants.get("slopes", 0)).max() * distance  # one rounding, of the sum of both
    for table in op.weights:  # one rounding of the sum
        score += EPS * (size + np.abs(judge.weights.tensors[table].to_float32()).max())
    seen = int(set_.runs[:, 1].max())
    return (4 * score + (2 * seen + 12) * EPS) * values


def normed(op, inputs, want, *_):
    return ((op.constants.get("head_dim") or inputs[0].shape[1]) / 16 + 12) * EPS * np.abs(want)


def layer_normed(op, inputs, want, judge, request):
    # The mean is off by `roundings` of the largest number; so is each difference, and the root of their mean square is not less than
    # a share of that: all is relative to the largest over the root.
    weight, bias = (
        np.tile(judge.weights.tensors[name].to_float32(), op.constants.get("heads", 1)) for name in op.weights
    )
    heads = inputs[0].astype(np.float64).reshape(len(want), -1, op.constants.get("head_dim") or want.shape[1])
    root = np.sqrt(heads.var(axis=2, keepdims=True) + op.constants["epsilon"])
    size = np.broadcast_to(np.abs(heads).max(axis=2, keepdims=True) / root + 1, heads.shape).reshape(want.shape)
    return (heads.shape[2] / 16 + 14) * 2 * EPS * (size * np.abs(weight) + np.abs(bias))


def activated(op, inputs, *_):
    # Of x times a share: exp's argument is rounded twice, at most 90 times 2^-24 each where the share is nothing, 4 where it
    # is a half; exp is within 2 ulp, then a sum, a quotient and a product.  gelu's polynomial is within 4e-8, its Horner steps
    # 18 roundings of decreasing size, and 1 - tail takes its error over.  tanh is within 2^-22, relu exact.
    return {"relu": 0, "tanh": 4 * EPS}.get(op.constants["activation"], 24 * EPS * np.abs(inputs[0]))


def routed(op, inputs, want, *_):
    # exp's argument is a difference, rounded once: of logits up to 32, 2 ulp of exp; sums and quotients over the experts.
    return (2 * np.abs(inputs[0]).max() + inputs[0].shape[1] / 16 + 12) * EPS * np.abs(want) * (want < 1)


def through_experts(op, inputs, want, judge, request):
    """As `multiplied`, of the largest expert; an activation and a product, or a sum over those picked, behind it."""
    matrices = [judge.weights.tensors[name] for name in op.weights]
    x, roundings = np.abs(inputs[0]).max(axis=1, keepdims=True), matrices[0].shape[1] + 40
    if matrices[0].format in ("q8", "q4"):
        x = x * (1 + 1 / 127)
    w = max(np.abs(matrix.to_float32()).sum(axis=1).max() for matrix in matrices)
    if matrices[0].minimum is not None:
        w = w + 2 * max(np.abs(matrix.minimum.astype(np.float64)).sum(axis=1).max() for matrix in matrices) * 32
    return roundings * EPS * x * w * ((1 + x * w) if op.kind == "experts_up" else 1) + 0 * np.abs(want)


def capped(op, inputs, want, judge, request):
    # tanh's slope is at most 1, and it is within 2^-22 of the cap; a quotient and a product.
    return multiplied(op, inputs, want, judge, request) + op.constants.get("softcap", 0) * (4 + 2) * EPS


BOUNDS = {
    "embedding": rounded(2),  # q4: one product, one sum
    "read": rounded(0),
    "rms_norm": normed,
    "linear": multiplied,
    "head": capped,
    "add": rounded(1),
    "position_embedding": rounded(2),
    "layer_norm": layer_normed,
    "scale": rounded(1),
    "activation": activated,
    "gated": lambda op, inputs, *rest: activated(op, inputs, *rest) * np.abs(inputs[1]) + rounded(1)(op, inputs, *rest),
    "sigmoid_mul": rounded(6),
    "route": routed,
    "experts_up": through_experts,
    "experts_down": through_experts,
    "experts_linear": through_experts,
    "softcap": lambda op, *_: op.constants["softcap"] * 6 * EPS,  # as `capped`
    "rotary": lambda op, inputs, *_: 4 * EPS * (np.abs(inputs[0]).max() * 2),
    "rotary_gradient": lambda op, inputs, *_: 4 * EPS * (np.abs(inputs[0]).max() * 2),
    "attention": attended,
    "store": rounded(0),
    **GRADIENT_BOUNDS,
    "columns": lambda op, inputs, *_: op.constants.get("heads", 0) * EPS * columns(np.abs(inputs[0]), **op.constants),
    **attention_bounds.BOUNDS,
}


def test_every_op_has_its_bound():
    assert BOUNDS.keys() == OPS.keys()


@pytest.mark.parametrize(
    ("name", "format"),
    [*product(CONFIGS, FORMATS), *((name, format) for name in CASES for format in ("f32", "q8", "q4"))],
)
def test_each_op_agrees_with_the_reference_on_the_native_inputs(isa, name, format):
    random, native = np.random.default_rng(5), network(name, format)
    tokens, context = (random.integers(0, native.plan.vocab_size, n) for n in (7, 20))
    assert_within_bounds(native, network(name, format, "reference"), tokens, context)


# What ops that treat each row on its own are tried with, whether or not a family here uses them.
CONSTANTS = {
    "epsilon": [1e-5], "factor": [0.7], "activation": list(ACTIVATIONS), "head_dim": [0], "heads": [1, 2], "softcap": [0.5],
}  # fmt: skip
ROW_BY_ROW = [
    (kind, constants, width)
    for kind in OPS.values()
    if kind.width in (same_width, normed_width) and not kind.of_pass
    for values in product(*(CONSTANTS[name] for name in kind.constants))
    for constants in [dict(zip(kind.constants, values, strict=True))]
    for width in [1, 16, 31, 32, 50]
    if width % constants.get("heads", 1) == 0
]


@pytest.mark.parametrize(
    "kind, constants, width",
    ROW_BY_ROW,
    ids=[f"{kind.name} {constants} {width}" for kind, constants, width in ROW_BY_ROW],
)
def test_an_op_alone_agrees_with_its_reference(isa, kind, constants, width):
    heads = constants.get("heads", 1)
    if not width % 2 and "head_dim" in constants:
        constants = constants | {"head_dim": width // 2}
    b = Builder()
    x = b.embedding("embedding", 40, 24)
    inputs = [b.linear(x, f"inputs.{i}", width) for i in range(max(kind.inputs))]
    weights = {f"weights.{i}": (width // heads,) for i, _ in enumerate(kind.weights)}
    y = b.op(kind.name, *inputs, weights=weights, **constants)
    plan = b.plan(y, {"hidden": y}, {}, vocab_size=40, hidden_size=24, max_positions=64, architecture="none")
    made = tensors(plan, 2)
    native, reference = (Network(plan, made, threads=2, executor=name) for name in ("native", "reference"))
    assert_within_bounds(native, reference, range(16), [])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_any_number(isa, name):
    """Within their bounds, and what is no number stays that."""
    sizes = [0, 1e-40, 1e-8, *np.logspace(-5, 2, 1000), 1e4, 1e13, 1e18]
    data = np.stack([sizes, np.negative(sizes)], axis=1).astype(np.float32)
    given = np.concatenate([data, [[np.inf, -np.inf], [np.nan, np.nan]]]).astype(np.float32)
    b = Builder()
    y = b.activation(b.embedding("embedding", *given.shape), name)
    facts = dict(vocab_size=len(given), hidden_size=2, max_positions=len(given), architecture="none")
    made = {"embedding": Tensor("embedding", "f32", given.shape, given)}
    session = Network(b.plan(y, {"hidden": y}, {}, **facts), made, threads=2).session(len(given), max_rows=len(given))
    got = session.forward(range(len(given)), read=Read(hidden=True)).hidden
    allowed = BOUNDS["activation"](SimpleNamespace(constants={"activation": name}), [data])
    assert (np.abs(got[:-2] - ACTIVATIONS[name](data)) <= allowed).all()
    np.testing.assert_array_equal(
        got[-2:], [[1, -1] if name == "tanh" else [np.inf, 0 if name == "relu" else np.nan], [np.nan] * 2]
    )


@pytest.mark.parametrize("kind", ["activation_gradient", "softcap_gradient"])
def test_slopes_of_any_number(isa, kind):
    """Times the number itself: where a function is flat the largest number has no gradient, where it is straight its own."""
    sizes = [*np.linspace(0, 20, 500), 87, 88, 89, 100, 1e4, 1e13, 1e18]
    data = np.stack([sizes, np.negative(sizes)], axis=1).astype(np.float32)
    facts = dict(vocab_size=len(data), hidden_size=2, max_positions=len(data), architecture="none")
    of = [dict(softcap=3.0)] if kind.startswith("softcap") else [dict(activation=name) for name in ACTIVATIONS]
    for constants in of:
        b = Builder()
        x = b.embedding("embedding", *data.shape)
        y = b.op(kind, x, x, **constants)
        network = Network(
            b.plan(y, {"hidden": y}, {}, **facts),
            {"embedding": Tensor("embedding", "f32", data.shape, data)},
            threads=2,
        )
        session = network.session(len(data), max_rows=len(data))
        got = session.forward(range(len(data)), read=Read(hidden=True)).hidden
        want = OPS[kind].reference(data, data, **constants)
        assert (np.abs(got - want) <= BOUNDS[kind](None, [data, data])).all(), constants
        ends = [0, 0] if constants.get("activation", "tanh") == "tanh" else [1, 0]
        np.testing.assert_array_equal(got[-3:], data[-3:] * np.float32(ends))


LENGTHS = [50, 1, 49]


def reversed_both(name, format, threads=2, passes=(LENGTHS,), fuse=False, checkpoint=False, trained=()):
    """The native executor and a judge, after passes of some sequences of LENGTHS and their reverse; the last pass, and its gradient."""
    random, plan = np.random.default_rng(7), PLANS[name]()
    rows = sum(LENGTHS)
    trained = trained or [
        name
        for name, weight in plan.weights.items()
        if format == "f32" or not weight.linear or name == "embedding.weight"
    ]
    made, held = differentiate(plan, trained, "hidden", checkpoint=checkpoint), tensors(plan, 2)
    weights = TrainedWeights(made, held, trained, format, threads)
    executor = NativeExecutor(made, weights, rows, threads, fuse=fuse, keep=not fuse)
    executor._arena[:] = np.nan
    caches = {key_set: KVCache(plan, rows, "f32", key_set) for key_set in plan.key_sets}
    for cache in caches.values():
        cache.reserve(0, rows)
    all_reads = np.sort(random.permutation(rows)[: rows - 3])
    all_tokens = random.integers(0, plan.vocab_size, rows)
    all_dy = random.standard_normal((len(all_reads), plan.widths[plan.outputs["hidden"]])).astype(np.float32)
    for lengths, (begin, end) in zip(passes, pairwise([0, *accumulate(map(sum, passes))]), strict=True):
        first, last = np.searchsorted(all_reads, [begin, end])
        reads, dy = all_reads[first:last] - begin, all_dy[first:last]
        request = training_pass(plan, all_tokens[begin:end], chains(lengths), reads, caches.get)
        executor.run(request)
        request.inputs, request.segments = dy, reverse_segments(made)
        executor.run(request)
    zeros = {name: np.zeros(plan.weights[name].shape) for name in trained}
    judge = ReferenceExecutor(made, ReferenceWeights(made, held, format, 1), gradients=zeros)
    judge.weights.tensors.update({name: held[name] for name in trained})
    return executor, judge, request, dy


@pytest.mark.parametrize(("name", "format"), [*product(PLANS, ["f32"]), *product(["linear", "experts"], FORMATS[1:])])
def test_each_op_of_a_reverse_agrees_with_the_reference_on_the_native_inputs(isa, name, format):
    """Gradients that several ops add to: a later sum rounds what an earlier one has left as often as its own."""
    executor, judge, request, dy = reversed_both(name, format)
    sums, allowed_of_sums = {}, {}
    for op in executor.plan.ops:
        if op.kind in ("head", "store"):
            continue
        rows_of = {
            value: len(request.read_rows) if value in executor.plan.read_values else request.rows
            for value in (*op.inputs, op.output)
        }
        inputs = [executor.value(value, rows_of[value]) for value in op.inputs]
        request.inputs = dy if op.segment.startswith("reverse") else None
        want = judge.op(op, inputs, request)
        summed = [name for role, name in OPS[op.kind].roles(op.weights) if role in SUMS]
        if not summed:
            got = executor.value(op.output, rows_of[op.output])
            allowed = BOUNDS[op.kind](op, inputs, want, judge, request)
            assert (np.abs(got - want) <= allowed).all(), f"{op.kind}: off by {np.abs(got - want).max():g}"
        else:
            allowed = BOUNDS[op.kind](op, inputs, judge.gradients[summed[0]], judge, request)
            for weight in summed:
                sums[weight] = sums.get(weight, 0) + 1
                allowed_of_sums[weight] = allowed_of_sums.get(weight, 0) + allowed
    for weight, count in sums.items():
        parameter = executor._weights.parameters[weight]
        error = np.abs(parameter.to_array(parameter.gradient) - judge.gradients[weight])
        assert (error <= count * allowed_of_sums[weight]).all(), f"{weight}: off by {error.max():g}"
        assert parameter.gradient.any() == judge.gradients[weight].any(), weight


@pytest.mark.parametrize("name", PLANS)
def test_a_reverse_has_the_same_bits_on_every_level_and_for_any_threads(name):
    """All that it writes: values, their padding, which is 0, and gradients."""
    before, found = selected_isa(), set()
    try:
        for level, threads in product(isa_levels(), (1, 3)):
            set_isa(level)
            executor, *_ = reversed_both(name, "f32", threads)
            for value, width in enumerate(executor.program.widths):
                if value in executor.program.places:
                    beyond = executor._view(value, executor.max_rows)[:, width:]
                    assert not beyond[~np.isnan(beyond)].any(), value
            found.add((executor._arena.tobytes(), *gradient_bits(executor)))
    finally:
        set_isa(before)
    assert len(found) == 1


def gradient_bits(executor):
    return [parameter.gradient.tobytes() for parameter in executor._weights.parameters.values()]


@pytest.mark.parametrize("name", PLANS)
def test_gradients_have_the_same_bits_however_rows_are_split_over_passes(name):
    whole, *split = (
        gradient_bits(reversed_both(name, "f32", passes=passes)[0])
        for passes in ([LENGTHS], [[50, 1], [49]], [[50], [1], [49]])
    )
    assert all(bits == whole for bits in split)


@pytest.mark.parametrize("format", ["f32", "q8"])
@pytest.mark.parametrize("name", PLANS)
def test_gradients_have_the_same_bits_with_steps_fused_and_layers_run_again(name, format):
    plain, *others = (
        gradient_bits(reversed_both(name, format, fuse=fuse, checkpoint=checkpoint)[0])
        for fuse, checkpoint in product([False, True], repeat=2)
    )
    assert all(bits == plain for bits in others)


def test_some_experts_can_be_trained_alone():
    some = ["0.gate3.weight", "0.up1.weight", "0.up4.weight", "2.down2.weight"]
    alone, all_of_them = (
        reversed_both("experts", "f32", trained=trained)[0]._weights.parameters for trained in (some, ())
    )
    for name in some:
        np.testing.assert_array_equal(alone[name].gradient, all_of_them[name].gradient)
        assert alone[name].gradient.any()


def routed_by(logits: np.ndarray, top_k: int, renormalised: bool, executor: str = "native") -> np.ndarray:
    """What a route makes of rows of logits, which stand in an embedding here."""
    rows, experts = logits.shape
    b = Builder()
    y = b.route(b.embedding("embedding", rows, experts), top_k, renormalised)
    plan = b.plan(y, {"hidden": y}, {}, vocab_size=rows, hidden_size=experts, max_positions=rows, architecture="none")
    made = {"embedding": Tensor("embedding", "f32", logits.shape, logits)}
    session = Network(plan, made, threads=2, executor=executor).session(rows, max_rows=rows)
    return session.forward(range(rows), read=Read(hidden=True)).hidden


@pytest.mark.parametrize("renormalised", [False, True])
@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (2, 2), (15, 3), (16, 16), (17, 17), (64, 8), (100, 33), (1023, 5), (1024, 1024)])  # fmt: skip
def test_a_row_goes_to_its_likeliest_experts(isa, experts, top_k, renormalised):
    """Ascending, whatever order they are likely in; of those that are as likely, to the first."""
    random, padded = np.random.default_rng(experts), -(-top_k // 16) * 16
    logits = np.stack([
        random.permutation(experts) / experts * 20, random.integers(0, 3, experts), np.zeros(experts), -np.arange(experts),
    ]).astype(np.float32)  # fmt: skip
    got = routed_by(logits, top_k, renormalised)
    want = np.sort(np.argsort(-logits, axis=1, kind="stable")[:, :top_k], axis=1)
    np.testing.assert_array_equal(got[:, :top_k], want)
    assert (got[:, top_k:padded] == -1).all() and (got[:, padded + top_k :] == 0).all()
    shares = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
    mass = np.take_along_axis(shares, want, 1) if renormalised else shares
    expected = np.take_along_axis(shares, want, 1) / mass.sum(axis=1, keepdims=True)
    bound = dict(
        rtol=(top_k + 52) * EPS, atol=1e-30
    )  # a sum of so many terms; exp's argument is up to 20, off by half a unit
    np.testing.assert_allclose(got[:, padded : padded + top_k], expected, **bound)
    np.testing.assert_allclose(routed_by(logits, top_k, renormalised, "reference"), got, **bound)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 15, 16, 32])
def test_a_route_of_what_is_no_number_is_refused(isa, value, at):
    logits = np.zeros((3, 33), np.float32)
    logits[1, at] = value
    with pytest.raises(NotFiniteError, match=r"route .* row 1"):
        routed_by(logits, 2, True)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e20])
@pytest.mark.parametrize("head", [0, 1, 2])
@pytest.mark.parametrize("kind", ["rms_norm", "layer_norm"])
def test_a_norm_of_any_head_that_has_none_is_refused(isa, kind, head, value):
    """The squares of 1e20 sum to infinity, and its row would become 0."""
    data = np.ones((3, 15), np.float32)
    data[1, 5 * head] = value
    b = Builder()
    vectors = ("weight",) if kind == "rms_norm" else ("weight", "bias")
    y = getattr(b, kind)(b.embedding("embedding", *data.shape), *vectors, 1e-5, head_dim=5)
    plan = b.plan(y, {"hidden": y}, {}, vocab_size=3, hidden_size=15, max_positions=3, architecture="none")
    made = {name: Tensor(name, "f32", (15,), np.ones(15, np.float32)) for name in vectors}
    made["embedding"] = Tensor("embedding", "f32", data.shape, data)
    with pytest.raises(NotFiniteError, match=rf"{kind} .* row 1"):
        Network(plan, made, threads=2).session(3).forward(range(3), read=Read(hidden=True))
