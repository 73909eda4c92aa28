"""Plans of other shapes: every layer can be left and entered, an encoder gives what it has, whatever the shape."""

from __future__ import annotations

import functools
from itertools import pairwise

import numpy as np
import pytest

from fastdistill.errors import ArgumentError, CheckpointError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models.builder import Builder
from fastdistill.runtime.lowering import lower
from fastdistill.runtime.network import Network
from fastdistill.runtime.read import Read
from tests.plans import FACTS, LAYERS, VOCAB, WIDTH, encoder_decoder, feed_forward, layered, text
from tests.runtime.test_lowering import assert_apart
from tests.small_models import FORMATS, tensors
from tests.strategies import LOGITS, bits

EVERYTHING = Read(logits=True, hidden=True)
COUNT = 3


@functools.cache
def network(layer: str, format: str, executor: str = "native", head: bool = True, count: int = COUNT) -> Network:
    made, whole = (layered(LAYERS[layer], n, head) for n in (count, COUNT))
    of_whole = tensors(whole, 1, format)
    return Network(made, {name: of_whole[name] for name in made.weights}, threads=2, executor=executor)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("layer", LAYERS)
def test_native_and_reference_agree(isa, layer, format):
    words = text(20)
    got = network(layer, format).session(32).forward(words, read=EVERYTHING)
    want = network(layer, format, "reference").session(32).forward(words, read=EVERYTHING)
    # Rounded activations flip a code here and there: 1/127 of a value near one, through three layers.
    bound = 1e-4 if format in ("f32", "f16", "bf16") else 0.1
    np.testing.assert_allclose(got.logits, want.logits, atol=bound)
    np.testing.assert_allclose(got.hidden, want.hidden, atol=bound)


@pytest.mark.parametrize("executor", ["native", "reference"])
@pytest.mark.parametrize("format", ["f32", "q8", "q4"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_run_in_parts_give_the_bits_of_all_at_once(isa, layer, format, executor):
    words, made = text(9), network(layer, format, executor)
    want = made.session(32).forward(words, read=EVERYTHING)
    for cuts in ([0, 1, 3], [0, 2, 3], [0, 1, 2, 3]):
        session = made.session(32)
        for first, end in pairwise(cuts):
            if executor == "native":
                seat = session.pool.take()
                seat.executor._arena[:] = np.nan
                session.pool.give_back(seat)
            got = session.forward(*[words] * (first == 0), layers=(first, end), read=EVERYTHING)
        np.testing.assert_array_equal(bits(got.logits), bits(want.logits))
        np.testing.assert_array_equal(bits(got.hidden), bits(want.hidden))


@pytest.mark.parametrize("format", ["f32", "q8"])
@pytest.mark.parametrize("layer", LAYERS)
def test_rows_run_one_by_one_give_the_bits_of_all_at_once(isa, layer, format):
    """Whatever the arena held."""
    words, made = text(9), network(layer, format)
    whole, one = made.session(32), made.session(32)
    for session in (whole, one):
        seat = session.pool.take()
        seat.executor._arena[:] = np.nan
        session.pool.give_back(seat)
    want = whole.forward(words, read=EVERYTHING).logits
    got = [one.forward([word], read=EVERYTHING).logits for word in words]
    np.testing.assert_array_equal(bits(np.concatenate(got)), bits(want))


@pytest.mark.parametrize("format", ["f32", "q4"])
@pytest.mark.parametrize("end", [1, 2])
@pytest.mark.parametrize("layer", LAYERS)
def test_an_early_exit_is_the_model_of_fewer_layers(isa, layer, end, format):
    words = text(9)
    got = network(layer, format).session(32).forward(words, layers=(0, end), read=EVERYTHING)
    want = network(layer, format, count=end).session(32).forward(words, read=EVERYTHING)
    np.testing.assert_array_equal(bits(got.logits), bits(want.logits))
    np.testing.assert_array_equal(bits(got.hidden), bits(want.hidden))


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_values_that_live_at_once_lie_apart(layer, quantised, fuse):
    plan = layered(LAYERS[layer], COUNT)
    program = lower(plan, dict.fromkeys(plan.weights, quantised), ("layers.0", "layers.2"), fuse=fuse)
    assert_apart(program)
    for step in program.steps:  # what leaves a layer is not written over by what follows the last one
        for value in step.outputs if step.segment == "exit" else ():
            for boundary in plan.boundaries:
                begin, other = program.places[value], program.places[boundary]
                assert begin + program.widths[value] <= other or other + WIDTH <= begin


@pytest.mark.parametrize("format", ["f32", "q8"])
def test_an_encoder_gives_its_outputs_and_no_logits(isa, format):
    words = text(6)
    session = network("post-norm", format, head=False).session(32)
    got = session.forward(words, nodes=[0] * 6, parents=[-1], rows=[0, 3])
    want = network("post-norm", format, "reference", head=False).session(32)
    want = want.forward(words, nodes=[0] * 6, parents=[-1], rows=[0, 3])
    assert got.outputs["hidden"].shape == (6, WIDTH) and got.outputs["pooled"].shape == (2, 20)
    assert len(got.statistics.argmax) == len(want.statistics.argmax) == 0
    for name, array in got.outputs.items():
        np.testing.assert_allclose(array, want.outputs[name], atol=1e-4 if format == "f32" else 0.1)


@pytest.mark.parametrize("executor", ["native", "reference"])
@pytest.mark.parametrize(
    "read", [LOGITS, Read(sampler=Sampler()), Read(sampler=Sampler(temperature=1.0)), Read(log_prob_of=[1, 2, 3])]
)
def test_what_a_head_would_give_is_refused_without_one(read, executor):
    with pytest.raises(UnsupportedError, match="has no head"):
        network("post-norm", "f32", executor, head=False).session(32).forward([1, 2, 3], read=read)


@pytest.mark.parametrize("executor", ["native", "reference"])
def test_a_hidden_state_that_no_output_names_is_refused(executor):
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    with b.layer(0, x):
        x = feed_forward(b, x, "inner")
    plan = b.plan(x, {"logits": b.head(b.read(x), "head", VOCAB)}, {}, **FACTS)
    session = Network(plan, tensors(plan), executor=executor).session(8)
    with pytest.raises(UnsupportedError, match="names no output hidden: it gives logits"):
        session.forward([1, 2], read=Read(hidden=True))
    assert session.length == 0 and session.forward([1, 2], read=LOGITS).hidden is None


@pytest.mark.parametrize("executor", ["native", "reference"])
def test_a_session_of_a_plan_without_a_head_can_be_saved(tmp_path, executor):
    made, words = network("post-norm", "f32", executor, head=False), text(6)
    session = made.session(32)
    session.forward(words)
    session.save(tmp_path / "session")
    got = made.load_session(tmp_path / "session", 32).forward([3]).outputs
    for name, want in session.forward([3]).outputs.items():
        np.testing.assert_array_equal(bits(got[name]), bits(want))
    other = tensors(made.plan, 2)
    with pytest.raises(CheckpointError, match="another model"):
        Network(made.plan, other, executor=executor).load_session(tmp_path / "session")


@pytest.mark.parametrize("executor", ["native", "reference"])
def test_a_pass_that_lacks_keys_which_its_ops_see_is_refused(executor):
    plan = encoder_decoder()
    with pytest.raises(ArgumentError, match=r"attention \(layer 0\) needs the key set 'cross', which this pass lacks"):
        Network(plan, tensors(plan), executor=executor).session(16).forward([1, 2, 3])


def test_a_value_that_jumps_over_a_boundary_is_refused():
    b = Builder()
    x = b.embedding("embedding", 30, 32)
    with b.layer(0, x):
        inside = b.linear(x, "a", 32)
        y = b.add(x, inside)
    with b.layer(1, y):
        z = b.add(y, inside)
    with pytest.raises(AssertionError, match="add in layer 1 reads a value of layer 0 that does not enter it"):
        b.plan(z, {"hidden": z}, {}, **FACTS)
